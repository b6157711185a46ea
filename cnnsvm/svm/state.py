"""A fitted TunedSVC as JSON and arrays, so that loading one runs no code."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cnnsvm.io.callbacks import without_callbacks
from cnnsvm.svm.machines import KERNELS, BinaryMachine, Kernel, KernelModel

if TYPE_CHECKING:
    from cnnsvm.svm.tuned_svc import TunedSVC

    Classifier = TypeVar("Classifier", bound=TunedSVC)

FORMAT = 2
MAX_LABEL = 4096  # bytes of a class label

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]


def to_state(classifier: "TunedSVC") -> tuple[Config, Arrays]:
    """Return a fitted classifier as a JSON-able dict and a dict of arrays.

    A TypeError is raised if a class label is none of bool, int, float and str.
    """
    models = classifier.models_
    names = getattr(classifier, "feature_names_in_", None)
    config = {
        "format": FORMAT,
        "params": _plain_params(classifier),
        "classes": _plain_classes(classifier.classes_),
        "classes_dtype": classifier.classes_.dtype.str,
        "feature_names": None if names is None else names.tolist(),
        "n_splits": classifier.n_splits_,
        "best_params": classifier.best_params_,
        "best_score": _plain_score(classifier.best_score_),
        "search_results": [
            result | {"score": _plain_score(result["score"])}
            for result in classifier.search_results_
        ],
        "models": [[asdict(machine.kernel) for machine in model.machines] for model in models],
    }
    arrays = {name: getattr(classifier, f"{name}_") for name in ("mean", "scale", "cv_decision")}
    if classifier.mixing_ is not None:
        arrays["mixing"] = classifier.mixing_
    for m, model in enumerate(models):
        arrays[f"model.{m}.slope"] = model.slope
        arrays[f"model.{m}.offset"] = model.offset
        arrays[f"model.{m}.intercept"] = np.array([each.intercept for each in model.machines])
        for k, machine in enumerate(model.machines):
            arrays[f"model.{m}.machine.{k}.vectors"] = machine.vectors
            arrays[f"model.{m}.machine.{k}.coef"] = machine.coef
    return config, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _plain_params(classifier: "TunedSVC") -> Config:
    """Return the parameters as JSON values, without the storage, which concerns the fit only."""
    params = without_callbacks(classifier.get_params(deep=False)) | {"storage": None}
    params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
    if not isinstance(params["kernel"], str):
        params["kernel"] = list(params["kernel"])
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    return params


def _plain_classes(classes: np.ndarray) -> list[Any]:
    values = classes.tolist()
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise TypeError(
                f"class label {value!r} cannot be written as JSON; labels must be bool, int, float "
                "or str. Convert y before fit."
            )
    return values


def _plain_score(score: float) -> float | None:
    return None if np.isnan(score) else score


def from_state(cls: "Callable[..., Classifier]", config: Config, arrays: Arrays) -> "Classifier":
    """Rebuild a fitted classifier; see :meth:`cnnsvm.svm.TunedSVC.from_state`."""
    if config.get("format") != FORMAT:
        raise ValueError(
            f"TunedSVC state has format {config.get('format')!r}, but this version reads {FORMAT}. "
            "Load it with the version that wrote it, or fit again."
        )
    try:
        return _rebuild(cls, config, arrays)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"TunedSVC state is damaged ({error!r}); write it again.") from error


def _rebuild(cls: "Callable[..., Classifier]", config: Config, arrays: Arrays) -> "Classifier":
    params = dict(config["params"])
    if not isinstance(params["kernel"], str):
        params["kernel"] = tuple(params["kernel"])
    classifier = cls(**params)
    classifier._validate_params()
    dtype = np.dtype(config["classes_dtype"])
    are_plain = all(isinstance(label, bool | int | float | str) for label in config["classes"])
    if dtype.kind not in "biufUO" or dtype.itemsize > MAX_LABEL or not are_plain:
        _refuse(f"labels of dtype {config['classes_dtype']!r}")
    classifier.classes_ = np.array(config["classes"], dtype=dtype)
    classifier.mean_, classifier.scale_ = arrays["mean"], arrays["scale"]
    classifier.n_features_in_ = len(classifier.mean_)
    if config["feature_names"] is not None:
        classifier.feature_names_in_ = np.array(config["feature_names"], dtype=object)
    classifier.n_splits_ = config["n_splits"]
    classifier.best_params_ = dict(config["best_params"])
    classifier.best_score_ = _score(config["best_score"])
    classifier.search_results_ = [
        result | {"score": _score(result["score"])} for result in config["search_results"]
    ]
    classifier.cv_decision_ = arrays["cv_decision"]
    classifier.mixing_ = arrays.get("mixing")  # None for two classes
    classifier.models_ = [
        _read_model(kernels, arrays, f"model.{m}") for m, kernels in enumerate(config["models"])
    ]
    _check_shapes(classifier)
    _check_answer(classifier)
    return classifier


def _score(score: float | None) -> float:
    return float("nan") if score is None else score


def _read_model(kernels: list[Config], arrays: Arrays, prefix: str) -> KernelModel:
    intercepts = arrays[f"{prefix}.intercept"]
    machines = []
    for k, kernel in enumerate(kernels):
        vectors, coef = (arrays[f"{prefix}.machine.{k}.{name}"] for name in ("vectors", "coef"))
        machines.append(BinaryMachine(Kernel(**kernel), vectors, coef, float(intercepts[k])))
    return KernelModel(machines, arrays[f"{prefix}.slope"], arrays[f"{prefix}.offset"])


def _check_answer(classifier: "Classifier") -> None:
    """Refuse a classifier that has no number for each class of the mean of its training rows."""
    n_classes = len(set(classifier.classes_.tolist()))
    found = classifier.decision_function(classifier.mean_[None])
    wanted = (1,) if n_classes == 2 else (1, n_classes)
    if n_classes != len(classifier.classes_) or n_classes < 2 or found.shape != wanted:
        _refuse(f"classes {classifier.classes_.tolist()!r:.60}")
    if not np.isfinite(found).all():
        _refuse("decisions that are not finite")


def _check_shapes(classifier: "TunedSVC") -> None:
    """Refuse arrays and kernels that do not fit the classes and features."""
    n_classes, n_features = len(classifier.classes_), classifier.n_features_in_
    n_machines = 1 if n_classes == 2 else n_classes
    mixing = classifier.mixing_
    if mixing is not None and (n_machines == 1 or mixing.shape != (n_classes, n_classes + 1)):
        _refuse(f"mixing of {n_classes} classes has the shape {mixing.shape}")
    for model in classifier.models_:
        if not len(model.machines) == len(model.slope) == len(model.offset) == n_machines:
            _refuse(f"{n_classes} classes take {n_machines} machines, got {len(model.machines)}")
        for machine in model.machines:
            if machine.kernel.name not in KERNELS:
                _refuse(f"kernel {machine.kernel.name!r} is none of {KERNELS}")
            if machine.vectors.shape != (len(machine.coef), n_features):
                expected = (len(machine.coef), n_features)
                _refuse(f"vectors have the shape {machine.vectors.shape}, expected {expected}")


def _refuse(reason: str) -> None:
    raise ValueError(f"TunedSVC state is damaged: {reason}; write it again.")

"""A fitted TunedSVC as JSON and arrays, so that loading one runs no code."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cnnsvm.svm.checks import check_params
from cnnsvm.svm.kernels import KERNELS, Kernel
from cnnsvm.svm.machine import BinaryMachine
from cnnsvm.svm.model import KernelModel

if TYPE_CHECKING:
    from cnnsvm.svm.tuned_svc import TunedSVC

    Classifier = TypeVar("Classifier", bound=TunedSVC)

FORMAT = 1

State = tuple[dict[str, Any], dict[str, np.ndarray]]


def to_state(classifier: "TunedSVC") -> State:
    """Return a fitted classifier as a JSON-able dict and a dict of arrays.

    Raises
    ------
    TypeError
        If a class label is none of bool, int, float and str.
    """
    arrays = {
        "mean": classifier.mean_,
        "scale": classifier.scale_,
        "oof_decision": classifier.oof_decision_,
    }
    if classifier.mixing_ is not None:
        arrays["mixing"] = classifier.mixing_
    models = []
    for m, model in enumerate(classifier.models_):
        models.append([asdict(machine.kernel) for machine in model.machines])
        arrays[f"model.{m}.slope"] = model.slope
        arrays[f"model.{m}.offset"] = model.offset
        arrays[f"model.{m}.intercept"] = np.array([mach.intercept for mach in model.machines])
        for k, machine in enumerate(model.machines):
            arrays[f"model.{m}.machine.{k}.vectors"] = machine.vectors
            arrays[f"model.{m}.machine.{k}.coef"] = machine.coef
    config = _describe(classifier) | {"models": models}
    return config, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _describe(classifier: "TunedSVC") -> dict[str, Any]:
    score = classifier.best_score_
    names = getattr(classifier, "feature_names_in_", None)
    return {
        "format": FORMAT,
        "params": _plain_params(classifier),
        "classes": _plain_classes(classifier.classes_),
        "classes_dtype": classifier.classes_.dtype.str,
        "feature_names": None if names is None else names.tolist(),
        "n_splits": classifier.n_splits_,
        "best_params": classifier.best_params_,
        "best_score": None if np.isnan(score) else score,
        "studies": [
            study | {"score": None if np.isnan(study["score"]) else study["score"]}
            for study in classifier.studies_
        ],
    }


def _plain_params(classifier: "TunedSVC") -> dict[str, Any]:
    """Return the parameters as Python values; the storage is a matter of the fit only."""
    params = classifier.get_params(deep=False) | {"storage": None}
    params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
    if not isinstance(params["kernel"], str):
        params["kernel"] = list(params["kernel"])
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    return params


def _plain_classes(classes: np.ndarray) -> list[Any]:
    values = classes.tolist()
    odd = [value for value in values if not isinstance(value, bool | int | float | str)]
    if odd:
        raise TypeError(
            f"class label {odd[0]!r} cannot be written as JSON; labels must be bool, int, float "
            "or str. Convert y before fit."
        )
    return values


def from_state(
    cls: "Callable[..., Classifier]", config: dict[str, Any], arrays: dict[str, np.ndarray]
) -> "Classifier":
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


def _rebuild(
    cls: "Callable[..., Classifier]", config: dict[str, Any], arrays: dict[str, np.ndarray]
) -> "Classifier":
    params = dict(config["params"])
    if not isinstance(params["kernel"], str):
        params["kernel"] = tuple(params["kernel"])
    classifier = cls(**params)
    check_params(classifier.get_params(deep=False))
    classifier.classes_ = np.array(config["classes"], dtype=np.dtype(config["classes_dtype"]))
    classifier.mean_, classifier.scale_ = arrays["mean"], arrays["scale"]
    classifier.n_features_in_ = len(classifier.mean_)
    if config["feature_names"] is not None:
        classifier.feature_names_in_ = np.array(config["feature_names"], dtype=object)
    classifier.n_splits_ = config["n_splits"]
    classifier.best_params_ = dict(config["best_params"])
    classifier.best_score_ = _or_nan(config["best_score"])
    classifier.studies_ = [s | {"score": _or_nan(s["score"])} for s in config["studies"]]
    classifier.oof_decision_ = arrays["oof_decision"]
    classifier.mixing_ = arrays.get("mixing")  # states from before it was fitted have none
    _check_mixing(classifier.mixing_, len(classifier.classes_))
    classifier.models_ = [
        _read_model(kernels, arrays, m, classifier) for m, kernels in enumerate(config["models"])
    ]
    return classifier


def _check_mixing(mixing: np.ndarray | None, n_classes: int) -> None:
    expected = (n_classes, n_classes + 1)
    if mixing is not None and (n_classes == 2 or mixing.shape != expected):
        raise ValueError(
            f"TunedSVC state is damaged: the mixing of {n_classes} classes has the shape "
            f"{expected}, got {mixing.shape}; write it again."
        )


def _or_nan(score: float | None) -> float:
    return float("nan") if score is None else score


def _read_model(
    kernels: list[dict[str, Any]],
    arrays: dict[str, np.ndarray],
    m: int,
    classifier: "TunedSVC",
) -> KernelModel:
    n_classes = len(classifier.classes_)
    n_machines = 1 if n_classes == 2 else n_classes
    slope, offset = arrays[f"model.{m}.slope"], arrays[f"model.{m}.offset"]
    intercept = arrays[f"model.{m}.intercept"]
    if not len(kernels) == len(slope) == len(offset) == len(intercept) == n_machines:
        raise ValueError(
            f"TunedSVC state is damaged: {n_classes} classes take {n_machines} machines, got "
            f"{len(kernels)}; write it again."
        )
    machines = [
        _read_machine(kernel, arrays, f"model.{m}.machine.{k}", float(intercept[k]), classifier)
        for k, kernel in enumerate(kernels)
    ]
    return KernelModel(machines, slope, offset)


def _read_machine(
    kernel: dict[str, Any],
    arrays: dict[str, np.ndarray],
    prefix: str,
    intercept: float,
    classifier: "TunedSVC",
) -> BinaryMachine:
    vectors, coef = arrays[f"{prefix}.vectors"], arrays[f"{prefix}.coef"]
    expected = (len(coef), classifier.n_features_in_)
    if kernel["name"] not in KERNELS or vectors.shape != expected:
        raise ValueError(
            f"TunedSVC state is damaged: {prefix} has kernel {kernel['name']!r} and vectors of "
            f"shape {vectors.shape}, expected one of {KERNELS} and {expected}; write it again."
        )
    return BinaryMachine(Kernel(**kernel), vectors, coef, intercept)

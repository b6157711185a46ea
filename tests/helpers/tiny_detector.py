"""Detectors that are fitted in a second: tiny networks on tiny crops."""

from cnnsvm import CNNEmbedder, FineTuning, InpaintDetector, ResidualStatistics, TunedSVC

CROPS = {"crop_size": 32, "n_crops": 2}
MACHINE = {"device": "cpu"}
SVM = {"kernel": "linear", "n_trials": 1, "cv": 2}
TUNING = {"epochs": 2, "augmentation": "geometric"}


def cnn(backbone="plain_cnn", **more):
    """A CNN from random weights on residuals; frozen unless ``finetune`` says more."""
    own = {"weights": None, "finetune": "none", "precision": "float32"}
    return CNNEmbedder(backbone, **CROPS | MACHINE | own | more)


def tuning(mode="full", **more):
    return FineTuning(mode, **TUNING | more)


def statistics(**more):
    return ResidualStatistics(**CROPS | MACHINE | {"finetune": "none"} | more)


def detector(*embedders, classifier=None, **more):
    """A detector of these embedders, of a frozen CNN if there are none."""
    chosen = list(embedders) or [cnn()]
    svm = TunedSVC(**SVM) if classifier is None else classifier
    return InpaintDetector(chosen, svm, **{"random_state": 0} | more)


def on_this_machine(fitted):
    """Make a loaded detector compute as the fitted one did."""
    for embedder in fitted.embedder_:
        known = embedder.get_params(deep=False)
        wanted = {"device": "cpu", "precision": "float32"}
        embedder.set_params(**{name: value for name, value in wanted.items() if name in known})
    return fitted

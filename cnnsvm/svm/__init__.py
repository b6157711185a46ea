"""Support vector machines over embeddings: Optuna's search, kernels and calibration.

:class:`TunedSVC` reads from top to bottom: folds (``inner_cv``), a study a kernel (``search``,
``study_storage``), the winner's machines (``training``, ``machine``, ``kernels``) and their Platt
scaling (``tuning``, ``calibration``); ``state`` turns the result into JSON and arrays.
"""

from cnnsvm.svm.study_storage import StudyMismatchError
from cnnsvm.svm.tuned_svc import TunedSVC

__all__ = ["StudyMismatchError", "TunedSVC"]

"""Support vector machines over embeddings: Optuna's search, kernels and calibration.

:class:`TunedSVC` reads from top to bottom: folds (``inner_cv``), an Optuna study a kernel
(``search``, or ``shared_search`` on many hosts), the winner's machines (``kernels``,
``machines``) and their Platt scaling (``calibration``). ``state`` turns the result into JSON and
arrays. :class:`CalibratedClassifier` calibrates any other classifier in the same way.
"""

from cnnsvm.svm.calibration import CalibratedClassifier
from cnnsvm.svm.database import DatabaseError, StudyMismatchError
from cnnsvm.svm.tuned_svc import TunedSVC

__all__ = ["CalibratedClassifier", "DatabaseError", "StudyMismatchError", "TunedSVC"]

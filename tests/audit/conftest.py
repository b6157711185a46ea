import pytest
from sklearn.ensemble import RandomForestClassifier

from cnnsvm.evaluation import negative_controls


@pytest.fixture(scope="session", autouse=True)
def _few_trees():
    """Most of an audit's time goes into forests, on which nothing here depends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            negative_controls,
            "RandomForestClassifier",
            lambda n_trees, **options: RandomForestClassifier(20, **options),
        )
        yield

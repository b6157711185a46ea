import pytest
from tiny_localizer import TINY_ARCHITECTURES, paintings

from cnnsvm.localization import bundle


@pytest.fixture
def tiny_network(monkeypatch):
    """Let localisers build a network of three convolutions."""
    monkeypatch.setattr(bundle, "architectures", TINY_ARCHITECTURES)


@pytest.fixture(scope="session")
def painted():
    """Sixteen pictures and their masks, and eight other ones."""
    return paintings(0, 16), paintings(1000, 8)

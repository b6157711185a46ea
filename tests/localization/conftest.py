import pytest
from tiny_localizer import build_tiny, paintings

from cnnsvm.localization.architectures import ARCHITECTURES


@pytest.fixture
def tiny_network(monkeypatch):
    """Let localisers build a network of three convolutions."""
    monkeypatch.setitem(ARCHITECTURES, "iidnet", build_tiny)


@pytest.fixture(scope="session")
def painted():
    """Sixteen images and their masks, and eight other ones."""
    return paintings(0, 16), paintings(1000, 8)

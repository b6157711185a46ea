from types import SimpleNamespace

import pytest

from cnnsvm.features import devices
from cnnsvm.features.devices import first_alone

ALONE = SimpleNamespace(distributed=False, device="cpu", gpu_memory_fraction=None)


class Together:
    """Stands for the processes of torchrun; notes when this one waits for the others."""

    def __init__(self, is_first, events):
        self.is_first, self.events = is_first, events

    def agree(self, value):
        self.events.append("wait")


@pytest.mark.parametrize(
    ("is_first", "order"), [(True, ["work", "wait"]), (False, ["wait", "work"])]
)
def test_the_first_works_while_the_others_wait(monkeypatch, is_first, order):
    events = []
    monkeypatch.setattr(devices, "join", lambda *args: ("cpu", Together(is_first, events)))
    with first_alone(SimpleNamespace(**{**vars(ALONE), "distributed": True})) as found:
        events.append("work")
    assert events == order
    assert found is is_first


def test_a_process_on_its_own_is_the_first():
    with first_alone(ALONE) as is_first:
        assert is_first


def test_without_torchrun_there_are_no_others(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    lonely = SimpleNamespace(**{**vars(ALONE), "distributed": True})
    with pytest.raises(ValueError, match="torchrun"), first_alone(lonely):
        pass

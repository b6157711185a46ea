"""What one of several processes does before the others: files that all of them read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnnsvm.localization.processes import join, processes


@contextmanager
def first_alone(localizer: Any) -> Iterator[bool]:
    """Let the first process do something while the others wait; then they do it too.

    They find what it has made. A process on its own does not wait.

    Parameters
    ----------
    localizer : InpaintLocalizer
        Its ``distributed``, ``device`` and ``gpu_memory_fraction`` say who is there.

    Yields
    ------
    bool
        Whether this is the first one.

    Raises
    ------
    ValueError
        If ``distributed`` is set and the process was not started by torchrun.
    """
    join(localizer.device, localizer.gpu_memory_fraction, localizer.distributed)
    together = processes(localizer.distributed)
    if not together.is_first:
        together.agree(0)
    yield together.is_first
    if together.is_first:
        together.agree(0)

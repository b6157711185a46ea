"""What ``cnnsvm predict`` says at its end: how many images of each kind, and its exit status."""

from collections import Counter
from collections.abc import Iterable

NOTHING_FOUND, FOUND, FAILED = 0, 1, 2


def count_reasons(reasons: Iterable[str]) -> str:
    """Say why files were skipped, " (3 not an image)"; nothing if none was."""
    found = Counter(reasons).most_common()
    return f" ({', '.join(f'{n} {reason}' for reason, n in found)})" if found else ""


def summary_of(counts: Counter[str], n_kept: int = 0) -> str:
    """Say how many rows were of each kind (`Judge.counts_as`); ``n_kept`` were there before."""
    from cnnsvm.report.judging import NAMED, NOTHING, TRACES, UNDECIDED

    each = [f"{counts[kind]} {kind}" for kind in (TRACES, NOTHING, UNDECIDED)]
    judged = sum(counts[kind] for kind in (TRACES, NOTHING, UNDECIDED))
    each += [f"{counts[NAMED]} {NAMED}"] if counts[NAMED] else []
    before = f" ({n_kept} of them before)" if n_kept else ""
    skipped = _skipped(counts)
    end = f"{counts['failed']} failed, {skipped.total()} skipped{count_reasons(skipped.elements())}"
    return f"{judged} judged{before}: {', '.join(each)}; {end}"


def status_of(counts: Counter[str], strict: bool) -> int:
    """Return the exit status; ``strict`` counts what was skipped as failed."""
    from cnnsvm.report.judging import NAMED, TRACES

    if counts["failed"] or (strict and _skipped(counts)):
        return FAILED
    return FOUND if counts[TRACES] or counts[NAMED] else NOTHING_FOUND


def _skipped(counts: Counter[str]) -> Counter[str]:
    from cnnsvm.report.judging import SKIPPED

    return Counter({k.removeprefix(SKIPPED): n for k, n in counts.items() if k.startswith(SKIPPED)})

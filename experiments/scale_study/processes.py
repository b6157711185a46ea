"""The processes of a job on Ray, as Linux shows them: which they are, what memory they hold."""

from pathlib import Path

#: What is killed and measured -> a part of the command line of such a process.
KINDS = {"worker": b"ray::MapWorker", "raylet": b"/raylet/raylet"}


def parents() -> dict[int, int]:
    """Return the parent of each process."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = file.read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        if after[0] != "Z":
            found[int(file.parent.name)] = int(after[1])
    return found


def family(root: int) -> dict[int, str]:
    """Return the processes that a driver began, itself included, by their kinds."""
    above = parents()
    found = {root: "driver"}
    for process in above:
        line, at = [], process
        while at in above and at != root:
            line.append(at)
            at = above[at]
        if at == root and line:
            found[process] = _kind(process)
    return found


def _kind(process: int) -> str:
    try:
        name = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return next((kind for kind, part in KINDS.items() if part in name), "other")


def megabytes(process: int) -> float:
    """Return the memory of a process that no other shares, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def alive(processes: list[int]) -> list[int]:
    """Return those that have not ended."""
    return sorted(parents().keys() & set(processes))

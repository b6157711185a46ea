"""What the processor of a machine can do, and where caches of its user lie."""

import os
from pathlib import Path


def processor_flags() -> str:
    """Return what speeds networks up, of what the processor says it has."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    wanted = [flag for flag in flags if flag.startswith(("avx", "amx", "fma"))]
    return " ".join(wanted) or "unknown"


def user_cache() -> Path:
    """Return the folder, which need not exist, for what is measured once on a machine.

    ``cnnsvm`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` where it is not set. A RuntimeError
    says that the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cnnsvm"

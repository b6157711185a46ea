"""Files of a study."""

import logging
from collections.abc import Mapping
from pathlib import Path

from cnnsvm.io.files import write_text
from cnnsvm.report.render import to_json

__all__ = ["to_json", "write_files"]
logger = logging.getLogger(__name__)


def write_files(out: Path, contents: Mapping[str, str]) -> dict[str, Path]:
    """Write text files by name into a folder, each in one step."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_text(out / name, content)
    logger.info("Wrote %s to %s", ", ".join(contents), out)
    return {name: out / name for name in contents}

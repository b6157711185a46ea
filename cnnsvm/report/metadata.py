"""What is said of metadata, beside what is said of the pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnnsvm.data.metadata import Finding
from cnnsvm.data.metadata_names import EDITED, GENERATED

#: How a row's ``metadata`` begin if they name a generator, and if they name other tools.
NAMED_GENERATOR, NAMED_EDITOR = "its metadata name a generator", "its metadata name an editor"
_MANIFEST = "its metadata hold a C2PA manifest"
_MOST_SHOWN = 160  # characters of a finding


def describe_metadata(findings: Sequence[Finding]) -> str:
    """Say what metadata say of an image's making; nothing if no generator or editor is named.

    A C2PA manifest is said whatever it says. Cameras and other information are left out: who
    forges an image can write them, and nothing follows from them.
    """
    manifests = [each for each in findings if each.kind == "c2pa"]
    groups = {
        NAMED_GENERATOR: [each for each in findings if each.says == GENERATED],
        NAMED_EDITOR: [each for each in findings if each.says == EDITED],
        _MANIFEST: [each for each in manifests if each.says not in (GENERATED, EDITED)],
    }
    return "; ".join(f"{what}: {_first(found)}" for what, found in groups.items() if found)


def names_generator(row: Mapping[str, Any]) -> bool:
    """Tell whether the metadata of a row name a generator."""
    return str(row.get("metadata") or "").startswith(NAMED_GENERATOR)


def _first(findings: Sequence[Finding]) -> str:
    """Say the first of some findings, a C2PA manifest before others, and how many more."""
    first = min(findings, key=lambda each: each.kind != "c2pa")
    value = first.value
    value = value if len(value) <= _MOST_SHOWN else f"{value[: _MOST_SHOWN - 3]}..."
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"{first.name} ({value}){more}"

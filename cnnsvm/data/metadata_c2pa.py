"""C2PA manifests ("Content Credentials"): what they say, and whether their signature holds."""

import importlib.util
import json
from typing import IO, Any

from cnnsvm.data.decoding import MAX_WHOLE
from cnnsvm.data.metadata_blocks import MAX_BLOCK
from cnnsvm.data.metadata_names import (
    CAMERA,
    EDITED,
    GENERATED,
    UNKNOWN,
    digital_sources,
    of_source,
    of_tool,
)

#: Nothing is fetched: an image must not make this machine call another.
_SETTINGS = {
    "core": {"allowed_network_hosts": []},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_MOST_TERMS = _MOST_TOOLS = 5


def read_manifest(stream: IO[bytes], media_type: str, stored: bytes) -> tuple[str, str]:
    """Say what a manifest says, and what that comes to, as of `cnnsvm.data.metadata.Finding`.

    ``stored`` are its bytes. Where it is not read, as without the extra ``c2pa``, they are searched
    for the terms of IPTC's vocabulary of digital sources, and the signature is not checked.
    """
    if not importlib.util.find_spec("c2pa"):
        return _unread(stored, "not read (install the extra: pip install 'cnnsvm[c2pa]')")
    if stream.seek(0, 2) > MAX_WHOLE or len(stored) == MAX_BLOCK:
        return _unread(stored, "not read (file or manifest are too large)")
    stream.seek(0)
    from c2pa import C2paError, Context, Reader

    try:
        with Reader(media_type, stream, context=Context.from_dict(_SETTINGS)) as reader:
            found = json.loads(reader.json())
    except C2paError as error:
        return _unread(stored, f"cannot be read ({error!s:.60})")
    return _sentence(found)


def _unread(stored: bytes, why: str) -> tuple[str, str]:
    terms = digital_sources(stored.decode("latin-1"))
    named = f"names {', '.join(terms[:_MOST_TERMS])}; " if terms else ""
    return f"{named}{why}, signature not checked", _strongest(terms)


def _sentence(found: dict[str, Any]) -> tuple[str, str]:
    active = found["manifests"][found["active_manifest"]]
    terms, earlier = digital_sources(json.dumps(active)), digital_sources(json.dumps(found))
    earlier = [term for term in earlier if term not in terms]
    tools = [str(entry.get("name", "")) for entry in active.get("claim_generator_info") or ()]
    tools = [*tools, str(active.get("claim_generator") or "")][:_MOST_TOOLS]
    named = ", ".join(dict.fromkeys(tool for tool in tools if tool))
    parts = [f"source {', '.join(terms)}"] if terms else []
    parts += [f"made from {', '.join(earlier)}"] if earlier else []
    says = _strongest([*terms, *earlier])
    if says == UNKNOWN:
        says = of_tool(named)
    parts += [_signature(found, active), *([f"by {named}"] if named else [])]
    return "; ".join(parts), says


def _signature(found: dict[str, Any], active: dict[str, Any]) -> str:
    """Say whether the signature holds; a valid one says who signed, not that what is said is so."""
    signed = active.get("signature_info") or {}
    who = signed.get("issuer") or signed.get("common_name") or "an unnamed signer"
    state = found.get("validation_state")
    if state == "Trusted":
        return f"a valid signature by {who}, who is on a trust list"
    if state == "Valid":
        return f"a valid signature by {who}, not checked against a trust list"
    status = found.get("validation_status") or []
    codes = [str(entry.get("code")) for entry in status if "untrusted" not in str(entry)]
    return f"its signature does not validate ({', '.join(codes[:3]) or 'no reason given'})"


def _strongest(terms: list[str]) -> str:
    said = {of_source(term) for term in terms}
    return next((each for each in (GENERATED, EDITED, CAMERA) if each in said), UNKNOWN)

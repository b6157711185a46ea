"""Models of the Hugging Face hub: fetched once, then taken from the cache."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

TIMEOUT = 10  # seconds; without it, a network that drops packets blocks for minutes


class HubError(OSError):
    """A model that cannot be fetched; the message names the id, the reason and the remedy."""


def fetch_snapshot(
    name: str,
    first: Sequence[str],
    choose: Callable[[Path], Sequence[str]],
    *,
    ignore: Sequence[str] = (),
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Fetch the files of a model, or find them in the cache if the hub cannot be reached.

    The files that describe the model, of the patterns ``first``, are fetched before the others, so
    that a model of the wrong kind is refused before its weights are downloaded::

        def choose(folder):
            check_kind(read_config(folder))
            return ["*.safetensors", "README.md"]

        folder = fetch_snapshot("owner/name", ["config.json"], choose, revision=revision)

    ``choose`` returns the patterns of the others; what it raises is passed on as it is. ``ignore``
    are patterns of files to leave out, ``revision`` is a branch, tag or commit (None: the main
    branch, and a warning states the commit), ``token`` None uses the stored login. Progress bars
    are shown on a terminal only. Returns the folder of the snapshot, whose name is the commit. A
    HubError says that the model is gated, missing, has no such revision, or that the hub cannot be
    reached and the cache does not hold it.
    """
    from huggingface_hub import model_info, snapshot_download

    logger.info("looking for %s on the hub", name)
    unreached: Exception | None = None
    try:
        model_info(name, revision=revision, timeout=TIMEOUT, token=token)
    except Exception as error:  # offline, gone or gated: the cache may still hold it
        unreached = error
    options: dict[str, Any] = {"revision": revision, "token": token, "ignore_patterns": [*ignore]}
    options["local_files_only"] = unreached is not None

    def download(patterns: Sequence[str]) -> Path:
        try:
            with _bars_on_terminal_only():
                return Path(snapshot_download(name, allow_patterns=[*patterns], **options))
        except Exception as error:  # the hub's library raises many kinds
            reason = _explain(unreached or error, revision)
            if unreached is not None:
                reason += ", and the cache does not hold it"
            raise HubError(
                f"{name!r} cannot be fetched: {reason}. Check the id, the revision and the token, "
                f"or download it on a machine with a connection by 'hf download {name} "
                "--local-dir FOLDER' and pass that folder."
            ) from (unreached or error)

    folder = download([*first, *choose(download(first))])
    if unreached is not None:
        logger.warning("the hub cannot be reached; %s is taken from its cache", name)
    if revision is None:
        logger.warning(
            "%s: no revision is pinned, so its content may change. This is commit %s; pass "
            "revision=%r to get the same files every time.",
            *(name, folder.name, folder.name),
        )
    return folder


@contextmanager
def _bars_on_terminal_only() -> Iterator[None]:
    from huggingface_hub import utils

    silenced = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if silenced:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if silenced:
            utils.enable_progress_bars()


def _explain(error: Exception, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated (accept its terms on its page and log in with 'hf auth login')"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private, and no folder has this name"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub cannot be reached (HF_HUB_OFFLINE is set)"
    text = " ".join(str(error).split())[:200]
    return f"the hub cannot be reached ({type(error).__name__}: {text})"

"""What the engines with pretrained weights share: options, device, finding and loading.

A model is a folder of this machine or an id of the Hugging Face hub. Only safetensors weights are
read, and no code of a model is run. The packages of the ``generate`` extra are imported inside the
functions, so that a machine without them gets an `EngineError` that says so.
"""

import contextlib
import hashlib
import importlib
import inspect
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from cnnsvm.features.devices import DeviceError, choose_device, choose_precision
from cnnsvm.generation.engines import Engine, EngineError
from cnnsvm.io.hub import HubError, fetch_snapshot

logger = logging.getLogger(__name__)

#: The community's copy of the model that stabilityai took off the hub in November 2025.
DEFAULT_MODEL = "sd2-community/stable-diffusion-2-inpainting"
_GONE = "stabilityai/stable-diffusion-2-inpainting"
_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
#: Where the hub's cache keeps a commit; 'hf download' prints such a path.
_SNAPSHOT = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})$")
_PACKAGES = ("diffusers", "transformers", "accelerate")
_LOGGING = ("diffusers", "transformers")
_KINDS = {int: "a whole number", float: "a number", str: "text"}
#: Files of other precisions and training states that lie beside the weights.
_VARIANTS = ("*.fp16*", "*.non_ema*")


class Model(NamedTuple):
    """A model on this machine: its id (or the folder's name), folder, and commit on the hub."""

    name: str
    folder: Path
    revision: str = ""  # empty for a folder, see `hash_files`


def option_types(factory: Callable[..., Engine]) -> dict[str, type]:
    """Return the type of each keyword of a factory but ``revision``: int, float or str."""
    parameters = inspect.signature(factory).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "revision"]
    return {p.name: (get_args(p.annotation) or (p.annotation,))[0] for p in keywords}


def parse_model(text: str, options: Mapping[str, type]) -> tuple[str, dict[str, Any]]:
    """Split ``MODEL[@REVISION][?option=value&option=value]`` into the model and its options.

    The longest start of the text that is an existing folder is taken as the model, so the name of
    a folder may contain ``@`` and ``?``. Values may be percent-encoded, as ``%26`` for ``&``.
    ``options`` maps each name to int, float or str, see `option_types`; what is returned also holds
    ``revision``, None if there is none. An `EngineError` is raised if an option is unknown, given
    twice or of another type, or the revision is empty.
    """
    model, query = _split_query(text)
    revision: str | None = None
    if "@" in model and not _is_folder(model):
        model, _, revision = model.partition("@")
        if not revision:
            raise EngineError(f"{text!r} ends in an empty revision. Name one after '@'.")
    values: dict[str, Any] = {"revision": revision}
    for part in query.split("&") if query else []:
        name, equals, value = part.partition("=")
        if name not in options or not equals or name in values:
            raise EngineError(
                f"{text!r}: cannot read the option {part!r}. Write MODEL?option=value&option=value "
                f"with each of these at most once: {', '.join(options)}."
            )
        try:
            values[name] = options[name](urllib.parse.unquote(value))
        except ValueError as error:
            kind = _KINDS[options[name]]
            raise EngineError(f"option {name} is {kind}, got {value!r}.") from error
    return model, values


def make_from_text(factory: Callable[..., Engine], text: str) -> Engine:
    """Make an engine of ``MODEL[@REVISION][?option=value&...]``, its options the keywords."""
    model, options = parse_model(text, option_types(factory))
    return factory(model, **options)


def read_config(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object; an `EngineError` with the remedy if there is none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"{file} cannot be read ({shorten(error)}){remedy}") from error


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse a setting that is no number from ``low`` to ``high``, or no int if ``whole``."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        kind = _KINDS[int if whole else float]
        raise EngineError(f"{name} must be {kind} from {low} to {high}, got {value!r}.")


def choose_place(
    device: str, precision: str, batch_size: int | None, cuda_batch: int
) -> tuple[torch.device, torch.dtype, int]:
    """Choose where, how precisely and in which batches a model runs.

    Precision "auto" is float16 on CUDA, float32 on the CPU; a batch of None is ``cuda_batch`` on
    CUDA, 1 on the CPU. An `EngineError` says what this machine does not have.
    """
    try:
        place = choose_device(device)
        if precision == "auto":
            precision = "float16" if place.type == "cuda" else "float32"
        dtype = choose_precision(precision, place)
    except DeviceError as error:
        raise EngineError(str(error)) from error
    if batch_size is None:
        batch_size = cuda_batch if place.type == "cuda" else 1
    check_number("batch_size", batch_size, 1, 1024, whole=True)
    return place, dtype, batch_size


def require_packages() -> None:
    """Refuse (`EngineError`) to go on without the packages that the engines need."""
    try:
        for name in _PACKAGES:
            importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"this engine needs {', '.join(_PACKAGES)}, and importing {name} failed ({error}). "
            "Install them: pip install 'cnnsvm[generate]'."
        ) from error


def find_model(
    kind: str,
    model: str,
    revision: str | None,
    first: Sequence[str],
    choose: Callable[[Path], Sequence[str]],
) -> Model:
    """Find the files of a model, on the hub if there is no such folder.

    ``kind`` is that of the engine, for messages; ``first`` and ``choose`` are those of
    `cnnsvm.io.hub.fetch_snapshot`. An `EngineError` is raised if there is no such model.
    """
    folder = Path(os.path.abspath(os.path.expanduser(model)))
    if _is_folder(model):
        if revision is not None:
            raise EngineError(
                f"{model!r} is a folder and has no revisions, got {revision!r}. Leave it out."
            )
        if cached := _SNAPSHOT.search(folder.as_posix()):
            return Model(cached[1].replace("--", "/"), folder, cached[2])
        return Model(folder.name, folder)
    example = f"Write for example {kind}:{DEFAULT_MODEL} or {kind}:/path/to/FOLDER."
    if not _ID.fullmatch(model):
        what = "a file, not a folder" if folder.is_file() else "no folder of this machine"
        raise EngineError(f"{kind} model {model!r} is {what}, nor an id of the hub. {example}")
    try:
        found = fetch_snapshot(model, first, choose, ignore=_VARIANTS, revision=revision)
    except HubError as error:
        if model == _GONE:
            raise EngineError(
                f"{model!r} was taken off the hub in November 2025. {example}"
            ) from error
        raise EngineError(f"{kind} model {error} {example}") from error
    return Model(model, found, found.name)


def weights_problem(folder: Path) -> str:
    """Say what is wrong with the weights in a folder; empty if there are safetensors."""
    if any(folder.glob("*.safetensors")):
        return ""
    if any(folder.glob("*.bin")):
        return (
            f"only .bin weights in {folder}, which can run code when they are read. Name a model "
            "with safetensors, or convert it: from_pretrained, then save_pretrained."
        )
    return f"no .safetensors weights in {folder}. Download the folder again."


def load_network(folder: Path, library: str, name: str, **options: Any) -> Any:
    """Load the network of a class of diffusers or transformers, in evaluation mode, on the CPU.

    ``options`` are for ``from_pretrained``, such as ``dtype``. An `EngineError` is raised if the
    folder cannot be read, or a weight is missing: the library would draw it at random.
    """
    try:
        kind = getattr(importlib.import_module(library), name)
        options |= {"use_safetensors": True, "output_loading_info": True}
        network, info = kind.from_pretrained(str(folder), **options)
    except Exception as error:  # these libraries raise whatever their file readers do
        raise EngineError(
            f"{folder}: its {name} cannot be read ({shorten(error)}). Download the folder again."
        ) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise EngineError(
            f"{folder}: {len(absent)} weight(s) of its {name} are missing, such as {absent[0]}. "
            "Download the folder again."
        )
    return network.eval()


def move(network: Any, place: torch.device) -> Any:
    """Move a network or pipeline to where it runs; an `EngineError` if it does not fit there."""
    try:
        return network.to(place)
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the model does not fit into the memory of {place} ({shorten(error)}). Free it, or "
            "use precision='float16' or device='cpu'."
        ) from error


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Hash files and their names below a folder: ``sha256:<16 digits>``."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the log lines and progress bars of the libraries off the terminal."""
    with contextlib.ExitStack() as stack:
        for name in _LOGGING:
            module: Any = importlib.import_module(f"{name}.utils.logging")
            stack.callback(module.set_verbosity, module.get_verbosity())
            module.set_verbosity(logging.CRITICAL)  # what fails is raised too
            if module.is_progress_bar_enabled():
                stack.callback(module.enable_progress_bar)
                module.disable_progress_bar()
        yield


def shorten(error: BaseException, length: int = 200) -> str:
    """Put an exception's text on one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[: length - 3] + "..."


def _is_folder(text: str) -> bool:
    return bool(text) and os.path.isdir(os.path.expanduser(text))


def _split_query(text: str) -> tuple[str, str]:
    for mark in (len(text), *(i for i in range(len(text) - 1, -1, -1) if text[i] == "?")):
        if _is_folder(text[:mark]):
            return text[:mark], text[mark + 1 :]
    model, _, query = text.partition("?")
    return model, query

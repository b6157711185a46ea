"""What runs a network that embeds: torch, or OpenVINO (``pip install 'cnnsvm[openvino]'``).

What either makes of a network on a processor, one with its batch norms folded into convolutions or
a compiled graph, is kept until the network changes or goes. Which one is faster is kept in a file.
"""

import contextlib
import ctypes
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

import cnnsvm
from cnnsvm.features.backbones import Backbone, Pooled
from cnnsvm.features.backbones.onnx_source import Session
from cnnsvm.features.backbones.weights import require
from cnnsvm.features.devices import DeviceError, autocast
from cnnsvm.io.files import read_json, text_hash, write_json
from cnnsvm.io.machine import processor_flags, user_cache

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "openvino", "auto")
#: File in the user's cache of which backend was the faster one.
CHOICES = "backends.json"
#: Pixels of a batch that is timed: 4 crops of 224, 196 of 32.
TRIAL_PIXELS = 200_000
#: Precision -> what OpenVINO calls it, and how far a compiled graph may be from torch in float32,
#: as a share of the length of an embedding. More is a wrong conversion.
_ROUNDED = 0.2
_HINTS = {torch.float32: ("f32", 1e-3), torch.bfloat16: ("bf16", _ROUNDED)}
_Run = Callable[[torch.Tensor], torch.Tensor]
#: State of a network -> what was made of it.
_MADE: WeakKeyDictionary[nn.Module, tuple[int, dict[Any, Any]]] = WeakKeyDictionary()


class Way(NamedTuple):
    """What computes embeddings: a backend, and a precision such as "float32"."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"backend={self.backend!r}, precision={self.precision!r}"


def run(
    network: Backbone,
    pixels: torch.Tensor,
    dtype: torch.dtype,
    backend: str = "torch",
    layer: int | None = None,
) -> torch.Tensor:
    """Embed a uint8 batch (N, 3, H, W) on its device, as float32 (N, d), in evaluation mode.

    ``backend`` is "torch" or "openvino". ``layer`` gives what that layer of a transformer says of
    each patch instead, (N, h, w, d). A DeviceError says that the backend cannot run the network.
    """
    device = pixels.device
    if getattr(network, "body", None) is None:
        with autocast(device, dtype):
            return network(pixels)
    if device.type != "cpu" and backend != "torch":
        raise DeviceError(f"backend={backend!r} runs on the processor. Use 'torch' on a GPU.")
    values = network.enter(pixels).contiguous(memory_format=torch.channels_last)
    part, shape = None, values.shape[1:]
    if device.type == "cpu":
        key = (backend, dtype, layer, shape)
        part = _made(network, key, lambda: _MAKERS[backend](network, dtype, layer, shape))
    with autocast(device, dtype):
        return (part or NetworkPart(network, layer))(values).float()


def choose_backend(
    backend: str, network: Backbone, size: int, device: torch.device, dtype: torch.dtype
) -> str:
    """Find the backend of crops of ``size`` pixels; "auto" is the faster of those that are there.

    It is timed once, on noise, for an architecture, a size, a precision, and what runs it: the
    choice is kept in `CHOICES` of `cnnsvm.io.machine.user_cache`.
    """
    if backend != "auto":
        return backend
    if network.body is None or device.type != "cpu" or find_spec("openvino") is None:
        return "torch"
    return _made(network, ("auto", dtype, size), lambda: _kept_choice(network, size, dtype))


def _made(network: nn.Module, key: Sequence[Any], make: Callable[[], Any]) -> Any:
    """Return what was made of a network as it is now, or make it."""
    arrays = chain(network.parameters(), network.buffers())
    # the version counts changes in place, but not in an array that was made for inference
    versions = (0 if array.is_inference() else array._version for array in arrays)
    now = hash((*versions, *(array.data_ptr() for array in network.parameters())))
    state, made = _MADE.get(network, (now, {}))
    if state != now:
        made = {}
    _MADE[network] = now, made
    if key not in made:
        made[key] = make()
    return made[key]


def _kept_choice(network: Backbone, size: int, dtype: torch.dtype) -> str:
    """Return the backend that an earlier process found faster, or time them and keep which."""
    shapes = [tuple(value.shape) for value in network.state_dict().values()]
    runs_on = (processor_flags(), torch.get_num_threads(), torch.__version__, version("openvino"))
    asked = (cnnsvm.__version__, str(network), shapes, size, dtype, runs_on)
    name, kept, file = text_hash(repr(asked))[:20], {}, None
    with contextlib.suppress(OSError, RuntimeError):  # a home that is none, or cannot be read
        file = user_cache() / CHOICES
        kept = read_json(file)
    chosen = kept.get(name)
    if chosen not in ("torch", "openvino"):
        chosen = _fastest(network, size, dtype)
        with contextlib.suppress(OSError):  # nor written to
            if file is not None:
                write_json(file, kept | {name: chosen})
    return str(chosen)


def _fastest(network: Backbone, size: int, dtype: torch.dtype) -> str:
    n_crops = max(2, TRIAL_PIXELS // size**2)
    batch = _noise(n_crops, 3, size, size)
    seconds = {"torch": _time(network, batch, dtype, "torch")}
    try:
        seconds["openvino"] = _time(network, batch, dtype, "openvino")
    except DeviceError as error:
        logger.warning("backend='auto' takes torch: %s", error)
    logger.info(
        "seconds for %d crops of %d pixels: %s",
        *(n_crops, size, ", ".join(f"{name} {spent:.3f}" for name, spent in seconds.items())),
    )
    return min(seconds, key=seconds.__getitem__)


def _time(network: Backbone, batch: torch.Tensor, dtype: torch.dtype, backend: str) -> float:
    times = []
    for _ in range(3):  # the first makes the graph
        started = time.perf_counter()
        with torch.inference_mode():
            run(network, batch, dtype, backend)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _noise(*shape: int) -> torch.Tensor:
    """Draw pixels, uint8, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


class NetworkPart(nn.Module):
    """A network behind its preprocessing: to the embedding, or to the patches of a layer."""

    def __init__(self, network: Backbone, layer: int | None = None) -> None:
        super().__init__()
        self.body: Any = network.body
        self.projection, self.layer = network.projection, layer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map normalised images, float (N, C, H, W)."""
        if self.layer is not None:
            return self.body.patches(values, self.layer)
        return self.projection(self.body(values))


def folded(network: nn.Module) -> nn.Module:
    """Return a network for inference on a processor, with batch norms folded into convolutions.

    It is made once, and is the network itself where there is nothing to do.
    """
    return _made(network, ("folded",), lambda: _fold_norms(network)) or network


def _fold(
    network: Backbone, dtype: torch.dtype, layer: int | None, shape: Sequence[int]
) -> nn.Module | None:
    return _fold_norms(NetworkPart(network, layer))


def _has_norms(module: nn.Module) -> bool:
    return any(isinstance(each, nn.BatchNorm2d) for each in module.modules())


def _fold_norms(network: nn.Module) -> nn.Module | None:
    """Make batch norms part of the convolutions before them; None if there is nothing to do."""
    if not _has_norms(network):
        return None
    from torch import fx
    from torch.fx.experimental.optimization import fuse  # half a second

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return not _has_norms(m) or super().is_leaf_module(m, module_qualified_name)

    try:
        with torch.inference_mode(False), torch.no_grad():
            network = network.eval()
            traced = fx.GraphModule(network, Tracer().trace(network))
            return fuse(traced, no_trace=True).to(memory_format=torch.channels_last)
    except Exception as error:  # whatever the code of a library does when it is traced
        logger.debug("batch norms are not folded: %r", error)
        return None


def _compile(
    network: Backbone, dtype: torch.dtype, layer: int | None, shape: Sequence[int]
) -> _Run:
    """Compile a network by OpenVINO, for batches of any number, and compare it with torch."""
    hint, tolerance = _HINTS[dtype]
    _import_openvino()
    part = NetworkPart(network, layer).eval()
    # in the range of pixels: int8 knows no other
    example = network.enter(_noise(2, 3, *shape[1:]))
    batch = torch.cat([example, example.flip(0)])[:3]
    try:
        with torch.inference_mode(False), torch.no_grad():
            expected = part(batch)
            run_graph = _graph(part, example, hint)
    except Exception as error:  # openvino and torch have a class for each kind of failure
        raise DeviceError(
            f"backend='openvino' cannot run this network ({str(error)[-300:]}). Use 'torch'."
        ) from error
    apart = float((run_graph(batch) - expected).norm() / expected.norm())
    tolerance = _ROUNDED if _file(part) else tolerance  # a file may be in int8
    if not apart <= tolerance:
        raise DeviceError(
            f"backend='openvino' computes other embeddings, {apart:.2g} of their length from those "
            f"of torch, where {tolerance:g} is the most. Use 'torch'."
        )
    return run_graph


def _import_openvino() -> None:
    """Import OpenVINO without what tells its makers of every import and conversion."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    require("openvino", "openvino")


def _graph(part: nn.Module, example: torch.Tensor, hint: str) -> _Run:
    import openvino

    core, file = openvino.Core(), _file(part)
    graph = core.read_model(file) if file else _convert(part, example)
    graph.reshape([-1, *example.shape[1:]])
    how: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint}
    how |= {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    with _signal_stack():
        compiled = core.compile_model(graph, "CPU", how)
    rest: nn.Module = Pooled() if file else nn.Identity()

    def run_graph(values: torch.Tensor) -> torch.Tensor:
        with _signal_stack():
            found = compiled([values.contiguous().numpy()])[0]
        return rest(torch.from_numpy(found))

    return run_graph


class _Stack(ctypes.Structure):  # stack_t of signal.h
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextlib.contextmanager
def _signal_stack() -> Iterator[None]:
    """Keep the stack of the thread's signal handlers, for which OpenVINO leaves one that is freed.

    The next signal that Python handles, as of a process that ends, would end this one.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, known = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(known))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(known), None)


def _file(part: nn.Module) -> bytes | None:
    """Return the ONNX file that a network is, if it is one."""
    return next((each.file() for each in part.modules() if isinstance(each, Session)), None)


def _convert(part: nn.Module, example: torch.Tensor) -> Any:
    """Turn a module into a graph of OpenVINO, as its own converter does."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    batch = torch.export.Dim("batch")
    program = torch.export.export(part, (example,), dynamic_shapes=({0: batch},))
    with _unsaid("fx_decoder"):  # which operations this torch does not have
        decoder = TorchFXPythonDecoder.from_exported_program(program)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


@contextlib.contextmanager
def _unsaid(module: str) -> Iterator[None]:
    """Leave out what a module tells the root logger, which a first warning would set up."""
    root, nowhere = logging.getLogger(), logging.NullHandler()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.module != module

    root.addHandler(nowhere)
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)
        root.removeHandler(nowhere)


_MAKERS = {"torch": _fold, "openvino": _compile}

"""From sources to records: masks -> engines -> build, all with matched histories.

``build`` makes records out of untouched images; ``match_histories`` rewrites records made
elsewhere so that originals and fakes share one history. What needs torch (the engines ``vae`` and
``diffusion``, the schema ``object``) loads it when it is asked for.
"""

from cnnsvm.data.mask_shapes import MASK_SCHEMAS, MISSION_SCHEMAS, SIDE_SCHEMAS
from cnnsvm.generation.build import build
from cnnsvm.generation.engines import ENGINES, Engine, EngineError, Task, get_engine, one_by_one
from cnnsvm.generation.masks.schemas import (
    SCHEMAS,
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    get_schema,
)
from cnnsvm.generation.matching import match_histories
from cnnsvm.generation.post_processing import History, HistoryError
from cnnsvm.generation.store import GenerationError

__all__ = [
    "ENGINES",
    "MASK_SCHEMAS",
    "MISSION_SCHEMAS",
    "SCHEMAS",
    "SIDE_SCHEMAS",
    "Engine",
    "EngineError",
    "GenerationError",
    "History",
    "HistoryError",
    "MaskError",
    "MaskSchema",
    "Scene",
    "SchemaError",
    "Task",
    "build",
    "get_engine",
    "get_schema",
    "match_histories",
    "one_by_one",
]

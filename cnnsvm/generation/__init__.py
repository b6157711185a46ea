"""From sources to records: masks -> engines -> build, all with matched post-processing.

``build`` makes records out of untouched images; ``match_post_processing`` rewrites records made
elsewhere so that originals and fakes share one post-processing. torch is loaded only by the engines
and schemas that need it.
"""

from cnnsvm.data.mask_shapes import MASK_SCHEMAS, MISSION_SCHEMAS, SIDE_SCHEMAS
from cnnsvm.generation.build import build
from cnnsvm.generation.engines import ENGINES, Engine, EngineError, Task, get_engine, one_by_one
from cnnsvm.generation.masks import (
    SCHEMAS,
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    get_schema,
)
from cnnsvm.generation.matching import match_post_processing
from cnnsvm.generation.post_processing import PostProcessing, PostProcessingError
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
    "MaskError",
    "MaskSchema",
    "PostProcessing",
    "PostProcessingError",
    "Scene",
    "SchemaError",
    "Task",
    "build",
    "get_engine",
    "get_schema",
    "match_post_processing",
    "one_by_one",
]

"""From sources to records: masks -> engines -> build, all with matched histories.

``build`` makes records out of untouched images; ``match_histories`` rewrites records made
elsewhere so that originals and fakes share one history. Nothing here imports torch.
"""

from cnnsvm.generation.build import build
from cnnsvm.generation.engines import ENGINES, Engine, EngineError, get_engine
from cnnsvm.generation.history import History, HistoryError
from cnnsvm.generation.masks import MASK_SCHEMAS, MISSION_SCHEMAS, SIDE_SCHEMAS
from cnnsvm.generation.matching import match_histories
from cnnsvm.generation.store import GenerationError

__all__ = [
    "ENGINES",
    "MASK_SCHEMAS",
    "MISSION_SCHEMAS",
    "SIDE_SCHEMAS",
    "Engine",
    "EngineError",
    "GenerationError",
    "History",
    "HistoryError",
    "build",
    "get_engine",
    "match_histories",
]

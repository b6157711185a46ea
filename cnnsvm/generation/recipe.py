"""Recipes: what all records of a folder share, checked before anything is made."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.data.manifest import VARIANTS
from cnnsvm.generation.engines import Engine, EngineError, get_engine
from cnnsvm.generation.masks import MaskSchema, get_schema
from cnnsvm.generation.post_processing import PostProcessing
from cnnsvm.generation.sources import Source
from cnnsvm.generation.store import GenerationError
from cnnsvm.io.files import text_hash

BOTH = "both"
_EDGE = re.compile(r"blur:(\d+(?:\.\d+)?)")
_MAX_BLUR = 200.0  # pixels
_LONGEST = 60  # characters of a schema in a file's name


@dataclass(frozen=True)
class Fake:
    """One kind of fake of every record: its variant, its mask schema, and its file names.

    ``schema`` and ``mask`` are None where the whole output of an engine that ignores the mask is
    taken: there is one such image a source.
    """

    variant: str
    schema: MaskSchema | None
    name: str
    mask: str | None

    @property
    def key(self) -> str | None:
        """Name of the schema, if any."""
        return self.schema.name if self.schema else None


@dataclass(frozen=True)
class Recipe:
    """What all records of a folder share."""

    engine: Engine
    schemas: tuple[MaskSchema, ...]
    variants: tuple[str, ...]
    blur: float
    post_processing: PostProcessing
    random_state: int
    panels: bool = True

    def settings(self) -> dict[str, Any]:
        """Return what tells this recipe from another, as JSON can hold it."""
        return {
            "made_by": "build",
            "engine": self.engine.name,
            "details": dict(self.engine.details),
            "prompt": self.engine.prompt,
            "schemas": [schema.name for schema in self.schemas],
            "variants": list(self.variants),
            "edge": f"blur:{self.blur:g}" if self.blur else "hard",
            "history": str(self.post_processing),
            "random_state": self.random_state,
            "panels": self.panels,
        }

    def seed(self, source_sha256: str, schema: str) -> int:
        """Return the seed of one image, in [0, 2**32)."""
        entropy = [self.random_state, int(source_sha256, 16), int(text_hash(schema), 16)]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def prompt(self, source: Source) -> str | None:
        """Return what the engine paints for a source; None if it takes no prompt."""
        return None if self.engine.prompt is None else source.prompt or self.engine.prompt

    @property
    def finders(self) -> list[Callable[[str], Path]]:
        """Functions that find the files which engine and schemas take beside a source."""
        finders = [self.engine.find_file, *(schema.find_file for schema in self.schemas)]
        return [find for find in finders if find]

    def made_of(self, source: Source) -> dict[str, Any]:
        """Return what a record is made of besides what the settings say."""
        files = [_digest(find, source.path) for find in self.finders]
        return {"source": source.sha256, "prompt": self.prompt(source), "files": files}

    @property
    def original(self) -> str:
        """Name of the original's file."""
        return f"original{self.post_processing.suffix}"

    @property
    def names(self) -> list[str]:
        """Names of all images of a record."""
        names = [name for fake in self.fakes for name in self.files_of(fake)]
        return [self.original, *dict.fromkeys(names)]

    def files_of(self, fake: Fake) -> list[str]:
        """Return the names of a fake's file and of those that go with it."""
        names = [fake.name, *([fake.mask] if fake.mask else [])]
        if fake.variant == "spliced" and self.blur:
            names.append(beside(fake, "blend"))
        if self.panels:
            names.append(beside(fake, "group"))
        return names

    @property
    def fakes(self) -> list[Fake]:
        """Return what is made of every source, in the order of the manifest."""
        suffix = self.post_processing.suffix
        made = []
        for variant in self.variants:
            alone = len(self.variants) == 1
            stem = "inpainting" if alone or variant == "spliced" else variant
            if variant == "regenerated" and not self.engine.uses_mask:
                made.append(Fake(variant, None, stem + suffix, None))
                continue
            for schema in self.schemas:
                part = file_part(schema.name)
                made.append(Fake(variant, schema, f"{stem}_{part}{suffix}", f"mask_{part}.png"))
        return made


def beside(fake: Fake, role: str) -> str:
    """Return the name of a file that goes with a fake, such as its group image."""
    return f"{role}_{file_part(fake.schema.name)}.png" if fake.schema else f"{role}.png"


def file_part(schema: str) -> str:
    """Return the name of a schema as a part of file names."""
    part = re.sub(r"[^A-Za-z0-9._]+", "-", schema).strip("-.")
    return part if len(part) <= _LONGEST else f"{part[:_LONGEST]}-{text_hash(schema)[:8]}"


def make_recipe(
    engine: str | Engine,
    schemas: Sequence[str | MaskSchema] | str,
    variants: Sequence[str] | str,
    edge: str,
    post_processing: PostProcessing | str,
    prompt: str | None,
    random_state: int,
    panels: bool,
) -> Recipe:
    """Check the parameters that all records share.

    A wrong value is a GenerationError, EngineError, SchemaError or PostProcessingError, all
    ValueErrors.
    """
    if not isinstance(random_state, (int, np.integer)) or random_state < 0:
        raise GenerationError(
            f"random_state must be an int of at least 0, got {random_state!r}: a resumed "
            "call must draw the same."
        )
    chosen = _check_variants(variants)
    blur = _check_edge(edge, chosen)
    parsed = PostProcessing.of(post_processing)
    masks = _check_schemas(schemas)
    made = _with_prompt(get_engine(engine), prompt)
    if unfit := [variant for variant in chosen if variant not in made.variants]:
        raise GenerationError(
            f"engine {made.name!r} makes {', '.join(made.variants)} fakes only, got variants "
            f"{', '.join(chosen)}: {unfit[0]} ones of it would be no fakes. Choose "
            f"variants={made.variants[0]!r} or another engine."
        )
    if parsed.size is None and made.size is not None:
        parsed = dataclasses.replace(parsed, size=made.size)
    return Recipe(made, masks, chosen, blur, parsed, int(random_state), bool(panels))


def _digest(find: Callable[[str], Path], path: str) -> str | None:
    try:
        return hashlib.sha256(find(path).read_bytes()).hexdigest()
    except OSError:  # whoever needs the file says that it is missing
        return None


def _check_schemas(schemas: Sequence[str | MaskSchema] | str) -> tuple[MaskSchema, ...]:
    wanted = (schemas,) if isinstance(schemas, str) else tuple(schemas)
    made = tuple(get_schema(schema) for schema in wanted)
    files = {file_part(schema.name).lower() for schema in made}
    if not made or len(files) < len(made):
        raise GenerationError(
            f"schemas must be one or more with different names, got {[s.name for s in made]}."
        )
    return made


def _check_variants(variants: Sequence[str] | str) -> tuple[str, ...]:
    wanted = (variants,) if isinstance(variants, str) else tuple(variants)
    chosen = VARIANTS[1:] if wanted == (BOTH,) else wanted
    if not chosen or set(chosen) - set(VARIANTS[1:]) or len(set(chosen)) < len(chosen):
        raise GenerationError(
            f"variants must be {', '.join(VARIANTS[1:])}, or {BOTH}, got {variants!r}."
        )
    return tuple(sorted(chosen, reverse=True))  # spliced first: its files are made with the masks


def _check_edge(edge: str, variants: tuple[str, ...]) -> float:
    if edge == "hard":
        return 0.0
    found = _EDGE.fullmatch(edge)
    if not found or not 0 < float(found[1]) <= _MAX_BLUR:
        raise GenerationError(
            f"edge must be 'hard' or 'blur:R', R the standard deviation of a Gaussian in pixels, "
            f"above 0 and at most {_MAX_BLUR:g}; got {edge!r}. Write for example 'blur:4'."
        )
    if "spliced" not in variants:
        raise GenerationError(
            f"edge={edge!r} is for spliced fakes, and only {variants[0]} ones were asked for: "
            "nothing is pasted in those. Leave edge out, or choose variants='both'."
        )
    return float(found[1])


def _with_prompt(engine: Engine, prompt: str | None) -> Engine:
    if prompt is None:
        return engine
    if engine.prompt is None:
        raise GenerationError(
            f"engine {engine.name!r} takes no prompt, got {prompt[:60]!r}. Leave the prompt out."
        )
    problem = engine.find_problem(prompt) if engine.find_problem else None
    if problem:
        raise EngineError(problem)
    return dataclasses.replace(engine, prompt=prompt)

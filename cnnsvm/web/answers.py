"""What the API answers, as data: the documentation and the checks are made from it."""

from pydantic import BaseModel, Field

#: Stands in every answer, and on the page at all times.
NEVER_AUTHENTIC = (
    "“No known trace found” never means authentic: the image may come from a generator or an "
    "editor that these detectors do not cover, or have lost its traces when it was saved again, "
    "reduced or sent."
)


class Problem(BaseModel):
    """Why a request is not answered."""

    error: str = Field(description="a sentence: the value, the rule, the remedy")


class Named(BaseModel):
    """A thing that metadata say: a claim, which can be forged or removed."""

    kind: str = Field(description="c2pa, exif, xmp, png_text, ...")
    name: str
    value: str
    says: str = Field(description="generated, edited, camera or unknown")


class Judged(BaseModel):
    """What is said of one image, or why nothing is."""

    name: str = Field(description="as it was sent")
    sha256: str = Field(description="of the file")
    width: int | None = Field(default=None, description="pixels, upright")
    height: int | None = None
    verdict: str | None = Field(default=None, description="a class of the model, or unsure")
    kind: str | None = Field(
        default=None, description="with traces, without known traces or unsure"
    )
    sentence: str | None = Field(default=None, description="what pixels and metadata say")
    of_pixels: str | None = Field(default=None, description="the verdict in words")
    of_metadata: str | None = Field(default=None, description="generators and editors they name")
    probabilities: dict[str, float] | None = None
    evidence: str | None = Field(
        default=None, description="the detectors that the verdict rests on"
    )
    coverage: float | None = Field(
        default=None, description="share of the pixels that the detector of traces looked at"
    )
    was_jpeg: bool | None = Field(
        default=None, description="was compressed before: traces are weaker"
    )
    was_resampled: bool | None = Field(
        default=None, description="was resized before: traces are weaker"
    )
    metadata: list[Named] = Field(default=[], description="what the file says of its making")
    overlay: str | None = Field(
        default=None, description="data URI of a JPEG: where it looks repainted, blue to yellow"
    )
    overlay_says: str | None = Field(default=None, description="what it shows, and how to read it")
    overlay_error: str | None = Field(default=None, description="why there is no overlay")
    error: str | None = Field(default=None, description="why it was not judged")


class Answer(BaseModel):
    """What is said of all images of a request, in their order."""

    model: str = Field(description="id of detectors, thresholds and the rule that combines them")
    version: str = Field(description="of cnnsvm")
    note: str = NEVER_AUTHENTIC
    files: list[Judged]


class Class(BaseModel):
    """An outcome that a probability is stated for."""

    name: str
    says: str


class Detector(BaseModel):
    """A detector that is asked: what it learnt from, and when it commits itself."""

    name: str
    sees: str | None = Field(default=None, description="kind of evidence")
    model: str
    classes: list[str]
    threshold: float | None = Field(default=None, description="of the second of two classes")
    rejection_threshold: float = Field(description="a verdict needs a higher probability")
    engines: list[str] = Field(description="that its model card names")
    knows: list[str] = Field(description="what it was trained on and is blind to")


class Model(BaseModel):
    """What this server knows, and what it gives to a request."""

    name: str
    model: str
    version: str
    note: str = NEVER_AUTHENTIC
    classes: list[Class]
    detectors: list[Detector]
    has_heatmaps: bool
    formats: list[str]
    max_bytes: int
    max_pixels: int
    max_files: int

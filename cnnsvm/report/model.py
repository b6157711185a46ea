"""A report as data; `cnnsvm.report.render` turns it into a page or into text.

Cells of tables are values, not strings: the renderer formats them, so that page and text say the
same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cnnsvm.report.wording import format_interval, format_seconds, format_value

if TYPE_CHECKING:  # an audit in text needs no plots
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """Text with a mark: ``"good"``, ``"some"`` or ``"bad"``; None for no mark."""

    text: str
    look: str | None = None


@dataclass
class Table:
    """Rows of values under headers; the first value of a row is its name.

    Intervals (mappings of ``value``, ``low``, ``high``) and floats are written with three
    decimals, integers with separators, None as ``n/a``, strings and cells as they are. Columns
    whose headers are in ``prose`` are aligned to the left.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    prose: Sequence[str] = ()
    kind: ClassVar[str] = "table"

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass
class Items:
    """A list of sentences, or of pairs of a path and what to say of it.

    With a ``title`` the page folds the list under it; the renderer cuts long lists.
    """

    entries: Sequence[str | tuple[str, str]]
    title: str = ""
    kind: ClassVar[str] = "items"

    def __bool__(self) -> bool:
        return bool(self.entries)


@dataclass
class Plot:
    """A figure, what it shows for those who do not see it, and a caption."""

    figure: "Figure"
    alt: str
    caption: str = ""


@dataclass
class Plots:
    """Figures side by side, or in one wide column."""

    plots: Sequence[Plot]
    wide: bool = False
    kind: ClassVar[str] = "plots"

    def __bool__(self) -> bool:
        return bool(self.plots)


@dataclass
class Thumbnail:
    """An image as JPEG bytes, None if it cannot be shown; ``role`` is written under it."""

    data: bytes | None
    alt: str
    role: str = ""


@dataclass
class Exhibit:
    """Images that belong together, with lines of text and a path below."""

    thumbnails: Sequence[Thumbnail]
    path: str
    lines: Sequence[str] = ()


@dataclass
class Gallery:
    """Exhibits under a title; ``note`` says how they were chosen."""

    exhibits: Sequence[Exhibit]
    title: str = ""
    note: str = ""
    kind: ClassVar[str] = "gallery"

    def __bool__(self) -> bool:
        return bool(self.exhibits or self.note)


#: How a parameter reads that does nothing.
_OFF = ("None", "none", "False")

#: What a section can hold: a string is a paragraph, a mapping says what names mean.
Block = str | Mapping[str, str] | Table | Items | Plots | Gallery


@dataclass
class Section:
    """A title, an introduction and blocks, the empty ones left out.

    Plots, galleries and sections that are ``page_only`` are not in the text.
    """

    title: str
    blocks: Sequence[Block]
    note: str = ""
    page_only: bool = False

    def __post_init__(self) -> None:
        self.blocks = [block for block in self.blocks if block]
        self.page_only |= all(isinstance(block, (Plots, Gallery)) for block in self.blocks)


@dataclass
class Card:
    """A number shown large, with what stands under it."""

    label: str
    value: str
    under: str = ""

    @classmethod
    def of(cls, label: str, interval: Mapping[str, Any] | None, gap: str = "") -> "Card":
        """Show a value with its interval, or with ``gap`` if it is undefined."""
        value, _, bounds = format_interval(interval).partition(" ")
        return cls(label, value, gap if value == "n/a" else bounds.replace("[n/a]", ""))


@dataclass
class Report:
    """All that a report says.

    Parameters
    ----------
    facts : mapping
        All optional: ``title``, ``data``, ``n_images``, ``n_sources``, ``n_folds`` or ``split``
        (in words) or ``folds``, ``seconds``, ``command``; ``warnings``, which join the notes; and
        for sections at the end: ``skipped`` (``path`` and ``reason`` each), ``settings``,
        ``environment``.
    title : str
        Where the facts have none.
    findings : sequence of str
        Sentences; the conclusion first.
    notes : sequence of str
        What the findings rest on, under ``notes_title``; set apart if ``alarming``.
    cards : sequence of Card
    sections : sequence of Section
        Those without blocks are left out.
    files : mapping of str to str
        Contents of the files beside the page, which links to them, by name: see
        `cnnsvm.report.render.write_report`.
    name : str
        Of the page, without suffix.
    """

    facts: Mapping[str, Any]
    title: str
    findings: Sequence[str] = ()
    notes: Sequence[str] = ()
    notes_title: str = "How far to trust this"
    alarming: bool = False
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    name: str = "report"

    def __post_init__(self) -> None:
        self.title = str(self.facts.get("title") or self.title)
        warnings = map(str, self.facts.get("warnings") or [])
        self.notes = list(dict.fromkeys([*self.notes, *warnings]))
        sections = [*self.sections, *_provenance(self.facts)]
        self.sections = [section for section in sections if section.blocks]

    @property
    def head(self) -> dict[str, str]:
        """What stands under the title: data, size, time and command."""
        facts = self.facts
        n_folds = facts.get("n_folds") or len(facts.get("folds") or [])
        split = "1 held-out part" if n_folds == 1 else f"{n_folds} folds" if n_folds else ""
        size = f"{facts['n_images']:,} images" if "n_images" in facts else ""
        size += f" from {facts['n_sources']:,} sources" if "n_sources" in facts else ""
        head = {
            "data": facts.get("data"),
            "model": facts.get("model"),
            "size": ", ".join(filter(None, (size, split or facts.get("split")))),
            "time": format_seconds(facts["seconds"]) if "seconds" in facts else None,
            "command": facts.get("command"),
        }
        return {name: str(value) for name, value in head.items() if value}


def _provenance(facts: Mapping[str, Any]) -> Iterator[Section]:
    """Make the sections of skipped images, settings and environment; what is off is folded."""
    skipped = [(str(entry["path"]), entry["reason"]) for entry in facts.get("skipped") or []]
    yield Section(f"Skipped images ({len(skipped)})", [Items(skipped)])
    settings = {key: format_value(value) for key, value in (facts.get("settings") or {}).items()}
    off = {key: value for key, value in settings.items() if value in _OFF}
    active = {key: value for key, value in settings.items() if key not in off}
    folded = Items(list(off.items()), f"{len(off)} more that are off")
    yield Section("Settings", [active, folded], page_only=True)
    machine = {k: format_value(value) for k, value in (facts.get("environment") or {}).items()}
    folded = Items(list(machine.items()), f"{len(machine)} versions and facts")
    yield Section("Environment", [folded], page_only=True)

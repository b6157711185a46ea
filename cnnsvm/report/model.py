"""A report as data; `cnnsvm.report.render` turns it into a page or into text.

Cells of tables are values, not strings: the renderer formats them by type and by the kind of their
column, so that page and text say the same numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Column:
    """What a column of a table is called, and how its values are written.

    Parameters
    ----------
    name : str
    kind : {"auto", "percent", "seconds", "words"}
        ``"auto"`` goes by type: intervals (mappings of ``value``, ``low``, ``high``) and floats
        have three decimals, integers separators, None is ``n/a``; ``"percent"`` is for shares and
        ``"words"`` for prose, which is aligned to the left.
    in_text : {"all", "value", "no"}
        Whether plain text has the column: with intervals, with their values alone, or not at all.
    short : str
        Heading in plain text, if not the name.
    """

    name: str
    kind: str = "auto"
    in_text: str = "all"
    short: str = ""


class Block:
    """Something that a section can hold; empty ones are left out."""

    kind: ClassVar[str]
    in_text: ClassVar[bool] = True  # what is False is on the page only


@dataclass
class Paragraph(Block):
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "paragraph"

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass
class Table(Block):
    """Rows of values under columns (a string stands for a plain column); the first is the name."""

    headers: Sequence[Column | str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    kind: ClassVar[str] = "table"

    @property
    def columns(self) -> list[Column]:
        """The headers, all as columns."""
        return [Column(name) if isinstance(name, str) else name for name in self.headers]

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass
class Definitions(Block):
    """Names and what they mean."""

    entries: Mapping[str, str]
    kind: ClassVar[str] = "definitions"

    def __bool__(self) -> bool:
        return bool(self.entries)


@dataclass
class Items(Block):
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
class Plots(Block):
    """Figures side by side, or in one wide column."""

    plots: Sequence[Plot]
    wide: bool = False
    kind: ClassVar[str] = "plots"
    in_text: ClassVar[bool] = False

    def __bool__(self) -> bool:
        return bool(self.plots)


@dataclass
class Picture:
    """An image as JPEG bytes, None if it cannot be shown; ``role`` is written under it."""

    data: bytes | None
    alt: str
    role: str = ""


@dataclass
class Exhibit:
    """Pictures that belong together, with lines of text and a path below."""

    pictures: Sequence[Picture]
    path: str
    lines: Sequence[str] = ()


@dataclass
class Gallery(Block):
    """Exhibits under a title; ``note`` says how they were chosen."""

    exhibits: Sequence[Exhibit]
    title: str = ""
    note: str = ""
    kind: ClassVar[str] = "gallery"
    in_text: ClassVar[bool] = False

    def __bool__(self) -> bool:
        return bool(self.exhibits or self.note)


@dataclass
class Section:
    """A title, an introduction and blocks; ``page_only`` sections are not in the text."""

    title: str
    blocks: Sequence[Block]
    note: str = ""
    page_only: bool = False

    def __post_init__(self) -> None:
        self.blocks = [block for block in self.blocks if block]
        self.page_only |= not any(block.in_text for block in self.blocks)


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
class Note:
    """A box of sentences; ``alarming`` ones are set apart."""

    title: str
    sentences: Sequence[str]
    alarming: bool = False


@dataclass
class Report:
    """All that a report says.

    Parameters
    ----------
    title : str
    facts : mapping of str to str
        ``data``, ``size``, ``time``, ``command``: see `facts_of`.
    findings : sequence of str
        Sentences; the conclusion first.
    note : Note or None
        What the findings rest on.
    cards, sections
        Sections without blocks are dropped.
    files : mapping of str to str
        Contents of the files beside the page, by name: see `cnnsvm.report.render.write_report`.
    name : str
        Of the page, without suffix.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[str] = ()
    note: Note | None = None
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    name: str = "report"

    def __post_init__(self) -> None:
        self.sections = [section for section in self.sections if section.blocks]


def facts_of(result: Mapping[str, Any]) -> dict[str, str]:
    """Collect what a report says under its title.

    Parameters
    ----------
    result : mapping
        ``data``, ``n_images``, ``n_sources``, ``n_folds`` or ``folds`` or ``split`` (in words),
        ``seconds`` and ``command``, all optional.
    """
    n_folds = result.get("n_folds") or len(result.get("folds") or [])
    split = "1 held-out part" if n_folds == 1 else f"{n_folds} folds" if n_folds else ""
    size = f"{result.get('n_images', '?')} images from {result.get('n_sources', '?')} sources"
    facts = {
        "data": result.get("data"),
        "size": ", ".join(filter(None, (size, split or result.get("split")))),
        "time": format_seconds(result["seconds"]) if "seconds" in result else None,
        "command": result.get("command"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def provenance(result: Mapping[str, Any]) -> Iterable[Section]:
    """Make the sections of warnings, skipped images, settings and environment.

    Parameters
    ----------
    result : mapping
        ``warnings``, ``skipped`` (``path`` and ``reason`` each), ``settings`` and
        ``environment``, all optional.
    """
    warnings = [str(text) for text in result.get("warnings") or []]
    skipped = [(str(entry["path"]), entry["reason"]) for entry in result.get("skipped") or []]
    yield Section(f"Warnings ({len(warnings)})", [Items(warnings)])
    yield Section(f"Skipped images ({len(skipped)})", [Items(skipped)])
    for name in ("settings", "environment"):
        values = {key: format_value(value) for key, value in (result.get(name) or {}).items()}
        yield Section(name.capitalize(), [Definitions(values)], page_only=True)

"""Which localisers a study trains, and on which images each of them is judged.

The tables are those of an earlier study of FCN and NIX-Net on DeepfakeArt: what was trained on
each kind of image is judged on every kind (``matrix``, its tables 3 to 6), on other engines
(``cross``, table 7), in several sizes (``sizes``, table 2), under several readings of a mask's
greys (``masks``) and on JPEGs (``jpeg``). ``cost`` sets the architectures side by side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cnnsvm.evaluation.localization_records import ORIGINAL
from cnnsvm.localization.masks import POLICIES

QUALITIES = (95, 90, 80, 75, 60, 50, 40)
SPLICED = " spliced"


@dataclass(frozen=True)
class Fit:
    """A localiser to be trained.

    Parameters
    ----------
    design : str
        Name of an unfitted localiser.
    kind : str
        The images that it is trained on, beside untouched ones.
    policy : str
        Greys of a mask that count as repainted.
    """

    design: str
    kind: str
    policy: str

    def __str__(self) -> str:
        return f"{self.design}, trained on {self.kind}, mask {self.policy}"


@dataclass(frozen=True)
class Condition:
    """What a localiser is judged on.

    Parameters
    ----------
    kind : str
        Of the images.
    policy : str
        Greys of their masks that count.
    quality : int or None
        Of the JPEG that they go through first; None leaves them as they are.
    """

    kind: str
    policy: str
    quality: int | None = None


Plan = dict[Fit, list[Condition]]


@dataclass(frozen=True)
class Wanted:
    """What a study is to answer, and with what.

    Parameters
    ----------
    tables : tuple of str
        Of `TABLES`.
    kinds : tuple of str
        Of the repainted images, see `cnnsvm.evaluation.localization_records.kinds_of`.
    main : str
        The kind that tables with one kind are about.
    designs : tuple of str
        Those that are compared; the first one stands for all in the table of mask policies.
    sizes : tuple of str
        Designs of the table of sizes.
    policy : str
        Greys of a mask that count, but in the table of policies.
    trained_on : tuple of str
        Kinds that ``matrix`` and ``cross`` train on, all of ``kinds`` by default.
    has_greys : bool
        Whether any mask has greys between black and white; if none has, all policies are one.
    """

    tables: tuple[str, ...]
    kinds: tuple[str, ...]
    main: str
    designs: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    policy: str = "half"
    has_greys: bool = True
    trained_on: tuple[str, ...] = ()

    @property
    def spliced(self) -> tuple[str, ...]:
        """Those of the kinds that are spliced."""
        return tuple(kind for kind in self.kinds if kind.endswith(SPLICED))

    def trains(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """Those of some kinds that are trained on."""
        return tuple(kind for kind in kinds if kind in (self.trained_on or self.kinds))

    def on(self, *kinds: str) -> list[Condition]:
        """Judge on kinds of images and on untouched ones, as they are."""
        return [Condition(kind, self.policy) for kind in (*kinds, ORIGINAL)]


def plan_study(wanted: Wanted) -> Plan:
    """List the localisers that the tables need, each once, and what each is judged on.

    Raises
    ------
    ValueError
        If a table or the main kind does not exist, or a table needs what is not there.
    """
    _check(wanted)
    plan: Plan = {}
    for name in wanted.tables:
        for fit, conditions in TABLES[name](wanted):
            listed = plan.setdefault(fit, [])
            listed += [condition for condition in conditions if condition not in listed]
    return plan


_Needs = Iterator[tuple[Fit, list[Condition]]]


def _matrix(wanted: Wanted) -> _Needs:
    for design in wanted.designs:
        for kind in wanted.trains(wanted.kinds):
            yield Fit(design, kind, wanted.policy), wanted.on(*wanted.kinds)


def _cross(wanted: Wanted) -> _Needs:
    for design in wanted.designs:
        for kind in wanted.trains(wanted.spliced):
            yield Fit(design, kind, wanted.policy), wanted.on(*wanted.spliced)


def _masks(wanted: Wanted) -> _Needs:
    conditions = [Condition(wanted.main, policy) for policy in POLICIES]
    for policy in POLICIES if wanted.has_greys else (wanted.policy,):
        yield Fit(wanted.designs[0], wanted.main, policy), conditions


def _sizes(wanted: Wanted) -> _Needs:
    for size in wanted.sizes:
        yield Fit(size, wanted.main, wanted.policy), wanted.on(wanted.main)


def _cost(wanted: Wanted) -> _Needs:
    for design in wanted.designs:
        yield Fit(design, wanted.main, wanted.policy), wanted.on(wanted.main)


def _jpeg(wanted: Wanted) -> _Needs:
    clean = wanted.on(wanted.main)
    degraded = [replace(condition, quality=q) for q in QUALITIES for condition in clean]
    for design in wanted.designs:
        yield Fit(design, wanted.main, wanted.policy), clean + degraded


#: Name of a table -> what it needs.
TABLES: dict[str, Callable[[Wanted], _Needs]] = {
    "matrix": _matrix,
    "cross": _cross,
    "masks": _masks,
    "sizes": _sizes,
    "jpeg": _jpeg,
    "cost": _cost,
}


def _check(wanted: Wanted) -> None:
    for name in wanted.tables:
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}. Choose of {', '.join(TABLES)}.")
    for kind in (wanted.main, *wanted.trained_on):
        if kind not in wanted.kinds:
            listed = ", ".join(wanted.kinds)
            raise ValueError(f"there are no images {kind!r}. There are: {listed}.")
    if wanted.tables == ("cross",) and len(wanted.spliced) < 2:
        raise ValueError(
            f"the table 'cross' needs spliced images of two engines, got {len(wanted.spliced)}. "
            "Add records of another engine."
        )

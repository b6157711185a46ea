"""Clean up a DeepfakeArt download: keep only the source image of each record.

``python delete.py PATH`` counts what would go, ``python delete.py PATH --yes`` deletes it: the
inpainting, mask and group images in the record folders below PATH. Originals and files of any
other name stay, a record without a readable original stays whole, and no link is followed.
Running it twice does no harm.

Exit codes: 0 done (or nothing to do), 1 some files could not be deleted, 2 refused.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import describe_file
from cnnsvm.data.readers.deepfakeart import find_record_folders, find_role

DELETED_ROLES = ("inpainting", "mask", "group")


@dataclass
class Plan:
    """What a clean-up would do."""

    delete: list[Path] = field(default_factory=list)
    originals: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    whole_records: list[Path] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes that the deletion frees."""
        return sum(path.stat().st_size for path in self.delete)


def make_plan(root: Path) -> Plan:
    """Sort the files of all record folders below a folder into what goes and what stays.

    Raises
    ------
    ValueError
        If the folder does not hold records, or no record has a readable original.
    """
    plan = Plan()
    for folder in find_record_folders(root):
        _plan_record(folder, root.resolve(), plan)
    if not plan.originals:
        raise ValueError(
            f"{root}: refused, no record folder (<id>/original.png) with a readable original at "
            "archive/similar/inpainting/, similar/inpainting/, inpainting/ or directly below it. "
            "Give the folder of a DeepfakeArt download."
        )
    return plan


def _plan_record(folder: Path, root: Path, plan: Plan) -> None:
    linked = folder.is_symlink() or not folder.resolve().is_relative_to(root)
    files = [] if linked else [p for p in sorted(folder.iterdir()) if not p.is_symlink()]
    by_role = {path: find_role(path)[0] for path in files if path.is_file()}
    originals = [path for path, role in by_role.items() if role == "original" and _readable(path)]
    if not originals:
        plan.whole_records.append(folder)
        return
    plan.originals += originals
    plan.delete += [path for path, role in by_role.items() if role in DELETED_ROLES]
    chosen = {*originals, *plan.delete}
    plan.left += [path for path in sorted(folder.iterdir()) if path not in chosen]


def _readable(path: Path) -> bool:
    try:
        describe_file(path)
    except ImageError:
        return False
    return True


def delete_files(paths: Sequence[Path]) -> list[str]:
    """Delete files and return what went wrong, one line a file."""
    problems = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
    return problems


def print_plan(plan: Plan) -> None:
    """Say what a clean-up would do."""
    counts = dict.fromkeys(DELETED_ROLES, 0)
    for path in plan.delete:
        counts[find_role(path)[0] or ""] += 1
    by_role = ", ".join(f"{n} {role}" for role, n in counts.items())
    print(f"{len(plan.originals)} originals stay.")
    print(f"{len(plan.delete)} files to delete ({by_role}), {plan.n_bytes:,} bytes.")
    if plan.left:
        print(f"{len(plan.left)} other files are left, such as {plan.left[0]}")
    if plan.whole_records:
        print(
            f"{len(plan.whole_records)} records stay whole (no readable original, or a link), "
            f"such as {plan.whole_records[0]}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    first_line, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="delete.py",
        description=first_line,
        epilog=rest.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="folder of the download")
    parser.add_argument("--yes", action="store_true", help="delete; without it only count")
    args = parser.parse_args(argv)
    try:
        plan = make_plan(args.path)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print_plan(plan)
    if not args.yes:
        print("Nothing was deleted. Add --yes to delete.")
        return 0
    problems = delete_files(plan.delete)
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    print(f"{len(plan.delete) - len(problems)} files deleted.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

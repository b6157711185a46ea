"""Match histories: rewrite records made elsewhere so that originals and fakes share one history."""

import os
from contextlib import closing
from pathlib import Path

import pandas as pd

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import REQUIRED, make_manifest
from cnnsvm.generation.post_processing import History
from cnnsvm.generation.rewrite import Row, rewrite_record
from cnnsvm.generation.sources import check_owners, skip
from cnnsvm.generation.store import GenerationError, claim_folder, safe_name, write_results
from cnnsvm.generation.threads import map_in_threads
from cnnsvm.io.files import clear_partials, text_hash
from cnnsvm.io.progress import show_progress

_NEW = {"path", "mask_path", "width", "height", "format", "sha256", "history"}


def match_histories(
    manifest: pd.DataFrame,
    folder: str | os.PathLike[str],
    history: History | str,
    *,
    n_jobs: int | None = None,
    skip_bad: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Rewrite every image of a manifest through one code path.

    The originals of a record are brought to the size of its fakes by the kernel of the history,
    if they differ; then everything goes to the working size and back, if there is one, and is
    encoded with one codec and quality. Masks are copied, or resized by nearest neighbour if they
    have another size than the fakes. A record is what shares the column ``record``, or
    ``source_id`` where there is none. A call that was killed can be repeated: records already
    made of the same files are kept. One process at a time may write to a folder.

    Parameters
    ----------
    manifest : DataFrame with absolute paths
    folder : path
        Where ``<record>/<name>``, ``manifest.parquet`` and ``errors.csv`` go.
    history : History or its text
    n_jobs : int or None
        Threads; None takes one a core.
    skip_bad : bool
        Report what cannot be used and go on; False raises.
    progress : bool
        Show progress on standard error if that is a terminal.

    Returns
    -------
    DataFrame
        The rows in their order with new path, mask_path, width, height, format, sha256 and
        history, everything else carried along. Every row that is missing is in
        ``attrs["skipped"]``, as a dict of ``path`` and ``reason``: an image that cannot be
        read, alone; with a bad original, or fakes of several sizes, the whole record.

    Raises
    ------
    GenerationError
        If columns are missing, nothing is left, or the folder holds records of other settings.
    ImageError
        If an image is bad and ``skip_bad`` is False.
    """
    parsed = History.parse(history) if isinstance(history, str) else history
    records = _split_records(manifest)
    root = Path(folder).absolute()
    _check_elsewhere(manifest, root)
    claim_folder(root, {"made_by": "match_histories", "history": str(parsed)})
    clear_partials(root)
    outcomes = map_in_threads(
        lambda item: rewrite_record(item[1], root / item[0], parsed), list(records.items()), n_jobs
    )
    made: dict[int, Row] = {}
    skipped: list[dict[str, str]] = []
    owners: dict[str, str] = {}
    with closing(outcomes):
        for done, bad in show_progress(outcomes, len(records), "records", progress):
            for path, error in bad:
                skip(skipped, path, error, skip_bad)
            try:
                check_owners(done.values(), owners)
                made |= done
            except ImageError as error:
                for position in done:
                    skip(skipped, str(manifest["path"].iloc[position]), error, skip_bad)
    if not made:
        raise GenerationError(
            f"none of {len(manifest)} images can be used. First: {skipped[0]['reason']}"
        )
    table = make_manifest(made[position] for position in sorted(made))
    kept = {c: manifest[c].dtype for c in manifest.columns if c not in _NEW}
    table = table.astype(kept)
    write_results(root, table, skipped)
    return table


def _check_elsewhere(manifest: pd.DataFrame, root: Path) -> None:
    inside = [p for p in manifest["path"].map(str) if Path(p).absolute().is_relative_to(root)]
    if inside:
        raise GenerationError(
            f"{len(inside)} of {len(manifest)} images lie in {root}, where they would be written "
            f"over, the first is {inside[0]}. Choose another folder."
        )


def _split_records(manifest: pd.DataFrame) -> dict[str, dict[int, Row]]:
    """Sort the rows, by their position, into records by the name of the record's folder."""
    missing = [column for column in REQUIRED if column not in manifest]
    if missing or manifest.empty:
        raise GenerationError(
            f"a manifest needs rows and the columns {', '.join(REQUIRED)}; "
            f"got {len(manifest)} rows, missing: {', '.join(missing) or 'none'}."
        )
    records: dict[str, dict[int, Row]] = {}
    for position, row in enumerate(manifest.to_dict("records")):
        name = row.get("record")
        key = f"{row['source_id']}/{name}" if isinstance(name, str) else str(row["source_id"])
        folder = safe_name(key, text_hash(key))
        records.setdefault(folder, {})[position] = {str(k): v for k, v in row.items()}
    return records

import pandas as pd
import pytest
from engine_records import ENGINES, N_SOURCES, write_records

from transfer_study.joining import join_manifests


def test_joined_manifests_share_sources_and_not_records(tmp_path):
    for name in ("own", "far"):
        (tmp_path / name).mkdir()
    manifest = write_records(tmp_path / "own", ENGINES, range(N_SOURCES))
    external = write_records(tmp_path / "far", {"unheard of": 0.9}, range(50, 56), "far-")
    again = write_records(tmp_path, {"d": 2.0}, [3, 70])
    far = external.assign(source_id=[name.removeprefix("far-") for name in external["source_id"]])
    copy = write_records(tmp_path, {"e": 2.0}, [5], "copy-")
    far = pd.concat([far, copy.assign(source_id="3")], ignore_index=True)
    whole, others = join_manifests([manifest, again], {"far": far})
    assert len(whole) == len(manifest) + len(again)
    assert set(whole["source_id"]) == {*map(str, range(N_SOURCES)), "70"}
    assert whole["record"].nunique() == N_SOURCES + 2  # 3 is in both, at a size of its own
    assert set(others["far"]["source_id"]) == {*(f"far:{i}" for i in range(50, 56)), "5"}
    assert list(whole.columns) == list(manifest.columns)
    with pytest.raises(ValueError, match="in two of the data sets"):
        join_manifests([manifest], {"far": manifest})
    alone, _ = join_manifests([manifest])
    pd.testing.assert_frame_equal(alone, manifest)

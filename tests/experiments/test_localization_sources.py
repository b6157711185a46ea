import numpy as np
import pytest
from spliced_records import SIDE, save, write_records

from cnnsvm.evaluation.localization_records import kinds_of, with_truth
from localization_study.records import has_greys, hash_masks, limit_sources, rename_engines


@pytest.fixture
def manifest(tmp_path):
    return write_records(tmp_path, n_sources=3)


def test_engines_can_be_renamed_and_several_made_one(manifest):
    assert kinds_of(with_truth(rename_engines(manifest, ["?=VAE"]))[0])[:1] == ["VAE spliced"]
    first_counts = rename_engines(manifest, ["b=second", "*=other"])
    fakes = first_counts[first_counts["variant"] != "original"]
    assert set(fakes["engine"]) == {"second", "other"}
    originals = manifest["variant"] == "original"
    assert first_counts.loc[originals, "engine"].equals(manifest.loc[originals, "engine"])
    unknown = manifest.assign(engine=None)
    assert "known spliced" in kinds_of(with_truth(rename_engines(unknown, ["unk*=known"]))[0])


def test_a_rename_that_cannot_be_is_told(manifest):
    with pytest.raises(ValueError, match="PATTERN=NAME, got 'VAE'"):
        rename_engines(manifest, ["VAE"])
    with pytest.raises(ValueError, match=r"no engine matches 'c' of 'c=VAE'\. There are: a, b"):
        rename_engines(manifest, ["c=VAE"])


def test_the_hash_is_that_of_the_masks(manifest, tmp_path):
    table, _ = with_truth(manifest)
    before = hash_masks(table)
    assert hash_masks(table) == before
    assert hash_masks(with_truth(manifest, ["mask"])[0]) != before
    save(tmp_path / "0" / "mask.png", np.full((SIDE, SIDE), 255, np.uint8))
    assert hash_masks(table) != before


def test_sources_are_drawn_whole(manifest):
    few = limit_sources(manifest, 2, random_state=1)
    assert few["source_id"].nunique() == 2
    assert (few.groupby("source_id").size() == 4).all()
    assert len(limit_sources(manifest, 9)) == len(manifest)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        limit_sources(manifest, 0)


def test_greys_of_masks_are_found(manifest, tmp_path):
    assert not has_greys(with_truth(manifest)[0])
    soft = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)
    save(tmp_path / "1" / "blend.png", soft)
    assert has_greys(with_truth(manifest)[0])

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_runs import BUNDLE_ENGINES, N_BUNDLE_SOURCES, bundle_photo

from cnnsvm import InpaintDetector
from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import read_manifest
from cnnsvm.detection.training_overlap import find_training_images
from cnnsvm.generation.masks import get_schema
from cnnsvm.svm.inner_cv import InnerCV


@pytest.fixture(scope="module")
def run(finished):
    found = finished("train_bundle")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("train_bundle").script


@pytest.fixture(scope="module")
def photos(run):
    return Path(run[0][1])


@pytest.fixture(scope="module")
def loaded(run):
    return InpaintDetector.from_pretrained(run[1] / "weights")


def test_the_weights_load_and_judge(run, loaded, photos):
    again = InpaintDetector.from_pretrained(run[1] / "weights")
    assert loaded.classes_.tolist() == ["original", "spliced"]
    files = sorted(photos.glob("*.jpg"))
    proba = loaded.predict_proba(files)
    np.testing.assert_array_equal(again.predict_proba(files), proba)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert set(loaded.verdict(files)) <= {"original", "spliced", "unsure"}
    assert loaded.explain(files[0]).shape == (144, 150)
    assert loaded.get_params()["random_state"] == 3


def test_the_records_are_of_every_engine(run):
    table = read_manifest(run[1] / "records" / "manifest.parquet")
    fakes = table[table["label"] == 1]
    assert fakes.groupby("engine")["source_id"].nunique().to_dict() == dict.fromkeys(
        BUNDLE_ENGINES, 9
    )
    assert set(fakes["variant"]) == {"spliced"}
    assert 0 < fakes["reduced"].mean() < 1


def test_the_card_names_sources_engines_and_numbers(run, photos):
    card = (run[1] / "weights" / "README.md").read_text()
    assert "# cnnsvm\n" in card
    name = photos.name
    assert f"\n- 9 sources of {name}, repainted by 2 engines: opencv-telea, self-blend.\n" in card
    assert "first-step\npython " in card
    assert re.search(r"- commit: (not recorded|[0-9a-f]{40})\n", card)
    assert "| other paintings | 40 / 20 | 0.900 [0.800, 0.950] | 0.850 [n/a] |" in card
    assert "- seed: 3" in card


def test_it_knows_its_own_originals_and_no_others(run, loaded, photos):
    own = sorted(photos.glob("*.jpg"))
    found = find_training_images(loaded, own)
    assert found == [(i, 0) for i in range(N_BUNDLE_SOURCES)]
    assert find_training_images(run[1] / "weights", [bundle_photo(100 + i) for i in range(5)]) == []
    table = read_manifest(run[1] / "records" / "manifest.parquet")
    copies = table[(table["label"] == 0) & table["reduced"]]["path"].tolist()
    assert len(find_training_images(loaded, copies)) == len(copies) > 0


def state_of(out):
    """When each image, mask and stored network was written, and what the weights hold."""
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".png", ".jpg")}
    times |= {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.safetensors")}
    weights = {p.name: p.read_bytes() for p in (out / "weights").iterdir() if p.suffix != ".json"}
    return times, weights


def test_a_second_run_makes_and_trains_nothing_again(run, script, monkeypatch):
    arguments, out = run
    before = state_of(out)
    assert len(before[0]) > 3 * N_BUNDLE_SOURCES
    monkeypatch.setattr(InnerCV, "fold_auc", lambda *_: pytest.fail("searched again"))
    assert script.main(arguments) == 0
    assert state_of(out) == before


def test_records_only_trains_nothing(script, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(InpaintDetector, "fit", None)
    monkeypatch.setattr(script, "ENGINES", ("opencv-telea",))
    out = tmp_path / "out"
    assert script.main(["--data", str(photos), "--out", str(out), "--records-only"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["records"]
    table = read_manifest(out / "records" / "manifest.parquet")
    assert len(table) == 2 * N_BUNDLE_SOURCES
    assert load_image(table["path"][0]).ndim == 3


def test_missing_decoders_are_told_before_anything_is_made(script, photos, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    arguments = ["--data", str(photos), "--out", str(out), "--decoders", str(tmp_path / "empty")]
    assert script.main(arguments) == 2
    assert "holds no generators" in capsys.readouterr().err
    assert not out.exists()


def test_engines_are_listed_in_one_order(script, tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    options = ["--data", "x", "--out", "y", "--decoders", str(tmp_path)]
    assert script.list_engines(script.parse_arguments(options)) == [
        f"decoder:{tmp_path / 'a'}",
        f"decoder:{tmp_path / 'b'}",
        *BUNDLE_ENGINES,
    ]


def test_several_data_sets_share_a_source_and_only_the_first_has_finished_files(
    script, photos, tmp_path, monkeypatch
):
    records, others = tmp_path / "records", tmp_path / "others"
    others.mkdir()
    for i in range(3):
        (records / f"r{i}").mkdir(parents=True)
        Image.fromarray(bundle_photo(i)).save(records / f"r{i}" / "original.png")
        Image.fromarray(bundle_photo(i) // 2).save(records / f"r{i}" / "inpainting.png")
    for i in (2, 3):  # number 2 is in both
        Image.fromarray(bundle_photo(i)).save(others / f"other{i}.jpg", quality=90)
    monkeypatch.setattr(script, "ENGINES", ("opencv-telea",))
    data = ["--data", str(records), str(others), "--file", "inpainting.png"]
    assert script.main([*data, "--out", str(tmp_path / "out"), "--records-only"]) == 0
    table = read_manifest(tmp_path / "out" / "records" / "manifest.parquet")
    engines = table[table["label"] == 1].groupby("data")["engine"].unique()
    assert [sorted(found) for found in engines] == [
        ["file:inpainting.png", "opencv-telea"],
        ["opencv-telea"],
    ]
    sources = table.groupby("data")["source_id"].unique().map(set)
    assert len(sources.iloc[0] & sources.iloc[1]) == 1
    assert len(sources.iloc[0] | sources.iloc[1]) == 4


def test_a_card_of_unknown_fields_is_refused(script, photos, tmp_path, capsys):
    (tmp_path / "card.json").write_text('{"accuracy": 1}')
    arguments = ["--out", str(tmp_path / "out"), "--card", str(tmp_path / "card.json")]
    assert script.main(["--data", str(photos), *arguments]) == 2
    assert "unknown ['accuracy']; a card has name, summary" in capsys.readouterr().err


def test_a_kept_network_gets_a_classifier_on_windows_that_show_every_pixel(
    run, script, loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "KEPT", {**script.KEPT, "crop_size": 48, "batch_size": 8})
    others = tmp_path / "others"
    others.mkdir()
    for i in range(N_BUNDLE_SOURCES):
        Image.fromarray(bundle_photo(50 + i)).save(others / f"{i}.jpg", quality=90)
    out = tmp_path / "out"
    arguments = ["--data", str(others), "--out", str(out), "--network", str(run[1] / "weights")]
    assert script.main([*arguments, "--device", "cpu"]) == 0
    kept = InpaintDetector.from_pretrained(out / "weights")
    assert kept.embedder_[0].n_crops is None
    for name, value in loaded.embedder_[0].network_.state_dict().items():
        assert (kept.embedder_[0].network_.state_dict()[name] == value).all()
    assert set(loaded.trained_on_) < set(kept.trained_on_)


def test_every_mask_that_is_dealt_exists(script):
    for name in script.SCHEMAS:
        assert get_schema(name).name == name

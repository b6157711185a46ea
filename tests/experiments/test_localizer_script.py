import numpy as np
import pytest
from PIL import Image
from script_runs import load_script
from tiny_localizer import painting

from cnnsvm import InpaintLocalizer
from cnnsvm.data.manifest import make_manifest, make_row, read_manifest, write_manifest
from cnnsvm.localization.trainer import LocalizerTrainer

N_SOURCES = 8


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Noisy images and two fakes of each: a smooth rectangle, and smooth everywhere."""
    folder = tmp_path_factory.mktemp("records")
    rows = []
    for source in range(N_SOURCES):
        image, mask = painting(source)
        Image.fromarray(mask).save(folder / f"mask_{source}.png")
        original = image.copy()
        original[mask] = np.random.default_rng(source).integers(0, 256, original[mask].shape)
        for variant, pixels in (
            ("original", original),
            ("spliced", image),
            ("regenerated", np.full_like(image, 100 + source)),
        ):
            file = folder / f"{source}_{variant}.png"
            Image.fromarray(pixels).save(file)
            own = {"variant": variant}
            if variant != "original":
                own |= {"engine": "smooth", "mask_path": str(folder / f"mask_{source}.png")}
            rows.append(make_row(file, int(variant != "original"), f"s{source}", **own))
    write_manifest(make_manifest(rows), folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture
def script(monkeypatch):
    module = load_script("localizer")
    tiny = {"ARCHITECTURE": "iidnet", "SIZE": "small", "CROP_SIZE": 32, "BATCH_SIZE": 8}
    for name, value in (tiny | {"MOST_SIDE": 48, "QUALITIES": (None, 75)}).items():
        monkeypatch.setattr(module, name, value)
    return module


def test_a_source_gives_some_images_of_each_kind(script, records, monkeypatch):
    manifest = read_manifest(records)
    table = script.draw_images(manifest, 0)
    assert len(table) == 3 * N_SOURCES
    assert (table.loc[table["variant"] == "regenerated", "reading"] == "whole").all()
    monkeypatch.setattr(script, "MOST_OF", {"original": 1, "spliced": 0, "regenerated": 1})
    assert set(script.draw_images(manifest, 0)["variant"]) == {"original", "regenerated"}


def test_images_and_masks_are_cut_alike(script, records):
    table = script.draw_images(read_manifest(records), 0)
    images, masks = script.load_examples(table, 0)
    for image, mask, variant in zip(images, masks, table["variant"], strict=True):
        assert image.shape == (48, 48, 3)
        assert mask.shape == (48, 48)
        if variant == "original":
            assert not mask.any()
        elif variant == "regenerated":
            assert mask.all()
        elif mask.any() and not mask.all():  # neighbours differ less where it was made smooth
            rough = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=2)
            assert rough[mask[:, 1:] & mask[:, :-1]].mean() < rough[~mask[:, 1:]].mean()


def test_a_run_trains_judges_and_resumes(script, records, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = ["--records", str(records), "--test", f"own={records}", "--out", str(out)]
    arguments += ["--epochs", "1", "--device", "cpu"]
    assert script.main(arguments) == 0
    said = capsys.readouterr().out
    assert "own" in said
    assert "JPEG 75" in said
    card = (out / "weights" / "README.md").read_text()
    assert f"{3 * N_SOURCES} images of {N_SOURCES} sources" in card
    assert "JPEG 75" in card
    maps = InpaintLocalizer.from_pretrained(out / "weights").predict_proba([painting(0)[0]])
    assert maps[0].shape == painting(0)[1].shape
    monkeypatch.setattr(LocalizerTrainer, "run_epoch", None)
    assert script.main(arguments) == 0  # the network was taken from the run


def test_a_bad_test_is_told_before_the_training(script, records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(InpaintLocalizer, "fit", None)
    arguments = ["--records", str(records), "--test", f"gone={tmp_path / 'gone.csv'}"]
    assert script.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "gone.csv" in capsys.readouterr().err

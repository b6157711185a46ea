import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from script_runs import load_script
from transformers import CLIPVisionConfig, CLIPVisionModel

from cnnsvm import CNNEmbedder, RegionDetector
from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import make_manifest, make_row, write_manifest

N_SOURCES = 8


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Noise, and what two engines put into a rectangle of it."""
    folder = tmp_path_factory.mktemp("records")
    rows = []
    for source in range(N_SOURCES):
        rng = np.random.default_rng(source)
        image = rng.normal(128, 40, (96, 112, 3)).clip(0, 255).astype(np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[10:70, 20:90] = 255
        Image.fromarray(mask).save(folder / f"mask_{source}.png")
        for engine, level in ((None, None), ("grey", 128), ("dark", 60)):
            pixels = image.copy()
            if engine is not None:
                pixels[mask > 0] = level
            file = folder / f"{source}_{engine}.png"
            Image.fromarray(pixels).save(file)
            own = {"variant": "original"} if engine is None else {"variant": "spliced"}
            own |= {"engine": engine, "mask_path": str(folder / f"mask_{source}.png")}
            own |= {"mask_path": None} if engine is None else {}
            rows.append(make_row(file, int(engine is not None), f"s{source}", **own))
    write_manifest(make_manifest(rows), folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPVisionConfig(**sizes, num_hidden_layers=8, image_size=64, patch_size=16)
    CLIPVisionModel(config).save_pretrained(folder)
    tower = CNNEmbedder(f"hf:{folder}", finetune="none", crop_size=64, n_crops=1, device="cpu")
    module = load_script("region")
    module.make_tower = lambda args: tower
    return module


def test_views_are_of_one_source_and_some_are_as_they_are(script, records):
    from cnnsvm.data.manifest import read_manifest

    views = script.make_views(read_manifest(records), 0)
    counts = views.groupby("source_id")["engine"].agg(["size", "count"])
    assert (counts["size"] - counts["count"] == script.N_ORIGINALS).all()
    assert (counts["count"] == 2).all()  # there are no more fakes
    assert 0 < (views["plan"] == 0).mean() < 1
    whole = views[(views["plan"] == 0) & views["engine"].notna()].iloc[0]
    pixels, mask = script.load_view(whole)
    np.testing.assert_array_equal(pixels, load_image(whole["path"]))
    assert mask.shape == pixels.shape[:2]
    assert mask[40, 50]
    assert not mask[0, 0]


def test_a_run_fits_judges_and_resumes(script, records, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    table = pd.read_csv(records)
    table[table["label"] == 0].to_csv(records.with_name("fresh.csv"), index=False)
    tests = [f"own={records}", f"fresh={records.with_name('fresh.csv')}"]
    arguments = ["--records", str(records), "--test", *tests, "--out", str(out)]
    assert script.main(arguments) == 0
    said = capsys.readouterr().out
    assert "Engines left out" in said
    left_out = pd.read_csv(out / "left_out.csv")
    assert left_out["engine"].tolist() == ["dark", "grey", "all"]
    assert left_out["views"].iloc[-1] == 2 * N_SOURCES
    card = (out / "weights" / "README.md").read_text()
    assert "own" in card
    assert "JPEG 85" in card
    assert "pixel ROC AUC" in card
    assert "Caught at 5 %" in card
    monkeypatch.setattr(RegionDetector, "fit", None)
    assert script.main(arguments) == 0


def test_a_bad_test_is_told_before_the_fit(script, records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RegionDetector, "fit", None)
    arguments = ["--records", str(records), "--test", f"gone={tmp_path / 'gone.csv'}"]
    assert script.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "gone.csv" in capsys.readouterr().err


def test_pixels_of_a_fake_are_ranked_by_its_mask(script, tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.full_like(mask, 255)).save(tmp_path / "whole.png")

    class Pointing:
        def explain(self, image):
            return image[:, :, 0] / 255

    image = np.repeat(mask[:, :, None], 3, axis=2)
    assert script.rank_pixels(Pointing(), image, str(tmp_path / "mask.png")) == 1
    assert script.rank_pixels(Pointing(), 255 - image, str(tmp_path / "mask.png")) == 0
    assert np.isnan(script.rank_pixels(Pointing(), image, str(tmp_path / "whole.png")))
    assert np.isnan(script.rank_pixels(Pointing(), image, None))


def test_the_threshold_of_false_alarms_is_of_images_without_fakes(script):
    judged = pd.DataFrame(
        {
            "images": ["fresh"] * 100 + ["own"] * 4,
            "treatment": "as they are",
            "label": [0] * 100 + [1, 1, 0, 0],
            "decision": [*range(100), 96, 50, 99, 0],
        }
    )
    assert script.list_caught(judged) == [["own", "as they are", 100, 0.5, 0.5]]
    assert script.list_caught(judged[100:]) == []  # nothing sets the threshold

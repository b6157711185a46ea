import json

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from cnnsvm.cli import main
from cnnsvm.data.manifest import make_manifest, make_row, write_manifest

QUICK = ["--folds", "2", "--jobs", "1"]


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    """Most of an audit's time goes into forests, on which nothing here depends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "cnnsvm.evaluation.negative_controls.RandomForestClassifier",
            lambda n_trees, **options: RandomForestClassifier(20, **options),
        )
        yield


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 56, 3), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def rows(tmp_path):
    made = []
    for i in range(4):
        made.append(make_row(save(tmp_path / f"{i}.png", noise(i)), 0, f"s{i}"))
        made.append(make_row(save(tmp_path / f"fake{i}.png", noise(i + 50)), 1, f"s{i}"))
    return made


def audited(tmp_path, rows, *flags):
    path = write_manifest(make_manifest(rows), tmp_path / "manifest.csv")
    return main(["audit", str(path), *QUICK, *flags])


def test_clean_data_have_status_0(tmp_path, rows, capsys):
    assert audited(tmp_path, rows) == 0
    text = capsys.readouterr().out
    assert "Audit: " in text
    assert "Leaks" not in text


def test_a_leak_has_status_1_and_is_in_the_json(tmp_path, rows, capsys):
    divided = [row | {"split": "test" if row["label"] else "train"} for row in rows]
    target = tmp_path / "new" / "audit.json"
    assert audited(tmp_path, divided, "--json", str(target)) == 1
    text = capsys.readouterr().out
    assert "4 of 4 sources lie in several splits" in text
    assert str(target) in text
    result = json.loads(target.read_text())
    assert result["verdict"] == "leak"
    assert result["checks"][1]["details"]["straddling"] == ["s0", "s1", "s2", "s3"]


def test_one_file_under_two_sources_is_a_finding_not_an_error(tmp_path, rows, capsys):
    copied = make_row(save(tmp_path / "copy.png", noise(0)), 0, "s99")
    assert audited(tmp_path, [*rows, copied]) == 1
    assert "identical file pairs" in capsys.readouterr().out


def test_what_cannot_be_read_has_status_2_and_one_message(tmp_path, rows, capsys):
    assert main(["audit", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    rows[0]["label"] = 7
    assert audited(tmp_path, rows) == 2
    message = capsys.readouterr().err
    assert "1 of 8 rows are bad" in message
    assert "--skip-bad" in message


def test_a_damaged_image_is_an_error_or_left_out(tmp_path, rows, capsys):
    content = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(content[: len(content) // 2])
    rows[4]["sha256"] = None
    assert audited(tmp_path, rows) == 2
    assert "2.png" in capsys.readouterr().err
    assert audited(tmp_path, rows, "--skip-bad") == 0
    text = " ".join(capsys.readouterr().out.split())  # long paths are folded
    assert "(1)" in text
    assert "2.png: the checksum of its pixels is wrong" in text


def test_a_tree_needs_groups_to_know_its_sources(tmp_path, capsys):
    for i in range(4):
        save(tmp_path / "data" / "Real" / f"{i}.png", noise(i))
        save(tmp_path / "data" / "Fake" / f"{i}.png", noise(i + 50))
    command = ["audit", str(tmp_path / "data"), *QUICK]
    assert main(command) == 0
    assert "no source has both classes" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--groups", r"(.+)\.png"]) == 0
    assert "no source has both classes" not in " ".join(capsys.readouterr().out.split())


def test_a_zip_is_unpacked_elsewhere(tmp_path, rows, capsys):
    import shutil

    write_manifest(make_manifest(rows), tmp_path / "manifest.csv")
    packed = shutil.make_archive(str(tmp_path.parent / f"{tmp_path.name}-packed"), "zip", tmp_path)
    assert main(["audit", packed, *QUICK]) == 0
    assert main(["audit", packed, *QUICK, "--work", str(tmp_path / "work")]) == 0
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert "Audit: " in capsys.readouterr().out

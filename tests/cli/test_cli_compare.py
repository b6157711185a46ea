import json

import numpy as np
import pandas as pd
import pytest

from cnnsvm.cli import main


@pytest.fixture
def runs(tmp_path):
    """Write a run that is right and one that guesses."""
    label = np.tile([0, 1], 20)
    folders = []
    for name, chance in (("right", 0.2 + 0.6 * label), ("guess", np.linspace(0.1, 0.9, 40))):
        table = pd.DataFrame({"path": [f"/{name}/{i}.png" for i in range(40)], "label": label})
        table["source_id"] = np.arange(40) // 2
        table = table.assign(probability=chance, prediction=(chance > 0.5).astype(int), fold=0)
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        table.to_csv(folders[-1] / "predictions.csv", index=False)
    return [str(folder) for folder in folders]


def test_the_better_run_is_named_in_text_page_and_json(runs, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert main(["compare", *runs, "--resamples", "200", "--out", str(page)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "right is better than guess by 0.500" in said
    assert "right is better than guess" in page.read_text()
    assert main(["compare", *runs, "--resamples", "200", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"][0]["metrics"]["balanced_accuracy"]["a"] == 1
    assert "right is better" in found["conclusions"][0]


def test_one_run_or_another_data_set_is_wrong_usage(runs, tmp_path, capsys):
    assert main(["compare", runs[0]]) == 2
    assert "at least two" in capsys.readouterr().err
    table = pd.read_csv(f"{runs[1]}/predictions.csv").iloc[1:]
    table.to_csv(f"{runs[1]}/predictions.csv", index=False)
    assert main(["compare", *runs]) == 2
    assert "in one table only" in capsys.readouterr().err

"""The study of generated images: what it lists, leaves out, counts and makes of a public file."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.images import load_image
from generated_study import tower
from generated_study.images import TREATMENTS, collect, treated
from generated_study.report import generated_report
from generated_study.study import domains, leave_kinds_out, share, summarise

REALS = ("one", "two", "three", "four", "five", "six")


def save(path, seed, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_kinds_are_drawn_matched_and_cut(tmp_path):
    for i in range(5):
        save(tmp_path / "mixed" / f"red_{i}.png", i)
        save(tmp_path / "mixed" / f"blue_{i}.png", 9 + i)
    grid = save(tmp_path / "art" / "style_a.png", 20, 64)
    kinds = {"red": f"{tmp_path / 'mixed'}::red_*"}
    reals = collect(kinds, 0, tmp_path / "work", most=3)
    assert len(reals) == 3
    assert reals["path"].str.contains("red_").all()
    assert collect(kinds, 0, tmp_path / "work", most=3).equals(reals)
    options = {"grids": ["art"], "groups": {"art": "(.+)_"}}
    fakes = collect({"art": str(tmp_path / "art")}, 1, tmp_path / "work", **options)
    assert (fakes["label"] == 1).all()
    assert fakes["group"].nunique() == 1
    upper, lower = (load_image(path) for path in fakes["path"])
    np.testing.assert_array_equal(upper, grid[:32, :32])
    np.testing.assert_array_equal(lower, grid[32:, 32:])


def test_a_pattern_without_a_match_is_refused(tmp_path):
    save(tmp_path / "mixed" / "a.png", 0)
    with pytest.raises(ValueError, match=r"'z\*'"):
        collect({"none": f"{tmp_path / 'mixed'}::z*"}, 0, tmp_path)


def test_treatments_give_files_of_their_codec(tmp_path):
    save(tmp_path / "a.png", 0, 64)
    path = str(tmp_path / "a.png")
    assert treated(path, "clean") == path
    assert {treated(path, name)[:2] for name in TREATMENTS if "jpeg" in name} == {b"\xff\xd8"}
    assert treated(path, "webp-55")[8:12] == b"WEBP"
    assert load_image(treated(path, "half, jpeg-50")).shape == (32, 32, 3)


@pytest.fixture(scope="module")
def study():
    """Embeddings in which generated images lie apart, but one kind of real is like them."""
    rng = np.random.default_rng(0)
    rows, vectors = [], []
    for kind in (*REALS, "odd"):
        for i in range(12):
            rows.append((f"{kind}{i}", f"{kind}/{i}", 0, kind, "train"))
            vectors.append(rng.normal(2.0 * (kind == "odd"), 0.4, 8))
    for i in range(24):
        rows.append((f"fake{i}", f"style{i // 2}", 1, "art", "train"))
        vectors.append(rng.normal(2.0, 0.4, 8))
    for i in range(5):
        rows.append((f"control{i}", f"control/{i}", 0, "control", "control"))
        vectors.append(rng.normal(0.0, 0.4, 8))
    table = pd.DataFrame(rows, columns=["path", "group", "label", "kind", "role"])
    embeddings = {"clean": np.array(vectors, np.float32)}
    return table, embeddings, leave_kinds_out(embeddings, table, ["clean"])


def test_a_kind_and_a_source_are_never_judged_by_what_saw_them(study):
    table, _, judged = study
    assert set(judged["left_out"]) == {*REALS, "odd"}
    for (left, fold), part in judged.groupby(["left_out", "fold"]):
        real = part[(part["label"] == 0) & (part["role"] == "train")]
        assert set(real["kind"]) == {left}
        others = judged[(judged["left_out"] == left) & (judged["fold"] != fold)]
        fakes = part[part["label"] == 1]
        assert set(fakes["group"]).isdisjoint(others.loc[others["label"] == 1, "group"])
    one = judged[judged["left_out"] == REALS[0]]
    assert set(one.loc[one["label"] == 1, "path"]) == set(table.loc[table["label"] == 1, "path"])
    assert (one[one["role"] == "control"].groupby("path").size() == one["fold"].nunique()).all()


def test_what_is_like_a_fake_is_told_by_its_row(study):
    summary = summarise(study[2]).set_index("kind")
    assert summary.loc["odd", "art auc"]["value"] < 0.8
    for kind in REALS:
        assert summary.loc[kind, "art auc"]["value"] == 1.0
        assert summary.loc[kind, "real generated"]["value"] == 0.0


def test_inner_folds_keep_kinds_and_sources_together(study):
    table = study[0]
    names = domains(table)
    assert set(names[table["label"] == 0]) == {*REALS, "odd", "control"}
    assert len(set(names[table["label"] == 1])) == 12


def test_shares_count_each_image_once():
    part = pd.DataFrame({"path": ["a", "a", "b", "b"], "verdict": ["generated", "unsure"] * 2})
    found = share(part, "generated")
    assert found["value"] == 0.5
    assert found["low"] < 0.15  # of two images, not of four


def test_the_report_has_a_table_a_treatment(study):
    table, _, judged = study
    report = generated_report(table, summarise(judged), judged, ["clean"], "python generated.py")
    assert [section.title for section in report.sections][:2] == ["After clean", "Judged alone"]
    assert "odd" in report.files["generated.csv"]
    assert len(report.findings) == 1


def int8_file(file):
    """A file as the wheel has it: a norm by its name, a matrix that only its bias names."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (4, 3)).astype(np.int8)
    scale, bias = rng.random(3).astype(np.float32), rng.random(3).astype(np.float32)
    tensors = {
        "m_quantized": codes,
        "m_scale": scale,
        "m_zero_point": np.zeros(3, np.int8),
        "vision_model.layer.bias": bias,
        "vision_model.norm.weight": np.ones(4, np.float32),
        "x_zero": np.uint8(0),
    }
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("MatMulInteger", ["x", "m_quantized", "x_zero", "m_zero_point"], ["product"]),
            node("Cast", ["product"], ["cast"], to=onnx.TensorProto.FLOAT),
            node("Mul", ["cast", "m_scale"], ["scaled"]),
            node("Add", ["vision_model.layer.bias", "scaled"], ["y"]),
        ],
        "one layer",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
    )
    onnx.save(onnx.helper.make_model(graph), file)
    return codes.astype(np.float32) * scale, bias


def test_matrices_of_eight_bits_are_named_by_their_bias(tmp_path):
    weight, bias = int8_file(tmp_path / "tower.onnx")
    found = tower.read_weights(tmp_path / "tower.onnx")
    assert set(found) == {"layer.weight", "layer.bias", "norm.weight"}
    np.testing.assert_array_equal(found["layer.weight"], weight.T)
    np.testing.assert_array_equal(found["layer.bias"], bias)


def test_another_file_is_refused(tmp_path):
    int8_file(tmp_path / "tower.onnx")
    with pytest.raises(ValueError, match="SHA-256"):
        tower.write_tower(tmp_path / "tower.onnx", tmp_path / "out", 10, 4)

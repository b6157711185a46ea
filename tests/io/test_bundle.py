import json
import shutil

import numpy as np
import pytest

from cnnsvm.io.bundle import (
    SCHEMA_VERSION,
    BundleError,
    _sealed,
    content_hash,
    holds_model,
    read_bundle,
    read_config,
    write_bundle,
)

ARRAYS = {"svm": {"a": np.arange(6.0).reshape(2, 3)}, "network": {"b": np.ones(3, np.float32)}}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "model", {"kind": "test", "value": 1.5}, ARRAYS)


def test_round_trip(bundle):
    config, arrays = read_bundle(bundle)
    assert (config["kind"], config["value"]) == ("test", 1.5)
    assert config["schema_version"] == SCHEMA_VERSION
    assert {"python", "torch", "scikit-learn"} <= set(config["versions"])
    for name, tensors in ARRAYS.items():
        for key, value in tensors.items():
            np.testing.assert_array_equal(arrays[name][key], value)


def test_a_bundle_holds_no_pickle_and_is_read_by_everybody(bundle):
    assert {path.suffix for path in bundle.iterdir()} == {".json", ".safetensors"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in bundle.iterdir())


def test_a_bundle_is_replaced_but_nothing_else_is(bundle, tmp_path):
    write_bundle(bundle, {"kind": "second"}, {})
    assert read_bundle(bundle)[0]["kind"] == "second"
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"photos.*not overwritten"):
        write_bundle(other, {}, {})
    assert (other / "me.jpg").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}
    assert [holds_model(folder) for folder in (bundle, other)] == [True, False]


def test_a_write_that_fails_leaves_the_old_bundle(bundle, tmp_path):
    with pytest.raises(ValueError, match="nan"):
        write_bundle(bundle, {"kind": "second", "value": float("nan")}, ARRAYS)
    assert read_bundle(bundle)[0]["kind"] == "test"


def edit(bundle, **changes):
    """Change the description and its hash, as somebody with a purpose would."""
    file = bundle / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_bytes(_sealed(config))


@pytest.mark.parametrize("version", [1, 2, SCHEMA_VERSION + 1])
@pytest.mark.parametrize("read", [read_bundle, read_config])
def test_another_schema_is_refused(bundle, version, read):
    edit(bundle, schema_version=version)
    remedy = "newer cnnsvm" if version > SCHEMA_VERSION else "save it again"
    message = rf"schema version {version};.* reads {SCHEMA_VERSION}\..*{remedy}"
    with pytest.raises(BundleError, match=message):
        read(bundle)


@pytest.mark.parametrize("mask", [0x01, 0x2A, 0x80])  # 0x2A makes a line break of a space
def test_every_byte_of_the_description_counts(bundle, mask):
    file = bundle / "config.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= mask
        file.write_bytes(changed)
        with pytest.raises(BundleError):
            read_bundle(bundle)
    edited = whole.replace(b"1.5", b"1.6")
    for changed in (edited, whole[:-1], whole + b"\n", whole.replace(b"\n", b"\r\n")):
        file.write_bytes(changed)
        with pytest.raises(BundleError):
            read_bundle(bundle)
    file.write_bytes(whole)
    read_bundle(bundle)


def test_a_hash_elsewhere_in_the_description_does_no_harm(tmp_path):
    config = {"kind": "test", "zeros": "0" * 70}
    folder = write_bundle(tmp_path / "model", config, {})
    assert read_bundle(folder)[0]["zeros"] == "0" * 70
    again = write_bundle(tmp_path / "again", read_bundle(folder)[0], {})
    assert read_bundle(again)[0]["zeros"] == "0" * 70


def test_the_description_is_read_without_the_other_files(bundle):
    (bundle / "svm.safetensors").unlink()
    assert read_config(bundle)["kind"] == "test"


def test_a_content_hash_is_of_values_names_types_and_shapes():
    config = {"kind": "test"}
    same = content_hash(config, ARRAYS)
    assert content_hash(dict(config), {k: ARRAYS[k] for k in reversed(ARRAYS)}) == same
    others = [
        ({"kind": "tset"}, ARRAYS),
        (config, ARRAYS | {"svm": {"b": ARRAYS["svm"]["a"]}}),
        (config, ARRAYS | {"svm": {"a": ARRAYS["svm"]["a"].astype(np.float32)}}),
        (config, ARRAYS | {"svm": {"a": ARRAYS["svm"]["a"].reshape(3, 2)}}),
        (config, ARRAYS | {"svm": {"a": ARRAYS["svm"]["a"] + 1}}),
    ]
    assert len({same, *(content_hash(*other) for other in others)}) == 1 + len(others)


def test_a_text_is_protected_and_other_files_are_nobodys_business(tmp_path):
    texts = {"README.md": "# Grüße\n"}
    folder = write_bundle(tmp_path / "model", {"kind": "test"}, ARRAYS, texts)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    config, arrays = read_bundle(folder)
    assert set(config["files"]) == {"README.md", "svm.safetensors", "network.safetensors"}
    assert set(arrays) == set(ARRAYS)
    (folder / "README.md").write_text("# Grüsse\n")
    with pytest.raises(BundleError, match=r"README\.md has changed"):
        read_bundle(folder)


def test_a_changed_file_is_refused(bundle):
    file = bundle / "svm.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"svm\.safetensors has changed"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors"])
def test_a_path_that_leaves_the_folder_is_refused(bundle, name):
    edit(bundle, files={name: 64 * "0"})
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(bundle)


def test_a_link_out_of_the_folder_is_refused(bundle, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.move(bundle / "svm.safetensors", outside)
    (bundle / "svm.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(bundle)


def test_links_of_the_hubs_cache_are_followed(bundle, tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in bundle.iterdir():
        shutil.move(file, blobs / f"hash of {file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash of {file.name}")
    assert read_bundle(snapshot)[0]["kind"] == "test"
    moved = shutil.move(blobs / "hash of svm.safetensors", tmp_path)
    (snapshot / "svm.safetensors").unlink()
    (snapshot / "svm.safetensors").symlink_to(moved)
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(snapshot)


def test_missing_parts_are_named(bundle, tmp_path):
    (bundle / "svm.safetensors").unlink()
    with pytest.raises(BundleError, match=r"svm\.safetensors is missing"):
        read_bundle(bundle)
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        read_bundle(tmp_path / "nowhere")
    (bundle / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="KeyError"):
        read_bundle(bundle)

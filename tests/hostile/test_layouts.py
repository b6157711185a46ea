"""Layouts of the field's data sets: fakes and masks are never read as untouched sources."""

import os

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.readers import DatasetError, open_dataset, read_sources


def write(root, *names):
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("RealArt", "AiArtData"),
        ("4cam_auth", "4cam_splc"),
        ("RealImages", "AIGenerated"),
        ("nature", "Stable Diffusion V1.4"),
        ("pristine", "tampered-realistic"),
        ("human", "midjourney_v6"),
    ],
)
def test_folders_of_both_classes_are_two_classes(real, fake, tmp_path):
    write(tmp_path / "data", f"{real}/x/a.png", f"{fake}/x/b.png")
    table = open_dataset(tmp_path / "data", tmp_path / "work")
    labels = {os.path.basename(p): label for p, label in zip(table.path, table.label, strict=True)}
    assert labels == {"a.png": 0, "b.png": 1}


@pytest.mark.parametrize(
    "name",
    [
        "inpainting_img/img/1.png",
        "splicing_1_annotations/probe_mask/1.png",
        "StyleGAN/1.png",
        "Tp_D_CRN_M_N_cha00063_art00014_11818.png",
        "splicing-01.png",
        "00012_inpaint_sd2.png",
        "landscape_ai_0012.png",
        "0012_generated.png",
        "midjourney-castle.png",
    ],
)
def test_what_a_benchmark_calls_its_fakes_is_no_source(name, tmp_path):
    root = write(tmp_path / "photographs", name, "Au_ani_00001.png")
    with pytest.raises(DatasetError, match="named"):
        read_sources(root)


@pytest.mark.parametrize("above", ["fake", "1_fake", "Tp", "masks", "midjourney"])
def test_a_part_of_a_folder_of_fakes_is_no_source(above, tmp_path):
    root = write(tmp_path / above / "batch1", "a.png")
    with pytest.raises(DatasetError, match="lies in"):
        open_dataset(root, tmp_path / "work")


@pytest.mark.parametrize(
    "names",
    [
        ("carnival_mask_venice.png", "fake_plastic_trees.png", "ai_weiwei_01.png"),
        ("Aix/a.png", "Tpau/b.png", "Forgery_of_iron/c.png"),
        ("Michigan/organ.png", "human/natural.png"),
    ],
)
def test_words_of_titles_and_places_are_sources(names, tmp_path):
    root = write(tmp_path / "photographs", *names)
    assert open_dataset(root, tmp_path / "work")["label"].tolist() == [0] * len(names)


TABLES = {
    "label": "id,file_name,label\n0,train/a.png,1\n1,train/b.png,0\n",
    "is_fake": "image,is_fake\na,true\nb,false\n",
    "target": "image,target\nb.png,Real\na.png,Fake\n",
}


@pytest.mark.parametrize("column", ["label", "is_fake", "target"])
@pytest.mark.parametrize("place", ["train/labels.csv", "train.csv"])
def test_images_that_a_table_labels_are_no_sources(column, place, tmp_path):
    root = write(tmp_path / "train", "a.png", "b.png")
    (tmp_path / place).write_text(TABLES[column])
    with pytest.raises(DatasetError, match=f"column '{column}'"):
        open_dataset(root, tmp_path / "work")


@pytest.mark.parametrize(
    "text",
    [
        "file_name,label\nother.png,1\nthird.png,0\n",  # of other images
        "file_name,label\na.png,monet\nb.png,vangogh\n",
        "path,source_id\na.png,1\nb.png,1\n",
        "",
        "a\0b",
        '"',
    ],
)
def test_other_tables_beside_sources_say_nothing(text, tmp_path):
    root = write(tmp_path / "train", "a.png", "b.png")
    (tmp_path / "train" / "t.csv").write_text(text)
    os.mkfifo(tmp_path / "pipe.csv")
    assert open_dataset(root, tmp_path / "work")["label"].tolist() == [0, 0]

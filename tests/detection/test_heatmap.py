import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.exceptions import NotFittedError
from tiny_detector import cnn, detector, statistics, tuning

from cnnsvm.data.estimators import real_class
from cnnsvm.data.images import ImageError, load_image
from cnnsvm.detection.heatmap import blend_windows, heatmap
from cnnsvm.features.crops import MAX_WINDOWS
from cnnsvm.features.embedder import CropEmbedder

ORIENTATION = 0x0112
#: Images of the first sources train, the others have never been seen.
N_TRAIN = 24


@pytest.fixture(scope="module")
def trained(labelled_images):
    settings = {"n_crops": 4, "finetune": tuning(epochs=4), "random_state": 0}
    embedder = cnn("resnet18", truncate_at="layer1", **settings)
    return embedder.fit(*(part[:N_TRAIN] for part in labelled_images))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def brightness_of(crops):
    share = crops.mean(axis=(1, 2, 3)) / 255
    return np.log((share + 1e-6) / (1 - share + 1e-6))


@pytest.fixture
def brightness(trained, monkeypatch):
    """An embedder that takes for repainted what is bright."""
    monkeypatch.setattr(CropEmbedder, "score_crops", lambda self, crops: brightness_of(crops))
    return trained


@pytest.fixture
def uneven():
    """An image that no turn or reflection maps onto itself."""
    rows, columns = np.mgrid[:70, :110]
    grey = 20 + 180 * np.exp(-((rows - 12) ** 2 + (columns - 25) ** 2) / 500) + columns / 3
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def explain(embedder, image):
    return heatmap([embedder], image)


def write(pixels, orientation, kind="PNG"):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def is_map(values, shape):
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= 1


def test_the_repainted_half_stands_out_in_images_never_seen(trained, labelled_images):
    images, y, _ = (part[N_TRAIN:] for part in labelled_images)
    clean = np.mean([explain(trained, image).mean() for image in images[::3]])
    assert y[::3].sum() == 0
    for fake in (image for image, label in zip(images, y, strict=True) if label):
        found = explain(trained, fake)
        is_map(found, (72, 80))
        assert found[:, :40].mean() > found[:, 40:].mean() + 0.2
        assert found[:, :40].mean() > clean + 0.2
        mirrored = explain(trained, np.ascontiguousarray(fake[:, ::-1]))
        assert mirrored[:, 40:].mean() > mirrored[:, :40].mean() + 0.2


def test_the_map_is_that_of_the_classifier(trained):
    """An image of one crop: the map is the probability that fine-tuning trained."""
    import torch

    shown = noise(32, 32, 3)
    crop = torch.from_numpy(shown.transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        fake = trained.network_.logits(crop).softmax(dim=1)[0, 1].item()
    np.testing.assert_allclose(explain(trained, shown), fake, atol=1e-5)


def test_explaining_changes_nothing(trained):
    shown = noise(50, 60, 3)
    before = shown.copy()
    embedding = trained.transform([shown])
    first = explain(trained, shown)
    np.testing.assert_array_equal(explain(trained, shown), first)
    np.testing.assert_array_equal(shown, before)
    np.testing.assert_array_equal(trained.transform([shown]), embedding)


def test_log_odds_of_one_crop_size_are_averaged_and_then_the_maps_of_several(labelled_images):
    images = labelled_images[0][:1]
    odds = {"a": -1.0, "b": 2.0, "c": 0.5}

    class Says(CropEmbedder):
        has_classifier = True
        batch_size = 8

        def __init__(self, name, crop_size, resize=None):
            self.name, self.crop_size, self.resize = name, crop_size, resize

        def score_crops(self, crops):
            return np.full(len(crops), odds[self.name])

    frozen = cnn().fit(images)
    parts = [Says("a", 32), frozen, Says("b", 32), Says("c", 16), Says("no", 16, resize=20)]
    found = heatmap(parts, images[0])
    expected = (1 / (1 + np.exp(-0.5)) + 1 / (1 + np.exp(-0.5))) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    odds["c"] = 3.0
    expected = (1 / (1 + np.exp(-0.5)) + 1 / (1 + np.exp(-3.0))) / 2
    np.testing.assert_allclose(heatmap(parts, images[0]), expected, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_map_lies_on_the_pixels_as_they_are_stored(
    brightness, uneven, tmp_path, orientation, kind
):
    content = write(uneven, orientation, kind)
    (tmp_path / "shown").write_bytes(content)
    found = explain(brightness, tmp_path / "shown")
    is_map(found, (70, 110))
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 12) < 20
    assert abs(column - 25) < 20
    # Pillow turns the map as it turns the image: into the map of the upright image
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(found)
    stored.info["exif"] = exif.tobytes()
    upright = explain(brightness, load_image(content))
    np.testing.assert_allclose(np.asarray(ImageOps.exif_transpose(stored)), upright, atol=1e-6)


def test_all_kinds_of_input_agree(brightness, uneven, tmp_path):
    content = write(uneven, 6)
    path = tmp_path / "image.png"
    path.write_bytes(content)
    expected = explain(brightness, path)
    for image in (str(path), content, Image.open(path)):
        np.testing.assert_array_equal(explain(brightness, image), expected)
    turned = explain(brightness, load_image(path))  # an array is upright
    assert turned.shape == expected.shape[::-1]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_nonsense_for_an_orientation_is_none(brightness, uneven, orientation):
    plain = explain(brightness, uneven)
    np.testing.assert_array_equal(explain(brightness, write(uneven, orientation)), plain)


def test_a_tiff_is_mapped_as_stored(brightness, uneven):
    found = explain(brightness, write(uneven, 8, "TIFF"))
    np.testing.assert_allclose(found, explain(brightness, write(uneven, 8)), atol=1e-6)


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 90), (3, 700), (700, 3), (20, 31), (32, 32), (33, 32), (32, 95), (5, 40)],
)
def test_small_and_long_images_have_maps_of_their_shape(trained, shape):
    is_map(explain(trained, noise(*shape, 3)), shape)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_colour_is_one_value(trained, value):
    found = explain(trained, np.full((70, 45, 3), value, np.uint8))
    is_map(found, (70, 45))
    np.testing.assert_allclose(found, found[0, 0], atol=1e-5)


def test_grey_alpha_and_two_level_images(trained):
    shown = noise(72, 80, 3)
    grey = shown[:, :, 0]
    alpha = np.dstack([shown, grey])
    for image in (grey, alpha, Image.fromarray(grey), Image.fromarray(grey).convert("1")):
        is_map(explain(trained, image), (72, 80))
    expected = explain(trained, np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(explain(trained, grey), expected)


def test_large_images_do_not_take_forever(trained, monkeypatch):
    batches = []

    def count(self, crops):
        batches.append(len(crops))
        return brightness_of(crops)

    monkeypatch.setattr(CropEmbedder, "score_crops", count)
    shown = np.zeros((600, 900, 3), np.uint8)
    shown[:300, 600:] = 255
    found = explain(trained, shown)
    is_map(found, (600, 900))
    assert 200 < sum(batches) <= MAX_WINDOWS
    assert max(batches) <= trained.batch_size
    assert found[:260, 640:].min() > 0.9
    assert found[340:].max() < 0.1


def test_blending_is_the_weighted_mean_of_the_windows_over_a_pixel():
    values = np.array([0.9, 0.1, 0.4, 0.7])
    places = [(0, 0), (0, 3), (2, 0), (2, 3)]
    blended = blend_windows(values.reshape(2, 2), [0, 2], [0, 3], (7, 8), 5)
    ramp = np.array([1, 2, 3, 2, 1]) / 3
    for row, column in np.ndindex(7, 8):
        weights = [
            ramp[row - y] * ramp[column - x] if 0 <= row - y < 5 and 0 <= column - x < 5 else 0
            for y, x in places
        ]
        assert blended[row, column] == pytest.approx(np.average(values, weights=weights), abs=1e-6)
    assert blended[0, 0] == pytest.approx(0.9)


@pytest.mark.parametrize("embedder", [cnn(), statistics(), cnn(resize=40)])
def test_without_a_classifier_of_native_crops_there_is_nothing_to_explain(
    labelled_images, embedder
):
    if embedder.resize:
        embedder.set_params(finetune=tuning(epochs=1))
    fitted = embedder.fit(*labelled_images)
    with pytest.raises(ValueError, match=r"finetune='full' or 'head'"):
        heatmap([fitted], labelled_images[0][0])


def test_a_detector_explains_by_its_embedders_once_it_is_fitted(labelled_images, trained):
    with pytest.raises(NotFittedError):
        detector().explain(labelled_images[0][0])
    embedder = cnn(finetune=tuning(epochs=1))
    model = detector(embedder, statistics()).fit(*labelled_images)
    expected = heatmap(model.embedder_[:1], labelled_images[0][1])
    np.testing.assert_array_equal(model.explain(labelled_images[0][1]), expected)


def test_what_is_no_image_is_named(trained, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png"):
        explain(trained, tmp_path / "gone.png")
    with pytest.raises(ImageError, match="floats"):
        explain(trained, "floats")


@pytest.mark.parametrize(
    ("classes", "real"),
    [(["fake", "real"], 1), ([0, 1], 0), (["original", "spliced"], 0), (["a", "b"], 0)],
)
def test_the_real_class_is_found_by_its_name(classes, real):
    assert real_class(np.array(classes)) == real

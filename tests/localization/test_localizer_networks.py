"""The localiser with the real architectures, small and short."""

import numpy as np
import pytest
from tiny_localizer import paintings

from cnnsvm import InpaintLocalizer

NETWORKS = {"nixnet": {"size": "2m"}, "iidnet": {}}


@pytest.mark.filterwarnings("ignore:the localiser is of no use")
@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_real_network_is_trained_saved_and_loaded(architecture, tmp_path):
    localizer = InpaintLocalizer(
        architecture,
        **NETWORKS[architecture],
        crop_size=32,
        tile_size=48,
        tile_overlap=16,
        epochs=1,
        batch_size=4,
        precision="float32",
        random_state=0,
    ).fit(*paintings(0, 8))
    images, _ = paintings(9, 2)
    images.append(images[0][:1, :1])
    maps = localizer.predict_proba(images)
    loaded = InpaintLocalizer.load(localizer.save(tmp_path / "model"))
    loaded.set_params(precision="float32")
    assert [found.shape for found in maps] == [(64, 72), (64, 72), (1, 1)]
    for a, b in zip(maps, loaded.predict_proba(images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_options_that_an_architecture_lacks_are_named():
    with pytest.raises(ValueError, match=r"size='28m' means nothing to 'fcn_resnet50'"):
        InpaintLocalizer("fcn_resnet50", size="28m").fit(*paintings(0, 2))
    with pytest.raises(ValueError, match="architecture must be one of"):
        InpaintLocalizer("unet").fit(*paintings(0, 2))

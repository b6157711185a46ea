import pytest
from generation_helpers import draw_image
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder with three photographs, JPEG and PNG, two of one name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(draw_image(0)).save(folder / "a.jpg", quality=60)
    Image.fromarray(draw_image(1, 31, 20)).save(folder / "b c.png")
    Image.fromarray(draw_image(2, 17, 40)).save(folder / "more" / "a.jpg", quality=95)
    return folder

import pytest
from generation_helpers import picture
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder with three photographs, JPEG and PNG, two of one name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(picture(0)).save(folder / "a.jpg", quality=60)
    Image.fromarray(picture(1, 31, 20)).save(folder / "b c.png")
    Image.fromarray(picture(2, 17, 40)).save(folder / "more" / "a.jpg", quality=95)
    return folder

"""ImageNet-12 from folders of pictures."""

import numpy as np
import pytest
from PIL import Image

from byzflower.datasets import DataNotFoundError, load_dataset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of one-coloured pictures, wide and high, colour and grey."""
    monkeypatch.setenv("BYZFLOWER_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val"):
        for label, name in enumerate(("n01", "n02")):
            place = tmp_path / "vision" / "imagenet12" / split / name
            place.mkdir(parents=True)
            for number in range(2 + label):
                colour = (40 * (label + 1), 100, 10 * number)
                size = (300 + number, 280) if number else (230, 400)
                Image.new("RGB", size, colour).save(place / f"{number}.png")
    Image.new("L", (256, 256), 77).save(tmp_path / "vision/imagenet12/val/n01/grey.png")
    return tmp_path


def test_pictures_become_arrays_by_class(folder):
    dataset = load_dataset("imagenet12", str(folder))
    assert dataset.input_shape == (3, 224, 224)
    assert dataset.num_classes == 2
    assert dataset.train_y.tolist() == [0, 0, 1, 1, 1]
    assert dataset.test_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train_x.dtype == np.uint8
    colours = [(40, 100, 0), (40, 100, 10), (80, 100, 0), (80, 100, 10), (80, 100, 20)]
    for image, colour in zip(dataset.train_x, colours, strict=True):
        assert np.array_equal(image, np.broadcast_to(np.array(colour)[:, None, None], image.shape))
    assert (dataset.test_x[2] == 77).all()


def test_the_middle_is_cut_out_of_the_resized_picture(folder):
    """A picture of 512 x 256 with a bright left half: halfway through the middle 224 pixels."""
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, :256] = 255
    Image.fromarray(pixels).save(folder / "vision/imagenet12/train/n01/0.png")
    image = load_dataset("imagenet12", str(folder)).train_x[0]
    assert (image[:, :, :112] == 255).all()
    assert (image[:, :, 112:] == 0).all()


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(DataNotFoundError, match=r"imagenet12/train/<class>/\*\.JPEG"):
        load_dataset("imagenet12", str(tmp_path / "elsewhere"))
    broken = folder / "vision/imagenet12/val/n02/0.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with pytest.raises(DataNotFoundError, match=r"n02/0\.png cannot be read"):
        load_dataset("imagenet12", str(folder))
    broken.write_bytes(content)
    (folder / "vision/imagenet12/val/n02").rename(folder / "vision/imagenet12/val/n03")
    with pytest.raises(DataNotFoundError, match=r"do not share the classes \['n02', 'n03'\]"):
        load_dataset("imagenet12", str(folder))
    (folder / "vision/imagenet12/train/n04").mkdir()
    with pytest.raises(DataNotFoundError, match="train cannot be read"):
        load_dataset("imagenet12", str(folder))

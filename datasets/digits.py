"""scikit-learn's bundled handwritten digits: real data that needs no download."""

import numpy as np

from byzflower.datasets.base import Dataset
from byzflower.datasets.cache import Arrays, prepared

_TEST_SHARE = 0.2


def _build() -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:, None].astype(np.uint8)  # grey values 0..16
    labels = digits.target.astype(np.int64)
    # Writers come in sequence, so a split by position would test on other writers than it trains on.
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order], labels[order]
    held_out = int(len(labels) * _TEST_SHARE)
    return {
        "train_x": images[held_out:],
        "train_y": labels[held_out:],
        "test_x": images[:held_out],
        "test_y": labels[:held_out],
    }


def load_digits_dataset(data: str = "") -> Dataset:
    """1,797 grey 8 x 8 images of the ten digits (UCI Optdigits test set), 359 of them held out.

    Args:
        data: not used: the images come with scikit-learn.
    """
    return prepared("digits", "scikit-learn", _build)

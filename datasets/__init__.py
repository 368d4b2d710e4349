"""Data sets by name, and how they are split among clients."""

from collections.abc import Callable

from byzflower.datasets.base import DataNotFoundError, Dataset
from byzflower.datasets.cifar import load_cifar10, load_cifar10_jpeg, load_cifar100
from byzflower.datasets.digits import load_digits_dataset
from byzflower.datasets.femnist import load_femnist
from byzflower.datasets.imagenet12 import load_imagenet12
from byzflower.datasets.interactions import Interactions, Split
from byzflower.datasets.partition import class_counts, make_partition, partition_natural
from byzflower.datasets.recsys import FEEDBACK, load_feedback
from byzflower.datasets.vision import load_fashion_mnist, load_mnist

DATASETS: dict[str, Callable[[str], Dataset]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "cifar10_jpeg": load_cifar10_jpeg,
    "digits": load_digits_dataset,
    "fashion_mnist": load_fashion_mnist,
    "femnist": load_femnist,
    "imagenet12": load_imagenet12,
    "mnist": load_mnist,
}


def load_dataset(name: str, data: str = "") -> Dataset:
    """Load a data set by name.

    Args:
        name: a key of `DATASETS`.
        data: folder with the raw files; default `BYZFLOWER_DATA`.

    Raises:
        DataNotFoundError: the files are nowhere and cannot be downloaded.
    """
    return DATASETS[name](data)


__all__ = [
    "DATASETS",
    "FEEDBACK",
    "DataNotFoundError",
    "Dataset",
    "Interactions",
    "Split",
    "class_counts",
    "load_dataset",
    "load_feedback",
    "make_partition",
    "partition_natural",
]

"""Data sets by name, and how they are split among clients."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from byzflower.datasets.base import Dataset
    from byzflower.datasets.errors import DataNotFoundError
    from byzflower.datasets.interactions import Interactions, Split
    from byzflower.datasets.partition import class_counts, make_partition, partition_natural
    from byzflower.datasets.recsys import load_feedback

export_lazily(__name__)

DATASETS: Registry[Callable[[str], "Dataset"]] = Registry(
    "data set",
    "byzflower.datasets",
    {
        "cifar10": "byzflower.datasets.cifar:load_cifar10",
        "cifar100": "byzflower.datasets.cifar:load_cifar100",
        "cifar10_jpeg": "byzflower.datasets.cifar:load_cifar10_jpeg",
        "digits": "byzflower.datasets.digits:load_digits_dataset",
        "fashion_mnist": "byzflower.datasets.vision:load_fashion_mnist",
        "femnist": "byzflower.datasets.femnist:load_femnist",
        "imagenet12": "byzflower.datasets.imagenet12:load_imagenet12",
        "mnist": "byzflower.datasets.vision:load_mnist",
    },
)
# Of recommenders.
FEEDBACK: Registry[Callable[[str], "Interactions"]] = Registry(
    "data set of recommenders",
    "byzflower.feedback",
    {
        "citeulike-a": "byzflower.datasets.recsys:load_citeulike_a",
        "citeulike-t": "byzflower.datasets.recsys:load_citeulike_t",
        "lastfm": "byzflower.datasets.recsys:load_lastfm",
        "ml-100k": "byzflower.datasets.recsys:load_ml100k",
        "ml-100k-split": "byzflower.datasets.recsys:load_ml100k_split",
        "ml-1m": "byzflower.datasets.recsys:load_ml1m",
        "ml-1m-split": "byzflower.datasets.recsys:load_ml1m_split",
        "steam": "byzflower.datasets.recsys:load_steam",
        "steam-split": "byzflower.datasets.recsys:load_steam_split",
        "synthetic": "byzflower.datasets.recsys:load_synthetic",
        "synthetic-small": "byzflower.datasets.recsys:load_synthetic_small",
    },
)


def load_dataset(name: str, data: str = "") -> "Dataset":
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

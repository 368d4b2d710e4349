"""The data of every client of a run, kept by the process."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzflower.clients.settings import ClientSettings
from byzflower.datasets import Dataset, load_dataset, make_partition, partition_natural
from byzflower.numerics.randomness import numpy_generator


class DataSettings(NamedTuple):
    """What a partitioned training set depends on; the key under which processes keep it."""

    dataset: str
    data: str
    partition: str
    clients: int
    alpha: float
    shards_per_client: int
    min_size: int
    max_samples: int
    seed: int


def training_data(settings: ClientSettings) -> tuple[Dataset, list[NDArray[np.int64]]]:
    """The data set of a run and the training indices of each client.

    Raises:
        DataNotFoundError: see `load_dataset`.
        ValueError: see `make_partition` and `partition_natural`.
    """
    return _training_data(DataSettings(*(getattr(settings, name) for name in DataSettings._fields)))


@lru_cache(maxsize=4)
def _training_data(key: DataSettings) -> tuple[Dataset, list[NDArray[np.int64]]]:
    dataset = load_dataset(key.dataset, key.data)
    labels = np.asarray(dataset.train_y)
    pool = np.arange(len(labels))
    if key.max_samples:
        order = numpy_generator(key.seed, "max-samples").permutation(len(labels))
        pool = np.sort(order[: key.max_samples])
    random = numpy_generator(key.seed, "partition")
    if key.partition == "natural":
        if dataset.train_groups is None:
            raise ValueError(f"data set {key.dataset!r} has no natural clients")
        parts = partition_natural(dataset.train_groups[pool], key.clients, random, key.min_size)
    else:
        parts = make_partition(
            key.partition, labels[pool], key.clients, random, key.alpha, key.shards_per_client, key.min_size
        )
    return dataset, [pool[part] for part in parts]

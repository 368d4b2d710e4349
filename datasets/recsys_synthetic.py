"""Made-up interactions with what matters about real ones: a long tail, and tastes that can be learned."""

import numpy as np
from numpy.typing import NDArray

from byzflower.numerics.randomness import numpy_generator

_TASTES = 8


def long_tailed(
    num_users: int, num_items: int, seed: int = 0, exponent: float = 0.8, fewest: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw users' items: popular ones more often, and those of the user's taste more often still.

    Item number r has popularity r^-exponent and one of eight tastes; a user likes one taste ten times as
    much as the others and has between `fewest` and a few dozen items, log-normally many.

    Args:
        num_users: n.
        num_items: m, above 4 * `fewest`.
        seed: of everything.
        exponent: of the popularity; larger is less equal.
        fewest: items of any user.

    Returns:
        (e,) users and (e,) items of the interactions, without repetition, in random order.
    """
    random = numpy_generator(seed, "synthetic-feedback")
    popularity = np.arange(1, num_items + 1) ** -exponent
    taste_of_item = random.integers(_TASTES, size=num_items)
    sizes = np.clip(np.exp(random.normal(2.7, 0.6, num_users)).astype(int), fewest, num_items // 4)
    users, items = [], []
    for user, size in enumerate(sizes):
        liked = np.where(taste_of_item == random.integers(_TASTES), 10.0, 1.0) * popularity
        items.append(random.choice(num_items, size, replace=False, p=liked / liked.sum()))
        users.append(np.full(size, user))
    order = random.permutation(int(sizes.sum()))
    return np.concatenate(users)[order], np.concatenate(items)[order]

"""Size of compact moments uploads on Last.fm, and how the server's work grows.

Run: ``python benchmarks/moments.py`` (needs BYZFLOWER_DATA).
"""

import time

import numpy as np
import torch

from byzflower.clients.recommender.moments import divided_feedback, train_users
from byzflower.clients.settings import ClientSettings
from byzflower.models.recommenders import build_stateless
from byzflower.strategies import ARFRS
from byzflower.uploads import Layout
from byzflower.uploads.moments import MomentsUpload
from byzflower.uploads.moments_layout import MomentsLayout

USERS = 1892
REPEATS = 5


def broadcast(num_items, strategy):
    """A strategy at its first round, the arrays that it sends and the config."""
    state = build_stateless("fism", num_items).state_dict()
    arrays = strategy.set_global(1, {name: tensor.numpy() for name, tensor in state.items()})
    return arrays, {**strategy.upload.told(), "server-round": 1}


def sizes(negatives):
    """Bytes of every user's first upload, with so many unrated items for each rated one."""
    settings = ClientSettings(
        dataset="lastfm", model="fism", clients=USERS, byzantine=0, attack="none", negatives=negatives
    )
    train, _ = divided_feedback(settings)
    arrays, config = broadcast(train.num_items, ARFRS())
    dense = sum(array.nbytes for array in arrays.values())
    own = []
    for start in range(0, USERS, 100):
        clients = list(range(start, min(start + 100, USERS)))
        upload, layout = train_users(clients, settings, list(arrays.values()), config)
        own += upload.client_bytes(layout)
    share = np.array(own) / dense
    print(
        f"negatives {negatives}: dense {dense / 1e6:.1f} MB; "
        f"compact: median {np.median(own) / 1e3:.0f} KB, {np.median(share):.2%}; "
        f"90 % below {np.quantile(share, 0.9):.2%}, largest {share.max():.2%}"
    )


def work(num_items, clients, rows):
    """CPU seconds (the fastest of a few) of recovering, verifying, filtering and averaging."""
    strategy = ARFRS(num_byzantine=0.3)
    arrays, _ = broadcast(num_items, strategy)
    own = MomentsLayout(Layout.of({k: v for k, v in arrays.items() if "/" not in k}), ("m", "v"))
    random = np.random.default_rng(0)
    touched = np.concatenate(
        [np.sort(random.choice(2 * num_items, rows, replace=False)) for _ in range(clients)]
    )
    before = torch.from_numpy(own.by_unit(own.state(own.full.row(list(arrays.values())))))
    gradients = torch.randn(len(touched), own.unit, generator=torch.Generator().manual_seed(0))
    after = strategy.upload.optimizer.step(before[:, torch.from_numpy(touched)], gradients, 1)
    splits = np.arange(clients + 1) * rows
    upload = MomentsUpload(
        list(range(clients)),
        np.ones(clients),
        [{} for _ in range(clients)],
        np.split(touched.astype(np.int32), splits[1:-1]),
        np.split(after.reshape(3, -1).numpy(), splits[1:-1] * own.unit, axis=1),
        np.empty((clients, 0), np.float32),
    )
    uniform = torch.full((clients,), 1 / clients, dtype=torch.float64)
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        round_ = strategy.upload.rows([upload], strategy.sent, 1.0)
        stacked = time.process_time()
        strategy.apply(round_.gradients(torch.device("cpu")), uniform)
        round_.mean(uniform)
        seconds.append((stacked - started, time.process_time() - stacked))
    stack, rest = np.min(seconds, axis=0)
    print(
        f"items {num_items:>6,} clients {clients} rows {rows:>4}: recover and verify {stack:.3f} s, filter "
        f"and average {rest:.3f} s CPU",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for negatives in (1, 4):
        sizes(negatives)
    for num_items in (4_000, 16_000, 64_000):
        work(num_items, 20, 300)
    for rows in (75, 300, 1_200, 4_800):
        work(16_000, 20, rows)

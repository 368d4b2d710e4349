"""Users of a stateless recommender whose server keeps the optimizer's moments: one, or many at once."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.common import NDArrays, RecordDict, Scalar
from numpy.typing import NDArray

from byzflower.clients.recommender.byzantine import attacked
from byzflower.clients.settings import ClientSettings
from byzflower.datasets.interactions import Interactions, Split
from byzflower.datasets.recsys import load_feedback
from byzflower.models.build import build_stateless
from byzflower.models.stateless import StatelessRecommender, UserItems
from byzflower.numerics.randomness import numpy_generator
from byzflower.numerics.threads import one_thread
from byzflower.uploads.base import CLIENT_ID
from byzflower.uploads.codec import encode_upload
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import Moments
from byzflower.uploads.moments_layout import MomentsLayout
from byzflower.uploads.moments_upload import COMPACT, MomentsUpload

# Share of each user's items to train on (the A-RFRS paper, section 5).
_TRAINING = 0.8


def divided_feedback(settings: ClientSettings) -> Split:
    """The users' items to train on and to find, by the run's seed; users beyond `clients` are left out.

    Raises:
        DataNotFoundError: see `load_feedback`.
        ValueError: fewer users than clients.
    """
    return _divided(settings.dataset, settings.data, settings.clients, settings.seed)


@lru_cache(maxsize=4)
def _divided(name: str, data: str, clients: int, seed: int) -> Split:
    table = load_feedback(name, data)
    if clients > table.num_users:
        raise ValueError(f"clients must be at most the {table.num_users} users of {name}, got {clients}")
    return table.first(clients).divided(_TRAINING, numpy_generator(seed, "division"))


@lru_cache(maxsize=4)
def _model(name: str, num_items: int, options: tuple[tuple[str, Any], ...]) -> StatelessRecommender:
    return build_stateless(name, num_items, options=dict(options))


def recommender_of(settings: ClientSettings, num_items: int) -> StatelessRecommender:
    """An instance of the run's recommender, for this process; its vectors are whatever was last set."""
    return _model(settings.model, num_items, tuple(sorted(settings.model_options.items())))


def set_tables(model: StatelessRecommender, arrays: Sequence[NDArray[Any]]) -> Layout:
    """Copy arrays into the model's tables; returns their layout.

    Raises:
        ValueError: they are not this model's.
    """
    layout = Layout.of({name: table.numpy() for name, table in model.state_dict().items()})
    if tuple(a.shape for a in arrays[: len(layout.shapes)]) != layout.shapes:
        raise ValueError("the global model's tables are not those of the configured recommender")
    for table, array in zip(model.parameters(), arrays, strict=False):
        np.copyto(table.detach().numpy(), array)
    return layout


class MomentsRecommenderClient(NumPyClient):
    """A user that takes one step on its ranking loss and uploads the rows that it touched."""

    only_reads = True  # `fit` does not write to the arrays it is given
    encodes = True

    def __init__(self, client_id: int, settings: ClientSettings, state: RecordDict | None = None):
        """Make the client.

        Args:
            client_id: number of the user.
            settings: data, model, training and attack.
            state: `Context.state` of the node that hosts it.
        """
        self.client_id = client_id
        self.settings = settings
        self.state = RecordDict() if state is None else state

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Take one step on what was broadcast."""
        upload, layout = train_users([self.client_id], self.settings, parameters, config, self.state)
        arrays = upload.payload(layout, cohort=False)
        metrics: dict[str, Scalar] = {CLIENT_ID: self.client_id, **upload.metrics[0]}
        return [arrays[name] for name in COMPACT], int(upload.num_examples[0]), metrics


def fit_users(
    clients: Sequence[int],
    settings: ClientSettings,
    parameters: NDArrays,
    config: Mapping[str, Any],
    state: RecordDict,
) -> RecordDict:
    """Train many users at once and answer with one message; the same bits as one by one."""
    upload, layout = train_users(clients, settings, parameters, config, state)
    return encode_upload(upload, layout, cohort=True)


def train_users(
    clients: Sequence[int],
    settings: ClientSettings,
    parameters: NDArrays,
    config: Mapping[str, Any],
    node_state: RecordDict,
) -> tuple[MomentsUpload, Layout]:
    """One step of each user, Byzantine ones included.

    Args:
        clients: the users.
        settings: of the run.
        parameters: as they were broadcast.
        config: of the message.
        node_state: `Context.state`, where attacks keep what they remember.

    Returns:
        Their upload, and the layout of what was broadcast.
    """
    server_round = int(config["server-round"])
    train, _ = divided_feedback(settings)
    model = recommender_of(settings, train.num_items)
    with one_thread():
        kind, tables = Moments.from_config(config), set_tables(model, parameters)
        layout = MomentsLayout(tables, kind.optimizer.slots)
        state = torch.from_numpy(np.array(kind.state(tables, parameters)))
        users = _draw(train, clients, settings, server_round)
        found = model.gradients(users, settings.weight_decay)
        found, altered = attacked(
            found, users, clients, settings, model, tables, state, server_round, node_state
        )
        depth, dim = layout.depth, found.values.shape[1]
        rows = torch.from_numpy(found.rows).long()
        before = state.view(depth, -1, dim)[:, rows]
        after = kind.optimizer.step(before, found.values, kind.steps + 1)
    sizes = train.counts[list(clients)].astype(np.float64)
    losses = (found.losses / torch.from_numpy(sizes) / settings.negatives).tolist()
    metrics = [{"train-loss": loss, "altered": share} for loss, share in zip(losses, altered, strict=True)]
    upload = MomentsUpload(
        list(clients),
        sizes,
        metrics,
        np.split(found.rows, found.splits[1:-1]),
        np.split(after.reshape(depth, -1).numpy(), found.splits[1:-1] * dim, axis=1),
        np.empty((len(clients), 0), layout.full.row_dtype),
    )
    return upload, layout.full


def _draw(
    train: Interactions, clients: Sequence[int], settings: ClientSettings, server_round: int
) -> UserItems:
    """The users' items, and for each some that are not theirs, drawn anew every round."""
    items = [train.of(client) for client in clients]
    negatives = [
        _others(own, train.num_items, settings.negatives, settings.seed, server_round, client)
        for own, client in zip(items, clients, strict=True)
    ]
    splits = np.concatenate([[0], np.cumsum([len(own) for own in items])]).astype(np.int64)
    return UserItems(splits, np.concatenate(items), np.concatenate(negatives))


def _others(
    own: NDArray[np.int32], num_items: int, per_item: int, seed: int, server_round: int, client: int
) -> NDArray[np.int32]:
    """Items that are not among the ascending `own`, uniformly, with replacement."""
    random = numpy_generator(seed, "negatives", server_round, client)
    if len(own) == num_items:
        raise ValueError(f"client {client} has rated all {num_items} items: there is nothing to compare with")
    # The k-th of the items that are missing from a list is found by how many of the list precede it.
    drawn = random.integers(0, num_items - len(own), len(own) * per_item)
    return (drawn + np.searchsorted(own - np.arange(len(own)), drawn, side="right")).astype(np.int32)

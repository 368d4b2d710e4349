"""Users of a personal recommender (MF, GNN): their embeddings stay with them, all at once or one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.common import ArrayRecord, MetricRecord, RecordDict, Scalar
from numpy.typing import NDArray

from byzflower.attacks import Batch, TensorColumns, TrainingAttack
from byzflower.attacks.items import ProfileAttack
from byzflower.clients.recommender.settings import RecommenderSettings, leave_one_out
from byzflower.clients.recommender.steering import Gradient, steered_gradient, used_rows
from byzflower.flower.compat import array_record, array_view, records_of
from byzflower.models.profiles import Profiles
from byzflower.models.ranking import hits_and_gains
from byzflower.numerics.randomness import numpy_generator
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES
from byzflower.uploads.codec import encode_upload
from byzflower.uploads.items import ItemUpload, join
from byzflower.uploads.layout import Layout

USERS = "user-embeddings"
_KS = (5, 10)
_USERS_SCORED = 512
Indices = NDArray[np.int64]


# -- what a user has -----------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _profiles(dataset: str, data: str, seed: int, users: tuple[int, ...]) -> Profiles:
    """The pairs of users of the data set: a negative item for each positive one, drawn once."""
    split = leave_one_out(dataset, data)
    positives = [split.train.of(user) for user in users]
    negatives = [
        _negatives(split.train.num_items, split.touched(user), len(own), seed, user)
        for user, own in zip(users, positives, strict=True)
    ]
    return Profiles.of(positives, negatives)


def _negatives(num_items: int, touched: NDArray[np.integer], count: int, seed: int, user: int) -> Indices:
    """Items, with repetition, uniform over those that the user never touched: not the held-out one either."""
    others = np.setdiff1d(np.arange(num_items), touched, assume_unique=True)
    return numpy_generator(seed, "negatives", client=user).choice(others, count)


@lru_cache(maxsize=8)
def _candidates(dataset: str, data: str, seed: int, count: int, users: tuple[int, ...]) -> Indices:
    """(k, 1 + count): each user's held-out item, then items that it never touched, distinct."""
    split = leave_one_out(dataset, data)
    table = np.empty((len(users), 1 + count), np.int64)
    for row, user in zip(table, users, strict=True):
        items = np.arange(split.train.num_items)
        others = np.setdiff1d(items, split.touched(user), assume_unique=True)
        row[:1] = split.test.of(user)
        row[1:] = numpy_generator(seed, "candidates", client=user).choice(others, count, replace=False)
    return table


@lru_cache(maxsize=4096)
def _made_up(dataset: str, data: str, seed: int, user: int) -> tuple[Indices, Indices]:
    """The items of a made-up user, as many as users have on average, by popularity; and negatives."""
    train = leave_one_out(dataset, data).train
    size = max(1, round(len(train.items) / train.num_users))
    share = train.popularity / train.popularity.sum()
    random = numpy_generator(seed, "made-up-user", client=user)
    items = random.choice(train.num_items, min(size, int((share > 0).sum())), replace=False, p=share)
    return items, _negatives(train.num_items, items, len(items), seed, user)


# -- training ------------------------------------------------------------------------------------------


def fit_users(
    users: Sequence[int],
    settings: RecommenderSettings,
    state: RecordDict,
    arrays: list[NDArray[Any]],
    server_round: int,
) -> ItemUpload:
    """Let users take their step and give their gradients; each gets what it would get alone.

    Args:
        users: ids, ascending. Those that the data set does not have are made up: they train on the
            attack's profiles if it has any, else they upload nothing (`ItemAdversary` rewrites that).
        settings: of the run.
        state: where the users' embeddings are kept.
        arrays: the shared parameters.
        server_round: from 1.
    """
    known = settings.feedback.train.num_users
    benign = [user for user in users if user < known]
    uploads = [_benign_upload(benign, settings, state, arrays)] if benign else []
    if settings.clip_upload or settings.laplace:
        uploads = [_private(upload, settings, server_round) for upload in uploads]
    made_up = [user for user in users if user >= known]
    if made_up:
        uploads.append(_made_up_upload(made_up, settings, state, arrays, server_round))
    return join(uploads)


def _benign_upload(
    users: list[int], settings: RecommenderSettings, state: RecordDict, arrays: list[NDArray[Any]]
) -> ItemUpload:
    profiles = _profiles(settings.dataset, settings.data, settings.seed, tuple(users))
    return _train(users, profiles, settings, state, arrays)


def _made_up_upload(
    users: list[int],
    settings: RecommenderSettings,
    state: RecordDict,
    arrays: list[NDArray[Any]],
    server_round: int,
) -> ItemUpload:
    attack = settings.make_attack()
    if isinstance(attack, TrainingAttack) and attack.active(server_round):
        return _steered_upload(attack, users, settings, state, arrays, server_round)
    nothing = np.empty(0, np.int64)
    pairs = [(nothing, nothing)] * len(users)
    if isinstance(attack, ProfileAttack) and attack.active(server_round):
        table = torch.tensor(arrays[0])
        embeddings = torch.from_numpy(_embeddings(users, settings, state))
        pairs = [
            attack.poison(*_made_up(settings.dataset, settings.data, settings.seed, user), own, table)
            for user, own in zip(users, embeddings, strict=True)
        ]
    profiles = Profiles.of([positive for positive, _ in pairs], [negative for _, negative in pairs])
    return _train(users, profiles, settings, state, arrays)


def _steered_upload(
    attack: TrainingAttack,
    users: list[int],
    settings: RecommenderSettings,
    state: RecordDict,
    arrays: list[NDArray[Any]],
    server_round: int,
) -> ItemUpload:
    """Let an attack make the gradients of made-up users; their embeddings take a benign user's step."""
    layout = Layout.of_list(arrays)
    model = torch.from_numpy(layout.row(arrays))
    table_size, dim = arrays[0].size, arrays[0].shape[1]
    pairs = [_made_up(settings.dataset, settings.data, settings.seed, user) for user in users]
    made = [
        steered_gradient(
            attack,
            model,
            (torch.from_numpy(positives), torch.from_numpy(negatives)[:, None]),
            _gradient_at(layout, embedding, settings),
            [TensorColumns(*tensor) for tensor in layout.parameters],
            seed=settings.seed,
            server_round=server_round,
            client=user,
            state=state,
        )
        for user, embedding, (positives, negatives) in zip(
            users, _embeddings(users, settings, state), pairs, strict=True
        )
    ]
    profiles = Profiles.of([positives for positives, _ in pairs], [negatives for _, negatives in pairs])
    benign = _train(users, profiles, settings, state, arrays)
    rows = [used_rows(gradient[:table_size], dim) for gradient in made]
    return replace(
        benign,
        splits=np.cumsum([0, *(len(items) for items, _ in rows)]),
        items=np.concatenate([items for items, _ in rows]),
        rows=torch.cat([values for _, values in rows]).numpy(),
        dense=torch.stack([gradient[table_size:] for gradient in made]).numpy(),
    )


def _gradient_at(layout: Layout, embedding: NDArray[np.float32], settings: RecommenderSettings) -> Gradient:
    """A user's gradient at any shared parameters."""
    model = settings.make_model()

    def gradient(parameters: torch.Tensor, batch: Batch) -> torch.Tensor:
        items, others = batch
        positives, negatives = items.repeat_interleave(others.shape[1]).numpy(), others.reshape(-1).numpy()
        profiles = Profiles.of([positives], [negatives])
        arrays = layout.arrays(parameters.numpy())
        found = model.gradients(profiles, embedding[None], arrays, settings.reg)
        table = np.zeros_like(arrays[0])
        table[profiles.items] = found.rows
        return torch.from_numpy(np.concatenate([table.reshape(-1), found.dense[0]]))

    return gradient


def _train(
    users: list[int],
    profiles: Profiles,
    settings: RecommenderSettings,
    state: RecordDict,
    arrays: list[NDArray[Any]],
) -> ItemUpload:
    embeddings = _embeddings(users, settings, state)
    gradients = settings.make_model().gradients(profiles, embeddings, arrays, settings.reg)
    _keep(users, embeddings - np.float32(settings.lr) * gradients.users, state)
    return ItemUpload(
        users,
        np.maximum(profiles.sizes, 1).astype(np.float64),
        [{"train-loss": loss} for loss in gradients.loss.tolist()],
        profiles.splits,
        profiles.items.astype(np.int32),
        gradients.rows,
        gradients.dense,
    )


def _embeddings(
    users: Sequence[int], settings: RecommenderSettings, state: RecordDict
) -> NDArray[np.float32]:
    """The users' embeddings as they left them, (k, d)."""
    kept = _kept(state)
    model, seed = settings.make_model(), settings.seed
    return np.stack([array_view(kept[str(u)]) if str(u) in kept else model.user(seed, u) for u in users])


def _keep(users: Sequence[int], embeddings: NDArray[np.float32], state: RecordDict) -> None:
    kept = _kept(state)
    kept.update(array_record({str(user): row for user, row in zip(users, embeddings, strict=True)}))
    state[USERS] = kept


def _kept(state: RecordDict) -> ArrayRecord:
    return records_of(state, ArrayRecord).get(USERS, ArrayRecord())


def _private(upload: ItemUpload, settings: RecommenderSettings, server_round: int) -> ItemUpload:
    """Clip each user's whole upload to a Euclidean norm, then add Laplace noise to all of it, in place."""
    for i, user in enumerate(upload.client_ids):
        own = slice(upload.splits[i], upload.splits[i + 1])
        parts = upload.rows[own], upload.dense[i]
        norm = np.sqrt(sum(np.square(part, dtype=np.float64).sum() for part in parts))
        random = numpy_generator(settings.seed, "laplace", server_round, user)
        for part in parts:
            if settings.clip_upload and norm > settings.clip_upload:
                part *= np.float32(settings.clip_upload / norm)
            if settings.laplace:
                part += random.laplace(0, settings.laplace, part.shape).astype(np.float32)
    return upload


# -- evaluation ----------------------------------------------------------------------------------------


def score_users(
    users: Sequence[int], settings: RecommenderSettings, state: RecordDict, arrays: list[NDArray[Any]]
) -> dict[int, dict[str, float]]:
    """Let users rank their held-out item among items that they never touched.

    Items that score the same count as better, so that a model that cannot tell them apart gets nothing.

    Returns:
        user -> HR@5, HR@10, nDCG@5, nDCG@10 and the ranking loss, for the users that have a test item.
    """
    test = settings.feedback.test
    users = [user for user in users if user < test.num_users and len(test.of(user))]
    if not users:
        return {}
    source = settings.dataset, settings.data, settings.seed
    profiles = _profiles(*source, tuple(users))
    candidates = _candidates(*source, settings.candidates, tuple(users))
    embeddings, model = _embeddings(users, settings, state), settings.make_model()
    scored: dict[int, dict[str, float]] = {}
    for start in range(0, len(users), _USERS_SCORED):
        part = slice(start, min(start + _USERS_SCORED, len(users)))
        block = profiles.block(part.start, part.stop)
        scores = model.scores(block, embeddings[part], arrays, candidates[part])
        margin = scores[:, :1] - scores[:, 1:]
        losses = np.logaddexp(0, -margin).mean(axis=1, dtype=np.float64)
        ranks = (~(margin > 0)).sum(axis=1)
        for user, rank, loss in zip(users[part], ranks.tolist(), losses.tolist(), strict=True):
            scored[user] = {"loss": loss, **hits_and_gains(rank, _KS)}
    return scored


# -- in Flower -----------------------------------------------------------------------------------------


class RecommenderClient(NumPyClient):
    """One user of a recommender, on a node of its own. Its embedding never leaves the node."""

    encodes = True

    def __init__(self, user: int, settings: RecommenderSettings, state: RecordDict) -> None:
        """Make the client of a user.

        Args:
            user: id; made up if the data set has no such user.
            settings: of the run.
            state: ``Context.state``, where the embedding is kept from round to round.
        """
        self.user = user
        self.settings = settings
        self.state = state

    def fit(self, parameters: list[NDArray[Any]], config: Mapping[str, Any]) -> tuple[list[Any], int, Any]:
        """Take a local step; return items, their gradient rows and (if there is any) the dense gradient."""
        server_round = int(config["server-round"])
        upload = fit_users([self.user], self.settings, self.state, parameters, server_round)
        dense = [upload.dense[0]] if upload.dense.shape[1] else []
        metrics = {CLIENT_ID: self.user, **upload.metrics[0]}
        return [upload.items, upload.rows, *dense], int(upload.num_examples[0]), metrics

    def evaluate(
        self, parameters: list[NDArray[Any]], config: Mapping[str, Any]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Rank the held-out item; a user that has none says so by 0 examples."""
        scored = score_users([self.user], self.settings, self.state, parameters)
        metrics = scored.get(self.user, {"loss": 0.0})
        return metrics.pop("loss"), len(scored), {CLIENT_ID: self.user, **metrics}


def answer_users(
    users: Sequence[int],
    settings: RecommenderSettings,
    state: RecordDict,
    arrays: Mapping[str, NDArray[Any]],
    server_round: int,
    training: bool,
) -> RecordDict:
    """The reply of a node that hosts a cohort of users."""
    parameters = list(arrays.values())
    if training:
        upload = fit_users(users, settings, state, parameters, server_round)
        return encode_upload(upload, Layout.of(arrays), cohort=True)
    scored = score_users(users, settings, state, parameters)
    keys = next(iter(scored.values()), {})
    columns: dict[str, list[Any]] = {key: [own[key] for own in scored.values()] for key in keys}
    return RecordDict(
        {"metrics": MetricRecord({CLIENT_ID: list(scored), NUM_EXAMPLES: [1.0] * len(scored), **columns})}
    )

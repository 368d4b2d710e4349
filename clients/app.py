"""ClientApps: NumPyClients that answer Message-API and legacy strategies alike."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from numpy.typing import NDArray

from byzflower.attacks import CollusiveAttack, Need
from byzflower.attacks.items import ItemAttack
from byzflower.clients.benign import BenignClient
from byzflower.clients.byzantine import ByzantineClient
from byzflower.clients.cohort import evaluate_cohort, evaluate_one, fit_cohort, fit_one
from byzflower.clients.encoding import EncodingClient, encoding
from byzflower.clients.legacy import LegacyClient
from byzflower.clients.recommender.client import RecommenderClient, answer_users
from byzflower.clients.recommender.moments import MomentsRecommenderClient, fit_users
from byzflower.clients.recommender.settings import RECOMMENDATION, RecommenderSettings
from byzflower.clients.settings import SETTINGS, ClientSettings
from byzflower.flower.compat import array_view, records_of
from byzflower.uploads.base import CLIENT_IDS
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.registry import upload_kind

MakeClient = Callable[[int, ConfigRecord, Context], NumPyClient]
# What a node may be started with (``flower-supernode --node-config``), besides ``byzantine``.
_NODE_SETTINGS = {"attack": "attack", "attack-options": "attack_options", "data": "data"}
ListClients = Callable[[ConfigRecord, Context], list[int]]
AnswerCohort = Callable[[list[int], dict[str, NDArray[Any]], ConfigRecord, Context, bool], RecordDict | None]


def numpy_client_app(client_fn: Callable[[Context], NumPyClient]) -> ClientApp:
    """Make a ClientApp of a NumPyClient for Message-API strategies.

    Flower's own ``ClientApp(client_fn=...)`` answers legacy strategies only; this one answers both, in
    the dialect it was asked in.

    Args:
        client_fn: makes the client of a node, as Flower's own takes it.
    """
    return cohort_client_app(
        lambda client, config, context: client_fn(context), lambda config, context: [_partition(context)]
    )


def cohort_client_app(
    make_client: MakeClient, hosted: ListClients | None = None, answer_cohort: AnswerCohort | None = None
) -> ClientApp:
    """Make a ClientApp whose node hosts any number of NumPyClients.

    Under a strategy with `num_clients`, a node trains the clients that the server names and answers
    with one message. Under any other, it is the client of its partition id.

    Args:
        make_client: makes a client from its logical id, the message's config and the node's context.
        hosted: which clients a message is for, instead of the rule above.
        answer_cohort: answers for several clients at once; where it returns None, as by default, they
            train one after the other.
    """
    hosted = hosted or _asked_or_own
    answer_cohort = answer_cohort or (lambda *asked: None)

    # Flower answers legacy messages itself; a mod in front of it answers the others.
    def answer(message: Message, context: Context, call_next: Any) -> Message:
        if any(key.startswith(("fitins.", "evaluateins.", "getp")) for key in message.content):
            reply: Message = call_next(message, context)
            return reply
        if message.metadata.message_type.startswith(MessageType.QUERY):
            return Message(_exchange_state(message, context), reply_to=message)
        return Message(_answer(message, context, make_client, hosted, answer_cohort), reply_to=message)

    def client_fn(context: Context) -> Client:
        made: NumPyClient | Client = make_client(_partition(context), ConfigRecord(), context)
        if isinstance(made, Client):  # .to_client() is a common idiom
            return made
        return LegacyClient(made, context.state, _partition(context))

    return ClientApp(client_fn=client_fn, mods=[answer])


def _asked_or_own(config: ConfigRecord, context: Context) -> list[int]:
    asked = config.get(CLIENT_IDS)
    return [int(client) for client in asked] if isinstance(asked, list) else [_partition(context)]


def _partition(context: Context) -> int:
    return int(context.node_config.get("partition-id", 0))


def make_client(
    client_id: int,
    settings: ClientSettings,
    state: RecordDict,
    byzantine: bool | None = None,
    server_round: int = 0,
    kind: UploadKind | None = None,
) -> NumPyClient:
    """Make the client with this id: Byzantine if it is told to be, or, untold, if the settings say so.

    Where the adversary chooses what of it travels, Byzantine clients send everything.

    Args:
        client_id: logical id.
        settings: of the run.
        state: of the node.
        byzantine: whether it is Byzantine, if that is known.
        server_round: server round.
        kind: of upload that the server asks for.
    """
    if settings.recommends:
        return MomentsRecommenderClient(client_id, settings, state)
    attack = settings.make_attack()
    chosen = client_id in settings.byzantine_ids() if byzantine is None else byzantine
    client = BenignClient(client_id, settings, state)
    if chosen and attack is not None:
        client = ByzantineClient(client_id, settings, attack, state)
    masks = settings.make_mask_attack()
    if kind is not None and chosen and masks is not None and masks.active(server_round):
        return EncodingClient(client, kind.everything(), state, client_id)
    return client


def _node_client(client_id: int, config: ConfigRecord, context: Context) -> NumPyClient:
    """Make a client as the server's settings say, except for what its own node was started with."""
    settings = _node_settings(config, context)
    if isinstance(settings, RecommenderSettings):
        return RecommenderClient(client_id, settings, context.state)
    byzantine = context.node_config.get("byzantine")
    chosen = None if byzantine is None else bool(byzantine)
    return make_client(client_id, settings, context.state, chosen, _round_of(config), upload_kind(config))


def _node_settings(config: ConfigRecord, context: Context) -> ClientSettings | RecommenderSettings:
    own, settings = context.node_config, _settings(config, context)
    changes = {name: own[key] for key, name in _NODE_SETTINGS.items() if key in own}
    if not changes:
        return settings
    changed = type(settings)(**{**settings.model_dump(), **changes})
    if "attack" in changes:
        _check_own_attack(changed)
    return changed


def _check_own_attack(settings: ClientSettings | RecommenderSettings) -> None:
    """See that a node can carry out the attack that it was started with.

    Raises:
        ValueError: it cannot.
    """
    attack = settings.make_attack()
    if isinstance(attack, CollusiveAttack | ItemAttack):
        raise ValueError(f"attack {settings.attack} needs all clients' updates: only the server can run it")
    if attack is not None and Need.LABELS in attack.needs.difference(settings.offers):
        raise ValueError(f"attack {settings.attack} needs {Need.LABELS}")


def hosted_clients(config: ConfigRecord, context: Context) -> list[int]:
    """The logical clients that a node is asked to train.

    The server names them; to a strategy that knows nothing of cohorts, a node answers for its even
    share of all clients, by its partition id.
    """
    settings = _settings(config, context)  # first: it imports what registers names that the config uses
    if CLIENT_IDS in config:
        return _asked_or_own(config, context)
    node, nodes = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    return list(np.array_split(np.arange(settings.clients), nodes)[node].tolist())


def _answer_users(
    clients: list[int],
    arrays: dict[str, NDArray[Any]],
    config: ConfigRecord,
    context: Context,
    training: bool,
) -> RecordDict | None:
    """Let a recommender's users work all at once."""
    settings = _node_settings(config, context)
    if isinstance(settings, RecommenderSettings):
        return answer_users(clients, settings, context.state, arrays, _round_of(config), training)
    if training and settings.recommends:
        return fit_users(clients, settings, list(arrays.values()), dict(config), context.state)
    return None


def _settings(config: ConfigRecord, context: Context) -> ClientSettings | RecommenderSettings:
    """A run's settings: from the server's message, else from the run config."""
    if SETTINGS in config:
        return _parse_settings(str(config[SETTINGS]))
    if context.run_config.get("task") == RECOMMENDATION:
        return RecommenderSettings.from_run_config(context.run_config)
    return ClientSettings.from_run_config(context.run_config)


def _round_of(config: ConfigRecord) -> int:
    server_round = config.get("server-round", 0)
    return server_round if isinstance(server_round, int) else 0


@lru_cache(maxsize=8)
def _parse_settings(text: str) -> ClientSettings | RecommenderSettings:
    settings = json.loads(text)
    recommends = settings.get("task") == RECOMMENDATION
    return RecommenderSettings(**settings) if recommends else ClientSettings(**settings)


def _answer(
    message: Message,
    context: Context,
    make: MakeClient,
    clients_of: ListClients,
    answer_cohort: AnswerCohort,
) -> RecordDict:
    arrays = next(iter(records_of(message.content, ArrayRecord).values()))
    config = next(iter(records_of(message.content, ConfigRecord).values()), ConfigRecord())
    names, parameters = list(arrays), [array_view(array) for array in arrays.values()]
    clients = clients_of(config, context)

    training = message.metadata.message_type.startswith("train")
    kind = upload_kind(config)

    def factory(client: int) -> NumPyClient:
        made = make(client, config, context)
        return encoding(made, kind, names, context.state, client) if training else made

    if len(clients) == 1:
        client, asked = factory(clients[0]), clients[0] if CLIENT_IDS in config else None
        if training:
            return fit_one(client, kind, names, parameters, config, asked)
        return evaluate_one(client, parameters, config, asked)
    reply = answer_cohort(clients, dict(zip(names, parameters, strict=True)), config, context, training)
    if reply is not None:
        return reply
    if training:
        return fit_cohort(clients, factory, kind, names, parameters, config)
    return evaluate_cohort(clients, factory, parameters, config)


def _exchange_state(message: Message, context: Context) -> RecordDict:
    """Hand out the node's state, or replace it by the one that came (to resume a simulation)."""
    sent = records_of(message.content, ArrayRecord)
    for name, record in sent.items():
        context.state[name] = record
    return RecordDict() if sent else RecordDict({**records_of(context.state, ArrayRecord)})


app = cohort_client_app(_node_client, hosted_clients, _answer_users)

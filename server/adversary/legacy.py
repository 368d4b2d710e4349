"""The adversary around a strategy of Flower's NumPyClient + ServerAppComponents API."""

import copy
from collections.abc import Collection, Iterable
from typing import Any

from flwr.common import (
    ArrayRecord,
    ConfigRecord,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Message,
    MetricRecord,
    Parameters,
    RecordDict,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import Grid
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy as LegacyFlowerStrategy
from flwr.serverapp.strategy import Strategy

from byzflower.attacks import CollusiveAttack
from byzflower.flower.compat import array_record, array_view, records_of, set_message_id
from byzflower.server.adversary.base import Adversary
from byzflower.strategies.legacy import decode_arrays, node_id_of
from byzflower.uploads.base import CLIENT_ID, NUM_EXAMPLES, check_num_examples, is_client_id

Results = list[tuple[ClientProxy, FitRes]]
Failures = list[tuple[ClientProxy, FitRes] | BaseException]


class LegacyAdversary(LegacyFlowerStrategy):
    """`Adversary` around any ``flwr.server.strategy.Strategy``, `LegacyStrategy` and Flower's own included.

    Clients are known as `LegacyStrategy` knows them; those that name no ``client-id`` are numbered by
    ascending cid at first sight.
    """

    def __init__(
        self,
        strategy: LegacyFlowerStrategy,
        attack: CollusiveAttack,
        num_byzantine: int | None = None,
        *,
        byzantine: Collection[int] | None = None,
        server_lr: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Wrap a strategy; the options are those of `Adversary`."""
        self.strategy = strategy
        self._overheard = _Overheard()
        self._adversary = Adversary(
            self._overheard, attack, num_byzantine, byzantine=byzantine, server_lr=server_lr, seed=seed
        )

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Delegate."""
        return self.strategy.initialize_parameters(client_manager)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Overhear the broadcast."""
        arrays = {str(i): array for i, array in enumerate(parameters_to_ndarrays(parameters))}
        self._max_bytes = sum(array.nbytes for array in arrays.values())
        self._adversary.configure_train(
            server_round, array_record(arrays), ConfigRecord(), self._overheard.grid
        )
        return self.strategy.configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(
        self, server_round: int, results: Results, failures: Failures
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Rewrite the Byzantine results, then let the wrapped strategy aggregate."""
        replies = [self._as_reply(proxy, result) for proxy, result in results]
        self._adversary.aggregate_train(server_round, [reply for reply in replies if reply is not None])
        rewritten = iter(self._overheard.replies)
        results = [
            (proxy, result if reply is None else _with_arrays(result, reply, next(rewritten)))
            for (proxy, result), reply in zip(results, replies, strict=True)
        ]
        return self.strategy.aggregate_fit(server_round, results, failures)

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Delegate."""
        return self.strategy.configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Delegate."""
        return self.strategy.aggregate_evaluate(server_round, results, failures)

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, dict[str, Scalar]] | None:
        """Delegate."""
        return self.strategy.evaluate(server_round, parameters)

    def _as_reply(self, proxy: ClientProxy, result: FitRes) -> Message | None:
        """The result as a Message-API reply; None if it is no model, or of no believable size."""
        try:
            arrays = decode_arrays(result.parameters, self._max_bytes)
            numbers: dict[str, Any] = {NUM_EXAMPLES: check_num_examples(result.num_examples)}
            named = result.metrics.get(CLIENT_ID)
        except Exception:  # left to the wrapped strategy, which has the reason
            return None
        if is_client_id(named):
            numbers[CLIENT_ID] = named
        content = RecordDict(
            {
                "arrays": array_record({str(i): array for i, array in enumerate(arrays)}),
                "metrics": MetricRecord(numbers),
            }
        )
        node = node_id_of(proxy)
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        set_message_id(asked, str(node))
        return Message(content, reply_to=asked)


class _Overheard(Strategy):
    """In place of a Message-API strategy: keeps what the adversary hands on."""

    grid: Any = None

    def __init__(self) -> None:
        self.replies: list[Message] = []

    def summary(self) -> None:
        """Say nothing."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody."""
        return []

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[None, None]:
        """Keep the replies."""
        self.replies = list(replies)
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Keep nothing."""


def _with_arrays(result: FitRes, before: Message, after: Message) -> FitRes:
    """The result with the arrays that the adversary put into its reply, if it did."""
    if after is before:
        return result
    (record,) = records_of(after.content, ArrayRecord).values()
    changed = copy.copy(result)
    changed.parameters = ndarrays_to_parameters([array_view(array) for array in record.values()])
    return changed

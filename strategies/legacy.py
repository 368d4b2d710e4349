"""Adapter of any `RobustStrategy` to Flower's older NumPyClient + ServerAppComponents API."""

import hashlib
from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

import numpy as np
from flwr.common import (
    EvaluateRes,
    FitIns,
    FitRes,
    MetricsAggregationFn,
    NDArrays,
    Parameters,
    Scalar,
    log,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.typing import Code
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.strategy.aggregate import weighted_loss_avg

from byzflower.flower.compat import DecodeError, npy_view
from byzflower.flower.text import error_text, plain, quoted
from byzflower.strategies.base import RobustStrategy
from byzflower.uploads.base import (
    CLIENT_ID,
    MAX_METRIC,
    Rejected,
    Rejection,
    Upload,
    can_be_averaged,
    check_num_examples,
    is_client_id,
    number,
)
from byzflower.uploads.codec import most_have
from byzflower.uploads.roster import ReplyFault, Said

_NOBODY = -1  # Flower does not say whose an exception is


class LegacyStrategy(LegacyFedAvg):
    """Run a `RobustStrategy` behind `flwr.server.strategy.Strategy`.

    The wrapped strategy owns the rule, the quarantine, the step and the record (`robust.last_round`);
    everything about sampling and configuration is Flower's own legacy FedAvg.

    Clients are known as the wrapped strategy's `identity` says, by the integer ``client-id`` in their
    metrics or by Flower's own cid in place of a node id.
    """

    def __init__(self, robust: RobustStrategy, **options: Any) -> None:
        """Wrap a strategy.

        Args:
            robust: any of `byzflower.strategies`, made without `num_clients`.
            options: what `flwr.server.strategy.FedAvg` takes.
        """
        super().__init__(**options)
        self.robust = robust

    def __repr__(self) -> str:
        return f"LegacyStrategy({type(self.robust).__name__})"

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Remember the global model, then sample as Flower's FedAvg does."""
        arrays = parameters_to_ndarrays(parameters)
        model = {str(i): array for i, array in enumerate(arrays)}
        sent = self.robust.set_global(server_round, model)
        if sent is not model:
            parameters = ndarrays_to_parameters([*sent.values()])
        instructions: list[tuple[ClientProxy, FitIns]] = super().configure_fit(
            server_round, parameters, client_manager
        )
        for _, fit in instructions:
            fit.config = {**fit.config, "server-round": server_round, **self.robust.upload.told()}
        nodes = [node_id_of(proxy) for proxy, _ in instructions]
        self.robust.roster.ask({node: [node] for node in nodes})
        return instructions

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Quarantine what is malformed and aggregate the rest.

        A user's function for metrics is given those of the clients that the rule was given, as
        `_averaged` says.
        """
        uploads: dict[int, Upload] = {}
        said: dict[int, Said] = {}
        for failure in failures:
            node, reason = _describe_failure(failure)
            said[node] = Said([], [ReplyFault(None, reason)])
        for proxy, result in results:
            node = node_id_of(proxy)
            try:
                uploads[node] = self._decode(node, result)
                said[node] = Said(uploads[node].client_ids, [])
            except Exception as error:  # nothing that a client sends may end a run
                said[node] = Said([], [ReplyFault(None, _fault(error))])
        hearing = self.robust.roster.hear(said)
        for node, clients in hearing.heard.items():
            uploads[node].client_ids = list(clients.values())
        nobodys = "".join(f": {reason}" for _, reason in said.get(_NOBODY, Said([], [])).faults)
        silent = [Rejection(client, f"no result{nobodys}") for client, _ in hearing.silent]
        self.robust.last_round.ignored = hearing.ignored
        row = self.robust.aggregate_uploads(
            [uploads[node] for node in hearing.heard], hearing.rejections + silent
        )
        accepted = set(self.robust.last_round.clients)
        kept = [
            (result.num_examples, result.metrics)
            for proxy, result in results
            if accepted.intersection(hearing.heard.get(node_id_of(proxy), {}).values())
        ]
        metrics = _averaged(self.fit_metrics_aggregation_fn, kept)
        if row is None:
            return None, metrics
        return ndarrays_to_parameters(
            [*self.robust.upload.model(row, self.robust.sent.layout).values()]
        ), metrics

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Average losses and metrics of the clients whose status, size and loss are believable.

        A loss is believable if it is finite and at most `MAX_METRIC`. A user's function is given the
        metrics as `_averaged` says.
        """
        believable = []
        for proxy, result in results:
            try:
                _check_evaluation(result)
                believable.append(result)
            except Exception as error:  # nothing that a client sends may end a run
                node = node_id_of(proxy)
                log(WARNING, "round %d: evaluation of node %d ignored: %s", server_round, node, _fault(error))
        if not believable or (failures and not self.accept_failures):
            return None, {}
        loss: float = weighted_loss_avg([(r.num_examples, r.loss) for r in believable])
        metrics = [(r.num_examples, r.metrics) for r in believable]
        return loss, _averaged(self.evaluate_metrics_aggregation_fn, metrics)

    def _decode(self, node: int, result: FitRes) -> Upload:
        _check_status(result)
        claimed = result.metrics.get(CLIENT_ID, node)
        client = int(claimed) if is_client_id(claimed) else node
        size = check_num_examples(result.num_examples)
        kind, layout = self.robust.upload, self.robust.sent.layout
        named = kind.named(decode_arrays(result.parameters, layout.nbytes), layout)
        return kind.decode(named, layout, [client], np.array([size]), [{}], cohort=False)


def decode_arrays(parameters: Parameters, max_bytes: int) -> NDArrays:
    """Read a client's parameters without trusting them.

    Raises:
        Rejected: not NumPy arrays, or larger than `max_bytes`.
    """
    if parameters.tensor_type != "numpy.ndarray":
        raise Rejected(f"unknown tensor type {quoted(parameters.tensor_type)}")
    try:
        return [npy_view(tensor, max_bytes) for tensor in parameters.tensors]
    except DecodeError as error:
        raise Rejected(error) from error


def _check_status(result: FitRes | EvaluateRes) -> None:
    if result.status.code != Code.OK:
        raise Rejected(f"client reported {plain(result.status.message)}")


def _check_evaluation(result: EvaluateRes) -> None:
    _check_status(result)
    check_num_examples(result.num_examples)
    if not can_be_averaged(number(result.loss)):
        raise Rejected(f"loss is {quoted(result.loss)}, not a number of at most {MAX_METRIC:g}")


def _averaged(
    average: MetricsAggregationFn | None, clients: Sequence[tuple[int, Mapping[str, Scalar]]]
) -> dict[str, Scalar]:
    """Call a user's function for metrics so that no client can make it fail.

    It is given the metrics that most clients report, of the clients whose values are of the kinds that
    most report: where most give a number, or one that can be averaged, so does every client that is
    kept. If there is no function, or nobody to give it, there are no metrics.

    Args:
        average: the user's function.
        clients: number of examples and metrics of each.
    """
    traits = [_traits(metrics) for _, metrics in clients]
    usual = set(most_have(traits))
    keys = {key for key, _ in usual}
    kept = [
        (size, {key: value for key, value in metrics.items() if key in keys})
        for (size, metrics), own in zip(clients, traits, strict=True)
        if usual <= own
    ]
    return average(kept) if average and kept else {}


def _traits(metrics: Mapping[str, Scalar]) -> set[tuple[str, str]]:
    """Every key of a client's metrics with the kinds that its value is of."""
    traits: set[tuple[str, str]] = set()
    for key, value in metrics.items():
        kinds = ["there"]
        if isinstance(value, bool | int | float | np.number):
            kinds += ["number", "can be averaged"] if can_be_averaged(number(value)) else ["number"]
        else:
            kinds.append(type(value).__name__)
        traits.update((key, kind) for kind in kinds)
    return traits


def _fault(error: Exception) -> str:
    return str(error) if isinstance(error, Rejected) else f"cannot be decoded: {error_text(error)}"


def _describe_failure(failure: tuple[ClientProxy, FitRes] | BaseException) -> tuple[int, str]:
    if isinstance(failure, BaseException):
        return _NOBODY, f"client raised: {error_text(failure)}"
    proxy, result = failure
    return node_id_of(proxy), f"client failed: {plain(result.status.message)}"


def node_id_of(proxy: ClientProxy) -> int:
    """Flower's legacy cid as an integer; it is the node id in all current engines."""
    cid = str(proxy.cid)
    if cid.isdecimal():
        return int(cid)
    return int.from_bytes(hashlib.blake2b(cid.encode(), digest_size=7).digest(), "big")

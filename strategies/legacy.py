"""Any of our strategies for projects on Flower's NumPyClient + ServerAppComponents API."""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
from flwr.common import (
    EvaluateRes,
    FitIns,
    FitRes,
    NDArrays,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.typing import Code
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg as LegacyFedAvg

from byzflower.strategies.base import RobustStrategy
from byzflower.uploads.base import CLIENT_ID, Rejected, Rejection, Upload, check_num_examples
from byzflower.uploads.flower_compat import DecodeError, npy_view
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
        self.robust.set_global(server_round, {str(i): array for i, array in enumerate(arrays)})
        instructions: list[tuple[ClientProxy, FitIns]] = super().configure_fit(
            server_round, parameters, client_manager
        )
        for _, fit in instructions:
            fit.config = {**fit.config, "server-round": server_round, **self.robust.client_config()}
        nodes = [node_id_of(proxy) for proxy, _ in instructions]
        self.robust.roster.ask({node: [node] for node in nodes})
        return instructions

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Quarantine what is malformed and aggregate the rest."""
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
            except Rejected as fault:
                said[node] = Said([], [ReplyFault(None, str(fault))])
        hearing = self.robust.roster.hear(said)
        for node, clients in hearing.heard.items():
            uploads[node].client_ids = list(clients.values())
        nobodys = "".join(f": {reason}" for _, reason in said.get(_NOBODY, Said([], [])).faults)
        silent = [Rejection(client, f"no result{nobodys}") for client, _ in hearing.silent]
        self.robust.last_round.ignored = hearing.ignored
        row = self.robust.aggregate_uploads(
            [uploads[node] for node in hearing.heard], hearing.rejections + silent
        )
        metrics: dict[str, Scalar] = {}
        if self.fit_metrics_aggregation_fn:
            accepted = set(self.robust.last_round.clients)
            kept = [
                result
                for proxy, result in results
                if accepted.intersection(hearing.heard.get(node_id_of(proxy), {}).values())
            ]
            usual = _usual_keys([r.metrics for r in kept])
            kept = [r for r in kept if usual <= r.metrics.keys()]
            metrics = self.fit_metrics_aggregation_fn([(r.num_examples, r.metrics) for r in kept])
        if row is None:
            return None, metrics
        return ndarrays_to_parameters(self.robust._require_layout().arrays(row)), metrics

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Average the losses of the clients whose loss and size are finite and positive."""
        believable = []
        for proxy, result in results:
            try:
                check_num_examples(result.num_examples)
            except Rejected:
                continue
            if np.isfinite(result.loss):
                believable.append((proxy, result))
        loss, metrics = super().aggregate_evaluate(server_round, believable, failures)
        return loss, metrics

    def _decode(self, node: int, result: FitRes) -> Upload:
        if result.status.code != Code.OK:
            raise Rejected(f"client reported {result.status.message!s:.200}")
        claimed = result.metrics.get(CLIENT_ID, node)
        is_id = isinstance(claimed, int) and not isinstance(claimed, bool) and 0 <= claimed < 2**64
        client = int(claimed) if is_id else node
        size = check_num_examples(result.num_examples)
        layout = self.robust._require_layout()
        arrays = decode_arrays(result.parameters, layout.nbytes)
        names = self.robust.upload_kind.names(layout)
        named = {names[i] if i < len(names) else str(i): array for i, array in enumerate(arrays)}
        return self.robust.upload_kind.from_payload(
            named, layout, [client], np.array([size]), [{}], cohort=False
        )


def decode_arrays(parameters: Parameters, max_bytes: int) -> NDArrays:
    """Read a client's parameters without trusting them.

    Raises:
        Rejected: not NumPy arrays, or larger than `max_bytes`.
    """
    if parameters.tensor_type != "numpy.ndarray":
        raise Rejected(f"unknown tensor type {parameters.tensor_type!r:.40}")
    try:
        return [npy_view(tensor, max_bytes) for tensor in parameters.tensors]
    except DecodeError as error:
        raise Rejected(str(error)) from error


def _usual_keys(metrics: list[dict[str, Scalar]]) -> set[str]:
    """Keys that most clients report: a user's function may count on them."""
    counts = Counter(key for own in metrics for key in own)
    return {key for key, count in counts.items() if 2 * count > len(metrics)}


def _describe_failure(failure: tuple[ClientProxy, FitRes] | BaseException) -> tuple[int, str]:
    if isinstance(failure, BaseException):
        return _NOBODY, f"client raised: {failure!s:.300}"
    proxy, result = failure
    return node_id_of(proxy), f"client failed: {result.status.message!s:.300}"


def node_id_of(proxy: ClientProxy) -> int:
    """Flower's legacy cid as an integer; it is the node id in all current engines."""
    cid = str(proxy.cid)
    if cid.isdecimal():
        return int(cid)
    return int.from_bytes(hashlib.blake2b(cid.encode(), digest_size=7).digest(), "big")

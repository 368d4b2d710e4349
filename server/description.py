"""The record of a round: what happened to whom."""

from byzflower.server.adversary.diagnostics import vulnerability
from byzflower.server.config.tasks import Config
from byzflower.server.recorder import detection
from byzflower.server.results import Record
from byzflower.strategies.record import RoundRecord
from byzflower.uploads.base import among


def describe(server_round: int, last: RoundRecord, config: Config) -> Record:
    """What a strategy recorded of a round, and how well it told attackers from benign clients.

    Args:
        server_round: server round.
        last: the strategy's record of it.
        config: of the run, which knows who attacks, and when.
    """
    byzantine, attacked = config.byzantine_ids(), config.attacked(server_round)
    return {
        "round": server_round,
        "clients": len(last.clients),
        "kept": len(last.selected) if last.selected is not None else None,
        "selected": last.selected,
        "quarantined": [{"client": client, "reason": reason} for client, reason in last.rejections],
        "skipped": last.skipped,
        "dropped": [{"client": client, "reason": reason} for client, reason in last.dropped],
        **(_detected(last, config.clients, byzantine) if attacked else {"precision": None, "recall": None}),
        "info": last.info,
        "bytes_down": last.bytes_down,
        "bytes_up": last.bytes_up,
        "wire_bytes": last.wire_bytes,
        **(_contributors(last, byzantine) if attacked else {}),
        **({"ignored": [who._asdict() for who in last.ignored]} if last.ignored else {}),
    }


def _detected(last: RoundRecord, clients: int, byzantine: frozenset[int]) -> dict[str, float | None]:
    """Precision and recall of the exclusion of attackers, by rule or quarantine; None if nobody judged.

    Nodes known by their own ids alone are left out: nobody can say whether they attack.
    """
    logical = range(clients)
    quarantined = {client for client, _ in last.rejections if client in logical}
    if last.selected is None and not quarantined:
        return {"precision": None, "recall": None}
    arrived = {client for client in last.clients if client in logical}
    excluded = quarantined | arrived.difference(_kept(last))
    precision, recall = detection(excluded, (arrived | quarantined) & byzantine)
    return {"precision": precision, "recall": recall}


def _contributors(last: RoundRecord, byzantine: frozenset[int]) -> dict[str, dict[str, float]]:
    """The attackers' share of each pack's contributors, if uploads are sparse."""
    if last.masks is None:
        return {}
    attackers, kept = among(last.clients, byzantine), among(last.clients, _kept(last))
    return {"contributors": vulnerability(last.masks, attackers, kept)}


def _kept(last: RoundRecord) -> list[int]:
    return last.clients if last.selected is None else last.selected

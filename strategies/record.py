"""What happened in a round."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Ignored, Rejection


@dataclass
class RoundRecord:
    """What happened in one round of training.

    Attributes:
        round: server round, from 1.
        clients: ids of the clients whose uploads reached the rule, ascending: the rows' order.
        rejections: every other client that was asked, once, and why it was quarantined.
        ignored: what nodes sent that had no effect on anybody: replies of nodes that were not asked, second
            replies, words about clients that are not their own, claims of ids.
        selected: ids that the rule kept, for rules that select.
        weights: weight of each of `clients` in the aggregate, for rules that weight.
        dropped: ids that the rule left out, and why, for rules that say; also whose step was not taken in
            an item or a pack (see `leeway`).
        masks: (n, P) bool, the packs that each of `clients` sent; None unless uploads are sparse.
        skipped: why the global model stayed as it was, or None.
        info: numbers that the rule reports.
        seconds: time spent decoding and aggregating.
        bytes_down: array payload for the clients, each counted as if it were alone on its node.
        bytes_up: array payload of the uploads, counted likewise.
        wire_bytes: array payload as it travelled, "down" and "up": a cohort gets the model once.
    """

    round: int
    clients: list[int] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    selected: list[int] | None = None
    weights: list[float] | None = None
    dropped: list[Rejection] = field(default_factory=list)
    masks: NDArray[np.bool_] | None = None
    skipped: str | None = None
    info: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    wire_bytes: dict[str, int] = field(default_factory=dict)

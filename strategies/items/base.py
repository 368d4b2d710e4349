"""ItemStrategy: the strategy of federated recommenders, where each item is aggregated by itself."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import TooFewClients
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.leeway import longest_step, too_long
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import AggregationResult, check
from byzflower.uploads.items import ItemRound, Items, ServerOptimizer
from byzflower.uploads.limits import row_norms

Convention = Literal["standard", "spattack"]


@dataclass(frozen=True)
class ItemResult:
    """A rule's aggregates of all items.

    Attributes:
        gradients: (k, d) aggregates of the k items that received rows.
        info: numbers worth recording.
    """

    gradients: torch.Tensor
    info: Mapping[str, float] = field(default_factory=dict)


class ItemOptions(StrategyOptions, TypedDict, total=False):
    """Options that every item strategy takes; see `ItemStrategy`."""

    server_optimizer: ServerOptimizer


class ItemStrategy(RobustStrategy):
    """Base of the rules that treat each item as an aggregation of its own (Spattack, section 3).

    The first array of the model is the (m, d) item table. For every item, the rows that clients uploaded
    for it are aggregated: v_j <- v_j - server_lr * AGR(rows of j). Clients that did not touch an item do
    not count as zeros, and an item that nobody touched does not move; neither does one whose step is longer
    than what most clients send explains (see `leeway`): then its clients are named. Whatever else the model
    has is aggregated by the dense form of the same rule (`aggregate`).
    """

    by_item = True

    def __init__(self, **options: Unpack[ItemOptions]) -> None:
        """Make the strategy.

        Args:
            options: see `RobustStrategy`, without ``pre``, ``upload`` and ``device`` (rows are gradients,
                and on the CPU), and ``server_optimizer`` ("sgd" or "adam", default sgd): Adam keeps
                moments of every item, which only aggregates of that item change.

        Raises:
            ValueError: an option out of its range.
        """
        for name in ("pre", "upload", "device"):
            check(name not in options, f"item strategies take no {name}", options.get(name))
        kind = Items(options.pop("server_optimizer", "sgd"))
        own: dict[str, Any] = {**options, "upload": kind}
        super().__init__(**own)

    @abstractmethod
    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Aggregate every item's rows, all finite."""

    def remember_items(self, items: NDArray[np.int64], gradients: NDArray[np.float32]) -> None:
        """Called with the items that move this round and their aggregates, for rules with memory."""

    def apply(self, gradients: Any, weights: torch.Tensor) -> AggregationResult:
        """Apply the rule item by item, and its dense form to whatever else the model has.

        Args:
            gradients: an `ItemRound`.
            weights: not looked at.

        Returns:
            The aggregate of the whole model, which only moves the items that `moves` says.

        Raises:
            TooFewClients: nobody sent a row.
        """
        round_: ItemRound = gradients
        if not len(round_.upload.items):
            raise TooFewClients("no usable upload arrived")
        rows = round_.by_item()
        result = self.aggregate_items(rows)
        limit = longest_step(round_.largest())
        moved = (row_norms(result.gradients) <= limit).numpy()
        items, d = rows.items.numpy()[moved], rows.d
        self.remember_items(items, result.gradients.numpy()[moved])
        table = round_.num_items * d
        gradient, moves = np.zeros(round_.d, np.float32), np.zeros(round_.d, np.bool_)
        gradient[:table].reshape(-1, d)[items] = result.gradients.numpy()[moved]
        moves[:table].reshape(-1, d)[items] = True
        moves[table:] = True
        if round_.d > table:
            dense = round_.dense()
            equal = torch.full((len(dense),), 1 / len(dense), dtype=torch.float64)
            gradient[table:] = super().apply(dense, equal).gradient.numpy()
        late = round_.longer(limit, rows.items.numpy()[~moved])
        places = {client: i for i, client in enumerate(round_.client_ids)}
        return AggregationResult(
            torch.from_numpy(gradient),
            info={"items": float(len(rows)), "rows": float(len(rows.order)), **result.info},
            reasons={places[c]: too_long(f"item {item}", norm, limit) for c, (item, norm) in late.items()},
            moves=torch.from_numpy(moves),
        )

"""The adversary of federated recommenders: rewrites the made-up users' uploads, item by item."""

from collections.abc import Collection
from functools import cached_property

import numpy as np
import torch

from byzflower.attacks.items import ItemAttack, ItemView
from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.randomness import torch_generator
from byzflower.numerics.rows import view_of
from byzflower.server.adversary.arrived import Arrived
from byzflower.server.adversary.base import Adversary
from byzflower.strategies.items import ItemStrategy
from byzflower.uploads.items import CraftedItems, ItemUpload, join
from byzflower.uploads.round import Forged


class _Statistics:
    """What attacks may ask about a round's benign rows: not all do, and each answer is a pass over them."""

    def __init__(self, benign: ItemUpload, num_items: int) -> None:
        self._benign = benign
        self._num_items = num_items

    @cached_property
    def counts(self) -> torch.Tensor:
        return self._scattered(self._rows.counts)

    @cached_property
    def sums(self) -> torch.Tensor:
        return self._scattered(self._rows.totals())

    @cached_property
    def std(self) -> torch.Tensor:
        return self._scattered(self._rows.std())

    @cached_property
    def _rows(self) -> ItemRows:
        clients = np.array(self._benign.client_ids, np.uint64)
        return ItemRows(self._benign.rows, clients, self._benign.splits, self._benign.items, self._num_items)

    def _scattered(self, values: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(self._num_items, *values.shape[1:], dtype=values.dtype)
        out[self._rows.items] = values
        return out


class ItemAdversary(Adversary):
    """Rewrite the Byzantine users' replies just before an item strategy aggregates them."""

    def __init__(
        self,
        strategy: ItemStrategy,
        attack: ItemAttack,
        byzantine: Collection[int],
        popularity: np.ndarray[tuple[int], np.dtype[np.int64]],
        seed: int = 0,
    ) -> None:
        """Wrap a strategy.

        Args:
            strategy: what aggregates.
            attack: what the Byzantine users upload, and when.
            byzantine: their ids.
            popularity: (m,) how many users have each item; public knowledge.
            seed: of the attack's randomness.
        """
        super().__init__(strategy, attack, byzantine=byzantine, seed=seed)
        self.item_attack = attack
        self.popularity = torch.from_numpy(np.array(popularity))

    def forge(self, server_round: int, arrived: Arrived) -> Forged | None:
        """Let the attack choose items and rows."""
        benign = [upload for upload in arrived.part(byzantine=False) if isinstance(upload, ItemUpload)]
        if not benign:
            return None
        view = self._view(join(benign), len(arrived.byzantine), server_round)
        crafted = self.item_attack.craft(view)
        poison = self.item_attack.poison_dense and len(view.dense[0]) > 0
        dense = self.item_attack.craft_dense(view) if poison else torch.zeros(view.dense.shape[1])
        rows = CraftedItems(crafted.chosen, crafted.rows, dense)
        return Forged(arrived.byzantine, rows, torch.empty(0))

    def _view(self, benign: ItemUpload, count: int, server_round: int) -> ItemView:
        layout, row = self.sent
        m, d = layout.shapes[0]
        return ItemView(
            num_byzantine=count,
            popularity=self.popularity,
            max_items=int(np.diff(benign.splits).max()),
            table=view_of(row[: m * d].reshape(m, d)),
            benign=_Statistics(benign, m),
            dense=view_of(benign.dense),
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
            memory=self._memory,
        )

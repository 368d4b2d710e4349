"""The adversary of federated recommenders: rewrites the made-up users' uploads, item by item."""

import dataclasses
import time
from collections.abc import Collection, Iterable
from functools import cached_property

import numpy as np
import torch
from flwr.common import ArrayRecord, Message, MetricRecord, RecordDict

from byzflower.attacks.items import CraftedRows, ItemAttack, ItemView
from byzflower.randomness import torch_generator
from byzflower.server.adversary import Adversary, is_cohort, with_content
from byzflower.strategies.items import ItemRows, ItemStrategy
from byzflower.strategies.items.rows import gather
from byzflower.strategies.rows import view_of
from byzflower.uploads.flower_compat import array_record, records_of
from byzflower.uploads.items import ItemUpload, join
from byzflower.uploads.layout import Layout
from byzflower.uploads.reply import decode_reply


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
    def spread(self) -> torch.Tensor:
        return self._scattered(self._rows.spread())

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
        super().__init__(strategy, None, byzantine=byzantine, seed=seed)
        self.item_attack = attack
        self.popularity = torch.from_numpy(np.array(popularity))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Rewrite the Byzantine replies, then let the wrapped strategy aggregate."""
        started = time.perf_counter()
        replies = list(replies)
        if self.item_attack.active(server_round):
            replies = self._rewrite_items(server_round, replies)
        self.seconds = {"attack": time.perf_counter() - started}
        result: tuple[ArrayRecord | None, MetricRecord | None] = self.strategy.aggregate_train(
            server_round, replies
        )
        return result

    def _rewrite_items(self, server_round: int, replies: list[Message]) -> list[Message]:
        layout = self._require_layout()
        uploads = [decode_reply(reply, ItemUpload, layout)[0] for reply in replies]
        arrived = [upload for upload in uploads if isinstance(upload, ItemUpload)]
        benign = [own for upload in arrived if (own := self._part(upload, byzantine=False)) is not None]
        byzantine = sorted({c for upload in arrived for c in upload.client_ids} & self.byzantine)
        if not byzantine or not benign:
            return replies
        view = self._view(join(benign), len(byzantine), server_round, layout)
        crafted = self.item_attack.craft(view)
        poison = self.item_attack.poison_dense and len(view.dense[0]) > 0
        dense = self.item_attack.craft_dense(view) if poison else torch.zeros(view.dense.shape[1])
        rank = {client: i for i, client in enumerate(byzantine)}
        return [
            self._rewritten(reply, upload, crafted, dense, rank, layout)
            if isinstance(upload, ItemUpload)
            else reply
            for reply, upload in zip(replies, uploads, strict=True)
        ]

    def _part(self, upload: ItemUpload, byzantine: bool) -> ItemUpload | None:
        """The Byzantine or the other users' part of an upload."""
        mine = [i for i, client in enumerate(upload.client_ids) if (client in self.byzantine) == byzantine]
        if len(mine) == len(upload):
            return upload
        if mine == list(range(len(mine))):  # the made-up users come last: a view will do
            rows = slice(0, upload.splits[len(mine)])
            return (
                dataclasses.replace(
                    upload,
                    client_ids=upload.client_ids[: len(mine)],
                    num_examples=upload.num_examples[: len(mine)],
                    metrics=upload.metrics[: len(mine)],
                    splits=upload.splits[: len(mine) + 1],
                    items=upload.items[rows],
                    rows=upload.rows[rows],
                    dense=upload.dense[: len(mine)],
                )
                if mine
                else None
            )
        return upload.take(mine)

    def _view(self, benign: ItemUpload, count: int, server_round: int, layout: Layout) -> ItemView:
        m, d = layout.shapes[0]
        return ItemView(
            num_byzantine=count,
            popularity=self.popularity,
            max_items=int(np.diff(benign.splits).max()),
            table=torch.from_numpy(self._global[: m * d].reshape(m, d)),
            benign=_Statistics(benign, m),
            dense=view_of(benign.dense),
            round=server_round,
            generator=torch_generator(self.seed, "adversary", server_round),
            memory=self._memory,
        )

    def _rewritten(
        self,
        reply: Message,
        upload: ItemUpload,
        crafted: CraftedRows,
        dense: torch.Tensor,
        rank: dict[int, int],
        layout: Layout,
    ) -> Message:
        byzantine = self._part(upload, byzantine=True)
        if byzantine is None:
            return reply
        benign = self._part(upload, byzantine=False)
        mine = torch.tensor([rank[client] for client in byzantine.client_ids])
        chosen = crafted.chosen[mine]
        clients, items = chosen.nonzero(as_tuple=True)
        rows = gather(crafted.rows, items) if crafted.rows.ndim == 2 else crafted.rows[mine[clients], items]
        splits = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(dim=1).cumsum(0)])
        forged = dataclasses.replace(
            byzantine,
            splits=splits.numpy(),
            items=items.numpy().astype(np.int32),
            rows=rows.float().numpy(),
            dense=dense.float().expand(len(mine), -1).numpy(),
        )
        whole = forged if benign is None else join([benign, forged])
        ids = {client: i for i, client in enumerate(whole.client_ids)}
        order = [ids[client] for client in upload.client_ids]
        whole = whole if order == list(range(len(order))) else whole.take(order)
        (name,) = records_of(reply.content, ArrayRecord)
        arrays = array_record(whole.payload(layout, cohort=is_cohort(reply)))
        return with_content(reply, RecordDict({**reply.content, name: arrays}))

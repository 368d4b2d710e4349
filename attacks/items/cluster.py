"""ClusterAttack: pull item embeddings together into a few dense clusters."""

from dataclasses import dataclass

import torch

from byzflower.attacks.items.base import CraftedRows, ItemAttack, ItemView, touched_items

_LLOYD_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class ItemCluster(ItemAttack):
    """ClusterAttack: gradients that pull item embeddings into k dense clusters (Yu et al., 2023).

    The number of clusters starts at 1. Whenever the embeddings' distance to their centres has not become
    smaller, there is one more, up to `most`; whenever it has, one less. Rows point from the centre to
    the item (the server steps against them) and are as long as the mean benign row of all items on average.

    Attributes:
        most: largest number of clusters.
    """

    most: int = 10

    def craft(self, view: ItemView) -> CraftedRows:
        """Point every item to the centre of its cluster."""
        clusters = int(view.memory.get("clusters", torch.tensor(1)))
        away = view.table - _centers(view.table.double(), clusters).to(view.table)
        loss = away.double().square().sum()
        before = view.memory.get("loss", torch.tensor(torch.inf))
        step = -1 if loss < before else 1
        view.memory["clusters"] = torch.tensor(min(max(clusters + step, 1), self.most))
        view.memory["loss"] = loss
        length = away.norm(dim=1).mean().clamp(min=1e-12)
        size = view.means[view.benign.counts > 0].norm(dim=1).mean()
        return CraftedRows(touched_items(view), away * (size / length))


def _centers(points: torch.Tensor, clusters: int) -> torch.Tensor:
    """(m, d) the centre of each point's cluster, by Lloyd's steps from points far apart."""
    centers = points.mean(dim=0, keepdim=True)
    for _ in range(clusters - 1):
        far = torch.cdist(points, centers).amin(dim=1).argmax()
        centers = torch.cat([centers, points[far : far + 1]])
    for _ in range(_LLOYD_STEPS if clusters > 1 else 0):
        member = torch.nn.functional.one_hot(
            torch.cdist(points, centers).argmin(dim=1), len(centers)
        ).double()
        sizes = member.sum(dim=0)
        centers = torch.where(sizes[:, None] > 0, member.T @ points / sizes.clamp(min=1)[:, None], centers)
    return centers[torch.cdist(points, centers).argmin(dim=1)]

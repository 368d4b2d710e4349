"""SafeSparse: excludes clients with unusual masks or suspiciously similar signs."""

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from byzflower.numerics.columns import middle_value
from byzflower.numerics.packed_rows import PackedRows, mean_of_contributors
from byzflower.numerics.packs import DEFAULT_PACK_SIZE
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions, kind_of
from byzflower.strategies.result import AggregationResult, Gradients, check, uniform_over
from byzflower.uploads.topk import Densify, TopK

# Means of equal scores or distances may differ from these in the last bit; and eps must be positive.
_ROUNDING, _TINY = 1 + 1e-12, 1e-12


def jaccard(masks: torch.Tensor) -> torch.Tensor:
    """|M_i and M_j| / |M_i or M_j| of (m, P) masks, 1 for two empty ones: float64 (m, m)."""
    bits = masks.float()  # whole numbers below 2**24 are exact
    both = (bits @ bits.T).double()
    either = both.diagonal()[:, None] + both.diagonal()[None, :] - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def sign_cosines(rows: PackedRows, counted: torch.Tensor | None = None) -> torch.Tensor:
    """Cosines of the rows' signs where both clients sent the pack; 0 if a vector is 0 there.

    With 0 for what was not sent, the inner products are one Gram product. The squared length of i's
    signs on j's packs is the number of their non-zeros there, so it takes counts per pack only.

    Args:
        rows: m rows.
        counted: (P,) bool, packs that are looked at; default all.

    Returns:
        float64 (m, m).
    """
    gram = torch.zeros(rows.n, rows.n, dtype=torch.float64, device=rows.device)
    counts = torch.zeros(rows.n, rows.packs.count, device=rows.device)
    lock = threading.Lock()

    def work(block: torch.Tensor, packs: slice) -> None:
        signs = block.sign_()
        if counted is not None:
            signs *= counted[packs, None]
        counts[:, packs] = torch.linalg.vector_norm(signs, ord=1, dim=2)
        flat = signs.reshape(rows.n, -1)
        products = flat @ flat.T
        with lock:  # whole numbers, exact in whatever order
            gram.add_(products)

    rows.map_packs(work)
    masks = torch.from_numpy(rows.masks).to(rows.device)
    lengths = (counts @ masks.float().T).double()
    norms = (lengths * lengths.T).sqrt()
    return torch.where(norms > 0, gram / norms.clamp(min=1), 0.0)


def dense_clusters(distances: NDArray[np.float64], neighbours: int) -> tuple[list[list[int]], float]:
    """DBSCAN on a distance matrix, with eps the mean distance to the `neighbours`-th nearest other.

    Returns:
        The clusters, the tightest (by mean distance within) first, and eps. Noise is in none.
    """
    from sklearn.cluster import DBSCAN  # late: it takes a second that only this rule should cost

    m = len(distances)
    others = np.sort(distances + np.diag(np.full(m, -1.0)), axis=1)[:, 1:]
    eps = float(others[:, min(neighbours, m - 1) - 1].mean())
    labels = DBSCAN(
        eps=max(eps * _ROUNDING, _TINY), min_samples=neighbours, metric="precomputed"
    ).fit_predict(distances)
    clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    clusters.sort(key=lambda c: (float(distances[np.ix_(c, c)].mean()), int(c[0])))
    return [cluster.tolist() for cluster in clusters], eps


@dataclass(frozen=True)
class _Inspection:
    """Which clients passed, why the others did not, and scores and thresholds."""

    kept: list[int]
    reasons: dict[int, str]
    info: dict[str, float]


def inspect_masks(masks: torch.Tensor, beta: float) -> _Inspection:
    """Drop clients whose mean Jaccard similarity is below beta (max + min) / 2 (Algorithm 1, 3-8)."""
    m = len(masks)
    similar = jaccard(masks)
    scores = ((similar.sum(dim=1) - similar.diagonal()) / max(m - 1, 1)).tolist() if m > 1 else [1.0]
    threshold = (max(scores) + min(scores)) / 2 * beta
    reasons = {
        i: f"mask: Jaccard score {score:.4f} is below {threshold:.4f}"
        for i, score in enumerate(scores)
        if score * _ROUNDING < threshold
    }
    info = {"jaccard-min": min(scores), "jaccard-max": max(scores), "jaccard-threshold": threshold}
    return _Inspection([i for i in range(m) if i not in reasons], reasons, info)


def inspect_signs(
    cosines: torch.Tensor, clients: Sequence[int], participants: int, gamma: float, guard: bool
) -> _Inspection:
    """Drop clients in dense clusters of similar signs (Algorithm 1, 9-16).

    Args:
        cosines: (s, s) of those that passed the masks' inspection.
        clients: their s positions among all.
        participants: m, how many there were in all.
        gamma: n_nb = max(1, floor(m gamma)).
        guard: keep clusters that cannot be a minority coalition.
    """
    if len(clients) < 2:
        return _Inspection([*clients], {}, {"clusters": 0.0})
    neighbours = max(1, math.floor(participants * gamma + 1e-9))
    distances = (1 - cosines).clamp(min=0).fill_diagonal_(0).cpu().numpy()
    clusters, eps = dense_clusters(distances, neighbours)
    left, reasons, spared = len(clients), {}, 0
    for cluster in clusters:
        after = left - len(cluster)
        if guard and (2 * len(cluster) >= participants or 2 * after < participants):
            spared += 1
            continue
        left = after
        for i in cluster:
            reasons[clients[i]] = f"signs: in a dense cluster of {len(cluster)} (eps {eps:.4f})"
    info = {"clusters": float(len(clusters)), "clusters-spared": float(spared), "eps": eps}
    kept = [client for client in clients if client not in reasons]
    if not kept:
        return _Inspection([*clients], {}, {**info, "nobody-left": 1.0})
    return _Inspection(kept, reasons, info)


def clip_scales(rows: PackedRows, limit: float | None) -> torch.Tensor:
    """Factors (n,) that bring each row's norm down to `limit` times the median of the norms; None: 1."""
    if limit is None:
        return torch.ones(rows.n, dtype=torch.float64, device=rows.device)
    norms = rows.squared_norms.sqrt()
    longest = limit * middle_value(norms)
    return torch.where(norms > longest, longest / norms.clamp(min=torch.finfo(norms.dtype).tiny), 1.0)


def safe_sparse(
    gradients: Gradients,
    masks: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    *,
    pack_size: int = DEFAULT_PACK_SIZE,
    beta: float = 0.6,
    gamma: float = 0.2,
    guard: bool = True,
    magnitude_guard: float | None = None,
    contributed: torch.Tensor | None = None,
) -> AggregationResult:
    """Filter sparse updates by masks and signs, average each pack over who is left (SafeSparse, Alg. 1, 2).

    Where nobody who is left sent a pack the aggregate is 0, i.e. the global model's values stay.
    If every client were dropped for its signs, all that passed the masks' inspection stay.

    Args:
        gradients: (m, d) pseudo-gradients w_G - w_i, 0 in packs that were not sent; or `PackedRows`.
        masks: (m, P) packs that were sent, where `gradients` does not know; default all.
        weights: (m,) in proportion to the clients' data; uniform by default.
        pack_size: scalars in a pack, likewise.
        beta: strictness of the masks' inspection, in [0, 1].
        gamma: neighbours of the signs' clustering as a share of m, in (0, 1].
        guard: the project's own addition; False is the literal algorithm. Attackers are fewer than half,
            so a cluster of half of the m clients or more is not theirs, nor is one whose removal would
            leave fewer than half. Clusters are removed the tightest first, as long as that holds.
        magnitude_guard: likewise: clip every update that is left to so many times the median norm. Scaled
            benign updates have benign masks and signs, and pass both inspections.
        contributed: (P,) packs that the previous aggregation had contributors for; signs are compared
            there. Default all, as in the first round.

    Returns:
        With who was kept, the weights, the reasons of each exclusion, and scores and thresholds.

    Raises:
        TooFewClients: m < 1.
        ValueError: a parameter out of its range.
    """
    _check_parameters(beta, gamma, magnitude_guard)
    rows = PackedRows.of_matrix(gradients, masks, pack_size)
    by_mask = inspect_masks(torch.from_numpy(rows.masks).to(rows.device), beta)
    cosines = sign_cosines(rows.take(by_mask.kept), contributed)
    by_sign = inspect_signs(cosines, by_mask.kept, rows.n, gamma, guard)
    kept = rows.take(by_sign.kept)
    selected = torch.zeros(rows.n, dtype=torch.bool, device=rows.device)
    selected[by_sign.kept] = True
    share = uniform_over(selected, weights)
    scales = clip_scales(kept, magnitude_guard)
    return AggregationResult(
        mean_of_contributors(kept, share[selected], scales),
        selected,
        share,
        {
            **by_mask.info,
            **by_sign.info,
            "dropped-by-mask": float(len(by_mask.reasons)),
            "dropped-by-signs": float(len(by_sign.reasons)),
            "clipped": float((scales < 1).sum()),
        },
        {**by_mask.reasons, **by_sign.reasons},
    )


class SafeSparse(RobustStrategy):
    """Excludes sparse uploads with unusual masks or suspiciously similar signs; averages pack by pack."""

    def __init__(
        self,
        beta: float = 0.6,
        gamma: float = 0.2,
        guard: bool = True,
        magnitude_guard: float | None = 2.0,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            beta: strictness of the masks' inspection, in [0, 1].
            gamma: neighbours of the signs' clustering as a share of the clients, in (0, 1].
            guard: keep clusters that cannot be a minority's (see `safe_sparse`); False is the paper.
            magnitude_guard: clip updates to so many times their median norm; None is the paper.
            options: see `RobustStrategy`; `upload` is "topk" by default, and `densify` not a choice. With
                pre-aggregations, which make dense rows, there are no masks left to inspect.
        """
        mode: Densify = "zero" if options.get("pre") else "contributors"
        kind = kind_of(options.pop("upload", "topk"), options.pop("pack_size", None))
        options.pop("densify", None)
        self.pack_size = kind.pack_size if isinstance(kind, TopK) else DEFAULT_PACK_SIZE
        options["upload"] = dataclasses.replace(kind, densify=mode) if isinstance(kind, TopK) else kind
        super().__init__(**options)
        _check_parameters(beta, gamma, magnitude_guard)
        self.beta, self.gamma = beta, gamma
        self.guard, self.magnitude_guard = guard, magnitude_guard
        self.contributed: torch.Tensor | None = None

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `safe_sparse` to dense rows: every client sent every pack."""
        return self.aggregate_contributors(PackedRows.of_matrix(gradients, None, self.pack_size), weights)

    def aggregate_contributors(self, gradients: PackedRows, weights: torch.Tensor) -> AggregationResult:
        """Apply `safe_sparse`."""
        result = safe_sparse(
            gradients,
            weights=weights,
            beta=self.beta,
            gamma=self.gamma,
            guard=self.guard,
            magnitude_guard=self.magnitude_guard,
            contributed=self.contributed,
        )
        if result.selected is not None:
            masks = torch.from_numpy(gradients.masks).to(gradients.device)
            self.contributed = masks[result.selected].any(dim=0)
        return result

    @override
    def state_dict(self) -> dict[str, NDArray[Any]]:
        known = np.empty(0, np.bool_) if self.contributed is None else self.contributed.cpu().numpy()
        return {**super().state_dict(), "contributed": known}

    @override
    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().load_state_dict(state)
        known = torch.from_numpy(np.array(state["contributed"])).to(self.device)
        self.contributed = known if len(known) else None


def _check_parameters(beta: float, gamma: float, magnitude_guard: float | None) -> None:
    check(0 <= beta <= 1, "beta must be in [0, 1]", beta)
    check(0 < gamma <= 1, "gamma must be in (0, 1]", gamma)
    positive = magnitude_guard is None or magnitude_guard > 0
    check(positive, "magnitude_guard must be positive", magnitude_guard)

"""Options that every strategy takes."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, TypedDict

from byzflower.numerics.packs import DEFAULT_PACK_SIZE
from byzflower.strategies.pre_aggregation import PreAggregation
from byzflower.strategies.result import check
from byzflower.uploads.dense import Gradients, Weights
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.topk import Densify, TopK

UploadName = Literal["weights", "gradient", "topk"]
Identity = Literal["claimed", "node"]


class StrategyOptions(TypedDict, total=False):
    """Options of every strategy; `RobustStrategy` documents them."""

    pre: Sequence[PreAggregation]
    server_lr: float
    upload: UploadName | UploadKind
    pack_size: int
    densify: Densify
    max_client_weight: float | None
    max_skipped_rounds: int
    max_round_bytes: int
    num_clients: int | None
    identity: Identity
    strata: Sequence[Collection[int]]
    seed: int
    device: str
    fraction_train: float
    fraction_evaluate: float
    min_train_nodes: int
    min_evaluate_nodes: int
    min_available_nodes: int
    weighted_by_key: str
    arrayrecord_key: str
    configrecord_key: str
    train_metrics_aggr_fn: Any
    evaluate_metrics_aggr_fn: Any


def kind_of(
    upload: "UploadName | UploadKind", pack_size: int | None = None, densify: Densify | None = None
) -> UploadKind:
    """The kind of upload that a strategy was asked for.

    Args:
        upload: the kind, or one of the names of those that need no more to be said.
        pack_size: of "topk".
        densify: of "topk".

    Raises:
        ValueError: another name, or options of another kind.
    """
    if isinstance(upload, UploadKind):
        mine = [name for name, value in (("pack_size", pack_size), ("densify", densify)) if value is not None]
        check(not mine, f"{', '.join(mine)} belong into the upload itself, as TopK(pack_size=8)", upload)
        return upload
    check(upload in ("weights", "gradient", "topk"), "upload must be weights, gradient or topk", upload)
    size, mode = DEFAULT_PACK_SIZE if pack_size is None else pack_size, densify or "zero"
    dense = upload != "topk"
    check(not (dense and mode == "contributors"), f"densify must be zero with {upload} uploads", densify)
    sparse = TopK(pack_size=size, densify=mode)  # which checks them, too
    if upload == "topk":
        return sparse
    return Weights() if upload == "weights" else Gradients()

"""What a round needs in memory: no more than it says, and not much less, for every kind of upload."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.common import ArrayRecord, ConfigRecord

from byzflower.flower.compat import array_view, records_of
from byzflower.numerics import heap
from byzflower.strategies import (
    AGRFRS,
    ARFRS,
    LASA,
    MDA,
    RRFRS,
    SMEA,
    SRFRS,
    Bulyan,
    FedAvg,
    Krum,
    Median,
    MultiKrum,
    SafeSparse,
    TrimmedMean,
)
from byzflower.strategies.items import ItemKrum, ItemMean, ItemMedian, ItemRFA
from byzflower.strategies.pre_aggregation import Bucketing, NearestNeighborMixing, Sparsify
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments import moments_layout
from byzflower.uploads.optimizers import Optimizer
from byzflower.uploads.topk import Packs, SparseModel, array_names
from flower import begin_round, plain_reply

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")

RANDOM = np.random.default_rng(0)


def resident(field):
    (line,) = (own for own in Path("/proc/self/status").read_text().splitlines() if own.startswith(field))
    return int(line.split()[1]) * 1024


def peak(strategy, model, answer, clients):
    """Bytes that one round needs, its uploads included."""
    messages = begin_round(strategy, model, range(1, clients + 1))
    replies = answer(strategy, model, messages[0], clients)
    uploads = sum(len(array.data) for reply in replies for array in reply.content["arrays"].values())
    gc.collect()
    heap.trim()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    result, _ = strategy.aggregate_train(1, replies)
    assert result is not None
    return uploads + resident("VmHWM") - before


def normal(shape, dtype=np.float32):
    return RANDOM.standard_normal(shape, dtype=dtype)


def dense(strategy, model, message, clients):
    return [
        plain_reply(n, {k: normal(v.shape, v.dtype) for k, v in model.items()}) for n in range(1, clients + 1)
    ]


def dense_with_nan(strategy, model, message, clients):
    return [
        *dense(strategy, model, message, clients - 1),
        plain_reply(clients, {k: v * np.nan for k, v in model.items()}),
    ]


def all_packs(strategy, model, message, clients):
    layout = Layout.of(model)
    packs = Packs(layout.d, strategy.upload.pack_size)
    mask = np.ones(packs.count, np.bool_)
    mask[-1] = False
    sent = [
        SparseModel(mask, normal(packs.scalars(mask)), np.empty(0)).arrays(layout) for _ in range(clients)
    ]
    return [
        plain_reply(n + 1, dict(zip(array_names(layout), own, strict=True))) for n, own in enumerate(sent)
    ]


def all_items(strategy, model, message, clients):
    shape = model["items"].shape
    items = np.arange(shape[0], dtype=np.int32)
    return [plain_reply(n, {"items": items, "rows": normal(shape)}) for n in range(1, clients + 1)]


def moments(form):
    """Answers of clients that touched nearly all rows: the worst for a server that keeps those touched."""

    def answer(strategy, model, message, clients):
        (arrays,), (config,) = (
            records_of(message.content, kind).values() for kind in (ArrayRecord, ConfigRecord)
        )
        sent = {name: array_view(array) for name, array in arrays.items()}
        optimizer, t = Optimizer.from_config(dict(config))
        own = moments_layout(Layout.of(sent))
        before = torch.from_numpy(own.state(own.full.row(list(sent.values()))))
        replies = []
        for n in range(1, clients + 1):
            gradient = torch.from_numpy(normal(own.model.d, own.full.row_dtype.type))
            gradient[: int(own.widths[0])] = 0
            row = optimizer.step(before, gradient, t).numpy().reshape(-1)
            named = dict(zip(own.full.names, own.full.arrays(row), strict=True))
            upload = strategy.upload.decode(named, own.full, [n], np.ones(1), [{}], cohort=False)
            replies.append(
                plain_reply(n, upload.payload(own.full, cohort=False) if form == "compact" else named)
            )
        return replies

    return answer


NET = {"w": np.zeros((1000, 1000), np.float32), "b": np.zeros(1000, np.float32)}
DOUBLE = {name: array.astype(np.float64) for name, array in NET.items()}
SMALL_NET = {"w": np.zeros((500, 1000), np.float32), "b": np.zeros(1000, np.float32)}
TABLE = {"items": np.zeros((16_000, 64), np.float32)}
NARROW = {"items": np.zeros((64_000, 8), np.float32)}
F = {"num_byzantine": 3}

ROUNDS = {
    "weights": (lambda: Median(), NET, dense),
    "gradient": (lambda: TrimmedMean(**F, upload="gradient"), NET, dense),
    "float64": (lambda: FedAvg(), DOUBLE, dense),
    "one NaN": (lambda: MultiKrum(**F), NET, dense_with_nan),
    "lasa": (lambda: LASA(), NET, dense),
    "smea": (lambda: SMEA(**F), NET, dense),
    "mda": (lambda: MDA(**F), NET, dense),
    "bulyan": (lambda: Bulyan(**F), NET, dense),
    "nnm": (lambda: TrimmedMean(**F, pre=[NearestNeighborMixing()]), NET, dense),
    "bucketing": (lambda: Krum(1, pre=[Bucketing()]), NET, dense),
    "two before lasa": (lambda: LASA(pre=[NearestNeighborMixing(3), Sparsify(0.3)]), NET, dense),
    "packs": (lambda: Median(upload="topk"), NET, all_packs),
    "scalar packs": (lambda: FedAvg(upload="topk", pack_size=1), SMALL_NET, all_packs),
    "contributors": (lambda: Median(upload="topk", densify="contributors"), NET, all_packs),
    "mean of contributors": (lambda: FedAvg(upload="topk", densify="contributors"), NET, all_packs),
    "safesparse": (lambda: SafeSparse(), NET, all_packs),
    **{
        f"{make.__name__} {form}": (lambda make=make: make(**F), SMALL_NET, moments(form))
        for make in (ARFRS, SRFRS, AGRFRS, RRFRS)
        for form in ("full", "compact")
    },
    "moments float64": (
        lambda: AGRFRS(**F),
        {name: array.astype(np.float64) for name, array in SMALL_NET.items()},
        moments("full"),
    ),
    "moments weighted": (
        lambda: RRFRS(filter="geometricmedian", inspect="parameters"),
        SMALL_NET,
        moments("full"),
    ),
    "rows of one": (lambda: ARFRS(**F), {"bias": np.zeros((300_000, 1), np.float32)}, moments("compact")),
    "items": (lambda: ItemMean(), TABLE, all_items),
    "items median": (lambda: ItemMedian(), TABLE, all_items),
    "items krum": (lambda: ItemKrum(**F), TABLE, all_items),
    "narrow items": (lambda: ItemRFA(), NARROW, all_items),
    "narrow items krum": (lambda: ItemKrum(**F), NARROW, all_items),
}


@pytest.mark.parametrize("kind", ROUNDS)
def test_a_round_needs_what_it_says(kind):
    make, model, answer = ROUNDS[kind]
    few = {name: array[:8] for name, array in model.items()}
    peak(make(), few, answer, 16)  # what is set up once is not counted
    strategy = make()
    needed = peak(strategy, model, answer, 16)
    promised = strategy.round_bytes(16)
    assert needed <= promised <= 2.5 * needed, f"{needed / 1e6:.0f} MB, promised {promised / 1e6:.0f}"

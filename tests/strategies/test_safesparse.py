"""SafeSparse against a transcription of its algorithms that loops over pairs, packs and scalars."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byzflower.numerics.packed_rows import mean_of_contributors, over_contributors
from byzflower.numerics.rows import TooFewClients
from byzflower.strategies import FedAvg, Median, MultiKrum, PackedRows, SafeSparse, TrimmedMean, safe_sparse
from byzflower.strategies.safesparse import clip_scales, jaccard, sign_cosines


def slow_jaccard(a, b):
    both = sum(x and y for x, y in zip(a, b, strict=True))
    either = sum(x or y for x, y in zip(a, b, strict=True))
    return both / either if either else 1.0


def slow_cosine(x, y, a, b, size, counted):
    pairs = [
        (np.sign(u), np.sign(v))
        for i, (u, v) in enumerate(zip(x, y, strict=True))
        if a[i // size] and b[i // size] and counted[i // size]
    ]
    norms = math.sqrt(sum(u * u for u, _ in pairs)) * math.sqrt(sum(v * v for _, v in pairs))
    return sum(u * v for u, v in pairs) / norms if norms else 0.0


def slow_dbscan(distances, eps, least):
    """Clusters: core points (with `least` points in reach, itself included) that reach each other, and
    the first to reach them for the others."""
    m = len(distances)
    near = [[j for j in range(m) if distances[i][j] <= eps] for i in range(m)]
    core = [len(near[i]) >= least for i in range(m)]
    label = [None] * m
    clusters = []
    for i in range(m):
        if not core[i] or label[i] is not None:
            continue
        clusters.append([])
        todo = [i]
        while todo:
            j = todo.pop()
            if label[j] is None:
                label[j] = len(clusters) - 1
                clusters[-1].append(j)
                todo += near[j] if core[j] else []
    return clusters


def slow_safe_sparse(x, masks, sizes, size, beta=0.6, gamma=0.2, guard=True, magnitude=None, counted=None):
    """Algorithms 1 and 2 as they are printed, with the project's choices where they are silent."""
    m = len(x)
    counted = counted or [True] * len(masks[0])
    scores = []
    for i in range(m):
        others = [slow_jaccard(masks[i], masks[j]) for j in range(m) if j != i]
        scores.append(sum(others) / len(others) if others else 1.0)
    threshold = (max(scores) + min(scores)) / 2 * beta
    left = [i for i in range(m) if not scores[i] < threshold - 1e-12]
    benign = list(left)
    if len(left) > 1:
        n_nb = max(1, math.floor(m * gamma + 1e-9))
        distances = [
            [0.0 if i == j else 1 - slow_cosine(x[i], x[j], masks[i], masks[j], size, counted) for j in left]
            for i in left
        ]
        nearest = [
            sorted(d for k, d in enumerate(row) if k != i)[min(n_nb, len(left) - 1) - 1]
            for i, row in enumerate(distances)
        ]
        eps = sum(nearest) / len(nearest)
        clusters = slow_dbscan(distances, eps + 1e-9, n_nb)
        clusters.sort(key=lambda c: (round(np.mean([[distances[i][j] for j in c] for i in c]), 9), min(c)))
        for cluster in clusters:
            stay = [i for i in benign if left.index(i) not in cluster]
            if guard and (2 * len(cluster) >= m or 2 * len(stay) < m):
                continue
            benign = stay
        benign = benign or left
    scales = dict.fromkeys(benign, 1.0)
    if magnitude is not None:
        norms = {
            i: math.sqrt(sum(float(v) ** 2 for k, v in enumerate(x[i]) if masks[i][k // size]))
            for i in benign
        }
        limit = magnitude * float(np.median(list(norms.values())))
        scales = {i: min(1.0, limit / norms[i]) if norms[i] else 1.0 for i in benign}
    out = []
    for k in range(len(x[0])):
        contributors = [i for i in benign if masks[i][k // size]]
        total = sum(sizes[i] for i in contributors)
        out.append(sum(sizes[i] / total * scales[i] * float(x[i][k]) for i in contributors) if total else 0.0)
    return out, benign


def both(x, masks, sizes, size, **options):
    """The package's and the slow one's answer on the same uploads."""
    x = np.asarray(x, np.float32)
    result = safe_sparse(
        torch.from_numpy(x),
        torch.tensor(masks),
        torch.tensor(sizes, dtype=torch.float64),
        pack_size=size,
        beta=options.get("beta", 0.6),
        gamma=options.get("gamma", 0.2),
        guard=options.get("guard", True),
        magnitude_guard=options.get("magnitude"),
        contributed=torch.tensor(options["counted"]) if "counted" in options else None,
    )
    return result, *slow_safe_sparse(x, masks, sizes, size, **options)


def agree(*args, **options):
    result, gradient, benign = both(*args, **options)
    assert result.selected.nonzero().squeeze(1).tolist() == benign
    np.testing.assert_allclose(result.gradient.numpy(), gradient, rtol=2e-5, atol=1e-6)
    assert set(result.reasons) == set(range(len(args[0]))) - set(benign)
    return benign


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([None, 0.5, 2.0]),
    st.sampled_from([0.0, 0.6, 1.0]),
    st.sampled_from([0.1, 0.2, 0.5]),
)
def test_agrees_with_the_transcription(m, d, size, seed, guard, magnitude, beta, gamma):
    rng = np.random.default_rng(seed)
    packs = -(-d // size)
    x = rng.integers(-2, 3, (m, d)).astype(np.float32)  # small numbers: ties, zeros, no overlaps
    masks = (rng.random((m, packs)) < rng.choice([0.2, 0.5, 0.9])).tolist()
    counted = (rng.random(packs) < 0.8).tolist()
    sizes = rng.integers(1, 9, m).tolist()
    agree(x, masks, sizes, size, guard=guard, magnitude=magnitude, beta=beta, gamma=gamma, counted=counted)


def honest(n, d, rng, packs, common=0.3):
    """Updates with something in common, and masks of the largest half of packs of 4."""
    shared = rng.normal(size=d)
    x = common * shared + rng.normal(size=(n, d))
    return x, [top(row, packs) for row in x]


def top(row, packs):
    norms = np.abs(row).reshape(packs, -1).sum(axis=1)
    return (norms >= np.sort(norms)[packs // 2]).tolist()


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("attack", ["ipm", "scaled parameters", "noise"])
def test_forty_percent_of_coordinated_attackers_are_all_dropped(attack, literal):
    rng = np.random.default_rng(1)
    packs, d = 60, 240
    x, masks = honest(12, d, rng, packs, common=0.2)
    if attack == "ipm":
        forged = np.repeat(-x.mean(axis=0)[None], 8, axis=0)
    elif attack == "noise":
        forged = rng.normal(size=d) + 0.05 * rng.normal(size=(8, d))
    else:
        forged = -9 * rng.normal(size=d)[None] + 0.3 * x[:8]
    everything = np.concatenate([forged, x])
    all_masks = [top(row, packs) for row in forged] + masks
    benign = agree(everything, all_masks, [1] * 20, 4, guard=not literal)
    assert set(benign).isdisjoint(range(8))
    if not literal:
        assert benign == list(range(8, 20))


def test_all_benign_nobody_is_dropped_by_the_guard_but_most_by_the_letter():
    x, masks = honest(20, 240, np.random.default_rng(2), 60, common=3)
    assert agree(x, masks, [1] * 20, 4) == list(range(20))
    assert len(agree(x, masks, [1] * 20, 4, guard=False)) < 10


def test_all_clients_equal():
    x, masks = np.ones((6, 8)), [[True, False]] * 6
    assert agree(x, masks, [1] * 6, 4) == list(range(6))
    # To the letter all would go: those that passed the masks' inspection stay.
    result, gradient, benign = both(x, masks, [1] * 6, 4, guard=False)
    assert benign == list(range(6))
    assert result.info["nobody-left"] == 1
    assert result.gradient.tolist() == pytest.approx(gradient) == [1, 1, 1, 1, 0, 0, 0, 0]


def test_one_client_is_trusted_and_its_packs_only():
    result, gradient, benign = both([[3.0, 4.0, 5.0]], [[True, False]], [7], 2)
    assert benign == [0]
    assert result.gradient.tolist() == gradient == [3, 4, 0]
    with pytest.raises(TooFewClients, match="n >= 1"):
        safe_sparse(torch.empty(0, 3))


def test_a_mask_unlike_all_others_is_dropped_and_the_record_says_why():
    masks = [[True] * 4 + [False] * 4] * 5 + [[False] * 4 + [True] * 4]
    x = np.random.default_rng(0).normal(size=(6, 16))
    result, _, benign = both(x, masks, [1] * 6, 2)
    assert 5 not in benign
    assert result.reasons[5] == "mask: Jaccard score 0.0000 is below 0.2400"
    assert result.info["dropped-by-mask"] == 1


def test_no_overlap_is_no_similarity():
    masks = torch.tensor([[True, False], [False, True]])
    rows = PackedRows.of_matrix(torch.ones(2, 4), masks, 2)
    assert sign_cosines(rows).tolist() == [[1, 0], [0, 1]]
    assert jaccard(masks).tolist() == [[1, 0], [0, 1]]
    assert jaccard(torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[1, 1], [1, 1]]


def test_honest_updates_times_ten_pass_the_filters_and_are_clipped_by_the_guard():
    x, masks = honest(20, 240, np.random.default_rng(5), 60, common=0.2)
    x[:8] *= 10
    free = safe_sparse(torch.from_numpy(x), torch.tensor(masks), pack_size=4)
    clipped = safe_sparse(torch.from_numpy(x), torch.tensor(masks), pack_size=4, magnitude_guard=2.0)
    assert free.selected.all()
    assert clipped.info["clipped"] == 8
    norms = [
        float(torch.from_numpy(np.where(np.repeat(k, 4), r, 0)).norm()) for r, k in zip(x, masks, strict=True)
    ]
    scales = clip_scales(PackedRows.of_matrix(torch.from_numpy(x), torch.tensor(masks), 4), 2.0)
    limit = 2 * float(np.median(norms))
    assert [float(s) * n <= limit * (1 + 1e-6) for s, n in zip(scales, norms, strict=True)] == [True] * 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.5}, r"beta must be in \[0, 1\], got 1.5"),
        ({"gamma": 0}, r"gamma must be in \(0, 1\], got 0"),
        ({"magnitude_guard": 0}, "magnitude_guard must be positive, got 0"),
    ],
)
def test_parameters_are_checked(options, message):
    for make in (lambda: safe_sparse(torch.ones(2, 3), **options), lambda: SafeSparse(**options)):
        with pytest.raises(ValueError, match=message):
            make()


def test_masks_must_fit_the_rows():
    with pytest.raises(ValueError, match=r"masks have shape \(2, 3\), expected \(2, 1\)"):
        safe_sparse(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool))


def test_the_strategy_looks_at_packs_of_the_round_before_only_and_remembers_them():
    strategy = SafeSparse(pack_size=2, magnitude_guard=None)
    first = PackedRows.of_matrix(torch.ones(3, 4), torch.tensor([[True, False]] * 3), 2)
    strategy.apply(first, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert strategy.contributed.tolist() == [True, False]
    again = SafeSparse(pack_size=2)
    again.load_state_dict(strategy.state_dict())
    assert again.contributed.tolist() == [True, False]
    again.load_state_dict(SafeSparse().state_dict())
    assert again.contributed is None


# -- packed rows --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(1, 7), st.integers(0, 10**6))
def test_packed_rows_are_the_dense_ones_with_zeros(n, d, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    masks = rng.random((n, -(-d // size))) < 0.5
    dense = np.where(np.repeat(masks, size, axis=1)[:, :d], x, 0)
    rows = PackedRows.of_matrix(torch.from_numpy(x), torch.from_numpy(masks), size)
    np.testing.assert_array_equal(rows.matrix(), dense)
    start, stop = sorted(rng.integers(0, d + 1, 2))
    np.testing.assert_array_equal(rows.block(slice(int(start), int(stop))), dense[:, start:stop])
    columns = rng.integers(0, d, 9)
    np.testing.assert_array_equal(rows.block(torch.from_numpy(columns)), dense[:, columns])
    chosen = [n - 1, 0]
    np.testing.assert_array_equal(rows.take(chosen).matrix(), dense[chosen])
    np.testing.assert_allclose(rows.squared_norms, (dense.astype(np.float64) ** 2).sum(axis=1), rtol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 5), st.integers(0, 10**6))
def test_coordinate_wise_rules_see_each_packs_contributors_alone(n, d, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    masks = rng.random((n, -(-d // size))) < 0.5
    sizes = rng.integers(1, 5, n)
    rows = PackedRows.of_matrix(torch.from_numpy(x), torch.from_numpy(masks), size)
    medians, means = np.zeros(d), np.zeros(d)
    for k in range(d):
        who = np.flatnonzero(masks[:, k // size])
        if len(who):
            medians[k] = np.median(x[who, k].astype(np.float64))
            means[k] = np.average(x[who, k].astype(np.float64), weights=sizes[who])
    weights = torch.from_numpy(sizes / sizes.sum())
    median = Median(upload="topk", densify="contributors").apply(rows, weights)
    np.testing.assert_allclose(median.gradient, medians, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean_of_contributors(rows, weights), means, rtol=1e-5, atol=1e-6)
    mean = FedAvg(upload="topk", densify="contributors").apply(rows, weights)
    np.testing.assert_array_equal(mean.gradient, mean_of_contributors(rows, weights))


def test_packs_with_too_few_contributors_keep_the_global_model():
    masks = torch.tensor([[True, True], [True, False], [True, False]])
    rows = PackedRows.of_matrix(torch.tensor([[1.0, 9], [2, 0], [5, 0]]), masks, 1)
    rule = TrimmedMean(num_byzantine=1, upload="topk", densify="contributors")
    result = rule.apply(rows, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert result.gradient.tolist() == [2, 0]
    assert result.info["packs-with-too-few"] == 1
    with pytest.raises(TooFewClients, match="n > 2f"):
        over_contributors(rows.take([0]), lambda r: rule.aggregate(r, torch.ones(1)).gradient)


def test_what_cannot_see_contributors_says_so():
    with pytest.raises(ValueError, match="MultiKrum is neither coordinate-wise nor a mean"):
        MultiKrum(num_byzantine=1, upload="topk", densify="contributors")
    with pytest.raises(ValueError, match="densify must be zero or contributors, got 'one'"):
        Median(densify="one")
    from byzflower.strategies import Clip

    with pytest.raises(ValueError, match="densify must be zero with pre-aggregations"):
        Median(pre=[Clip(1.0)], upload="topk", densify="contributors")
    with pytest.raises(ValueError, match="pack_size must be at least 1, got 0"):
        Median(upload="topk", pack_size=0)


@pytest.mark.parametrize("cores", [1, 2])
def test_same_bits_on_any_number_of_cores(cores, monkeypatch):
    from byzflower.numerics import threads

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(6, 300_000)).astype(np.float32))
    masks = torch.from_numpy(rng.random((6, 4688)) < 0.5)
    once = safe_sparse(x, masks, magnitude_guard=1.0)
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    again = safe_sparse(x, masks, magnitude_guard=1.0)
    assert torch.equal(once.gradient, again.gradient)
    assert once.info == again.info

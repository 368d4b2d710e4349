"""Properties that every rule must have, and agreement with slow references written here."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from byzflower.strategies import (
    AggregationResult,
    TooFewClients,
    aksel,
    bulyan,
    caf,
    centered_clipping,
    dnc,
    fedsign,
    flguardian,
    fltrust,
    geometric_median,
    krum,
    lasa,
    mda,
    meamed,
    mean,
    median,
    monna,
    multi_krum,
    norm_clipping,
    rbtm,
    robust_dpfl,
    sign_guard,
    sign_majority,
    smea,
    trimmed_mean,
)


def two_layers(d):
    return [slice(0, d // 3), slice(d // 3, d)] if d >= 3 else [slice(0, d)]


RULES = {
    "mean": lambda x, f: mean(x),
    "median": lambda x, f: median(x),
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": lambda x, f: bulyan(x, min(f, (len(x) - 3) // 4)),
    "meamed": meamed,
    "rbtm": rbtm,
    "aksel": lambda x, f: aksel(x),
    "monna": monna,
    "mda": mda,
    "smea": smea,
    "caf": caf,
    "dnc": lambda x, f: dnc(x, f, niters=2, b=10**6),
    "geometric_median": lambda x, f: geometric_median(x),
    "rfa": lambda x, f: geometric_median(x, iterations=8),
    "norm_clipping": lambda x, f: norm_clipping(x, 3.0),
    "centered_clipping": lambda x, f: centered_clipping(x, torch.ones_like(x[0]), 2.0, 3),
    "sign_majority": lambda x, f: sign_majority(x, 0.5),
    "fltrust": lambda x, f: fltrust(x, torch.ones_like(x[0])),
    "sign_guard": lambda x, f: sign_guard(x, fraction=1.0),
    "fedsign": lambda x, f: fedsign(x),
    "robust_dpfl": lambda x, f: robust_dpfl(x),
    "lasa": lambda x, f: lasa(x, two_layers(x.shape[-1])),
    "flguardian": lambda x, f: flguardian(x, two_layers(x.shape[-1])),
}
SELECTS = ["krum", "multi_krum", "bulyan", "monna", "mda", "smea", "dnc"]
# They look at lengths or angles from zero or a reference, or at signs.
NOT_EQUIVARIANT = {
    *("norm_clipping", "centered_clipping", "sign_majority"),
    *("fltrust", "sign_guard", "fedsign", "lasa", "flguardian"),
}
EQUIVARIANT = [rule for rule in RULES if rule not in NOT_EQUIVARIANT]
# The lower index wins where mutual nearest neighbours tie, which are all that Bulyan's last scores see, and
# where SignGuard finds several clusters of one size.
ORDER_DOES_NOT_MATTER = [rule for rule in RULES if rule not in ("bulyan", "sign_guard")]
WITHIN_HULL_OF_HONEST = ["median", "trimmed_mean", "rbtm"]


def slow_mean(x, f):
    return [sum(float(v) for v in column) / len(x) for column in x.T]


def slow_median(x, f):
    out = []
    for column in x.T:
        ordered = sorted(float(v) for v in column)
        n = len(ordered)
        out.append(ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2)
    return out


def slow_trimmed_mean(x, f):
    out = []
    for column in x.T:
        kept = sorted(float(v) for v in column)[f : len(x) - f]
        out.append(sum(kept) / len(kept))
    return out


def slow_krum_order(x, f):
    n = len(x)
    scores = []
    for i in range(n):
        to_others = sorted(
            sum((float(a) - float(b)) ** 2 for a, b in zip(x[i], x[j], strict=True))
            for j in range(n)
            if j != i
        )
        scores.append(sum(to_others[: n - f - 2]))
    return sorted(range(n), key=lambda i: (scores[i], i)), scores


def slow_krum(x, f):
    return x[slow_krum_order(x, f)[0][0]]


def slow_multi_krum(x, f):
    chosen = slow_krum_order(x, f)[0][: len(x) - f]
    return slow_mean(x[chosen], f)


def slow_bulyan(x, f):
    f = min(f, (len(x) - 3) // 4)
    theta, left, chosen = len(x) - 2 * f, list(range(len(x))), []
    for _ in range(theta):

        def score(i):
            away = sorted(float(((x[i].astype(float) - x[j]) ** 2).sum()) for j in left if j != i)
            return sum(away[: max(1, len(left) - f - 2)])

        best = min(left, key=lambda i: (score(i), i))
        chosen.append(best)
        left.remove(best)
    return slow_meamed(x[sorted(chosen)], 2 * f)


def slow_meamed(x, f):
    out = []
    for column, middle in zip(x.T, slow_median(x, f), strict=True):
        nearest = sorted(column.tolist(), key=lambda v: (abs(v - middle), v))[: len(x) - f]
        out.append(sum(nearest) / len(nearest))
    return out


def slow_aksel(x, f):
    away = ((x - np.array(slow_median(x, f))) ** 2).sum(1)
    return slow_mean(x[away <= np.median(away) * (1 + 1e-9)], f)


def slow_monna(x, f):
    wide = x.astype(float)
    # In float32, as two values are equally far from the middle between them.
    trusted = int(((x - np.float32(slow_median(x, f))).astype(float) ** 2).sum(1).argmin())
    away = ((wide - wide[trusted]) ** 2).sum(1)
    order = sorted(range(len(x)), key=lambda i: (i != trusted, away[i], i))
    return slow_mean(x[order[: len(x) - f]], f)


def slow_subset(x, f, cost):
    wide = x.astype(float)
    subsets = [list(s) for s in itertools.combinations(range(len(x)), len(x) - f)]
    left = list(range(len(subsets)))
    for column in np.array([cost(wide[s]) for s in subsets]).T:
        left = [i for i in left if column[i] <= column[left].min() * (1 + 1e-8)]
    return slow_mean(x[subsets[left[0]]], f)


def slow_mda(x, f):
    def cost(rows):
        away = ((rows[:, None] - rows[None]) ** 2).sum(2)
        return away.max(), away.sum()

    return slow_subset(x, f, cost)


def slow_smea(x, f):
    return slow_subset(x, f, lambda rows: [np.linalg.norm(rows - rows.mean(0), 2)])


def slow_caf(x, f):
    wide, c, seen = x.astype(float), np.ones(len(x)), []
    while True:
        center = c @ wide / c.sum()
        centred = (wide - center) * np.sqrt(c / c.sum())[:, None]
        _, values, directions = np.linalg.svd(centred, full_matrices=False)
        seen.append((values[0], len(seen), center))
        along = ((wide - center) @ directions[0]) ** 2 * (c > 0)
        if len(x) - c.sum() >= 2 * f or along.max() == 0:
            return min(seen)[2]
        c = c * (1 - along / along.max())


def slow_dnc(x, f):
    centred = x.astype(float) - x.astype(float).mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    assume(len(values) == 1 or values[0] > 1.001 * values[1])  # else the direction is anybody's choice
    scores = np.round(left[:, 0] ** 2, 9)
    return slow_mean(x[sorted(range(len(x)), key=lambda i: scores[i])[: len(x) - f]], f)


def slow_rfa(x, f):
    wide = x.astype(float)
    z = wide.mean(0)
    for _ in range(8):
        a = 1 / np.maximum(1e-6, np.sqrt(((wide - z) ** 2).sum(1)))
        z = a @ wide / a.sum()
    return z


def clipped(row, limit):
    size = np.sqrt((row**2).sum())
    return row * limit / size if size > limit else row


def slow_norm_clipping(x, f):
    return np.mean([clipped(row, 3.0) for row in x.astype(float)], axis=0)


def slow_centered_clipping(x, f):
    v = np.ones(x.shape[1])
    for _ in range(3):
        v = v + np.mean([clipped(row - v, 2.0) for row in x.astype(float)], axis=0)
    return v


def slow_sign_majority(x, f):
    return [0.5 * np.sign((column > 0).sum() - (column < 0).sum()) for column in x.T]


def slow_fltrust(x, f):
    wide, root = x.astype(float), np.ones(x.shape[1])
    total, trust = np.zeros(x.shape[1]), 0.0
    for row in wide:
        size = np.linalg.norm(row)
        if size > 0 and (cosine := row @ root / size / np.linalg.norm(root)) > 0:
            total += cosine * row / size * np.linalg.norm(root)
            trust += cosine
    return total / trust if trust else total


def mean_shift(points, quantile=0.5):
    """Flat-kernel mean shift from every point; bandwidth: mean distance to the farthest of nearest ones."""
    away = np.linalg.norm(points[:, None] - points[None], axis=2)
    width = max(np.sort(away)[:, max(1, int(quantile * len(points))) - 1].mean(), 1e-6)
    peaks = []
    for start in points:
        center = start
        for _ in range(300):
            inside = np.linalg.norm(points - center, axis=1) <= width
            moved = points[inside].mean(0)
            if np.linalg.norm(moved - center) <= 1e-3 * width:
                break
            center = moved
        peaks.append((int(inside.sum()), tuple(moved)))
    kept = []
    for _, peak in sorted(set(peaks), reverse=True):  # of peaks close to each other only the fullest
        if all(np.linalg.norm(np.subtract(peak, other)) > width for other in kept):
            kept.append(peak)
    return np.linalg.norm(points[:, None] - np.array(kept)[None], axis=2).argmin(1)


def slow_sign_guard(x, f):
    wide = x.astype(float)
    norms = np.linalg.norm(wide, axis=1)
    middle = np.median(norms)
    labels = mean_shift(np.stack([(x > 0).mean(1), (x == 0).mean(1), (x < 0).mean(1)], axis=1))
    sizes = [(labels == label).sum() for label in labels]
    assume(len({label for label, size in zip(labels, sizes, strict=True) if size == max(sizes)}) == 1)
    near = (norms >= 0.1 * middle * (1 - 1e-9)) & (norms <= 3 * middle * (1 + 1e-9))
    alike = labels == labels[np.argmax(sizes)]
    kept = near & alike if (near & alike).any() else near if near.any() else np.ones(len(x), bool)
    return np.mean([clipped(row, middle) for row in wide[kept]], axis=0)


def slow_fedsign(x, f):
    signs = np.sign(x.astype(float))
    size = np.linalg.norm(signs, axis=1)
    cosine = signs @ signs.T / np.where(size > 0, size, 1)[:, None] / np.where(size > 0, size, 1)[None]
    np.fill_diagonal(cosine, 0)
    density = cosine.sum(1) / (len(x) - 1)
    return slow_mean(x[density <= density.mean() + 1e-10], f)


def slow_robust_dpfl(x, f):
    scores = -x.astype(float).mean(1)
    order = np.argsort(-scores, kind="stable")

    def within(cut):
        return sum(((part - part.mean()) ** 2).sum() for part in (scores[order[:cut]], scores[order[cut:]]))

    costs = sorted(within(cut) for cut in range(1, len(x)))
    assume(len(costs) < 2 or costs[0] < costs[1] * (1 - 1e-9) or np.ptp(scores) == 0)
    best = min(range(1, len(x)), key=within) if np.ptp(scores) > 0 else len(x)
    return slow_mean(x[sorted(order[:best])], f)


def slow_lasa(x, f):
    sparse = np.zeros(x.shape)
    keep = int(np.ceil(0.7 * x.shape[1] - 1e-9))
    for i, row in enumerate(x):
        for j in sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))[:keep]:
            sparse[i, j] = row[j]

    def inside(values):
        away = np.abs(values - np.median(values))
        return away <= max(1.4826 * np.median(away), away.min()) * (1 + 1e-9)

    out = []
    for layer in two_layers(x.shape[1]):
        part = sparse[:, layer]
        norms = np.sqrt((part**2).sum(1))
        nonzero = (part != 0).sum(1)
        purity = np.where(nonzero > 0, (part > 0).sum(1) / np.maximum(1, nonzero), 0.5)
        both = inside(norms) & inside(purity)
        out.append(part[both if both.any() else inside(norms)].mean(0))
    return np.concatenate(out)


def slow_flguardian(x, f):
    n, wide = len(x), x.astype(float)
    votes = np.zeros(n)
    for layer in two_layers(x.shape[1]):
        part = wide[:, layer]
        sizes = np.linalg.norm(part, axis=1)
        straight = np.linalg.norm(part[:, None] - part[None], axis=2)
        angle = np.ones((n, n))
        for i, j in itertools.product(range(n), range(n)):
            if i == j:
                angle[i, j] = 0
            elif sizes[i] and sizes[j]:
                angle[i, j] = max(0.0, 1 - part[i] @ part[j] / sizes[i] / sizes[j])
        away = sum(a / a.mean() for a in (straight, angle) if a.mean() > 1e-12) + np.zeros((n, n))
        clusters, heights = [[i] for i in range(n)], []
        while len(clusters) > 2 and away.max() > 0:
            apart = {
                (a, b): np.mean([away[i, j] for i in clusters[a] for j in clusters[b]])
                for a, b in itertools.combinations(range(len(clusters)), 2)
            }
            a, b = min(apart, key=apart.get)
            heights = sorted(apart.values())
            assume(heights[0] < heights[1] * (1 - 1e-6))  # else it is anybody's choice
            clusters[a] += clusters.pop(b)
        if away.max() == 0:
            clusters = [list(range(n))]
        benign = min(clusters, key=lambda c: (-len(c), away[np.ix_(c, c)].sum()))
        votes[benign] += 1
    return slow_mean(x[votes >= sorted(votes)[::-1][n // 2]], f)


SLOW = {
    "fltrust": slow_fltrust,
    "sign_guard": slow_sign_guard,
    "fedsign": slow_fedsign,
    "robust_dpfl": slow_robust_dpfl,
    "lasa": slow_lasa,
    "flguardian": slow_flguardian,
    "bulyan": slow_bulyan,
    "meamed": slow_meamed,
    "rbtm": slow_trimmed_mean,
    "aksel": slow_aksel,
    "monna": slow_monna,
    "mda": slow_mda,
    "smea": slow_smea,
    "caf": slow_caf,
    "dnc": slow_dnc,
    "rfa": slow_rfa,
    "norm_clipping": slow_norm_clipping,
    "centered_clipping": slow_centered_clipping,
    "sign_majority": slow_sign_majority,
    "mean": slow_mean,
    "median": slow_median,
    "trimmed_mean": slow_trimmed_mean,
    "krum": slow_krum,
    "multi_krum": slow_multi_krum,
}


@st.composite
def matrices(draw, kinds=("normal", "heavy", "tied", "offset")):
    f = draw(st.integers(0, 4))
    n = draw(st.integers(2 * f + 3, 2 * f + 12))
    d = draw(st.integers(1, 40))
    kind = draw(st.sampled_from(kinds))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = {
        "normal": lambda: random.normal(size=(n, d)),
        "heavy": lambda: random.standard_t(1, size=(n, d)),
        "tied": lambda: random.integers(-1, 2, size=(n, d)).astype(float),
        "offset": lambda: 1 + 1e-4 * random.normal(size=(n, d)),
    }[kind]()
    return x.astype(np.float32), f


@pytest.mark.parametrize("rule", SLOW)
@settings(max_examples=40, deadline=None)
@given(matrices())
def test_agrees_with_a_slow_reference(rule, case):
    x, f = case
    fast = RULES[rule](torch.from_numpy(x), f).gradient.numpy()
    np.testing.assert_allclose(fast, SLOW[rule](x, f), rtol=2e-5, atol=2e-6 * np.abs(x).max())


@pytest.mark.parametrize("rule", ORDER_DOES_NOT_MATTER)
@settings(max_examples=25, deadline=None)
@given(matrices(kinds=("normal", "heavy")), st.randoms(use_true_random=False))
def test_order_of_clients_does_not_matter(rule, case, random):
    x, f = case
    if rule in ("krum", "multi_krum"):  # exact ties, e.g. of mutual neighbours, go to the lower index
        scores = sorted(slow_krum_order(x, f)[1])
        chosen = 1 if rule == "krum" else len(x) - f
        assume(chosen == len(x) or scores[chosen - 1] < scores[chosen] * (1 - 1e-6))
    order = list(range(len(x)))
    random.shuffle(order)
    one = RULES[rule](torch.from_numpy(x), f)
    other = RULES[rule](torch.from_numpy(x[order]), f)
    np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-5, atol=1e-6 * np.abs(x).max())
    if one.selected is not None:
        assert one.selected[order].tolist() == other.selected.tolist()


@pytest.mark.parametrize("rule", EQUIVARIANT)
@settings(max_examples=25, deadline=None)
@given(matrices(kinds=("normal",)), st.floats(-10, 10), st.sampled_from([0.25, 2.0, 64.0]))
def test_moves_and_scales_with_its_input(rule, case, shift, scale):
    x, f = case
    before = RULES[rule](torch.from_numpy(x), f).gradient
    after = RULES[rule](torch.from_numpy(x * np.float32(scale) + np.float32(shift)), f).gradient
    np.testing.assert_allclose(after, before * scale + shift, rtol=1e-4, atol=1e-4 * (scale + abs(shift)))


@pytest.mark.parametrize("rule", EQUIVARIANT)
@pytest.mark.parametrize("n", [3, 4, 9, 64])
def test_equal_rows_give_that_row(rule, n):
    row = torch.randn(50, generator=torch.Generator().manual_seed(n))
    result = RULES[rule](row.expand(n, -1).clone(), 0)
    torch.testing.assert_close(result.gradient, row, rtol=1e-6, atol=1e-7)


def test_no_byzantine_clients():
    x = torch.randn(9, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trimmed_mean(x, 0).gradient, x.mean(0))
    torch.testing.assert_close(multi_krum(x, 0).gradient, x.mean(0))


@pytest.mark.parametrize("rule", WITHIN_HULL_OF_HONEST)
@settings(max_examples=40, deadline=None)
@given(matrices(), st.sampled_from([-1e30, -5.0, 3.0, 1e19, 1e30]))
def test_stays_within_the_honest_hull(rule, case, lie):
    x, f = case
    honest = x.copy()
    x = np.concatenate([honest, np.full((f, x.shape[1]), lie, np.float32)])
    out = RULES[rule](torch.from_numpy(x), f).gradient.numpy()
    slack = 1e-6 * np.abs(honest).max()
    assert (out >= honest.min(0) - slack).all()
    assert (out <= honest.max(0) + slack).all()


@pytest.mark.parametrize("rule", SELECTS)
@pytest.mark.parametrize("lie", [1e4, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("first", [True, False])
def test_selection_drops_obvious_outliers(rule, lie, first):
    random = np.random.default_rng(1)
    liars = 3 if rule == "bulyan" else 5
    honest = random.normal(size=(18 - liars, 200)).astype(np.float32)
    lies = np.full((liars, 200), lie, np.float32) * random.choice([-1, 1], (liars, 1)).astype(np.float32)
    x = np.concatenate([lies, honest] if first else [honest, lies])
    result = RULES[rule](torch.from_numpy(x), liars)
    byzantine = result.selected[:liars] if first else result.selected[-liars:]
    assert not byzantine.any()
    assert torch.isfinite(result.gradient).all()


@pytest.mark.parametrize("rule", ["krum", "multi_krum"])
def test_selection_sees_small_differences_between_large_rows(rule):
    """Rows of size 1 that differ by 1e-6: lost in a float32 Gram matrix of the rows themselves."""
    random = np.random.default_rng(2)
    base = random.normal(size=20_000).astype(np.float32)
    noise = 1e-6 * random.normal(size=(15, 20_000))
    noise[:4] *= 6
    x = (base + noise).astype(np.float32)
    result = RULES[rule](torch.from_numpy(x), 4)
    assert not result.selected[:4].any()


@pytest.mark.parametrize("rule", RULES)
def test_input_is_left_alone(rule):
    x = torch.randn(11, 17, generator=torch.Generator().manual_seed(3))
    before = x.clone()
    result = RULES[rule](x, 2)
    assert isinstance(result, AggregationResult)
    result.gradient.add_(1)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("rule", "n", "f", "text"),
    [
        ("trimmed_mean", 4, 2, "TrimmedMean needs n > 2f, got n=4, f=2"),
        ("krum", 6, 2, r"Krum needs n > 2f \+ 2, got n=6, f=2"),
        ("multi_krum", 5, 2, r"MultiKrum needs n > 2f \+ 2, got n=5, f=2"),
        ("rbtm", 4, 2, "RBTM needs n > 2f, got n=4, f=2"),
        ("meamed", 2, 2, "MeaMed needs n > f, got n=2, f=2"),
        ("monna", 2, 2, "MoNNA needs n > f, got n=2, f=2"),
        ("mda", 2, 3, "MDA needs n > f, got n=2, f=3"),
        ("smea", 2, 2, "SMEA needs n > f, got n=2, f=2"),
        ("caf", 4, 2, "CAF needs n > 2f, got n=4, f=2"),
        ("dnc", 2, 2, r"DnC needs n > floor\(c f\) = 2, got n=2, f=2"),
        ("fedsign", 1, 0, "FedSign needs n >= 2, got n=1"),
        ("robust_dpfl", 1, 0, "RobustDPFL needs n >= 2, got n=1"),
        ("flguardian", 1, 0, "FLGuardian needs n >= 2, got n=1"),
        ("lasa", 0, 0, "n >= 1, got n=0"),
        ("sign_guard", 0, 0, "n >= 1, got n=0"),
        ("aksel", 0, 0, "n >= 1, got n=0"),
        ("median", 0, 0, "n >= 1, got n=0"),
        ("mean", 0, 0, "n >= 1, got n=0"),
    ],
)
def test_too_few_clients_is_said_with_the_numbers(rule, n, f, text):
    with pytest.raises(TooFewClients, match=text):
        RULES[rule](torch.zeros(n, 3), f)


@pytest.mark.parametrize(
    "rule",
    ["trimmed_mean", "krum", "multi_krum", "rbtm", "meamed", "monna", "mda", "smea", "caf", "dnc", "bulyan"],
)
def test_negative_f_is_refused(rule):
    with pytest.raises(ValueError, match="num_byzantine must not be negative, got -1"):
        RULES[rule](torch.zeros(5, 3), -1)


@pytest.mark.parametrize("rule", RULES)
def test_only_matrices_of_floats(rule):
    for wrong in (torch.zeros(5), torch.zeros(5, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"floating-point \(n, d\)"):
            RULES[rule](wrong, 0)


@pytest.mark.parametrize("rule", RULES)
def test_float32_agrees_with_float64(rule):
    x = torch.randn(21, 5000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    narrow, wide = RULES[rule](x.float(), 4), RULES[rule](x, 4)
    torch.testing.assert_close(narrow.gradient.double(), wide.gradient, rtol=1e-5, atol=1e-6)
    assert wide.gradient.dtype == torch.float64


def test_weights_of_the_mean():
    x = torch.arange(6.0).view(3, 2)
    weights = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert mean(x, weights).gradient.tolist() == [1.5, 2.5]


def test_weighted_multi_krum_weights_only_what_it_selects():
    x = torch.cat([torch.randn(9, 5, generator=torch.Generator().manual_seed(5)), torch.full((2, 5), 100.0)])
    weights = torch.full((11,), 0.05, dtype=torch.float64)
    weights[-1] = 0.5  # a rejected client claims half of all examples
    result = multi_krum(x, 2, weights=weights)
    assert result.weights[-1] == 0
    assert float(result.weights.sum()) == pytest.approx(1)
    assert result.gradient.abs().max() < 10


def test_ties_break_by_the_lower_index():
    rows = torch.tensor([[0.0], [0.0], [1.0], [1.0], [0.0], [1.0], [1.0], [0.0]])
    assert krum(rows, 1).selected.tolist() == [True] + [False] * 7


@pytest.mark.parametrize("n", [4, 60])  # by a network, and by sorting
def test_equally_far_is_equally_far_where_float32_cannot_add(n):
    """Around 2^24, -7 and 4 are equally far from the middle between -2 and -1: the lower one stays."""
    offsets = torch.tensor([4] + [-2, -1] * (n // 2 - 1) + [-7], dtype=torch.float64)
    x = (2.0**24 + offsets)[:, None]
    expected = x[1:].mean().round()
    assert meamed(x.float(), 1).gradient.double().item() == expected != x[:-1].mean().round()


@pytest.mark.parametrize(("n", "d"), itertools.product([1, 2, 5, 64], [1, 7, 300_000]))
def test_blocks_cover_every_column(n, d):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(d))
    np.testing.assert_allclose(median(x).gradient, np.median(x.numpy(), axis=0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(mean(x).gradient, x.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_gradient_modes_do_not_matter(rule):
    x = torch.randn(11, 100_000, generator=torch.Generator().manual_seed(6))
    expected = RULES[rule](x, 2).gradient
    assert torch.equal(RULES[rule](x.clone().requires_grad_(), 2).gradient.detach(), expected)
    with torch.inference_mode():
        assert torch.equal(RULES[rule](x.clone(), 2).gradient, expected)


@pytest.mark.parametrize("rule", RULES)
def test_the_number_of_cores_does_not_matter(rule, monkeypatch):
    x = torch.randn(60, 300_000, generator=torch.Generator().manual_seed(7))
    expected = RULES[rule](x, 5).gradient
    monkeypatch.setattr("byzflower.numerics.threads.usable_cores", lambda: 1)
    assert torch.equal(RULES[rule](x, 5).gradient, expected)

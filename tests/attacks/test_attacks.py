"""Attacks against slow references, when they act, and what they may know."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from views import local_view, training_view, view

from byzflower import attacks
from byzflower.attacks import (
    ALIE,
    ATTACKS,
    IPM,
    MASK_ATTACKS,
    STRIKE,
    Attack,
    BitFlip,
    CollusiveAttack,
    DataAttack,
    Knowledge,
    LabelFlip,
    LocalAttack,
    MaskAttack,
    TrainingAttack,
    alie,
    bit_flip,
    flip_labels,
    ipm,
    largest_hidden_z,
)
from byzflower.attacks.base import repeat

COLLUSIVE = [cls for cls in ATTACKS.values() if issubclass(cls, CollusiveAttack)]


def slow_alie(x, z, sign):
    out = []
    for column in x.astype(float).T:
        spread = np.std(column, ddof=1) if len(column) > 1 else 0.0
        out.append(np.mean(column) + sign * z * spread)
    return out


@st.composite
def matrices(draw, kinds=("normal", "heavy", "tied", "offset")):
    m, d = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = {
        "normal": lambda: random.normal(size=(m, d)),
        "heavy": lambda: random.standard_t(2, size=(m, d)),
        "tied": lambda: np.tile(random.normal(size=d), (m, 1)),
        "offset": lambda: 1 + 1e-3 * random.normal(size=(m, d)),
    }[draw(st.sampled_from(kinds))]()
    return x.astype(draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=100, deadline=None)
@given(matrices(), st.floats(0, 5), st.sampled_from([-1, 1]))
def test_alie_is_that_many_unbiased_deviations_from_the_mean(x, z, sign):
    out = alie(torch.from_numpy(x), z, sign).numpy()
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, slow_alie(x, z, sign), rtol=1e-5, atol=2e-6 * np.abs(x).max())


def test_alie_subtracts_unless_told_otherwise():
    x = torch.tensor([[0.0, 2.0], [2.0, 6.0]])
    root = math.sqrt(2)  # of the sum of squares over m - 1 = 1
    torch.testing.assert_close(alie(x, 1.0), torch.tensor([1 - root, 4 - 2 * root]))
    torch.testing.assert_close(alie(x, 1.0, sign=1), torch.tensor([1 + root, 4 + 2 * root]))


def test_alie_copies_a_lone_benign_client():
    x = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alie(x, 100.0), x[0])


def test_alie_refuses_other_signs():
    with pytest.raises(ValueError, match="sign must be -1 or 1, got 2"):
        ALIE(sign=2)


@pytest.mark.parametrize("sign", [-1, 1])
def test_alie_may_alternate_so_that_nothing_adds_up(sign):
    """The paper's (ROP's) equation 19: the sign as it is in even rounds, the opposite in odd ones."""
    x = torch.randn(12, 7, generator=torch.Generator().manual_seed(1))
    for server_round in (1, 2, 3, 4):
        crafted = ALIE(z=2.0, sign=sign, alternate=True).craft(view(x, 3, 15, round=server_round))
        expected = slow_alie(x.numpy(), 2.0, sign if server_round % 2 == 0 else -sign)
        np.testing.assert_allclose(crafted[0], expected, rtol=1e-5)
        plain = ALIE(z=2.0, sign=sign).craft(view(x, 3, 15, round=server_round))
        np.testing.assert_allclose(plain[0], slow_alie(x.numpy(), 2.0, sign), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 20, 21, 50, 99])
def test_largest_hidden_z_is_the_formula_or_an_error_with_the_numbers(n):
    for f in range(1, n + 2):
        supporters = n // 2 + 1 - f
        honest = n - f
        if honest > supporters > 0:
            assert largest_hidden_z(n, f) == pytest.approx(norm.ppf((honest - supporters) / honest), abs=1e-9)
        else:
            with pytest.raises(ValueError, match=f"n={n}, f={f}; set z"):
                largest_hidden_z(n, f)


def test_alie_without_z_takes_it_from_the_formula():
    x = torch.randn(12, 7, generator=torch.Generator().manual_seed(1))
    crafted = ALIE(z=None).craft(view(x, 8, 20))
    np.testing.assert_allclose(crafted[0], slow_alie(x.numpy(), norm.ppf(9 / 12), -1), rtol=1e-5)
    assert not torch.equal(crafted, ALIE().craft(view(x, 8, 20)))


@settings(max_examples=50, deadline=None)
@given(matrices(), st.floats(-10, 10))
def test_ipm_is_the_negative_mean_scaled(x, eps):
    expected = [-eps * sum(map(float, column)) / len(column) for column in x.T]
    np.testing.assert_allclose(
        ipm(torch.from_numpy(x), eps), expected, rtol=1e-5, atol=1e-5 * np.abs(x).max()
    )
    np.testing.assert_allclose(
        IPM(eps=eps).craft(view(torch.from_numpy(x)))[2], expected, rtol=1e-4, atol=1e-4
    )


def test_bit_flip_is_the_opposite_and_its_own_inverse():
    g = torch.randn(50, generator=torch.Generator().manual_seed(2))
    assert BitFlip().corrupt(local_view(g)).tolist() == [-v for v in g.tolist()]
    assert torch.equal(bit_flip(bit_flip(g)), g)


@given(st.integers(1, 100).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(0, c - 1)))))
def test_flipping_labels_twice_gives_them_back(case):
    num_classes, labels = case[0], torch.tensor(case[1], dtype=torch.int64)
    flipped = flip_labels(labels, num_classes)
    assert flipped.tolist() == [num_classes - 1 - y for y in case[1]]
    assert torch.equal(flip_labels(flipped, num_classes), labels)


def test_label_flip_leaves_the_images_alone():
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 9, 5])
    poisoned, labels = LabelFlip().poison(x, y, 10)
    assert torch.equal(poisoned, x)
    assert labels.tolist() == [9, 8, 7, 0, 4]


@pytest.mark.parametrize("name", ATTACKS)
@given(st.integers(1, 20), st.none() | st.integers(0, 20), st.integers(0, 50))
def test_attacks_act_inside_their_window_only(name, start, length, server_round):
    stop = None if length is None else start + length
    attack = ATTACKS[name](start_round=start, stop_round=stop)
    window = range(start, 51 if stop is None else stop + 1)
    assert attack.active(server_round) == (server_round in window)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("start", "stop", "text"),
    [
        (0, None, "start_round must be at least 1, got 0"),
        (-3, 5, "start_round must be at least 1, got -3"),
        (4, 3, "stop_round 3 is before start_round 4"),
    ],
)
def test_empty_windows_are_refused(name, start, stop, text):
    with pytest.raises(ValueError, match=text):
        ATTACKS[name](start_round=start, stop_round=stop)


@pytest.mark.parametrize("cls", COLLUSIVE)
def test_collusive_attacks_can_be_told_what_they_know(cls):
    assert cls().knowledge is Knowledge.OMNISCIENT
    assert cls(knowledge="colluding").knowledge is Knowledge.COLLUDING
    for wrong in ("data", "local", "everything", None):
        with pytest.raises(ValueError, match="knowledge must be colluding or omniscient"):
            cls(knowledge=wrong)


@pytest.mark.parametrize("cls", COLLUSIVE)
@pytest.mark.parametrize("kind", ["random", "equal", "zero"])
@pytest.mark.parametrize(("m", "f"), [(1, 1), (1, 4), (2, 1), (7, 1), (7, 3), (3, 5)])
def test_every_byzantine_client_gets_a_finite_upload(cls, m, f, kind):
    x = torch.randn(m, 11, generator=torch.Generator().manual_seed(4))
    x = {"random": x, "equal": x[:1].repeat(m, 1), "zero": torch.zeros_like(x)}[kind]
    if cls is STRIKE and m <= f:
        with pytest.raises(ValueError, match=f"STRIKE needs n - 2f >= 1, got n={m + f}, f={f}"):
            cls().craft(view(x, f, m + f))
        return
    crafted = cls().craft(view(x, f, m + f))
    assert crafted.shape == (f, 11)
    assert torch.isfinite(crafted).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ATTACKS)
def test_a_gpu_gives_the_same_numbers(name):
    attack = ATTACKS[name]()
    x = torch.randn(9, 5000, generator=torch.Generator().manual_seed(6))
    on_gpu = x.cuda()
    if isinstance(attack, CollusiveAttack):
        expected = attack.craft(view(x, 3, 12, previous_aggregate=x[1] + 1))
        got = attack.craft(view(on_gpu, 3, 12, previous_aggregate=on_gpu[1] + 1))
    elif isinstance(attack, LocalAttack):
        expected = attack.corrupt(local_view(x[0]))
        got = attack.corrupt(local_view(on_gpu[0], torch.ones(5000, device="cuda")))
    elif isinstance(attack, TrainingAttack):
        expected, got = (attack.train(training_view(rows[1:], rows[0])) for rows in (x, on_gpu))
    else:
        pytest.skip("works on data")
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_repeated_uploads_share_their_memory():
    g = torch.arange(5.0)
    rows = repeat(g, 4)
    assert rows.tolist() == [g.tolist()] * 4
    assert rows.untyped_storage().data_ptr() == g.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("m", [1, 6])
def test_what_an_attack_is_shown_stays_as_it_was(name, m):
    attack = ATTACKS[name]()
    shown = torch.randn(m, 9, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(m)
    kept = shown.clone(), labels.clone()
    if isinstance(attack, CollusiveAttack):
        attack.craft(view(shown))
    elif isinstance(attack, LocalAttack):
        attack.corrupt(replace(local_view(shown[0]), moments=torch.ones(2, 9)))
    elif isinstance(attack, TrainingAttack):
        attack.train(training_view(shown[1:], shown[0]))
    else:
        assert isinstance(attack, DataAttack)
        attack.poison(shown, labels, 10)
    assert torch.equal(shown, kept[0])
    assert torch.equal(labels, kept[1])


def test_every_attack_is_registered_described_and_needs_no_arguments():
    exported = {getattr(attacks, name) for name in attacks.__all__ if inspect.isclass(getattr(attacks, name))}
    concrete = {cls for cls in exported if issubclass(cls, Attack)}
    concrete -= {Attack, CollusiveAttack, DataAttack, LocalAttack, MaskAttack, TrainingAttack}
    assert {*ATTACKS.values(), *MASK_ATTACKS.values()} == concrete
    for name, cls in {**ATTACKS, **MASK_ATTACKS}.items():
        assert name == cls.__name__.lower()
        summary = str(cls.__doc__).splitlines()[0]
        assert summary.endswith(".")
        assert not summary.startswith(cls.__name__)  # what a dataclass without a docstring gets
        assert isinstance(cls(), cls)
        with pytest.raises(TypeError, match="nonsense"):
            cls(nonsense=1)

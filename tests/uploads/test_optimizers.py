"""Optimizers: their steps, what a step gives away, and who breaks the rule."""

import itertools

import numpy as np
import pytest
import torch

from byzflower.uploads.optimizers import OPTIMIZERS, AdaGrad, Adam, MomentumSGD, Optimizer, RMSProp

# AdaGrad's steps shrink; its usual rate is larger.
ALL = [Adam(), MomentumSGD(), AdaGrad(lr=0.1), RMSProp()]
D = 400


def noise(seed, scale=1.0):
    return torch.randn(D, generator=torch.Generator().manual_seed(seed)) * scale


def start(optimizer):
    return torch.cat([noise(1, 0.3)[None], torch.zeros(len(optimizer.slots), D)])


def reference(optimizer, before, g, t):
    """The papers' formulas, in float64 and one coordinate at a time."""
    out = []
    for column in range(D):
        theta, *moments = (float(v) for v in before[:, column])
        x = float(g[column])
        if optimizer.name == "adam":
            m = optimizer.beta1 * moments[0] + (1 - optimizer.beta1) * x
            v = optimizer.beta2 * moments[1] + (1 - optimizer.beta2) * x * x
            eta = optimizer.lr * (1 - optimizer.beta2**t) ** 0.5 / (1 - optimizer.beta1**t)
            out.append((theta - eta * m / (v + optimizer.eps) ** 0.5, m, v))
        elif optimizer.name == "sgd":
            m = optimizer.momentum * moments[0] + x
            out.append((theta - optimizer.lr * m, m))
        elif optimizer.name == "adagrad":
            r = moments[0] + x * x
            out.append((theta - optimizer.lr * x / (r**0.5 + optimizer.eps), r))
        else:
            r = optimizer.decay * moments[0] + (1 - optimizer.decay) * x * x
            out.append((theta - optimizer.lr * x / (r + optimizer.eps) ** 0.5, r))
    return np.array(out).T


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_a_step_is_the_papers(optimizer):
    state = start(optimizer)
    for t in range(1, 4):
        g = noise(t + 10)
        after = optimizer.step(state, g, t)
        np.testing.assert_allclose(after.numpy(), reference(optimizer, state, g, t), rtol=2e-5, atol=1e-7)
        state = after


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_the_gradient_is_recovered_also_after_a_thousand_rounds(optimizer):
    state = start(optimizer)
    for t in range(1, 1001):
        g = noise(t + 10) + 0.2
        after = optimizer.step(state, g, t)
        if t in (1, 10, 1000):
            recovered = optimizer.recover(state, after)
            assert (recovered - g).norm() <= 1e-5 * g.norm()
            assert optimizer.obeyed(state, after, t, 1e-4).all()
        state = after


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_an_untouched_coordinate_gives_exactly_zero(optimizer):
    state = start(optimizer)
    for t in range(1, 5):
        state = optimizer.step(state, noise(t), t)
    after = optimizer.step(state, torch.zeros(D), 5)
    assert torch.equal(after, optimizer.step(state, torch.zeros(()), 5))
    recovered = optimizer.recover(state, after)
    assert (recovered == 0).all()
    assert optimizer.obeyed(state, after, 5, 1e-4).all()


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_every_honest_state_of_two_hundred_rounds_is_accepted(optimizer):
    state = start(optimizer)
    for t in range(1, 201):
        g = noise(t) * 10.0 ** (t % 7 - 3)  # far below and above their moments
        g[::3] = 0
        after = optimizer.step(state, g, t)
        assert optimizer.obeyed(state, after, t, 1e-4).all(), t
        state = after


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_one_coordinate_that_no_gradient_explains_is_found(optimizer):
    state = start(optimizer)
    for t in range(1, 31):
        g = noise(t)
        g = g.sign() * (0.5 + g.abs())
        after = optimizer.step(state, g, t)
        for slot in range(len(after)):
            lie = after.clone()
            lie[slot, t] += (after - state)[slot, t]  # twice the honest change
            if t == 1 and slot == 1 and optimizer.name in ("adagrad", "rmsprop"):
                continue  # from r' = 0 the first step has one length, whatever the gradient's size
            assert optimizer.obeyed(state, lie, t, 1e-4).logical_not().nonzero().tolist() == [[t]], (t, slot)
        state = after


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e38])
def test_impossible_moments_are_not_obeyed(optimizer, value):
    state = optimizer.step(start(optimizer), noise(3), 1)
    after = optimizer.step(state, noise(4), 2)
    after[-1, 5] = value if optimizer.name != "sgd" else np.nan
    assert not optimizer.obeyed(state, after, 2, 1e-4)[5]


def magnitudes(dtype):
    """Powers of ten over all of the type's range, of both signs, and what is no number."""
    limits = torch.finfo(dtype)
    every = 2 if dtype == torch.float32 else 13
    exponents = np.arange(np.log10(limits.smallest_normal) - 7, np.log10(limits.max) + 1, every)
    sizes = torch.tensor([*10.0**exponents, 0, limits.max, torch.inf, torch.nan], dtype=dtype)
    return torch.cat([sizes, -sizes])


def hostile_states(optimizer, before, benign):
    """States (depth, ...) in which any two values, or all of them, are of any magnitude."""
    any_size = magnitudes(before.dtype)
    for gradient in (any_size, 0.2 + 0.01 * torch.arange(len(any_size)).to(before)):
        yield optimizer.step(before[:, None], gradient, 4)[:, None]
    for first, second in itertools.combinations(range(len(before)), 2):
        after = benign[:, None, None].repeat(1, len(any_size), len(any_size))
        after[first], after[second] = any_size[:, None], any_size
        yield after
        nearby = after.clone()
        nearby[first] += before[first]
        yield nearby
        for gradient in (any_size, benign[0] * any_size):  # consistent but for one value
            after = optimizer.step(before[:, None], gradient, 4)[:, None].repeat(1, len(any_size), 1)
            after[first] = any_size[:, None]
            yield after


def longest_step(optimizer, before, gradient):
    """How far a step by a gradient, or by any, can move theta."""
    if optimizer.name == "sgd":
        return optimizer.lr * (optimizer.momentum * before[1].abs() + gradient.abs())
    if optimizer.name == "adagrad":
        return torch.full_like(gradient, optimizer.lr)
    if optimizer.name == "rmsprop":
        return torch.full_like(gradient, optimizer.lr / (1 - optimizer.decay) ** 0.5)
    old = optimizer.beta1 * before[1].abs() / (optimizer.beta2 * before[2] + optimizer.eps).sqrt()
    new = (1 - optimizer.beta1) / (1 - optimizer.beta2) ** 0.5
    return optimizer.rate(4) * (old + new) * torch.ones_like(gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("theta", [0.0, 1.0, -1e4, 1e8, 1e15])
@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_theta_moves_no_farther_than_a_step_by_the_gradient_that_is_seen(optimizer, theta, dtype):
    before = optimizer.step(torch.zeros(1 + len(optimizer.slots), 1, dtype=dtype), 0.3, 1)[:, 0]
    before[0] = theta
    benign = optimizer.step(before, 0.2, 4)
    seen = 0
    for after in hostile_states(optimizer, before, benign):
        start = before.view(-1, 1, 1).expand_as(after)
        gradient = optimizer.recover(start, after)
        accepted = optimizer.obeyed(start, after, 4, 1e-4) & gradient.isfinite()
        rounding = 8 * torch.finfo(dtype).eps * before[0].abs() + 2 * torch.finfo(dtype).tiny
        allowed = longest_step(optimizer, start, gradient) * (1 + 1e-3) + rounding
        moved = (after[0] - before[0]).abs()
        assert (moved <= allowed)[accepted].all()
        seen += int(accepted.sum())
    assert seen > 40  # and states that are as they should be are among them


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("theta", [0.0, 1.0, -1e4, 1e8, 1e15])
@pytest.mark.parametrize("optimizer", [AdaGrad(lr=0.1), RMSProp()], ids=lambda o: o.name)
def test_a_square_that_grew_is_seen_in_the_gradient_also_where_theta_cannot_show_it(optimizer, theta, dtype):
    before = torch.tensor([theta, 0.25], dtype=dtype)
    share = 1 - optimizer.decay if optimizer.name == "rmsprop" else 1.0
    kept = optimizer.step(before, 0.0, 4)[1]
    for after in hostile_states(optimizer, before, optimizer.step(before, 0.2, 4)):
        start = before.view(-1, 1, 1).expand_as(after)
        gradient = optimizer.recover(start, after)
        accepted = optimizer.obeyed(start, after, 4, 1e-4) & gradient.isfinite()
        grown = (after[1] - kept) / share
        visible = accepted & (grown > 1e-2 * before[1])
        assert (gradient.square() >= 0.99 * grown)[visible].all()


def test_an_epsilon_beside_which_squares_vanish_is_refused():
    for make, least in ((AdaGrad, 1e-19), (RMSProp, 1e-38), (Adam, 1e-38)):
        make(eps=2 * least)
        with pytest.raises(ValueError, match=r"eps must be at least 1\.\d+e-(19|38), got"):
            make(eps=least)


def torch_steps(make, gradients, theta):
    parameter = torch.nn.Parameter(theta.clone())
    optimizer = make([parameter])
    for g in gradients:
        parameter.grad = g.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MomentumSGD(lr=0.05, momentum=0.8), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8)),
        (MomentumSGD(lr=0.05, momentum=0.0), lambda p: torch.optim.SGD(p, lr=0.05)),
        (AdaGrad(lr=0.05, eps=1e-10), lambda p: torch.optim.Adagrad(p, lr=0.05, eps=1e-10)),
        (Adam(eps=1e-30), lambda p: torch.optim.Adam(p, eps=1e-30)),  # eps elsewhere, so none to speak of
        (RMSProp(decay=0.99, eps=1e-30), lambda p: torch.optim.RMSprop(p, lr=1e-3, alpha=0.99, eps=1e-30)),
    ],
    ids=["momentum", "sgd", "adagrad", "adam", "rmsprop"],
)
def test_steps_are_torchs_where_the_formulas_coincide(ours, theirs):
    gradients = [noise(t) for t in range(30)]
    state = start(ours)
    for t, g in enumerate(gradients, 1):
        state = ours.step(state, g, t)
    torch.testing.assert_close(state[0], torch_steps(theirs, gradients, start(ours)[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_optimizer_travels_in_a_config(name):
    optimizer = OPTIMIZERS[name](lr=0.25)
    assert Optimizer.from_config(optimizer.to_config(7)) == (optimizer, 7)


def test_options_are_checked():
    for options, text in (({"lr": 0}, "lr must be positive, got 0"), ({"beta1": 1}, "beta1 must be in")):
        with pytest.raises(ValueError, match=text):
            Adam(**options)
    with pytest.raises(ValueError, match=r"eps must be positive, got nan"):
        AdaGrad(eps=float("nan"))
    with pytest.raises(ValueError, match=r"unknown optimizer 'lion' \(known: adam, sgd, adagrad, rmsprop\)"):
        Optimizer.from_config({"optimizer": "lion"})

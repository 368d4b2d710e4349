"""Search for the strength of an attack that harms the server's own rule most."""

import math
from collections.abc import Callable

import torch

from byzflower.attacks.base import AttackView, repeat
from byzflower.numerics.reductions import squared_norms


def most_harmful(
    view: AttackView, mu: torch.Tensor, upload: Callable[[float], torch.Tensor], evaluations: int
) -> torch.Tensor:
    """Return the uploads (f, d) of the strength that drives the aggregate farthest from mu.

    Args:
        view: of the round; its `aggregate` is tried.
        mu: (d,) benign mean.
        upload: makes a (d,) upload from a strength of at least 0.
        evaluations: how often the rule may be tried.

    Raises:
        ValueError: the server's rule is not known.
    """
    rule = view.aggregate
    if rule is None:
        raise ValueError(
            "the optimal attacks try the server's own rule: they need knowledge=omniscient "
            "and a strategy of byzflower that looks at gradients"
        )

    def harm(strength: float) -> float:
        error = rule(repeat(upload(strength), view.num_byzantine)) - mu
        harm = float(squared_norms(error[None]))
        return harm if math.isfinite(harm) else 0.0

    return repeat(upload(largest(harm, evaluations)), view.num_byzantine)


def largest(value: Callable[[float], float], evaluations: int) -> float:
    """Search a good maximum of a function on [0, inf): double the step while that helps, then halve it.

    A rule that detects an attack from some strength on makes a function that climbs and then drops: the
    search stays on the climbing side. It may find a local maximum.

    Args:
        value: the function.
        evaluations: how often it may be called, at least 1.
    """
    best, most, left = 0.0, value(0.0), evaluations - 1
    step, growing = 1.0, True
    while left > 0:
        ways = (1,) if growing or step > best else (1, -1)
        for way in ways[:left]:
            strength = best + way * step
            harm, left = value(strength), left - 1
            if harm > most:
                best, most = strength, harm
                break
        else:
            growing = False
        step *= 2 if growing else 0.5
    return best

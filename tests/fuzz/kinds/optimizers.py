"""One step of each optimizer of moments uploads, and how far a claimed state is from any step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SLOTS = {"adam": ("m", "v"), "sgd": ("m",), "adagrad": ("r",), "rmsprop": ("r",)}
_TOLERANCE = 1e-4
Config = Mapping[str, Any]


def step(config: Config, before: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The state (depth, d) after a step by a gradient (d,), in the precision of `before`."""
    kind = before.dtype.type
    theta, first = before[0], before[1]
    g = gradient.astype(kind)
    lr = kind(config["lr"])
    with np.errstate(all="ignore"):
        if config["optimizer"] == "adam":
            b1, b2 = kind(config["beta1"]), kind(config["beta2"])
            m = b1 * first + (1 - b1) * g
            v = b2 * before[2] + (1 - b2) * (g * g)
            return np.stack([theta - kind(_rate(config)) * (m / np.sqrt(v + kind(config["eps"]))), m, v])
        if config["optimizer"] == "sgd":
            m = kind(config["momentum"]) * first + g
            return np.stack([theta - lr * m, m])
        if config["optimizer"] == "adagrad":
            r = first + g * g
            return np.stack([theta - lr * (g / (np.sqrt(r) + kind(config["eps"]))), r])
        decay = kind(config["decay"])
        r = decay * first + (1 - decay) * (g * g)
        return np.stack([theta - lr * (g / np.sqrt(r + kind(config["eps"]))), r])


def disobedience(config: Config, before: np.ndarray, after: np.ndarray, eps: float) -> float:
    """The largest error of a state by the update rule, in multiples of what a benign client may show.

    Args:
        config: the optimizer and its parameters.
        before: (depth, c) float64, what was broadcast.
        after: (depth, c) float64, what a client claims.
        eps: of the type that it was uploaded in.

    Returns:
        At most about 1 for benign clients; infinite where no state is real.
    """
    if not before.size:
        return 0.0
    u = 8 * eps
    with np.errstate(all="ignore"):
        errors, allowed = _errors(config, before, after, u)
        ratio = np.abs(errors) / (allowed + 1e-37)
    return float(np.nan_to_num(ratio, nan=np.inf).max())


def _errors(config: Config, before: np.ndarray, after: np.ndarray, u: float) -> tuple[np.ndarray, np.ndarray]:
    name, lr = config["optimizer"], float(config["lr"])
    theta0, first0 = before[0], before[1]
    theta, first = after[0], after[1]
    if name == "sgd":
        moved = lr * first
        return theta - (theta0 - moved), _TOLERANCE * np.abs(moved) + u * (np.abs(theta0) + np.abs(moved))
    if name == "adam":
        b1, b2 = float(config["beta1"]), float(config["beta2"])
        g = (first - b1 * first0) / (1 - b1)
        unsure = u * (np.abs(first) + np.abs(first0)) / (1 - b1)
        moved = _rate(config) * first / np.sqrt(after[2] + float(config["eps"]))
        second = _square(after[2], b2 * before[2], 1 - b2, g, unsure, u)
        error, allowed = theta - (theta0 - moved), _TOLERANCE * np.abs(moved) + u * np.abs(theta0)
        return np.stack([second[0], error]), np.stack([second[1], allowed + u * np.abs(moved)])
    root = np.sqrt(first) + float(config["eps"])
    kept, share = first0, 1.0
    if name == "rmsprop":
        root = np.sqrt(first + float(config["eps"]))
        kept, share = float(config["decay"]) * first0, 1 - float(config["decay"])
    g = (theta0 - theta) * root / lr
    unsure = u * (np.abs(theta0) + np.abs(theta)) * root / lr
    return _square(first, kept, share, g, unsure, u)


def _square(
    actual: np.ndarray, kept: np.ndarray, share: float, g: np.ndarray, unsure: np.ndarray, u: float
) -> tuple[np.ndarray, np.ndarray]:
    """Error of a moment that is what was kept and a share of g squared, and what is allowed."""
    change = share * g * g
    allowed = _TOLERANCE * change + u * (np.abs(kept) + change)
    return actual - kept - change, allowed + share * (2 * np.abs(g) * unsure + unsure * unsure)


def _rate(config: Config) -> float:
    b1, b2, t = float(config["beta1"]), float(config["beta2"]), int(config["optimizer-step"])
    return float(float(config["lr"]) * np.sqrt(1 - b2**t) / (1 - b1**t))

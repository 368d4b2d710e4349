"""How far an upload can go in one direction and stay close to the benign ones."""

import torch


def largest_step(norm: float, products: torch.Tensor, slack: torch.Tensor) -> float:
    """Return the largest t >= 0 with t^2 norm - 2 t products_i <= slack_i for all i.

    That is, ||t s - c_i||^2 <= bound_i for norm = ||s||^2, products_i = <s, c_i> and
    slack_i = bound_i - ||c_i||^2, each a quadratic with one root at or above 0.

    Args:
        norm: squared norm of the direction; 0 gives the step 0.
        products: float64 (k,).
        slack: float64 (k,); below 0 (by rounding) counts as 0.
    """
    if norm <= 0:
        return 0.0
    slack = slack.clamp(min=0)
    root = (products.square() + norm * slack).sqrt()
    # Each case without the difference of two nearly equal numbers.
    steps = torch.where(
        products >= 0,
        (root + products) / norm,
        slack / (root - products).clamp(min=torch.finfo(root.dtype).tiny),
    )
    return float(steps.min())

"""ROP-S: the perturbation concentrated in the few parameters that matter most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from byzflower.attacks.base import AttackView, TensorColumns
from byzflower.attacks.rop import ROP, perturbation


def sensitive_columns(tensors: Sequence[TensorColumns]) -> torch.Tensor:
    """Columns of the first and last layers, all normalisation parameters and all biases.

    Told by shape, which needs no names: biases and normalisation parameters have at most one dimension,
    the first and last layers' weights are the first and last tensors with more.

    Raises:
        ValueError: no tensors.
    """
    if not tensors:
        raise ValueError("ROP-S needs to know the model's tensors")
    small = [tensor for tensor in tensors if len(tensor.shape) <= 1]
    large = [tensor for tensor in tensors if len(tensor.shape) > 1]
    chosen = {tensor.columns.start: tensor.columns for tensor in [*small, *large[:1], *large[-1:]]}
    return torch.cat([torch.arange(c.start, c.stop) for _, c in sorted(chosen.items())])


@dataclass(frozen=True, kw_only=True)
class ROPSparse(ROP):
    """Byzantine clients run ROP on biases, normalisation and the first and last layers only (ROP-S).

    On the k chosen coordinates (`sensitive_columns`) the perturbation is (d / k) z p, with p computed
    and normalised there; elsewhere it is 0 (Ozfatura et al., equation 20).
    """

    def perturb(self, reference: torch.Tensor, view: AttackView) -> torch.Tensor:
        """Return what to add to m~: (d,) -> (d,)."""
        chosen = sensitive_columns(view.tensors).to(reference.device)
        scale = len(reference) / len(chosen) * self.z
        sparse = torch.zeros_like(reference)
        sparse[chosen] = perturbation(reference[chosen], self.angle).mul_(scale)
        return sparse

"""What attacks are shown, made by hand."""

import torch

from byzflower.attacks import AttackView, LocalView, TensorColumns


def view(benign, num_byzantine=3, num_clients=10, **known):
    """One round of an adversary, with a rule that follows the first attacker."""
    known.setdefault("tensors", tensors_of(benign.shape[1]))
    known.setdefault("aggregate", lambda crafted: crafted[0])
    known.setdefault("previous_aggregate", None)
    known.setdefault("round", 1)
    known.setdefault("generator", torch.Generator().manual_seed(0))
    return AttackView(benign, num_byzantine, num_clients, **known)


def local_view(gradient, model=None, tensors=None, seed=0):
    """One round of a Byzantine client."""
    d = len(gradient)
    model = torch.ones(d) if model is None else model
    return LocalView(gradient, model, tensors or tensors_of(d), torch.Generator().manual_seed(seed))


def tensors_of(d):
    """A matrix and its bias."""
    return (TensorColumns("w", (d - 1, 1), slice(0, d - 1)), TensorColumns("b", (1,), slice(d - 1, d)))

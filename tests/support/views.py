"""What attacks are shown, made by hand."""

import torch

from byzflower.attacks import AttackView, LocalView, TensorColumns, TrainingView


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


def training_view(points, model=None, steps=0.1, memory=None, **known):
    """One round of a Byzantine client that descends |w - x|^2 / 2 for each of some points x."""
    model = torch.ones(points.shape[1]) if model is None else model

    def gradient(parameters, batch):
        return parameters - batch[0]

    def fit(batches, *, alter=None, project=None):
        learned = torch.zeros_like(model)
        for batch in batches:
            slope = gradient(model - learned, batch)
            learned = learned + steps * (slope if alter is None else alter(slope))
            learned = learned if project is None else project(learned)
        return learned

    return TrainingView(
        **{"round": 1, "client": 0, "moments": torch.empty(0, 0), "tensors": tensors_of(len(model)), **known},
        model=model,
        generator=torch.Generator().manual_seed(0),
        memory={} if memory is None else memory,
        batches=lambda: [(point, torch.tensor(0)) for point in points],
        gradient=gradient,
        fit=fit,
    )


def tensors_of(d):
    """A matrix and its bias."""
    return (TensorColumns("w", (d - 1, 1), slice(0, d - 1)), TensorColumns("b", (1,), slice(d - 1, d)))

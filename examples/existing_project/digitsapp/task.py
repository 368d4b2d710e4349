"""The app's model, data and training: nothing in here knows of byzflower."""

import torch
from flwr_datasets.partitioner import IidPartitioner
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from datasets import Dataset

TEST = 360


def make_model() -> nn.Module:
    """A two-layer network for 8x8 digits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def load_data(partition: int, partitions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One client's share of the training digits."""
    digits = load_digits()
    partitioner = IidPartitioner(num_partitions=partitions)
    partitioner.dataset = Dataset.from_dict({"x": digits.data[TEST:] / 16, "y": digits.target[TEST:]})
    own = partitioner.load_partition(partition).with_format("torch")
    return own["x"][:].float(), own["y"][:]


def load_test_data() -> tuple[torch.Tensor, torch.Tensor]:
    """Digits that no client has."""
    digits = load_digits()
    return torch.tensor(digits.data[:TEST] / 16).float(), torch.tensor(digits.target[:TEST])


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int = 3, lr: float = 0.5) -> float:
    """Train in place; returns the last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(epochs):
        for start in range(0, len(y), 32):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[start : start + 32]), y[start : start + 32])
            loss.backward()
            optimizer.step()
    return float(loss.detach())


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the digits that are recognised."""
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).float().mean())

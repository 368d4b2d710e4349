"""Models by name: classifiers and recommenders."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from byzflower.plugins import Registry, export_lazily

if TYPE_CHECKING:
    from torch import nn

    from byzflower.models.alexnet import AlexNet
    from byzflower.models.build import build_model
    from byzflower.models.cnn import CNN
    from byzflower.models.gnn import GNN
    from byzflower.models.leaf_cnn import LeafCNN
    from byzflower.models.mf import MF
    from byzflower.models.mlp import MLP
    from byzflower.models.resnet import ResNet18, ResNet20
    from byzflower.models.resnet9 import ResNet9
    from byzflower.models.stateless import StatelessRecommender

export_lazily(__name__)

MODELS: Registry[Callable[..., "nn.Module"]] = Registry(
    "model",
    "byzflower.models",
    {
        "alexnet": "byzflower.models.alexnet:AlexNet",
        "cnn": "byzflower.models.cnn:CNN",
        "leafcnn": "byzflower.models.leaf_cnn:LeafCNN",
        "mlp": "byzflower.models.mlp:MLP",
        "resnet18": "byzflower.models.resnet:ResNet18",
        "resnet20": "byzflower.models.resnet:ResNet20",
        "resnet9": "byzflower.models.resnet9:ResNet9",
    },
)
# Recommenders that know a user by its items alone. Their clients take a step of the server's optimizer and
# upload moments (`byzflower.clients.recommender.moments`).
STATELESS: Registry[Callable[..., "StatelessRecommender"]] = Registry(
    "recommender without users' state",
    "byzflower.stateless_recommenders",
    {
        "fism": "byzflower.models.fism:FISM",
        "fmf": "byzflower.models.fmf:FMF",
    },
)

# Recommenders with an embedding per user that never leaves the client, who uploads gradients of the items
# (`byzflower.clients.recommender.client`).
PERSONAL: Registry[Callable[..., "MF | GNN"]] = Registry(
    "personal recommender",
    "byzflower.personal_recommenders",
    {
        "gnn": "byzflower.models.gnn:GNN",
        "mf": "byzflower.models.mf:MF",
    },
)

__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "PERSONAL",
    "STATELESS",
    "AlexNet",
    "LeafCNN",
    "ResNet9",
    "ResNet18",
    "ResNet20",
    "build_model",
]

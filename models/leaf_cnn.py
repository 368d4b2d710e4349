"""The convolutional network of LEAF's FEMNIST (Caldas et al., 2018)."""

from torch import nn


class LeafCNN(nn.Sequential):
    """LEAF's network for FEMNIST: 6,603,710 parameters on 28 x 28 grey images with 62 classes.

    Two padded 5 x 5 convolutions (32 and 64 channels), each max-pooled by 2, then 2048 hidden units.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int):
        channels, height, width = input_shape
        super().__init__(
            *(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 2048), nn.ReLU()),
            nn.Linear(2048, num_classes),
        )

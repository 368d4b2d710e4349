"""The small convolutional network of the robustness literature."""

import torch
from torch import nn
from torch.nn import functional as F


class CNN(nn.Module):
    """Two convolutions (20 and 50 channels, 5 x 5), each max-pooled by 2, then 500 hidden units.

    431,080 parameters on 28 x 28 grey images with 10 classes. Images smaller than 16 pixels keep their
    size through padded 3 x 3 convolutions.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int):
        super().__init__()
        channels, height, width = input_shape
        kernel, padding = (5, 0) if min(height, width) >= 16 else (3, 1)
        self.conv1 = nn.Conv2d(channels, 20, kernel, padding=padding)
        self.conv2 = nn.Conv2d(20, 50, kernel, padding=padding)

        def pooled(size: int) -> int:
            for _ in range(2):
                size = (size + 2 * padding - kernel + 1) // 2
            return size

        self.hidden = nn.Linear(50 * pooled(height) * pooled(width), 500)
        self.output = nn.Linear(500, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits: (b, c, h, w) -> (b, num_classes)."""
        x = torch.relu(F.max_pool2d(self.conv1(x), 2))  # pooling first leaves a quarter to ReLU
        x = torch.relu(F.max_pool2d(self.conv2(x), 2))
        logits: torch.Tensor = self.output(torch.relu(self.hidden(x.flatten(1))))
        return logits

"""AlexNet (Krizhevsky et al., 2017), in the form that is common for small images."""

from torch import nn


class AlexNet(nn.Sequential):
    """AlexNet for small images: 2,472,266 parameters on 3 x 32 x 32 images with 10 classes.

    Its five convolutions with a linear layer on top instead of three: the papers name AlexNet on CIFAR-10
    without details, and the original does not take images below 63 pixels.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int):
        channels, height, width = input_shape

        def pooled(size: int) -> int:
            size = (size - 1) // 4 + 1
            for _ in range(3):
                size = (size + 1) // 2
            return size

        def pool() -> nn.Module:
            return nn.MaxPool2d(2, ceil_mode=True)

        super().__init__(
            *(nn.Conv2d(channels, 64, 11, 4, 5), nn.ReLU(), pool()),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool()),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), pool()),
            *(nn.Flatten(), nn.Linear(256 * pooled(height) * pooled(width), num_classes)),
        )

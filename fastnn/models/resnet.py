"""Residual networks (He et al. 2015)."""

from fastnn.functional.checks import check_flag
from fastnn.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Residual,
    Sequential,
)

__all__ = ["ResNet18"]

STAGES = (64, 128, 256, 512)  # channels; two blocks each, the first of all but the first stage halves the image


class ResNet18(Sequential):
    """Eight residual blocks of two 3x3 convolutions.

    Parameters
    ----------
    num_classes, in_channels : int
    small_images : bool
        For images of 32x32 as CIFAR has: a first convolution of 3x3, and no pool after it, in place of one of 7x7 with
        stride 2 and a pool.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import ResNet18
    >>> ResNet18(num_classes=10, small_images=True)(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(self, num_classes=1000, in_channels=3, small_images=False):
        first = STAGES[0]
        layers: dict[str, Module]
        if check_flag("ResNet18", "small_images", small_images):
            layers = {"conv1": Conv2d(in_channels, first, 3, padding=1, bias=False)}
        else:
            layers = {"conv1": Conv2d(in_channels, first, 7, stride=2, padding=3, bias=False)}
        layers |= {"bn1": BatchNorm2d(first), "relu": ReLU()}
        if not small_images:
            layers["maxpool"] = MaxPool2d(3, stride=2, padding=1)
        channels = first
        for i, outputs in enumerate(STAGES, 1):
            layers[f"layer{i}"] = Sequential(block(channels, outputs, 1 if i == 1 else 2), block(outputs, outputs, 1))
            channels = outputs
        layers |= {"avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten(), "fc": Linear(channels, num_classes)}
        super().__init__(layers)


def block(channels, outputs, stride):
    """Two convolutions beside a shortcut, and a ReLU."""
    body = Sequential(
        {
            "conv1": Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False),
            "bn1": BatchNorm2d(outputs),
            "relu": ReLU(),
            "conv2": Conv2d(outputs, outputs, 3, padding=1, bias=False),
            "bn2": BatchNorm2d(outputs),
        }
    )
    shortcut = None
    if stride != 1 or channels != outputs:
        shortcut = Sequential(Conv2d(channels, outputs, 1, stride=stride, bias=False), BatchNorm2d(outputs))
    return Sequential(Residual(body, shortcut), ReLU())

"""The networks whose training steps `python -m fastnn bench steps` times, and what a step is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastnn import models

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Net:
    """`build()` makes the model for images of `shape` (C, H, W), `batch` at a time; `random` where it drops units."""

    name: str
    build: Callable
    batch: int
    shape: tuple[int, int, int]
    classes: int = 10
    random: bool = False

    def arrays(self):
        """Random images and labels."""
        rng = np.random.default_rng(0)
        images = rng.standard_normal((self.batch, *self.shape), dtype=np.float32)
        return images, rng.integers(0, self.classes, self.batch)

    def __str__(self):
        return f"{self.name}, batch {self.batch}"


GREY, COLOUR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)
NETS = [
    Net("mlp", partial(models.MLP, 784, 512, 512, 10), 64, GREY),
    Net("mlp", partial(models.MLP, 784, 512, 512, 10), 512, GREY),
    Net("lenet", partial(models.LeNet5, input_size=28), 64, GREY),
    Net("course", models.ThreeLayerConvNet, 100, COLOUR),
    Net("vgg-cifar", models.VGG, 64, COLOUR),
    Net("resnet18-cifar", partial(models.ResNet18, 10, small_images=True), 32, COLOUR),
    Net("alexnet", models.AlexNet, 8, IMAGENET, 1000, random=True),
    Net("resnet18", models.ResNet18, 8, IMAGENET, 1000),
]

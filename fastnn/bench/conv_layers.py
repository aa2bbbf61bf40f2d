"""The layers of `python -m fastnn bench conv`: convolutions of well-known networks."""

from dataclasses import dataclass, replace

import numpy as np

from fastnn.conv_algorithm import choose
from fastnn.native import runtime


@dataclass(frozen=True)
class Layer:
    """A conv2d with bias: square images, filters, strides and padding."""

    network: str
    images: int
    channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int
    padding: int

    @property
    def name(self):
        return (
            f"{self.network} N{self.images} C{self.channels} K{self.out_channels} {self.size}x{self.size} "
            f"{self.kernel}x{self.kernel}/{self.stride} p{self.padding}"
        )

    @property
    def geometry(self):
        """(N, C, K, H, R, stride, padding)."""
        return (
            self.images,
            self.channels,
            self.out_channels,
            self.size,
            self.kernel,
            self.stride,
            self.padding,
        )

    @property
    def out_size(self):
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def flops(self):
        """Of one pass by the direct formula, whichever algorithm computes it; the backward is two passes."""
        taps = self.channels * self.kernel**2
        return 2.0 * self.images * self.out_channels * self.out_size**2 * taps

    @property
    def algorithms(self):
        """Of the forward, the gradient of the input and that of the weight."""
        n, c, k = self.images, self.channels, self.out_channels
        inside, outside = (self.size,) * 2, (self.out_size,) * 2
        rest = (self.kernel,) * 2, (self.stride,) * 2, (1, 1), 1, runtime.lanes(np.float32)
        return (
            choose("conv", n, c, k, outside, *rest),
            choose("conv_input_grad", n, k, c, inside, *rest),
            choose("conv_weight_grad", n, c, k, outside, *rest),
        )


LAYERS = [
    Layer("lenet", 64, 1, 6, 32, 5, 1, 0),
    Layer("lenet", 64, 6, 16, 14, 5, 1, 0),
    Layer("course", 100, 3, 32, 32, 7, 1, 3),
    Layer("cifar", 64, 3, 64, 32, 3, 1, 1),
    Layer("cifar", 64, 64, 64, 32, 3, 1, 1),
    Layer("cifar", 64, 128, 128, 16, 3, 1, 1),
    Layer("cifar", 64, 256, 256, 8, 3, 1, 1),
    Layer("resnet18", 8, 3, 64, 224, 7, 2, 3),
    Layer("resnet18", 8, 64, 64, 56, 3, 1, 1),
    Layer("resnet18", 8, 64, 128, 56, 3, 2, 1),
    Layer("resnet18", 8, 128, 128, 28, 3, 1, 1),
    Layer("resnet18", 8, 256, 256, 14, 3, 1, 1),
    Layer("resnet18", 8, 512, 512, 7, 3, 1, 1),
    Layer("resnet18", 8, 64, 128, 56, 1, 2, 0),
    Layer("resnet50", 8, 256, 64, 56, 1, 1, 0),
    Layer("alexnet", 8, 3, 96, 227, 11, 4, 0),
    Layer("alexnet", 8, 96, 256, 27, 5, 1, 2),
    Layer("vgg16", 4, 64, 64, 224, 3, 1, 1),
    Layer("vgg16", 4, 512, 512, 28, 3, 1, 1),
]

# Those that the costs in conv_algorithm.py were fitted to as well: smaller and larger ones, other filters.
FITTED = [
    Layer("fitted", *geometry)
    for geometry in (
        (64, 32, 32, 32, 3, 1, 1),
        (64, 16, 16, 32, 3, 1, 1),
        (64, 8, 8, 32, 3, 1, 1),
        (3, 256, 256, 8, 3, 1, 1),
        (2, 256, 256, 8, 3, 1, 1),
        (2, 512, 512, 7, 3, 1, 1),
        (8, 64, 64, 28, 7, 1, 3),
        (1, 64, 64, 28, 7, 1, 3),
        (8, 64, 64, 28, 4, 1, 1),
        (8, 64, 64, 56, 2, 1, 1),
        (16, 20, 50, 12, 5, 1, 0),
        (1, 32, 64, 14, 5, 1, 2),
        (8, 32, 32, 28, 5, 1, 2),
        (8, 48, 48, 27, 5, 1, 2),
        (8, 128, 128, 14, 5, 1, 2),
        (1, 256, 256, 14, 7, 1, 3),
        (64, 32, 64, 8, 5, 1, 2),
        (32, 16, 32, 9, 5, 1, 0),
        (32, 3, 32, 32, 5, 1, 2),
        (8, 3, 16, 224, 7, 2, 3),
        (32, 64, 64, 13, 5, 2, 2),
        (32, 16, 64, 32, 4, 2, 1),
        (8, 128, 256, 28, 3, 2, 1),
        (8, 256, 512, 14, 3, 2, 1),
        (1, 512, 512, 14, 3, 2, 1),
        (8, 64, 64, 28, 1, 1, 0),
        (1, 256, 512, 28, 1, 2, 0),
    )
]

# Batches that a layer is timed at: its own, a single image, or first all at their own and then all at one image.
BATCHES = {
    "original": LAYERS,
    "1": [replace(layer, images=1) for layer in LAYERS],
}
BATCHES["both"] = BATCHES["original"] + BATCHES["1"]


def parse_geometry(text):
    """The layer that numbers N,C,K,H,R,stride,padding describe; ValueError with what is wrong about them."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 7:
        raise ValueError(f"must be seven whole numbers N,C,K,H,R,stride,padding like 8,64,64,56,3,1,1, got {text!r}")
    if min(numbers[:6]) < 1 or numbers[6] < 0:
        raise ValueError(f"must be numbers from 1 up, and a padding from 0 up, got {text!r}")
    layer = Layer("given", *numbers)
    if layer.out_size < 1:
        raise ValueError(
            f"has a filter of {layer.kernel}x{layer.kernel}, larger than the padded image of "
            f"{layer.size + 2 * layer.padding}, in {text!r}"
        )
    return layer


def select(batch, words):
    """The layers at this batch with one of these words in their names; all, where there is no word."""
    return [layer for layer in BATCHES[batch] if not words or any(word in layer.name for word in words)]

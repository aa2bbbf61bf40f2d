"""Fully connected networks."""

from itertools import pairwise

from fastnn.functional.checks import check_integer
from fastnn.nn import Flatten, Linear, Module, ReLU, Sequential

__all__ = ["MLP"]


class MLP(Sequential):
    """Linear layers with ReLU between them; images are flattened first.

    Parameters
    ----------
    *sizes : int
        Features of the input, of each hidden layer, and of the output.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import MLP
    >>> MLP(784, 512, 512, 10)(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    """

    def __init__(self, *sizes):
        if len(sizes) < 2:
            raise ValueError(f"MLP: sizes must be at least those of the input and the output, got {sizes}")
        for size in sizes:
            check_integer("MLP", "sizes", size, 1)
        layers: dict[str, Module] = {"flatten": Flatten()}
        for i, (inputs, outputs) in enumerate(pairwise(sizes), 1):
            if i > 1:
                layers[f"relu{i - 1}"] = ReLU()
            layers[f"fc{i}"] = Linear(inputs, outputs)
        super().__init__(layers)

"""Elementwise activations and their gradients."""

import numpy as np

__all__ = ["relu", "relu_backward"]


def relu(x):
    return np.maximum(x, 0)


def relu_backward(grad_output, x):
    return np.where(x > 0, grad_output, 0)

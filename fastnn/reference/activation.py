"""Elementwise activations and their gradients."""

import math

import numpy as np

__all__ = [
    "add",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "prelu",
    "prelu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]


def add(a, b, relu):
    """a + b, or its ReLU."""
    return np.maximum(a + b, 0) if relu else a + b


def relu(x):
    return np.maximum(x, 0)


def relu_backward(grad_output, x):
    return np.where(x <= 0, 0, grad_output)


def leaky_relu(x, slope):
    return np.where(x > 0, x, slope * x)


def leaky_relu_backward(grad_output, x, slope):
    return np.where(x > 0, grad_output, slope * grad_output)


def prelu(x, weight):
    return np.where(x > 0, x, slopes_along_channels(x, weight) * x)


def prelu_backward(grad_output, x, weight):
    grad_input = np.where(x > 0, grad_output, slopes_along_channels(x, weight) * grad_output)
    grad_slopes = np.where(x > 0, 0, grad_output * x)
    if weight.size != 1:
        grad_weight = grad_slopes.sum(axis=tuple(axis for axis in range(x.ndim) if axis != 1))
    else:
        grad_weight = grad_slopes.sum().reshape(1)
    return grad_input, grad_weight


def slopes_along_channels(x, weight):
    return weight.reshape(-1, *[1] * (x.ndim - 2)) if weight.size != 1 else weight[0]


def elu(x, alpha):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(grad_output, x, alpha):
    return grad_output * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


def sigmoid(x):
    """1 / (1 + e^-x), in e^-|x|, which does not overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def sigmoid_slope(x):
    """s(x) (1 - s(x)) without the difference, which loses the upper tail."""
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


def sigmoid_backward(grad_output, x):
    return grad_output * sigmoid_slope(x)


def tanh(x):
    return np.tanh(x)


def tanh_backward(grad_output, x):
    return grad_output * 4 * sigmoid_slope(2 * x)


def softplus(x, beta, threshold):
    z = beta * x
    return np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


def softplus_backward(grad_output, x, beta, threshold):
    return grad_output * np.where(beta * x > threshold, 1, sigmoid(beta * x))


def log_sigmoid(x):
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def log_sigmoid_backward(grad_output, x):
    return grad_output * sigmoid(-x)


def gelu(x, approximate):
    if approximate == "tanh":
        return x * sigmoid(gelu_tanh_argument(x))
    return x * normal_distribution(x)


def gelu_backward(grad_output, x, approximate):
    square = np.clip(x, -100, 100) ** 2  # beyond 100, what it goes into is 0 or 1
    if approximate == "tanh":
        u = gelu_tanh_argument(x)
        slope = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * square)
        return grad_output * (sigmoid(u) + x * sigmoid_slope(u) * slope)
    density = np.exp(-square / 2) / math.sqrt(2 * math.pi)
    return grad_output * (normal_distribution(x) + x * density)


def gelu_tanh_argument(x):
    """u with s(u) = (1 + tanh(u / 2)) / 2; beyond 100, s(u) is 0 or 1."""
    x = np.clip(x, -100, 100)
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)


def normal_distribution(x):
    """Distribution function of the standard normal distribution."""
    erfc = np.vectorize(math.erfc, otypes=[x.dtype])
    return erfc(-x / math.sqrt(2)) / 2


def silu(x):
    return x * sigmoid(x)


def silu_backward(grad_output, x):
    return grad_output * (sigmoid(x) + x * sigmoid_slope(x))


def hardtanh(x, lowest, highest):
    return np.clip(x, lowest, highest)


def hardtanh_backward(grad_output, x, lowest, highest):
    return np.where((x <= lowest) | (x >= highest), 0, grad_output)


def hardswish(x):
    return x * (np.clip(x + 3, 0, 6) / 6)


def hardswish_backward(grad_output, x):
    return grad_output * np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))

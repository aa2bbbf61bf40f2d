"""A convolution's functions and arguments, the tolerance of each algorithm, and channels last: shared by its tests."""

import numpy as np

import fastnn.functional as F

TOLERANCE = {"im2col": "conv", "direct": "conv", "winograd": "conv_winograd", "fft": "conv"}


def functions(dims):
    return getattr(F, f"conv{dims}d"), getattr(F, f"conv{dims}d_backward")


def case(rng, shape, dtype=np.float64):
    """(x, weight, bias), the remaining arguments, and a gradient of the output."""
    n, c, k, size, kernel, stride, padding, dilation, groups = shape
    x = rng.standard_normal((n, c, *size)).astype(dtype)
    weight = rng.standard_normal((k, c // groups, *kernel)).astype(dtype)
    bias = rng.standard_normal(k).astype(dtype)
    settings = (stride, padding, dilation, groups)
    y = functions(len(size))[0](x, weight, bias, *settings)
    return (x, weight, bias), settings, rng.standard_normal(y.shape).astype(dtype)


def channels_last(x):
    """The same array with its channels last in memory."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)

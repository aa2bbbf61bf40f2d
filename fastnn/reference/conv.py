"""Convolution in 1 to 3 dimensions, one filter position (tap) at a time.

A tap at offset t reads, for the output position p, the input position p * stride + t * dilation - padding. `padding`
counts the zeros before each dimension; behind it there are as many as the output size asks for.
"""

import math

import numpy as np

__all__ = ["conv", "conv_channel_sum", "conv_input_grad", "conv_weight_grad"]


def windows(kernel, size, stride, dilation):
    """For each tap its index into the weights, and the slices of a padded image that it reads for this output size."""
    for tap in np.ndindex(*kernel):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        reads = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, size, stride, strict=True)]
        yield (..., *tap), (..., *reads)


def zero_padded(x_size, kernel, size, stride, padding, dilation, channels_shape, dtype):
    """An array of zeros that holds the image and all that is read around it, and the image's place in it."""
    reads = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, stride, kernel, dilation, strict=True)]
    extent = [max(r, p + n) for r, p, n in zip(reads, padding, x_size, strict=True)]
    inner = (..., *[slice(p, p + n) for p, n in zip(padding, x_size, strict=True)])
    return np.zeros((*channels_shape, *extent), dtype), inner


def grouped(x, groups):
    """(N, groups * C, ...) -> (N, groups, C, ...)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def flat(x):
    """(N, groups, C, ...) -> (N, groups, C, positions)."""
    return x.reshape(*x.shape[:3], math.prod(x.shape[3:]))


def conv(
    x, weight, bias, out_size, stride, padding, dilation, groups, residual=None, slope=1.0, statistics=False, kept=None
):
    """x (N, C, *in), weight (K, C / groups, *kernel) -> (N, K, *out_size), plus a bias (K,) and a residual, through a
    leaky ReLU; with statistics also its sum and that of its square by channel. Nothing is kept."""
    kernel = weight.shape[2:]
    padded, inner = zero_padded(x.shape[2:], kernel, out_size, stride, padding, dilation, x.shape[:2], x.dtype)
    padded[inner] = x
    padded = grouped(padded, groups)
    filters = weight.reshape(groups, -1, *weight.shape[1:])
    y = np.zeros((x.shape[0], groups, filters.shape[1], math.prod(out_size)), x.dtype)
    for tap, window in windows(kernel, out_size, stride, dilation):
        y += filters[tap] @ flat(padded[window])
    y = y.reshape(x.shape[0], weight.shape[0], *out_size)
    if bias is not None:
        y = y + bias.reshape(-1, *[1] * len(out_size))
    if residual is not None:
        y = y + residual
    if slope != 1:
        negative = np.zeros_like(y) if slope == 0 else y * y.dtype.type(slope)
        y = np.where(y <= 0, negative, y)
    if not statistics:
        return y
    axes = (0, *range(2, y.ndim))
    wide = y.astype(np.float64)
    return y, wide.sum(axis=axes), (wide**2).sum(axis=axes)


def conv_input_grad(grad, weight, bias, in_size, stride, padding, dilation, groups):
    """grad (N, K, *out) -> (N, C, *in_size): each tap's share is added where it was read. Then a bias (C,)."""
    kernel, out_size, images = weight.shape[2:], grad.shape[2:], grad.shape[0]
    channels_shape = (images, groups, weight.shape[1])
    padded, inner = zero_padded(in_size, kernel, out_size, stride, padding, dilation, channels_shape, grad.dtype)
    columns = flat(grouped(grad, groups))
    filters = weight.reshape(groups, -1, *weight.shape[1:])
    for tap, window in windows(kernel, out_size, stride, dilation):
        padded[window] += (filters[tap].transpose(0, 2, 1) @ columns).reshape(*channels_shape, *out_size)
    grad_input = padded[inner].reshape(images, groups * weight.shape[1], *in_size)
    return grad_input if bias is None else grad_input + bias.reshape(-1, *[1] * len(in_size))


def conv_weight_grad(grad, x, kernel, stride, padding, dilation, groups, bias_grad=False):
    """grad (N, K, *out), x (N, C, *in) -> (K, C / groups, *kernel), and with `bias_grad` (K,), else None."""
    out_size = grad.shape[2:]
    padded, inner = zero_padded(x.shape[2:], kernel, out_size, stride, padding, dilation, x.shape[:2], x.dtype)
    padded[inner] = x
    padded, columns = grouped(padded, groups), flat(grouped(grad, groups))
    grad_weight = np.zeros((groups, columns.shape[2], padded.shape[2], *kernel), x.dtype)
    for tap, window in windows(kernel, out_size, stride, dilation):
        grad_weight[tap] = (columns @ flat(padded[window]).transpose(0, 1, 3, 2)).sum(axis=0)
    grad_weight = grad_weight.reshape(-1, *grad_weight.shape[2:])
    return grad_weight, conv_channel_sum(grad) if bias_grad else None


def conv_channel_sum(x):
    """Sum over images and positions, (N, K, *out) -> (K,): the bias gradient."""
    return x.sum(axis=(0, *range(2, x.ndim)))

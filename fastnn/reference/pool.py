"""Pooling: the maximum or the average of each window, and the gradients.

`windows` has one (kernel, stride, padding, dilation) per spatial dimension, of which there are len(out_size), the last
ones. Without windows the pooling is adaptive: output i of n covers the input from floor(i * size / n) to
ceil((i + 1) * size / n).
"""

import math

import numpy as np

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward", "max_pool_route"]


def window_slices(in_size, out_size, windows):
    """Per output position: its index, and the slices of the input under it, which leave out the padding."""
    for position in np.ndindex(*out_size):
        if windows is None:
            bounds = zip(position, in_size, out_size, strict=True)
            yield position, tuple(slice(i * size // n, -(-(i + 1) * size // n)) for i, size, n in bounds)
        else:
            starts = [i * stride - padding for i, (_, stride, padding, _) in zip(position, windows, strict=True)]
            yield (
                position,
                tuple(
                    slice(
                        start if start >= 0 else start % dilation, max(0, start + (kernel - 1) * dilation + 1), dilation
                    )
                    for start, (kernel, _, _, dilation) in zip(starts, windows, strict=True)
                ),
            )


def max_pool(x, out_size, windows=None, return_indices=False):
    """The maxima, and their indices in the plane: the first among equals, the last among NaNs."""
    leading, in_size = x.shape[: -len(out_size)], x.shape[-len(out_size) :]
    plane = np.arange(math.prod(in_size)).reshape(in_size)
    y = np.empty(leading + out_size, x.dtype)
    indices = np.empty(leading + out_size, np.int64)
    for position, under in window_slices(in_size, out_size, windows):
        elements = plane[under].ravel()
        patch = x[(..., *under)].reshape(*leading, elements.size)
        nan = np.isnan(patch)
        last_nan = elements.size - 1 - np.argmax(nan[..., ::-1], axis=-1)
        winner = np.where(nan.any(axis=-1), last_nan, np.argmax(patch, axis=-1))
        y[(..., *position)] = np.take_along_axis(patch, winner[..., None], axis=-1)[..., 0]
        indices[(..., *position)] = elements[winner]
    return (y, indices) if return_indices else y


def max_pool_backward(grad_output, x, out_size, windows=None):
    indices = max_pool(x, out_size, windows, return_indices=True)[1]
    return max_pool_route(grad_output, indices, x.shape, out_size)


def max_pool_route(grad_output, indices, in_shape, out_size):
    """Each gradient to the element of the plane that its index names; None if an index is outside."""
    outputs, inputs = math.prod(out_size), math.prod(in_shape[-len(out_size) :])
    if np.any((indices < 0) | (indices >= inputs)):
        return None
    grad_input = np.zeros(in_shape, grad_output.dtype)
    planes = grad_input.reshape(-1, inputs)
    for plane, winners, gradients in zip(
        planes, indices.reshape(-1, outputs), grad_output.reshape(-1, outputs), strict=True
    ):
        np.add.at(plane, winners, gradients)
    return grad_input


def divisors(in_size, out_size, windows, count_include_pad, divisor):
    """What the sum of each window is divided by, of shape out_size."""
    counts = np.empty(out_size)
    for position, under in window_slices(in_size, out_size, windows):
        counts[position] = math.prod(len(range(size)[part]) for size, part in zip(in_size, under, strict=True))
        if windows is not None and count_include_pad:
            starts = [i * stride - padding for i, (_, stride, padding, _) in zip(position, windows, strict=True)]
            counts[position] = math.prod(
                min(start + kernel, size + padding) - start
                for start, size, (kernel, _, padding, _) in zip(starts, in_size, windows, strict=True)
            )
    return np.full(out_size, divisor) if divisor else counts


def avg_pool(x, out_size, windows=None, count_include_pad=False, divisor=0):
    in_size = x.shape[-len(out_size) :]
    counts = divisors(in_size, out_size, windows, count_include_pad, divisor)
    y = np.empty(x.shape[: -len(out_size)] + out_size, x.dtype)
    axes = tuple(range(-len(out_size), 0))
    for position, under in window_slices(in_size, out_size, windows):
        y[(..., *position)] = x[(..., *under)].sum(axis=axes) / counts[position]
    return y


def avg_pool_backward(grad_output, in_shape, out_size, windows=None, count_include_pad=False, divisor=0):
    in_size = in_shape[-len(out_size) :]
    counts = divisors(in_size, out_size, windows, count_include_pad, divisor)
    grad_input = np.zeros(in_shape, grad_output.dtype)
    for position, under in window_slices(in_size, out_size, windows):
        share = grad_output[(..., *position)] / counts[position]
        grad_input[(..., *under)] += share.reshape(share.shape + (1,) * len(out_size))
    return grad_input

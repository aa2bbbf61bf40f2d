"""Padding and nearest-neighbour resizing.

NumPy alone, no kernels: both are gathers along one axis after another, and NumPy's take is as fast as memory.
"""

import numpy as np

from fastnn.reference.embedding import sum_by_index

__all__ = ["interpolate", "interpolate_backward", "pad", "pad_backward"]


def gather(x, sources):
    """x by index along each axis of {axis: indices}."""
    for axis, index in sources.items():
        x = x.take(index, axis)
    return x if sources else x.copy()


def gather_backward(grad, shape, sources):
    for axis, index in sources.items():
        grad = sum_by_index(grad, index, shape[axis], axis)
    return grad if sources else grad.copy()


def pad(x, amounts, mode, value):
    """amounts: elements before and behind each axis; negative ones are cut off."""
    if mode == "constant":
        return pad_constant(x, amounts, value)
    return gather(x, padding_sources(x.shape, amounts, mode))


def pad_backward(grad_output, x, amounts, mode, value):
    if mode == "constant":
        return pad_constant(grad_output, [(-before, -behind) for before, behind in amounts], 0)
    return gather_backward(grad_output, x.shape, padding_sources(x.shape, amounts, mode))


def pad_constant(x, amounts, value):
    y = np.full([n + sum(amount) for n, amount in zip(x.shape, amounts, strict=True)], value, x.dtype)
    starts = [max(0, -before) for before, _ in amounts]
    ends = [max(start, n + min(0, behind)) for n, (_, behind), start in zip(x.shape, amounts, starts, strict=True)]
    kept = [(start, end, before) for start, end, (before, _) in zip(starts, ends, amounts, strict=True)]
    target = tuple(slice(start + before, end + before) for start, end, before in kept)
    y[target] = x[tuple(slice(start, end) for start, end, _ in kept)]
    return y


def padding_sources(shape, amounts, mode):
    """For each axis with padding, the index in x that each index of the output shows."""
    sources = {}
    for axis, (n, (before, behind)) in enumerate(zip(shape, amounts, strict=True)):
        position = np.arange(-before, n + behind)
        if mode == "reflect":
            position = np.where(position < n, np.abs(position), 2 * (n - 1) - position)
        elif mode == "replicate":
            position = np.clip(position, 0, max(0, n - 1))
        else:  # circular
            position = position % max(1, n)
        if before or behind:
            sources[axis] = position
    return sources


def interpolate(x, size, scale_factor):
    return gather(x, nearest_sources(x, size, scale_factor))


def interpolate_backward(grad_output, x, size, scale_factor):
    return gather_backward(grad_output, x.shape, nearest_sources(x, size, scale_factor))


def nearest_sources(x, size, scale_factor):
    """For each spatial axis, floor(position * scale). Rounded as torch rounds it: the scale in x's precision, the
    product to float32. (In float32, i * n // extent would differ in an element for a hundredth of all pairs of sizes.)
    """
    sources = {}
    for axis, extent in enumerate(size, start=2):
        n = x.dtype.type(x.shape[axis])
        scale = n / x.dtype.type(extent) if scale_factor is None else x.dtype.type(1 / scale_factor[axis - 2])
        product = np.arange(extent, dtype=x.dtype) * scale
        position = np.floor(product.astype(np.float32)).astype(np.intp)
        sources[axis] = np.minimum(position, x.shape[axis] - 1)
    return sources

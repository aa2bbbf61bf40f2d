"""Norms, distances, similarities, and their gradients.

NumPy alone, no kernels: the Euclidean cdist is a matrix product, the others are a few passes over the arrays.
"""

import math

import numpy as np

__all__ = [
    "cdist",
    "cdist_backward",
    "cosine_similarity",
    "cosine_similarity_backward",
    "normalize",
    "normalize_backward",
    "pairwise_distance",
    "pairwise_distance_backward",
]


def p_norm(x, p, axis, keepdims=False):
    """(sum |x|^p)^(1/p); p = 0 counts what is not zero, p = infinity is the largest |x|."""
    magnitude = np.abs(x)
    if p == 0:
        return (magnitude != 0).sum(axis, x.dtype, keepdims=keepdims)
    if math.isinf(p):
        return magnitude.max(axis, initial=0, keepdims=keepdims)
    if p == 1:
        return magnitude.sum(axis, keepdims=keepdims)
    if p == 2:
        return np.sqrt((x * x).sum(axis, keepdims=keepdims))
    return (magnitude**p).sum(axis, keepdims=keepdims) ** (1 / p)


def p_norm_backward(grad_norm, x, norm, p, axis):
    """sign(x) (|x| / norm)^(p - 1), with grad_norm and norm of keepdims' shape: 0 where the norm or x is 0. For p =
    infinity the largest elements share the gradient; for p = 0 there is none."""
    magnitude = np.abs(x)
    if p == 0:
        return np.zeros_like(x)
    if math.isinf(p):
        largest = ~(magnitude < norm)
        return np.sign(x) * largest * (grad_norm / largest.sum(axis, x.dtype, keepdims=True))
    ratio = np.where(magnitude == 0, 1, magnitude / np.where(norm == 0, 1, norm))
    return np.sign(x) * ratio ** (p - 1) * grad_norm


def sum_to_shape(x, shape):
    """The gradient of an array that was broadcast from this shape."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def pairwise_distance(x1, x2, p, eps, keepdim):
    with np.errstate(all="ignore"):
        return p_norm(x1 - x2 + eps, p, -1, keepdim)


def pairwise_distance_backward(grad_output, x1, x2, p, eps, keepdim):
    with np.errstate(all="ignore"):
        difference = x1 - x2 + eps
        grad_norm = grad_output if keepdim else grad_output[..., None]
        grad = p_norm_backward(grad_norm, difference, p_norm(difference, p, -1, True), p, -1)
        return sum_to_shape(grad, x1.shape), sum_to_shape(-grad, x2.shape)


def normalize(x, p, dim, eps):
    with np.errstate(all="ignore"):
        return x / np.maximum(p_norm(x, p, dim, True), x.dtype.type(eps))


def normalize_backward(grad_output, x, p, dim, eps):
    with np.errstate(all="ignore"):
        norm = p_norm(x, p, dim, True)
        divisor = np.maximum(norm, x.dtype.type(eps))
        grad_divisor = -(grad_output * (x / divisor)).sum(dim, keepdims=True) / divisor
        grad_norm = np.where(norm < eps, 0, grad_divisor)
        return grad_output / divisor + p_norm_backward(grad_norm, x, norm, p, dim)


def unit(x, dim, eps):
    """x / max(|x|, eps), the divisor, and whether it depends on x."""
    norm = p_norm(x, 2, dim, True)
    divisor = np.maximum(norm, x.dtype.type(eps))
    return x / divisor, divisor, ~(norm < eps)


def cosine_similarity(x1, x2, dim, eps):
    x1, x2 = np.broadcast_arrays(x1, x2)
    with np.errstate(all="ignore"):
        return (unit(x1, dim, eps)[0] * unit(x2, dim, eps)[0]).sum(dim)


def cosine_similarity_backward(grad_output, x1, x2, dim, eps):
    shapes = x1.shape, x2.shape
    x1, x2 = np.broadcast_arrays(x1, x2)
    grad_output = np.expand_dims(grad_output, dim)
    with np.errstate(all="ignore"):
        unit1, divisor1, depends1 = unit(x1, dim, eps)
        unit2, divisor2, depends2 = unit(x2, dim, eps)
        cosine = (unit1 * unit2).sum(dim, keepdims=True)
        grad1 = grad_output * (unit2 - unit1 * cosine * depends1) / divisor1
        grad2 = grad_output * (unit1 - unit2 * cosine * depends2) / divisor2
    return sum_to_shape(grad1, shapes[0]), sum_to_shape(grad2, shapes[1])


def cdist(x1, x2, p):
    with np.errstate(all="ignore"):
        if p == 2:
            return euclidean(x1, x2)[0].astype(x1.dtype)
        return p_distances(x1, x2, p)


def cdist_backward(grad_output, x1, x2, p):
    with np.errstate(all="ignore"):
        if p == 2:
            grad1, grad2 = euclidean_backward(grad_output, x1, x2)
        else:
            grad1, grad2 = p_distances_backward(grad_output, x1, x2, p)
    return sum_to_shape(grad1, x1.shape).astype(x1.dtype), sum_to_shape(grad2, x2.shape).astype(x1.dtype)


def p_distances(x1, x2, p):
    """One row of x1 at a time, so that the differences take no more memory than x2."""
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    distances = np.empty((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    for row in range(x1.shape[-2]):
        distances[..., row, :] = p_norm(x1[..., row, None, :] - x2, p, -1)
    return distances


def p_distances_backward(grad_output, x1, x2, p):
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    grad1, grad2 = (np.zeros((*batch, *x.shape[-2:]), x.dtype) for x in (x1, x2))
    for row in range(x1.shape[-2]):
        difference = x1[..., row, None, :] - x2
        grad = p_norm_backward(grad_output[..., row, :, None], difference, p_norm(difference, p, -1, True), p, -1)
        grad1[..., row, :] = grad.sum(-2)
        grad2 -= grad
    return grad1, grad2


def euclidean(x1, x2):
    """|a - b|^2 = |a|^2 + |b|^2 - 2 a b in float64, with one matrix product; and which pairs were too close for that.

    The right side loses the digits by which it is smaller than |a|^2 + |b|^2. Pairs that have too few left for the
    arrays' precision are computed from a - b instead, and so are those with NaN or infinities. So equal points have the
    distance 0.
    """
    enough = 1e-6 if x1.dtype == np.float32 else 0.05
    a, b = x1.astype(np.float64, copy=False), x2.astype(np.float64, copy=False)
    scale = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :]
    squares = scale - 2 * (a @ b.swapaxes(-1, -2))
    close = ~(squares > enough * scale)
    for pairs, difference in close_pairs(close, a, b):
        squares[pairs] = (difference * difference).sum(-1)
    return np.sqrt(squares), close


def euclidean_backward(grad_output, x1, x2):
    """Sums of grad / distance times (a - b); products of matrices except for the close pairs."""
    distances, close = euclidean(x1, x2)
    a, b = x1.astype(np.float64, copy=False), x2.astype(np.float64, copy=False)
    weights = np.where(distances == 0, 0, grad_output / distances)
    far = np.where(close, 0, weights)
    grad1 = far.sum(-1)[..., None] * a - far @ b
    grad2 = far.sum(-2)[..., None] * b - far.swapaxes(-1, -2) @ a
    for pairs, difference in close_pairs(close, a, b):
        share = weights[pairs][:, None] * difference
        np.add.at(grad1, pairs[:-1], share)
        np.subtract.at(grad2, (*pairs[:-2], pairs[-1]), share)
    return grad1, grad2


def close_pairs(close, a, b):
    """The indices of these pairs in a matrix of distances, and their differences, in parts of at most 8 MiB."""
    batch = close.shape[:-2]
    a, b = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    indices = np.nonzero(close)
    step = max(1, 2**20 // max(1, a.shape[-1]))
    for start in range(0, len(indices[0]), step):
        pairs = tuple(index[start : start + step] for index in indices)
        yield pairs, a[pairs[:-1]] - b[(*pairs[:-2], pairs[-1])]

"""Softmax and its logarithm along one dimension, and their gradients. A slice of -inf alone gives NaN, as in torch."""

import numpy as np

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


def softmax(x, dim):
    e = np.exp(minus_largest(x, dim))
    return e / np.sum(e, axis=dim, keepdims=True)


def softmax_backward(grad_output, x, dim, output=None):
    """dx = S (dy - <dy, S>): the product with the Jacobian diag(S) - S S^T, which is never formed."""
    s = softmax(x, dim) if output is None else output
    return s * (grad_output - np.sum(grad_output * s, axis=dim, keepdims=True))


def log_softmax(x, dim):
    z = minus_largest(x, dim)
    return z if z.size == 0 else z - np.log(np.sum(np.exp(z), axis=dim, keepdims=True))


def log_softmax_backward(grad_output, x, dim, output=None):
    log_s = log_softmax(x, dim) if output is None else output
    return grad_output - np.exp(log_s) * np.sum(grad_output, axis=dim, keepdims=True)


def minus_largest(x, dim):
    """x - max(x), whose exponentials do not overflow."""
    with np.errstate(invalid="ignore"):  # infinity - infinity
        return x - x.max(axis=dim, keepdims=True, initial=-np.inf)

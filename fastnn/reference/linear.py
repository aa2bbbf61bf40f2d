"""Affine layer y = x W^T + b on rows, and its gradients."""

import numpy as np

__all__ = ["linear", "linear_backward"]


def linear(x, weight, bias, relu=False):
    """x (M, I), weight (O, I), bias (O,) or None -> (M, O), or its ReLU."""
    y = x @ weight.T
    y = y if bias is None else y + bias
    return np.maximum(y, 0) if relu else y


def linear_backward(grad_output, x, weight, needs, out):
    """grad_output (M, O) -> gradients of x, weight (in out, unless None) and bias; None where not needed."""
    return (
        grad_output @ weight if needs[0] else None,
        np.matmul(grad_output.T, x, out=out) if needs[1] else None,
        grad_output.sum(axis=0) if needs[2] else None,
    )

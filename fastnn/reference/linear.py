"""Affine layer y = x W^T + b on rows, and its gradients."""

import numpy as np

__all__ = ["linear", "linear_backward"]


def linear(x, weight, bias):
    """x (M, I), weight (O, I), bias (O,) or None -> (M, O)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(grad_output, x, weight, needs, out):
    """grad_output (M, O) -> gradients of x, weight (in out, unless None) and bias; None where not needed."""
    return (
        grad_output @ weight if needs[0] else None,
        np.matmul(grad_output.T, x, out=out) if needs[1] else None,
        grad_output.sum(axis=0) if needs[2] else None,
    )

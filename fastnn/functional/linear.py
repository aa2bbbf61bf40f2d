"""The affine (fully connected) layer."""

import math

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_float_array,
    check_grad_output,
    check_same_dtype,
    check_shape,
    check_writeable,
)

__all__ = ["linear", "linear_backward", "linear_relu"]


def check_linear(function, input, weight, bias):
    check_float_array(function, "input", input)
    check_same_dtype(function, "weight", weight, "input", input)
    if weight.ndim != 2:
        raise ValueError(f"{function}: weight must have shape (out_features, in_features), got {weight.shape}")
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{function}: weight expects {weight.shape[1]} input features, but input has shape {input.shape}; "
            "its last dimension must match"
        )
    if bias is not None:
        check_same_dtype(function, "bias", bias, "input", input)
        check_shape(function, "bias", bias, weight.shape[:1], "one per output feature")


def linear(input, weight, bias=None):
    """Affine layer ``y = x W^T + b`` on the last dimension.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (..., in_features)
    weight : ndarray, shape (out_features, in_features)
    bias : ndarray, shape (out_features,), optional

    Returns
    -------
    ndarray, shape (..., out_features)

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.linear(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, -1.0]]), np.array([0.5, 0.0]))
    array([[ 3.5, -2. ]])
    """
    return affine("linear", input, weight, bias)


def linear_relu(input, weight, bias=None):
    """``max(0, x W^T + b)``: :func:`linear`, then :func:`relu`, in one pass over the output.

    Backward, :func:`linear_backward` takes ``relu_backward(grad_output, y)``.

    Parameters
    ----------
    input, weight, bias
        As in :func:`linear`.

    Returns
    -------
    ndarray, shape (..., out_features)

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.linear_relu(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [0.0, -1.0]]), np.array([0.5, 0.0]))
    array([[3.5, 0. ]])
    """
    return affine("linear_relu", input, weight, bias, True)


def affine(function, input, weight, bias, *relu):
    check_linear(function, input, weight, bias)
    y = implementation("linear")(rows(input), weight, bias, *relu)
    return y if input.ndim == 2 else y.reshape(*input.shape[:-1], weight.shape[0])


def linear_backward(grad_output, input, weight, bias=None, *, needs=(True, True, True), out=None):
    """Gradients of :func:`linear`: ``dx = dy W``, ``dW = dy^T x``, ``db`` = sum of ``dy`` over the rows.

    Parameters
    ----------
    grad_output : ndarray, shape (..., out_features)
    input, weight, bias
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None.
    out : ndarray, optional
        What the weight's gradient is written into: an array like the weight, which shares no memory with the others.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_weight`` is ``out``, if that is given; ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> dx, dw, db = F.linear_backward(np.ones((1, 2)), np.array([[1.0, 2.0]]), np.eye(2), np.zeros(2))
    >>> dx, dw.tolist(), db
    (array([[1., 1.]]), [[1.0, 2.0], [1.0, 2.0]], array([1., 1.]))
    """
    check_linear("linear_backward", input, weight, bias)
    check_grad_output("linear_backward", grad_output, input, (*input.shape[:-1], weight.shape[0]))
    needs = check_needs("linear_backward", needs, bias)
    if out is not None:
        check_out("linear_backward", out, weight, (grad_output, input, weight))
    dx, dw, db = implementation("linear_backward")(rows(grad_output), rows(input), weight, needs, out)
    return (dx if dx is None else dx.reshape(input.shape)), dw, db


def check_out(function, out, like, inputs):
    """out can take a result like this array, computed from these inputs."""
    check_same_dtype(function, "out", out, "weight", like)
    check_shape(function, "out", out, like.shape, "the weight's shape")
    check_writeable(function, "out", out)
    if not out.flags.c_contiguous:
        raise ValueError(f"{function}: out must be C-contiguous, got strides {out.strides} for shape {out.shape}")
    if any(np.may_share_memory(out, array) for array in inputs):
        raise ValueError(f"{function}: out must share no memory with the inputs; pass an array of its own")


def rows(x):
    """x as a matrix: all dimensions but the last one together."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_needs(function, needs, bias):
    """Three bools; no bias, no gradient of it."""
    if not isinstance(needs, (tuple, list)) or len(needs) != 3:
        raise ValueError(f"{function}: needs must be three bools (input, weight, bias), got {needs!r}")
    return bool(needs[0]), bool(needs[1]), bool(needs[2]) and bias is not None

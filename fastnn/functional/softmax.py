"""Softmax and its logarithm: checked arguments, then the active backend."""

from fastnn.backend import implementation
from fastnn.functional.checks import check_dim, check_float_array, check_grad_output, check_same_dtype, check_shape

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


def softmax(input, dim=-1):
    """Softmax along one dimension: ``exp(x_i) / sum_j exp(x_j)``.

    Adding a constant to all elements of a slice changes nothing; multiplying them does (it sharpens or flattens the
    result). Large elements do not overflow.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape with at least one dimension.
    dim : int, default -1
        The dimension along which the result sums to 1; negative ones count from the last.

    Returns
    -------
    ndarray
        Same shape and dtype. A slice with NaN or +inf in it, or of -inf alone, becomes NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]))
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    check_float_array("softmax", "input", input)
    return implementation("softmax")(input, check_dim("softmax", dim, input.ndim))


def softmax_backward(grad_output, input, dim=-1, *, output=None):
    """Gradient of :func:`softmax`: ``s * (grad_output - sum(grad_output * s))`` along ``dim``, s the softmax.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    dim : int, default -1
        The forward's dimension.
    output : ndarray, optional
        The forward's result, if it was kept: saves computing it again.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.softmax_backward(np.array([1.0, 0.0]), np.array([2.0, 2.0]))
    array([ 0.25, -0.25])
    """
    dim = check_backward("softmax_backward", grad_output, input, dim, output)
    return implementation("softmax_backward")(grad_output, input, dim, output)


def log_softmax(input, dim=-1):
    """Logarithm of the softmax along one dimension: ``x_i - log(sum_j exp(x_j))``, exact where the softmax rounds to 0.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape with at least one dimension.
    dim : int, default -1
        The dimension along which the result's exponentials sum to 1; negative ones count from the last.

    Returns
    -------
    ndarray
        Same shape and dtype. A slice with NaN or +inf in it, or of -inf alone, becomes NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.log_softmax(np.array([0.0, -1000.0]))
    array([    0., -1000.])
    """
    check_float_array("log_softmax", "input", input)
    return implementation("log_softmax")(input, check_dim("log_softmax", dim, input.ndim))


def log_softmax_backward(grad_output, input, dim=-1, *, output=None):
    """Gradient of :func:`log_softmax`: ``grad_output - softmax(input) * sum(grad_output)`` along ``dim``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    dim : int, default -1
        The forward's dimension.
    output : ndarray, optional
        The forward's result, if it was kept: saves computing it again.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.log_softmax_backward(np.array([1.0, 0.0]), np.array([2.0, 2.0]))
    array([ 0.5, -0.5])
    """
    dim = check_backward("log_softmax_backward", grad_output, input, dim, output)
    return implementation("log_softmax_backward")(grad_output, input, dim, output)


def check_backward(function, grad_output, input, dim, output):
    check_float_array(function, "input", input)
    check_grad_output(function, grad_output, input, input.shape)
    if output is not None:
        check_same_dtype(function, "output", output, "input", input)
        check_shape(function, "output", output, input.shape, "input's shape")
    return check_dim(function, dim, input.ndim)

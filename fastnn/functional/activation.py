"""Activations: checked arguments, then the active backend."""

from fastnn.backend import implementation
from fastnn.functional.checks import check_float_array, check_same_dtype, check_shape

__all__ = ["relu", "relu_backward"]


def relu(input):
    """Rectified linear unit, elementwise: ``max(0, x)``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    check_float_array("relu", "input", input)
    return implementation("relu")(input)


def relu_backward(grad_output, input):
    """Gradient of :func:`relu`: ``grad_output`` where ``input > 0``, else 0 (0 at 0).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input (its output serves as well).

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.relu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 1.])
    """
    check_float_array("relu_backward", "input", input)
    check_same_dtype("relu_backward", "grad_output", grad_output, "input", input)
    check_shape("relu_backward", "grad_output", grad_output, input.shape, "input's shape")
    return implementation("relu_backward")(grad_output, input)

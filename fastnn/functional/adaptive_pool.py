"""Pooling to an output of a given size: checked arguments, then the active backend, as for pooling over windows.

It is described to the backend by the output's size alone; a global pool is an adaptive one of size 1.
"""

import math

from fastnn.backend import implementation
from fastnn.functional.checks import check_float_array, check_grad_output, check_integers
from fastnn.functional.pool import (
    check_not_empty,
    check_plane_size,
    check_planes,
    check_pooled,
    find_maxima,
    route_to_maxima,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
    "global_avg_pool",
    "global_avg_pool_backward",
    "global_max_pool",
    "global_max_pool_backward",
]

LARGEST_COUNT = 2**60  # elements of an output: its bytes stay within 64 bits


def normalise_adaptive(function, input, output_size, dims):
    """The output's spatial size: None keeps the input's."""
    in_size = check_planes(function, input, dims)
    if not isinstance(output_size, (tuple, list)):
        output_size = (output_size,) * dims
    if len(output_size) == dims:
        output_size = [size if n is None else n for n, size in zip(output_size, in_size, strict=True)]
    out_size = check_integers(function, "output_size", output_size, dims, 1)
    if math.prod(input.shape[:-dims]) * math.prod(out_size) > LARGEST_COUNT:
        raise ValueError(f"{function}: output_size {out_size} is too large for input of shape {input.shape}")
    return out_size


def adaptive_avg_pool1d(input, output_size):
    """1-D adaptive average pooling: the mean of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L), or without N
    output_size : int or None
        The output's size; None keeps the input's.

    Returns
    -------
    ndarray, shape (N, C, L_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2)
    array([[[2. , 2.5]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool1d", input, output_size, 1)
    return implementation("avg_pool")(input, out_size)


def adaptive_avg_pool1d_backward(grad_output, input, output_size):
    """Gradient of :func:`adaptive_avg_pool1d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_avg_pool1d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool1d_backward(np.ones((1, 1, 2)), np.zeros((1, 1, 4)), 2)
    array([[[0.5, 0.5, 0.5, 0.5]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool1d_backward", input, output_size, 1)
    check_pooled("adaptive_avg_pool1d_backward", grad_output, input, out_size)
    return implementation("avg_pool_backward")(grad_output, input.shape, out_size)


def adaptive_max_pool1d(input, output_size, return_indices=False):
    """1-D adaptive max pooling: the maximum of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L), or without N
    output_size : int or None
        The output's size; None keeps the input's.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, L_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        L elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool1d(np.array([[[1.0, 3.0, 2.0]]]), 2)
    array([[[3., 3.]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool1d", input, output_size, 1)
    return find_maxima("adaptive_max_pool1d", input, out_size, None, return_indices)


def adaptive_max_pool1d_backward(grad_output, input, output_size, *, indices=None):
    """Gradient of :func:`adaptive_max_pool1d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_max_pool1d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool1d_backward(np.ones((1, 1, 2)), np.arange(4.0).reshape(1, 1, 4), 2)
    array([[[0., 1., 0., 1.]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool1d_backward", input, output_size, 1)
    return route_to_maxima("adaptive_max_pool1d_backward", grad_output, input, out_size, None, indices)


def adaptive_avg_pool2d(input, output_size):
    """2-D adaptive average pooling: the mean of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W), or without N
    output_size : int, None, or 2 of them
        The output's size; None keeps the input's.

    Returns
    -------
    ndarray, shape (N, C, H_out, W_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool2d(np.array([[[[1.0, 3.0], [2.0, 6.0]]]]), 1)
    array([[[[3.]]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool2d", input, output_size, 2)
    return implementation("avg_pool")(input, out_size)


def adaptive_avg_pool2d_backward(grad_output, input, output_size):
    """Gradient of :func:`adaptive_avg_pool2d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_avg_pool2d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool2d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 2)), 1)
    array([[[[0.5, 0.5]]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool2d_backward", input, output_size, 2)
    check_pooled("adaptive_avg_pool2d_backward", grad_output, input, out_size)
    return implementation("avg_pool_backward")(grad_output, input.shape, out_size)


def adaptive_max_pool2d(input, output_size, return_indices=False):
    """2-D adaptive max pooling: the maximum of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W), or without N
    output_size : int, None, or 2 of them
        The output's size; None keeps the input's.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, H_out, W_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        H * W elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool2d(np.array([[[[1.0, 3.0], [2.0, 6.0]]]]), 1)
    array([[[[6.]]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool2d", input, output_size, 2)
    return find_maxima("adaptive_max_pool2d", input, out_size, None, return_indices)


def adaptive_max_pool2d_backward(grad_output, input, output_size, *, indices=None):
    """Gradient of :func:`adaptive_max_pool2d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_max_pool2d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool2d_backward(np.ones((1, 1, 1, 1)), np.arange(2.0).reshape(1, 1, 1, 2), 1)
    array([[[[0., 1.]]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool2d_backward", input, output_size, 2)
    return route_to_maxima("adaptive_max_pool2d_backward", grad_output, input, out_size, None, indices)


def adaptive_avg_pool3d(input, output_size):
    """3-D adaptive average pooling: the mean of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W), or without N
    output_size : int, None, or 3 of them
        The output's size; None keeps the input's.

    Returns
    -------
    ndarray, shape (N, C, D_out, H_out, W_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), 1)
    array([[[[[3.5]]]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool3d", input, output_size, 3)
    return implementation("avg_pool")(input, out_size)


def adaptive_avg_pool3d_backward(grad_output, input, output_size):
    """Gradient of :func:`adaptive_avg_pool3d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_avg_pool3d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_avg_pool3d_backward(np.ones((1, 1, 1, 1, 1)), np.zeros((1, 1, 1, 1, 2)), 1)
    array([[[[[0.5, 0.5]]]]])
    """
    out_size = normalise_adaptive("adaptive_avg_pool3d_backward", input, output_size, 3)
    check_pooled("adaptive_avg_pool3d_backward", grad_output, input, out_size)
    return implementation("avg_pool_backward")(grad_output, input.shape, out_size)


def adaptive_max_pool3d(input, output_size, return_indices=False):
    """3-D adaptive max pooling: the maximum of each of ``output_size`` windows that cover the input evenly.

    Along each dimension, output i of n covers the input from ``floor(i size / n)`` to ``ceil((i + 1) size / n)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W), or without N
    output_size : int, None, or 3 of them
        The output's size; None keeps the input's.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, D_out, H_out, W_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        D * H * W elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If ``input`` has the wrong number of dimensions, or a size is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), 1)
    array([[[[[7.]]]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool3d", input, output_size, 3)
    return find_maxima("adaptive_max_pool3d", input, out_size, None, return_indices)


def adaptive_max_pool3d_backward(grad_output, input, output_size, *, indices=None):
    """Gradient of :func:`adaptive_max_pool3d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, output_size
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`adaptive_max_pool3d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.adaptive_max_pool3d_backward(np.ones((1, 1, 1, 1, 1)), np.arange(2.0).reshape(1, 1, 1, 1, 2), 1)
    array([[[[[0., 1.]]]]])
    """
    out_size = normalise_adaptive("adaptive_max_pool3d_backward", input, output_size, 3)
    return route_to_maxima("adaptive_max_pool3d_backward", grad_output, input, out_size, None, indices)


def check_global(function, input):
    """input is (N, C, ...); the same with its planes flattened."""
    check_float_array(function, "input", input)
    if input.ndim < 3:
        raise ValueError(f"{function}: input must have shape (N, C, ...) with at least 3 dimensions, got {input.shape}")
    check_not_empty(function, input, input.shape[2:])
    return input.reshape(*input.shape[:2], math.prod(input.shape[2:]))


def check_global_gradient(function, grad_output, input):
    check_grad_output(function, grad_output, input, input.shape[:2])
    return grad_output[:, :, None]


def global_avg_pool(input):
    """The mean of each channel of each image.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, ...)
        Any number of spatial dimensions from 1 up.

    Returns
    -------
    ndarray, shape (N, C)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64.
    ValueError
        If ``input`` has fewer than 3 dimensions or empty planes.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.global_avg_pool(np.array([[[1.0, 2.0, 6.0]]]))
    array([[3.]])
    """
    planes = check_global("global_avg_pool", input)
    return implementation("avg_pool")(planes, (1,)).reshape(input.shape[:2])


def global_avg_pool_backward(grad_output, input):
    """Gradient of :func:`global_avg_pool` by its input: each plane's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray, shape (N, C)
        Gradient of the output, of ``input``'s dtype.
    input : ndarray of float32 or float64, shape (N, C, ...)
        The forward's input; only its shape and dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`global_avg_pool`, and if ``grad_output`` has not the shape (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.global_avg_pool_backward(np.ones((1, 1)), np.array([[[1.0, 6.0]]]))
    array([[[0.5, 0.5]]])
    """
    planes = check_global("global_avg_pool_backward", input)
    gradient = check_global_gradient("global_avg_pool_backward", grad_output, input)
    return implementation("avg_pool_backward")(gradient, planes.shape, (1,)).reshape(input.shape)


def global_max_pool(input):
    """The maximum of each channel of each image.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, ...)
        Any number of spatial dimensions from 1 up.

    Returns
    -------
    ndarray, shape (N, C)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64.
    ValueError
        If ``input`` has fewer than 3 dimensions or empty planes.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.global_max_pool(np.array([[[1.0, 2.0, 6.0]]]))
    array([[6.]])
    """
    planes = check_global("global_max_pool", input)
    check_plane_size("global_max_pool", planes.shape[2:])
    return implementation("max_pool")(planes, (1,)).reshape(input.shape[:2])


def global_max_pool_backward(grad_output, input):
    """Gradient of :func:`global_max_pool` by its input: each plane's gradient is given to its maximum.

    Parameters
    ----------
    grad_output : ndarray, shape (N, C)
        Gradient of the output, of ``input``'s dtype.
    input : ndarray of float32 or float64, shape (N, C, ...)
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`global_max_pool`, and if ``grad_output`` has not the shape (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.global_max_pool_backward(np.ones((1, 1)), np.array([[[1.0, 6.0]]]))
    array([[[0., 1.]]])
    """
    planes = check_global("global_max_pool_backward", input)
    check_plane_size("global_max_pool_backward", planes.shape[2:])
    gradient = check_global_gradient("global_max_pool_backward", grad_output, input)
    return implementation("max_pool_backward")(gradient, planes, (1,)).reshape(input.shape)

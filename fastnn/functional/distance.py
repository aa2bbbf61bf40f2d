"""Distances and norms: checked arguments, then the active backend."""

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    LARGEST_NDIM,
    check_dim,
    check_float_array,
    check_grad_output,
    check_most_dimensions,
    check_number,
    check_same_dtype,
)

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


def cdist(x1, x2, p=2.0):
    """The distance of every row of ``x1`` from every row of ``x2``: ``(sum |a - b|^p)^(1/p)``.

    For p = 2 by one matrix product in float64, |a|^2 + |b|^2 - 2 a b; pairs so close that this would lose digits of the
    result are computed from a - b. So equal rows have the distance 0. Other p take a few passes over all differences.

    Parameters
    ----------
    x1 : ndarray of float32 or float64, (..., P, M)
        Points in rows. Leading dimensions are broadcast against those of ``x2``.
    x2 : ndarray of the same dtype, (..., R, M)
        Points in rows.
    p : float
        At least 0. 0 counts the coordinates that differ; infinity takes the largest difference.

    Returns
    -------
    ndarray, (..., P, R)
        Distances.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.cdist(np.zeros((1, 2)), np.array([[3.0, 4.0], [0.0, 1.0]]))
    array([[5., 1.]])
    """
    p, _ = check_cdist("cdist", x1, x2, p)
    return implementation("cdist")(x1, x2, p)


def cdist_backward(grad_output, x1, x2, p=2.0):
    """Gradients of :func:`cdist`.

    A distance of 0 passes no gradient. For p = infinity, coordinates that tie for the largest difference share it.

    Parameters
    ----------
    grad_output : ndarray, (..., P, R)
        Gradient of the output.
    x1, x2, p
        The forward's arguments.

    Returns
    -------
    tuple of ndarray
        Gradients of ``x1`` and ``x2``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.cdist_backward(np.ones((1, 1)), np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    (array([[-0.6, -0.8]]), array([[0.6, 0.8]]))
    """
    p, shape = check_cdist("cdist_backward", x1, x2, p)
    check_grad_output("cdist_backward", grad_output, x1, shape, "x1")
    return implementation("cdist_backward")(grad_output, x1, x2, p)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """The distance of each row of ``x1`` from its partner in ``x2``: the p-norm of ``x1 - x2 + eps``.

    Parameters
    ----------
    x1, x2 : ndarray of float32 or float64, (..., M)
        Points, of one dtype; their shapes are broadcast.
    p : float
        At least 0. 0 counts the coordinates that differ; infinity takes the largest difference.
    eps : float
        Added to each difference, so that the gradient is defined for equal points.
    keepdim : bool
        Whether the last axis stays, with extent 1.

    Returns
    -------
    ndarray
        The broadcast shape without its last axis.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.pairwise_distance(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 1.0]]), eps=0.0)
    array([5., 1.])
    """
    p, eps, _ = check_pairwise("pairwise_distance", x1, x2, p, eps)
    return implementation("pairwise_distance")(x1, x2, p, eps, bool(keepdim))


def pairwise_distance_backward(grad_output, x1, x2, p=2.0, eps=1e-6, keepdim=False):
    """Gradients of :func:`pairwise_distance`.

    A distance of 0 passes no gradient. For p = infinity, coordinates that tie for the largest difference share it.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output.
    x1, x2, p, eps, keepdim
        The forward's arguments.

    Returns
    -------
    tuple of ndarray
        Gradients of ``x1`` and ``x2``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.pairwise_distance_backward(np.ones(1), np.zeros((1, 2)), np.array([[3.0, 4.0]]), eps=0.0)
    (array([[-0.6, -0.8]]), array([[0.6, 0.8]]))
    """
    function = "pairwise_distance_backward"
    p, eps, shape = check_pairwise(function, x1, x2, p, eps)
    expected = (*shape[:-1], 1) if keepdim else shape[:-1]
    check_grad_output(function, grad_output, x1, expected, "x1")
    return implementation(function)(grad_output, x1, x2, p, eps, bool(keepdim))


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """The cosine of the angle between vectors along ``dim``: ``x1 x2 / (max(|x1|, eps) max(|x2|, eps))``.

    Parameters
    ----------
    x1, x2 : ndarray of float32 or float64
        Of one dtype; their shapes are broadcast.
    dim : int
        The axis of the broadcast shape that the vectors lie along.
    eps : float
        The smallest divisor, at least 0.

    Returns
    -------
    ndarray
        The broadcast shape without axis ``dim``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.cosine_similarity(np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]]))
    array([0.6])
    """
    dim, eps, _ = check_cosine("cosine_similarity", x1, x2, dim, eps)
    return implementation("cosine_similarity")(x1, x2, dim, eps)


def cosine_similarity_backward(grad_output, x1, x2, dim=1, eps=1e-8):
    """Gradients of :func:`cosine_similarity`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output.
    x1, x2, dim, eps
        The forward's arguments.

    Returns
    -------
    tuple of ndarray
        Gradients of ``x1`` and ``x2``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> dx1, dx2 = F.cosine_similarity_backward(np.ones(1), np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]))
    >>> dx1, dx2
    (array([[0., 1.]]), array([[0.5, 0. ]]))
    """
    function = "cosine_similarity_backward"
    dim, eps, shape = check_cosine(function, x1, x2, dim, eps)
    check_grad_output(function, grad_output, x1, shape[:dim] + shape[dim + 1 :], "x1")
    return implementation(function)(grad_output, x1, x2, dim, eps)


def normalize(input, p=2.0, dim=1, eps=1e-12):
    """Divides vectors along ``dim`` by their p-norm, or by ``eps`` where that is larger.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    p : float
        At least 0. 0 counts what is not zero; infinity takes the largest magnitude.
    dim : int
        The axis that the vectors lie along.
    eps : float
        The smallest divisor, at least 0.

    Returns
    -------
    ndarray
        Same shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.normalize(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    return implementation("normalize")(input, *check_normalize("normalize", input, p, dim, eps))


def normalize_backward(grad_output, input, p=2.0, dim=1, eps=1e-12):
    """Gradient of :func:`normalize`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, p, dim, eps
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.normalize_backward(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]))
    array([[0.5, 0. ]])
    """
    arguments = check_normalize("normalize_backward", input, p, dim, eps)
    check_grad_output("normalize_backward", grad_output, input, input.shape)
    return implementation("normalize_backward")(grad_output, input, *arguments)


def check_pair(function, x1, x2):
    """Both arrays, of at least one dimension, and no more than NumPy broadcasts with one more between them."""
    check_float_array(function, "x1", x1)
    check_same_dtype(function, "x2", x2, "x1", x1)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.ndim == 0:
            raise ValueError(f"{function}: {name} must have at least 1 dimension, got a scalar")
        check_most_dimensions(function, name, x, min(32, LARGEST_NDIM - 1))


def broadcast_shape(function, x1, x2, inner=0):
    """What the shapes broadcast to, without this many inner dimensions."""
    try:
        return np.broadcast_shapes(x1.shape[: x1.ndim - inner], x2.shape[: x2.ndim - inner])
    except ValueError:
        raise ValueError(f"{function}: x1 and x2 must broadcast, got shapes {x1.shape} and {x2.shape}") from None


def check_cdist(function, x1, x2, p):
    """p as a float, and the output's shape."""
    check_pair(function, x1, x2)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.ndim < 2:
            raise ValueError(
                f"{function}: {name} must have at least 2 dimensions (points in rows), got shape {x.shape}"
            )
    if x1.shape[-1] != x2.shape[-1]:
        raise ValueError(
            f"{function}: x1 and x2 must have as many columns, got {x1.shape[-1]} in x1 and {x2.shape[-1]} in x2"
        )
    p = check_number(function, "p", p, 0)
    return p, (*broadcast_shape(function, x1, x2, inner=2), x1.shape[-2], x2.shape[-2])


def check_pairwise(function, x1, x2, p, eps):
    """p and eps as floats, and the broadcast shape."""
    check_pair(function, x1, x2)
    p = check_number(function, "p", p, 0)
    return p, check_number(function, "eps", eps), broadcast_shape(function, x1, x2)


def check_cosine(function, x1, x2, dim, eps):
    """dim from the front, eps as a float, and the broadcast shape."""
    check_pair(function, x1, x2)
    shape = broadcast_shape(function, x1, x2)
    return check_dim(function, dim, len(shape)), check_number(function, "eps", eps, 0), shape


def check_normalize(function, input, p, dim, eps):
    """p, dim from the front and eps, normalised."""
    check_float_array(function, "input", input)
    p = check_number(function, "p", p, 0)
    return p, check_dim(function, dim, input.ndim), check_number(function, "eps", eps, 0)

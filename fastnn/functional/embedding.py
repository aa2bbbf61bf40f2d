"""Embedding and one-hot codes: checked arguments, then the active backend."""

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    LARGEST_NDIM,
    check_elements,
    check_float_array,
    check_grad_output,
    check_integer,
    check_most_dimensions,
    check_ndim,
)

__all__ = ["embedding", "embedding_backward", "one_hot"]


def embedding(input, weight, padding_idx=None):
    """Looks up rows of a table: ``weight[input]``.

    Parameters
    ----------
    input : ndarray of integers
        Row numbers from 0 to K - 1, of any shape.
    weight : ndarray of float32 or float64, (K, D)
        The table.
    padding_idx : int, optional
        A row that gets no gradient, from -K to K - 1; negative ones count from the end. Of no effect here: the row
        is looked up like the others.

    Returns
    -------
    ndarray, (\\*input.shape, D)
        The rows, in ``weight``'s dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.embedding(np.array([2, 0]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    array([[4., 5.],
           [0., 1.]])
    """
    check_embedding("embedding", input, weight, padding_idx)
    return implementation("embedding")(input, weight)


def embedding_backward(grad_output, input, weight, padding_idx=None):
    """Gradient of ``weight`` in :func:`embedding`: the sum of each row's gradients.

    Parameters
    ----------
    grad_output : ndarray, (\\*input.shape, D)
        Gradient of the output.
    input, weight, padding_idx
        The forward's arguments.

    Returns
    -------
    ndarray, (K, D)
        Gradient of ``weight``; 0 in rows that were not looked up, and in row ``padding_idx``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or shape, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.embedding_backward(np.ones((3, 2)), np.array([2, 0, 2]), np.zeros((3, 2)))
    array([[1., 1.],
           [0., 0.],
           [2., 2.]])
    """
    padding_idx = check_embedding("embedding_backward", input, weight, padding_idx)
    shape = (*input.shape, weight.shape[1])
    check_grad_output("embedding_backward", grad_output, weight, shape, "weight")
    return implementation("embedding_backward")(grad_output, input, weight, padding_idx)


def one_hot(tensor, num_classes=-1):
    """Class numbers as rows of zeros with a one.

    Parameters
    ----------
    tensor : ndarray of integers
        Classes from 0 up, of any shape.
    num_classes : int
        Length of the rows; -1 takes the largest class plus one.

    Returns
    -------
    ndarray of int64, (\\*tensor.shape, num_classes)
        The codes. No function of real numbers, so there is no gradient.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or a class is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.one_hot(np.array([2, 0]))
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    check_integer_array("one_hot", "tensor", tensor)
    num_classes = check_integer("one_hot", "num_classes", num_classes, -1)
    if num_classes == -1:
        if tensor.size == 0:
            raise ValueError("one_hot: num_classes must be given where tensor is empty")
        num_classes = int(tensor.max()) + 1
    check_elements("one_hot", (*tensor.shape, num_classes), f"num_classes={num_classes}")
    check_range("one_hot", "tensor", tensor, num_classes, f"num_classes={num_classes}")
    return implementation("one_hot")(tensor, num_classes)


def check_embedding(function, input, weight, padding_idx):
    """padding_idx from the front, after all checks."""
    check_integer_array(function, "input", input)
    check_float_array(function, "weight", weight)
    check_ndim(function, "weight", weight, 2, "(K, D)")
    rows = weight.shape[0]
    check_range(function, "input", input, rows, f"weight has {rows} rows")
    if padding_idx is None:
        return None
    padding_idx = check_integer(function, "padding_idx", padding_idx)
    if not -rows <= padding_idx < rows:
        raise ValueError(
            f"{function}: padding_idx must be from {-rows} to {rows - 1}, as weight has {rows} rows, got {padding_idx}"
        )
    return padding_idx % rows


def check_integer_array(function, name, x):
    """x is a NumPy array of integers."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{function}: {name} must be a NumPy array, got {type(x).__name__}; use numpy.asarray")
    if x.dtype.kind not in "iu":
        raise TypeError(f"{function}: {name} must have an integer dtype, got {x.dtype}")
    check_most_dimensions(function, name, x, LARGEST_NDIM - 1)  # the output has one more


def check_range(function, name, indices, count, reason):
    """All indices are from 0 to count - 1; the message names the first that is not."""
    if indices.size == 0 or (indices.min() >= 0 and indices.max() < count):
        return
    wrong = indices[(indices < 0) | (indices >= count)]
    raise ValueError(f"{function}: {name} must be from 0 to {count - 1} ({reason}), got {wrong.flat[0]}")

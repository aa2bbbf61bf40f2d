"""Dropout: checked arguments, then the active backend."""

import math

from fastnn.backend import implementation
from fastnn.functional.checks import check_float_array, check_integer, check_number
from fastnn.seed import draw_seed

__all__ = ["dropout", "dropout_backward", "gaussian_dropout", "gaussian_dropout_backward"]


def dropout(input, p=0.5, training=True, *, seed=None, position=0):
    """Inverted dropout: each element is zeroed with probability ``p``, the others are divided by ``1 - p``.

    So the expected output is the input, and nothing has to be done at test time. The original form (Hinton et al.,
    2012), which does not scale in training and multiplies by ``1 - p`` at test time, is
    ``dropout(x, p, seed=seed) * (1 - p)`` in training and ``x * (1 - p)`` at test time.

    The mask is a function of ``seed`` and of an element's position in the array (counted in C order, from ``position``)
    alone: element i is zeroed where word i of the seed's Philox4x32-10 stream is below ``p`` 2^32. It has the same bits
    for every dtype, instruction set and number of threads, and the backward recomputes it.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    p : float
        Probability of a zero, from 0 to 1, in steps of 2^-32. 1 zeroes everything.
    training : bool
        If false, the output is a copy of the input.
    seed : int, optional
        From 0 to 2^64 - 1. By default one is drawn from the process's generator (:func:`fastnn.manual_seed`); give
        one where a backward follows.
    position : int
        Position of the first element in the seed's stream, from 0 to 2^63 - 1: a mask can be made in parts.

    Returns
    -------
    ndarray
        Same shape and dtype. Dropped elements are multiplied by 0, so NaN stays NaN and infinities become NaN there.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.dropout(np.ones(8), p=0.5, seed=0)
    array([0., 2., 2., 2., 2., 0., 2., 0.])
    """
    check_float_array("dropout", "input", input)
    p, seed, position = check_dropout("dropout", p, seed, position)
    if not training or p == 0:
        return input.copy()
    return implementation("dropout")(input, p, seed if seed is not None else draw_seed(), position)


def dropout_backward(grad_output, p=0.5, training=True, *, seed, position=0):
    """Gradient of :func:`dropout`: ``grad_output`` under the forward's mask, which is computed again.

    Parameters
    ----------
    grad_output : ndarray of float32 or float64
        Gradient of the output.
    p, training, seed, position
        The forward's; here ``seed`` is required.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.dropout_backward(np.ones(8), p=0.5, seed=0)
    array([0., 2., 2., 2., 2., 0., 2., 0.])
    """
    check_float_array("dropout_backward", "grad_output", grad_output)
    p, seed, position = check_dropout("dropout_backward", p, seed, position, seed_required=True)
    if not training or p == 0:
        return grad_output.copy()
    return implementation("dropout_backward")(grad_output, p, seed, position)


def gaussian_dropout(input, p=0.5, training=True, *, seed=None, std=None):
    """Multiplies each element by noise of its own from N(1, std^2), where std^2 = p / (1 - p) as in :func:`dropout`.

    For a linear unit with squared loss the expected gradient is that of the noise-free loss plus 2 std^2 x_i^2 w_i: an
    L2 penalty weighted by the squares of the inputs.

    The noise is a function of ``seed`` and position (in C order) alone, made by Box-Muller from the seed's
    Philox4x32-10 stream: of each 32 words, word k < 16 gives a radius r = sqrt(-2 log u) with a 24-bit u, and word
    k + 16 an angle a; noise k is 1 + std r cos(a), and noise k + 16 is 1 + std r sin(a). So none is more than 5.77
    deviations from 1. Instruction sets and dtypes agree up to rounding (6e-7 deviations in float32).

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    p : float
        From 0 to less than 1: the noise has the variance that dropout with this probability has.
    training : bool
        If false, the output is a copy of the input.
    seed : int, optional
        From 0 to 2^64 - 1. By default one is drawn from the process's generator (:func:`fastnn.manual_seed`); give
        one where a backward follows.
    std : float, optional
        Standard deviation of the noise, in place of the one that follows from ``p``.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014, section 10.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.gaussian_dropout(np.ones(4), p=0.5, seed=0).round(3)
    array([2.242, 0.825, 1.732, 1.868])
    """
    check_float_array("gaussian_dropout", "input", input)
    std, seed = check_gaussian("gaussian_dropout", p, seed, std)
    if not training or std == 0:
        return input.copy()
    return implementation("gaussian_dropout")(input, std, seed if seed is not None else draw_seed())


def gaussian_dropout_backward(grad_output, p=0.5, training=True, *, seed, std=None):
    """Gradient of :func:`gaussian_dropout`: ``grad_output`` times the forward's noise, which is computed again.

    Parameters
    ----------
    grad_output : ndarray of float32 or float64
        Gradient of the output.
    p, training, seed, std
        The forward's; here ``seed`` is required.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.gaussian_dropout_backward(np.ones(4), p=0.5, seed=0).round(3)
    array([2.242, 0.825, 1.732, 1.868])
    """
    check_float_array("gaussian_dropout_backward", "grad_output", grad_output)
    std, seed = check_gaussian("gaussian_dropout_backward", p, seed, std, seed_required=True)
    if not training or std == 0:
        return grad_output.copy()
    return implementation("gaussian_dropout_backward")(grad_output, std, seed)


def check_dropout(function, p, seed, position, seed_required=False):
    """The arguments of dropout, normalised."""
    p = check_number(function, "p", p, 0, 1)
    seed = check_seed(function, seed, seed_required)
    return p, seed, check_integer(function, "position", position, 0, 2**63 - 1)


def check_gaussian(function, p, seed, std, seed_required=False):
    """The arguments of gaussian_dropout, normalised: the standard deviation in place of p."""
    p = check_number(function, "p", p, 0, 1)
    seed = check_seed(function, seed, seed_required)
    if std is not None:
        std = check_number(function, "std", std, 0)
        if math.isinf(std):
            raise ValueError(f"{function}: std must be finite, got {std}")
    elif p == 1:
        raise ValueError(f"{function}: p must be below 1 (its noise has variance p / (1 - p)), got {p}")
    else:
        std = math.sqrt(p / (1 - p))
    return std, seed


def check_seed(function, seed, required):
    """The seed as an int; None is let through where it is not required."""
    if seed is None and not required:
        return None
    return check_integer(function, "seed", seed, 0, 2**64 - 1)

"""Batches of a data set."""

import operator

import numpy as np

__all__ = ["batches"]


def batches(x, y, size, *, rng=None):
    """Iterate over batches of inputs and targets; the last one may be smaller.

    Parameters
    ----------
    x, y : ndarray
        Inputs and targets, with the examples along the first axis.
    size : int
        Examples per batch.
    rng : numpy.random.Generator or int, optional
        Shuffles the examples (an int is a seed). Without it they come in order, as views without a copy.

    Yields
    ------
    tuple of ndarray
        Inputs and targets of one batch.

    Raises
    ------
    ValueError
        If the numbers of inputs and targets differ, or ``size`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.data import batches
    >>> [y.tolist() for x, y in batches(np.zeros((5, 2)), np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    size = operator.index(size)
    if size < 1:
        raise ValueError(f"batches: size must be at least 1, got {size}")
    if len(x) != len(y):
        raise ValueError(f"batches: x has {len(x)} examples, but y has {len(y)}")
    order = None if rng is None else np.random.default_rng(rng).permutation(len(x))
    return (
        (x[start : start + size], y[start : start + size])
        if order is None
        else (x[order[start : start + size]], y[order[start : start + size]])
        for start in range(0, len(x), size)
    )

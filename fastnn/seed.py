"""The process's generator of random numbers, which dropout's seeds and nn.init's values come from."""

import threading

import numpy as np

from fastnn.functional.checks import check_integer

__all__ = ["draw_seed", "generator", "manual_seed"]

lock = threading.Lock()  # for `current`; NumPy's generators lock their own state
current = None  # made when it is first asked for: importing numpy.random takes 10 ms


def manual_seed(seed):
    """Make everything random in fastnn repeat: dropout's masks, the initial parameters.

    There is one generator per process. Python threads may draw from it at the same time: no value is
    lost or repeated, and which thread gets which depends on how they run.

    Parameters
    ----------
    seed : int
        From 0 to 2^64 - 1.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` is not such an integer.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.manual_seed(0)
    >>> first = fastnn.seed.draw_seed()
    >>> fastnn.manual_seed(0)
    >>> fastnn.seed.draw_seed() == first
    True
    """
    global current
    seed = check_integer("manual_seed", "seed", seed, 0)
    if seed >= 2**64:
        raise ValueError(f"manual_seed: seed must be below 2**64, got {seed}")
    with lock:
        current = np.random.default_rng(seed)


def generator():
    """The process's :class:`numpy.random.Generator`; ask for it each time, as :func:`manual_seed` replaces it."""
    global current
    with lock:
        if current is None:
            current = np.random.default_rng()  # unpredictable, as manual_seed was not called
        return current


def draw_seed():
    """A seed from 0 to 2^64 - 1 from the process's generator."""
    return int(generator().integers(2**64, dtype=np.uint64))

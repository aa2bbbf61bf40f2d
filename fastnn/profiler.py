"""Which kernels run, for how long, and how near they come to the machine's limits."""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastnn.backend import observe
from fastnn.conv_algorithm import telling
from fastnn.runtime import get_num_threads

measure_limits: Callable | None
try:
    from fastnn.machine import measure_limits
except ImportError:  # there are no compiled kernels
    measure_limits = None

__all__ = ["Call", "Profile", "profile"]


class Call(NamedTuple):
    """One call of a kernel.

    Attributes
    ----------
    kernel, arrays : str
        Its name, and the shapes of its arrays.
    start, seconds : float
        When it began, counted from the beginning of the profile, and how long it took.
    flops, bytes : float
        Floating-point operations, those of the sum as it is defined, of convolutions and linear layers (0 for others);
        and the least traffic: inputs read once, outputs written once.
    thread : int
        The thread that called it.
    algorithm : str
        Of a convolution: "im2col", "direct", "winograd", "fft", or the kinds of the first two for patches as rows and
        for groups with channels last, "patches" and "grouped". Empty for others.
    """

    kernel: str
    arrays: str
    start: float
    seconds: float
    flops: float
    bytes: float
    thread: int
    algorithm: str = ""

    @property
    def title(self):
        """The kernel's name with the algorithm."""
        return f"{self.kernel} {self.algorithm}".rstrip()


class Profile:
    """What ``with fastnn.profile() as p:`` has seen; ``print(p)`` shows :meth:`table`.

    Attributes
    ----------
    calls : list of Call
        In the order in which they ended.
    seconds, noting_seconds : float
        Of the whole block, and what of it went into noting the calls, which the table counts nowhere but in the last
        line.
    threads : int
        The number of threads at its beginning.
    """

    def __init__(self):
        self.calls: list[Call] = []
        self.threads = get_num_threads()
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.noting_seconds = 0.0
        self.chosen = threading.local()  # the algorithm of the last convolution, by thread

    def table(self, by="kernel"):
        """Calls, time, rates, and the part of the limits reached, the longest first; convolutions by algorithm.

        The roofline's time for a call is the longer of its operations at the highest rate of multiply-adds and its
        traffic at the bandwidth of memory, both measured when they are first needed (half a second, 200 MB).
        Algorithms that need fewer operations than the sum (Winograd's, Fourier transforms), and arrays in the cache,
        go above 100 %.

        Parameters
        ----------
        by : {"kernel", "arrays"}
            A line per kernel, or one for each of the shapes that it was called with.

        Returns
        -------
        str
        """
        if by not in ("kernel", "arrays"):
            raise ValueError(f"Profile.table: by must be 'kernel' or 'arrays', got {by!r}")
        groups: dict[str, list[Call]] = {}
        for call in self.calls:
            groups.setdefault(call.title if by == "kernel" else f"{call.title} {call.arrays}", []).append(call)
        within = sum(call.seconds for call in self.calls)
        width = max(map(len, [*groups, "elsewhere: Python, NumPy"]))
        lines = [f"{'kernel':{width}}  calls         ms   time  GFLOP/s    GB/s  roofline"]
        if groups:
            limits = limits_of(self.threads)
            for name, calls in sorted(groups.items(), key=lambda item: -sum(call.seconds for call in item[1])):
                lines.append(f"{name:{width}} {figures(calls, self.seconds, limits)}")
        elsewhere = max(0.0, self.seconds - self.noting_seconds - within)
        lines.append(f"{'elsewhere: Python, NumPy':{width}}        {milliseconds(elsewhere, self.seconds)}")
        lines.append(f"{'all':{width}} {len(self.calls):6} {milliseconds(self.seconds, self.seconds)}")
        return "\n".join(lines)

    def __str__(self):
        return self.table()

    def export_chrome_trace(self, path):
        """Write the calls as a file for chrome://tracing or https://ui.perfetto.dev.

        Parameters
        ----------
        path : str or path-like
            A JSON file.
        """
        events = [
            {
                "name": call.title,
                "cat": "kernel",
                "ph": "X",
                "ts": call.start * 1e6,
                "dur": call.seconds * 1e6,
                "pid": os.getpid(),
                "tid": call.thread,
                "args": {"arrays": call.arrays, "GFLOP": call.flops / 1e9, "MB": call.bytes / 1e6},
            }
            for call in self.calls
        ]
        with open(path, "w") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)

    def noting(self, name, kernel):
        """The kernel, which notes each of its calls here."""

        def noted(*arguments, **options):
            self.chosen.algorithm = ""
            start = time.perf_counter()
            result = kernel(*arguments, **options)
            seconds = time.perf_counter() - start
            given, made = arrays_in(arguments), arrays_in(result)
            operations = OPERATIONS[name](*arguments) if name in OPERATIONS else 0
            self.calls.append(
                Call(
                    name,
                    describe(given),
                    start - self.began,
                    seconds,
                    float(operations),
                    float(changed_bytes(arguments) if name.endswith("_") else bytes_of([*given, *made])),
                    threading.get_ident(),
                    self.chosen.algorithm,
                )
            )
            self.noting_seconds += time.perf_counter() - start - seconds
            return result

        return noted


@contextmanager
def profile():
    """Note every kernel that runs in the ``with`` block, in any thread.

    Returns
    -------
    context manager of Profile

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn
    >>> import fastnn.functional as F
    >>> with fastnn.profile() as p:
    ...     y = F.relu(np.ones((2, 3), np.float32))
    >>> [(call.kernel, call.arrays, call.bytes) for call in p.calls]
    [('relu', '2x3', 48.0)]
    >>> print(p.table())  # doctest: +SKIP
    kernel                    calls         ms   time  GFLOP/s    GB/s  roofline
    relu                          1      0.012    61%                4.0       31%
    elsewhere: Python, NumPy                0.008    39%
    all                           1      0.020   100%
    """
    result = Profile()

    def observer(name, kernel):
        return result.noting(name, before(name, kernel) if before else kernel)

    def choice_observer(algorithm):
        result.chosen.algorithm = algorithm

    before = observe(observer)
    try:
        with telling(choice_observer):
            yield result
    finally:
        observe(before)
        result.seconds = time.perf_counter() - result.began


# ----------------------------------------------------------------------------------------------------------------------
# What a call does at least
# ----------------------------------------------------------------------------------------------------------------------


def conv_operations(input, weight, bias, out_size, *rest):
    return 2 * len(input) * weight.size * math.prod(out_size)


def conv_input_grad_operations(grad, weight, *rest):
    return 2 * grad.size * math.prod(weight.shape[1:])


def conv_weight_grad_operations(grad, x, kernel, stride, padding, dilation, groups, *rest):
    return 2 * grad.size * (x.shape[1] // groups) * math.prod(kernel)


def linear_operations(x, weight, bias, *relu):
    return 2 * len(x) * weight.size


def linear_backward_operations(grad, x, weight, needs, *rest):
    return 2 * len(x) * weight.size * sum(needs[:2])


OPERATIONS: dict[str, Callable] = {
    "conv": conv_operations,
    "conv_input_grad": conv_input_grad_operations,
    "conv_weight_grad": conv_weight_grad_operations,
    "linear": linear_operations,
    "linear_backward": linear_backward_operations,
}


def arrays_in(value):
    """The arrays among arguments or results, in lists and tuples too."""
    if isinstance(value, np.ndarray):
        return [value]
    return [array for item in value for array in arrays_in(item)] if isinstance(value, (list, tuple)) else []


def bytes_of(arrays):
    """Of each array once: a result may be one that was given."""
    return sum(array.nbytes for array in {id(array): array for array in arrays}.values())


def changed_bytes(arguments):
    """Of a kernel that changes arrays in place: all read and written but the gradients, its second argument."""
    lists = [arrays_in(argument) for argument in arguments]
    return sum((1 if i == 1 else 2) * bytes_of(arrays) for i, arrays in enumerate(lists))


def describe(arrays):
    """Their shapes; of many the number of their elements."""
    if len(arrays) > 3:
        return f"{len(arrays)} arrays of {sum(array.size for array in arrays)}"
    return ", ".join("x".join(map(str, array.shape)) or "()" for array in arrays)


# ----------------------------------------------------------------------------------------------------------------------
# The table
# ----------------------------------------------------------------------------------------------------------------------


@lru_cache
def limits_of(threads):
    """This machine's limits; None where there are no kernels to measure them with."""
    return None if measure_limits is None else measure_limits(threads)


def figures(calls, whole, limits):
    """A line of the table."""
    seconds, flops, traffic = (sum(getattr(call, name) for call in calls) for name in ("seconds", "flops", "bytes"))
    seconds = max(seconds, 1e-9)
    rate = f"{flops / seconds / 1e9:8.1f}" if flops else " " * 8
    line = f"{len(calls):6} {milliseconds(seconds, whole)} {rate} {traffic / seconds / 1e9:7.1f}"
    if limits is None:
        return line
    least = sum(max(call.flops / limits.flops, call.bytes / limits.bandwidth) for call in calls)
    return f"{line} {least / seconds:9.0%}"


def milliseconds(seconds, whole):
    return f"{seconds * 1e3:10.3f} {seconds / max(whole, 1e-9):6.0%}"

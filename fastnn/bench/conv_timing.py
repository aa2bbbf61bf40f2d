"""Times the layers of `python -m fastnn bench conv`, in a process of its own for each number of threads."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from fastnn.bench.peers import FASTNN, limit_jax
from fastnn.bench.timing import medians_in_turn
from fastnn.bench.workloads import conv2d_arrays
from fastnn.check import error

LARGEST_ERROR = 1e-4  # over the RMS; Winograd's is 2e-5 at most


class WrongResult(Exception):
    """A library's result is not ours."""


@dataclass(frozen=True)
class Row:
    """The median seconds of one layer's calls, by library; `flops` of a forward."""

    layer: str
    threads: int
    algorithms: tuple[str, str, str]
    flops: float
    forward: dict[str, float]
    backward: dict[str, float]

    @property
    def rates(self):
        """fastnn's operations per second, forward and backward."""
        return self.flops / self.forward["fastnn"], 2 * self.flops / self.backward["fastnn"]

    @property
    def ratios(self):
        """The others' times over fastnn's, by column: forward, torch's also forward and backward together."""
        ours, theirs = self.forward["fastnn"], {k: v for k, v in self.forward.items() if k != "fastnn"}
        result = {}
        for name, seconds in theirs.items():
            result[name] = seconds / ours
            if name in self.backward:
                result[f"{name} f+b"] = (seconds + self.backward[name]) / (ours + self.backward["fastnn"])
        return result | ({"best": min(theirs.values()) / ours} if theirs else {})


def measure(layer, threads, seconds, peers):
    """The Row of a layer, after all results were compared."""
    arrays = conv2d_arrays(*layer.geometry)
    libraries = [FASTNN, *peers]
    calls = {library.name: library.build(layer, arrays, threads) for library in libraries}
    forward = {name: call for name, (call, _) in calls.items()}
    backward = {name: call for name, (_, call) in calls.items() if call}
    compare(layer, "output", forward, lambda result: [result])
    compare(layer, "gradients", backward, list)
    return Row(
        layer.name,
        threads,
        layer.algorithms,
        layer.flops,
        dict(zip(forward, medians_in_turn(list(forward.values()), seconds), strict=True)),
        dict(zip(backward, medians_in_turn(list(backward.values()), seconds), strict=True)),
    )


def compare(layer, what, calls, arrays_of):
    """One call of each library, beside fastnn's."""
    ours = arrays_of(calls["fastnn"]())
    for name, call in calls.items():
        for actual, expected in zip(arrays_of(call()), ours, strict=True):
            found = error(np.asarray(actual), expected)
            if not found <= LARGEST_ERROR:
                raise WrongResult(
                    f"{layer.name}: the {what} of fastnn and {name} differ by {found:.1e} of the RMS, "
                    f"more than {LARGEST_ERROR:.0e}"
                )


@contextmanager
def fresh_process(threads):
    """`call(function, *arguments)` in a process where JAX has not started: it takes its number of threads once."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, start_worker, (threads,)) as worker:
        yield lambda function, *arguments: worker.submit(function, *arguments).result()


def start_worker(threads):
    limit_jax(os.environ, threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is interrupted, and ends it

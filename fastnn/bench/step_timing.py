"""Times what `python -m fastnn bench steps` and `bench inference` do with a net, in a process of its own for each
number of threads."""

import resource
import sys
from dataclasses import dataclass

import numpy as np

from fastnn.bench.conv_timing import WrongResult
from fastnn.bench.timing import medians_in_turn

LARGEST_DIFFERENCE = 1e-3  # of losses or scores, relative to the largest; losses to at least 1
WARM_UP = 3  # calls before anything is measured; compilers work in the first one
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


@dataclass(frozen=True)
class Row:
    """The median seconds of a net's step or forward, and how far a process's memory grew, in bytes, by library."""

    net: str
    threads: int
    seconds: dict[str, float]
    memory: dict[str, int]

    @property
    def ratios(self):
        """The others' times over fastnn's."""
        ours, theirs = self.seconds["fastnn"], {k: v for k, v in self.seconds.items() if k != "fastnn"}
        result = {name: seconds / ours for name, seconds in theirs.items()}
        return result | ({"best": min(theirs.values()) / ours} if theirs else {})


def measure(net, threads, budget, libraries):
    """Median seconds by library, once their losses or scores were compared with those of the first, fastnn."""
    calls = {library.name: library.build(net, threads) for library in libraries}
    results = {name: np.array([call() for _ in range(WARM_UP)]) for name, call in calls.items()}
    ours = results["fastnn"]
    largest = max(np.abs(ours).max(), 1.0 if ours.ndim == 1 else 0.0)
    for name, theirs in results.items():
        if not (net.random or np.abs(theirs - ours).max() <= LARGEST_DIFFERENCE * largest):
            raise WrongResult(f"{net}: the first results are {brief(ours)}, but {name}'s {brief(theirs)}")
    return dict(zip(calls, medians_in_turn(list(calls.values()), budget), strict=True))


def brief(results):
    return np.array2string(results.ravel(), precision=4, threshold=6)


def peak_memory(net, threads, library):
    """How far the process's memory grows at most, in bytes; in a fresh process, once what it needs is imported."""
    library.prepare()
    before = resident_bytes()
    step = library.build(net, threads)
    for _ in range(WARM_UP):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT - before


def resident_bytes():
    """What of the process is in memory now; where the system does not say, at most so far."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT

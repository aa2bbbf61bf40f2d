"""Times the training steps of `python -m fastnn bench steps`, in a process of its own for each number of threads."""

import resource
import sys
from dataclasses import dataclass

from fastnn.bench.conv_timing import WrongResult
from fastnn.bench.step_peers import FASTNN
from fastnn.bench.timing import medians_in_turn

LARGEST_DIFFERENCE = 1e-3  # of the losses, relative
WARM_UP = 3  # steps before anything is measured; compilers work in the first one
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


@dataclass(frozen=True)
class Row:
    """The median seconds of a net's step, and how far a process's memory grew for it, in bytes, by library."""

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


def measure_steps(net, threads, budget, peers):
    """Median seconds by library, once their losses were compared."""
    libraries = [FASTNN, *peers]
    steps = {library.name: library.build(net, threads) for library in libraries}
    losses = {name: [step() for _ in range(WARM_UP)] for name, step in steps.items()}
    for name, found in losses.items():
        for actual, expected in zip(found, losses["fastnn"], strict=True):
            if not (net.random or abs(actual - expected) <= LARGEST_DIFFERENCE * max(1.0, abs(expected))):
                raise WrongResult(f"{net}: the losses of the first steps are {losses['fastnn']}, but {name}'s {found}")
    return dict(zip(steps, medians_in_turn(list(steps.values()), budget), strict=True))


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

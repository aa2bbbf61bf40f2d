"""Medians of calls made in turn, so that whatever disturbs the machine disturbs all of them alike."""

import statistics
import time

BURST = 4  # calls of one function before the next one's turn; the first of a burst warms the caches and is not counted
# Seconds before a burst: OpenMP's idle threads spin for a while in wait of more work, and would take the cores from
# the next library's.
PAUSE = 0.002


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians_in_turn(functions, budget):
    """The median time of each function, in seconds; `budget` is the time to spend on all of them together."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    start = time.perf_counter()
    while not times[0] or (time.perf_counter() - start < budget and len(times[0]) < 1000):
        for function, results in zip(functions, times, strict=True):
            time.sleep(PAUSE)
            results.extend([seconds(function) for _ in range(BURST)][1:])
    return [statistics.median(results) for results in times]

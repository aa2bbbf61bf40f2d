"""Medians of calls made in turn, so that whatever disturbs the machine disturbs all of them alike."""

import statistics
import time

BURST = 4  # calls of one function before the next one's turn; the first of a burst warms the caches and is not counted


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
            time.sleep(0.002)  # lets the other library's idle threads fall asleep
            results.extend([seconds(function) for _ in range(BURST)][1:])
    return [statistics.median(results) for results in times]

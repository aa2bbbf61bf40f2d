"""Medians of calls made in turn, so that whatever disturbs the machine disturbs all of them alike."""

import statistics
import time

BURST = 4  # calls of one function before the next one's turn; the first of a burst warms the caches and is not counted
# Idle threads spin for a while in wait of more work, and would take the cores from the next library's: GNU OpenMP's
# for 4 to 8 ms, ONNX Runtime's for 40 ms (measured on Zen 4). Each burst waits them out.
WATCH = 0.005  # seconds; longer than the kernel's clock tick, by which it counts the time of threads on other cores
IDLE = 0.2  # processors in use, at most, while nothing runs
PATIENCE = 2.0  # seconds; something else than a waiting team is at work then


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def wait_until_idle():
    """Sleep until no thread of this process runs."""
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        time.sleep(WATCH)
        if time.process_time() - used < IDLE * (time.perf_counter() - start):
            return


def medians_in_turn(functions, budget):
    """The median time of each function, in seconds; `budget` is the time to spend on all of them together."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    start = time.perf_counter()
    while not times[0] or (time.perf_counter() - start < budget and len(times[0]) < 1000):
        for function, results in zip(functions, times, strict=True):
            wait_until_idle()
            results.extend([seconds(function) for _ in range(BURST)][1:])
    return [statistics.median(results) for results in times]

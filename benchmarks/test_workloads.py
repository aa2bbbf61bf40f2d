"""pytest-benchmark over fastnn.bench's workloads: reference, native and torch side by side, forward and backward.

make bench
pytest benchmarks -k "conv and forward"
"""

import time

import pytest

import fastnn
from fastnn.bench.report import import_torch
from fastnn.bench.workloads import WORKLOADS

SECONDS = 0.3  # spent on each measurement, warm-up not counted
THREADS = sorted({1, fastnn.get_num_threads()})
CALLS = [
    (workload, position, implementation, threads)
    for workload in WORKLOADS
    for position in range(2)
    for threads in THREADS
    for implementation in ("reference", "native", "torch")
]


def identity(call):
    workload, position, implementation, threads = call
    return f"{workload.name}-{'backward' if position else 'forward'}-{threads}threads-{implementation}"


@pytest.mark.parametrize("call", CALLS, ids=identity)
def test_workload(benchmark, call):
    workload, position, implementation, threads = call
    torch = import_torch()
    if implementation == "torch" and torch is None:
        pytest.skip("torch is not installed")
    passes = list(workload.build(torch if implementation == "torch" else None).items())
    if position >= len(passes):
        pytest.skip("this workload has one pass")
    name, timed = passes[position]
    benchmark.group = f"{workload.name}, {name}, {threads} thread{'s' * (threads > 1)}"
    if torch is not None:
        torch.set_num_threads(threads)
    backend = "reference" if implementation == "reference" else "native"
    with fastnn.threads(threads), fastnn.backend(backend):
        function = timed.torch if implementation == "torch" else timed.ours
        start = time.perf_counter()
        function()
        rounds = int(min(100, max(3, SECONDS / (time.perf_counter() - start))))
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info.update(flops=timed.flops, bytes=timed.bytes)

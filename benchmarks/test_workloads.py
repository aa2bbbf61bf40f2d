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
TORCH = import_torch()
CALLS = [
    (workload, name, implementation, threads)
    for workload in WORKLOADS
    for name in workload.passes
    for threads in THREADS
    for implementation in ("reference", "native", *(["torch"] if TORCH else []))
]


def identity(call):
    workload, name, implementation, threads = call
    return f"{workload.name}-{name}-{threads}threads-{implementation}"


@pytest.mark.parametrize("call", CALLS, ids=identity)
def test_workload(benchmark, call):
    workload, name, implementation, threads = call
    timed = workload.build(TORCH if implementation == "torch" else None)[name]
    benchmark.group = f"{workload.name}, {name}, {threads} thread{'s' * (threads > 1)}"
    if TORCH is not None:
        TORCH.set_num_threads(threads)
    backend = "reference" if implementation == "reference" else "native"
    with fastnn.threads(threads), fastnn.backend(backend):
        function = timed.torch if implementation == "torch" else timed.ours
        start = time.perf_counter()
        function()
        rounds = int(min(100, max(3, SECONDS / (time.perf_counter() - start))))
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info.update(flops=timed.flops, bytes=timed.bytes)

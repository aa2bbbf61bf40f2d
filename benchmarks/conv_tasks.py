"""How many threads convolutions have work for, on a machine with any number of cores (GCC, GNU OpenMP).

python benchmarks/conv_tasks.py 16 64

Work is split as for so many threads, but run on one, while each task is timed. Printed are how many times as fast as
one thread that many could be, at best: each parallel region takes as long as its longest task, or as all of them
shared evenly. Waiting for each other, and for memory that they share, is not counted.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

LIBRARY = "FASTNN_RECORD_TASKS"


class Region(ctypes.Structure):
    """As in record_tasks.c."""

    _fields_ = [
        ("threads", ctypes.c_long),
        ("tasks", ctypes.c_long),
        ("total", ctypes.c_double),
        ("longest", ctypes.c_double),
    ]

    @property
    def shared(self):
        """Microseconds on as many threads as were asked for."""
        evenly = self.total / max(1, self.threads)
        return max(evenly, self.longest) if self.tasks else evenly


def speedup(library, call):
    """From the shortest of five processor times of everything."""
    recording, count = (ctypes.c_int.in_dll(library, name) for name in ("recording", "recorded_count"))
    regions = (Region * (1 << 16)).in_dll(library, "recorded_regions")
    call()
    runs = []
    for _ in range(5):
        count.value, recording.value = 0, 1
        start = time.thread_time()
        call()
        total = (time.thread_time() - start) * 1e6
        recording.value = 0
        inside = [(region.total, region.shared) for region in regions[: count.value]]
        runs.append([(total - sum(alone for alone, _ in inside),) * 2, *inside])
    alone, shared = (
        sum(min(times) for times in zip(*[[part[i] for part in run] for run in runs], strict=True)) for i in (0, 1)
    )
    return alone / shared


def report(thread_counts):
    import fastnn
    import fastnn.functional as F
    from fastnn.bench.conv_layers import LAYERS
    from fastnn.bench.workloads import conv2d_arrays

    library = ctypes.CDLL(os.environ[LIBRARY])
    print(f"{'layer':36s}" + "".join(f"{threads:>8d} threads: y, dx, dw" for threads in thread_counts))
    for layer in [*LAYERS, *(replace(layer, images=1) for layer in LAYERS)]:
        x, weight, bias, grad = conv2d_arrays(*layer.geometry)
        arguments = weight, bias, layer.stride, layer.padding
        backward = partial(F.conv2d_backward, grad, x, *arguments)
        calls = [
            partial(F.conv2d, x, *arguments),
            partial(backward, needs=(True, False, False)),
            partial(backward, needs=(False, True, False)),
        ]
        line = f"{layer.name:36s}"
        for threads in thread_counts:
            with fastnn.threads(threads):
                line += "     " + "".join(f"{speedup(library, call):8.1f}" for call in calls)
        print(line, flush=True)


def main():
    thread_counts = [int(argument) for argument in sys.argv[1:]] or [16, 64]
    if LIBRARY in os.environ:
        report(thread_counts)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "record_tasks.so"
        source = Path(__file__).with_name("record_tasks.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
        environment = {**os.environ, LIBRARY: str(library), "LD_PRELOAD": str(library)}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""`python -m fastnn bench conv --algorithms`: what every algorithm takes beside the one that fastnn chooses."""

import json
import time
from dataclasses import asdict, dataclass

import fastnn
import fastnn.functional as F
from fastnn.bench.conv_report import measure_layer, show_progress
from fastnn.bench.conv_timing import fresh_process
from fastnn.bench.report import geometric_mean
from fastnn.bench.timing import medians_in_turn
from fastnn.bench.workloads import conv2d_arrays
from fastnn.conv_algorithm import ALGORITHMS
from fastnn.native import runtime

OPERATIONS = ("forward", "d input", "d weight")
FORCED = ALGORITHMS[1:]  # without "auto"
KINDS = ("patches", "grouped")  # of "im2col" and "direct": what these, or "auto", choose where it is faster
INTRODUCTION = """\
conv2d, float32: GFLOP/s by the direct formula, of every algorithm that can compute a layer: medians of calls made in
turn. The one that fastnn chooses, by shape alone, has a star; "lost": its time over the fastest one's."""


@dataclass(frozen=True)
class Comparison:
    """One operation on one layer: median seconds by algorithm, and which is chosen."""

    layer: str
    threads: int
    operation: str
    flops: float
    chosen: str
    seconds: dict[str, float]

    @property
    def lost(self):
        return self.seconds[self.chosen] / min(self.seconds.values())


def compare_algorithms(layer, threads, seconds):
    """The Comparison of each operation; `seconds` is the time to spend on all algorithms of one of them."""
    fastnn.set_num_threads(threads)
    calls = operations(layer)
    chosen = algorithms_by(layer, "auto")  # whatever FASTNN_CONV_ALGORITHM asks for
    comparisons = []
    for i, operation in enumerate(OPERATIONS):
        able: dict[str, str] = {}  # what to ask for, by what computes then
        for name in (*FORCED, "auto"):
            able.setdefault(algorithms_by(layer, name)[i], name)
        medians = medians_in_turn([computing_by(name, calls[i]) for name in able.values()], seconds)
        times = dict(zip(able, medians, strict=True))
        comparisons.append(Comparison(layer.name, threads, operation, layer.flops, chosen[i], times))
    return comparisons


def operations(layer):
    """Forward, gradient of the input, gradient of the weight and the bias, as functions without arguments."""
    x, weight, bias, dy = conv2d_arrays(*layer.geometry)
    stride, padding = layer.stride, layer.padding
    return (
        lambda: F.conv2d(x, weight, bias, stride, padding),
        lambda: F.conv2d_backward(dy, x, weight, bias, stride, padding, needs=(True, False, False)),
        lambda: F.conv2d_backward(dy, x, weight, bias, stride, padding, needs=(False, True, True)),
    )


def algorithms_by(layer, name):
    """What the three operations are computed by when `name` is asked for: another where it cannot."""
    with fastnn.conv_algorithm(name):
        return layer.algorithms


def computing_by(name, call):
    def function():
        with fastnn.conv_algorithm(name):
            call()

    return function


def header():
    columns = " ".join(f"{name:>9}" for name in (*FORCED, *KINDS))
    return f"{'layer':36} {'operation':9} {columns} {'lost':>5}"


def line(comparison):
    cells = []
    for name in (*FORCED, *KINDS):
        rate = comparison.flops / comparison.seconds[name] / 1e9 if name in comparison.seconds else None
        star = "*" if name == comparison.chosen else " "
        cells.append(f"{'-' if rate is None else f'{rate:.0f}':>8}{star}")
    return f"{comparison.layer:36} {comparison.operation:9} {' '.join(cells)} {comparison.lost:5.2f}"


def print_losses(comparisons):
    for operation in OPERATIONS:
        rows = [row for row in comparisons if row.operation == operation]
        worst = max(rows, key=lambda row: row.lost)
        mean = geometric_mean([row.lost for row in rows])
        print(f"{operation:8} lost {mean:.3f} (geometric mean), at most {worst.lost:.2f}: {worst.layer}")


def print_tables(layers, threads, seconds):
    """Measures and prints, a table per number of threads; returns the rows of each."""
    return [print_table(layers, count, seconds) for count in threads]


def print_table(layers, threads, seconds):
    rows = []
    print(f"\n{threads} thread{'s' * (threads > 1)}, {runtime.isa()}\n{header()}", flush=True)
    with fresh_process(threads) as call:
        start = time.monotonic()
        for i, layer in enumerate(layers):
            show_progress(layer, threads, i, len(layers), time.monotonic() - start)
            found = measure_layer(call, compare_algorithms, layer, threads, seconds)
            print("\n".join(map(line, found)), flush=True)
            rows += found
    print_losses(rows)
    return rows


def write_json(tables, path):
    """Seconds by algorithm; the flops are those of one operation."""
    tables = [[asdict(row) | {"lost": row.lost} for row in rows] for rows in tables]
    with open(path, "w") as file:
        json.dump({"fastnn": fastnn.__version__, "instruction set": runtime.isa(), "tables": tables}, file, indent=1)

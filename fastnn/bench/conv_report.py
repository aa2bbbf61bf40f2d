"""The table of `python -m fastnn bench conv`, its JSON file and its bar chart."""

import json
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass

import numpy as np

import fastnn
from fastnn.bench.conv_timing import Row, WrongResult, fresh_process, measure
from fastnn.bench.report import geometric_mean, limits_line
from fastnn.machine import Limits, measure_limits
from fastnn.native import runtime

INTRODUCTION = """\
conv2d with bias, float32: medians of calls made in turn in one process, each library's in bursts of a few, the first
not counted, once the threads of the library before have gone to rest. The backward computes all three gradients.
GFLOP/s by the direct formula, forward and backward, and as a share of the peak that was measured just before: it passes
100 % where an algorithm (Winograd, Fourier transforms) takes fewer operations than the formula."""
RATIOS = """\
Ratios: the library's time / fastnn's, forward; f+b: forward + backward; best: the fastest library of each row."""
WIDTH = 79  # of the line of progress


@dataclass(frozen=True)
class Table:
    """What was measured with one number of threads."""

    threads: int
    limits: Limits
    rows: list[Row]


def print_introduction(peers, missing):
    print(INTRODUCTION)
    if peers:
        print(f"{RATIOS}\nAll on the same number of threads:")
    for peer in peers:
        print(f"    {peer}")
    for peer in missing:
        print(f"    {peer.how_to_install}")


def print_tables(layers, threads, seconds, peers):
    """Measures and prints, one Table per number of threads; returns them."""
    tables: list[Table] = []
    for count in sorted(threads):
        tables.append(print_table(layers, count, seconds, peers, tables[-1].limits if tables else None))
    return tables


def print_table(layers, threads, seconds, peers, before=None):
    """`before`: the limits on fewer threads, if they were measured."""
    rows: list[Row] = []
    with fresh_process(threads) as call:
        limits = call(measure_limits, threads)
        print(f"\n{limits_line(threads, limits)}", flush=True)
        if before and limits.flops < before.flops:
            print("This machine is busy: its peak was higher on fewer threads. Do not rely on these figures.")
        start = time.monotonic()
        for layer in layers:
            show_progress(layer.name, threads, len(rows), len(layers), time.monotonic() - start)
            rows.append(measure_layer(call, measure, layer, threads, seconds, peers))
            if len(rows) == 1:
                print(header(rows[0]))
            print(line(rows[-1], limits), flush=True)
    print_means(rows)
    return Table(threads, limits, rows)


def measure_layer(call, function, layer, *arguments):
    """function(layer, *arguments) in the other process; what goes wrong there ends the command in a line."""
    try:
        return call(function, layer, *arguments)
    except WrongResult as wrong:
        raise SystemExit(f"fastnn: bench: {wrong}") from None
    except BrokenProcessPool:
        raise SystemExit(f"fastnn: bench: the process that timed {layer.name} died; is there enough memory?") from None
    except MemoryError as error:
        raise SystemExit(f"fastnn: bench: {layer.name}: {error}") from None
    finally:
        clear_progress()


def clear_progress():
    if sys.stderr.isatty():
        print(f"\r{'':{WIDTH}}\r", end="", file=sys.stderr, flush=True)


def show_progress(name, threads, done, total, elapsed):
    if sys.stderr.isatty():
        left = f", about {elapsed / done * (total - done):.0f} s left" if done else ""
        text = f"{done + 1} of {total} at {threads} threads{left}: {name}"
        print(f"\r{text:<{WIDTH}}", end="", file=sys.stderr, flush=True)


def header(row):
    return (
        f"{'layer':36} {'forward':8} {'d input':8} {'d weight':8} {'fwd ms':>8} {'bwd ms':>8} "
        f"{'GF/s fwd':>8} {'bwd':>6} {'% fwd':>6} {'bwd':>5}{''.join(f' {name:>11}' for name in row.ratios)}"
    )


def line(row, limits):
    forward, backward = row.rates
    return (
        f"{row.layer:36} {' '.join(f'{name:8}' for name in row.algorithms)} "
        f"{row.forward['fastnn'] * 1e3:8.3f} {row.backward['fastnn'] * 1e3:8.3f} "
        f"{forward / 1e9:8.1f} {backward / 1e9:6.1f} {forward / limits.flops:6.0%} {backward / limits.flops:5.0%}"
        f"{''.join(f' {ratio:11.2f}' for ratio in row.ratios.values())}"
    )


def print_means(rows):
    for name in rows[0].ratios:
        ratios = [row.ratios[name] for row in rows]
        below = sum(ratio < 1 for ratio in ratios)
        print(
            f"{name:11} geometric mean {geometric_mean(ratios):.2f}, smallest {min(ratios):.2f}, "
            f"{below} of {len(ratios)} rows below 1.0"
        )


def write_json(tables, peers, path):
    """Seconds and operations per second; a row's flops are those of its forward."""
    report = {
        "fastnn": fastnn.__version__,
        "instruction set": runtime.isa(),
        "peers": {peer.name: peer.version for peer in peers},
        "tables": [asdict(table) for table in tables],
    }
    for table, written in zip(tables, report["tables"], strict=True):
        for row, entry in zip(table.rows, written["rows"], strict=True):
            entry["ratios"] = row.ratios
    with open(path, "w") as file:
        json.dump(report, file, indent=1)


def plot(tables, path):
    """A bar per row and column of ratios, from 1 on a logarithmic scale; without peers, percent of the peak instead."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = 3 + 5 * len(tables), 1.5 + 0.4 * len(tables[0].rows)
    figure, panels = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, table in zip(panels[0], tables, strict=True):
        names = [row.layer for row in table.rows]
        if table.rows[0].ratios:
            draw_bars(axes, table.threads, names, [row.ratios for row in table.rows], 1)
            axes.set(xlabel="the library's time / fastnn's: right of 1, fastnn is faster", xscale="log")
            axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(2, numticks=9))
            axes.xaxis.set_major_formatter("{x:.2g}")
            axes.minorticks_off()
        else:
            draw_bars(axes, table.threads, names, [percents(row, table.limits) for row in table.rows], 0)
            axes.set(xlabel="% of the peak, by the direct formula")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_bars(axes, threads, rows, values, origin):
    """values: a dictionary of numbers for each row, with the same names."""
    names = [name for name in values[0] if name != "best"]  # which is one of the others
    places, height = np.arange(len(values)), 0.8 / len(names)
    for i, name in enumerate(names):
        lengths = [value[name] - origin for value in values]
        axes.barh(places + i * height, lengths, height, left=origin, label=name, align="edge")
    axes.set_yticks(places + 0.4, rows)
    axes.set(title=f"{threads} thread{'s' * (threads > 1)}", ylim=(len(values), -0.2))
    axes.grid(True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.axvline(origin, color="black", lw=1)


def percents(row, limits):
    forward, backward = row.rates
    return {"forward": 100 * forward / limits.flops, "backward": 100 * backward / limits.flops}

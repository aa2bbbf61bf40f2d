"""The table of `python -m fastnn bench steps` or `bench inference`, its JSON file and its bar chart."""

import json
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict

import fastnn
from fastnn.bench.conv_report import clear_progress, draw_bars, print_means, show_progress
from fastnn.bench.conv_timing import WrongResult, fresh_process
from fastnn.bench.step_timing import Row, measure, peak_memory
from fastnn.native import runtime

STEPS = """\
Training steps on one batch, float32: forward, cross-entropy, backward, Adam. Milliseconds are medians of steps made in
turn in one process, each library's in bursts of a few, the first not counted. MB is how far the memory of a process
grows that makes three steps with this library alone."""
INFERENCE = """\
Forwards of one batch in evaluation mode, float32. Milliseconds are medians of calls made in turn in one process, each
library's in bursts of a few, the first not counted. MB is how far the memory of a process grows that makes three with
this library alone."""
RATIOS = (
    "Ratios: the library's time / fastnn's; best: the fastest library of each row. All on the same number of threads:"
)


def print_introduction(text, peers, missing):
    print(text)
    if peers:
        print(RATIOS)
    for peer in peers:
        print(f"    {peer}")
    for peer in missing:
        print(f"    {peer.how_to_install}")


def print_tables(nets, threads, seconds, libraries):
    """Measures and prints; returns the rows by number of threads. The first library is fastnn."""
    tables = {}
    for count in sorted(threads):
        print(f"\n{count} thread{'s' * (count > 1)}, {runtime.isa()}")
        print(header(libraries), flush=True)
        start, rows = time.monotonic(), []
        for i, net in enumerate(nets):
            show_progress(str(net), count, i, len(nets), time.monotonic() - start)
            rows.append(measure_row(net, count, seconds, libraries))
            clear_progress()
            print(line(rows[-1]), flush=True)
        if len(libraries) > 1:
            print_means(rows)
        tables[count] = rows
    return tables


def measure_row(net, threads, seconds, libraries):
    """What goes wrong in the processes that measure ends the command in a line."""
    memory = {}
    try:
        with fresh_process(threads) as call:
            medians = call(measure, net, threads, seconds, libraries)
        for library in libraries:
            with fresh_process(threads) as call:
                memory[library.name] = call(peak_memory, net, threads, library)
    except WrongResult as wrong:
        raise SystemExit(f"fastnn: bench: {wrong}") from None
    except BrokenProcessPool:
        raise SystemExit(f"fastnn: bench: the process that measured {net} died; is there enough memory?") from None
    finally:
        clear_progress()
    return Row(str(net), threads, medians, memory)


def header(libraries):
    names = [library.name for library in libraries]
    times = "".join(f"{name} ms".rjust(17) for name in names)
    ratios = "".join(f"{name:>14}" for name in names[1:]) + ("  best" if names[1:] else "")
    return f"{'net':26}{times} {ratios}  MB"


def line(row):
    times = "".join(f"{seconds * 1e3:17.2f}" for seconds in row.seconds.values())
    ratios = "".join(f"{ratio:{6 if name == 'best' else 14}.2f}" for name, ratio in row.ratios.items())
    return f"{row.net:26}{times} {ratios}  {' '.join(f'{size / 1e6:.0f}' for size in row.memory.values())}"


def write_json(tables, peers, path):
    report = {
        "fastnn": fastnn.__version__,
        "instruction set": runtime.isa(),
        "peers": {peer.name: peer.version for peer in peers},
        "rows": [asdict(row) | {"ratios": row.ratios} for rows in tables.values() for row in rows],
    }
    with open(path, "w") as file:
        json.dump(report, file, indent=1)


def plot(tables, path):
    """A bar per net and library, from 1 on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(next(iter(tables.values())))
    size = 3 + 5 * len(tables), 1.5 + 0.6 * count
    figure, panels = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, (threads, rows) in zip(panels[0], tables.items(), strict=True):
        draw_bars(axes, threads, [row.net for row in rows], [row.ratios for row in rows], 1)
        axes.set(xlabel="the library's time / fastnn's: right of 1, fastnn is faster", xscale="log")
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(2, numticks=9))
        axes.xaxis.set_major_formatter("{x:.2g}")
        axes.minorticks_off()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=110)
    plt.close(figure)

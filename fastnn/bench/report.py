"""The table of `python -m fastnn bench`, and the roofline plot."""

import math
from dataclasses import dataclass

import fastnn
from fastnn.bench.machine import measure_limits
from fastnn.bench.timing import medians_in_turn
from fastnn.bench.workloads import WORKLOADS
from fastnn.native import runtime

HEADER = (
    f"{'workload':44} {'pass':14} {'fastnn ms':>10} {'torch ms':>10} {'ratio':>6} {'GFLOP/s':>8} {'% peak':>7} "
    f"{'GB/s':>7} {'% triad':>8}"
)


@dataclass(frozen=True)
class Row:
    workload: str
    family: str
    name: str
    threads: int
    ours: float
    torch: float | None
    flops: float
    bytes: float


def import_torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


def measure(families, threads, seconds, torch):
    """Rows of all workloads of these families (all, where none is named), one after the other."""
    if torch is not None:
        torch.set_num_threads(threads)
    with fastnn.threads(threads):
        for workload in WORKLOADS:
            if families and workload.family not in families:
                continue
            for name, timed in workload.build(torch).items():
                calls = [timed.ours] + ([timed.torch] if timed.torch else [])
                ours, *theirs = medians_in_turn(calls, seconds)
                peer = theirs[0] if theirs else None
                yield Row(workload.name, workload.family, name, threads, ours, peer, timed.flops, timed.bytes)


def line(row, limits):
    peer = f"{row.torch * 1e3:10.3f} {row.torch / row.ours:6.2f}" if row.torch else f"{'-':>10} {'-':>6}"
    flops, bandwidth = row.flops / row.ours, row.bytes / row.ours
    return (
        f"{row.workload:44} {row.name:14} {row.ours * 1e3:10.3f} {peer} {flops / 1e9:8.1f} "
        f"{flops / limits.flops:7.0%} {bandwidth / 1e9:7.1f} {bandwidth / limits.bandwidth:8.0%}"
    )


def limits_line(threads, limits):
    peak, triad = limits.flops / 1e9, limits.bandwidth / 1e9
    return f"{threads} thread{'s' * (threads > 1)}, {runtime.isa()}: peak {peak:.0f} GFLOP/s, triad {triad:.0f} GB/s"


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def print_table(families, threads, seconds):
    """Measures and prints, one table per number of threads; returns the rows and the limits by number of threads."""
    torch = import_torch()
    rows, limits = [], {}
    print(
        "Medians of calls made in turn; ratio = torch's time / fastnn's"
        + ("" if torch else " (torch is not installed)")
    )
    for count in threads:
        limits[count] = measure_limits(count)
        print(f"\n{limits_line(count, limits[count])}")
        print(HEADER)
        measured = []
        for row in measure(families, count, seconds, torch):
            print(line(row, limits[count]), flush=True)
            measured.append(row)
        ratios = [row.torch / row.ours for row in measured if row.torch]
        if ratios:
            print(f"geometric mean of the ratio {geometric_mean(ratios):.2f}, smallest {min(ratios):.2f}")
        rows += measured
    return rows, limits


def plot_roofline(rows, limits, path):
    """Operations per second against operations per byte, under the machine's two limits; most threads only."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    threads = max(limits)
    limit, rows = limits[threads], [row for row in rows if row.threads == threads]
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    intensities = [row.flops / row.bytes for row in rows]
    left, right = min(intensities) / 2, max(max(intensities), limit.flops / limit.bandwidth) * 2
    ridge = limit.flops / limit.bandwidth
    axes.plot([left, ridge, right], [left * limit.bandwidth / 1e9, limit.flops / 1e9, limit.flops / 1e9], "k-", lw=1.5)
    axes.text(right, limit.flops / 1e9, f"{limit.flops / 1e9:.0f} GFLOP/s", ha="right", va="bottom")
    axes.text(left * 1.1, left * 1.1 * limit.bandwidth / 1e9 * 1.25, f"{limit.bandwidth / 1e9:.0f} GB/s", rotation=33)
    for i, family in enumerate(dict.fromkeys(row.family for row in rows)):
        colour = f"C{i}"
        chosen = [row for row in rows if row.family == family]
        x = [row.flops / row.bytes for row in chosen]
        axes.scatter(x, [row.flops / row.ours / 1e9 for row in chosen], s=42, color=colour, label=family, zorder=3)
        if all(row.torch for row in chosen):
            y = [row.flops / row.torch / 1e9 for row in chosen]
            axes.scatter(x, y, s=42, facecolors="none", edgecolors=colour, zorder=2)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="floating-point operations per byte that must be moved",
        ylabel="GFLOP/s",
        title=f"fastnn (filled) and torch (hollow) under this machine's limits, {threads} threads",
    )
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)

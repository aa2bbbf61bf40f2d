"""The table of `python -m fastnn bench`, and the roofline plot."""

import math
from dataclasses import dataclass

import fastnn
from fastnn.bench.timing import medians_in_turn
from fastnn.bench.workloads import WORKLOADS
from fastnn.machine import measure_limits
from fastnn.native import runtime


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


def chosen_workloads(families, torch):
    """Those of these families (all, where none is named); what differs in torch's options is one without torch."""
    chosen: dict = {}
    for workload in WORKLOADS:
        if not families or workload.family in families:
            name = workload.name if torch is not None else workload.name.split(", torch's")[0]
            chosen.setdefault(name, workload)
    return chosen


def measure(families, threads, seconds, torch):
    """Rows of the chosen workloads, one after the other."""
    if torch is not None:
        torch.set_num_threads(threads)
    with fastnn.threads(threads):
        for title, workload in chosen_workloads(families, torch).items():
            for name, timed in workload.build(torch).items():
                calls = [timed.ours] + ([timed.torch] if timed.torch else [])
                ours, *theirs = medians_in_turn(calls, seconds)
                peer = theirs[0] if theirs else None
                yield Row(title, workload.family, name, threads, ours, peer, timed.flops, timed.bytes)


def header(torch):
    peer = f" {'torch ms':>10} {'ratio':>6}" if torch else ""
    figures = f"{'GFLOP/s':>8} {'% peak':>7} {'GB/s':>7} {'% triad':>8}"
    return f"{'workload':44} {'pass':14} {'fastnn ms':>10}{peer} {figures}"


def line(row, limits):
    peer = f" {row.torch * 1e3:10.3f} {row.torch / row.ours:6.2f}" if row.torch else ""
    flops, bandwidth = row.flops / row.ours, row.bytes / row.ours
    return (
        f"{row.workload:44} {row.name:14} {row.ours * 1e3:10.3f}{peer} {flops / 1e9:8.1f} "
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
    compared = "ratio = torch's time / fastnn's" if torch else "torch, which is not installed, would be compared with"
    print(f"Medians of calls made in turn; {compared}")
    print("% triad: of the memory's bandwidth; above 100 % where arrays stay in the caches between calls")
    for count in threads:
        limits[count] = measure_limits(count)
        print(f"\n{limits_line(count, limits[count])}")
        print(header(torch))
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
    roof = [left * limit.bandwidth / 1e9, limit.flops / 1e9, limit.flops / 1e9]
    limits_label = f"{limit.bandwidth / 1e9:.0f} GB/s and {limit.flops / 1e9:.0f} GFLOP/s"
    axes.plot([left, ridge, right], roof, "k-", lw=1.5, label=limits_label)
    for i, family in enumerate(dict.fromkeys(row.family for row in rows)):
        colour = f"C{i}"
        chosen = [row for row in rows if row.family == family]
        x = [row.flops / row.bytes for row in chosen]
        axes.scatter(x, [row.flops / row.ours / 1e9 for row in chosen], s=42, color=colour, label=family, zorder=3)
        if all(row.torch for row in chosen):
            y = [row.flops / row.torch / 1e9 for row in chosen]
            axes.scatter(x, y, s=42, facecolors="none", edgecolors=colour, zorder=2)
    who = "fastnn (filled) and torch (hollow)" if any(row.torch for row in rows) else "fastnn"
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="floating-point operations per byte that must be moved",
        ylabel="GFLOP/s",
        title=f"{who} under this machine's limits, {threads} thread{'s' * (threads > 1)}",
    )
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=130)
    plt.close(figure)

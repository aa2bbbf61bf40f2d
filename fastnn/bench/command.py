"""`python -m fastnn bench`."""

import importlib.util
import sys
from pathlib import Path

import fastnn
from fastnn.bench.report import plot_roofline, print_table
from fastnn.bench.workloads import WORKLOADS
from fastnn.cli import UsageError
from fastnn.cli.numbers import positive, thread_count

FAMILIES = list(dict.fromkeys(workload.family for workload in WORKLOADS))


def add_arguments(parser):
    parser.add_argument("families", nargs="*", metavar="family", help=f"some of {', '.join(FAMILIES)}; all if none")
    parser.add_argument("--threads", type=thread_count, nargs="+", help="numbers of threads (default: 1 and all)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="time to spend on each call (default: 1)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the roofline into this file")


def run(arguments):
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        raise UsageError(f"bench: there is no family {', '.join(sorted(unknown))}; choose from {', '.join(FAMILIES)}")
    if arguments.plot:
        check_plot(arguments.plot)
    threads = arguments.threads or sorted({1, fastnn.get_num_threads()})
    rows, limits = print_table(arguments.families, threads, arguments.seconds)
    if arguments.plot:
        plot_roofline(rows, limits, arguments.plot)
        print(f"roofline drawn in {arguments.plot}")


def check_plot(path):
    """A picture that cannot be drawn is better known before the measurements than after them."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"bench: --plot needs matplotlib: {sys.executable} -m pip install matplotlib")
    if Path(path).suffix not in (".png", ".pdf", ".svg"):
        raise UsageError(f"bench: the name of the picture must end in .png, .pdf or .svg, got {path}")
    if not Path(path).parent.is_dir():
        raise UsageError(f"bench: there is no folder {Path(path).parent} for the picture")

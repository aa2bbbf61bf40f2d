"""`python -m fastnn bench`."""

import argparse
import importlib.util
import sys
from pathlib import Path

import fastnn
from fastnn.bench import conv_choice, conv_report, inference_peers, step_peers, step_report
from fastnn.bench.conv_layers import BATCHES, FITTED, LAYERS, parse_geometry, select
from fastnn.bench.peers import PEERS
from fastnn.bench.report import plot_roofline, print_table
from fastnn.bench.step_nets import NETS
from fastnn.bench.workloads import WORKLOADS
from fastnn.cli import UsageError
from fastnn.cli.numbers import positive, thread_count

FAMILIES = list(dict.fromkeys(workload.family for workload in WORKLOADS))
CONV_OPTIONS = ("peers", "algorithms", "layers", "geometry", "batch", "json")
STEP_OPTIONS = ("peers", "nets", "json")
ALONE = {"conv": CONV_OPTIONS, "steps": STEP_OPTIONS, "inference": STEP_OPTIONS}


def add_arguments(parser):
    parser.add_argument(
        "families",
        nargs="*",
        metavar="family",
        help=f"some of {', '.join(FAMILIES)}; all if none; or steps, or inference",
    )
    parser.add_argument("--threads", type=thread_count, nargs="+", help="numbers of threads (default: 1 and all)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="time to spend on each call (default: 1)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the roofline, or the ratios, into this file")
    alone = parser.add_argument_group(
        "with conv, the layers of well-known networks, or steps or inference of whole networks, alone"
    )
    alone.add_argument("--peers", action="store_true", default=None, help="beside other libraries")
    alone.add_argument("--json", metavar="FILE", help="write everything that was measured into this file")
    steps = parser.add_argument_group("with steps or inference alone")
    steps.add_argument("--nets", nargs="+", metavar="WORD", help="only those with one of these words in their names")
    conv = parser.add_argument_group("with the family conv alone")
    conv.add_argument("--algorithms", action="store_true", default=None, help="every algorithm beside the chosen one")
    conv.add_argument("--layers", nargs="+", metavar="WORD", help="only those with one of these words in their names")
    conv.add_argument(
        "--geometry",
        type=geometry,
        nargs="+",
        action="extend",
        metavar="N,C,K,H,R,stride,padding",
        help="these instead: images, channels, output channels, size, filter, stride, padding (square, one group)",
    )
    conv.add_argument("--batch", choices=BATCHES, help="the layers' own batch, a single image, or (default) both")


def geometry(text):
    try:
        return parse_geometry(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def run(arguments):
    alone = arguments.families if arguments.families in [[family] for family in ALONE] else []
    unknown = set(arguments.families) - set(FAMILIES) - set(alone)
    if unknown:
        raise UsageError(f"bench: there is no family {', '.join(sorted(unknown))}; choose from {', '.join(FAMILIES)}")
    if arguments.plot:
        check_plot(arguments.plot)
        check_folder(arguments.plot, "picture")
    if arguments.json:
        check_folder(arguments.json, "figures")
    threads = arguments.threads or sorted({1, fastnn.get_num_threads()})
    for option in dict.fromkeys((*CONV_OPTIONS, *STEP_OPTIONS)):
        owners = [family for family, options in ALONE.items() if option in options]
        if getattr(arguments, option) is not None and alone not in [[family] for family in owners]:
            raise UsageError(
                f"bench: --{option} belongs to {' or '.join(owners)} alone: python -m fastnn bench {owners[0]}"
            )
    if alone:
        (run_conv if alone == ["conv"] else run_nets)(arguments, threads)
        return
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


def check_folder(path, content):
    if not Path(path).parent.is_dir():
        raise UsageError(f"bench: there is no folder {Path(path).parent} for the {content}")


def run_conv(arguments, threads):
    layers = choose_layers(arguments)
    if arguments.algorithms:
        compare_algorithms(arguments, layers, threads)
        return
    peers = [peer for peer in PEERS if arguments.peers and peer.version]
    missing = [peer for peer in PEERS if arguments.peers and not peer.version]
    conv_report.print_introduction(peers, missing)
    tables = conv_report.print_tables(layers, threads, arguments.seconds, peers)
    keep(arguments, conv_report, tables, peers)


def run_nets(arguments, threads):
    inference = arguments.families == ["inference"]
    library = inference_peers if inference else step_peers
    nets = inference_peers.inference_nets() if inference else NETS
    nets = [net for net in nets if not arguments.nets or any(word in net.name for word in arguments.nets)]
    if not nets:
        names = ", ".join(dict.fromkeys(net.name for net in NETS))
        raise UsageError(f"bench: no net has {' or '.join(arguments.nets)} in its name; there are {names}")
    peers = [peer for peer in library.PEERS if arguments.peers and peer.version]
    if arguments.plot and not peers:
        raise UsageError(f"bench: {arguments.families[0]} draws ratios: add --peers, and install one of them")
    missing = [peer for peer in library.PEERS if arguments.peers and not peer.version]
    introduction = step_report.INFERENCE if inference else step_report.STEPS
    step_report.print_introduction(introduction, peers, missing)
    tables = step_report.print_tables(nets, threads, arguments.seconds, [library.FASTNN, *peers])
    keep(arguments, step_report, tables, peers)


def keep(arguments, report, tables, peers):
    if arguments.json:
        report.write_json(tables, peers, arguments.json)
        print(f"written into {arguments.json}")
    if arguments.plot:
        report.plot(tables, arguments.plot)
        print(f"drawn in {arguments.plot}")


def choose_layers(arguments):
    if arguments.geometry:
        if arguments.layers or arguments.batch:
            raise UsageError("bench: --geometry stands for itself: leave out --layers and --batch")
        return arguments.geometry
    layers = select(arguments.batch or "both", arguments.layers)
    if not layers:
        networks = ", ".join(dict.fromkeys(layer.network for layer in LAYERS))
        raise UsageError(
            f"bench: no layer has {' or '.join(arguments.layers)} in its name; they are named after {networks}, "
            f"like {LAYERS[0].name!r}"
        )
    return layers + FITTED if arguments.algorithms and not (arguments.layers or arguments.batch) else layers


def compare_algorithms(arguments, layers, threads):
    for option in ("peers", "plot"):
        if getattr(arguments, option):
            raise UsageError(f"bench: --algorithms compares fastnn's own, as a table: leave out --{option}")
    print(conv_choice.INTRODUCTION)
    tables = conv_choice.print_tables(layers, threads, arguments.seconds)
    if arguments.json:
        conv_choice.write_json(tables, arguments.json)
        print(f"written into {arguments.json}")

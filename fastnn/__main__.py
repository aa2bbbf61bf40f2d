"""The command line: python -m fastnn COMMAND."""

import argparse
import importlib
import os
import sys

import fastnn
from fastnn.backend import missing_kernels, native
from fastnn.cli import UsageError
from fastnn.data import DataError
from fastnn.training import CheckpointError

# Each module has add_arguments(parser) and run(arguments), which returns the exit status, or None for success.
COMMANDS = {
    "demo": ("fastnn.cli.demo", "watch LeNet-5 learn handwritten digits, in less than a minute"),
    "train": ("fastnn.cli.train", "train a small network on MNIST, Fashion-MNIST or CIFAR-10 files"),
    "bench": ("fastnn.bench.command", "time the kernels beside this machine's limits, and beside PyTorch's"),
    "info": ("fastnn.cli.info", "print what this installation is made of and what it runs on"),
    "check": ("fastnn.cli.check", "prove every compiled kernel against NumPy in float64, on this machine"),
}


def main(arguments=None):
    """Run one command; returns the exit status. Only the module of that command is imported."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m fastnn", description="Neural-network layers for CPUs.")
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    if native is None and needs_kernels(arguments[:1]):
        print(f"fastnn: {missing_kernels()}", file=sys.stderr)
        return 2
    if arguments[:1] == ["bench"] and fastnn.get_backend() == "reference":
        print("fastnn: bench times the compiled kernels: leave FASTNN_BACKEND=reference out", file=sys.stderr)
        return 2
    for name, (path, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name in arguments[:1]:
            module = importlib.import_module(path)
            module.add_arguments(command)
            command.set_defaults(run=module.run, words=arguments)
    if not arguments:
        parser.exit(2, parser.format_help())
    chosen = parser.parse_args(arguments)
    try:
        status = chosen.run(chosen) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        print(f"\nfastnn: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"fastnn: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes once more as it ends
        return 1
    except (OSError, DataError, CheckpointError, FloatingPointError) as error:
        print(f"fastnn: {error}", file=sys.stderr)
        return 1


def needs_kernels(command):
    """Whether this command cannot run on NumPy alone; those that train can, where that is asked for."""
    slow = {"demo", "train"} if os.environ.get("FASTNN_BACKEND") == "reference" else set()
    return bool(set(command) & ({"bench", "check", "demo", "train"} - slow))


if __name__ == "__main__":
    sys.exit(main())

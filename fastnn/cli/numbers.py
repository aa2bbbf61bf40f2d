"""Types of numbers on the command line, whose messages say what is expected."""

import argparse
import math
import os

__all__ = ["positive", "thread_count", "whole", "whole_from_zero"]

THREADS_PER_CPU = 4  # beyond which more threads are surely a slip


def whole(text, smallest=1):
    if not text.strip().removeprefix("+").isdecimal() or int(text) < smallest:
        raise argparse.ArgumentTypeError(f"must be a whole number from {smallest} up, got {text!r}")
    return int(text)


def whole_from_zero(text):
    return whole(text, smallest=0)


def thread_count(text):
    count, cpus = whole(text), os.cpu_count() or 1
    if count > THREADS_PER_CPU * cpus:
        raise argparse.ArgumentTypeError(f"must be at most {THREADS_PER_CPU * cpus} on {cpus} CPUs, got {text!r}")
    return count


def positive(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number

"""`python -m fastnn check`."""

import sys

from fastnn import check
from fastnn.backend import native


def add_arguments(parser):
    pass


def run(arguments):
    if native is None:
        from fastnn.backend import native_error

        print(f"fastnn check: the compiled kernels cannot be loaded ({native_error}); reinstall", file=sys.stderr)
        return 1
    return 0 if check.print_table(check.run_checks()) else 1

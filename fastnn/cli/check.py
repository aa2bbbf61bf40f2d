"""`python -m fastnn check`."""

from fastnn import check


def add_arguments(parser):
    pass


def run(arguments):
    return 0 if check.print_table(check.run_checks()) else 1

"""The commands of ``python -m fastnn``: one module each, with ``add_arguments(parser)`` and ``run(arguments)``."""


class UsageError(Exception):
    """The command cannot do what its arguments ask for; said in one line, with exit status 2."""

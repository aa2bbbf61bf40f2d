"""The commands of ``python -m fastnn``: one module each, with ``add_arguments(parser)`` and ``run(arguments)``."""

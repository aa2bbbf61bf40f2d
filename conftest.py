"""Doctests find the public names: the packages are complete before pytest imports one of their files on its own."""

import importlib

for package in ("fastnn", "fastnn.data"):
    importlib.import_module(package)

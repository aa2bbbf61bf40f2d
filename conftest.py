"""Doctests find the public names: the packages are complete before pytest imports one of their files on its own."""

import fastnn
import fastnn.data  # noqa: F401

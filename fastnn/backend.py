"""Which implementation runs the functions: the compiled kernels ("native") or plain NumPy ("reference")."""

import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fastnn import reference

native: ModuleType | None
try:
    from fastnn import native
except ImportError as error:  # no compiled extension in this installation, or one that cannot be loaded
    native = None
    native_error = error

__all__ = ["backend", "get_backend", "set_backend"]

BACKENDS: dict[str, ModuleType | None] = {"reference": reference, "native": native}
active: ModuleType = reference  # set below; functional calls implementation(name), which looks here first
observer: Callable | None = None  # what a profiler makes of a name and a kernel: the function to call in its place


def set_backend(name):
    """Run every function on this implementation from now on, in all threads.

    Parameters
    ----------
    name : {"native", "reference"}
        The compiled kernels, or the plain NumPy versions that the tests compare them with. The environment
        variable ``FASTNN_BACKEND`` sets the one that a process starts with.

    Raises
    ------
    ValueError
        If there is no such backend.
    RuntimeError
        If the compiled kernels are asked for where they are not built.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.set_backend("native")
    >>> fastnn.get_backend()
    'native'
    """
    global active
    if name not in BACKENDS:
        raise ValueError(f"set_backend: expected 'native' or 'reference', got {name!r}")
    chosen = BACKENDS[name]
    if chosen is None:
        raise RuntimeError(f"set_backend: {missing_kernels()}")
    active = chosen


def get_backend():
    """Name of the implementation in use: "native" or "reference".

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.backend("reference"):
    ...     fastnn.get_backend()
    'reference'
    """
    return "reference" if active is reference else "native"


@contextmanager
def backend(name):
    """Run every function in the ``with`` block on this implementation ("native" or "reference").

    It is that of the process, not of this Python thread alone: blocks of several threads must not overlap.

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.backend("reference"):
    ...     fastnn.get_backend()
    'reference'
    """
    before = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def implementation(name):
    """The function of this name in the active backend, or NumPy's where the active backend has no kernel for it."""
    function = getattr(active, name, None) or getattr(reference, name)
    return function if observer is None else observer(name, function)


def observe(function):
    """Have implementation() give what this function makes of a name and a kernel (None: the kernel); the one before."""
    global observer
    before, observer = observer, function
    return before


def missing_kernels():
    """Why there are no compiled kernels, and what to do: for the messages where they are needed."""
    folder = Path(__file__).parent
    unbuilt = not [*folder.glob("native/runtime.*.so")]
    if unbuilt and (folder / "native" / "runtime.pyx").exists():  # which no wheel has
        cure = (
            f"{folder} is source code in which nothing is built, and hides an installed fastnn: change to another "
            "folder, or build it here with `pip install -e .`"
        )
    else:
        cure = "reinstall fastnn"
    return f"the compiled kernels cannot be loaded ({native_error}); {cure}"


def _start():
    name = os.environ.get("FASTNN_BACKEND")
    if name:
        if name not in BACKENDS:
            raise ValueError(f"FASTNN_BACKEND: expected 'native' or 'reference', got {name!r}")
        set_backend(name)
    elif native is None:
        warnings.warn(
            f"fastnn runs on slow NumPy code: {missing_kernels()}; FASTNN_BACKEND=reference silences this",
            RuntimeWarning,
            stacklevel=2,
        )
    else:
        set_backend("native")


_start()

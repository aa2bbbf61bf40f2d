"""`python -m fastnn info`."""

import importlib.metadata
import os
import platform
import sys

import numpy as np

import fastnn
from fastnn.backend import missing_kernels, native

OPTIONAL = {
    "tqdm": "progress bars",
    "matplotlib": "pictures",
    "safetensors": "weights in .safetensors files",
}
VARIABLES = ("FASTNN_BACKEND", "FASTNN_CONV_ALGORITHM", "FASTNN_ISA", "FASTNN_NUM_THREADS", "OMP_NUM_THREADS")


def add_arguments(parser):
    pass


def run(arguments):
    for name, value in facts():
        print(f"{name:<22}{value}")
    return 0


def facts():
    """Pairs of a name and a text."""
    yield "fastnn", f"{fastnn.__version__} in {os.path.dirname(fastnn.__file__)}"
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "NumPy", np.__version__
    yield "backend", fastnn.get_backend()
    if native is None:
        yield "compiled kernels", f"none: {missing_kernels()}"
    else:
        from fastnn.native import runtime

        chosen = " (by FASTNN_ISA)" if os.environ.get("FASTNN_ISA") else ""
        yield "instruction set", f"{runtime.isa()}{chosen}; this CPU runs {', '.join(runtime.available_isas())}"
        yield "OpenMP", "yes" if runtime.openmp() else "no: built without OpenMP, runs on one thread"
    yield "threads", f"{fastnn.get_num_threads()} of {os.cpu_count()} CPUs"
    memory = fastnn.memory_stats()
    yield "memory of arrays", f"{mebibytes(memory['used_bytes'])} now, {mebibytes(memory['peak_bytes'])} at most so far"
    yield "memory kept", f"{mebibytes(memory['cached_bytes'])} of at most {mebibytes(memory['limit_bytes'])}"
    yield "blocks of memory", f"{memory['requests']} asked for, {memory['reused']} of them re-used"
    for variable in VARIABLES:
        if os.environ.get(variable):
            yield variable, os.environ[variable]
    for package, use in OPTIONAL.items():
        yield package, version(package) or f"not installed ({use}): {sys.executable} -m pip install {package}"


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def mebibytes(count):
    return f"{count / 2**20:.1f} MiB"

"""Fixtures shared by all tests: every instruction set this CPU runs, both dtypes, every algorithm of convolutions."""

import os

import numpy as np
import pytest
from hypothesis import settings

# Tests run in several processes at once; teams that spin while they wait would take each other's CPUs. libgomp reads
# this when it is loaded, also in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import fastnn
from fastnn.native import runtime

# On the integration machine the random examples are the same every time: a red run is then due to the change.
settings.register_profile("integration", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("integration")


@pytest.fixture(params=runtime.available_isas())
def isa(request):
    """Runs the test once on every kernel table that this CPU can run."""
    before = runtime.isa()
    runtime.select_isa(request.param)
    yield request.param
    runtime.select_isa(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=["im2col", "direct", "winograd", "fft"])
def algorithm(request):
    """Runs the test once by each algorithm (where it cannot run, by im2col)."""
    fastnn.set_conv_algorithm(request.param)
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def restore_settings():
    """A test may set threads, the backend or the algorithm; the next one starts from the defaults."""
    threads, backend, algorithm = fastnn.get_num_threads(), fastnn.get_backend(), fastnn.get_conv_algorithm()
    yield
    fastnn.set_conv_algorithm(algorithm)
    fastnn.set_num_threads(threads)
    fastnn.set_backend(backend)


def pytest_terminal_summary(terminalreporter):
    """Why so many tests were skipped, in one line."""
    count = sum(
        "could not import 'torch'" in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])
    )
    if count:
        terminalreporter.write_line(
            f"{count} comparisons with PyTorch were skipped: it is not installed (make test EXTRAS=test,torch)"
        )

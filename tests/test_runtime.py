"""Processes, threads and settings around the kernels. What could hang runs in a process of its own, with a timeout."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.native import runtime

ROOT = Path(fastnn.__file__).parent.parent

# A convolution large enough for every thread.
PARALLEL = """
import os, sys
import numpy as np
import fastnn
import fastnn.functional as F

x, weight = np.ones((8, 16, 32, 32), np.float32), np.ones((32, 16, 3, 3), np.float32)

def work(_=None):
    return float(F.conv2d(x, weight).sum())

expected = 8 * 32 * 30 * 30 * 16 * 9
"""


def run(program, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


HELPERS = (
    PARALLEL
    + """
def allowed(thread):
    return os.sched_getaffinity(int(thread))

before = os.sched_getaffinity(0)
fastnn.set_num_threads(2)
others = set(os.listdir("/proc/self/task"))
work()
helpers = [allowed(thread) for thread in set(os.listdir("/proc/self/task")) - others]
assert allowed(0) == before
print(sorted(len(before) - len(cpus) for cpus in helpers))
"""
)


@pytest.mark.skipif(not runtime.openmp() or not hasattr(os, "sched_getaffinity"), reason="needs OpenMP on Linux")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", set)(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize(("bind", "missing"), [(None, "[1]"), ("false", "[0]")])
def test_helpers_keep_off_their_callers_cpu(bind, missing):
    environment = {} if bind is None else {"OMP_PROC_BIND": bind}
    assert run(HELPERS, **environment).stdout.strip() == missing


def succeed(program, **environment):
    done = run(program, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_a_forked_child_computes_on_one_thread():
    succeed(
        PARALLEL + "assert work() == expected\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if work() == expected and fastnn.get_num_threads() == 1 else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert fastnn.get_num_threads() == 2 and work() == expected\n",
        FASTNN_NUM_THREADS="2",
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_a_pool_of_forked_processes_computes():
    succeed(
        PARALLEL + "import multiprocessing\n"
        "assert work() == expected\n"
        "with multiprocessing.get_context('fork').Pool(3) as pool:\n"
        "    assert pool.map(work, range(6)) == [expected] * 6\n",
        FASTNN_NUM_THREADS="2",
    )


def test_a_pool_of_spawned_processes_computes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        PARALLEL + "if __name__ == '__main__':\n"
        "    import multiprocessing\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        assert pool.map(work, range(4)) == [expected] * 4\n"
    )
    succeed(f"import sys, subprocess; sys.exit(subprocess.run([sys.executable, {str(script)!r}]).returncode)")


def test_eight_python_threads_get_right_results(rng):
    """The kernels run without the GIL; what they share (tables, cached memory) must not be shared by accident."""
    x = rng.standard_normal((4, 8, 16, 16), dtype=np.float32)
    weight = rng.standard_normal((12, 8, 3, 3), dtype=np.float32)
    mean, variance = np.zeros(8, np.float32), np.ones(8, np.float32)
    scores, target = rng.standard_normal((64, 10), dtype=np.float32), rng.integers(0, 10, 64)

    def compute(offset):
        shifted = x + np.float32(offset)
        return (
            F.conv2d(shifted, weight, padding=1),
            F.batch_norm(shifted, mean.copy(), variance.copy(), training=True),
            F.max_pool2d(shifted, 2),
            F.cross_entropy(scores * np.float32(offset), target),
        )

    expected = [compute(offset) for offset in range(8)]

    def repeat(offset):
        for _ in range(50):
            for actual, right in zip(compute(offset), expected[offset], strict=True):
                np.testing.assert_array_equal(actual, right)

    with fastnn.threads(2), ThreadPoolExecutor(8) as pool:
        list(pool.map(repeat, range(8)))


@pytest.mark.parametrize("order", ["import torch, fastnn", "import fastnn, torch"])
def test_torch_and_fastnn_in_one_process(order):
    pytest.importorskip("torch")
    succeed(
        f"{order}\n{PARALLEL}"
        "assert work() == expected\n"
        "assert torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight)).sum(dtype=torch.float64)"
        " == expected\n"
        "assert work() == expected\n",
        FASTNN_NUM_THREADS="2",
        OMP_NUM_THREADS="2",
    )


@pytest.mark.skipif(not runtime.openmp(), reason="fastnn was built without OpenMP")
def test_threadpoolctl_sees_the_openmp_library():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    assert "openmp" in {pool["user_api"] for pool in threadpoolctl.threadpool_info()}


# Settings


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FASTNN_ISA", "mmx", "FASTNN_ISA: expected one of baseline"),
        ("FASTNN_BACKEND", "cuda", "FASTNN_BACKEND: expected 'native' or 'reference', got 'cuda'"),
        *(
            ("FASTNN_NUM_THREADS", value, f"FASTNN_NUM_THREADS: expected a whole number from 1 to 1024, got '{value}'")
            for value in ("0", "-1", "two", "1.5", "²")
        ),
    ],
)
def test_nonsense_in_a_variable_is_named(variable, value, message):
    done = run("import fastnn", **{variable: value}, PYTHONIOENCODING="utf-8")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {message}")


def test_an_instruction_set_that_the_cpu_lacks_is_named(monkeypatch):
    monkeypatch.setattr(runtime, "available_isas", lambda: ["another"])
    with pytest.raises(ValueError, match="FASTNN_ISA: this CPU does not run 'baseline'; it runs another"):
        runtime.select_isa("baseline")


@pytest.mark.parametrize("isa", runtime.available_isas())
def test_variables_choose_instruction_set_threads_and_backend(isa):
    program = (
        "import fastnn; from fastnn.native import runtime\n"
        "print(runtime.isa(), fastnn.get_num_threads(), fastnn.get_backend())"
    )
    out = succeed(program, FASTNN_ISA=isa, FASTNN_NUM_THREADS="3", FASTNN_BACKEND="reference")
    assert out.split() == [isa, "3" if runtime.openmp() else "1", "reference"]


def test_submodules_come_with_fastnn_when_they_are_used():
    program = (
        "import sys, fastnn\n"
        "assert not {'fastnn.nn', 'fastnn.training', 'tqdm', 'matplotlib'} & set(sys.modules)\n"
        "fastnn.nn.Linear, fastnn.optim.Adam, fastnn.data.load_digits, fastnn.training.fit, fastnn.models.LeNet5\n"
        "assert set(fastnn.__all__) <= set(dir(fastnn))\n"
        "fastnn.nonsense\n"
    )
    assert run(program).stderr.splitlines()[-1] == "AttributeError: module 'fastnn' has no attribute 'nonsense'"


@pytest.mark.parametrize("shape", [(2, 3, 37, 41), (1, 18, 33, 35), (3, 33, 1, 5), (2, 1, 4, 4), (0, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_channels_last_arrays_are_copied_right(isa, rng, dtype, shape):
    x = rng.standard_normal(shape).astype(dtype)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    weight = np.zeros((shape[1], 1, 3, 3), dtype)
    weight[:, :, 1, 1] = 1
    with fastnn.conv_algorithm("direct"):  # of groups it makes copies, there and back
        same = F.conv2d(last, weight, padding=1, groups=shape[1])
    np.testing.assert_array_equal(F.relu(last), np.maximum(x, 0))
    np.testing.assert_array_equal(same, x)
    assert shape[1] == 1 or same.transpose(0, 2, 3, 1).flags.c_contiguous

"""csrc/vecmath.h on its own, for every instruction set of this CPU and for arm64: errors in ulp, special values."""

import ctypes
import math
import shlex
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from fastnn.native import runtime
from tests.arm64 import compile_for_arm64, run_on_arm64

HEADERS = Path(__file__).parents[1] / "csrc"
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
FUNCTIONS = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erfc"]
SOURCE = "".join(
    f"""
    void apply_{name}(const real *x, ptrdiff_t count, real *y)
    {{
        for (ptrdiff_t i = 0; i < count; i += LANES)
            vec_store_tail(y + i, vec_{name}(vec_load_tail(x + i, count - i < LANES ? count - i : LANES)),
                           count - i < LANES ? count - i : LANES);
    }}"""
    for name in FUNCTIONS
)

# A program that applies the function of the number that it is given to what it reads.
MAIN = f"""
    #include <stdio.h>
    #include <stdlib.h>
    int main(int count, char **words)
    {{
        void (*function[])(const real *, ptrdiff_t, real *) = {{ {", ".join(f"apply_{name}" for name in FUNCTIONS)} }};
        static real x[1 << 20], y[1 << 20];
        size_t length = fread(x, sizeof(real), 1 << 20, stdin);
        if (count == 2) function[atoi(words[1])](x, (ptrdiff_t)length, y);
        return fwrite(y, sizeof(real), length, stdout) != length;
    }}"""


@pytest.fixture(scope="module", params=[*runtime.available_isas(), "arm64"])
def library(request, tmp_path_factory):
    """Calls the functions of vecmath.h: library(name, x)."""
    folder = tmp_path_factory.mktemp("vecmath")
    (folder / "vecmath.c").write_text('#include "vecmath.h"\n' + SOURCE)
    return on_arm64(folder) if request.param == "arm64" else on_this_cpu(folder, FLAGS[request.param])


def on_arm64(folder):
    (folder / "main.c").write_text('#include "vecmath.c"\n' + MAIN)
    for dtype, macro in ((np.float32, []), (np.float64, ["-DFASTNN_F64"])):
        output = folder / np.dtype(dtype).name
        compile_for_arm64("-O2", f"-I{HEADERS}", *macro, folder / "main.c", "-static", "-o", output)

    def call(name, x):
        done = run_on_arm64(folder / x.dtype.name, FUNCTIONS.index(name), input=x.tobytes())
        assert done.returncode == 0
        return np.frombuffer(done.stdout, x.dtype)

    return call


def on_this_cpu(folder, flags):
    compiler = [*shlex.split(sysconfig.get_config_var("CC") or "cc"), "-std=gnu11", "-O2", "-ffp-contract=fast"]
    compiler += [
        "-Wno-psabi",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        f"-I{HEADERS}",
        "-fPIC",
        "-shared",
    ]
    libraries = {}
    for dtype, macro in ((np.float32, []), (np.float64, ["-DFASTNN_F64"])):
        output = folder / f"{np.dtype(dtype).name}.so"
        command = [*compiler, *flags, *macro, str(folder / "vecmath.c"), "-o", str(output)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"the C compiler, {compiler[0]}, is not installed")
        libraries[np.dtype(dtype)] = ctypes.CDLL(str(output))

    def call(name, x):
        y = np.empty_like(x)
        function = getattr(libraries[x.dtype], f"apply_{name}")
        function(ctypes.c_void_p(x.ctypes.data), ctypes.c_ssize_t(x.size), ctypes.c_void_p(y.ctypes.data))
        return y

    return call


def exact(name, x):
    """In more digits than x.dtype has, where NumPy has such a type (not for erfc: within an ulp of it in float64)."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            return 1 / (1 + np.exp(-wide))
        if name == "erfc":
            return np.array([math.erfc(value) for value in x])
        return getattr(np, name)(wide)


def ulps(actual, expected):
    """Worst |actual - expected| in units in the last place of the expected value, denormal ones included."""
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
    finite = np.isfinite(rounded) & np.isfinite(actual)
    np.testing.assert_array_equal(actual[~finite], rounded[~finite])
    spacing = np.abs(np.spacing(rounded[finite])).astype(expected.dtype)
    return np.max(np.abs(actual[finite].astype(expected.dtype) - expected[finite]) / spacing)


def samples(name, dtype, count=60_000):
    """Numbers over the whole range where the function is neither constant nor infinite, tiny ones included."""
    rng = np.random.default_rng(0)
    information = np.finfo(dtype)
    largest = math.log(information.max)
    low, high = {
        "exp": (-1.05 * largest - 20, largest),
        "expm1": (-50, largest),
        "sigmoid": (-1.05 * largest - 20, 60),
        "tanh": (-25, 25),
        "erfc": (-8, 1),
    }.get(name, (-1, 1))
    uniform = rng.uniform(low, high, count)
    logarithmic = np.exp(rng.uniform(math.log(float(information.tiny)) - 8, largest, count))
    if name == "log":
        return np.concatenate([logarithmic, rng.uniform(0.4, 2.5, count)]).astype(dtype)
    if name == "log1p":
        return np.concatenate([logarithmic, -logarithmic[logarithmic < 1], uniform]).astype(dtype)
    tiny = logarithmic[logarithmic < 1]
    around_zero = rng.uniform(-1.5, 1.5, count)
    return np.concatenate([uniform, tiny, -tiny, around_zero[around_zero < high]]).astype(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_below_the_stated_bounds(library, dtype, name):
    x = samples(name, dtype)
    worst = ulps(library(name, x), exact(name, x))
    assert worst < {"expm1": 2.5, "erfc": 10}.get(name, 2)


SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, -2.0, 1e4, -1e4]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_those_of_c(library, dtype, name):
    information = np.finfo(dtype)
    extremes = [information.max, information.min, information.tiny, information.smallest_subnormal]
    x = np.array([*SPECIAL, *extremes, -information.tiny, -information.smallest_subnormal], dtype)
    with np.errstate(over="ignore"):
        expected = exact(name, x).astype(dtype)
    actual = library(name, x)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, rtol=4 * information.eps)
    zero = (expected == 0) & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(expected[zero]))


def test_exp_overflows_and_underflows_where_it_should(library, dtype):
    edge = {"float32": (88.72283, 88.7229, -103.9, -104.1), "float64": (709.7827, 709.783, -745.1, -745.2)}[dtype.name]
    last, over, smallest, under = library("exp", np.array(edge, dtype))
    assert np.isfinite(last)
    assert over == np.inf
    assert smallest == np.finfo(dtype).smallest_subnormal
    assert under == 0

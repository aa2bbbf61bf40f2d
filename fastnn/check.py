"""Proof, on the machine at hand, that the compiled kernels compute what NumPy computes.

Every case runs a function and its backward with the native backend, in float32 and float64, on every instruction set
that this CPU has, and compares with the reference backend in float64 on the same inputs. The measure is the largest
difference over the RMS of the expected array. Needs NumPy only.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

import fastnn.functional as F
from fastnn.backend import backend, native

__all__ = ["CASES", "Case", "Result", "run_case", "run_checks"]

# Bounds of the float32 kernels. Winograd's transforms subtract numbers that are larger than their difference.
ELEMENTWISE, GEMM, WINOGRAD = 2e-6, 5e-6, 2e-5
# A float64 kernel's bound over the float32 one's: 2^-29, and a margin of 4 for the oracle's rounding.
FLOAT64 = 2.0**-27


class Case(NamedTuple):
    """A function of fastnn.functional, by name, and what makes its arguments."""

    name: str
    arguments: Callable  # makes the positional arguments from an Inputs
    keywords: Mapping = MappingProxyType({})  # for the backward too
    bound: float = ELEMENTWISE
    label: str = ""  # tells apart the cases of one function
    backward: bool = True  # whether the function's backward, if there is one, takes the same arguments


class Inputs:
    """Random arrays, always the same; floating-point values are exact in float32."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, *shape):
        """Standard normal."""
        return self.rng.standard_normal(shape, np.float32).astype(np.float64)

    def positive(self, *shape):
        """Uniform from 0.1 to 1."""
        return self.rng.uniform(0.1, 1, shape).astype(np.float32).astype(np.float64)

    def integers(self, below, *shape):
        return self.rng.integers(0, below, shape)

    def probabilities(self, *shape):
        """That sum to 1 along the second axis."""
        values = self.positive(*shape)
        return (values / values.sum(1, keepdims=True)).astype(np.float32).astype(np.float64)

    def parameters(self, buffers):
        """Lists for an optimiser's step: parameters, gradients, and buffers that are positive."""
        shapes = [(33, 5), (4099,)]
        lists = [[self(*shape) for shape in shapes] for _ in range(2)]
        return (*lists, *([self.positive(*shape) for shape in shapes] for _ in range(buffers)))


def corners(count, channels, height, width):
    """Indices of the upper left pixel of each window of a 2x2 max pool."""
    plane = np.arange(height * width).reshape(height, width)[::2, ::2]
    return np.broadcast_to(plane, (count, channels, *plane.shape)).copy()


# One line per kernel. Sizes are a little more than whole vectors, tiles and blocks, so that the ends are tested too.
CASES = [
    Case("linear", lambda n: (n(67, 300), n(129, 300), n(129)), bound=GEMM),
    Case("linear_relu", lambda n: (n(67, 300), n(129, 300), n(129)), bound=GEMM),
    Case("conv1d", lambda n: (n(3, 16, 101), n(20, 16, 5), n(20)), {"stride": 2, "padding": 2}, GEMM),
    Case("conv2d", lambda n: (n(4, 16, 19, 21), n(33, 16, 3, 3), n(33)), {"padding": 1, "stride": 2}, GEMM),
    Case("conv2d", lambda n: (n(4, 64, 19, 21), n(65, 64, 3, 3), n(65)), {"padding": 1}, WINOGRAD, "Winograd"),
    Case("conv2d", lambda n: (n(1, 512, 6, 6), n(20, 512, 3, 3)), {}, GEMM, "sums of 4608"),
    Case("conv2d", lambda n: (n(3, 3, 40, 37), n(24, 3, 7, 7), n(24)), {"stride": 2}, WINOGRAD, "Winograd 7x7/2"),
    Case("conv2d", lambda n: (n(3, 3, 41, 43), n(14, 3, 7, 7), n(14)), {"stride": 3, "padding": 3}, GEMM, "7x7/3"),
    Case("conv2d", lambda n: (n(2, 70, 14, 14), n(40, 70, 1, 1), n(40)), {}, GEMM, "1x1"),
    Case("conv2d", lambda n: (n(2, 40, 15, 14), n(36, 40, 5, 5), n(36)), {"padding": 2}, WINOGRAD, "Winograd 5x5"),
    Case("conv2d", lambda n: (n(4, 20, 33, 30), n(36, 20, 7, 7), n(36)), {"padding": 3}, GEMM, "Fourier 7x7"),
    Case("conv2d", lambda n: (n(2, 12, 17, 15), n(24, 1, 3, 3)), {"groups": 12, "dilation": 2}, GEMM, "depthwise"),
    Case("conv3d", lambda n: (n(2, 5, 7, 9, 11), n(18, 5, 3, 3, 3), n(18)), {"padding": 1}, GEMM),
    Case("conv_transpose1d", lambda n: (n(3, 16, 31), n(16, 10, 4), n(10)), {"stride": 3}, GEMM),
    Case("conv_transpose2d", lambda n: (n(2, 16, 9, 8), n(16, 20, 3, 3), n(20)), {"stride": 2, "padding": 1}, GEMM),
    Case("conv_transpose2d", lambda n: (n(4, 64, 19, 21), n(64, 65, 4, 4)), {"stride": 2}, WINOGRAD, "Winograd 4x4/2"),
    Case("conv_transpose3d", lambda n: (n(1, 6, 4, 5, 6), n(6, 7, 2, 3, 3)), {"padding": 1}, GEMM),
    Case("unfold", lambda n: (n(2, 5, 13, 11), (3, 4)), {"padding": 1, "stride": (2, 1)}),
    Case("fold", lambda n: (n(2, 60, 70), (13, 11), (3, 4)), {"padding": 1, "stride": (2, 1)}),
    Case("max_pool1d", lambda n: (n(3, 5, 101), 3), {"stride": 2, "padding": 1}),
    Case("max_pool2d", lambda n: (n(3, 17, 30, 37), 2)),
    Case("max_pool2d", lambda n: (n(2, 5, 23, 19), 3), {"stride": 2, "padding": 1, "ceil_mode": True}, label="3x3"),
    Case(
        "max_pool2d_backward",
        lambda n: (n(2, 3, 4, 5), n(2, 3, 8, 10), 2),
        {"indices": corners(2, 3, 8, 10)},
        label="given indices",
    ),
    Case("max_pool3d", lambda n: (n(2, 3, 9, 8, 7), 3), {"stride": 2, "padding": 1}),
    Case("avg_pool1d", lambda n: (n(3, 5, 101), 3), {"stride": 2, "padding": 1}),
    Case("avg_pool2d", lambda n: (n(3, 17, 30, 37), 2)),
    Case("avg_pool2d", lambda n: (n(2, 5, 23, 19), 3), {"stride": 2, "padding": 1, "ceil_mode": True}, label="3x3"),
    Case("avg_pool2d", lambda n: (n(3, 17, 1, 1), 3), {"padding": 1}, label="one padded pixel"),
    Case("avg_pool3d", lambda n: (n(2, 3, 9, 8, 7), 3), {"stride": 2, "padding": 1}),
    Case("adaptive_avg_pool2d", lambda n: (n(3, 5, 23, 19), (5, 4))),
    Case("adaptive_max_pool2d", lambda n: (n(3, 5, 23, 19), (5, 4))),
    Case("global_avg_pool", lambda n: (n(3, 17, 23, 19),)),
    Case("global_max_pool", lambda n: (n(3, 17, 23, 19),)),
    Case("batch_norm", lambda n: (n(7, 19, 9, 11), n(19), n.positive(19), n(19), n(19)), {"training": True}),
    Case("batch_norm", lambda n: (n(7, 19, 9, 11), n(19), n.positive(19), n(19), n(19)), label="in inference"),
    Case("batch_norm", lambda n: (n(67, 19), n(19), n.positive(19), n(19), n(19)), {"training": True}, label="(N, C)"),
    Case("batch_norm_relu", lambda n: (n(7, 19, 9, 11), n(19), n.positive(19), n(19), n(19)), {"training": True}),
    Case("layer_norm", lambda n: (n(67, 133), (133,), n(133), n(133))),
    Case("group_norm", lambda n: (n(5, 12, 9, 11), 3, n(12), n(12))),
    Case("instance_norm", lambda n: (n(5, 12, 9, 11), n(12), n.positive(12), n(12), n(12))),
    Case("add", lambda n: (n(3, 16385), n(3, 16385)), {"relu": True}),
    Case("relu", lambda n: (n(3, 16385),)),
    Case("leaky_relu", lambda n: (n(3, 1009),)),
    Case("prelu", lambda n: (n(3, 5, 1009), n(5)), bound=GEMM),  # the slopes' gradient is a sum over the batch
    Case("elu", lambda n: (3 * n(3, 1009),)),
    Case("sigmoid", lambda n: (3 * n(3, 1009),)),
    Case("tanh", lambda n: (3 * n(3, 1009),)),
    Case("softplus", lambda n: (3 * n(3, 1009),)),
    Case("log_sigmoid", lambda n: (3 * n(3, 1009),)),
    Case("gelu", lambda n: (3 * n(3, 1009),)),
    Case("gelu", lambda n: (3 * n(3, 1009),), {"approximate": "tanh"}, label="by tanh"),
    Case("silu", lambda n: (3 * n(3, 1009),)),
    Case("hardtanh", lambda n: (3 * n(3, 1009),)),
    Case("hardswish", lambda n: (3 * n(3, 1009),)),
    # Scores whose probabilities are at most ten times their RMS: the last bit of one near 1 is more than the bound.
    Case("softmax", lambda n: (n(67, 133) / 4,)),
    Case("softmax", lambda n: (n(6, 13, 35) / 4,), {"dim": 1}, label="over channels"),
    Case("log_softmax", lambda n: (n(67, 133) / 4,)),
    Case("cross_entropy", lambda n: (3 * n(67, 10), n.integers(10, 67))),
    Case("cross_entropy", lambda n: (3 * n(67, 33), n.probabilities(67, 33)), label="probabilities"),
    Case("cross_entropy_with_grad", lambda n: (3 * n(67, 10), n.integers(10, 67)), {"label_smoothing": 0.1}),
    Case("nll_loss", lambda n: (n(67, 10), n.integers(10, 67))),
    Case("mse_loss", lambda n: (n(67, 133), n(67, 133))),
    Case("l1_loss", lambda n: (n(67, 133), n(67, 133))),
    Case("smooth_l1_loss", lambda n: (n(67, 133), n(67, 133))),
    Case("huber_loss", lambda n: (n(67, 133), n(67, 133))),
    Case("binary_cross_entropy", lambda n: (0.9 * n.positive(67, 133), n.positive(67, 133))),
    Case("binary_cross_entropy_with_logits", lambda n: (3 * n(67, 133), n.positive(67, 133))),
    Case("multi_margin_loss", lambda n: (n(67, 10), n.integers(10, 67))),
    Case("kl_div", lambda n: (n(67, 133), n.probabilities(67, 133))),
    Case("dropout", lambda n: (n(3, 16385),), {"p": 0.3, "seed": 7}, backward=False),
    Case("dropout_backward", lambda n: (n(3, 16385),), {"p": 0.3, "seed": 7}),
    Case("gaussian_dropout", lambda n: (n(3, 16385),), {"p": 0.3, "seed": 7}, backward=False),
    Case("gaussian_dropout_backward", lambda n: (n(3, 16385),), {"p": 0.3, "seed": 7}),
    Case("sgd_", lambda n: n.parameters(1), {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    Case("adagrad_", lambda n: n.parameters(1), {"step": 3, "lr": 0.1}),
    Case("rmsprop_", lambda n: n.parameters(1), {"lr": 0.1}),
    Case("adam_", lambda n: n.parameters(2), {"step": 3, "lr": 0.1}),
    Case("adadelta_", lambda n: n.parameters(2)),
    Case("adamax_", lambda n: n.parameters(2), {"step": 3, "lr": 0.1}),
    Case("nadam_", lambda n: n.parameters(2), {"step": 3, "mu_product": 0.8, "lr": 0.1}),
    Case("radam_", lambda n: n.parameters(2), {"step": 9, "lr": 0.1}),
    Case("clip_grad_norm_", lambda n: (n.parameters(0)[1], 1.0)),
    Case("clip_grad_value_", lambda n: (n.parameters(0)[1], 0.5)),
]


class Result(NamedTuple):
    """The errors of one function."""

    name: str
    bound: float
    float32: dict  # by instruction set
    float64: float  # the worst of all instruction sets
    kernels: frozenset  # names in fastnn.native; none where NumPy does the work
    message: str = ""  # what was raised

    @property
    def passed(self):
        worst = max(self.float32.values(), default=math.inf)
        return not self.message and worst <= self.bound and self.float64 <= self.bound * FLOAT64


def run_checks(cases=None):
    """Run the cases (all of them, unless some are given); yields a Result per function and per backward."""
    for case in CASES if cases is None else cases:
        yield from run_case(case)


def run_case(case):
    """The Results of a case: of its function, then of the function's backward where it has one."""
    from fastnn.native import runtime

    label = f" ({case.label})" if case.label else ""
    names = [case.name]
    if case.backward and hasattr(F, f"{case.name}_backward"):
        names.append(f"{case.name}_backward")
    errors: dict = {name: {"float32": {}, "float64": {}} for name in names}
    messages = dict.fromkeys(names, "")
    arguments = case.arguments(Inputs())
    with backend("reference"):
        expected = run_functions(case, names, arguments, np.float64)
    with kept_isa(runtime), recorded_native() as kernels:
        for isa in runtime.available_isas():
            runtime.select_isa(isa)
            for dtype in (np.float32, np.float64):
                actual = run_functions(case, names, arguments, dtype, kernels)
                for name in names:
                    if isinstance(actual[name], Exception):
                        messages[name] = f"{isa}: {actual[name]}"
                        errors[name][dtype.__name__][isa] = math.inf
                    else:
                        errors[name][dtype.__name__][isa] = worst_error(actual[name], expected[name])
    for name in names:
        float32, float64 = errors[name]["float32"], max(errors[name]["float64"].values())
        yield Result(name + label, case.bound, float32, float64, frozenset(kernels.get(name, ())), messages[name])


def run_functions(case, names, arguments, dtype, kernels=None):
    """All arrays that the function and its backward return or change, by name; or the exception that one raised."""
    results: dict = {}
    for name in names:
        given = cast(arguments, dtype)
        if kernels is not None:
            kernels.function = name
        try:
            leading = (grad_output(results[case.name][0]),) if name != case.name else ()
            output = getattr(F, name)(*leading, *given, **cast(case.keywords, dtype))
            results[name] = [*flat(output), *flat(given)]
        except Exception as error:  # whatever it is: this kernel has failed, and the others are still to be checked
            results[name] = error
    return results


def grad_output(output):
    """A gradient of the output, exact in float32; 1 for the number that a loss is."""
    if output.ndim == 0:
        return 1.0
    return np.random.default_rng(1).standard_normal(output.shape, np.float32).astype(output.dtype)


def cast(value, dtype):
    """A copy of a tree of arguments, its floating-point arrays in this dtype."""
    if isinstance(value, np.ndarray):
        return value.astype(dtype if value.dtype.kind == "f" else value.dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(cast(entry, dtype) for entry in value)
    if isinstance(value, Mapping):
        return {key: cast(entry, dtype) for key, entry in value.items()}
    return value


def flat(value):
    """The arrays and floating-point numbers in a tree of results."""
    if isinstance(value, (list, tuple)):
        return [array for entry in value for array in flat(entry)]
    return [np.asarray(value)] if isinstance(value, (np.ndarray, float, np.floating)) else []


def worst_error(actual, expected):
    """The largest error of several arrays; infinite where shapes, NaN or infinities differ."""
    if len(actual) != len(expected):
        return math.inf
    return max((error(a, e) for a, e in zip(actual, expected, strict=True)), default=0.0)


def error(actual, expected):
    """max |actual - expected| over the RMS of expected."""
    actual = actual.astype(np.float64)
    if actual.shape != expected.shape:
        return math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True) or not np.isfinite(actual[finite]).all():
        return math.inf
    actual, expected = actual[finite], expected[finite]
    difference = np.abs(actual - expected).max(initial=0)
    scale = math.sqrt(np.mean(np.square(expected, dtype=np.float64))) if expected.size else 0.0
    return float(difference / scale) if scale else (0.0 if difference == 0 else math.inf)


class Recorder(dict):
    """The native backend, noting which of its kernels each function asks for: a dictionary from names to sets."""

    function = ""

    def __getattr__(self, name):
        kernel = getattr(native, name)
        self.setdefault(self.function, set()).add(name)
        return kernel


@contextlib.contextmanager
def recorded_native():
    with backend("native"):
        recorder = Recorder()
        vars(sys.modules["fastnn.backend"])["active"] = recorder  # where implementation() looks
        yield recorder


@contextlib.contextmanager
def kept_isa(runtime):
    before = runtime.isa()
    try:
        yield
    finally:
        runtime.select_isa(before)


def print_table(results):
    """Print each result of a compiled kernel as it comes; whether all have passed."""
    from fastnn.native import runtime

    isas = runtime.available_isas()
    width = 44
    print("Each kernel against NumPy in float64: the largest error over the RMS of the right result, and its bound.\n")
    print(f"{'':{width}}{'float32: worst error / RMS':<{11 * len(isas)}}{'bound':>9}{'float64':>11}{'bound':>9}")
    print(f"{'':{width}}" + "".join(f"{isa:<11}" for isa in isas))
    started, count, failed = time.perf_counter(), 0, []
    for result in results:
        if not result.kernels and not result.message:
            continue
        count += 1
        line = f"{result.name:<{width}}" + "".join(f"{result.float32[isa]:<11.2g}" for isa in isas)
        line += f"{result.bound:>9.2g}{result.float64:>11.2g}{result.bound * FLOAT64:>9.2g}"
        print(line if result.passed else f"{line}  FAILED {result.message}", flush=True)
        if not result.passed:
            failed.append(result.name)
    print(f"\n{count - len(failed)} of {count} within their bounds, in {time.perf_counter() - started:.1f} s")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return not failed

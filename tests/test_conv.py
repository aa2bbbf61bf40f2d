"""Convolutions: native against reference, finite differences and torch, on shapes chosen to hurt; bad input."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn.conv_algorithm import choose, winograd_blocks
from tests.oracle import assert_gradient, assert_matches, numerical_gradient
from tests.shapes import (
    CONVOLUTIONS,
    CONVOLUTIONS_DEPTHWISE,
    CONVOLUTIONS_FEW,
    CONVOLUTIONS_FFT,
    CONVOLUTIONS_FFT_LARGE,
    CONVOLUTIONS_LARGE,
    CONVOLUTIONS_OTHER_DIMENSIONS,
    CONVOLUTIONS_PATCHES,
    CONVOLUTIONS_STRAIGHT,
    CONVOLUTIONS_WINOGRAD,
    CONVOLUTIONS_WINOGRAD_LARGE,
)

# (algorithm, shape), each algorithm on the shapes that it computes
SMALL = [("im2col", shape) for shape in CONVOLUTIONS + CONVOLUTIONS_OTHER_DIMENSIONS]
SMALL += [("direct", shape) for shape in CONVOLUTIONS + CONVOLUTIONS_OTHER_DIMENSIONS]
SMALL += [("winograd", shape) for shape in CONVOLUTIONS_WINOGRAD]
SMALL += [("fft", shape) for shape in CONVOLUTIONS_FFT]
ALL = SMALL + [(name, shape) for name in ("im2col", "direct") for shape in CONVOLUTIONS_LARGE]
ALL += [("im2col", shape) for shape in CONVOLUTIONS_FEW]
ALL += [("direct", shape) for shape in CONVOLUTIONS_STRAIGHT + CONVOLUTIONS_DEPTHWISE]
ALL += [(name, shape) for name in ("im2col", "direct") for shape in CONVOLUTIONS_PATCHES]
ALL += [("winograd", shape) for shape in CONVOLUTIONS_WINOGRAD_LARGE]
ALL += [("fft", shape) for shape in CONVOLUTIONS_FFT_LARGE]
TOLERANCE = {"im2col": "conv", "direct": "conv", "winograd": "conv_winograd", "fft": "conv"}


@pytest.fixture(params=["im2col", "direct", "winograd", "fft"])
def algorithm(request):
    """Runs the test once by each algorithm (where it cannot run, by im2col)."""
    fastnn.set_conv_algorithm(request.param)
    return request.param


def functions(dims):
    return getattr(F, f"conv{dims}d"), getattr(F, f"conv{dims}d_backward")


def transposed_functions(dims):
    return getattr(F, f"conv_transpose{dims}d"), getattr(F, f"conv_transpose{dims}d_backward")


def case(rng, shape, dtype=np.float64):
    """(x, weight, bias), the remaining arguments, and a gradient of the output."""
    n, c, k, size, kernel, stride, padding, dilation, groups = shape
    x = rng.standard_normal((n, c, *size)).astype(dtype)
    weight = rng.standard_normal((k, c // groups, *kernel)).astype(dtype)
    bias = rng.standard_normal(k).astype(dtype)
    settings = (stride, padding, dilation, groups)
    y = functions(len(size))[0](x, weight, bias, *settings)
    return (x, weight, bias), settings, rng.standard_normal(y.shape).astype(dtype)


def in_float64(arrays):
    return [array.astype(np.float64) for array in arrays]


@pytest.mark.parametrize(("algorithm", "shape"), ALL, ids=str)
def test_conv_matches_reference_forward_and_backward(isa, dtype, rng, algorithm, shape):
    fastnn.set_conv_algorithm(algorithm)
    arrays, arguments, dy = case(rng, shape, dtype)
    forward, backward = functions(len(shape[3]))
    with fastnn.backend("reference"):
        expected = forward(*in_float64(arrays), *arguments)
        gradients = backward(dy.astype(np.float64), *in_float64(arrays), *arguments)
    assert_matches(forward(*arrays, *arguments), expected, TOLERANCE[algorithm])
    for actual, gradient in zip(backward(dy, *arrays, *arguments), gradients, strict=True):
        assert_matches(actual, gradient, TOLERANCE[algorithm])


@pytest.mark.parametrize(("algorithm", "shape"), [case for case in SMALL if case[1][1] < 60], ids=str)
def test_conv_backward_matches_finite_differences(isa, rng, algorithm, shape):
    fastnn.set_conv_algorithm(algorithm)
    (x, weight, bias), arguments, dy = case(rng, shape)
    forward, backward = functions(len(shape[3]))
    dx, dw, db = backward(dy, x, weight, bias, *arguments)

    def run(_):
        return forward(x, weight, bias, *arguments)

    for array, gradient in ((x, dx), (weight, dw), (bias, db)):
        if array.size <= 700:
            assert_gradient(gradient, numerical_gradient(run, array, dy))


@pytest.mark.parametrize(("algorithm", "shape"), ALL, ids=str)
def test_conv_matches_torch_forward_and_backward(isa, dtype, rng, algorithm, shape):
    torch = pytest.importorskip("torch")
    fastnn.set_conv_algorithm(algorithm)
    arrays, arguments, dy = case(rng, shape, dtype)
    forward, backward = functions(len(shape[3]))
    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    y = getattr(torch.nn.functional, forward.__name__)(*tensors, *arguments)
    assert_matches(forward(*arrays, *arguments), y.detach().numpy(), TOLERANCE[algorithm])
    y.backward(torch.tensor(dy, dtype=torch.float64))
    for actual, tensor in zip(backward(dy, *arrays, *arguments), tensors, strict=True):
        assert_matches(actual, tensor.grad.numpy(), TOLERANCE[algorithm])


# (C, K, size, kernel, stride, padding, output_padding, groups, dilation)
TRANSPOSED = [
    (3, 4, (5,), (3,), 2, 1, 1, 1, 1),
    (2, 3, (4, 5), (3, 3), 1, 0, 0, 1, 1),
    (4, 6, (4, 5), (3, 2), (2, 3), (1, 0), (1, 2), 2, 1),
    (2, 2, (3, 3), (2, 2), 3, 0, 2, 1, 1),
    (2, 2, (3, 4), (3, 3), 1, 2, 1, 1, 2),  # output_padding beyond the stride
    (5, 5, (6, 6), (4, 4), 2, 1, 0, 5, 1),
    (2, 3, (2, 3, 2), (2, 3, 2), 2, (0, 1, 0), 1, 1, 1),
]


@pytest.mark.parametrize("shape", TRANSPOSED, ids=str)
def test_conv_transpose_matches_reference_torch_and_finite_differences(isa, dtype, rng, algorithm, shape):
    torch = pytest.importorskip("torch")
    kernel = TOLERANCE[algorithm]
    c, k, size, kernel_size, *arguments = shape
    forward, backward = transposed_functions(len(size))
    x = rng.standard_normal((2, c, *size)).astype(dtype)
    weight = rng.standard_normal((c, k // arguments[3], *kernel_size)).astype(dtype)
    bias = rng.standard_normal(k).astype(dtype)
    y = forward(x, weight, bias, *arguments)
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients = backward(dy, x, weight, bias, *arguments)
    wide = in_float64((x, weight, bias))
    with fastnn.backend("reference"):
        assert_matches(y, forward(*wide, *arguments), kernel)
        expected = backward(dy.astype(np.float64), *wide, *arguments)
    for actual, gradient in zip(gradients, expected, strict=True):
        assert_matches(actual, gradient, kernel)
    tensors = [torch.tensor(array, requires_grad=True) for array in wide]
    result = getattr(torch.nn.functional, forward.__name__)(*tensors, *arguments)
    assert_matches(y, result.detach().numpy(), kernel)
    result.backward(torch.tensor(dy.astype(np.float64)))
    for actual, tensor in zip(gradients, tensors, strict=True):
        assert_matches(actual, tensor.grad.numpy(), kernel)
    if dtype == np.float64:
        for array, gradient in zip((x, weight, bias), gradients, strict=True):
            assert_gradient(gradient, numerical_gradient(lambda _: forward(x, weight, bias, *arguments), array, dy))


@pytest.mark.parametrize("name", ["im2col", "direct"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_conv2d_matches_reference_on_random_shapes(isa, name, data):
    fastnn.set_conv_algorithm(name)
    draw = data.draw
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 20)) for n in smallest)
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    c, k = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 14))
    rng = np.random.default_rng(0)
    shape = (draw(st.integers(0, 3)), c, k, size, kernel, stride, padding, dilation, groups)
    arrays, arguments, dy = case(rng, shape)
    with fastnn.backend("reference"):
        expected = F.conv2d(*arrays, *arguments)
        gradients = F.conv2d_backward(dy, *arrays, *arguments)
    # Absolute, because a sum of a few terms may cancel to almost nothing.
    np.testing.assert_allclose(F.conv2d(*arrays, *arguments), expected, rtol=0, atol=1e-11)
    for actual, gradient in zip(F.conv2d_backward(dy, *arrays, *arguments), gradients, strict=True):
        np.testing.assert_allclose(actual, gradient, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["winograd", "fft"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_conv2d_by_transforms_matches_reference_on_random_shapes(isa, name, data):
    fastnn.set_conv_algorithm(name)
    draw = data.draw
    padding = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    stride = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.one_of(st.just((3, 3)), st.tuples(st.integers(2, 12), st.integers(2, 12))))
    size = tuple(max(1, r - 2 * p) + draw(st.integers(0, 40)) for r, p in zip(kernel, padding, strict=True))
    n, c, k = draw(st.integers(0, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 70))
    arrays, arguments, dy = case(np.random.default_rng(0), (n, c, k, size, kernel, stride, padding, 1, 1))
    with fastnn.backend("reference"):
        expected = F.conv2d(*arrays, *arguments)
        gradients = F.conv2d_backward(dy, *arrays, *arguments)
    np.testing.assert_allclose(F.conv2d(*arrays, *arguments), expected, rtol=0, atol=1e-10)
    for actual, gradient in zip(F.conv2d_backward(dy, *arrays, *arguments), gradients, strict=True):
        np.testing.assert_allclose(actual, gradient, rtol=0, atol=1e-10)


EPILOGUES = [
    dict(activation="relu"),
    dict(activation="leaky_relu", negative_slope=0.2),
    dict(residual=True),
    dict(residual=True, activation="relu", statistics=True),
    dict(statistics=True),
]


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        (0, 2, 3, (5, 6), (3, 3), 1, 1, 1, 1),
        (2, 3, 5, (9, 13), (3, 3), 1, 1, 1, 1),  # ragged tiles
        (3, 8, 17, (7, 7), (3, 3), 1, 1, 1, 1),  # panels across images
        (1, 4, 6, (31, 33), (5, 5), 2, 2, 1, 1),
        (2, 4, 6, (12, 11), (3, 3), 1, 2, 2, 2),  # groups
        (2, 5, 7, (50, 49), (1, 1), 1, 0, 1, 1),
        (1, 40, 10, (7, 7), (3, 3), 1, 1, 1, 1),  # two blocks of the depth, one pixel past a panel
        (2, 340, 9, (6, 8), (1, 1), 1, 0, 1, 1),  # whole panels, several blocks
        (3, 4, 34, (31, 37), (2, 3), 1, 0, 1, 2),  # several units of sums
        (19, 3, 9, (10, 9), (5, 5), 1, (0, 1), 1, 1),  # images in the lanes of vectors, the last group ragged
        (18, 24, 11, (9, 11), (5, 5), 1, 2, 1, 1),  # depth of several blocks
        (33, 6, 6, (7, 7), (3, 3), 1, 1, 1, 6),  # depthwise
        (2, 8, 8, (40, 33), (3, 3), 1, 1, 1, 8),
        (2, 17, 17, (19, 131), (5, 3), 1, (2, 1), 1, 17),  # ... by windows, of some of the columns
        (1, 40, 9, (70, 66), (5, 5), 1, 2, 1, 1),  # several bands
    ],
    ids=str,
)
def test_conv2d_fused_is_conv2d_then_its_epilogue(isa, dtype, rng, algorithm, shape, bias, epilogue):
    (x, weight, b), arguments, dy = case(rng, shape, dtype)
    arrays = x, weight, b if bias else None
    residual = dy if "residual" in epilogue else None
    with fastnn.backend("reference"):
        wide = [None if array is None else array.astype(np.float64) for array in (*arrays, residual)]
        expected = F.conv2d_fused(*wide[:3], *arguments, **dict(epilogue, residual=wide[3]))
    actual = F.conv2d_fused(*arrays, *arguments, **dict(epilogue, residual=residual))
    if "statistics" not in epilogue:
        assert_matches(actual, expected, TOLERANCE[algorithm])
        return
    y, total, squares = actual
    assert_matches(y, expected[0], TOLERANCE[algorithm])
    assert total.dtype == squares.dtype == np.float64
    y = y.astype(np.float64)
    bound = 1e-6 * np.abs(y).sum(axis=(0, 2, 3)) + 1e-12
    assert np.all(np.abs(total - y.sum(axis=(0, 2, 3))) <= bound)
    np.testing.assert_allclose(squares, (y**2).sum(axis=(0, 2, 3)), rtol=1e-5, atol=1e-12)


def test_conv2d_fused_matches_torch(isa, dtype, rng, algorithm):
    torch = pytest.importorskip("torch")
    (x, weight, bias), arguments, residual = case(rng, (3, 8, 17, (14, 15), (3, 3), 1, 1, 1, 1), dtype)
    y, total, squares = F.conv2d_fused(
        x, weight, bias, *arguments, residual=residual, activation="relu", statistics=True
    )
    expected = torch.conv2d(*map(torch.tensor, (x, weight, bias)), *arguments) + torch.tensor(residual)
    expected = torch.relu(expected).numpy()
    assert_matches(y, expected, TOLERANCE[algorithm])
    np.testing.assert_allclose(total / (3 * 14 * 15), expected.mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(squares / (3 * 14 * 15), (expected**2).mean(axis=(0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_conv2d_fused_keeps_nan_and_infinity_as_the_activation_does(isa, dtype, activation):
    x = np.array([np.nan, np.inf, -np.inf, -2.0, 0.0, 3.0], dtype).reshape(1, 1, 2, 3)
    y = F.conv2d_fused(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    negative = {None: [-np.inf, -2.0], "relu": [0.0, 0.0], "leaky_relu": [-np.inf, dtype.type(-0.02)]}[activation]
    np.testing.assert_array_equal(y.ravel()[[0, 1, 4, 5]], [np.nan, np.inf, 0.0, 3.0])
    np.testing.assert_allclose(y.ravel()[2:4], negative)


def channels_last(x):
    """The same array with its channels last in memory."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 5, (13, 11), (3, 3), 1, 1, 1, 1),
        (3, 17, 33, (14, 15), (3, 3), 1, 1, 1, 1),  # channels one past a vector, panels across images
        (1, 150, 130, (16, 16), (3, 3), 1, 1, 1, 1),  # several tasks
        (2, 3, 16, (40, 41), (11, 11), 4, 2, 1, 1),
        (3, 5, 18, (19, 20), (5, 4), 2, (2, 1), 1, 1),
        (1, 2, 3, (9, 10), (7, 7), 1, 3, 1, 1),
        (2, 20, 24, (7, 9), (1, 1), 1, 0, 1, 1),
        (2, 8, 8, (9, 8), (3, 3), 2, 1, 1, 4),
        (3, 19, 19, (13, 21), (3, 3), 1, 1, 1, 19),  # depthwise: one past vectors of channels and of outputs
        (2, 33, 33, (14, 9), (5, 4), (2, 3), (2, 1), 1, 33),
        (2, 17, 17, (19, 131), (5, 3), 1, (2, 1), 1, 17),
        (1, 16, 16, (70, 66), (3, 3), 1, 30, 30, 16),  # reaches too far for a window
        (5, 4, 4, (3, 4), (3, 3), 1, 3, 2, 4),  # outputs that see no row of the image
        (1, 43, 21, (7, 7), (3, 3), 1, 1, 1, 1),  # two blocks of the depth, one pixel past a panel
        (2, 340, 9, (6, 8), (1, 1), 1, 0, 1, 1),  # whole panels
        (2, 34, 54, (31, 37), (2, 3), 1, 0, (1, 2), 2),  # groups that end within vectors, several units of sums
        (5, 19, 35, (25, 18), (3, 3), 2, 1, 1, 1),  # phases of the stride, many pixels
        (2, 9, 10, (25, 18), (1, 1), 3, 0, 1, 1),
        (2, 49, 50, (17, 19), (1, 1), 1, 0, 1, 1),  # pixels as rows, enough of them: one past a panel
        (3, 130, 97, (29, 31), (1, 1), 2, 0, 1, 1),  # two blocks of the depth, rows of 16 pixels
        (5, 3, 3, (20, 21), (1, 1), 1, 0, 1, 1),
        (3, 20, 9, (2, 2), (2, 2), 1, 0, 1, 1),  # one pixel an image
        (19, 3, 9, (10, 9), (5, 5), 1, (0, 1), 1, 1),  # images in the lanes of vectors
        (21, 18, 6, (13, 11), (3, 3), 2, 1, 1, 1),
        (17, 2, 5, (3, 5), (3, 3), 1, 4, 2, 1),  # outputs that see no row of the image
        (33, 3, 5, (14, 7), (2, 3), (2, 4), (0, 1), 1, 1),  # columns between the filter's steps
        (1, 40, 9, (70, 66), (5, 5), 1, 2, 1, 1),  # several bands, depth of several blocks
        (1, 3, 21, (67, 63), (11, 11), 4, 0, 1, 1),  # phases of the stride
        (9, 2, 10, (14, 15), (5, 5), 1, 0, 1, 1),  # several images' gradients together
        (2, 5, 1, (20, 33), (3, 3), 1, 1, 1, 1),
        (1, 300, 260, (13, 11), (3, 3), 1, 1, 1, 1),  # chunks and parts of winograd's weights
        (1, 70, 60, (29, 33), (5, 5), 1, 2, 1, 1),  # ... of blocks, whose channels are not those of the parts
        (2, 140, 50, (15, 14), (3, 3), 2, 1, 1, 1),  # ... in phases
        (2, 3, 33, (9, 10), (3, 3), 1, 1, 1, 1),  # packed patches: one past vectors, and past tasks
        (
            3,
            3,
            97,
            (23, 21),
            (5, 7),
            2,
            (3, 5),
            1,
            1,
        ),  # ... rows of the filter longer than a vector, two blocks of the depth
        (1, 2, 40, (40, 41), (11, 11), 4, 2, 1, 1),
        (2, 7, 50, (8, 9), (4, 4), 4, 0, 1, 1),
        (2, 3, 36, (3, 2), (3, 5), 1, (1, 4), 1, 1),  # ... wider than the image
    ],
    ids=str,
)
def test_conv2d_of_channels_last_arrays_is_that_of_channels_first_ones(isa, dtype, rng, algorithm, shape):
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    residual = dy[::-1].copy()
    epilogue = dict(residual=residual, activation="leaky_relu", statistics=True)
    expected = F.conv2d_fused(x, weight, bias, *arguments, **epilogue)
    gradients = F.conv2d_backward(dy, x, weight, bias, *arguments)
    for residual in (epilogue["residual"], channels_last(epilogue["residual"])):
        fused = F.conv2d_fused(channels_last(x), weight, bias, *arguments, **dict(epilogue, residual=residual))
        assert_matches(fused[0], expected[0], TOLERANCE[algorithm])
        assert np.moveaxis(fused[0], 1, -1).flags.c_contiguous
        for a, b in zip(fused[1:], expected[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
    for grad_output in (dy, channels_last(dy)):
        for a, b in zip(
            F.conv2d_backward(grad_output, channels_last(x), weight, bias, *arguments), gradients, strict=True
        ):
            assert_matches(a, b, TOLERANCE[algorithm])


@pytest.mark.parametrize(
    ("algorithm", "shape"),  # of more than 4 MB
    [
        ("im2col", (7, 5, 12, (150, 151), (3, 3), 1, 0, 1, 1)),  # some images at a time
        ("auto", (9, 24, 48, (60, 61), (3, 3), 2, 1, 1, 24)),
        ("auto", (2, 33, 66, (140, 141), (3, 3), 1, 1, 1, 33)),  # some groups of one
        ("winograd", (4, 24, 2, (110, 111), (3, 3), 1, 1, 1, 1)),
    ],
    ids=str,
)
def test_channels_last_arrays_that_are_copied_go_part_by_part(dtype, rng, algorithm, shape):
    tolerance = TOLERANCE["im2col" if algorithm == "auto" else algorithm]
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    fused = dict(activation="relu", statistics=True)
    with fastnn.conv_algorithm(algorithm):
        expected = F.conv2d_fused(x, weight, bias, *arguments, residual=dy, **fused)
        actual = F.conv2d_fused(channels_last(x), weight, bias, *arguments, residual=channels_last(dy), **fused)
        assert_matches(actual[0], expected[0].astype(np.float64), tolerance)
        for one, other in zip(actual[1:], expected[1:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        expected = F.conv2d_backward(dy, x, weight, bias, *arguments)
        actual = F.conv2d_backward(channels_last(dy), channels_last(x), weight, bias, *arguments)
    for one, other in zip(actual, expected, strict=True):
        assert_matches(one, other.astype(np.float64), tolerance)
    for result in (F.conv2d(channels_last(x), weight, bias, *arguments), actual[0]):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(activation="gelu"), ValueError, "conv2d_fused: activation must be .*'relu'.*, got 'gelu'"),
        (dict(residual=np.zeros((1, 2, 3, 4))), ValueError, "conv2d_fused: residual must have shape"),
        (dict(residual=np.zeros((1, 2, 3, 3), np.float32)), TypeError, "conv2d_fused: residual"),
        (dict(negative_slope=np.nan), ValueError, "conv2d_fused: negative_slope must be finite, got nan"),
        (dict(negative_slope="0.1"), TypeError, "conv2d_fused: negative_slope must be"),
        (dict(statistics=1.5), TypeError, "conv2d_fused: statistics must be"),
    ],
)
def test_conv2d_fused_refuses_bad_epilogues(arguments, error, message):
    with pytest.raises(error, match=message):
        F.conv2d_fused(np.zeros((1, 1, 3, 3)), np.zeros((2, 1, 1, 1)), **arguments)


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("taps", [2, 3])
def test_conv2d_by_winograd_matches_im2col_for_every_small_size(isa, dtype, rng, taps, height):
    for width in range(1, 10):
        for padding in range(4):
            if min(height, width) + 2 * padding < taps:
                continue
            arrays, arguments, dy = case(rng, (2, 3, 2, (height, width), (taps, taps), 1, padding, 1, 1), dtype)
            with fastnn.conv_algorithm("im2col"):
                expected = F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)
            with fastnn.conv_algorithm("winograd"):
                results = F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)
            for actual, reference in zip(results, expected, strict=True):
                scale = max(1.0, np.sqrt(np.mean(reference**2)))
                np.testing.assert_allclose(actual, reference, 0, 4e-5 * scale * np.finfo(dtype).eps * 2**23)


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_input_grad_of_one_channel_with_stride_2_writes_every_column_channels_last(isa, dtype, rng, kernel):
    arrays, arguments, dy = case(rng, (2, 1, 16, (7, 8), (kernel, kernel), 2, 0, 1, 1), dtype)
    with fastnn.backend("reference"):
        expected = F.conv2d_backward(dy, *arrays, *arguments)[0]
    with fastnn.conv_algorithm("im2col"):
        assert_matches(F.conv2d_backward(channels_last(dy), *arrays, *arguments)[0], expected, "conv")


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("stride", "kernel"), [(2, range(2, 7)), (4, range(5, 13))])
def test_input_grad_by_winograd_matches_im2col_for_every_phase(isa, dtype, rng, stride, kernel, last):
    runs = 0
    for taps in itertools.product(kernel, kernel):
        for padding in (0, 1, taps[0] // 2, taps[0] - 1):
            size = (taps[0] + 5 + 3 * (taps[1] % 3), taps[1] + 4 * (taps[0] % 4))  # 1 to 4 tiles, ragged
            (x, weight, bias), arguments, dy = case(rng, (2, 3, 2, size, taps, stride, padding, 1, 1), dtype)
            runs += choose_winograd("conv_input_grad", taps, stride)
            if last:
                dy = channels_last(dy)
            with fastnn.conv_algorithm("im2col"):
                expected = F.conv2d_backward(dy, x, weight, bias, *arguments, needs=(True, False, False))[0]
            with fastnn.conv_algorithm("winograd"):
                dx = F.conv2d_backward(dy, x, weight, bias, *arguments, needs=(True, False, False))[0]
            scale = max(1.0, np.sqrt(np.mean(expected**2)))
            np.testing.assert_allclose(dx, expected, 0, 4e-5 * scale * np.finfo(dtype).eps * 2**23)
    assert runs >= 4 * (len(kernel) ** 2 - 1)  # 2x2 with stride 2 has a single tap in each phase


def choose_winograd(operation, kernel, stride):
    with fastnn.conv_algorithm("winograd"):
        return choose(operation, 2, 2, 3, (9, 9), kernel, (stride, stride), (1, 1), 1, 8) == "winograd"


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 4), (5, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, once a process
def test_conv2d_padding_same_keeps_the_size_and_matches_torch(rng, kernel, dilation):
    torch = pytest.importorskip("torch")
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, *kernel))
    y = F.conv2d(x, weight, padding="same", dilation=dilation)
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(weight, requires_grad=True)
    expected = torch.nn.functional.conv2d(tx, tw, padding="same", dilation=dilation)
    assert_matches(y, expected.detach().numpy(), "conv")
    dy = rng.standard_normal(y.shape)
    dx, dw, _ = F.conv2d_backward(dy, x, weight, padding="same", dilation=dilation)
    expected.backward(torch.tensor(dy))
    assert_matches(dx, tx.grad.numpy(), "conv")
    assert_matches(dw, tw.grad.numpy(), "conv")


def test_conv2d_padding_valid_is_no_padding(rng):
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3))
    np.testing.assert_array_equal(F.conv2d(x, weight, padding="valid"), F.conv2d(x, weight))


def test_conv2d_takes_any_strides(isa, dtype, rng, algorithm):
    weight = rng.standard_normal((5, 3, 3, 3)).astype(dtype)
    base = rng.standard_normal((4, 9, 20, 6)).astype(dtype)
    for x in (
        base.transpose(0, 3, 1, 2)[:, ::2],  # channels last, every other channel
        base[:, :3, ::-1, :],  # reversed rows
        base[::2, ::3],
        np.broadcast_to(base[0, 0], (2, 3, 20, 6)),
    ):
        x.flags.writeable = False
        y = F.conv2d(x, weight, padding=1)
        np.testing.assert_array_equal(y, F.conv2d(x.copy(order="C"), weight, padding=1))
        dy = rng.standard_normal(y.shape).astype(dtype)
        flipped = np.asfortranarray(dy)
        for a, b in zip(
            F.conv2d_backward(flipped, x, weight, padding=1),
            F.conv2d_backward(dy, x.copy(order="C"), np.asfortranarray(weight), padding=1),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_conv2d_backward_computes_only_what_is_needed(rng):
    arrays, arguments, dy = case(rng, CONVOLUTIONS[1])
    everything = F.conv2d_backward(dy, *arrays, *arguments)
    for needs in ((False, True, True), (True, False, False), (False, False, False)):
        for need, gradient, full in zip(
            needs, F.conv2d_backward(dy, *arrays, *arguments, needs=needs), everything, strict=True
        ):
            assert (gradient is None) == (not need)
            if need:
                np.testing.assert_array_equal(gradient, full)


@pytest.mark.parametrize(
    "shape",
    [
        CONVOLUTIONS_LARGE[1],
        CONVOLUTIONS_LARGE[2],
        (1, 64, 64, (28, 28), (3, 3), 1, 1, 1, 1),
        (1, 70, 150, (7, 7), (3, 3), 1, 1, 1, 1),  # few pixels, packed once for all threads; one past a panel
        CONVOLUTIONS_FEW[4],
        CONVOLUTIONS_FEW[5],
        (1, 150, 270, (16, 16), (3, 3), 1, 1, 1, 1),  # few tiles: winograd splits the output channels
        (1, 150, 60, (16, 16), (3, 3), 1, 1, 1, 1),  # ... and has parts of the channels where it needs them for threads
        (8, 33, 40, (29, 31), (3, 3), 1, 1, 1, 1),  # many tiles: its backward-weights sums parts of them
        (70, 20, 17, (9, 10), (5, 5), 1, 2, 1, 1),  # images in the lanes of vectors, bands by the threads
        (1, 3, 9, (150, 66), (3, 3), 1, 1, 1, 1),  # bands by the threads, but for statistics
        (2, 20, 30, (90, 91), (5, 5), 1, 2, 1, 1),  # several blocks of tiles for fft
    ],
    ids=str,
)
def test_conv2d_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm, shape):
    arrays, arguments, dy = case(rng, shape, dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            fused = F.conv2d_fused(*arrays, *arguments, residual=dy, activation="relu", statistics=True)
            results.append((F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments), *fused))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 70, 150, (7, 7), (3, 3), 1, 1, 1, 1),
        (8, 33, 40, (29, 31), (3, 3), 1, 1, 1, 1),
        (3, 130, 170, (29, 31), (1, 1), 1, 0, 1, 1),
        (4, 40, 40, (29, 31), (3, 3), 1, 1, 1, 40),
        (4, 40, 24, (29, 31), (3, 3), 2, 1, 1, 2),
        (1, 150, 60, (30, 31), (3, 3), 1, 1, 1, 1),  # winograd has parts of the channels where all threads share tiles
        (1, 50, 40, (30, 31), (5, 5), 1, 2, 1, 1),  # ... of those of blocks
        (5, 16, 17, (26, 28), (3, 3), 2, (1, 2), 1, 1),  # ... of which the last task has few tiles
        (5, 3, 40, (29, 31), (3, 3), 1, 1, 1, 1),  # packed patches
    ],
    ids=str,
)
def test_conv2d_of_channels_last_arrays_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm, shape):
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    x, dy = channels_last(x), channels_last(dy)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            fused = F.conv2d_fused(x, weight, bias, *arguments, residual=dy, activation="relu", statistics=True)
            results.append((*F.conv2d_backward(dy, x, weight, bias, *arguments), *fused))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "shape",
    [
        *CONVOLUTIONS_PATCHES,
        CONVOLUTIONS_DEPTHWISE[0],
        (8, 3, 64, (40, 41), (3, 3), 1, 1, 1, 1),
        (3, 24, 4, (33, 35), (3, 3), 2, 1, 1, 1),
    ],
    ids=str,
)
def test_conv2d_as_it_is_chosen_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, shape):
    arrays, arguments, dy = case(rng, shape, dtype)
    results = []
    for threads in (1, 2, 5, 33):
        with fastnn.threads(threads):
            results.append((F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_conv2d_backward_meets_an_infinity_alike_for_any_number_of_threads(isa, dtype, algorithm):
    (x, weight, _), arguments, dy = case(
        np.random.default_rng(0), (17, 4, 16, (13, 22), (2, 2), (2, 1), 1, 1, 1), dtype
    )
    dy[0, :, 0] = np.inf
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads), np.errstate(invalid="ignore"):
            results.append(F.conv2d_backward(dy, x, weight, None, *arguments))
    for other in results[1:]:
        for a, b in zip(results[0][:2], other[:2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_conv_transpose2d_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm):
    # Outputs at the border miss as many taps as make a block of the sum, their neighbours in a vector do not.
    x, weight = rng.standard_normal((5, 60, 20, 19)).astype(dtype), rng.standard_normal((60, 6, 10, 2)).astype(dtype)
    bias = rng.standard_normal(6).astype(dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            results.append(F.conv_transpose2d(x, weight, bias))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize(("channels", "out_channels"), [(20, 6), (3, 6), (3, 33)])
def test_conv2d_nan_outside_a_channels_last_image_reaches_nothing(isa, dtype, algorithm, channels, out_channels):
    base = np.full((3, 9, 10, channels), np.nan, dtype)
    base[1] = 1
    x = base[1:2].transpose(0, 3, 1, 2)
    y = F.conv2d(x, np.ones((out_channels, channels, 3, 3), dtype), padding=1)
    assert np.isfinite(y).all()


def test_conv2d_nan_and_infinity_reach_only_what_they_touch(dtype):
    x = np.zeros((1, 1, 8, 8), dtype)
    x[0, 0, 2, 2] = np.nan
    x[0, 0, 6, 6] = np.inf
    y = F.conv2d(x, np.ones((1, 1, 3, 3), dtype))[0, 0]
    assert np.isnan(y[:3, :3]).all()
    assert np.isinf(y[4:, 4:]).all()
    assert np.isfinite(y[:3, 3:]).all()


def test_conv2d_nan_stays_in_its_image_where_images_share_a_vector(dtype, isa):
    fastnn.set_conv_algorithm("direct")
    x = np.zeros((33, 1, 5, 5), dtype)
    x[20, 0, 2, 2] = np.nan
    weight = np.ones((1, 1, 3, 3), dtype)
    y = F.conv2d(x, weight, padding=1)
    assert np.isnan(y[20, 0, 1:4, 1:4]).all()
    assert np.isnan(y).sum() == 9
    dx, dw, _ = F.conv2d_backward(y, x, weight, padding=1)
    assert np.isnan(dx).sum() == 25
    assert np.isnan(dx[20]).all()
    assert np.isnan(dw).all()


def test_conv2d_by_winograd_keeps_nan_and_infinity_to_the_tiles_that_they_touch(dtype):
    fastnn.set_conv_algorithm("winograd")
    x = np.zeros((1, 1, 18, 18), dtype)
    x[0, 0, 2, 2] = np.nan
    x[0, 0, 13, 13] = np.inf
    y = F.conv2d(x, np.ones((1, 1, 3, 3), dtype))[0, 0]
    assert np.isnan(y[:3, :3]).all()
    assert not np.isfinite(y[11:14, 11:14]).any()
    assert np.isfinite(y[4:8]).all()
    assert np.isfinite(y[:4, 4:]).all()


def test_conv2d_by_winograd_spreads_an_infinity_to_the_4x4_outputs_of_its_tile_as_its_docstring_says(dtype, isa):
    x = np.zeros((1, 1, 18, 18), dtype)
    x[0, 0, 6, 6] = np.inf  # in the patch of the tile of outputs 4 to 7 alone, of which it touches 3x3
    weight = np.ones((1, 1, 3, 3), dtype)
    expected = np.zeros((16, 16), bool)
    expected[4:8, 4:8] = True
    with fastnn.conv_algorithm("winograd"):
        np.testing.assert_array_equal(np.isnan(F.conv2d(x, weight)[0, 0]), expected)
        gradient = F.conv2d_backward(x, np.zeros((1, 1, 18, 18), dtype), weight, padding=1)[0]
    expected = np.zeros((18, 18), bool)
    expected[4:8, 4:8] = True
    np.testing.assert_array_equal(np.isnan(gradient[0, 0]), expected)
    for documented in (F.conv2d, F.conv2d_backward, F.conv_transpose2d):
        assert "Winograd" in documented.__doc__


def test_conv2d_by_fft_spreads_an_infinity_to_the_outputs_of_its_tile_as_its_docstring_says(dtype, isa):
    x = np.zeros((1, 1, 36, 36), dtype)
    x[0, 0, 18, 18] = np.inf  # in the patch of the tile of outputs 12 to 23 alone, of which it touches 5x5
    weight = np.ones((1, 1, 5, 5), dtype)
    expected = np.zeros((36, 36), bool)
    expected[12:24, 12:24] = True
    with fastnn.conv_algorithm("fft"):
        np.testing.assert_array_equal(np.isnan(F.conv2d(x, weight, padding=2)[0, 0]), expected)
        gradient = F.conv2d_backward(x, np.zeros((1, 1, 36, 36), dtype), weight, padding=2)[0]
    np.testing.assert_array_equal(np.isnan(gradient[0, 0]), expected)
    for documented in (F.conv2d, F.conv2d_backward, F.conv_transpose2d):
        assert "Fourier" in documented.__doc__


@pytest.mark.parametrize("by", ["winograd", "fft"])
@pytest.mark.parametrize("change", [dict(stride=3), dict(stride=(2, 1)), dict(dilation=2), dict(groups=2)])
def test_conv2d_forced_to_transforms_falls_back_where_they_cannot_run(rng, change, by):
    x, weight = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 4 // change.get("groups", 1), 3, 3))
    results = []
    for name in ("im2col", by):
        with fastnn.conv_algorithm(name):
            y = F.conv2d(x, weight, **change)
            results.append((y, *F.conv2d_backward(y, x, weight, **change)[:2]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("kernel", range(2, 13))
def test_blocks_of_winograd_hold_each_tap_once_and_the_whole_ones_first(kernel, stride):
    most, (blocks, _) = winograd_blocks((kernel, kernel), (stride, stride))
    taps = [count for _, count in blocks]
    assert taps == sorted(taps, reverse=True)
    assert max(taps) <= most
    held = [first + stride * tap for first, count in blocks for tap in range(count)]
    assert sorted(held) == list(range(kernel))


@pytest.mark.parametrize(
    ("shape", "expected", "expected_weights"),
    [
        ((64, 64, 64, (32, 32)), "winograd", "winograd"),
        ((16, 16, 16, (20, 20)), "winograd", "winograd"),
        ((64, 3, 64, (32, 32)), "direct", "direct"),  # few channels
        ((64, 64, 3, (32, 32)), "direct", "winograd"),
        ((1, 64, 64, (8, 8)), "im2col", "im2col"),  # few tiles
        ((1, 32, 32, (8, 8)), "direct", "im2col"),
        ((0, 64, 64, (8, 8)), "im2col", "im2col"),
    ],
)
def test_auto_takes_winograd_where_it_was_measured_to_gain(shape, expected, expected_weights):
    def by(operation, *shape, kernel=3, stride=1, lanes=16):
        return choose(operation, *shape, (kernel,) * 2, (stride,) * 2, (1, 1), 1, lanes)

    for operation in ("conv", "conv_input_grad"):
        assert by(operation, *shape) == expected
    assert by("conv_weight_grad", *shape) == expected_weights
    assert by("conv", *shape, kernel=2, stride=2) != "winograd"  # more products
    with fastnn.conv_algorithm("im2col"):
        assert by("conv", *shape) == "im2col"
    with fastnn.conv_algorithm("winograd"):  # whatever takes fewer products, there are blocks for all of these
        sizes = itertools.product(range(2, 13), range(2, 13), (1, 2, 4))
        assert {choose("conv", *shape, (r, s), (d, d), (1, 1), 1, 16) for r, s, d in sizes} == {"winograd"}
    alexnet, few_tiles = (8, 3, 96, (55, 55)), (1, 256, 256, (8, 8))
    assert by("conv_weight_grad", *alexnet, kernel=11, stride=4) == "winograd"
    assert (
        by("conv", 8, 64, 128, (28, 28), stride=2)
        == by("conv_weight_grad", 8, 64, 128, (28, 28), stride=2)
        == "winograd"
    )
    assert by("conv_weight_grad", 8, 256, 512, (7, 7), stride=2) == "im2col"  # much of the tiles is unused
    assert by("conv_input_grad", 8, 128, 64, (56, 56), stride=2) == "winograd"
    assert by("conv_input_grad", 32, 64, 16, (32, 32), kernel=4, stride=2) == "winograd"  # few channels in the result
    assert by("conv_input_grad", 1, 512, 256, (14, 14), stride=2) == "im2col"  # few tiles
    assert by("conv_input_grad", 8, 512, 256, (14, 14), stride=2) == "im2col"  # many weights
    assert by("conv_input_grad", 8, 64, 3, (224, 224), kernel=7, stride=2) != "winograd"  # phases with four taps
    assert by("conv_weight_grad", *few_tiles) == by("conv", 2, 256, 256, (8, 8)) == "winograd"
    for shape, chosen in ((few_tiles, "winograd"), ((1, 512, 512, (7, 7)), "im2col")):  # most time for the weights
        assert by("conv", *shape) == by("conv", *shape, lanes=8) == by("conv_input_grad", *shape) == chosen
    assert by("conv_weight_grad", *few_tiles, lanes=8) == "im2col"


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("groups", [1, 2])
def test_large_weights_are_taken_by_parts(rng, groups, last):
    """Backward by the matrix product, with weights of more than 8 MB, against NumPy's own product."""
    channels, out_channels, (height, width) = 1600, 1500, (20, 22)
    x, dy = (rng.standard_normal((1, n * groups, height, width)).astype(np.float32) for n in (channels, out_channels))
    weight = rng.standard_normal((out_channels * groups, channels, 1, 1)).astype(np.float32)
    bias = rng.standard_normal(channels * groups).astype(np.float32)
    flat_x, flat_dy = (array.astype(np.float64).reshape(groups, -1, height * width) for array in (x, dy))
    flat_weight = weight.astype(np.float64).reshape(groups, out_channels, channels)
    dx = (flat_weight.transpose(0, 2, 1) @ flat_dy).reshape(x.shape)
    dw, db = (flat_dy @ flat_x.transpose(0, 2, 1)).reshape(weight.shape), dy.sum(axis=(0, 2, 3), dtype=np.float64)
    if last:
        x, dy = channels_last(x), channels_last(dy)
    results = []
    for threads in (1, 2, 5):
        with fastnn.conv_algorithm("im2col"), fastnn.threads(threads):
            found = F.conv2d_backward(dy, x, weight, np.zeros(len(weight), np.float32), groups=groups)
            results.append((*found, F.conv_transpose2d(dy, weight, bias, groups=groups)))
    for actual, expected in zip(results[0], (dx, dw, db, dx + bias[:, None, None]), strict=True):
        assert_matches(actual, expected, "conv")
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_weight_gradient_of_one_channel_and_gradients_with_channels_last(isa, dtype, rng, algorithm):
    """An image of one channel stands both ways."""
    x, dy = rng.standard_normal((5, 1, 12, 11)).astype(dtype), rng.standard_normal((5, 40, 12, 11)).astype(dtype)
    weight, bias = np.zeros((40, 1, 3, 3), dtype), np.zeros(40, dtype)
    expected = F.conv2d_backward(dy, x, weight, bias, padding=1)
    for a, b in zip(F.conv2d_backward(channels_last(dy), x, weight, bias, padding=1), expected, strict=True):
        assert_matches(a, b, TOLERANCE[algorithm])


def test_arrays_with_gaps_are_copied_by_parts(rng):
    """Images of more than 4 MB that stand in neither layout, and a residual in the other one."""

    def gaps(array):
        return np.repeat(array, 2, axis=3)[..., ::2]

    x, weight, bias = rng.standard_normal((5, 9, 200, 202)), rng.standard_normal((8, 3, 3, 3)), rng.standard_normal(8)
    x, weight, bias = (array.astype(np.float32) for array in (x[:, :6], weight, bias))
    residual = rng.standard_normal((5, 8, 200, 202)).astype(np.float32)
    options = {"padding": 1, "groups": 2}
    expected = F.conv2d_fused(x, weight, bias, residual=residual, statistics=True, **options)
    assert x.nbytes > 4 << 20
    for other in (gaps(residual), channels_last(residual)):
        found = F.conv2d_fused(gaps(x), weight, bias, residual=other, statistics=True, **options)
        for actual, one in zip(found, expected, strict=True):
            assert_matches(actual.astype(np.float32), one, "conv")
    expected = F.conv2d_backward(residual, x, weight, bias, **options)
    for grad, image in ((gaps(residual), x), (residual, gaps(x)), (gaps(residual), gaps(x))):
        for actual, one in zip(F.conv2d_backward(grad, image, weight, bias, **options), expected, strict=True):
            assert_matches(actual, one, "conv")


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("images", "channels", "size"), [(3, 9, 240), (2, 18, 260), (5, 9, 160)])
def test_images_with_gaps_between_them_are_computed_one_by_one(rng, images, channels, size, groups):
    """More than 4 MB; a single image of them stands with its channels last, alone or left over."""
    base = rng.standard_normal((2 * images, size + 7, size, channels)).astype(np.float32)
    weight = rng.standard_normal((12, channels // groups, 3, 3)).astype(np.float32)
    for array in (base[::2], base[:images, 3:-4], base[:images, :, 2:-2]):
        x = array.transpose(0, 3, 1, 2)
        assert x.nbytes > 4 << 20
        first = np.ascontiguousarray(x)
        expected = F.conv2d(first, weight, padding=1, groups=groups)
        assert_matches(F.conv2d(x, weight, padding=1, groups=groups), expected, "conv")
        wide = np.resize(weight, (channels, 12 // groups, 3, 3))
        expected = F.conv_transpose2d(first, wide, padding=1, groups=groups)
        assert_matches(F.conv_transpose2d(x, wide, padding=1, groups=groups), expected, "conv")
        dy = F.conv2d(first, weight, padding=1, groups=groups)
        expected = F.conv2d_backward(dy, first, weight, padding=1, groups=groups)
        for actual, one in zip(F.conv2d_backward(dy, x, weight, padding=1, groups=groups)[:2], expected, strict=False):
            assert_matches(actual, one, "conv")


def test_transposed_1x1_convolution_of_channels_last_arrays_pads_its_output(isa, dtype, rng):
    x, weight = rng.standard_normal((1, 8, 24, 24)).astype(dtype), rng.standard_normal((8, 4, 1, 1)).astype(dtype)
    arguments = {"stride": 1, "padding": 0, "output_padding": 1, "dilation": 2}
    expected = F.conv_transpose2d(x, weight, **arguments)
    assert expected.shape == (1, 4, 25, 25)
    dy = rng.standard_normal(expected.shape).astype(dtype)
    assert_matches(F.conv_transpose2d(channels_last(x), weight, **arguments), expected, "conv")
    expected = F.conv_transpose2d_backward(dy, x, weight, None, **arguments)
    found = F.conv_transpose2d_backward(channels_last(dy), channels_last(x), weight, None, **arguments)
    for actual, one in zip(found[:2], expected[:2], strict=True):
        assert_matches(actual, one, "conv")


def test_statistics_of_many_outputs_are_those_of_the_output(rng):
    """Outputs of more than 64 MB are summed up part by part."""
    x = rng.standard_normal((9, 3, 180, 181)).astype(np.float32)
    weight = rng.standard_normal((64, 3, 3, 3)).astype(np.float32)
    for image in (x, channels_last(x)):
        y, sums, squares = F.conv2d_fused(image, weight, padding=1, statistics=True)
        assert_matches(y, F.conv2d(image, weight, padding=1), "conv")
        np.testing.assert_allclose(squares, np.square(y, dtype=np.float64).sum(axis=(0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(sums, y.sum(axis=(0, 2, 3), dtype=np.float64), rtol=1e-4, atol=1)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(("groups", "rows"), [(1, 4099), (3, 1501), (2, 2500), (4200, 2)])
def test_very_many_output_channels_have_their_gradients_by_parts(rng, groups, rows, last):
    """More than 4096 in float32 and 2048 in float64: parts of a group, or some groups at a time."""
    for dtype in (np.float32, np.float64):
        x = rng.standard_normal((2, groups * 2, 5, 6)).astype(dtype)
        dy = rng.standard_normal((2, groups * rows, 4, 5)).astype(dtype)
        weight, bias = np.zeros((groups * rows, 2, 2, 2), dtype), np.zeros(groups * rows, dtype)
        with fastnn.backend("reference"):
            expected = F.conv2d_backward(dy, x, weight, bias, groups=groups)
        if last:
            x, dy = channels_last(x), channels_last(dy)
        found = F.conv2d_backward(dy, x, weight, bias, groups=groups, needs=(False, True, True))
        for actual, one in zip(found[1:], expected[1:], strict=True):
            assert_matches(actual, one, "conv")


def test_auto_takes_fft_where_it_was_measured_to_gain():
    def by(*shape, kernel, stride=1, operation="conv", lanes=16):
        return choose(operation, *shape, (kernel,) * 2, (stride,) * 2, (1, 1), 1, lanes)

    for lanes in (8, 16):
        for operation in ("conv", "conv_input_grad"):
            assert by(8, 96, 256, (27, 27), kernel=5, operation=operation, lanes=lanes) == "fft"
            assert by(1, 64, 64, (28, 28), kernel=7, operation=operation, lanes=lanes) == "fft"
            assert by(32, 64, 64, (7, 7), kernel=3, operation=operation, lanes=lanes) != "fft"  # much of a tile unused
            assert by(1, 256, 256, (12, 12), kernel=5, operation=operation, lanes=lanes) != "fft"  # a single tile
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, lanes=lanes) == "fft"
        assert by(8, 3, 96, (55, 55), kernel=11, stride=4, lanes=lanes) == "winograd"  # 3x3 in a phase
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, operation="conv_weight_grad", lanes=lanes) == "fft"
        assert by(8, 64, 64, (28, 28), kernel=7, operation="conv_weight_grad", lanes=lanes) == "fft"
        assert by(1, 512, 512, (14, 14), kernel=3, operation="conv_weight_grad", lanes=lanes) == "winograd"
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, operation="conv_input_grad", lanes=lanes) != "fft"
    assert by(8, 600, 64, (48, 48), kernel=7) != "fft"  # too many channels


def test_auto_takes_direct_where_it_was_measured_to_gain():
    def by(operation, channels, out_channels, size, kernel, groups=1, images=8):
        sizes = ((size, size), (kernel, kernel), (2, 2), (1, 1))
        return choose(operation, images, channels, out_channels, *sizes, groups, 16)

    for operation in ("conv", "conv_input_grad", "conv_weight_grad"):
        assert by(operation, 3, 16, 112, 3) == "direct"
        assert by(operation, 64, 64, 7, 3, groups=64) == "direct"
        assert by(operation, 256, 512, 7, 3, images=1) == "im2col"
        assert by(operation, 3, 64, 28, 1) == "im2col"  # nothing to pack
        assert by(operation, 16, 120, 1, 5) == "im2col"  # a single position
    assert by("conv", 64, 64, 7, 3) == "im2col"
    assert by("conv", 64, 64, 7, 3, images=32) == "direct"
    assert by("conv_weight_grad", 8, 64, 7, 3) == "im2col"
    assert by("conv_weight_grad", 8, 64, 7, 3, images=32) == "direct"
    assert choose("conv", 8, 3, 8, (9, 9, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 16) == "im2col"  # three dimensions


def test_set_conv_algorithm_refuses_unknown_names():
    with pytest.raises(
        ValueError, match="set_conv_algorithm: name must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got 'fast'"
    ):
        fastnn.set_conv_algorithm("fast")
    assert fastnn.get_conv_algorithm() == "auto"


def run_python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_fastnn_conv_algorithm_sets_the_one_that_a_process_starts_with():
    program = "import fastnn; print(fastnn.get_conv_algorithm())"
    assert run_python(program, FASTNN_CONV_ALGORITHM="winograd").stdout == "winograd\n"
    result = run_python(program, FASTNN_CONV_ALGORITHM="fast")
    assert "FASTNN_CONV_ALGORITHM must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got 'fast'" in result.stderr


@pytest.mark.parametrize("name", ["im2col", "direct", "winograd", "fft"])
@pytest.mark.parametrize("shape", [(2, 64, 64, 112), (1, 512, 512, 14)], ids=str)
def test_conv2d_takes_at_most_16_mb_a_thread_beside_its_results(name, shape):
    n, c, k, size = shape
    program = f"""
import fastnn, numpy as np
import fastnn.functional as F
x, w = np.ones(({n}, {c}, {size}, {size}), np.float32), np.ones(({k}, {c}, 3, 3), np.float32)
dy, start = np.ones(({n}, {k}, {size}, {size}), np.float32), fastnn.memory_stats()["used_bytes"]
fastnn.set_num_threads(2)
y = F.conv2d(x, w, padding=1)
dx, dw, _ = F.conv2d_backward(dy, x, w, padding=1)
print(fastnn.memory_stats()["peak_bytes"] - start - y.nbytes - dx.nbytes - dw.nbytes)
"""
    extra = int(run_python(program, FASTNN_CONV_ALGORITHM=name).stdout)
    assert extra <= 2 * 16e6


def test_conv2d_theory_output_sizes():
    def size(n, k, s, p, d):
        return F.conv2d(np.zeros((1, 1, n, 1)), np.zeros((1, 1, k, 1)), None, (s, 1), (p, 0), (d, 1)).shape[2]

    for s, k in ((4, 44), (1, 59), (2, 54), (3, 49)):
        assert size(64, k, s, 0, 1) == 6
    for s, k in ((1, 31), (3, 26), (5, 21)):
        assert size(64, k, s, 1, 2) == 6
    for s, k in ((1, 61), (2, 56), (3, 51), (4, 46), (5, 41)):
        assert size(64, k, s, 1, 1) == 6


def test_conv2d_in_two_groups_is_two_towers(rng):
    x, weight = rng.standard_normal((2, 6, 9, 9)), rng.standard_normal((8, 3, 3, 3))
    towers = [F.conv2d(x[:, :3], weight[:4]), F.conv2d(x[:, 3:], weight[4:])]
    np.testing.assert_allclose(F.conv2d(x, weight, groups=2), np.concatenate(towers, axis=1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(0, 0), (5, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_conv2d_of_images_without_pixels_goes_forward_and_backward(dtype, algorithm, size, last):
    x, weight = np.ones((2, 3, *size), dtype), np.ones((2, 3, 3, 3), dtype)
    if last:
        x = channels_last(x)
    bias = np.array([1, 2], dtype)
    y = F.conv2d(x, weight, bias, padding=2)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None, None], y.shape))
    dx, dw, db = F.conv2d_backward(y, x, weight, bias, padding=2)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(weight))
    np.testing.assert_allclose(db, y.sum(axis=(0, 2, 3)))


def test_conv2d_with_a_dilation_beyond_any_image_computes_what_is_left(dtype):
    x, weight, far = np.full((1, 1, 2, 2), 3, dtype), np.ones((1, 1, 3, 3), dtype), 2**31 - 1
    y = F.conv2d(x, weight, padding=far, dilation=far)  # each output sees itself
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(F.conv2d_backward(y, x, weight, padding=far, dilation=far)[0], x)


def test_gradients_of_arrays_with_different_layouts_are_those_of_one(dtype, rng, algorithm):
    (x, weight, bias), arguments, dy = case(rng, (5, 20, 18, (14, 13), (5, 5), 1, 2, 1, 1), dtype)
    expected = F.conv2d_backward(dy, x, weight, bias, *arguments)
    for actual in (
        F.conv2d_backward(channels_last(dy), x, weight, bias, *arguments),
        F.conv2d_backward(dy, channels_last(x), weight, bias, *arguments),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_matches(one, other.astype(np.float64), TOLERANCE[algorithm])


X, W = np.zeros((2, 4, 6, 6)), np.zeros((8, 4, 3, 3))
BAD = [
    (dict(input=[1.0]), TypeError, "conv2d: input must be a NumPy array, got list"),
    (dict(input=X.astype(int)), TypeError, "conv2d: input must be float32 or float64, got int64"),
    (dict(weight=W.astype(np.float32)), TypeError, "conv2d: weight must have input's dtype float64, got float32"),
    (dict(bias=np.zeros(8, np.float32)), TypeError, "conv2d: bias must have input's dtype float64, got float32"),
    (dict(input=X[0]), ValueError, r"conv2d: input must have 4 dimensions \(N, C, H, W\), got shape \(4, 6, 6\)"),
    (dict(weight=W[0]), ValueError, r"conv2d: weight must have 4 dimensions"),
    (
        dict(input=X[:, :3]),
        ValueError,
        r"conv2d: weight must have shape \(8, 3, 3, 3\) for input's 3 channels and groups=1, got \(8, 4, 3, 3\)$",
    ),
    (
        dict(input=np.zeros((2, 6, 6, 4))),
        ValueError,
        r"for input's 6 channels.* if input has its channels last, give input.transpose\(0, 3, 1, 2\)",
    ),
    (dict(input=X[:, :3], groups=2), ValueError, "conv2d: input's 3 channels must be a multiple of groups=2"),
    (dict(groups=3), ValueError, "conv2d: weight's first dimension must be a multiple of groups=3, got 8 channels"),
    (dict(groups=2), ValueError, r"conv2d: weight must have shape \(8, 2, 3, 3\) for input's 4 channels and groups=2"),
    (dict(groups=0), ValueError, "conv2d: groups must be at least 1, got 0"),
    (dict(bias=np.zeros(7)), ValueError, r"conv2d: bias must have shape \(8,\) \(one per output channel\), got \(7,\)"),
    (dict(stride=0), ValueError, "conv2d: stride must be at least 1, got 0"),
    (dict(stride=1.5), TypeError, "conv2d: stride must be an integer, got 1.5"),
    (dict(stride=(1, 2, 3)), ValueError, "conv2d: stride must be an integer or 2 of them"),
    (dict(padding=(1, 2, 1, 2)), ValueError, "an integer or 2 of them, .* F.pad adds what differs from side to side"),
    (dict(padding=-1), ValueError, "conv2d: padding must be at least 0, got -1"),
    (dict(padding="full"), ValueError, "conv2d: padding must be integers, 'same' or 'valid', got 'full'"),
    (dict(padding="same", stride=2), ValueError, "conv2d: padding='same' needs stride 1"),
    (dict(dilation=0), ValueError, "conv2d: dilation must be at least 1, got 0"),
    (
        dict(dilation=3),
        ValueError,
        r"conv2d: the kernel reaches over \(7, 7\) elements .* more than the padded input's",
    ),
    (dict(weight=np.zeros((8, 4, 7, 7))), ValueError, "conv2d: the kernel reaches over"),
    (dict(weight=np.zeros((8, 4, 0, 3))), ValueError, "conv2d: weight must not be empty"),
    (dict(input=np.zeros((2, 4, 0, 6))), ValueError, "conv2d: the kernel reaches over"),
    (dict(padding=2**62), ValueError, f"conv2d: padding must be at most {2**31 - 1}, got {2**62}"),
    (dict(stride=2**80), ValueError, "conv2d: stride must be at most"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_conv2d_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        F.conv2d(**{"input": X, "weight": W, **change})


def test_conv2d_backward_bad_gradient():
    with pytest.raises(ValueError, match=r"conv2d_backward: grad_output must have shape \(2, 8, 4, 4\)"):
        F.conv2d_backward(np.zeros((2, 8, 6, 6)), X, W)
    with pytest.raises(TypeError, match="conv2d_backward: grad_output must have input's dtype float64, got float32"):
        F.conv2d_backward(np.zeros((2, 8, 4, 4), np.float32), X, W)
    with pytest.raises(ValueError, match="conv2d_backward: needs must be three bools"):
        F.conv2d_backward(np.zeros((2, 8, 4, 4)), X, W, needs=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(output_padding=1), "conv_transpose2d: output_padding must be smaller than stride or dilation"),
        (dict(padding=5), "conv_transpose2d: the output would have size"),
        (dict(weight=np.zeros((5, 4, 3, 3))), "conv_transpose2d: weight expects 5 input channels"),
        (dict(input=np.zeros((2, 4, 5, 8))), r"has 4; if input has its channels last, give .*\(0, 3, 1, 2\)"),
        (dict(bias=np.zeros(8)), r"conv_transpose2d: bias must have shape \(4,\)"),
    ],
)
def test_conv_transpose2d_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        F.conv_transpose2d(**{"input": np.zeros((2, 8, 4, 4)), "weight": W, **change})


def test_conv2d_too_large_output_raises_memory_error():
    with pytest.raises(MemoryError):
        F.conv2d(np.zeros((1, 1, 1, 1)), np.zeros((8, 1, 1, 1)), padding=2**31 - 1)

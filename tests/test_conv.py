"""Convolutions: native against reference, finite differences and torch, on shapes chosen to hurt; bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from tests.convolutions import TOLERANCE, case, channels_last, functions
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


def transposed_functions(dims):
    return getattr(F, f"conv_transpose{dims}d"), getattr(F, f"conv_transpose{dims}d_backward")


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
    (4, 3, (7,), (1,), 1, 1, 2, 1, 3),  # one tap and padding: as many outputs as inputs, but others
    (3, 5, (6, 6), (1, 1), 1, 1, 2, 1, 3),
    (17, 18, (21, 20), (1, 1), 1, (1, 0), (2, 0), 1, 3),
    (2, 3, (3, 4, 3), (1, 1, 1), 1, (1, 0, 1), (2, 0, 2), 1, 3),
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


def test_conv2d_nan_and_infinity_reach_only_what_they_touch(dtype):
    x = np.zeros((1, 1, 8, 8), dtype)
    x[0, 0, 2, 2] = np.nan
    x[0, 0, 6, 6] = np.inf
    y = F.conv2d(x, np.ones((1, 1, 3, 3), dtype))[0, 0]
    assert np.isnan(y[:3, :3]).all()
    assert np.isinf(y[4:, 4:]).all()
    assert np.isfinite(y[:3, 3:]).all()


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

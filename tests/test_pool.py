"""Pooling: native against reference and torch, gradients, indices, special values, strides, threads, bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

# (dims, input, kernel_size, stride, padding, dilation, ceil_mode): one past a vector and a block of outputs, primes,
# kernel = input, size-1 axes, padded and partial windows, strides above the kernel, empty batches, no batch.
CASES = [
    (2, (2, 3, 28, 28), 2, None, 0, 1, False),  # LeNet-5
    (2, (2, 2, 56, 56), 3, 2, 1, 1, False),  # ResNet's stem, smaller
    (2, (1, 2, 31, 31), 3, 2, 0, 1, False),  # AlexNet
    (2, (3, 2, 17, 17), 3, 1, 1, 1, False),
    (2, (2, 1, 13, 67), (2, 5), (1, 3), (1, 2), 1, True),
    (2, (2, 3, 7, 7), 7, None, 0, 1, False),
    (2, (2, 3, 6, 7), (6, 7), 1, 0, 1, False),
    (2, (1, 1, 1, 1), 1, None, 0, 1, False),
    (2, (1, 2, 4, 5), 5, 5, 0, 1, True),
    (2, (5, 1, 5), 2, 2, 0, 1, True),
    (2, (2, 2, 3, 130), (1, 4), (2, 2), (0, 2), 1, True),
    (2, (2, 2, 19, 23), 3, (2, 1), (0, 1), (3, 2), False),
    (2, (2, 2, 19, 23), 2, (1, 2), 1, (2, 5), True),
    (2, (0, 3, 8, 8), 2, None, 0, 1, False),
    (2, (2, 0, 8, 8), 2, None, 0, 1, False),
    (2, (4, 3, 1, 1), 1, 3, 0, 1, False),
    (1, (2, 3, 41), 3, 2, 1, 1, False),
    (1, (1, 1, 2051), 2, 2, 1, 1, True),
    (1, (1, 2, 1100), 4, 1, 2, 3, False),
    (1, (3, 5), 2, None, 0, 1, False),
    (3, (2, 2, 5, 6, 9), 2, None, 0, 1, False),
    (3, (1, 2, 5, 7, 17), 3, (1, 2, 2), 1, 1, True),
    (3, (2, 4, 4, 33), (2, 3, 2), (3, 1, 1), (1, 0, 1), (1, 1, 2), False),
]
AVERAGE_CASES = [case for case in CASES if case[5] == 1]
# (dims, input, output_size): sizes that divide and that do not, larger than the input, the whole plane, the input's.
ADAPTIVE_CASES = [
    (2, (2, 3, 7, 7), 1),
    (2, (1, 2, 13, 13), 6),
    (2, (2, 1, 12, 18), (3, 6)),
    (2, (2, 1, 12, 16), (5, 8)),
    (2, (2, 2, 5, 3), (7, 4)),
    (2, (2, 2, 9, 40), (None, 1)),
    (2, (3, 4, 5), (1, 5)),
    (2, (0, 2, 4, 4), 3),
    (1, (2, 3, 1031), 1),
    (1, (2, 3, 1031), 600),
    (3, (1, 2, 4, 5, 6), (2, 5, 4)),
    (3, (1, 2, 3, 9, 11), 1),
]


def function(name, dims):
    return getattr(F, name.replace("pool", f"pool{dims}d"))


def on_reference(name, dims, *arguments, **keywords):
    with fastnn.backend("reference"):
        return function(name, dims)(*arguments, **keywords)


def in_torch(name, dims, x, grad_output, *arguments):
    """torch's output and input gradient, in float64."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    y = getattr(torch.nn.functional, name.replace("pool", f"pool{dims}d"))(tensor, *arguments)
    y.backward(torch.from_numpy(grad_output.astype(np.float64)))
    return y.detach().numpy(), tensor.grad.numpy()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pool_and_its_gradient_match_the_reference(isa, dtype, rng, case):
    dims, shape, *arguments = case
    x = rng.standard_normal(shape).astype(dtype)
    y, indices = function("max_pool", dims)(x, *arguments, return_indices=True)
    expected, expected_indices = on_reference("max_pool", dims, x, *arguments, return_indices=True)
    assert y.dtype == dtype
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(function("max_pool", dims)(x, *arguments), expected)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = function("max_pool_backward", dims)(dy, x, *arguments)
    expected = on_reference("max_pool_backward", dims, dy.astype(np.float64), x.astype(np.float64), *arguments)
    assert_matches(dx, expected, "max_pool_backward")
    np.testing.assert_array_equal(function("max_pool_backward", dims)(dy, x, *arguments, indices=indices), dx)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", AVERAGE_CASES, ids=str)
def test_avg_pool_and_its_gradient_match_the_reference(isa, dtype, rng, case, count_include_pad):
    dims, shape, kernel_size, stride, padding, _, ceil_mode = case
    arguments = [kernel_size, stride, padding, ceil_mode, count_include_pad]
    x = rng.standard_normal(shape).astype(dtype)
    for divisor in [None] if dims == 1 else [None, 3]:
        if dims > 1:
            arguments[5:] = [divisor]
        y = function("avg_pool", dims)(x, *arguments)
        assert_matches(y, on_reference("avg_pool", dims, x.astype(np.float64), *arguments), "avg_pool")
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx = function("avg_pool_backward", dims)(dy, x, *arguments)
        expected = on_reference("avg_pool_backward", dims, dy.astype(np.float64), x.astype(np.float64), *arguments)
        assert_matches(dx, expected, "avg_pool")


@pytest.mark.parametrize("case", ADAPTIVE_CASES, ids=str)
def test_adaptive_pools_and_their_gradients_match_the_reference(isa, dtype, rng, case):
    dims, shape, output_size = case
    x = rng.standard_normal(shape).astype(dtype)
    y = function("adaptive_avg_pool", dims)(x, output_size)
    assert_matches(y, on_reference("adaptive_avg_pool", dims, x.astype(np.float64), output_size), "avg_pool")
    maxima, indices = function("adaptive_max_pool", dims)(x, output_size, return_indices=True)
    expected, expected_indices = on_reference("adaptive_max_pool", dims, x, output_size, return_indices=True)
    np.testing.assert_array_equal(maxima, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    dy = rng.standard_normal(y.shape).astype(dtype)
    for name in ("adaptive_avg_pool_backward", "adaptive_max_pool_backward"):
        dx = function(name, dims)(dy, x, output_size)
        expected = on_reference(name, dims, dy.astype(np.float64), x.astype(np.float64), output_size)
        assert_matches(dx, expected, "avg_pool" if "avg" in name else "max_pool_backward")
    routed = function("adaptive_max_pool_backward", dims)(dy, x, output_size, indices=indices)
    np.testing.assert_array_equal(routed, dx)


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 1, 1), (3, 2, 4, 5, 6), (2, 2, 3, 2, 2, 70), (0, 4, 3, 3)])
def test_global_pools_are_means_and_maxima_of_planes(isa, dtype, rng, shape):
    x = rng.standard_normal(shape).astype(dtype)
    axes = tuple(range(2, x.ndim))
    assert_matches(F.global_avg_pool(x), x.astype(np.float64).mean(axis=axes), "avg_pool")
    np.testing.assert_array_equal(F.global_max_pool(x), x.max(axis=axes))
    dy = rng.standard_normal(shape[:2]).astype(dtype)
    share = dy.reshape(shape[:2] + (1,) * len(axes)) / np.prod(shape[2:])
    assert_matches(F.global_avg_pool_backward(dy, x), np.broadcast_to(share, shape), "avg_pool")
    routed = np.where(x == x.max(axis=axes, keepdims=True), dy.reshape(share.shape), 0)
    np.testing.assert_array_equal(F.global_max_pool_backward(dy, x), routed)


GRADIENT_CASES = [
    (1, (2, 2, 9), 3, 2, 1, 1, False),
    (2, (2, 2, 5, 9), 3, 2, 1, 1, True),
    (2, (1, 2, 4, 6), 2, None, 0, 1, False),
    (2, (1, 1, 7, 7), 3, 1, 1, 2, False),
    (3, (1, 2, 3, 4, 5), 2, (1, 2, 1), 1, 1, False),
]


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradients_match_central_differences(isa, rng, case):
    dims, shape, kernel_size, stride, padding, dilation, ceil_mode = case
    x = rng.permutation(np.prod(shape)).reshape(shape) / 10.0  # no two elements near a tie
    regular = (kernel_size, stride, padding)
    for name, arguments in [
        ("max_pool", (*regular, dilation, ceil_mode)),
        ("avg_pool", (*regular, ceil_mode, True)),
        ("avg_pool", (*regular, ceil_mode, False)),
        ("adaptive_avg_pool", (2,)),
        ("adaptive_max_pool", (2,)),
    ]:
        forward = function(name, dims)
        dy = rng.standard_normal(forward(x, *arguments).shape)
        actual = function(name + "_backward", dims)(dy, x, *arguments)
        assert_gradient(actual, numerical_gradient(lambda x, f=forward, a=arguments: f(x, *a), x, dy))
    for forward, backward in [
        (F.global_avg_pool, F.global_avg_pool_backward),
        (F.global_max_pool, F.global_max_pool_backward),
    ]:
        dy = rng.standard_normal(shape[:2])
        assert_gradient(backward(dy, x), numerical_gradient(forward, x, dy))


@pytest.mark.parametrize("case", [case for case in CASES if 0 not in case[1]], ids=str)
def test_pools_match_torch(isa, dtype, rng, case):
    torch = pytest.importorskip("torch")
    dims, shape, kernel_size, stride, padding, dilation, ceil_mode = case
    x = np.round(rng.standard_normal(shape), 1).astype(dtype)  # with ties
    arguments = (kernel_size, stride, padding, dilation, ceil_mode)
    y, indices = function("max_pool", dims)(x, *arguments, return_indices=True)
    torch_pool = getattr(torch.nn.functional, f"max_pool{dims}d")
    expected_indices = torch_pool(torch.from_numpy(x), *arguments, return_indices=True)[1]
    np.testing.assert_array_equal(indices, expected_indices.numpy())
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected, gradient = in_torch("max_pool", dims, x, dy, *arguments)
    np.testing.assert_array_equal(y, expected)
    assert_matches(function("max_pool_backward", dims)(dy, x, *arguments), gradient, "max_pool_backward")
    if dilation != 1:
        return
    for extra in [(True,), (False,)] if dims == 1 else [(True, None), (False, None), (False, 5)]:
        arguments = (kernel_size, stride, padding, ceil_mode, *extra)
        y = function("avg_pool", dims)(x, *arguments)
        expected, gradient = in_torch("avg_pool", dims, x, dy, *arguments)
        assert_matches(y, expected, "avg_pool")
        assert_matches(function("avg_pool_backward", dims)(dy, x, *arguments), gradient, "avg_pool")


@pytest.mark.parametrize("case", [case for case in ADAPTIVE_CASES if 0 not in case[1]], ids=str)
def test_adaptive_pools_match_torch(isa, dtype, rng, case):
    dims, shape, output_size = case
    x = rng.standard_normal(shape).astype(dtype)
    for name, kernel in [("adaptive_avg_pool", "avg_pool"), ("adaptive_max_pool", "max_pool_backward")]:
        y = function(name, dims)(x, output_size)
        dy = rng.standard_normal(y.shape).astype(dtype)
        expected, gradient = in_torch(name, dims, x, dy, output_size)
        assert_matches(y, expected, kernel)
        assert_matches(function(name + "_backward", dims)(dy, x, output_size), gradient, kernel)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_one_window_over_a_padded_plane_counts_all_its_elements(isa, dtype, dims, count_include_pad, size):
    # The output has one element, as in global pooling, but the window reaches into the padding.
    x = np.ones((2, 3, *[1] * (dims - 1), size), dtype)
    function = getattr(F, f"avg_pool{dims}d")
    actual = function(x, 3, 2, 1, count_include_pad=count_include_pad)
    assert actual.shape == (2, 3, *[1] * dims)
    np.testing.assert_allclose(actual, size / 3**dims if count_include_pad else 1, rtol=1e-6)


@st.composite
def poolings(draw):
    dims = draw(st.integers(1, 3))
    per_dimension = [
        draw(
            st.tuples(
                st.sampled_from([1, 2, 3, 5, 8, 9, 17, 33][: 8 if dims < 3 else 6]),
                st.integers(1, 5),
                st.integers(1, 4),
                st.integers(0, 2),
                st.integers(1, 3),
            )
        )
        for _ in range(dims)
    ]
    size, kernel, stride, padding, dilation = zip(*per_dimension, strict=True)
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    leading = draw(st.sampled_from([(2,), (1, 3), (3, 2)]))
    return dims, leading + size, kernel, stride, padding, dilation, draw(st.booleans()), draw(st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(poolings())
def test_random_pools_match_the_reference(isa, dtype, pooling):
    dims, shape, *arguments, seed = pooling
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal(shape), 1).astype(dtype)
    try:
        y, indices = function("max_pool", dims)(x, *arguments, return_indices=True)
    except ValueError:
        assume(False)
    expected, expected_indices = on_reference("max_pool", dims, x, *arguments, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    dy = np.round(8 * rng.standard_normal(y.shape)).astype(dtype)  # sums of whole numbers are exact
    expected = on_reference("max_pool_backward", dims, dy, x, *arguments)
    np.testing.assert_array_equal(function("max_pool_backward", dims)(dy, x, *arguments), expected)
    arguments[3] = arguments.pop()  # avg_pool has no dilation
    try:
        y = function("avg_pool", dims)(x, *arguments)
    except ValueError:
        assume(False)
    assert_matches(y, on_reference("avg_pool", dims, x.astype(np.float64), *arguments), "avg_pool", 1)
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected = on_reference("avg_pool_backward", dims, dy.astype(np.float64), x.astype(np.float64), *arguments)
    assert_matches(function("avg_pool_backward", dims)(dy, x, *arguments), expected, "avg_pool", 1)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0])


@pytest.mark.parametrize("kernel_size", [2, 3, (1, 2), (5, 1), 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_special_values_pass_as_in_the_reference(isa, dtype, rng, kernel_size, stride):
    x = rng.choice(SPECIAL, (2, 3, 9, 37), p=[0.05, 0.1, 0.55, 0.1, 0.1, 0.05, 0.05]).astype(dtype)
    y, indices = F.max_pool2d(x, kernel_size, stride, return_indices=True)
    expected, expected_indices = on_reference("max_pool", 2, x, kernel_size, stride, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(F.max_pool2d(x, kernel_size, stride), expected)
    with np.errstate(invalid="ignore"):
        expected = on_reference("avg_pool", 2, x.astype(np.float64), kernel_size, stride)
    assert_matches(F.avg_pool2d(x, kernel_size, stride), expected, "avg_pool")
    assert np.isnan(F.global_max_pool(x)).tolist() == np.isnan(x).any(axis=(2, 3)).tolist()


def test_first_of_equal_maxima_and_last_nan_win(isa, dtype):
    x = np.zeros((1, 1, 4, 40), dtype)
    x[..., 2:, :] = np.nan
    for size in (2, 3, 4):  # across outputs, then one by one
        y, indices = F.max_pool2d(x[:, :, :2], (2, size), return_indices=True)
        np.testing.assert_array_equal(indices.ravel(), np.arange(40 // size) * size)
        y, indices = F.max_pool2d(x, (4, size), return_indices=True)
        assert np.isnan(y).all()
        np.testing.assert_array_equal(indices.ravel(), 3 * 40 + np.arange(40 // size) * size + size - 1)


def test_padding_never_wins(isa, dtype):
    x = np.full((1, 2, 3, 19), -np.inf, dtype)
    y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert np.isneginf(y).all()
    assert indices.min() == 0
    assert indices.max() < 3 * 19
    dx = F.max_pool2d_backward(np.ones_like(y), x, 3, 2, 1)
    assert dx.sum() == y.size


def test_gradient_of_infinity_stays_in_its_window(isa, dtype):
    dy = np.ones((1, 1, 2, 20), dtype)
    dy[0, 0, 0, 19], dy[0, 0, 1, 19] = np.inf, np.nan
    dx = F.avg_pool2d_backward(dy, np.zeros((1, 1, 4, 40), dtype), 2)
    assert np.isinf(dx[0, 0, :2, 38:]).all()
    assert np.isnan(dx[0, 0, 2:, 38:]).all()
    np.testing.assert_array_equal(dx[..., :38], 0.25)


def test_pools_take_any_strides_and_leave_the_input_alone(isa, dtype, rng):
    x = rng.standard_normal((4, 6, 20, 21)).astype(dtype)
    views = [
        x[::2, ::-1, ::-1, 1::2],
        x.transpose(0, 3, 1, 2),  # NHWC memory, seen as NCHW
        np.broadcast_to(x[0, 0], (2, 3, 20, 21)),
        np.asfortranarray(x),
    ]
    x.flags.writeable = False
    for view in views:
        packed, before = np.array(view, order="C"), view.copy()
        y, indices = F.max_pool2d(view, 3, 2, 1, return_indices=True)
        for actual, expected in zip((y, indices), F.max_pool2d(packed, 3, 2, 1, return_indices=True), strict=True):
            np.testing.assert_array_equal(actual, expected)
        dy = rng.standard_normal(y.shape[::-1]).astype(dtype).transpose()
        for name, arguments in [("max_pool2d", (3, 2, 1)), ("avg_pool2d", (3, 2, 1))]:
            forward, backward = getattr(F, name), getattr(F, name + "_backward")
            np.testing.assert_array_equal(forward(view, *arguments), forward(packed, *arguments))
            np.testing.assert_array_equal(backward(dy, view, *arguments), backward(dy.copy(), packed, *arguments))
        np.testing.assert_array_equal(
            F.max_pool2d_backward(dy, view, 3, 2, 1, indices=np.asfortranarray(indices)),
            F.max_pool2d_backward(dy, packed, 3, 2, 1),
        )
        np.testing.assert_array_equal(F.global_avg_pool(view), F.global_avg_pool(packed))
        np.testing.assert_array_equal(view, before)


def test_most_maxima_over_windows_above_3_outlast_a_translation_by_one_pixel(rng):
    x = rng.standard_normal((8, 4, 64, 65))
    for kernel_size in (1, 2, 3, 5, 7):
        before, after = (F.max_pool2d(part, kernel_size) for part in (x[..., :-1], x[..., 1:]))
        # of the k (k + 1) pixels that either window sees, any may be the largest, and k (k - 1) are in both
        expected = (kernel_size - 1) / (kernel_size + 1)
        assert np.mean(before == after) == pytest.approx(expected, abs=0.04)


def test_same_bits_for_every_number_of_threads(isa, dtype, rng):
    x = rng.standard_normal((7, 19, 56, 57)).astype(dtype)
    dy = rng.standard_normal((7, 19, 28, 29)).astype(dtype)
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            y, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
            results.append(
                [
                    y,
                    indices,
                    F.max_pool2d(x, 3, 2, 1),
                    F.max_pool2d_backward(dy, x, 3, 2, 1),
                    F.max_pool2d_backward(dy, x, 3, 2, 1, indices=indices),
                    F.avg_pool2d(x, 3, 2, 1),
                    F.avg_pool2d_backward(dy, x, 3, 2, 1),
                    F.adaptive_avg_pool2d(x, 5),
                    F.global_avg_pool(x),
                ]
            )
    for other in results[1:]:
        for first, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, same)


X = np.zeros((2, 3, 4, 5), np.float32)
BAD_INPUT = [
    (F.max_pool2d, ([[1.0]], 2), {}, TypeError, r"max_pool2d: input must be a NumPy array, got list"),
    (F.max_pool2d, (X.astype(int), 2), {}, TypeError, r"max_pool2d: input must be float32 or float64, got int64"),
    (
        F.max_pool2d,
        (X[0, 0], 2),
        {},
        ValueError,
        r"max_pool2d: input must have shape \(N, C, H, W\) or \(C, H, W\), got",
    ),
    (
        F.max_pool1d,
        (X, 2),
        {},
        ValueError,
        r"max_pool1d: input must have shape \(N, C, L\) or \(C, L\), got \(2, 3, 4, 5\)",
    ),
    (F.avg_pool3d, (X[0], 2), {}, ValueError, r"avg_pool3d: input must have shape \(N, C, D, H, W\) or \(C, D, H, W\)"),
    (F.max_pool2d, (X[:, :, :0], 2), {}, ValueError, r"max_pool2d: input must have at least one element per plane"),
    (F.max_pool2d, (X, 0), {}, ValueError, r"max_pool2d: kernel_size must be at least 1, got 0"),
    (F.max_pool2d, (X, 2.0), {}, TypeError, r"max_pool2d: kernel_size must be an integer, got 2.0"),
    (F.max_pool2d, (X, (2, 2, 2)), {}, ValueError, r"max_pool2d: kernel_size must be an integer or 2 of them, got"),
    (F.max_pool2d, (X, 2, 0), {}, ValueError, r"max_pool2d: stride must be at least 1, got 0"),
    (F.max_pool2d, (X, 2, 1, -1), {}, ValueError, r"max_pool2d: padding must be at least 0, got -1"),
    (
        F.max_pool2d,
        (X, 2, 1, 2),
        {},
        ValueError,
        r"max_pool2d: padding must be at most half of kernel_size, got padding",
    ),
    (F.max_pool2d, (X, 2, 1, 0, 0), {}, ValueError, r"max_pool2d: dilation must be at least 1, got 0"),
    (F.max_pool2d, (X, 2, 1, 0, 1, 1), {}, TypeError, r"max_pool2d: ceil_mode must be True or False, got 1"),
    (
        F.max_pool2d,
        (X, 2),
        {"return_indices": 1},
        TypeError,
        r"max_pool2d: return_indices must be True or False, got 1",
    ),
    (F.max_pool2d, (X, 5), {}, ValueError, r"max_pool2d: kernel_size \(5, 5\) .* larger than the padded input"),
    (F.avg_pool2d, (X, 7, 1, 1), {}, ValueError, r"avg_pool2d: kernel_size \(7, 7\) .* larger than the padded input"),
    (F.max_pool2d, (X, 2**40), {}, ValueError, r"max_pool2d: kernel_size must be at most 2147483647, got"),
    (F.max_pool2d, (X, 2, 1, 1, 5), {}, ValueError, r"max_pool2d: some windows would lie in the padding alone"),
    (F.avg_pool2d, (X, 2), {"divisor_override": 0}, ValueError, r"avg_pool2d: divisor_override must not be 0"),
    (F.avg_pool2d, (X, 2), {"divisor_override": 1.5}, TypeError, r"avg_pool2d: divisor_override must be an integer"),
    (
        F.avg_pool2d,
        (X, 2),
        {"count_include_pad": None},
        TypeError,
        r"avg_pool2d: count_include_pad must be True or False",
    ),
    (F.adaptive_avg_pool2d, (X, 0), {}, ValueError, r"adaptive_avg_pool2d: output_size must be at least 1, got 0"),
    (F.adaptive_avg_pool2d, (X, "7"), {}, TypeError, r"adaptive_avg_pool2d: output_size must be an integer, got '7'"),
    (F.adaptive_avg_pool2d, (X, 2**31 - 1), {}, ValueError, r"adaptive_avg_pool2d: output_size .* is too large"),
    (
        F.adaptive_max_pool2d,
        (X, (1, 2, 3)),
        {},
        ValueError,
        r"adaptive_max_pool2d: output_size must be an integer or 2",
    ),
    (F.global_avg_pool, (X[0, 0],), {}, ValueError, r"global_avg_pool: input must have shape \(N, C, \.\.\.\)"),
    (F.global_max_pool, (X[:, :, :0],), {}, ValueError, r"global_max_pool: input must have at least one element"),
    (
        F.max_pool2d,
        (np.broadcast_to(np.float32(0), (1, 1, 2**16, 2**16)), 2),
        {},
        ValueError,
        r"max_pool2d: input's planes must have at most 2147483647 elements",
    ),
]
BAD_GRADIENT = [
    (F.max_pool2d_backward, (X, X, 2), {}, ValueError, r"must have shape \(2, 3, 2, 2\) \(the output's shape\)"),
    (F.avg_pool2d_backward, (X, X, 2), {}, ValueError, r"must have shape \(2, 3, 2, 2\) \(the output's shape\)"),
    (F.adaptive_avg_pool2d_backward, (X, X, 2), {}, ValueError, r"grad_output must have shape \(2, 3, 2, 2\)"),
    (F.adaptive_max_pool2d_backward, (X, X, 2), {}, ValueError, r"grad_output must have shape \(2, 3, 2, 2\)"),
    (F.global_avg_pool_backward, (X, X), {}, ValueError, r"grad_output must have shape \(2, 3\)"),
    (F.global_max_pool_backward, (X, X), {}, ValueError, r"grad_output must have shape \(2, 3\)"),
    (
        F.max_pool2d_backward,
        (X[:, :, :2, :2].astype(np.float64), X, 2),
        {},
        TypeError,
        r"grad_output must have input's dtype float32, got float64",
    ),
    (
        F.max_pool2d_backward,
        (X[:, :, :2, :2], X, 2),
        {"indices": np.zeros((2, 3, 2, 2), np.int32)},
        TypeError,
        r"indices must be the forward's int64 array, got int32",
    ),
    (
        F.max_pool2d_backward,
        (X[:, :, :2, :2], X, 2),
        {"indices": np.zeros((2, 3, 2), np.int64)},
        ValueError,
        r"indices must have shape \(2, 3, 2, 2\) \(the output's shape\), got \(2, 3, 2\)",
    ),
    (
        F.max_pool2d_backward,
        (X[:, :, :2, :2], X, 2),
        {"indices": np.full((2, 3, 2, 2), 20)},
        ValueError,
        r"indices must be positions in a plane of input, 0 to 19, got 20 to 20",
    ),
    (
        F.max_pool2d_backward,
        (X[:, :, :2, :2], X, 2),
        {"indices": np.full((2, 3, 2, 2), -1)},
        ValueError,
        r"indices must be positions in a plane of input, 0 to 19, got -1 to -1",
    ),
]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("call", "arguments", "keywords", "error", "message"), BAD_INPUT + BAD_GRADIENT)
def test_bad_input(backend, call, arguments, keywords, error, message):
    with fastnn.backend(backend), pytest.raises(error, match=rf"{call.__name__}: .*" + message.split(": ", 1)[-1]):
        call(*arguments, **keywords)

"""Normalisation: native against reference, central differences and torch; hard shapes, strides, threads, bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import reference
from tests.oracle import assert_gradient, assert_matches, error, numerical_gradient

# (N, C, ...): one value in one dimension; primes; by planes and by columns, around the limits of either way
# (64 positions, 512 columns, 64 rows); planes longer than a chunk (4096 at most); few channels cut into parts.
SHAPES = [
    (5, 1),
    (3, 7),
    (131, 17),
    (65, 513),
    (4000, 17),
    (5, 3, 1),
    (1, 3, 5),
    (2, 5, 63),
    (17, 5, 64),
    (1, 37, 65),
    (3, 4, 5, 7),
    (65, 40, 2, 7),
    (9, 2, 8, 9),
    (16, 20, 7, 7),
    (2, 3, 61, 71),
    (1, 2, 260, 257),
    (3, 19, 14, 14),
    (2, 3, 1, 1, 5),
    (3, 2, 4, 5, 3),
]
IDENTITY = ["x".join(map(str, shape)) for shape in SHAPES]


def channel_arguments(rng, channels, dtype):
    """running_mean, running_var, weight, bias; of like size, because errors are seen relative to an array's RMS"""
    mean, bias = rng.uniform(-0.5, 0.5, (2, channels))
    variance, weight = rng.uniform(0.5, 2, (2, channels))
    weight *= rng.choice([-1, 1], channels)
    return [argument.astype(dtype) for argument in (mean, variance, weight, bias)]


def input_and_gradient(rng, shape, dtype):
    """The gradient's sums are far from 0, because errors are seen relative to them."""
    x, dy = rng.standard_normal((2, *shape))
    return x.astype(dtype), (dy + 0.3 + 0.2 * x).astype(dtype)


def double(array):
    return None if array is None else array.astype(np.float64)


def least_gradient(x, dy, axes):
    """The size of the terms that the gradients are sums of, for groups of values along axes."""
    return np.abs(dy).max(initial=0) / np.sqrt(x.var(axes) + 1e-5).min(initial=1)


def batch_norm_matches(x, dy, arguments, training, relu, saved=True, least_scale=0.0):
    """Forward, running statistics and gradients against the float64 reference."""
    forward = F.batch_norm_relu if relu else F.batch_norm
    backward = F.batch_norm_relu_backward if relu else F.batch_norm_backward
    running = [np.copy(array) for array in arguments[:2]]
    expected_running = [double(array) for array in arguments[:2]]
    y, statistics = forward(x, *running, *arguments[2:], training, 0.3, 1e-3, return_saved=True)
    expected, _ = reference.batch_norm(
        double(x), *expected_running, *map(double, arguments[2:]), training, 0.3, 1e-3, relu
    )
    assert_matches(y, expected, "batch_norm")
    for actual, reference_value in zip(running, expected_running, strict=True):
        assert_matches(actual, reference_value, "batch_norm", min(least_scale, 1))
    gradients = backward(dy, x, *arguments, training, 0.3, 1e-3, saved=statistics if saved else None)
    expected = reference.batch_norm_backward(double(dy), double(x), *map(double, arguments), training, 1e-3, None, relu)
    for actual, reference_value in zip(gradients, expected, strict=True):
        if actual is None:
            assert reference_value is None
        else:
            assert_matches(actual, reference_value, "batch_norm_backward", least_scale)


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDENTITY)
def test_batch_norm_matches_reference(isa, dtype, rng, shape, training, relu):
    x, dy = input_and_gradient(rng, shape, dtype)
    batch_norm_matches(x, dy, channel_arguments(rng, shape[1], dtype), training, relu)


@pytest.mark.parametrize("affine", ["none", "weight", "bias"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_batch_norm_without_weight_or_bias(isa, dtype, rng, affine, training):
    x, dy = input_and_gradient(rng, (5, 6, 9, 8), dtype)
    mean, var, weight, bias = channel_arguments(rng, 6, dtype)
    arguments = mean, var, weight if affine == "weight" else None, bias if affine == "bias" else None
    running = [mean.copy(), var.copy()]
    y = F.batch_norm(x, *running, *arguments[2:], training)
    gradients = F.batch_norm_backward(dy, x, *arguments, training)
    with fastnn.backend("reference"):
        running = [mean.copy(), var.copy()]
        assert error(y, F.batch_norm(x, *running, *arguments[2:], training)) < 1e-6
        for actual, expected in zip(gradients, F.batch_norm_backward(dy, x, *arguments, training), strict=True):
            assert (actual is None) == (expected is None)
            assert actual is None or error(actual, expected) < 1e-5
    assert (gradients[1] is not None, gradients[2] is not None) == (affine == "weight", affine == "bias")


@pytest.mark.parametrize("shape", [(64, 20), (500, 3, 9), (8, 5, 40, 41), (2, 3, 200, 201)])
@pytest.mark.parametrize("offset", [1e3, -1e4])
def test_batch_norm_keeps_accuracy_where_the_mean_exceeds_the_deviation(isa, rng, shape, offset):
    x, dy = input_and_gradient(rng, shape, np.float32)
    batch_norm_matches(x + np.float32(offset), dy, channel_arguments(rng, shape[1], np.float32), True, False)


@pytest.mark.parametrize("shape", [(640, 4), (2, 4, 30000)])
def test_batch_norm_statistics_are_accurate_with_outliers_and_steps(isa, rng, shape):
    """What would cancel in a variance that is shifted by the wrong value: an outlier first, or a jump of the mean."""
    outlier, step = rng.standard_normal((2, *shape)).astype(np.float32)
    outlier[0].reshape(4, -1)[:, 0] = 1e4
    step.reshape(-1)[step.size // 3 :] += 1e3
    for x in (outlier, step):
        _, (mean, inverse_deviation) = F.batch_norm(x, None, None, training=True, return_saved=True)
        expected_mean, _, expected = reference.norm.batch_statistics(double(x), 1e-5)
        np.testing.assert_allclose(inverse_deviation, expected, rtol=1e-6)
        assert (np.abs(mean - expected_mean) * expected).max() < 1e-6


def test_batch_norm_output_has_the_mean_bias_and_the_deviation_weight(isa, dtype, rng):
    x = (rng.standard_normal((16, 4, 12, 12)) * 7 + 3).astype(dtype)
    weight, bias = np.array([[1, 2, 0.5, -1], [0, 1, -2, 3]], dtype)
    y = F.batch_norm(x, None, None, weight, bias, True, eps=1e-12)
    np.testing.assert_allclose(y.mean((0, 2, 3), dtype=np.float64), bias, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 2, 3), dtype=np.float64), np.abs(weight), rtol=1e-6)


def test_batch_norm_of_constant_channels_is_the_bias(isa, dtype):
    x = np.full((6, 3, 5, 5), 0.1, dtype)
    bias = np.array([1, 2, 3], dtype)
    y = F.batch_norm(x, None, None, None, bias, True)
    np.testing.assert_array_equal(y, np.broadcast_to(bias[:, None, None], x.shape))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_relu"])
@pytest.mark.parametrize("shape", [(7, 3), (3, 2, 5), (2, 2, 3, 23)])
def test_batch_norm_backward_matches_central_differences(isa, rng, name, training, shape):
    x, dy = rng.standard_normal((2, *shape))
    arguments = channel_arguments(rng, shape[1], np.float64)
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    gradients = backward(dy, x, *arguments, training)

    def output(_):
        running = [np.copy(array) for array in arguments[:2]]
        return forward(x, *running, *arguments[2:], training)

    for array, gradient in zip((x, *arguments[2:]), gradients, strict=True):
        assert_gradient(gradient, numerical_gradient(output, array, dy))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (4, 5, 6, 7), (2, 5, 3, 4, 5)])
def test_batch_norm_matches_torch(isa, dtype, rng, shape, training):
    torch = pytest.importorskip("torch")
    x, dy = input_and_gradient(rng, shape, dtype)
    arguments = channel_arguments(rng, shape[1], dtype)
    running = [np.copy(array) for array in arguments[:2]]
    tensors = [torch.tensor(array) for array in arguments]
    inputs = [torch.tensor(x), *tensors[2:]]
    for tensor in inputs:
        tensor.requires_grad_()
    expected = torch.nn.functional.batch_norm(inputs[0], *tensors[:2], *inputs[1:], training, 0.3, 1e-4)
    expected.backward(torch.tensor(dy))
    bound = 1e-5 if dtype == np.float32 else 1e-13
    gradients = F.batch_norm_backward(dy, x, *arguments, training, 0.3, 1e-4)
    assert error(F.batch_norm(x, *running, *arguments[2:], training, 0.3, 1e-4), expected.detach().numpy()) < bound
    for actual, tensor in zip(running, tensors[:2], strict=True):
        assert error(actual, tensor.numpy()) < bound
    for actual, tensor in zip(gradients, inputs, strict=True):
        assert error(actual, tensor.grad.numpy()) < bound


def strided_views(x):
    """The same (N, C, H, W) values in other strides, and some other values."""
    padded = np.zeros((x.shape[0], x.shape[1] + 2, *x.shape[2:]), x.dtype)
    padded[:, 1:-1] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    yield padded[:, 1:-1]
    yield np.asfortranarray(x)
    yield np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    yield x[::-1, ::-1, ::-1, ::-1]
    yield np.broadcast_to(x[:, :, :1], x.shape)
    yield read_only


def test_batch_norm_takes_any_strides(isa, dtype, rng):
    x, dy = input_and_gradient(rng, (6, 5, 7, 9), dtype)
    arguments = channel_arguments(rng, 5, dtype)
    for view, gradient in zip(strided_views(x), strided_views(dy), strict=True):
        batch_norm_matches(view, gradient, arguments, True, False)
        batch_norm_matches(view, dy, arguments, True, True, saved=False)


def test_batch_norm_keeps_the_layout_of_channels_last_arrays(isa, dtype, rng):
    x = np.moveaxis(rng.standard_normal((4, 6, 5, 3)).astype(dtype), -1, 1)
    y = F.batch_norm(x, None, None, training=True)
    dx, _, _ = F.batch_norm_backward(x, x, None, None, training=True)
    assert y.strides == x.strides
    assert dx.strides == x.strides


def test_batch_norm_updates_running_statistics_of_any_strides(isa, dtype, rng):
    x = rng.standard_normal((5, 4, 3)).astype(dtype)
    running = np.zeros((4, 2), dtype)
    F.batch_norm(x, running[:, 0], running[::-1, 1], training=True, momentum=1.0)
    np.testing.assert_allclose(running[:, 0], x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(running[::-1, 1], x.var((0, 2), ddof=1), rtol=1e-5)


def test_batch_norm_inference_and_backward_leave_running_statistics_alone(dtype, rng):
    x = rng.standard_normal((5, 4, 3)).astype(dtype)
    running = [np.zeros(4, dtype), np.ones(4, dtype)]
    for array in running:
        array.flags.writeable = False
    F.batch_norm(x, *running)
    F.batch_norm_backward(x, x, *running, training=True)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (2, 3, 0), (0, 3, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_nothing(dtype, shape, training, backend):
    fastnn.set_backend(backend)
    x = np.empty(shape, dtype)
    mean, var, weight, bias = np.zeros(shape[1], dtype), np.ones(shape[1], dtype), *np.ones((2, shape[1]), dtype)
    y, saved = F.batch_norm(x, mean, var, weight, bias, training, return_saved=True)
    dx, dweight, dbias = F.batch_norm_backward(x, x, mean, var, weight, bias, training, saved=saved)
    assert y.shape == dx.shape == shape
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(dweight, np.zeros(shape[1]))
    np.testing.assert_array_equal(dbias, np.zeros(shape[1]))
    np.testing.assert_array_equal(mean, np.zeros(shape[1]))


@pytest.mark.parametrize("shape", [(9, 4), (3, 4, 70)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_batch_norm_special_values_spoil_their_channel_alone(isa, dtype, rng, shape, value):
    x = rng.standard_normal(shape).astype(dtype)
    x[1, 2] = value
    for relu in (False, True):
        y = (F.batch_norm_relu if relu else F.batch_norm)(x, None, None, training=True)
        assert np.isnan(y[:, 2]).all()
        assert np.isfinite(np.delete(y, 2, 1)).all()


def test_batch_norm_inference_keeps_special_values(isa, dtype):
    x = np.array([[np.nan, np.inf, -np.inf, 1]], dtype)
    running = [np.zeros(4, dtype), np.ones(4, dtype)]
    np.testing.assert_array_equal(F.batch_norm(x, *running, eps=0), x)
    np.testing.assert_array_equal(F.batch_norm_relu(x, *running, eps=0), [[np.nan, np.inf, 0, 1]])
    np.testing.assert_array_equal(
        F.batch_norm_relu_backward(x[:, ::-1], x, *running, eps=0)[0], [[0, -np.inf, 0, np.nan]]
    )


@pytest.mark.parametrize("layout", ["first", "last", "gaps"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDENTITY)
def test_batch_norm_relu_adds_a_residual(isa, dtype, rng, shape, training, layout):
    x, residual = input_and_gradient(rng, shape, dtype)
    if layout == "gaps":
        residual = np.repeat(residual, 2, axis=-1)[..., ::2]
    elif layout == "last" and len(shape) > 2:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    arguments = channel_arguments(rng, shape[1], dtype)
    running, plain_running = [np.copy(arguments[:2]) for _ in range(2)]
    y = F.batch_norm_relu(x, *running, *arguments[2:], training, residual=residual)
    expected = F.batch_norm(double(x), *plain_running.astype(np.float64), *map(double, arguments[2:]), training)
    assert_matches(y, np.maximum(expected + residual, 0), "batch_norm")
    F.batch_norm(x, *plain_running, *arguments[2:], training)
    np.testing.assert_array_equal(running, plain_running)


def test_batch_norm_relu_bad_residual():
    x = np.ones((3, 2, 4))
    with pytest.raises(
        ValueError, match=r"batch_norm_relu: residual must have shape \(3, 2, 4\) \(input's\), got \(3, 2, 1\)"
    ):
        F.batch_norm_relu(x, None, None, training=True, residual=x[:, :, :1])
    with pytest.raises(TypeError, match="batch_norm_relu: residual must have input's dtype float64, got float32"):
        F.batch_norm_relu(x, None, None, training=True, residual=x.astype(np.float32))


def same_bits_for_any_threads(function):
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            results.append(function())
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(3000, 64), (100000, 3), (8, 3, 150, 151), (8, 40, 50, 50), (16, 256, 7, 7)])
def test_batch_norm_has_the_same_bits_for_any_number_of_threads(rng, shape):
    x, dy = input_and_gradient(rng, shape, np.float32)
    weight, bias = rng.standard_normal((2, shape[1])).astype(np.float32)
    same_bits_for_any_threads(lambda: [F.batch_norm(x, None, None, weight, bias, True)])
    same_bits_for_any_threads(lambda: [F.batch_norm_relu(x, None, None, weight, bias, True, residual=dy)])
    same_bits_for_any_threads(lambda: F.batch_norm_relu_backward(dy, x, None, None, weight, bias, True))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    positions=st.integers(1, 130),
    training=st.booleans(),
    relu=st.booleans(),
    saved=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_batch_norm_matches_reference_on_random_shapes(isa, shape, positions, training, relu, saved, seed):
    rng = np.random.default_rng(seed)
    shape = [2 + shape[0], *shape[1:]]
    if len(shape) > 2:
        shape[-1] = positions
    x, dy = input_and_gradient(rng, shape, np.float64)
    axes = (0, *range(2, x.ndim))
    arguments = channel_arguments(rng, shape[1], np.float64)
    batch_norm_matches(x, dy, arguments, training, relu, saved, least_gradient(x, dy, axes))


X = np.zeros((4, 3, 5), np.float32)
C = np.zeros(3, np.float32)
READ_ONLY = np.zeros(3, np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("arguments", "keywords", "error_type", "message"),
    [
        (([1.0], C, C), {}, TypeError, "input must be a NumPy array, got list"),
        ((X.astype(int), C, C), {}, TypeError, "input must be float32 or float64, got int64"),
        ((X[0, 0], C, C), {}, ValueError, r"input must have shape \(N, C\) or .*, got \(5,\)"),
        ((X[None, None, None], C, C), {}, ValueError, r"input must have shape .*, got \(1, 1, 1, 4, 3, 5\)"),
        ((X, None, None), {}, ValueError, "running_mean and running_var must be arrays where training=False, got None"),
        ((X, C, None), {}, ValueError, "go together, but running_var is None"),
        ((X, None, C), {"training": True}, ValueError, "go together, but running_mean is None"),
        ((X, C[:2], C), {}, ValueError, r"running_mean must have shape \(3,\) .*got \(2,\)"),
        ((X, C, C[:, None]), {}, ValueError, r"running_var must have shape \(3,\) .*got \(3, 1\)"),
        ((X, C.astype(float), C), {}, TypeError, "running_mean must have input's dtype float32, got float64"),
        ((X, C, C), {"weight": C[:1]}, ValueError, r"weight must have shape \(3,\) .*got \(1,\)"),
        ((X, C, C), {"bias": C.astype(float)}, TypeError, "bias must have input's dtype float32, got float64"),
        ((X, C, C), {"training": 1}, TypeError, "training must be True or False, got 1"),
        ((X, C, C), {"momentum": None}, TypeError, "momentum must be a number, got None; for a cumulative average"),
        ((X, C, C), {"momentum": 1.5}, ValueError, "momentum must be from 0 to 1, got 1.5"),
        ((X, C, C), {"eps": -1.0}, ValueError, "eps must be at least 0, got -1.0"),
        ((X, C, C), {"eps": "small"}, TypeError, "eps must be a number, got 'small'"),
        (
            (X, C, C),
            {"eps": 0.0, "training": True},
            ValueError,
            "eps must be positive where statistics come from input",
        ),
        ((X[:1, :, :1], C, C), {"training": True}, ValueError, r"more than 1 value per channel, got .* \(1, 3, 1\)"),
    ],
)
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_relu", "batch_norm_backward", "batch_norm_relu_backward"])
def test_batch_norm_bad_input(name, arguments, keywords, error_type, message):
    if name.endswith("_backward"):
        arguments = (np.asarray(arguments[0]), *arguments)
    with pytest.raises(error_type, match=f"^{name}: .*{message}"):
        getattr(F, name)(*arguments, **keywords)


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_relu"])
def test_batch_norm_refuses_read_only_statistics_that_it_would_update(name):
    with pytest.raises(ValueError, match=f"^{name}: running_var is read-only and would be changed in place"):
        getattr(F, name)(X, C, READ_ONLY, training=True)
    getattr(F, name)(X, C, READ_ONLY)
    getattr(F, f"{name}_backward")(X, X, C, READ_ONLY, training=True)


@pytest.mark.parametrize(
    ("grad_output", "saved", "error_type", "message"),
    [
        (X[:2], None, ValueError, r"grad_output must have shape \(4, 3, 5\) \(the output's shape\), got \(2, 3, 5\)"),
        (X.astype(float), None, TypeError, "grad_output must have input's dtype float32, got float64"),
        (X, C, TypeError, r"saved must be \(mean, inverse deviation\)"),
        (X, (C, C), ValueError, r"saved must hold two float64 arrays of shape \(3,\), .* got float32 of shape \(3,\)"),
        (X, (1.0, 2.0), ValueError, "saved must hold two float64 arrays .* got float"),
    ],
)
def test_batch_norm_backward_bad_input(grad_output, saved, error_type, message):
    with pytest.raises(error_type, match=f"^batch_norm_backward: {message}"):
        F.batch_norm_backward(grad_output, X, C, C, saved=saved)


# ---------------------------------------------------------------------------------------------------------------------
# Layer, group and instance norm: (name, shape of input, arguments before weight and bias, shape of weight)
# ---------------------------------------------------------------------------------------------------------------------

# Rows around one vector of every width, around four of them, and longer than a chunk; few and many rows.
LAYER_CASES = [
    ("layer_norm", (*leading, *shape), (shape,), shape)
    for leading, shape in [
        ((9,), (5,)),
        ((9,), (7,)),
        ((2, 5), (8,)),
        ((7,), (15,)),
        ((70,), (16,)),
        ((7,), (17,)),
        ((3,), (31,)),
        ((1000,), (33,)),
        ((5,), (64,)),
        ((5,), (65,)),
        ((), (127,)),
        ((40,), (4, 5, 6)),
        ((3,), (5003,)),
    ]
]
# Groups and instances of one and many channels, by planes and by columns, few and large, many and small. None of fewer
# than 4 values: where these happen to lie close together, the gradient cancels.
GROUP_CASES = [
    ("group_norm", shape, (groups,), shape[1:2])
    for shape, groups in [
        ((7, 12), 4),
        ((300, 16), 2),
        ((20, 4, 2), 1),
        ((3, 6, 5, 7), 3),
        ((2, 64, 9, 9), 32),
        ((2, 3, 41, 43), 3),
        ((1, 4, 160, 161), 1),
        ((1, 3, 5, 6, 7), 1),
        ((2, 1, 3), 1),
    ]
]
INSTANCE_CASES = [
    ("instance_norm", shape, (None, None), shape[1:2])
    for shape in [(3, 2, 5), (6, 7, 4), (3, 4, 6, 7), (1, 2, 200, 201), (2, 3, 4, 5, 6), (5, 1, 70)]
]
CASES = LAYER_CASES + GROUP_CASES + INSTANCE_CASES
SMALL_CASES = [case for case in CASES if np.prod(case[1]) <= 250]


def case_identity(case):
    return f"{case[0]}-{'x'.join(map(str, case[1]))}"


def weight_and_bias(rng, shape, dtype):
    weight = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
    return weight.astype(dtype), rng.uniform(-0.5, 0.5, shape).astype(dtype)


def results(name, x, dy, arguments):
    """Output and gradients."""
    return [getattr(F, name)(x, *arguments), *getattr(F, f"{name}_backward")(dy, x, *arguments)]


def norm_matches(name, x, dy, arguments, least_scale=0.0):
    """Output and gradients against the float64 reference."""
    with fastnn.backend("reference"):
        widened = [double(value) if isinstance(value, np.ndarray) else value for value in arguments]
        expected = results(name, double(x), double(dy), widened)
    for kernel, actual, wanted in zip(["", *3 * ["_backward"]], results(name, x, dy, arguments), expected, strict=True):
        assert (actual is None) == (wanted is None)
        if actual is not None:
            assert actual.dtype == x.dtype
            assert_matches(actual, wanted, name + kernel, least_scale if kernel else 0)


@pytest.mark.parametrize("case", CASES, ids=case_identity)
def test_norm_matches_reference(isa, dtype, rng, case):
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, dtype)
    norm_matches(name, x, dy, (*arguments, *weight_and_bias(rng, weight_shape, dtype)))


@pytest.mark.parametrize("case", [LAYER_CASES[6], GROUP_CASES[3], INSTANCE_CASES[2]], ids=case_identity)
@pytest.mark.parametrize("given", ["none", "weight", "bias"])
def test_norm_without_weight_or_bias(isa, dtype, rng, case, given):
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, dtype)
    weight, bias = weight_and_bias(rng, weight_shape, dtype)
    norm_matches(name, x, dy, (*arguments, weight if given == "weight" else None, bias if given == "bias" else None))


@pytest.mark.parametrize(
    "case", [LAYER_CASES[7], LAYER_CASES[12], GROUP_CASES[4], INSTANCE_CASES[3]], ids=case_identity
)
def test_norm_keeps_accuracy_where_the_mean_exceeds_the_deviation(isa, rng, case):
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, np.float32)
    norm_matches(name, x - np.float32(3e3), dy, (*arguments, *weight_and_bias(rng, weight_shape, np.float32)))


@pytest.mark.parametrize("case", SMALL_CASES, ids=case_identity)
def test_norm_backward_matches_central_differences(isa, rng, case):
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, np.float64)
    weight, bias = weight_and_bias(rng, weight_shape, np.float64)
    gradients = getattr(F, f"{name}_backward")(dy, x, *arguments, weight, bias)
    for array, gradient in zip((x, weight, bias), gradients, strict=True):
        numerical = numerical_gradient(lambda _: getattr(F, name)(x, *arguments, weight, bias), array, dy)
        assert_gradient(gradient, numerical, 2e-6)


@pytest.mark.parametrize("case", CASES, ids=case_identity)
def test_norm_matches_torch(isa, dtype, rng, case):
    torch = pytest.importorskip("torch")
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, dtype)
    arrays = (x, *weight_and_bias(rng, weight_shape, dtype))
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = getattr(torch.nn.functional, name)(tensors[0], *arguments, *tensors[1:])
    expected.backward(torch.tensor(dy))
    expected = [expected.detach(), *(tensor.grad for tensor in tensors)]
    bound = 2e-5 if dtype == np.float32 else 1e-13
    for actual, tensor in zip(results(name, x, dy, (*arguments, *arrays[1:])), expected, strict=True):
        assert error(actual, tensor.numpy()) < bound


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm_uses_and_updates_running_statistics_as_torch(isa, dtype, rng, use_input_stats, backend):
    torch = pytest.importorskip("torch")
    fastnn.set_backend(backend)
    x, dy = input_and_gradient(rng, (3, 4, 6, 7), dtype)
    mean, var, weight, bias = channel_arguments(rng, 4, dtype)
    tensors = [torch.tensor(array) for array in (x, mean, var, weight, bias)]
    for tensor in (tensors[0], *tensors[3:]):
        tensor.requires_grad_()
    expected = torch.nn.functional.instance_norm(*tensors, use_input_stats, 0.3, 1e-3)
    expected.backward(torch.tensor(dy))
    gradients = F.instance_norm_backward(dy, x, mean, var, weight, bias, use_input_stats, 0.3, 1e-3)
    y = F.instance_norm(x, mean, var, weight, bias, use_input_stats, 0.3, 1e-3)
    actual = [y, mean, var, *gradients]
    expected = [expected.detach(), *tensors[1:3], tensors[0].grad, tensors[3].grad, tensors[4].grad]
    for array, tensor in zip(actual, expected, strict=True):
        assert error(array, tensor.numpy()) < (1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "instance_norm"])
def test_norm_takes_any_strides(isa, dtype, rng, name):
    x, dy = input_and_gradient(rng, (6, 4, 7, 9), dtype)
    arguments = {"layer_norm": ((7, 9),), "group_norm": (2,), "instance_norm": (None, None)}[name]
    weight, bias = weight_and_bias(rng, (7, 9) if name == "layer_norm" else (4,), dtype)
    arguments = (*arguments, np.repeat(weight[None], 2, 0)[1], np.asfortranarray(bias))
    for view, gradient in zip(strided_views(x), strided_views(dy), strict=True):
        if 0 not in view.strides:
            norm_matches(name, view, gradient, arguments)
        assert error(getattr(F, name)(view, *arguments), getattr(F, name)(view.copy(), *arguments)) == 0


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("name", "shape", "arguments", "weight_shape"),
    [
        ("layer_norm", (0, 3), (3,), (3,)),
        ("layer_norm", (4, 0), (0,), (0,)),
        ("group_norm", (0, 4, 5), (2,), (4,)),
        ("group_norm", (2, 4, 0), (2,), (4,)),
        ("instance_norm", (0, 4, 5), (None, None), (4,)),
        ("instance_norm", (2, 0, 5), (None, None), (0,)),
    ],
)
def test_norm_of_nothing(dtype, name, shape, arguments, weight_shape, backend):
    fastnn.set_backend(backend)
    x, weight = np.empty(shape, dtype), np.ones(weight_shape, dtype)
    y, dx, dweight, dbias = results(name, x, x, (*arguments, weight, weight))
    assert y.shape == dx.shape == shape
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(dweight, np.zeros(weight_shape))
    np.testing.assert_array_equal(dbias, np.zeros(weight_shape))


def test_norm_of_one_value_is_the_bias(isa, dtype):
    x = np.array([[3], [-4]], dtype)
    weight, bias = np.array([[2], [0.5]], dtype)
    for name in ("layer_norm", "group_norm"):
        y, dx, dweight, dbias = results(name, x, x, (1, weight, bias))
        np.testing.assert_array_equal(y, [bias, bias])
        np.testing.assert_allclose(dx, 0, atol=1e-3)
        np.testing.assert_array_equal(dweight, [0])
        np.testing.assert_array_equal(dbias, [-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_norm_special_values_spoil_their_row_alone(isa, dtype, rng, value):
    x = rng.standard_normal((5, 33)).astype(dtype)
    x[2, 20] = value
    y = F.layer_norm(x, 33)
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, 0)).all()


@pytest.mark.parametrize(
    "case",
    [
        ("layer_norm", (5000, 64), (64,), (64,)),
        ("layer_norm", (40, 20000), (20000,), (20000,)),
        ("group_norm", (1, 8, 160, 161), (2,), (8,)),
        ("group_norm", (16, 32, 30, 31), (8,), (32,)),
        ("instance_norm", (16, 32, 30, 31), (None, None), (32,)),
    ],
    ids=case_identity,
)
def test_norm_has_the_same_bits_for_any_number_of_threads(rng, case):
    name, shape, arguments, weight_shape = case
    x, dy = input_and_gradient(rng, shape, np.float32)
    weights = weight_and_bias(rng, weight_shape, np.float32)
    same_bits_for_any_threads(lambda: results(name, x, dy, (*arguments, *weights)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.integers(1, 5),
    groups=st.integers(1, 5),
    group=st.integers(1, 5),
    positions=st.integers(1, 100),
    name=st.sampled_from(["layer_norm", "group_norm", "instance_norm"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_norm_matches_reference_on_random_shapes(isa, images, groups, group, positions, name, seed):
    rng = np.random.default_rng(seed)
    x, dy = input_and_gradient(rng, (images, groups * group, 3, positions), np.float64)
    arguments = {"layer_norm": (x.shape[2:],), "group_norm": (groups,), "instance_norm": (None, None)}[name]
    weights = weight_and_bias(rng, x.shape[2:] if name == "layer_norm" else x.shape[1], np.float64)
    norm_matches(name, x, dy, (*arguments, *weights), least_gradient(x, dy, (2, 3)))


FOUR = np.zeros(4, np.float32)
Y = np.zeros((2, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments", "keywords", "error_type", "message"),
    [
        ("layer_norm", (Y.astype(int), 5), {}, TypeError, "input must be float32 or float64, got int64"),
        ("layer_norm", (Y, 4), {}, ValueError, r"normalized_shape must be input's last dimensions, got \(4,\)"),
        ("layer_norm", (Y, ()), {}, ValueError, r"normalized_shape must be input's last dimensions, got \(\)"),
        ("layer_norm", (Y, (1, 2, 4, 5)), {}, ValueError, r"got \(1, 2, 4, 5\) for input's \(2, 4, 5\)"),
        ("layer_norm", (Y, 5.0), {}, TypeError, "normalized_shape must be an integer, got 5.0"),
        ("layer_norm", (Y, (4, 5), FOUR), {}, ValueError, r"weight must have shape \(4, 5\) \(normalized_shape\)"),
        ("layer_norm", (Y, 5), {"bias": FOUR}, ValueError, r"bias must have shape \(5,\)"),
        ("layer_norm", (Y, 5), {"eps": -1}, ValueError, "eps must be at least 0, got -1.0"),
        ("group_norm", ([1.0], 1), {}, TypeError, "input must be a NumPy array, got list"),
        ("group_norm", (FOUR, 1), {}, ValueError, r"input must have at least 2 dimensions .*got shape \(4,\)"),
        ("group_norm", (Y, 3), {}, ValueError, "num_groups must divide input's 4 channels, got 3"),
        ("group_norm", (Y, 0), {}, ValueError, "num_groups must be at least 1, got 0"),
        ("group_norm", (Y, 2.0), {}, TypeError, "num_groups must be an integer, got 2.0"),
        ("group_norm", (Y, 2, C), {}, ValueError, r"weight must have shape \(4,\) .*got \(3,\)"),
        ("group_norm", (Y, 2, FOUR, FOUR.astype(float)), {}, TypeError, "bias must have input's dtype float32"),
        ("group_norm", (Y[:1, :, :1], 4), {}, ValueError, r"a group needs more than 1 value, got .*\(1, 4, 1\)"),
        ("group_norm", (Y, 2), {"eps": None}, TypeError, "eps must be a number, got None"),
        ("instance_norm", (Y[0],), {}, ValueError, r"input must have shape \(N, C, L\) or .*got \(4, 5\)"),
        ("instance_norm", (Y, FOUR), {}, ValueError, "go together, but running_var is None"),
        ("instance_norm", (Y,), {"use_input_stats": False}, ValueError, "must be arrays where use_input_stats=False"),
        (
            "instance_norm",
            (Y,),
            {"use_input_stats": None},
            TypeError,
            "use_input_stats must be True or False, got None",
        ),
        ("instance_norm", (Y,), {"momentum": None}, TypeError, "momentum must be a number, got None"),
        ("instance_norm", (Y,), {"weight": C}, ValueError, r"weight must have shape \(4,\)"),
        ("instance_norm", (Y[:, :, :1],), {}, ValueError, r"an instance needs more than 1 value, got .*\(2, 4, 1\)"),
        (
            "local_response_norm",
            (Y[0], 2),
            {},
            ValueError,
            r"input must have at least 3 dimensions .*got shape \(4, 5\)",
        ),
        ("local_response_norm", (Y, 0), {}, ValueError, "size must be at least 1, got 0"),
        ("local_response_norm", (Y, 2), {"alpha": "1"}, TypeError, "alpha must be a number, got '1'"),
        ("local_response_norm", (Y, 2), {"beta": None}, TypeError, "beta must be a number, got None"),
        ("local_response_norm", (Y, 2), {"k": True}, TypeError, "k must be a number, got True"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "_backward"])
def test_norm_bad_input(name, arguments, keywords, error_type, message, suffix):
    if suffix:
        arguments = (np.asarray(arguments[0]), *arguments)
    with pytest.raises(error_type, match=f"^{name}{suffix}: .*{message}"):
        getattr(F, name + suffix)(*arguments, **keywords)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("layer_norm", (5,)), ("group_norm", (2,)), ("instance_norm", ()), ("local_response_norm", (2,))],
)
def test_norm_backward_checks_grad_output(name, arguments):
    with pytest.raises(ValueError, match=rf"^{name}_backward: grad_output must have shape \(2, 4, 5\)"):
        getattr(F, f"{name}_backward")(Y[:1], Y, *arguments)
    with pytest.raises(TypeError, match=f"^{name}_backward: grad_output must have input's dtype float32, got float64"):
        getattr(F, f"{name}_backward")(Y.astype(float), Y, *arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Local response norm, a NumPy composition
# ---------------------------------------------------------------------------------------------------------------------

LRN_CASES = [((2, 5, 3), 1), ((2, 5, 3, 4), 2), ((3, 7, 2, 5), 5), ((1, 3, 2), 4), ((2, 2, 3), 9), ((2, 1, 3, 2, 2), 3)]


@pytest.mark.parametrize(("shape", "size"), LRN_CASES)
@pytest.mark.parametrize("parameters", [(1e-4, 0.75, 1.0), (0.7, 1.3, 0.5)])
def test_local_response_norm_matches_torch(dtype, rng, shape, size, parameters):
    torch = pytest.importorskip("torch")
    x, dy = input_and_gradient(rng, shape, dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.local_response_norm(tensor, size, *parameters)
    expected.backward(torch.tensor(dy))
    y = F.local_response_norm(x, size, *parameters)
    dx = F.local_response_norm_backward(dy, x, size, *parameters)
    assert y.dtype == dx.dtype == dtype
    bound = 2e-6 if dtype == np.float32 else 1e-14
    assert error(y, expected.detach().numpy()) < bound
    assert error(dx, tensor.grad.numpy()) < bound


@pytest.mark.parametrize(("shape", "size"), LRN_CASES)
def test_local_response_norm_backward_matches_central_differences(rng, shape, size):
    x, dy = input_and_gradient(rng, shape, np.float64)
    dx = F.local_response_norm_backward(dy, x, size, 0.7, 1.3, 0.5)
    assert_gradient(dx, numerical_gradient(lambda x: F.local_response_norm(x, size, 0.7, 1.3, 0.5), x, dy))


def test_local_response_norm_of_nothing(dtype):
    x = np.empty((0, 3, 4), dtype)
    assert F.local_response_norm(x, 2).shape == F.local_response_norm_backward(x, x, 2).shape == (0, 3, 4)

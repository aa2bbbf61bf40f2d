"""Activations: native against reference, gradients, torch, identities, special values, strides, bad input."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import reference
from tests.oracle import assert_gradient, assert_matches, numerical_gradient
from tests.shapes import COUNTS

# Every elementwise activation with arguments that are not its defaults.
ACTIVATIONS = [
    ("relu", ()),
    ("leaky_relu", (0.2,)),
    ("elu", (1.5,)),
    ("sigmoid", ()),
    ("tanh", ()),
    ("softplus", (2.0, 5.0)),
    ("log_sigmoid", ()),
    ("gelu", ("none",)),
    ("gelu", ("tanh",)),
    ("silu", ()),
    ("hardtanh", (-0.5, 2.0)),
    ("hardswish", ()),
]
each_activation = pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS)


def tolerance_key(name):
    return "relu" if name in ("relu", "hardtanh") else "activation"


def check_against_reference(name, arguments, x, dy):
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    wide_x, wide_dy = x.astype(np.float64), dy.astype(np.float64)
    assert_matches(getattr(F, name)(x, *arguments), forward(wide_x, *arguments), tolerance_key(name))
    assert_matches(
        getattr(F, f"{name}_backward")(dy, x, *arguments), backward(wide_dy, wide_x, *arguments), tolerance_key(name)
    )


@each_activation
def test_matches_reference(isa, dtype, rng, name, arguments):
    for count in COUNTS:
        x, dy = rng.standard_normal((2, count)).astype(dtype)
        check_against_reference(name, arguments, 3 * x, dy)


@each_activation
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9), max_size=4), st.floats(0.01, 50), st.integers(0, 2**32))
def test_matches_reference_at_random_shapes_and_scales(isa, dtype, name, arguments, shape, scale, seed):
    rng = np.random.default_rng(seed)
    x, dy = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    x[...] *= dtype.type(scale)
    wide_x, wide_dy = x.astype(np.float64), dy.astype(np.float64)
    bounds = {"rtol": 32 * np.finfo(dtype).eps, "atol": 8 * np.finfo(dtype).eps}
    expected = getattr(reference, name)(wide_x, *arguments)
    expected_gradient = getattr(reference, f"{name}_backward")(wide_dy, wide_x, *arguments)
    np.testing.assert_allclose(getattr(F, name)(x, *arguments), expected, **bounds)
    np.testing.assert_allclose(getattr(F, f"{name}_backward")(dy, x, *arguments), expected_gradient, **bounds)


@each_activation
def test_channels_last_stay_last(isa, dtype, rng, name, arguments):
    x, dy = rng.standard_normal((2, 3, 5, 7, 9)).astype(dtype).transpose(0, 1, 4, 2, 3)
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    y, dx = forward(x, *arguments), backward(dy, x, *arguments)
    assert y.strides == dx.strides == x.strides
    np.testing.assert_array_equal(y, forward(x.copy("C"), *arguments))
    np.testing.assert_array_equal(dx, backward(dy.copy("C"), x.copy("C"), *arguments))
    np.testing.assert_array_equal(dx, backward(dy.copy("C"), x, *arguments))
    np.testing.assert_array_equal(dx, backward(dy, x.copy("C"), *arguments))


@pytest.mark.parametrize("relu", [False, True])
def test_sum_of_two_arrays(isa, dtype, rng, relu):
    add = F.add
    for count in COUNTS:
        a, b = rng.standard_normal((2, count)).astype(dtype)
        a[::3] = np.nan
        np.testing.assert_array_equal(add(a, b, relu), reference.add(a, b, relu))
    a, b = rng.standard_normal((2, 3, 5, 7, 9)).astype(dtype).transpose(0, 1, 4, 2, 3)
    for first, second in ((a, b), (a, b.copy("C")), (a.copy("C"), b), (a[:, ::2], b[:, ::2])):
        np.testing.assert_array_equal(add(first, second, relu), reference.add(first, second, relu))
    assert add(a, b, relu).strides == a.strides
    with pytest.raises(
        ValueError, match=r"add: other must have shape \(3, 9, 5, 7\) \(input's shape\), got \(1, 9, 5, 7\)"
    ):
        add(a, b[:1], relu)
    with pytest.raises(TypeError, match="add: other must be float32 or float64, got float16"):
        add(a, b.astype(np.float16), relu)


@each_activation
def test_reference_keeps_the_dtype(dtype, name, arguments):
    x = np.linspace(-3, 3, 7, dtype=dtype)
    with fastnn.backend("reference"):
        assert getattr(F, name)(x, *arguments).dtype == dtype
        assert getattr(F, f"{name}_backward")(x, x, *arguments).dtype == dtype


@each_activation
def test_backward_is_the_derivative(isa, rng, name, arguments):
    x = rng.uniform(-4, 4, (5, 7))
    x[np.abs(x) < 1e-3] = 1  # away from the kink
    dy = rng.standard_normal(x.shape)
    forward = partial(lambda x: getattr(F, name)(x, *arguments))
    assert_gradient(getattr(F, f"{name}_backward")(dy, x, *arguments), numerical_gradient(forward, x, dy))


TORCH_NAMES = {"log_sigmoid": "logsigmoid"}


@each_activation
def test_matches_torch(isa, dtype, rng, name, arguments):
    torch = pytest.importorskip("torch")
    # with the points where the pieces meet
    x = np.concatenate([4 * rng.standard_normal(1000), [0, -0.0, -3, 3, -0.5, 2, 2.5, 1e4, -1e4, 100, -100]]).astype(
        dtype
    )
    dy = rng.standard_normal(x.shape).astype(dtype)
    torch_x = torch.from_numpy(x.copy()).requires_grad_()
    keywords = {"approximate": arguments[0]} if name == "gelu" else {}
    function = getattr(torch.nn.functional, TORCH_NAMES.get(name, name))
    expected = function(torch_x, **keywords) if keywords else function(torch_x, *arguments)
    expected.backward(torch.from_numpy(dy))
    # torch's own tails are off by an ulp of 1 times x in float32
    absolute = 4 * np.finfo(dtype).eps * 5
    relative = 20 * np.finfo(dtype).eps
    forward, backward = getattr(F, name)(x, *arguments), getattr(F, f"{name}_backward")(dy, x, *arguments)
    np.testing.assert_allclose(forward, expected.detach().numpy(), relative, absolute)
    np.testing.assert_allclose(backward, torch_x.grad.numpy(), relative, absolute)


@each_activation
def test_same_bits_for_every_number_of_threads(dtype, rng, name, arguments):
    x, dy = rng.standard_normal((2, 100_003)).astype(dtype)
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            results.append((getattr(F, name)(x, *arguments), getattr(F, f"{name}_backward")(dy, x, *arguments)))
    for forward, backward in results[1:]:
        np.testing.assert_array_equal(forward, results[0][0])
        np.testing.assert_array_equal(backward, results[0][1])


def awkward_views(x):
    """Views of x (6, 10, 7) that are not C-contiguous, empty ones, and a read-only array."""
    read_only = x.copy()
    read_only.flags.writeable = False
    return [
        x[::2, ::-3],
        x.transpose(2, 0, 1),
        np.asfortranarray(x),
        np.broadcast_to(x[0], (4, 10, 7)),
        x[:, :0],
        x[0, 0, 0, ...],
        read_only,
    ]


@each_activation
def test_takes_any_strides(dtype, rng, name, arguments):
    x = rng.standard_normal((6, 10, 7)).astype(dtype)
    for view in awkward_views(x):
        plain = np.array(view, order="C")
        before = plain.copy()
        forward = getattr(F, name)
        backward = getattr(F, f"{name}_backward")
        np.testing.assert_array_equal(forward(view, *arguments), forward(plain, *arguments))
        np.testing.assert_array_equal(backward(view, view, *arguments), backward(plain, plain, *arguments))
        np.testing.assert_array_equal(view, before)


@each_activation
def test_special_values_are_those_of_the_formula(isa, dtype, name, arguments):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30], dtype)
    dy = np.ones_like(x)
    with np.errstate(all="ignore"):
        expected = getattr(reference, name)(x.astype(np.float64), *arguments)
        expected_gradient = getattr(reference, f"{name}_backward")(dy, x.astype(np.float64), *arguments)
    bounds = {"rtol": 1e-5, "atol": 1e-40}
    np.testing.assert_allclose(getattr(F, name)(x, *arguments), expected.astype(dtype), **bounds)
    np.testing.assert_allclose(
        getattr(F, f"{name}_backward")(dy, x, *arguments), expected_gradient.astype(dtype), **bounds
    )


@each_activation
def test_nan_stays_nan(isa, dtype, name, arguments):
    x = np.zeros(37, dtype)
    x[[3, 36]] = np.nan
    np.testing.assert_array_equal(np.isnan(getattr(F, name)(x, *arguments)), np.isnan(x))


# ---------------------------------------------------------------------------------------------------------------------
# PReLU
# ---------------------------------------------------------------------------------------------------------------------

# shape of the input, number of slopes: lines of a channel, of all channels, one slope, lines longer than a chunk, empty
PRELU_CASES = [
    ((4, 3, 5, 7), 3),
    ((4, 3, 5, 7), 1),
    ((2, 3, 130, 131), 3),
    ((9, 17), 17),
    ((1000, 33), 33),
    ((5, 20_000), 20_000),
    ((3, 4, 1, 1), 4),
    ((2, 1, 9), 1),
    ((70_001,), 1),
    ((), 1),
    ((0, 3, 5), 3),
    ((2, 3, 0), 3),
    ((2, 0, 5), 0),
    ((0,), 1),
]


@pytest.mark.parametrize(("shape", "slopes"), PRELU_CASES)
def test_prelu_matches_reference(isa, dtype, rng, shape, slopes):
    x, dy = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    weight = rng.standard_normal(slopes).astype(dtype)
    wide = [array.astype(np.float64) for array in (dy, x, weight)]
    assert_matches(F.prelu(x, weight), reference.prelu(*wide[1:]), "activation")
    dx, dw = F.prelu_backward(dy, x, weight)
    expected_dx, expected_dw = reference.prelu_backward(*wide)
    assert_matches(dx, expected_dx, "activation")
    assert_matches(dw, expected_dw, "prelu_weight")


@pytest.mark.parametrize(("shape", "slopes"), [((3, 4, 5), 4), ((3, 4, 5), 1), ((6, 5), 5)])
def test_prelu_backward_is_the_derivative(isa, rng, shape, slopes):
    x, dy, weight = rng.uniform(0.1, 2, shape), rng.standard_normal(shape), rng.standard_normal(slopes)
    x *= rng.choice([-1, 1], shape)
    dx, dw = F.prelu_backward(dy, x, weight)
    assert_gradient(dx, numerical_gradient(lambda x: F.prelu(x, weight), x, dy))
    assert_gradient(dw, numerical_gradient(lambda weight: F.prelu(x, weight), weight, dy))


@pytest.mark.parametrize(("shape", "slopes"), [((3, 4, 5), 4), ((3, 4, 5), 1), ((6, 5), 5), ((7,), 1)])
def test_prelu_matches_torch(isa, dtype, rng, shape, slopes):
    torch = pytest.importorskip("torch")
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    weight = rng.standard_normal(slopes).astype(dtype)
    torch_x, torch_weight = (torch.from_numpy(array.copy()).requires_grad_() for array in (x, weight))
    expected = torch.nn.functional.prelu(torch_x, torch_weight)
    expected.backward(torch.from_numpy(dy))
    bounds = {"rtol": 10 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
    dx, dw = F.prelu_backward(dy, x, weight)
    np.testing.assert_allclose(F.prelu(x, weight), expected.detach().numpy(), **bounds)
    np.testing.assert_allclose(dx, torch_x.grad.numpy(), **bounds)
    np.testing.assert_allclose(dw, torch_weight.grad.numpy(), **bounds)


@pytest.mark.parametrize(("shape", "slopes"), [((3, 4, 90, 91), 4), ((100_003,), 1), ((5000, 33), 33)])
def test_prelu_same_bits_for_every_number_of_threads(dtype, rng, shape, slopes):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    weight = rng.standard_normal(slopes).astype(dtype)
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            results.append((F.prelu(x, weight), *F.prelu_backward(dy, x, weight)))
    for result in results[1:]:
        for array, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(array, expected)


# ---------------------------------------------------------------------------------------------------------------------
# Identities
# ---------------------------------------------------------------------------------------------------------------------


def test_kinks_have_the_derivative_of_the_left_side(dtype):
    zero, one = np.zeros(1, dtype), np.ones(1, dtype)
    assert F.relu_backward(one, zero) == 0
    assert F.leaky_relu_backward(one, zero, 0.25) == 0.25
    assert F.prelu_backward(one, zero, np.full(1, 0.25, dtype))[0] == 0.25
    assert F.elu_backward(one, zero, 0.25) == 0.25


def test_sigmoid_and_tanh_are_one_function(isa, dtype, rng):
    x = 4 * rng.standard_normal(999).astype(dtype)
    bound = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(F.sigmoid(x), (F.tanh(x / 2) + 1) / 2, rtol=0, atol=bound)
    # (1 - e^-x) / (1 + e^-x) is tanh(x / 2), not tanh(x), as some lecture notes have it
    quotient = (1 - np.exp(-x)) / (1 + np.exp(-x))
    np.testing.assert_allclose(F.tanh(x / 2), quotient, rtol=0, atol=bound)
    assert np.abs(F.tanh(x) - quotient).max() > 0.1


def test_derivatives_of_sigmoid_tanh_and_softplus(isa, dtype, rng):
    x = 4 * rng.standard_normal(999).astype(dtype)
    one, bound = np.ones_like(x), 4 * np.finfo(dtype).eps
    s, t = F.sigmoid(x), F.tanh(x)
    np.testing.assert_allclose(F.sigmoid_backward(one, x), s * (1 - s), rtol=0, atol=bound)
    np.testing.assert_allclose(F.tanh_backward(one, x), 1 - t * t, rtol=0, atol=bound)
    np.testing.assert_allclose(F.softplus_backward(one, x, 1.0, np.inf), s, rtol=0, atol=bound)


def test_softplus_and_log_sigmoid_hold_to_ten_thousand_and_beyond(isa, dtype):
    size = np.array([0, 1e-6, 0.1, 1, 10, 15, 50, 80, 100, 1e3, 1e4, 1e6, 1e30], dtype)
    x = np.concatenate([size, -size])
    positive, negative = F.softplus(x), F.softplus(-x)
    np.testing.assert_allclose(positive - negative, x, rtol=4 * np.finfo(dtype).eps, atol=1e-7)
    np.testing.assert_array_equal(F.log_sigmoid(x)[np.abs(x) < 15], -F.softplus(-x)[np.abs(x) < 15])
    np.testing.assert_array_equal(F.log_sigmoid(-size[8:]), -size[8:])
    np.testing.assert_array_equal(F.softplus(-size[10:]), 0)
    tail = np.array([-20, -50, -80], dtype)
    expected = np.log1p(np.exp(tail.astype(np.float64)))
    np.testing.assert_allclose(F.softplus(tail), expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(F.log_sigmoid(-tail), -expected, rtol=4 * np.finfo(dtype).eps)


def test_gelu_keeps_its_lower_tail(isa, dtype):
    x = np.array([-5, -8, -12], dtype)
    expected = [value * math.erfc(-value / math.sqrt(2)) / 2 for value in x.tolist()]
    np.testing.assert_allclose(F.gelu(x), expected, rtol=200 * np.finfo(dtype).eps)


def test_logsigmoid_is_torchs_name_of_log_sigmoid():
    assert F.logsigmoid is F.log_sigmoid
    assert F.logsigmoid_backward is F.log_sigmoid_backward


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------

x32 = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("name", sorted({name for name, _ in ACTIVATIONS} | {"prelu"}))
def test_bad_arrays_are_refused(name):
    rest = (x32[0, :1],) if name == "prelu" else ()
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    with pytest.raises(TypeError, match=rf"{name}: input must be a NumPy array, got list; use numpy.asarray"):
        forward([1.0], *rest)
    with pytest.raises(TypeError, match=rf"{name}: input must be float32 or float64, got int64"):
        forward(np.arange(3), *rest)
    with pytest.raises(TypeError, match=rf"{name}_backward: grad_output must have input's dtype float32, got float64"):
        backward(np.zeros((2, 3)), x32, *rest)
    with pytest.raises(ValueError, match=rf"{name}_backward: grad_output must have shape \(2, 3\) .*, got \(3, 2\)"):
        backward(x32.reshape(3, 2), x32, *rest)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("leaky_relu", ("0.1",), TypeError, r"negative_slope must be a number, got '0.1'"),
        ("elu", (None,), TypeError, r"alpha must be a number, got None"),
        ("softplus", (0,), ValueError, r"beta must not be 0"),
        ("softplus", (1, "20"), TypeError, r"threshold must be a number, got '20'"),
        ("gelu", ("erf",), ValueError, r"approximate must be one of 'none', 'tanh', got 'erf'"),
        ("hardtanh", (1, -1), ValueError, r"min_val must not be above max_val, got 1.0 and -1.0"),
        ("hardtanh", (np.nan,), ValueError, r"min_val must not be above max_val, got nan and 1.0"),
        ("prelu", (0.25,), TypeError, r"weight must be a NumPy array, got float; use numpy.asarray"),
        ("prelu", (np.zeros(3),), TypeError, r"weight must have input's dtype float32, got float64"),
        ("prelu", (x32[0, :2],), ValueError, r"weight must have shape \(1,\) or, .* \(3,\), got \(2,\)"),
        ("prelu", (x32[:1],), ValueError, r"weight must have shape \(1,\) or, .* \(3,\), got \(1, 3\)"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(F, name)(x32, *arguments)
    with pytest.raises(error, match=f"{name}_backward: {message}"):
        getattr(F, f"{name}_backward")(x32, x32, *arguments)

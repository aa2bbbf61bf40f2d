"""Softmax and log_softmax: against reference, gradients, torch, identities, special values, strides, bad input."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import reference
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

NAMES = ["softmax", "log_softmax"]

# Rows (short ones are packed), columns with many and with few neighbours, larger than a tile, tiny, empty.
CASES = [
    ((1, 1), 1),
    ((5, 10), 1),
    ((33, 10), -1),
    ((1000, 10), 1),
    ((7, 32), 1),
    ((7, 33), 1),
    ((3, 1009), 1),
    ((2, 20_001), 1),
    ((17,), 0),
    ((4, 21, 13, 11), 1),
    ((2, 300, 130), 1),
    ((1, 5, 9001), 1),
    ((3, 10, 5), 1),
    ((9, 100, 3), 1),
    ((2, 300, 3), 1),
    ((40, 3, 2), 0),
    ((6, 1, 4), 1),
    ((0, 10), 1),
    ((10, 0), 1),
    ((2, 5, 0), 1),
]


def check_against_reference(name, x, dy, dim):
    wide_x, wide_dy, axis = x.astype(np.float64), dy.astype(np.float64), dim % x.ndim
    expected = getattr(reference, name)(wide_x, axis)
    expected_gradient = getattr(reference, f"{name}_backward")(wide_dy, wide_x, axis)
    y = getattr(F, name)(x, dim)
    assert_matches(y, expected, "softmax")
    assert_matches(getattr(F, f"{name}_backward")(dy, x, dim), expected_gradient, "softmax")
    assert_matches(getattr(F, f"{name}_backward")(dy, x, dim, output=y), expected_gradient, "softmax")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "dim"), CASES)
def test_matches_reference(isa, dtype, rng, name, shape, dim):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    check_against_reference(name, x / 4, dy, dim)


@pytest.mark.parametrize(("shape", "dim"), CASES)
def test_every_probability_is_right_to_a_few_ulp(isa, dtype, rng, shape, dim):
    x = 3 * rng.standard_normal(shape).astype(dtype)
    expected = reference.softmax(x.astype(np.longdouble), dim % x.ndim)
    np.testing.assert_allclose(F.softmax(x, dim), expected, rtol=16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.data(), st.integers(0, 2**32))
def test_matches_reference_at_random_shapes(isa, dtype, name, shape, data, seed):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, dy = np.random.default_rng(seed).standard_normal((2, *shape)).astype(dtype)
    wide_x, wide_dy, axis = x.astype(np.float64), dy.astype(np.float64), dim % x.ndim
    actual = getattr(F, name)(x, dim), getattr(F, f"{name}_backward")(dy, x, dim)
    expected = getattr(reference, name)(wide_x, axis), getattr(reference, f"{name}_backward")(wide_dy, wide_x, axis)
    # A short gradient may be the difference of equal numbers: measured against what it is a difference of.
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(
        actual[1], expected[1], rtol=0, atol=8 * np.finfo(dtype).eps * np.abs(dy).sum(axis=axis).max()
    )


@pytest.mark.parametrize("name", NAMES)
def test_reference_keeps_the_dtype(dtype, name):
    x = np.linspace(-3, 3, 7, dtype=dtype)
    with fastnn.backend("reference"):
        assert getattr(F, name)(x).dtype == dtype
        assert getattr(F, f"{name}_backward")(x, x).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "dim"), [((4, 10), 1), ((2, 70), 1), ((3, 4, 5), 1), ((2, 3, 20), 1), ((5, 3), 0)])
def test_backward_is_the_derivative(isa, rng, name, shape, dim):
    x, dy = rng.standard_normal((2, *shape))
    numerical = numerical_gradient(lambda x: getattr(F, name)(x, dim), x, dy)
    assert_gradient(getattr(F, f"{name}_backward")(dy, x, dim), numerical)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "dim"), [((64, 10), 1), ((5, 1009), -1), ((4, 21, 13, 11), 1), ((9, 100, 3), 0)])
def test_matches_torch(isa, dtype, rng, name, shape, dim):
    torch = pytest.importorskip("torch")
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    torch_x = torch.from_numpy(5 * x).requires_grad_()
    expected = getattr(torch.nn.functional, name)(torch_x, dim)
    expected.backward(torch.from_numpy(dy))
    bounds = {"rtol": 40 * np.finfo(dtype).eps, "atol": 40 * np.finfo(dtype).eps}
    np.testing.assert_allclose(getattr(F, name)(5 * x, dim), expected.detach().numpy(), **bounds)
    np.testing.assert_allclose(getattr(F, f"{name}_backward")(dy, 5 * x, dim), torch_x.grad.numpy(), **bounds)


SPECIAL_ROWS = np.array(
    [
        [np.nan, 1, 2],
        [-np.inf, -np.inf, -np.inf],
        [np.inf, 1, 2],
        [-np.inf, 1, 2],
        [1e4, -1e4, 1e4],
        [-1e30, -1e30, -1e30],
        [3e38, -3e38, 0],
    ]
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("neighbours", [1, 3, 50])
@pytest.mark.parametrize("repeat", [1, 30])
def test_special_values_are_those_of_torch(isa, dtype, name, neighbours, repeat):
    torch = pytest.importorskip("torch")
    x = np.tile(SPECIAL_ROWS, (1, repeat)).astype(dtype)
    x = np.ascontiguousarray(np.broadcast_to(x[:, :, None], (*x.shape, neighbours)))
    expected = getattr(torch, name)(torch.from_numpy(x.copy()), 1).numpy()
    np.testing.assert_allclose(getattr(F, name)(x, 1), expected, rtol=20 * np.finfo(dtype).eps)
    with fastnn.backend("reference"), np.errstate(over="ignore"):
        np.testing.assert_allclose(getattr(F, name)(x, 1), expected, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "dim"), [((9000, 10), 1), ((70, 1009), 1), ((2, 10, 9001), 1), ((500, 100, 3), 1)])
def test_same_bits_for_every_number_of_threads(dtype, rng, name, shape, dim):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            results.append((getattr(F, name)(x, dim), getattr(F, f"{name}_backward")(dy, x, dim)))
    for forward, backward in results[1:]:
        np.testing.assert_array_equal(forward, results[0][0])
        np.testing.assert_array_equal(backward, results[0][1])


@pytest.mark.parametrize("name", NAMES)
def test_takes_any_strides_and_leaves_its_input_alone(dtype, rng, name):
    x = rng.standard_normal((6, 10, 7)).astype(dtype)
    read_only = x.copy()
    read_only.flags.writeable = False
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    for view in (
        x[::2, ::-3],
        x.transpose(2, 0, 1),
        np.asfortranarray(x),
        np.broadcast_to(x[0], (4, 10, 7)),
        read_only,
    ):
        plain = np.array(view, order="C")
        before = plain.copy()
        for dim in range(3):
            y = forward(plain, dim)
            np.testing.assert_array_equal(forward(view, dim), y)
            np.testing.assert_array_equal(backward(view, view, dim), backward(plain, plain, dim))
            np.testing.assert_array_equal(
                backward(view, view, dim, output=np.asfortranarray(y)), backward(plain, plain, dim, output=y)
            )
        np.testing.assert_array_equal(view, before)


def test_softmax_is_invariant_to_shifts_and_not_to_scaling(isa, dtype, rng):
    x = rng.standard_normal((50, 12)).astype(dtype)
    bound = 40 * np.finfo(dtype).eps
    np.testing.assert_allclose(F.softmax(x + dtype.type(8)), F.softmax(x), rtol=bound)
    # One document "proves" softmax(c x) = softmax(x); it sharpens with c, towards the largest element alone.
    peaks = [F.softmax(dtype.type(c) * x).max(axis=1) for c in (0, 0.5, 1, 2, 10)]
    np.testing.assert_allclose(peaks[0], 1 / 12, rtol=bound)
    for flatter, sharper in pairwise(peaks):
        assert (sharper > flatter).all()


def test_softmax_sums_to_one_and_is_the_exponential_of_log_softmax(isa, dtype, rng):
    x = 10 * rng.standard_normal((50, 37)).astype(dtype)
    s, log_s = F.softmax(x), F.log_softmax(x)
    np.testing.assert_allclose(s.sum(axis=1), 1, rtol=10 * np.finfo(dtype).eps)
    np.testing.assert_allclose(np.exp(log_s), s, rtol=200 * np.finfo(dtype).eps)


def test_backward_is_the_product_with_the_jacobian(isa, rng):
    x, g = rng.standard_normal((2, 9))
    s = F.softmax(x)
    jacobian = np.diag(s) - np.outer(s, s)
    np.testing.assert_allclose(F.softmax_backward(g, x), jacobian @ g, rtol=1e-12, atol=1e-15)


def test_log_softmax_keeps_what_softmax_rounds_to_zero(isa, dtype):
    x = np.array([[0, -1e4, -2e3]], dtype)
    assert F.softmax(x)[0, 1] == 0
    np.testing.assert_array_equal(F.log_softmax(x), x)


x32 = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, r"input must be a NumPy array, got list; use numpy.asarray"),
        ((np.arange(3),), TypeError, r"input must be float32 or float64, got int64"),
        ((x32, 2), ValueError, r"dim must be from -2 to 1 for 2 dimensions, got 2"),
        ((x32, -3), ValueError, r"dim must be from -2 to 1 for 2 dimensions, got -3"),
        ((x32, 1.0), TypeError, r"dim must be an integer, got 1.0"),
        ((x32, None), TypeError, r"dim must be an integer, got None"),
        ((np.array(1.0),), ValueError, r"the array has no dimensions, so none for dim=-1; reshape it to \(1,\)"),
    ],
)
def test_bad_input_is_refused(name, arguments, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        getattr(F, name)(*arguments)
    if isinstance(arguments[0], np.ndarray):
        with pytest.raises(error, match=f"^{name}_backward: {message}"):
            getattr(F, f"{name}_backward")(arguments[0], *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_bad_gradients_and_outputs_are_refused(name):
    backward = getattr(F, f"{name}_backward")
    with pytest.raises(TypeError, match=r"_backward: grad_output must have input's dtype float32, got float64"):
        backward(np.zeros((2, 3)), x32)
    with pytest.raises(ValueError, match=r"_backward: grad_output must have shape \(2, 3\) .*, got \(3, 2\)"):
        backward(x32.reshape(3, 2), x32)
    with pytest.raises(TypeError, match=r"_backward: grad_output must be a NumPy array, got NoneType"):
        backward(None, x32)
    with pytest.raises(ValueError, match=r"_backward: output must have shape \(2, 3\) .*, got \(3, 2\)"):
        backward(x32, x32, output=x32.reshape(3, 2))

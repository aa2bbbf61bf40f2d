"""The affine layer: native against reference, finite differences and torch; bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

# (rows, in_features, out_features)
SHAPES = [
    (1, 1, 1),
    (0, 5, 3),
    (3, 0, 4),
    (3, 5, 0),
    (1, 300, 10),
    (2, 257, 33),
    (7, 13, 17),
    (64, 400, 120),
    (65, 49, 97),
    (8, 4608, 20),
    (513, 31, 65),
    (130, 130, 1),
    (9, 1100, 1000),  # a large weight's gradient: written row by row
    (128, 1025, 1030),
]


def case(rng, shape, dtype=np.float64):
    m, i, o = shape
    x, weight, bias = rng.standard_normal((m, i)), rng.standard_normal((o, i)), rng.standard_normal(o)
    return [a.astype(dtype) for a in (x, weight, bias)], rng.standard_normal((m, o)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_matches_reference_forward_and_backward(isa, dtype, rng, shape):
    arrays, dy = case(rng, shape, dtype)
    wide = [a.astype(np.float64) for a in arrays]
    with fastnn.backend("reference"):
        expected, gradients = F.linear(*wide), F.linear_backward(dy.astype(np.float64), *wide)
    assert_matches(F.linear(*arrays), expected, "linear")
    for actual, gradient in zip(F.linear_backward(dy, *arrays), gradients, strict=True):
        assert_matches(actual, gradient, "linear")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_relu_is_linear_and_then_relu(isa, dtype, rng, shape):
    (x, weight, bias), _ = case(rng, shape, dtype)
    if x.size:
        x[0, 0] = np.nan
    for shift in (bias, None):
        with fastnn.backend("reference"):
            expected = F.linear_relu(x, weight, shift)
        actual = F.linear_relu(x, weight, shift)
        np.testing.assert_array_equal(actual, F.relu(F.linear(x, weight, shift)))
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
        assert_matches(np.nan_to_num(actual), np.nan_to_num(expected), "linear")


def test_linear_backward_matches_finite_differences(isa, rng):
    (x, weight, bias), dy = case(rng, (5, 7, 3))
    gradients = F.linear_backward(dy, x, weight, bias)
    for array, gradient in zip((x, weight, bias), gradients, strict=True):
        assert_gradient(gradient, numerical_gradient(lambda _: F.linear(x, weight, bias), array, dy))


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 0, 3)])
def test_linear_matches_torch_for_any_leading_dimensions(isa, dtype, rng, leading):
    torch = pytest.importorskip("torch")
    (_, weight, bias), _ = case(rng, (1, 6, 5), dtype)
    x = rng.standard_normal((*leading, 6)).astype(dtype)
    dy = rng.standard_normal((*leading, 5)).astype(dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = torch.nn.functional.linear(*tensors)
    assert_matches(F.linear(x, weight, bias), expected.detach().numpy(), "linear")
    expected.backward(torch.tensor(dy))
    for actual, tensor in zip(F.linear_backward(dy, x, weight, bias), tensors, strict=True):
        assert_matches(actual, tensor.grad.numpy(), "linear")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(0, 70), inputs=st.integers(0, 140), outputs=st.integers(0, 130), seed=st.integers(0, 99))
def test_linear_matches_reference_on_random_shapes(isa, dtype, rows, inputs, outputs, seed):
    arrays, dy = case(np.random.default_rng(seed), (rows, inputs, outputs), dtype)
    wide = [a.astype(np.float64) for a in arrays]
    with fastnn.backend("reference"):
        expected, gradients = F.linear(*wide), F.linear_backward(dy.astype(np.float64), *wide)
    for actual, value in zip((F.linear(*arrays), *F.linear_backward(dy, *arrays)), (expected, *gradients), strict=True):
        np.testing.assert_allclose(actual, value, rtol=0, atol=5e-5 if dtype == np.float32 else 1e-12)


def test_linear_without_bias_and_with_any_strides(isa, dtype, rng):
    x = rng.standard_normal((20, 30)).astype(dtype)
    weight = rng.standard_normal((30, 40)).astype(dtype)
    for view in (x, x[::-1], x[::2], np.asfortranarray(x), np.broadcast_to(x[0], (5, 30))):
        assert_matches(F.linear(view, weight.T), view.astype(np.float64) @ weight.astype(np.float64), "linear")
        assert F.linear_backward(np.ones((len(view), 40), dtype), view, weight.T)[2] is None


def test_linear_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng):
    arrays, dy = case(rng, (300, 500, 200), dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            results.append((F.linear(*arrays), *F.linear_backward(dy, *arrays)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_linear_theory_b1_matches_the_matrix_formulas(rng):
    (x, weight, bias), dy = case(rng, (9, 4, 3))
    np.testing.assert_allclose(F.linear(x, weight, bias), x @ weight.T + bias)
    dx, dw, db = F.linear_backward(dy, x, weight, bias)
    np.testing.assert_allclose(dx, dy @ weight)
    np.testing.assert_allclose(dw, dy.T @ x)
    np.testing.assert_allclose(db, dy.sum(axis=0))


X, W = np.zeros((2, 4)), np.zeros((3, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.astype(int), W), TypeError, "linear: input must be float32 or float64, got int64"),
        ((X, W.astype(np.float32)), TypeError, "linear: weight must have input's dtype float64, got float32"),
        ((X, W[0]), ValueError, r"linear: weight must have shape \(out_features, in_features\), got \(4,\)"),
        ((X[:, :3], W), ValueError, r"linear: weight expects 4 input features, but input has shape \(2, 3\)"),
        ((np.zeros(()), W), ValueError, r"linear: weight expects 4 input features, but input has shape \(\)"),
        ((X, W, np.zeros(3, np.float32)), TypeError, "linear: bias must have input's dtype float64, got float32"),
        ((X, [1.0]), TypeError, "linear: weight must be a NumPy array, got list"),
        ((np.ma.array(X), W), TypeError, "linear: input must be a plain NumPy array, got a masked array"),
        (
            (X, W, np.zeros(4)),
            ValueError,
            r"linear: bias must have shape \(3,\) \(one per output feature\), got \(4,\)",
        ),
    ],
)
def test_linear_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        F.linear(*arguments)


def test_linear_backward_bad_gradient():
    with pytest.raises(ValueError, match=r"linear_backward: grad_output must have shape \(2, 3\)"):
        F.linear_backward(np.zeros((2, 4)), X, W)
    with pytest.raises(ValueError, match="linear_backward: needs must be three bools"):
        F.linear_backward(np.zeros((2, 3)), X, W, needs=(True, False))


def test_linear_backward_writes_the_weights_gradient_where_it_is_told(isa, dtype, rng):
    for shape in SHAPES:
        (x, weight, bias), dy = case(rng, shape, dtype)
        expected = F.linear_backward(dy, x, weight, bias)
        out = np.full_like(weight, np.nan)
        gradients = F.linear_backward(dy, x, weight, bias, out=out)
        assert gradients[1] is out
        for actual, gradient in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(actual, gradient)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((3, 5)), ValueError, r"out must have shape \(3, 4\)"),
        (np.zeros((3, 4), np.float32), TypeError, "out must have weight's dtype float64, got float32"),
        ([[0.0] * 4] * 3, TypeError, "out must be"),
        (np.zeros((4, 3)).T, ValueError, "out must be C-contiguous, got strides"),
        (np.broadcast_to(0.0, (3, 4)), ValueError, "out is read-only"),
        (W, ValueError, "out must share no memory with the inputs"),
    ],
)
def test_linear_backward_bad_out(out, error, message):
    with pytest.raises(error, match=f"linear_backward: {message}"):
        F.linear_backward(np.zeros((2, 3)), X, W, out=out)

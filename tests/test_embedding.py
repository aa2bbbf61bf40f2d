"""Embedding and one-hot codes: against torch and finite differences, order of the sums, bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn.functional import checks
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

# Shape of the indices, rows and columns of the table
CASES = [((), 3, 2), ((1,), 1, 1), ((7,), 5, 3), ((0,), 5, 3), ((4, 5), 2, 17), ((2, 3, 4), 31, 1), ((6,), 4, 0)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("index_dtype", [np.int64, np.int32, np.uint8])
def test_embedding_matches_torch(dtype, rng, case, index_dtype):
    torch = pytest.importorskip("torch")
    shape, rows, columns = case
    indices = np.asarray(rng.integers(0, rows, shape), index_dtype)
    weight = rng.standard_normal((rows, columns)).astype(dtype)
    dy = rng.standard_normal((*shape, columns)).astype(dtype)
    for padding_idx in (None, 0, -1):
        peer = torch.from_numpy(weight).requires_grad_()
        expected = torch.nn.functional.embedding(torch.from_numpy(indices.astype(np.int64)), peer, padding_idx)
        actual = F.embedding(indices, weight, padding_idx)
        assert actual.dtype == dtype
        np.testing.assert_array_equal(actual, expected.detach().numpy())
        expected.backward(torch.from_numpy(dy))
        assert_matches(F.embedding_backward(dy, indices, weight, padding_idx), peer.grad.numpy(), "embedding")


def test_embedding_gradient_matches_finite_differences(rng):
    indices = np.array([[0, 2, 2], [2, 0, 3]])
    weight, dy = rng.standard_normal((5, 4)), rng.standard_normal((2, 3, 4))
    numerical = numerical_gradient(lambda weight: F.embedding(indices, weight), weight, dy)
    assert_gradient(F.embedding_backward(dy, indices, weight), numerical)


def test_embedding_backward_adds_many_gradients_of_a_row_with_the_same_bits_each_time(dtype, rng):
    indices = rng.integers(0, 3, 20_000)
    weight, dy = np.zeros((3, 8), dtype), rng.standard_normal((20_000, 8)).astype(dtype)
    gradient = F.embedding_backward(dy, indices, weight)
    expected = np.stack([dy[indices == row].astype(np.float64).sum(0) for row in range(3)])
    assert_matches(gradient, expected, "embedding")
    with fastnn.threads(1):
        np.testing.assert_array_equal(F.embedding_backward(dy, indices, weight), gradient)


def test_embedding_keeps_special_values_to_their_rows(dtype):
    weight = np.array([[np.nan, 1.0], [np.inf, -np.inf]], dtype)
    np.testing.assert_array_equal(F.embedding(np.array([1, 0]), weight), weight[::-1])
    np.testing.assert_array_equal(
        F.embedding_backward(weight, np.array([0, 1]), np.zeros_like(weight), 0)[1], weight[1]
    )


def test_embedding_takes_any_strides_and_leaves_inputs_alone(dtype, rng):
    weight = rng.standard_normal((8, 6)).astype(dtype)
    weight.flags.writeable = False
    indices = rng.integers(0, 4, (5, 6))
    for table in (weight[::-2], np.asfortranarray(weight), weight[:, ::2], np.broadcast_to(weight[:1], (4, 6))):
        for view in (indices, indices.T, indices[::-2, ::3], np.broadcast_to(indices[0], (3, 6))):
            np.testing.assert_array_equal(F.embedding(view, table), np.array(table)[np.array(view)])
            dy = F.embedding(view, table)
            gradient = F.embedding_backward(np.asfortranarray(dy), view, table)
            np.testing.assert_array_equal(gradient, F.embedding_backward(dy.copy(), view.copy(), table.copy()))
            assert gradient.flags.c_contiguous
            assert gradient.flags.writeable


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(shape=st.lists(st.integers(0, 6), max_size=3).map(tuple), rows=st.integers(1, 9), columns=st.integers(0, 9))
def test_embedding_backward_is_a_product_with_one_hot_codes(dtype, shape, rows, columns):
    rng = np.random.default_rng(0)
    indices = np.asarray(rng.integers(0, rows, shape))
    weight, dy = np.zeros((rows, columns), dtype), rng.standard_normal((*shape, columns)).astype(dtype)
    codes = F.one_hot(indices, rows).reshape(-1, rows)
    expected = codes.T @ dy.reshape(codes.shape[0], columns).astype(np.float64)
    assert_matches(F.embedding_backward(dy, indices, weight), expected, "embedding", 1)


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0, 2)])
def test_one_hot_matches_torch(rng, shape):
    torch = pytest.importorskip("torch")
    classes = np.asarray(rng.integers(0, 5, shape))
    for num_classes in (5, 9) if classes.size == 0 else (-1, 5, 9):
        expected = torch.nn.functional.one_hot(torch.from_numpy(classes), num_classes).numpy()
        actual = F.one_hot(classes, num_classes)
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == np.int64
        with fastnn.backend("reference"):
            np.testing.assert_array_equal(F.one_hot(classes.astype(np.uint8), num_classes), expected)


I, W = np.array([0, 2]), np.ones((3, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[
            (
                lambda n=n: F.one_hot(np.arange(3), n),
                ValueError,
                rf"one_hot: num_classes={n} asks for .* fewer than 2\*\*59",
            )
            for n in (2**58, 2**62, 2**63, 10**30)
        ],
        (lambda: F.one_hot(np.array([0, 2**62])), ValueError, rf"one_hot: num_classes={2**62 + 1} asks for an output"),
        (
            lambda: F.one_hot(np.zeros((1,) * checks.LARGEST_NDIM, int), 3),
            ValueError,
            rf"one_hot: tensor must have at most {checks.LARGEST_NDIM - 1} dimensions, got {checks.LARGEST_NDIM}",
        ),
        (
            lambda: F.embedding(np.zeros((1,) * checks.LARGEST_NDIM, int), W),
            ValueError,
            r"embedding: input must have at",
        ),
        (lambda: F.embedding([0], W), TypeError, r"embedding: input must be a NumPy array, got list"),
        (lambda: F.embedding(I * 1.0, W), TypeError, r"embedding: input must have an integer dtype, got float64"),
        (lambda: F.embedding(I > 0, W), TypeError, r"embedding: input must have an integer dtype, got bool"),
        (lambda: F.embedding(I, I), TypeError, r"embedding: weight must be float32 or float64, got int64"),
        (lambda: F.embedding(I, W[0]), ValueError, r"embedding: weight must have 2 dimensions \(K, D\), got shape"),
        (
            lambda: F.embedding(I + 1, W),
            ValueError,
            r"embedding: input must be from 0 to 2 \(weight has 3 rows\), got 3",
        ),
        (lambda: F.embedding(I - 1, W), ValueError, r"embedding: input must be from 0 to 2 .*got -1"),
        (
            lambda: F.embedding(I, W[:0]),
            ValueError,
            r"embedding: input must be from 0 to -1 \(weight has 0 rows\), got 0",
        ),
        (
            lambda: F.embedding(I, W, 3),
            ValueError,
            r"embedding: padding_idx must be from -3 to 2, as weight has 3 rows",
        ),
        (lambda: F.embedding(I, W, 1.0), TypeError, r"embedding: padding_idx must be an integer, got 1\.0"),
        (
            lambda: F.embedding_backward(W, I, W),
            ValueError,
            r"embedding_backward: grad_output must have shape \(2, 2\) \(the output's shape\), got \(3, 2\)",
        ),
        (
            lambda: F.embedding_backward(W[:2].astype(np.float32), I, W),
            TypeError,
            r"embedding_backward: grad_output must have weight's dtype float64, got float32",
        ),
        (lambda: F.one_hot([0]), TypeError, r"one_hot: tensor must be a NumPy array, got list"),
        (lambda: F.one_hot(W), TypeError, r"one_hot: tensor must have an integer dtype, got float64"),
        (lambda: F.one_hot(I, 2), ValueError, r"one_hot: tensor must be from 0 to 1 \(num_classes=2\), got 2"),
        (lambda: F.one_hot(-I), ValueError, r"one_hot: tensor must be from 0 .*got -2"),
        (lambda: F.one_hot(I[:0]), ValueError, r"one_hot: num_classes must be given where tensor is empty"),
        (lambda: F.one_hot(I, -2), ValueError, r"one_hot: num_classes must be at least -1, got -2"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

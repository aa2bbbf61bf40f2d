"""Distances, similarity, normalisation: against the formulas, torch and finite differences; cancellation; bad input."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn.functional import checks
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

ORDERS = [0, 0.5, 1, 1.5, 2, 3, math.inf]


def norm(x, p):
    """The definition, in float64, along the last axis."""
    x = np.abs(x.astype(np.float64))
    if p == 0:
        return np.count_nonzero(x, axis=-1).astype(np.float64)
    return x.max(-1, initial=0) if math.isinf(p) else (x**p).sum(-1) ** (1 / p)


# Shapes of x1 and x2
POINTS = [
    ((1, 1), (1, 1)),
    ((7, 3), (5, 3)),
    ((0, 3), (5, 3)),
    ((5, 3), (0, 3)),
    ((4, 0), (2, 0)),  # no coordinates: all distances are 0
    ((2, 3, 5, 17), (1, 6, 17)),  # broadcast
    ((3, 31, 2), (3, 33, 2)),
]


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shapes", POINTS, ids=str)
def test_cdist_is_the_norm_of_each_difference(dtype, rng, p, shapes):
    x1, x2 = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    expected = norm(x1.astype(np.float64)[..., :, None, :] - x2.astype(np.float64)[..., None, :, :], p)
    assert_matches(F.cdist(x1, x2, p), expected, "distance")


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shapes", [shapes for shapes in POINTS if 0 not in shapes[0] + shapes[1]], ids=str)
def test_cdist_matches_torch(dtype, rng, p, shapes):
    torch = pytest.importorskip("torch")
    x1, x2 = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    peer1, peer2 = (torch.from_numpy(x).double().requires_grad_() for x in (x1, x2))
    expected = torch.cdist(peer1, peer2, p, compute_mode="donot_use_mm_for_euclid_dist")
    assert_matches(F.cdist(x1, x2, p), expected.detach().numpy(), "distance")
    dy = rng.standard_normal(expected.shape).astype(dtype)
    expected.backward(torch.from_numpy(dy).double())
    for actual, peer in zip(F.cdist_backward(dy, x1, x2, p), (peer1, peer2), strict=True):
        assert_matches(actual, peer.grad.numpy(), "distance_backward")


@pytest.mark.parametrize("p", ORDERS)
def test_cdist_gradients_match_finite_differences(rng, p):
    x1, x2, dy = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 3)), rng.standard_normal((2, 4, 5))
    grad1, grad2 = F.cdist_backward(dy, x1, x2, p)
    assert_gradient(grad1, numerical_gradient(lambda x: F.cdist(x, x2, p), x1, dy), 1e-5)
    assert_gradient(grad2, numerical_gradient(lambda x: F.cdist(x1, x, p), x2, dy), 1e-5)


def test_cdist_of_close_points_far_from_the_origin_loses_no_digits(dtype, rng):
    """|a|^2 + |b|^2 - 2 a b alone would have no right digit here."""
    x1 = (1000 + 1e-2 * rng.standard_normal((300, 20))).astype(dtype)
    x2 = x1[:7] + np.asarray(1e-2 * rng.standard_normal((7, 20)), dtype)
    expected = norm(x1.astype(np.float64)[:, None] - x2.astype(np.float64), 2)
    assert_matches(F.cdist(x1, x2), expected, "distance")
    dy = np.ones((300, 7), dtype)
    direction = (x1.astype(np.float64)[:, None] - x2.astype(np.float64)) / expected[:, :, None]
    grad1, grad2 = F.cdist_backward(dy, x1, x2)
    assert_matches(grad1, direction.sum(1), "distance_backward")
    assert_matches(grad2, -direction.sum(0), "distance_backward")


def test_cdist_of_equal_points_is_zero_and_passes_no_gradient(dtype, rng):
    x = (100 * rng.standard_normal((50, 9))).astype(dtype)
    for p in ORDERS:
        assert (np.diagonal(F.cdist(x, x, p)) == 0).all()
        for gradient in F.cdist_backward(np.eye(50, dtype=dtype), x, x, p):
            np.testing.assert_array_equal(gradient, 0)


def test_cdist_with_special_values_is_the_norm_of_each_difference(dtype):
    x1 = np.array([[0.0, 1.0], [np.inf, 1.0], [np.nan, 1.0]], dtype)
    x2 = np.array([[3.0, 5.0], [np.inf, 0.0], [-np.inf, 0.0]], dtype)
    expected = [[5, np.inf, np.inf], [np.inf, np.nan, np.inf], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(F.cdist(x1, x2), np.array(expected, dtype))


# Shapes of x1, x2 and the axis of the vectors
PAIRS = [
    ((1, 1), (1, 1), 1),
    ((7, 5), (7, 5), 1),
    ((7, 5), (5,), -1),
    ((1, 6, 3), (4, 1, 3), 2),
    ((0, 4), (0, 4), 1),
    ((2, 3, 4, 5), (2, 3, 1, 5), 1),
    ((9,), (9,), 0),
]


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("shapes", PAIRS, ids=str)
def test_pairwise_distance_matches_torch(dtype, rng, p, keepdim, shapes):
    torch = pytest.importorskip("torch")
    x1, x2 = (rng.standard_normal(shape).astype(dtype) for shape in shapes[:2])
    peer1, peer2 = (torch.from_numpy(x).double().requires_grad_() for x in (x1, x2))
    expected = torch.nn.functional.pairwise_distance(peer1, peer2, p, keepdim=keepdim)
    assert_matches(F.pairwise_distance(x1, x2, p, keepdim=keepdim), expected.detach().numpy(), "distance")
    dy = np.asarray(rng.standard_normal(expected.shape), dtype)
    gradients = F.pairwise_distance_backward(dy, x1, x2, p, 1e-6, keepdim)
    if p == 0:  # torch has no gradient for a count
        assert not any(gradient.any() for gradient in gradients)
        return
    expected.backward(torch.from_numpy(dy).double())
    for actual, peer in zip(gradients, (peer1, peer2), strict=True):
        assert_matches(actual, peer.grad.numpy(), "distance_backward")


@pytest.mark.parametrize("shapes", PAIRS, ids=str)
def test_cosine_similarity_matches_torch(dtype, rng, shapes):
    torch = pytest.importorskip("torch")
    x1, x2 = (rng.standard_normal(shape).astype(dtype) for shape in shapes[:2])
    dim = shapes[2]
    peer1, peer2 = (torch.from_numpy(x).double().requires_grad_() for x in (x1, x2))
    expected = torch.nn.functional.cosine_similarity(peer1, peer2, dim)
    assert_matches(F.cosine_similarity(x1, x2, dim), expected.detach().numpy(), "distance")
    dy = np.asarray(rng.standard_normal(expected.shape), dtype)
    expected.backward(torch.from_numpy(dy).double())
    for actual, peer in zip(F.cosine_similarity_backward(dy, x1, x2, dim), (peer1, peer2), strict=True):
        assert actual.shape == peer.shape
        if x1.shape[dim] > 1:  # a cosine of numbers is +-1, and the gradient nothing but rounding
            assert_matches(actual, peer.grad.numpy(), "distance_backward")


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (0, 4), (4, 0), (3, 4, 5, 2)], ids=str)
def test_normalize_matches_torch(dtype, rng, p, shape):
    torch = pytest.importorskip("torch")
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    peer = torch.from_numpy(x).double().requires_grad_()
    for dim in (0, 1, -1):
        peer.grad = None
        if math.isinf(p) and shape[dim] == 0:
            np.testing.assert_array_equal(F.normalize(x, p, dim), x)  # torch refuses the largest of nothing
            continue
        expected = torch.nn.functional.normalize(peer, p, dim)
        assert_matches(F.normalize(x, p, dim), expected.detach().numpy(), "distance")
        expected.backward(torch.from_numpy(dy).double())
        actual = F.normalize_backward(dy, x, p, dim)
        if shape[dim] > 1:  # a number over its magnitude is +-1, and the gradient nothing but rounding
            assert_matches(actual, peer.grad.numpy(), "distance_backward")


@pytest.mark.parametrize("p", ORDERS)
def test_gradients_match_finite_differences(rng, p):
    x1, x2 = rng.standard_normal((2, 3, 4, 5))
    dy, dz = rng.standard_normal((3, 4)), rng.standard_normal((3, 4, 5))
    grad1, grad2 = F.pairwise_distance_backward(dy, x1, x2[0], p)
    assert_gradient(grad1, numerical_gradient(lambda x: F.pairwise_distance(x, x2[0], p), x1, dy), 1e-5)
    assert_gradient(grad2, numerical_gradient(lambda x: F.pairwise_distance(x1, x, p), x2[0], dy), 1e-5)
    gradient = F.normalize_backward(dz, x1, p, 1)
    assert_gradient(gradient, numerical_gradient(lambda x: F.normalize(x, p, 1), x1, dz), 1e-5)


def test_cosine_similarity_gradients_match_finite_differences(rng):
    x1, x2, dy = rng.standard_normal((3, 4, 5)), rng.standard_normal((4, 5)), rng.standard_normal((3, 5))
    for eps in (1e-8, 2.0):  # with 2.0 some vectors are divided by eps
        grad1, grad2 = F.cosine_similarity_backward(dy, x1, x2, 1, eps)
        assert_gradient(grad1, numerical_gradient(lambda x, eps=eps: F.cosine_similarity(x, x2, 1, eps), x1, dy))
        assert_gradient(grad2, numerical_gradient(lambda x, eps=eps: F.cosine_similarity(x1, x, 1, eps), x2, dy))


def test_normalize_below_eps_divides_by_eps(dtype, rng):
    x, dy = rng.standard_normal((2, 3, 4)).astype(dtype)
    np.testing.assert_allclose(F.normalize(x, eps=100.0), x / 100, rtol=1e-6)
    np.testing.assert_allclose(F.normalize_backward(dy, x, eps=100.0), dy / 100, rtol=1e-6)
    np.testing.assert_array_equal(F.normalize(np.zeros((2, 3), dtype)), 0)
    np.testing.assert_allclose(F.normalize_backward(dy, np.zeros((3, 4), dtype)), dy * 1e12, rtol=1e-6)


def test_ties_for_the_largest_share_the_gradient():
    x = np.array([[2.0, -2.0, 1.0]])
    grad1, _ = F.pairwise_distance_backward(np.ones(1), x, np.zeros((1, 3)), math.inf, 0.0)
    np.testing.assert_array_equal(grad1, [[0.5, -0.5, 0]])


def test_inputs_of_any_strides_are_taken_and_left_alone(dtype, rng):
    x = rng.standard_normal((6, 10, 8)).astype(dtype)
    x.flags.writeable = False
    for view in (x[::2, ::-3], x.transpose(2, 0, 1), np.asfortranarray(x), np.broadcast_to(x[:1], x.shape)):
        copy = view.copy()
        for function in (
            lambda x: F.cdist(x, x[..., :2, :]),
            lambda x: F.cdist(x, x[..., :2, :], 1.0),
            lambda x: F.pairwise_distance(x, x[0]),
            lambda x: F.cosine_similarity(x, x[0]),
            F.normalize,
        ):
            np.testing.assert_allclose(function(view), function(copy), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(view, copy)


def test_both_backends_give_the_same(dtype, rng):
    x = rng.standard_normal((5, 6)).astype(dtype)
    expected = F.cdist(x, x)
    with fastnn.backend("reference"):
        np.testing.assert_array_equal(F.cdist(x, x), expected)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    rows=st.integers(0, 12),
    others=st.integers(0, 12),
    columns=st.integers(0, 40),
    offset=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
)
def test_cdist_of_random_clouds_is_the_norm_of_each_difference(dtype, rows, others, columns, offset, scale):
    rng = np.random.default_rng(0)
    x1, x2 = ((offset + scale * rng.standard_normal((n, columns))).astype(dtype) for n in (rows, others))
    expected = norm(x1.astype(np.float64)[:, None] - x2.astype(np.float64), 2)
    assert_matches(F.cdist(x1, x2), expected, "distance")


X, Y = np.ones((4, 3)), np.ones((5, 3))
# More dimensions than NumPy broadcasts; before NumPy 2 there are no such arrays.
HIGH = np.ones((1,) * min(40, checks.LARGEST_NDIM))


@pytest.mark.parametrize("dimensions", [31, min(32, checks.LARGEST_NDIM - 1)])
def test_distances_take_32_dimensions(dimensions):
    x = np.ones((1,) * (dimensions - 1) + (3,))
    assert F.cdist(x, 2 * x).shape == (1,) * dimensions
    assert F.cdist_backward(np.ones((1,) * dimensions), x, 2 * x)[0].shape == x.shape
    assert F.cosine_similarity(x, x).shape == (*x.shape[:1], *x.shape[2:])
    assert F.pairwise_distance(x, x).shape == x.shape[:-1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        *[
            (lambda call=call: call(HIGH, HIGH), ValueError, rf"{name}: x1 must have at most 3. dimensions, got")
            for name, call in {
                "cdist": F.cdist,
                "pairwise_distance": F.pairwise_distance,
                "cosine_similarity": F.cosine_similarity,
                "cdist_backward": lambda x1, x2: F.cdist_backward(x1, x1, x2),
            }.items()
        ],
        (lambda: F.cdist(Y, HIGH), ValueError, rf"cdist: x2 must have at most 3. dimensions, got {HIGH.ndim}"),
        (lambda: F.cdist([1.0], Y), TypeError, r"cdist: x1 must be a NumPy array, got list"),
        (lambda: F.cdist(X, Y.astype(np.float32)), TypeError, r"cdist: x2 must have x1's dtype float64, got float32"),
        (lambda: F.cdist(X, Y[0]), ValueError, r"cdist: x2 must have at least 2 dimensions \(points in rows\), got"),
        (lambda: F.cdist(X, Y[:, :2]), ValueError, r"cdist: x1 and x2 must have as many columns, got 3 in x1 and 2 in"),
        (
            lambda: F.cdist(np.ones((2, 4, 3)), np.ones((3, 4, 3))),
            ValueError,
            r"cdist: x1 and x2 must broadcast, got shapes \(2, 4, 3\) and \(3, 4, 3\)",
        ),
        (lambda: F.cdist(X, Y, -1), ValueError, r"cdist: p must be at least 0, got -1\.0"),
        (lambda: F.cdist(X, Y, "2"), TypeError, r"cdist: p must be a number, got '2'"),
        (
            lambda: F.cdist_backward(np.ones((5, 4)), X, Y),
            ValueError,
            r"cdist_backward: grad_output must have shape \(4, 5\) \(the output's shape\), got \(5, 4\)",
        ),
        (lambda: F.pairwise_distance(X, Y), ValueError, r"pairwise_distance: x1 and x2 must broadcast, got shapes"),
        (
            lambda: F.pairwise_distance(np.float64(1) + np.zeros(()), X),
            TypeError,
            r"pairwise_distance: x1 must be a NumPy array, got float64",
        ),
        (
            lambda: F.pairwise_distance(np.array(1.0), X),
            ValueError,
            r"pairwise_distance: x1 must have at least 1 dimension",
        ),
        (lambda: F.pairwise_distance(X, X, eps=None), TypeError, r"pairwise_distance: eps must be a number, got None"),
        (
            lambda: F.pairwise_distance_backward(np.ones(4), X, X, keepdim=True),
            ValueError,
            r"pairwise_distance_backward: grad_output must have shape \(4, 1\)",
        ),
        (lambda: F.cosine_similarity(X, X, 2), ValueError, r"cosine_similarity: dim must be from -2 to 1 for 2 dimen"),
        (lambda: F.cosine_similarity(X, X, eps=-1), ValueError, r"cosine_similarity: eps must be at least 0, got -1"),
        (
            lambda: F.cosine_similarity_backward(np.ones(3), X, X),
            ValueError,
            r"cosine_similarity_backward: grad_output must have shape \(4,\)",
        ),
        (lambda: F.normalize(X.astype(int)), TypeError, r"normalize: input must be float32 or float64, got int64"),
        (lambda: F.normalize(X, dim=-3), ValueError, r"normalize: dim must be from -2 to 1 for 2 dimensions, got -3"),
        (lambda: F.normalize(X, dim=1.0), TypeError, r"normalize: dim must be an integer, got 1\.0"),
        (lambda: F.normalize(X, p=math.nan), ValueError, r"normalize: p must be at least 0, got nan"),
        (lambda: F.normalize_backward(X, Y), ValueError, r"normalize_backward: grad_output must have shape \(5, 3\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

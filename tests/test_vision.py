"""Padding and nearest-neighbour resizing: against torch, NumPy and finite differences, bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

MODES = ["constant", "reflect", "replicate", "circular"]
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
# Shape and padding; torch's other modes than "constant" pad 1 to 3 of the last axes of arrays with one or two more
PADDINGS = [
    ((1, 2, 1), (0, 0)),
    ((2, 3, 5), (4, 2)),
    ((2, 3, 5, 7), (1, 2, 3, 4)),
    ((0, 3, 5, 7), (1, 2, 3, 4)),
    ((1, 2, 4, 3, 5), (4, 0, 1, 2, 3, 0)),
    ((3, 4), (3, 1)),
]


def check_against_torch(x, dy, padding, mode, value=None):
    torch = pytest.importorskip("torch")
    peer = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.pad(peer, padding, mode, value)
    actual = F.pad(x, padding, mode, value)
    assert actual.dtype == x.dtype
    np.testing.assert_array_equal(actual, expected.detach().numpy())
    dy = dy.standard_normal(actual.shape).astype(x.dtype)
    expected.backward(torch.from_numpy(dy))
    assert_matches(F.pad_backward(dy, x, padding, mode, value), peer.grad.numpy(), "pad")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", PADDINGS, ids=str)
def test_pad_matches_torch(dtype, rng, mode, case):
    shape, padding = case
    check_against_torch(rng.standard_normal(shape).astype(dtype), rng, padding, mode)


@pytest.mark.parametrize(
    "case",
    [
        ((5,), (2, 3)),
        ((4, 5), (-1, -2)),
        ((4, 5), (-1, 2, 3, -3)),
        ((2, 3, 4, 5), (0, 0, 0, 0, 1, 2)),
        ((3, 0), (1, 1)),
    ],
    ids=str,
)
def test_pad_with_a_constant_and_with_cuts_matches_torch(dtype, rng, case):
    shape, padding = case
    x = rng.standard_normal(shape).astype(dtype)
    for value in (None, 0, -1.5, float("inf")):
        check_against_torch(x, rng, padding, "constant", value)


def test_pad_with_a_cut_beyond_the_other_end_shows_the_value_alone(dtype):
    x = np.arange(3, dtype=dtype)
    np.testing.assert_array_equal(F.pad(x, (-5, 4), value=7), [7, 7])
    np.testing.assert_array_equal(F.pad(x, (4, -5), value=7), [7, 7])
    np.testing.assert_array_equal(F.pad_backward(np.ones(2, dtype), x, (-5, 4)), 0)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pad_of_any_axes_matches_numpy(dtype, rng, mode):
    x = rng.standard_normal((3, 4, 2, 5)).astype(dtype)
    padding = [(1, 2), (0, 3), (1, 0), (4, 1)]
    flat = [amount for pair in reversed(padding) for amount in pair]
    np.testing.assert_array_equal(F.pad(x, flat, mode), np.pad(x, padding, NUMPY_MODES[mode]))
    cut = F.pad(x, (-1, 2, -1, 0), mode)  # cut off in front, padded behind
    expected = np.pad(x, [(0, 0), (0, 0), (0, 0), (0, 2)], NUMPY_MODES[mode])[:, :, 1:, 1:]
    np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("mode", MODES)
def test_pad_gradient_matches_finite_differences(rng, mode):
    x = rng.standard_normal((2, 3, 4))
    for padding in ((3, 2, 1, 2), (-1, 2, 0, -2)):
        dy = rng.standard_normal(F.pad(x, padding, mode).shape)
        numerical = numerical_gradient(lambda x, padding=padding: F.pad(x, padding, mode), x, dy)
        assert_gradient(F.pad_backward(dy, x, padding, mode), numerical)


def test_padding_nothing_is_a_copy(dtype):
    for x in (np.ones((2, 3), dtype), np.asarray(np.float64(2), dtype)):
        for mode in MODES:
            for y in (F.pad(x, (), mode), F.pad_backward(x, x, (), mode), F.pad(x, (0, 0) * x.ndim, mode)):
                np.testing.assert_array_equal(y, x)
                assert not np.shares_memory(x, y)


# Shape, size, scale_factor
RESIZES = [
    ((1, 1, 1), 1, None),
    ((2, 3, 5), 11, None),
    ((2, 3, 5), None, 2),
    ((2, 3, 7, 5), (3, 9), None),
    ((2, 3, 7, 5), None, (0.6, 2.3)),
    ((0, 3, 7, 5), None, 2.0),
    ((1, 2, 3, 4, 5), (6, 2, 5), None),
    ((1, 2, 3, 4, 5), None, 1.5),
]


@pytest.mark.parametrize("case", RESIZES, ids=str)
def test_interpolate_matches_torch(dtype, rng, case):
    torch = pytest.importorskip("torch")
    shape, size, scale_factor = case
    x = rng.standard_normal(shape).astype(dtype)
    peer = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.interpolate(peer, size, scale_factor)
    actual = F.interpolate(x, size, scale_factor)
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, expected.detach().numpy())
    dy = rng.standard_normal(actual.shape).astype(dtype)
    expected.backward(torch.from_numpy(dy))
    assert_matches(F.interpolate_backward(dy, x, size, scale_factor), peer.grad.numpy(), "pad")


def test_interpolate_takes_torchs_elements_for_every_pair_of_sizes(dtype):
    """Where the scale is no binary fraction, position * scale rounds: torch's rounding is part of the result."""
    torch = pytest.importorskip("torch")
    for old in range(1, 40):
        x = np.arange(old, dtype=dtype).reshape(1, 1, old)
        for new in range(1, 100, 1 + old % 3):
            expected = torch.nn.functional.interpolate(torch.from_numpy(x), new).numpy()
            np.testing.assert_array_equal(F.interpolate(x, new), expected)


@pytest.mark.parametrize("case", [case for case in RESIZES if 0 not in case[0]], ids=str)
def test_interpolate_gradient_matches_finite_differences(rng, case):
    shape, size, scale_factor = case
    x = rng.standard_normal(shape)
    dy = rng.standard_normal(F.interpolate(x, size, scale_factor).shape)
    numerical = numerical_gradient(lambda x: F.interpolate(x, size, scale_factor), x, dy)
    assert_gradient(F.interpolate_backward(dy, x, size, scale_factor), numerical)


def test_special_values_are_copied(dtype):
    x = np.array([[[np.nan, np.inf, -np.inf, -0.0]]], dtype)
    np.testing.assert_array_equal(F.interpolate(x, scale_factor=2), np.repeat(x, 2, axis=2))
    for mode in MODES:
        np.testing.assert_array_equal(F.pad(x, (1, 2), mode)[..., 1:-2], x)


def test_inputs_of_any_strides_are_taken_and_left_alone(dtype, rng):
    x = rng.standard_normal((4, 6, 10, 8)).astype(dtype)
    x.flags.writeable = False
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for view in (x[::2, :, ::-3], nhwc, np.asfortranarray(x), np.broadcast_to(x[:1], x.shape)):
        copy = view.copy()
        for mode in MODES:
            padded = F.pad(view, (1, 2, 0, 1), mode)
            np.testing.assert_array_equal(padded, F.pad(copy, (1, 2, 0, 1), mode))
            gradient = F.pad_backward(padded, view, (1, 2, 0, 1), mode)
            np.testing.assert_array_equal(gradient, F.pad_backward(padded.copy(), copy, (1, 2, 0, 1), mode))
        np.testing.assert_array_equal(F.interpolate(view, 7), F.interpolate(copy, 7))
        np.testing.assert_array_equal(view, copy)


def test_both_backends_give_the_same(dtype, rng):
    x = rng.standard_normal((2, 3, 5)).astype(dtype)
    expected = F.pad(x, (1, 1), "reflect"), F.interpolate(x, 9)
    with fastnn.backend("reference"):
        np.testing.assert_array_equal(F.pad(x, (1, 1), "reflect"), expected[0])
        np.testing.assert_array_equal(F.interpolate(x, 9), expected[1])


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    padding=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=4),
    mode=st.sampled_from(MODES),
)
def test_pad_of_random_shapes_matches_numpy(dtype, shape, padding, mode):
    extra = {"reflect": -1, "circular": 0}.get(mode, 6)
    padding = [tuple(min(a, n + extra) for a in amount) for n, amount in zip(shape, padding, strict=False)]
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    flat = [amount for pair in reversed(padding) for amount in pair]
    np.testing.assert_array_equal(F.pad(x, flat, mode), np.pad(x, padding, NUMPY_MODES.get(mode, mode)))


X = np.ones((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.pad(np.ones((1, 1, 4, 4)), (2**40, 2**40, 2**40, 0)),
            ValueError,
            r"pad: pad asks for an output of shape \(1, 1, 1099511627780, 2199023255556\), .* fewer than 2\*\*59",
        ),
        (lambda: F.pad(np.ones((0, 4)), (2**62, 2**62)), ValueError, r"pad: pad asks for an output of shape \(0, 922"),
        (
            lambda: F.pad_backward(np.ones(1), np.ones((4, 4)), (2**40, 0, 2**40, 0), "replicate"),
            ValueError,
            "pad_backward: pad asks for an output of shape",
        ),
        (
            lambda: F.interpolate(np.ones((1, 1, 4, 4)), size=2**31 - 1),
            ValueError,
            r"interpolate: size asks for an output of shape \(1, 1, 2147483647, 2147483647\), .* fewer than 2\*\*59",
        ),
        (
            lambda: F.interpolate(np.ones((1, 1, 4)), scale_factor=1.7e308),
            ValueError,
            r"interpolate: scale_factor asks for an output of shape \(1, 1, 9223372036854775808\)",
        ),
        (lambda: F.pad([1.0], (1, 1)), TypeError, r"pad: input must be a NumPy array, got list"),
        (lambda: F.pad(X, 1), TypeError, r"pad: pad must be a sequence of integers, got 1"),
        (lambda: F.pad(X, (1, 2.5)), TypeError, r"pad: pad must be an integer, got 2\.5"),
        (
            lambda: F.pad(X, (1,)),
            ValueError,
            r"pad: pad must have two numbers per axis for at most 3 axes, got 1 numbers",
        ),
        (lambda: F.pad(X, (1,) * 8), ValueError, r"pad: pad must have two numbers per axis for at most 3 axes, got 8"),
        (
            lambda: F.pad(X, (1, 1), "mirror"),
            ValueError,
            r"pad: mode must be one of 'constant', 'reflect', .*got 'mirror'",
        ),
        (
            lambda: F.pad(X, (1, 1), "reflect", 1.0),
            ValueError,
            r"pad: value is for mode='constant' alone, got value=1\.0",
        ),
        (lambda: F.pad(X, (1, 1), value="0"), TypeError, r"pad: value must be a number, got '0'"),
        (
            lambda: F.pad(X, (4, 0), "reflect"),
            ValueError,
            r"pad: pad may add at most 3 elements to a side of axis 2, of size 4, in mode 'reflect', got \(4, 0\)",
        ),
        (lambda: F.pad(X, (0, 5), "circular"), ValueError, r"pad: pad may add at most 4 elements to a side of axis 2"),
        (lambda: F.pad(X[:, :, :0], (0, 1), "replicate"), ValueError, r"pad: pad may add at most 0 elements to a side"),
        (
            lambda: F.pad(X, (-3, -2)),
            ValueError,
            r"pad: pad must not cut off more than there is, got \(-3, -2\) for size 4",
        ),
        (
            lambda: F.pad_backward(X, X, (1, 1)),
            ValueError,
            r"pad_backward: grad_output must have shape \(2, 3, 6\) \(the output's shape\), got \(2, 3, 4\)",
        ),
        (
            lambda: F.interpolate(X[0], 2),
            ValueError,
            r"interpolate: input must have 3 to 5 dimensions \(N, C, \.\.\.\), got",
        ),
        (
            lambda: F.interpolate(X),
            ValueError,
            r"interpolate: give either size or scale_factor, got size=None and scale_f",
        ),
        (
            lambda: F.interpolate(X, 2, 2.0),
            ValueError,
            r"interpolate: give either size or scale_factor, got size=2 and",
        ),
        (lambda: F.interpolate(X, 0), ValueError, r"interpolate: size must be at least 1, got 0"),
        (lambda: F.interpolate(X, 2.0), TypeError, r"interpolate: size must be an integer, got 2\.0"),
        (
            lambda: F.interpolate(X, (2, 2)),
            ValueError,
            r"interpolate: size must be an integer, got \(2, 2\)",
        ),
        (
            lambda: F.interpolate(X, None, (2, 2)),
            ValueError,
            r"interpolate: scale_factor must be a number or 1 of them",
        ),
        (
            lambda: F.interpolate(X, None, 0),
            ValueError,
            r"interpolate: scale_factor must be positive and finite, got 0",
        ),
        (lambda: F.interpolate(X, None, "2"), TypeError, r"interpolate: scale_factor must be a number, got '2'"),
        (
            lambda: F.interpolate(X, None, 0.1),
            ValueError,
            r"interpolate: old and new size must not be empty, got \(4,\) and",
        ),
        (
            lambda: F.interpolate(X[:, :, :0], 2),
            ValueError,
            r"interpolate: old and new size must not be empty, got \(0,\)",
        ),
        (
            lambda: F.interpolate(X, 2, mode="bilinear"),
            ValueError,
            r"interpolate: mode must be one of 'nearest', got 'bil",
        ),
        (
            lambda: F.interpolate_backward(X, X, 2),
            ValueError,
            r"interpolate_backward: grad_output must have shape \(2, 3, 2\) \(the output's shape\), got \(2, 3, 4\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Activations: native against reference, gradients, special values, strides, bad input."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import reference
from tests.oracle import assert_matches
from tests.shapes import COUNTS


@pytest.mark.parametrize("count", COUNTS)
def test_relu_matches_reference(isa, dtype, rng, count):
    x, dy = rng.standard_normal((2, count)).astype(dtype)
    assert_matches(F.relu(x), reference.relu(x.astype(np.float64)), "relu")
    assert_matches(F.relu_backward(dy, x), reference.relu_backward(dy.astype(np.float64), x), "relu")


def test_relu_keeps_special_values(isa, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45], dtype)
    with fastnn.backend("reference"):
        expected = F.relu(x)
    np.testing.assert_array_equal(F.relu(x), expected)


def test_relu_takes_any_strides(isa, dtype, rng):
    x = rng.standard_normal((6, 10, 7)).astype(dtype)
    for view in (x[::2, ::-3], x.transpose(2, 0, 1), np.broadcast_to(x[0], (4, 10, 7)), x[:, :0]):
        np.testing.assert_array_equal(F.relu(view), np.maximum(view, 0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, r"relu: input must be a NumPy array, got list"),
        ((np.arange(3),), TypeError, r"relu: input must be float32 or float64, got int64"),
    ],
)
def test_relu_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        F.relu(*arguments)

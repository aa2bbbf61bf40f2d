"""Comparisons with the oracles: the float64 reference, and central differences."""

import numpy as np

from tests.tolerances import tolerance


def error(actual, expected, least_scale=0.0):
    """max |actual - expected| over the RMS of expected; NaN and infinities must stand at the same places.

    A few random sums may cancel to almost nothing: least_scale is the size of what they are sums of.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    assert np.array_equal(actual[~finite], expected[~finite], equal_nan=True), "special values differ"
    actual, expected = actual[finite], expected[finite]
    if expected.size == 0:
        return 0.0
    difference = np.abs(actual - expected).max()
    assert not np.isnan(difference), "NaN where the reference has none"
    scale = max(np.sqrt(np.mean(expected**2)), least_scale)
    return difference / scale if scale > 0 else (0.0 if difference == 0 else np.inf)


def assert_matches(actual, expected, kernel, least_scale=0.0):
    """actual (float32 or float64) is within the kernel's tolerance of the float64 reference, and keeps its dtype."""
    bound = tolerance(kernel, actual.dtype)
    worst = error(actual, expected, least_scale)
    assert worst <= bound, f"{kernel} {actual.dtype}: error {worst:.3g} exceeds {bound:.3g}"


def numerical_gradient(function, x, grad_output, step=1e-5):
    """Gradient of sum(function(x) * grad_output) by x, by central differences in float64; x is changed and restored."""
    assert x.dtype == np.float64
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + step
        above = np.sum(function(x) * grad_output)
        x[index] = value - step
        below = np.sum(function(x) * grad_output)
        x[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradient(actual, numerical, bound=1e-6):
    """max |a - b| / max(1e-8, |a| + |b|) over arrays, relative to the largest entry: the usual gradient check."""
    scale = max(1e-8, np.abs(actual).max(initial=0) + np.abs(numerical).max(initial=0))
    worst = np.abs(actual - numerical).max(initial=0) / scale
    assert worst <= bound, f"gradient check: relative error {worst:.3g} exceeds {bound:.3g}"

"""Convolutions with what follows them: residual, activation and statistics."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from tests.convolutions import TOLERANCE, case, channels_last
from tests.oracle import assert_matches

EPILOGUES = [
    dict(activation="relu"),
    dict(activation="leaky_relu", negative_slope=0.2),
    dict(residual=True),
    dict(residual=True, activation="relu", statistics=True),
    dict(statistics=True),
]


@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        (0, 2, 3, (5, 6), (3, 3), 1, 1, 1, 1),
        (2, 3, 5, (9, 13), (3, 3), 1, 1, 1, 1),  # ragged tiles
        (3, 8, 17, (7, 7), (3, 3), 1, 1, 1, 1),  # panels across images
        (1, 4, 6, (31, 33), (5, 5), 2, 2, 1, 1),
        (2, 4, 6, (12, 11), (3, 3), 1, 2, 2, 2),  # groups
        (2, 5, 7, (50, 49), (1, 1), 1, 0, 1, 1),
        (1, 40, 10, (7, 7), (3, 3), 1, 1, 1, 1),  # two blocks of the depth, one pixel past a panel
        (2, 340, 9, (6, 8), (1, 1), 1, 0, 1, 1),  # whole panels, several blocks
        (3, 4, 34, (31, 37), (2, 3), 1, 0, 1, 2),  # several units of sums
        (19, 3, 9, (10, 9), (5, 5), 1, (0, 1), 1, 1),  # images in the lanes of vectors, the last group ragged
        (18, 24, 11, (9, 11), (5, 5), 1, 2, 1, 1),  # depth of several blocks
        (33, 6, 6, (7, 7), (3, 3), 1, 1, 1, 6),  # depthwise
        (2, 8, 8, (40, 33), (3, 3), 1, 1, 1, 8),
        (2, 17, 17, (19, 131), (5, 3), 1, (2, 1), 1, 17),  # ... by windows, of some of the columns
        (1, 40, 9, (70, 66), (5, 5), 1, 2, 1, 1),  # several bands
        (2, 8, 9, (24, 22), (3, 3), 1, 2, 2, 1),  # phases of a dilation, all of a size
        (3, 8, 9, (25, 22), (3, 3), 1, 3, 3, 1),  # ... some one smaller
    ],
    ids=str,
)
def test_conv2d_fused_is_conv2d_then_its_epilogue(isa, dtype, rng, algorithm, shape, bias, epilogue):
    (x, weight, b), arguments, dy = case(rng, shape, dtype)
    arrays = x, weight, b if bias else None
    residual = dy if "residual" in epilogue else None
    with fastnn.backend("reference"):
        wide = [None if array is None else array.astype(np.float64) for array in (*arrays, residual)]
        expected = F.conv2d_fused(*wide[:3], *arguments, **dict(epilogue, residual=wide[3]))
    actual = F.conv2d_fused(*arrays, *arguments, **dict(epilogue, residual=residual))
    if "statistics" not in epilogue:
        assert_matches(actual, expected, TOLERANCE[algorithm])
        return
    y, total, squares = actual
    assert_matches(y, expected[0], TOLERANCE[algorithm])
    assert total.dtype == squares.dtype == np.float64
    y = y.astype(np.float64)
    bound = 1e-6 * np.abs(y).sum(axis=(0, 2, 3)) + 1e-12
    assert np.all(np.abs(total - y.sum(axis=(0, 2, 3))) <= bound)
    np.testing.assert_allclose(squares, (y**2).sum(axis=(0, 2, 3)), rtol=1e-5, atol=1e-12)


def test_conv2d_fused_matches_torch(isa, dtype, rng, algorithm):
    torch = pytest.importorskip("torch")
    (x, weight, bias), arguments, residual = case(rng, (3, 8, 17, (14, 15), (3, 3), 1, 1, 1, 1), dtype)
    y, total, squares = F.conv2d_fused(
        x, weight, bias, *arguments, residual=residual, activation="relu", statistics=True
    )
    expected = torch.conv2d(*map(torch.tensor, (x, weight, bias)), *arguments) + torch.tensor(residual)
    expected = torch.relu(expected).numpy()
    assert_matches(y, expected, TOLERANCE[algorithm])
    np.testing.assert_allclose(total / (3 * 14 * 15), expected.mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(squares / (3 * 14 * 15), (expected**2).mean(axis=(0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_conv2d_fused_keeps_nan_and_infinity_as_the_activation_does(isa, dtype, activation):
    x = np.array([np.nan, np.inf, -np.inf, -2.0, 0.0, 3.0], dtype).reshape(1, 1, 2, 3)
    y = F.conv2d_fused(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    negative = {None: [-np.inf, -2.0], "relu": [0.0, 0.0], "leaky_relu": [-np.inf, dtype.type(-0.02)]}[activation]
    np.testing.assert_array_equal(y.ravel()[[0, 1, 4, 5]], [np.nan, np.inf, 0.0, 3.0])
    np.testing.assert_allclose(y.ravel()[2:4], negative)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(activation="gelu"), ValueError, "conv2d_fused: activation must be .*'relu'.*, got 'gelu'"),
        (dict(residual=np.zeros((1, 2, 3, 4))), ValueError, "conv2d_fused: residual must have shape"),
        (dict(residual=np.zeros((1, 2, 3, 3), np.float32)), TypeError, "conv2d_fused: residual"),
        (dict(negative_slope=np.nan), ValueError, "conv2d_fused: negative_slope must be finite, got nan"),
        (dict(negative_slope="0.1"), TypeError, "conv2d_fused: negative_slope must be"),
        (dict(statistics=1.5), TypeError, "conv2d_fused: statistics must be"),
    ],
)
def test_conv2d_fused_refuses_bad_epilogues(arguments, error, message):
    with pytest.raises(error, match=message):
        F.conv2d_fused(np.zeros((1, 1, 3, 3)), np.zeros((2, 1, 1, 1)), **arguments)


def test_statistics_of_many_outputs_are_those_of_the_output(rng):
    """Outputs of more than 64 MB are summed up part by part."""
    x = rng.standard_normal((9, 3, 180, 181)).astype(np.float32)
    weight = rng.standard_normal((64, 3, 3, 3)).astype(np.float32)
    for image in (x, channels_last(x)):
        y, sums, squares = F.conv2d_fused(image, weight, padding=1, statistics=True)
        assert_matches(y, F.conv2d(image, weight, padding=1), "conv")
        np.testing.assert_allclose(squares, np.square(y, dtype=np.float64).sum(axis=(0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(sums, y.sum(axis=(0, 2, 3), dtype=np.float64), rtol=1e-4, atol=1)

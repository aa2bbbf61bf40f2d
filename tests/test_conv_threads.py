"""Convolutions have the same bits for any number of threads."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from tests.convolutions import case, channels_last
from tests.shapes import CONVOLUTIONS_DEPTHWISE, CONVOLUTIONS_FEW, CONVOLUTIONS_LARGE, CONVOLUTIONS_PATCHES


@pytest.mark.parametrize(
    "shape",
    [
        CONVOLUTIONS_LARGE[1],
        CONVOLUTIONS_LARGE[2],
        (1, 64, 64, (28, 28), (3, 3), 1, 1, 1, 1),
        (1, 70, 150, (7, 7), (3, 3), 1, 1, 1, 1),  # few pixels, packed once for all threads; one past a panel
        CONVOLUTIONS_FEW[4],
        CONVOLUTIONS_FEW[5],
        (1, 150, 270, (16, 16), (3, 3), 1, 1, 1, 1),  # few tiles: winograd splits the output channels
        (1, 150, 60, (16, 16), (3, 3), 1, 1, 1, 1),  # ... and has parts of the channels where it needs them for threads
        (8, 33, 40, (29, 31), (3, 3), 1, 1, 1, 1),  # many tiles: its backward-weights sums parts of them
        (70, 20, 17, (9, 10), (5, 5), 1, 2, 1, 1),  # images in the lanes of vectors, bands by the threads
        (1, 3, 9, (150, 66), (3, 3), 1, 1, 1, 1),  # bands by the threads, but for statistics
        (2, 20, 30, (90, 91), (5, 5), 1, 2, 1, 1),  # several blocks of tiles for fft
    ],
    ids=str,
)
def test_conv2d_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm, shape):
    arrays, arguments, dy = case(rng, shape, dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            fused = F.conv2d_fused(*arrays, *arguments, residual=dy, activation="relu", statistics=True)
            results.append((F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments), *fused))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 70, 150, (7, 7), (3, 3), 1, 1, 1, 1),
        (8, 33, 40, (29, 31), (3, 3), 1, 1, 1, 1),
        (3, 130, 170, (29, 31), (1, 1), 1, 0, 1, 1),
        (4, 40, 40, (29, 31), (3, 3), 1, 1, 1, 40),
        (4, 40, 24, (29, 31), (3, 3), 2, 1, 1, 2),
        (1, 150, 60, (30, 31), (3, 3), 1, 1, 1, 1),  # winograd has parts of the channels where all threads share tiles
        (1, 50, 40, (30, 31), (5, 5), 1, 2, 1, 1),  # ... of those of blocks
        (5, 16, 17, (26, 28), (3, 3), 2, (1, 2), 1, 1),  # ... of which the last task has few tiles
        (5, 3, 40, (29, 31), (3, 3), 1, 1, 1, 1),  # packed patches
        (3, 48, 48, (29, 31), (3, 3), 1, 1, 1, 12),  # groups: bundles of some, and bundles of one
        (3, 40, 60, (17, 33), (3, 5), (2, 1), 1, 1, 2),
    ],
    ids=str,
)
def test_conv2d_of_channels_last_arrays_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm, shape):
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    x, dy = channels_last(x), channels_last(dy)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            fused = F.conv2d_fused(x, weight, bias, *arguments, residual=dy, activation="relu", statistics=True)
            results.append((*F.conv2d_backward(dy, x, weight, bias, *arguments), *fused))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "shape",
    [
        *CONVOLUTIONS_PATCHES,
        CONVOLUTIONS_DEPTHWISE[0],
        (8, 3, 64, (40, 41), (3, 3), 1, 1, 1, 1),
        (3, 24, 4, (33, 35), (3, 3), 2, 1, 1, 1),
    ],
    ids=str,
)
def test_conv2d_as_it_is_chosen_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, shape):
    arrays, arguments, dy = case(rng, shape, dtype)
    results = []
    for threads in (1, 2, 5, 33):
        with fastnn.threads(threads):
            results.append((F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_conv2d_backward_meets_an_infinity_alike_for_any_number_of_threads(isa, dtype, algorithm):
    (x, weight, _), arguments, dy = case(
        np.random.default_rng(0), (17, 4, 16, (13, 22), (2, 2), (2, 1), 1, 1, 1), dtype
    )
    dy[0, :, 0] = np.inf
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads), np.errstate(invalid="ignore"):
            results.append(F.conv2d_backward(dy, x, weight, None, *arguments))
    for other in results[1:]:
        for a, b in zip(results[0][:2], other[:2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_conv_transpose2d_has_the_same_bits_for_any_number_of_threads(isa, dtype, rng, algorithm):
    # Outputs at the border miss as many taps as make a block of the sum, their neighbours in a vector do not.
    x, weight = rng.standard_normal((5, 60, 20, 19)).astype(dtype), rng.standard_normal((60, 6, 10, 2)).astype(dtype)
    bias = rng.standard_normal(6).astype(dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            results.append(F.conv_transpose2d(x, weight, bias))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)

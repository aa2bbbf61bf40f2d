"""The algorithms of convolutions: which is chosen, each against im2col, how far its infinities reach, its memory."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.conv_algorithm import choose, winograd_blocks
from tests.convolutions import case, channels_last


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("taps", [2, 3])
def test_conv2d_by_winograd_matches_im2col_for_every_small_size(isa, dtype, rng, taps, height):
    for width in range(1, 10):
        for padding in range(4):
            if min(height, width) + 2 * padding < taps:
                continue
            arrays, arguments, dy = case(rng, (2, 3, 2, (height, width), (taps, taps), 1, padding, 1, 1), dtype)
            with fastnn.conv_algorithm("im2col"):
                expected = F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)
            with fastnn.conv_algorithm("winograd"):
                results = F.conv2d(*arrays, *arguments), *F.conv2d_backward(dy, *arrays, *arguments)
            for actual, reference in zip(results, expected, strict=True):
                scale = max(1.0, np.sqrt(np.mean(reference**2)))
                np.testing.assert_allclose(actual, reference, 0, 4e-5 * scale * np.finfo(dtype).eps * 2**23)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("stride", "kernel"), [(2, range(2, 7)), (4, range(5, 13))])
def test_input_grad_by_winograd_matches_im2col_for_every_phase(isa, dtype, rng, stride, kernel, last):
    runs = 0
    for taps in itertools.product(kernel, kernel):
        for padding in (0, 1, taps[0] // 2, taps[0] - 1):
            size = (taps[0] + 5 + 3 * (taps[1] % 3), taps[1] + 4 * (taps[0] % 4))  # 1 to 4 tiles, ragged
            (x, weight, bias), arguments, dy = case(rng, (2, 3, 2, size, taps, stride, padding, 1, 1), dtype)
            runs += choose_winograd("conv_input_grad", taps, stride)
            if last:
                dy = channels_last(dy)
            with fastnn.conv_algorithm("im2col"):
                expected = F.conv2d_backward(dy, x, weight, bias, *arguments, needs=(True, False, False))[0]
            with fastnn.conv_algorithm("winograd"):
                dx = F.conv2d_backward(dy, x, weight, bias, *arguments, needs=(True, False, False))[0]
            scale = max(1.0, np.sqrt(np.mean(expected**2)))
            np.testing.assert_allclose(dx, expected, 0, 4e-5 * scale * np.finfo(dtype).eps * 2**23)
    assert runs >= 4 * (len(kernel) ** 2 - 1)  # 2x2 with stride 2 has a single tap in each phase


def choose_winograd(operation, kernel, stride):
    with fastnn.conv_algorithm("winograd"):
        return choose(operation, 2, 2, 3, (9, 9), kernel, (stride, stride), (1, 1), 1, 8) == "winograd"


def test_conv2d_nan_stays_in_its_image_where_images_share_a_vector(dtype, isa):
    fastnn.set_conv_algorithm("direct")
    x = np.zeros((33, 1, 5, 5), dtype)
    x[20, 0, 2, 2] = np.nan
    weight = np.ones((1, 1, 3, 3), dtype)
    y = F.conv2d(x, weight, padding=1)
    assert np.isnan(y[20, 0, 1:4, 1:4]).all()
    assert np.isnan(y).sum() == 9
    dx, dw, _ = F.conv2d_backward(y, x, weight, padding=1)
    assert np.isnan(dx).sum() == 25
    assert np.isnan(dx[20]).all()
    assert np.isnan(dw).all()


def test_conv2d_by_winograd_keeps_nan_and_infinity_to_the_tiles_that_they_touch(dtype):
    fastnn.set_conv_algorithm("winograd")
    x = np.zeros((1, 1, 18, 18), dtype)
    x[0, 0, 2, 2] = np.nan
    x[0, 0, 13, 13] = np.inf
    y = F.conv2d(x, np.ones((1, 1, 3, 3), dtype))[0, 0]
    assert np.isnan(y[:3, :3]).all()
    assert not np.isfinite(y[11:14, 11:14]).any()
    assert np.isfinite(y[4:8]).all()
    assert np.isfinite(y[:4, 4:]).all()


def test_conv2d_by_winograd_spreads_an_infinity_to_the_4x4_outputs_of_its_tile_as_its_docstring_says(dtype, isa):
    x = np.zeros((1, 1, 18, 18), dtype)
    x[0, 0, 6, 6] = np.inf  # in the patch of the tile of outputs 4 to 7 alone, of which it touches 3x3
    weight = np.ones((1, 1, 3, 3), dtype)
    expected = np.zeros((16, 16), bool)
    expected[4:8, 4:8] = True
    with fastnn.conv_algorithm("winograd"):
        np.testing.assert_array_equal(np.isnan(F.conv2d(x, weight)[0, 0]), expected)
        gradient = F.conv2d_backward(x, np.zeros((1, 1, 18, 18), dtype), weight, padding=1)[0]
    expected = np.zeros((18, 18), bool)
    expected[4:8, 4:8] = True
    np.testing.assert_array_equal(np.isnan(gradient[0, 0]), expected)
    for documented in (F.conv2d, F.conv2d_backward, F.conv_transpose2d):
        assert "Winograd" in documented.__doc__


def test_conv2d_by_fft_spreads_an_infinity_to_the_outputs_of_its_tile_as_its_docstring_says(dtype, isa):
    x = np.zeros((1, 1, 36, 36), dtype)
    x[0, 0, 18, 18] = np.inf  # in the patch of the tile of outputs 12 to 23 alone, of which it touches 5x5
    weight = np.ones((1, 1, 5, 5), dtype)
    expected = np.zeros((36, 36), bool)
    expected[12:24, 12:24] = True
    with fastnn.conv_algorithm("fft"):
        np.testing.assert_array_equal(np.isnan(F.conv2d(x, weight, padding=2)[0, 0]), expected)
        gradient = F.conv2d_backward(x, np.zeros((1, 1, 36, 36), dtype), weight, padding=2)[0]
    np.testing.assert_array_equal(np.isnan(gradient[0, 0]), expected)
    for documented in (F.conv2d, F.conv2d_backward, F.conv_transpose2d):
        assert "Fourier" in documented.__doc__


@pytest.mark.parametrize("by", ["winograd", "fft"])
@pytest.mark.parametrize("change", [dict(stride=3), dict(stride=(2, 1)), dict(stride=2, dilation=2), dict(groups=2)])
def test_conv2d_forced_to_transforms_falls_back_where_they_cannot_run(rng, change, by):
    x, weight = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 4 // change.get("groups", 1), 3, 3))
    results = []
    for name in ("im2col", by):
        with fastnn.conv_algorithm(name):
            y = F.conv2d(x, weight, **change)
            results.append((y, *F.conv2d_backward(y, x, weight, **change)[:2]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("kernel", range(2, 13))
def test_blocks_of_winograd_hold_each_tap_once_and_the_whole_ones_first(kernel, stride):
    most, (blocks, _) = winograd_blocks((kernel, kernel), (stride, stride))
    taps = [count for _, count in blocks]
    assert taps == sorted(taps, reverse=True)
    assert max(taps) <= most
    held = [first + stride * tap for first, count in blocks for tap in range(count)]
    assert sorted(held) == list(range(kernel))


@pytest.mark.parametrize(
    ("shape", "expected", "expected_weights"),
    [
        ((64, 64, 64, (32, 32)), "winograd", "winograd"),
        ((16, 16, 16, (20, 20)), "winograd", "winograd"),
        ((64, 3, 64, (32, 32)), "direct", "direct"),  # few channels
        ((64, 64, 3, (32, 32)), "direct", "winograd"),
        ((1, 64, 64, (8, 8)), "im2col", "im2col"),  # few tiles
        ((1, 32, 32, (8, 8)), "direct", "im2col"),
        ((0, 64, 64, (8, 8)), "im2col", "im2col"),
    ],
)
def test_auto_takes_winograd_where_it_was_measured_to_gain(shape, expected, expected_weights):
    def by(operation, *shape, kernel=3, stride=1, lanes=16):
        return choose(operation, *shape, (kernel,) * 2, (stride,) * 2, (1, 1), 1, lanes)

    for operation in ("conv", "conv_input_grad"):
        assert by(operation, *shape) == expected
    assert by("conv_weight_grad", *shape) == expected_weights
    assert by("conv", *shape, kernel=2, stride=2) != "winograd"  # more products
    with fastnn.conv_algorithm("im2col"):
        assert by("conv", *shape) == "im2col"
    with fastnn.conv_algorithm("winograd"):  # whatever takes fewer products, there are blocks for all of these
        sizes = itertools.product(range(2, 13), range(2, 13), (1, 2, 4))
        assert {choose("conv", *shape, (r, s), (d, d), (1, 1), 1, 16) for r, s, d in sizes} == {"winograd"}
    alexnet, few_tiles = (8, 3, 96, (55, 55)), (1, 256, 256, (8, 8))
    assert by("conv_weight_grad", *alexnet, kernel=11, stride=4) == "winograd"
    assert (
        by("conv", 8, 64, 128, (28, 28), stride=2)
        == by("conv_weight_grad", 8, 64, 128, (28, 28), stride=2)
        == "winograd"
    )
    assert by("conv_weight_grad", 8, 256, 512, (7, 7), stride=2) == "im2col"  # much of the tiles is unused
    assert by("conv_input_grad", 8, 128, 64, (56, 56), stride=2) == "winograd"
    assert by("conv_input_grad", 32, 64, 16, (32, 32), kernel=4, stride=2) == "winograd"  # few channels in the result
    assert by("conv_input_grad", 1, 512, 256, (14, 14), stride=2) == "im2col"  # few tiles
    assert by("conv_input_grad", 8, 512, 256, (14, 14), stride=2) == "im2col"  # many weights
    assert by("conv_input_grad", 8, 64, 3, (224, 224), kernel=7, stride=2) != "winograd"  # phases with four taps
    assert by("conv_weight_grad", *few_tiles) == by("conv", 2, 256, 256, (8, 8)) == "winograd"
    for shape, chosen in ((few_tiles, "winograd"), ((1, 512, 512, (7, 7)), "im2col")):  # most time for the weights
        assert by("conv", *shape) == by("conv", *shape, lanes=8) == by("conv_input_grad", *shape) == chosen
    assert by("conv_weight_grad", *few_tiles, lanes=8) == "im2col"


def test_auto_takes_fft_where_it_was_measured_to_gain():
    def by(*shape, kernel, stride=1, operation="conv", lanes=16):
        return choose(operation, *shape, (kernel,) * 2, (stride,) * 2, (1, 1), 1, lanes)

    for lanes in (8, 16):
        for operation in ("conv", "conv_input_grad"):
            assert by(8, 96, 256, (27, 27), kernel=5, operation=operation, lanes=lanes) == "fft"
            assert by(1, 64, 64, (28, 28), kernel=7, operation=operation, lanes=lanes) == "fft"
            assert by(32, 64, 64, (7, 7), kernel=3, operation=operation, lanes=lanes) != "fft"  # much of a tile unused
            assert by(1, 256, 256, (12, 12), kernel=5, operation=operation, lanes=lanes) != "fft"  # a single tile
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, lanes=lanes) == "fft"
        assert by(8, 3, 96, (55, 55), kernel=11, stride=4, lanes=lanes) == "winograd"  # 3x3 in a phase
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, operation="conv_weight_grad", lanes=lanes) == "fft"
        assert by(8, 64, 64, (28, 28), kernel=7, operation="conv_weight_grad", lanes=lanes) == "fft"
        assert by(1, 512, 512, (14, 14), kernel=3, operation="conv_weight_grad", lanes=lanes) == "winograd"
        assert by(8, 3, 64, (112, 112), kernel=7, stride=2, operation="conv_input_grad", lanes=lanes) != "fft"
    assert by(8, 600, 64, (48, 48), kernel=7) != "fft"  # too many channels


def test_auto_takes_the_phases_of_a_dilation_where_it_was_measured_to_gain():
    def by(channels, size, dilation, operation="conv", images=1, stride=1):
        sizes = ((size, size), (3, 3), (stride, stride), (dilation, dilation))
        return choose(operation, images, channels, channels, *sizes, 1, 16)

    for operation in ("conv", "conv_input_grad", "conv_weight_grad"):
        assert by(64, 56, 2, operation) == by(128, 112, 4, operation) == "winograd"
        assert by(512, 14, 6, operation) == "im2col"  # phases smaller than a tile
        assert by(64, 1024, 2, operation) == by(64, 56, 2, operation, stride=2) == "im2col"  # phases too large to copy
    assert by(512, 65, 4) == "winograd"
    assert by(512, 65, 4, "conv_weight_grad") == "im2col"  # weights too large to add up


@pytest.mark.parametrize("by", ["winograd", "fft"])
def test_dilations_beyond_the_outputs_are_not_taken_phase_by_phase(rng, by):
    x, weight = rng.standard_normal((1, 2, 8, 8)), rng.standard_normal((3, 2, 3, 3))
    for filters, arguments in ((weight[:, :, :1, :1], (1, 0, 10**6)), (weight, (1, 10**6, 10**6))):
        results = []
        for name in ("im2col", by):
            with fastnn.conv_algorithm(name):  # a million phases would take seconds
                results.append(F.conv2d(x, filters, None, *arguments))
        np.testing.assert_array_equal(*results)


def test_auto_takes_direct_where_it_was_measured_to_gain():
    def by(operation, channels, out_channels, size, kernel, groups=1, images=8):
        sizes = ((size, size), (kernel, kernel), (2, 2), (1, 1))
        return choose(operation, images, channels, out_channels, *sizes, groups, 16)

    for operation in ("conv", "conv_input_grad", "conv_weight_grad"):
        assert by(operation, 3, 16, 112, 3) == "direct"
        assert by(operation, 256, 512, 7, 3, images=1) == "im2col"
        assert by(operation, 3, 64, 28, 1) == "im2col"  # nothing to pack
        assert by(operation, 16, 120, 1, 5) == "im2col"  # a single position
    assert by("conv", 64, 64, 7, 3) == "im2col"
    assert by("conv", 64, 64, 7, 3, images=32) == "direct"
    assert by("conv_weight_grad", 8, 64, 7, 3) == "im2col"
    assert by("conv_weight_grad", 8, 64, 7, 3, images=32) == "direct"
    assert choose("conv", 8, 3, 8, (9, 9, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 16) == "im2col"  # three dimensions


def test_auto_takes_direct_for_few_outputs_where_it_was_measured_to_gain():
    def by(operation, channels, out_channels, size, kernel, stride=1, dilation=1):
        sizes = ((size, size), (kernel, kernel), (stride, stride), (dilation, dilation))
        return choose(operation, 1, channels, out_channels, *sizes, 1, 16)

    assert by("conv", 64, 4, 56, 5, stride=3) == "direct"
    assert by("conv", 256, 4, 56, 3, stride=2) == by("conv", 128, 1, 56, 3, dilation=4) == "im2col"
    assert by("conv_input_grad", 256, 4, 56, 3, stride=2) == "direct"
    assert by("conv_input_grad", 256, 4, 56, 3, stride=2, dilation=2) == "im2col"
    assert by("conv_weight_grad", 60, 4, 56, 5, stride=3) == "direct"
    assert by("conv_weight_grad", 512, 6, 85, 3, stride=2) == "im2col"
    assert by("conv_weight_grad", 256, 1, 56, 3, dilation=4) == "direct"
    assert by("conv_weight_grad", 257, 1, 56, 3, dilation=4) == "im2col"


def test_auto_takes_the_kernels_of_groups_where_they_were_measured_to_gain():
    def by(operation, channels, out_channels, groups, size=28, kernel=3, stride=1, **layout):
        sizes = ((size, size), (kernel, kernel), (stride, stride), (1, 1))
        return choose(operation, 8, channels, out_channels, *sizes, groups, 16, **layout)

    last, first = dict(layout="last"), dict(layout="first")
    for operation in ("conv", "conv_input_grad", "conv_weight_grad"):
        assert by(operation, 128, 128, 32, **last) == by(operation, 128, 128, 8, **last) == "grouped"
        assert by(operation, 256, 256, 2, size=14, **last) == by(operation, 256, 256, 2, **last) == "im2col"
        assert by(operation, 96, 4, 2, **last) == "im2col"  # more channels than lanes for few outputs
        assert by(operation, 33, 33, 33, **last) == by(operation, 2, 2, 2, **last) == "grouped"
        assert by(operation, 128, 128, 32, **first) == by(operation, 128, 128, 32, layout=None) == "direct"
        assert by(operation, 64, 64, 32, kernel=201, **last) == "im2col"  # too much to copy
        for wanted in ("im2col", "winograd", "fft"):
            with fastnn.conv_algorithm(wanted):
                assert by(operation, 128, 128, 32, **last) == "im2col"
        with fastnn.conv_algorithm("direct"):
            assert by(operation, 256, 256, 2, **last) == "grouped"
    assert by("conv", 128, 128, 4, **last) == by("conv_input_grad", 128, 128, 4, **last) == "grouped"
    assert by("conv", 128, 128, 4, size=7, **last) == by("conv_weight_grad", 128, 128, 4, **last) == "im2col"
    assert by("conv", 33, 33, 33, **first) == by("conv_input_grad", 33, 33, 33, **first) == "grouped"
    assert by("conv", 7, 7, 7, **first) == by("conv_weight_grad", 33, 33, 33, **first) == "direct"
    assert by("conv_input_grad", 33, 33, 33, stride=2, **first) == "direct"
    assert by("conv", 33, 33, 33, stride=100, **first) != "grouped"  # windows too large to copy
    assert by("conv", 8192, 8192, 8192, kernel=31, **last) != "grouped"  # ... or weights


def test_patches_are_packed_where_it_was_measured_to_gain():
    def by(operation, channels, out_channels, size, kernel, stride, layout, **itemsize):
        sizes = ((size, size), (kernel, kernel), (stride, stride), (1, 1))
        return choose(operation, 8, channels, out_channels, *sizes, 1, 16, layout, **itemsize)

    for operation in ("conv", "conv_weight_grad"):
        assert by(operation, 3, 32, 112, 3, 2, "last") == by(operation, 3, 768, 14, 16, 16, "first") == "patches"
        assert by(operation, 3, 32, 112, 3, 2, "first") == by(operation, 3, 8, 112, 3, 2, "last") == "direct"
        assert by(operation, 3, 32, 112, 3, 2, None) == "direct"
        assert by(operation, 8, 1030, 14, 11, 11, "last", itemsize=4) == "patches"
        assert by(operation, 8, 1030, 14, 11, 11, "last", itemsize=8) != "patches"  # weights of 8 MB
        with fastnn.conv_algorithm("im2col"):
            assert by(operation, 3, 32, 112, 3, 2, "last") == "patches"
            assert by(operation, 9, 32, 112, 3, 2, "last") == "im2col"
        with fastnn.conv_algorithm("direct"):
            assert by(operation, 3, 32, 112, 3, 2, "last") == "direct"
    assert by("conv_input_grad", 3, 32, 112, 3, 2, "last") == "direct"
    assert by("conv", 3, 64, 55, 7, 4, "first") != "patches"  # long rows of them
    assert by("conv_weight_grad", 3, 64, 55, 5, 4, "first") == "patches"


def test_set_conv_algorithm_refuses_unknown_names():
    with pytest.raises(
        ValueError, match="set_conv_algorithm: name must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got 'fast'"
    ):
        fastnn.set_conv_algorithm("fast")
    assert fastnn.get_conv_algorithm() == "auto"


def run_python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_fastnn_conv_algorithm_sets_the_one_that_a_process_starts_with():
    program = "import fastnn; print(fastnn.get_conv_algorithm())"
    assert run_python(program, FASTNN_CONV_ALGORITHM="winograd").stdout == "winograd\n"
    result = run_python(program, FASTNN_CONV_ALGORITHM="fast")
    assert "FASTNN_CONV_ALGORITHM must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got 'fast'" in result.stderr


@pytest.mark.parametrize("name", ["im2col", "direct", "winograd", "fft"])
@pytest.mark.parametrize("shape", [(2, 64, 64, 112), (1, 512, 512, 14)], ids=str)
def test_conv2d_takes_at_most_16_mb_a_thread_beside_its_results(name, shape):
    n, c, k, size = shape
    program = f"""
import fastnn, numpy as np
import fastnn.functional as F
x, w = np.ones(({n}, {c}, {size}, {size}), np.float32), np.ones(({k}, {c}, 3, 3), np.float32)
dy, start = np.ones(({n}, {k}, {size}, {size}), np.float32), fastnn.memory_stats()["used_bytes"]
fastnn.set_num_threads(2)
y = F.conv2d(x, w, padding=1)
dx, dw, _ = F.conv2d_backward(dy, x, w, padding=1)
print(fastnn.memory_stats()["peak_bytes"] - start - y.nbytes - dx.nbytes - dw.nbytes)
"""
    extra = int(run_python(program, FASTNN_CONV_ALGORITHM=name).stdout)
    assert extra <= 2 * 16e6


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_each_forced_algorithm_rounds_in_its_own_way(isa, rng, last):
    """One that another ran in place of would pass every other test."""
    (x, weight, bias), arguments, dy = case(rng, (2, 16, 16, (20, 20), (5, 5), 1, 2, 1, 1), np.float32)
    x, dy = (channels_last(x), channels_last(dy)) if last else (x, dy)
    results = []
    for name in ("im2col", "direct", "winograd", "fft"):
        with fastnn.conv_algorithm(name), fastnn.profile() as p:
            results.append(
                (F.conv2d(x, weight, bias, *arguments), *F.conv2d_backward(dy, x, weight, None, *arguments)[:2])
            )
        assert [call.algorithm for call in p.calls] == [name] * 3
    for one, other in itertools.combinations(results, 2):
        for a, b in zip(one, other, strict=True):
            assert not np.array_equal(a, b)

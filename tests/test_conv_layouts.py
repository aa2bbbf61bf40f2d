"""Convolutions of channels-last arrays, and of arrays with any strides, against those of contiguous ones."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from tests.convolutions import TOLERANCE, case, channels_last
from tests.oracle import assert_matches
from tests.shapes import CONVOLUTIONS_DEPTHWISE, CONVOLUTIONS_GROUPED


@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 5, (13, 11), (3, 3), 1, 1, 1, 1),
        (3, 17, 33, (14, 15), (3, 3), 1, 1, 1, 1),  # channels one past a vector, panels across images
        (1, 150, 130, (16, 16), (3, 3), 1, 1, 1, 1),  # several tasks
        (2, 3, 16, (40, 41), (11, 11), 4, 2, 1, 1),
        (3, 5, 18, (19, 20), (5, 4), 2, (2, 1), 1, 1),
        (1, 2, 3, (9, 10), (7, 7), 1, 3, 1, 1),
        (2, 20, 24, (7, 9), (1, 1), 1, 0, 1, 1),
        (2, 8, 8, (9, 8), (3, 3), 2, 1, 1, 4),
        (3, 19, 19, (13, 21), (3, 3), 1, 1, 1, 19),  # depthwise: one past vectors of channels and of outputs
        (2, 33, 33, (14, 9), (5, 4), (2, 3), (2, 1), 1, 33),
        (2, 17, 17, (19, 131), (5, 3), 1, (2, 1), 1, 17),
        (1, 16, 16, (70, 66), (3, 3), 1, 30, 30, 16),  # reaches too far for a window
        (5, 4, 4, (3, 4), (3, 3), 1, 3, 2, 4),  # outputs that see no row of the image
        (1, 43, 21, (7, 7), (3, 3), 1, 1, 1, 1),  # two blocks of the depth, one pixel past a panel
        (2, 340, 9, (6, 8), (1, 1), 1, 0, 1, 1),  # whole panels
        (2, 34, 54, (31, 37), (2, 3), 1, 0, (1, 2), 2),  # groups that end within vectors, several units of sums
        (5, 19, 35, (25, 18), (3, 3), 2, 1, 1, 1),  # phases of the stride, many pixels
        (2, 9, 10, (25, 18), (1, 1), 3, 0, 1, 1),
        (2, 49, 50, (17, 19), (1, 1), 1, 0, 1, 1),  # pixels as rows, enough of them: one past a panel
        (3, 130, 97, (29, 31), (1, 1), 2, 0, 1, 1),  # two blocks of the depth, rows of 16 pixels
        (5, 3, 3, (20, 21), (1, 1), 1, 0, 1, 1),
        (3, 20, 9, (2, 2), (2, 2), 1, 0, 1, 1),  # one pixel an image
        (19, 3, 9, (10, 9), (5, 5), 1, (0, 1), 1, 1),  # images in the lanes of vectors
        (21, 18, 6, (13, 11), (3, 3), 2, 1, 1, 1),
        (17, 2, 5, (3, 5), (3, 3), 1, 4, 2, 1),  # outputs that see no row of the image
        (33, 3, 5, (14, 7), (2, 3), (2, 4), (0, 1), 1, 1),  # columns between the filter's steps
        (1, 40, 9, (70, 66), (5, 5), 1, 2, 1, 1),  # several bands, depth of several blocks
        (1, 3, 21, (67, 63), (11, 11), 4, 0, 1, 1),  # phases of the stride
        (9, 2, 10, (14, 15), (5, 5), 1, 0, 1, 1),  # several images' gradients together
        (2, 5, 1, (20, 33), (3, 3), 1, 1, 1, 1),
        (1, 300, 260, (13, 11), (3, 3), 1, 1, 1, 1),  # chunks and parts of winograd's weights
        (1, 70, 60, (29, 33), (5, 5), 1, 2, 1, 1),  # ... of blocks, whose channels are not those of the parts
        (2, 140, 50, (15, 14), (3, 3), 2, 1, 1, 1),  # ... in phases
        (2, 3, 33, (9, 10), (3, 3), 1, 1, 1, 1),  # packed patches: one past vectors, and past tasks
        # ... rows of the filter longer than a vector, two blocks of the depth
        (3, 3, 97, (23, 21), (5, 7), 2, (3, 5), 1, 1),
        (1, 2, 40, (40, 41), (11, 11), 4, 2, 1, 1),
        (2, 7, 50, (8, 9), (4, 4), 4, 0, 1, 1),
        (2, 3, 36, (3, 2), (3, 5), 1, (1, 4), 1, 1),  # ... wider than the image
        (3, 16, 16, (90, 70), (3, 3), 1, 1, 1, 16),  # parts of the weights' sums with several rows, across images
        (5, 8, 8, (29, 17), (3, 3), 1, 1, 1, 2),
        (1, 130, 8, (6, 20), (9, 9), 1, 4, 1, 2),  # groups with long sums
        *CONVOLUTIONS_DEPTHWISE,
        *CONVOLUTIONS_GROUPED,
    ],
    ids=str,
)
def test_conv2d_of_channels_last_arrays_is_that_of_channels_first_ones(isa, dtype, rng, algorithm, shape):
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    residual = dy[::-1].copy()
    epilogue = dict(residual=residual, activation="leaky_relu", statistics=True)
    expected = F.conv2d_fused(x, weight, bias, *arguments, **epilogue)
    gradients = F.conv2d_backward(dy, x, weight, bias, *arguments)
    for residual in (epilogue["residual"], channels_last(epilogue["residual"])):
        fused = F.conv2d_fused(channels_last(x), weight, bias, *arguments, **dict(epilogue, residual=residual))
        assert_matches(fused[0], expected[0], TOLERANCE[algorithm])
        assert np.moveaxis(fused[0], 1, -1).flags.c_contiguous
        for a, b in zip(fused[1:], expected[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
    for grad_output in (dy, channels_last(dy)):
        for a, b in zip(
            F.conv2d_backward(grad_output, channels_last(x), weight, bias, *arguments), gradients, strict=True
        ):
            assert_matches(a, b, TOLERANCE[algorithm])


@pytest.mark.parametrize(
    ("algorithm", "shape"),  # of more than 4 MB
    [
        ("im2col", (7, 5, 12, (150, 151), (3, 3), 1, 0, 1, 1)),  # some images at a time
        ("auto", (9, 24, 48, (60, 61), (3, 3), 2, 1, 1, 24)),
        ("direct", (2, 33, 66, (140, 141), (3, 3), 1, 30, 60, 33)),  # some groups of one, which reach too far
        ("winograd", (4, 24, 2, (110, 111), (3, 3), 1, 1, 1, 1)),
    ],
    ids=str,
)
def test_channels_last_arrays_that_are_copied_go_part_by_part(dtype, rng, algorithm, shape):
    tolerance = TOLERANCE["im2col" if algorithm == "auto" else algorithm]
    (x, weight, bias), arguments, dy = case(rng, shape, dtype)
    fused = dict(activation="relu", statistics=True)
    with fastnn.conv_algorithm(algorithm):
        expected = F.conv2d_fused(x, weight, bias, *arguments, residual=dy, **fused)
        actual = F.conv2d_fused(channels_last(x), weight, bias, *arguments, residual=channels_last(dy), **fused)
        assert_matches(actual[0], expected[0].astype(np.float64), tolerance)
        for one, other in zip(actual[1:], expected[1:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        expected = F.conv2d_backward(dy, x, weight, bias, *arguments)
        actual = F.conv2d_backward(channels_last(dy), channels_last(x), weight, bias, *arguments)
    for one, other in zip(actual, expected, strict=True):
        assert_matches(one, other.astype(np.float64), tolerance)
    for result in (F.conv2d(channels_last(x), weight, bias, *arguments), actual[0]):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_input_grad_of_one_channel_with_stride_2_writes_every_column_channels_last(isa, dtype, rng, kernel):
    arrays, arguments, dy = case(rng, (2, 1, 16, (7, 8), (kernel, kernel), 2, 0, 1, 1), dtype)
    with fastnn.backend("reference"):
        expected = F.conv2d_backward(dy, *arrays, *arguments)[0]
    with fastnn.conv_algorithm("im2col"):
        assert_matches(F.conv2d_backward(channels_last(dy), *arrays, *arguments)[0], expected, "conv")


def test_conv2d_takes_any_strides(isa, dtype, rng, algorithm):
    weight = rng.standard_normal((5, 3, 3, 3)).astype(dtype)
    base = rng.standard_normal((4, 9, 20, 6)).astype(dtype)
    for x in (
        base.transpose(0, 3, 1, 2)[:, ::2],  # channels last, every other channel
        base[:, :3, ::-1, :],  # reversed rows
        base[::2, ::3],
        np.broadcast_to(base[0, 0], (2, 3, 20, 6)),
    ):
        x.flags.writeable = False
        y = F.conv2d(x, weight, padding=1)
        np.testing.assert_array_equal(y, F.conv2d(x.copy(order="C"), weight, padding=1))
        dy = rng.standard_normal(y.shape).astype(dtype)
        flipped = np.asfortranarray(dy)
        for a, b in zip(
            F.conv2d_backward(flipped, x, weight, padding=1),
            F.conv2d_backward(dy, x.copy(order="C"), np.asfortranarray(weight), padding=1),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("channels", "out_channels"), [(20, 6), (3, 6), (3, 33)])
def test_conv2d_nan_outside_a_channels_last_image_reaches_nothing(isa, dtype, algorithm, channels, out_channels):
    base = np.full((3, 9, 10, channels), np.nan, dtype)
    base[1] = 1
    x = base[1:2].transpose(0, 3, 1, 2)
    y = F.conv2d(x, np.ones((out_channels, channels, 3, 3), dtype), padding=1)
    assert np.isfinite(y).all()


def test_weight_gradient_of_one_channel_and_gradients_with_channels_last(isa, dtype, rng, algorithm):
    """An image of one channel stands both ways."""
    x, dy = rng.standard_normal((5, 1, 12, 11)).astype(dtype), rng.standard_normal((5, 40, 12, 11)).astype(dtype)
    weight, bias = np.zeros((40, 1, 3, 3), dtype), np.zeros(40, dtype)
    expected = F.conv2d_backward(dy, x, weight, bias, padding=1)
    for a, b in zip(F.conv2d_backward(channels_last(dy), x, weight, bias, padding=1), expected, strict=True):
        assert_matches(a, b, TOLERANCE[algorithm])


def test_arrays_with_gaps_are_copied_by_parts(rng):
    """Images of more than 4 MB that stand in neither layout, and a residual in the other one."""

    def gaps(array):
        return np.repeat(array, 2, axis=3)[..., ::2]

    x, weight, bias = rng.standard_normal((5, 9, 200, 202)), rng.standard_normal((8, 3, 3, 3)), rng.standard_normal(8)
    x, weight, bias = (array.astype(np.float32) for array in (x[:, :6], weight, bias))
    residual = rng.standard_normal((5, 8, 200, 202)).astype(np.float32)
    options = {"padding": 1, "groups": 2}
    expected = F.conv2d_fused(x, weight, bias, residual=residual, statistics=True, **options)
    assert x.nbytes > 4 << 20
    for other in (gaps(residual), channels_last(residual)):
        found = F.conv2d_fused(gaps(x), weight, bias, residual=other, statistics=True, **options)
        for actual, one in zip(found, expected, strict=True):
            assert_matches(actual.astype(np.float32), one, "conv")
    expected = F.conv2d_backward(residual, x, weight, bias, **options)
    for grad, image in ((gaps(residual), x), (residual, gaps(x)), (gaps(residual), gaps(x))):
        for actual, one in zip(F.conv2d_backward(grad, image, weight, bias, **options), expected, strict=True):
            assert_matches(actual, one, "conv")


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("images", "channels", "size"), [(3, 9, 240), (2, 18, 260), (5, 9, 160)])
def test_images_with_gaps_between_them_are_computed_one_by_one(rng, images, channels, size, groups):
    """More than 4 MB; a single image of them stands with its channels last, alone or left over."""
    base = rng.standard_normal((2 * images, size + 7, size, channels)).astype(np.float32)
    weight = rng.standard_normal((12, channels // groups, 3, 3)).astype(np.float32)
    for array in (base[::2], base[:images, 3:-4], base[:images, :, 2:-2]):
        x = array.transpose(0, 3, 1, 2)
        assert x.nbytes > 4 << 20
        first = np.ascontiguousarray(x)
        expected = F.conv2d(first, weight, padding=1, groups=groups)
        assert_matches(F.conv2d(x, weight, padding=1, groups=groups), expected, "conv")
        wide = np.resize(weight, (channels, 12 // groups, 3, 3))
        expected = F.conv_transpose2d(first, wide, padding=1, groups=groups)
        assert_matches(F.conv_transpose2d(x, wide, padding=1, groups=groups), expected, "conv")
        dy = F.conv2d(first, weight, padding=1, groups=groups)
        expected = F.conv2d_backward(dy, first, weight, padding=1, groups=groups)
        for actual, one in zip(F.conv2d_backward(dy, x, weight, padding=1, groups=groups)[:2], expected, strict=False):
            assert_matches(actual, one, "conv")


def test_transposed_1x1_convolution_of_channels_last_arrays_pads_its_output(isa, dtype, rng):
    x, weight = rng.standard_normal((1, 8, 24, 24)).astype(dtype), rng.standard_normal((8, 4, 1, 1)).astype(dtype)
    arguments = {"stride": 1, "padding": 0, "output_padding": 1, "dilation": 2}
    expected = F.conv_transpose2d(x, weight, **arguments)
    assert expected.shape == (1, 4, 25, 25)
    dy = rng.standard_normal(expected.shape).astype(dtype)
    assert_matches(F.conv_transpose2d(channels_last(x), weight, **arguments), expected, "conv")
    expected = F.conv_transpose2d_backward(dy, x, weight, None, **arguments)
    found = F.conv_transpose2d_backward(channels_last(dy), channels_last(x), weight, None, **arguments)
    for actual, one in zip(found[:2], expected[:2], strict=True):
        assert_matches(actual, one, "conv")


def test_gradients_of_arrays_with_different_layouts_are_those_of_one(dtype, rng, algorithm):
    (x, weight, bias), arguments, dy = case(rng, (5, 20, 18, (14, 13), (5, 5), 1, 2, 1, 1), dtype)
    expected = F.conv2d_backward(dy, x, weight, bias, *arguments)
    for actual in (
        F.conv2d_backward(channels_last(dy), x, weight, bias, *arguments),
        F.conv2d_backward(dy, channels_last(x), weight, bias, *arguments),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_matches(one, other.astype(np.float64), TOLERANCE[algorithm])

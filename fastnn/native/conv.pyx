"""Convolutions of 1 to 3 dimensions by implicit matrix products: geometry, work split, scratch memory.

Everything is three-dimensional here; missing leading dimensions have extent 1. A transposed convolution is the input
gradient of a convolution, and that is a convolution of the output's gradient per phase of the stride: input positions
that leave the same remainder by the stride see the same taps, and see them one step apart.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.geometry cimport forward_taps, phase_taps, three
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, conv_geometry, conv_kernels, conv_phase, gemm_kernels)
from fastnn.native.runtime cimport (
    Block, ceil_div, contiguous, copy_pixels, either_layout, empty_channels_last, empty_in_layout, empty_of_shape,
    is_channels_last, kernels_for, scratch, stands, threads_for)

from functools import lru_cache

import numpy as np

from fastnn.conv_algorithm import choose
from fastnn.native import dilated, direct, fft, grouped, winograd
from fastnn.native.pixels import patches_conv, patches_weight_grad, pointwise_conv, pointwise_input_grad

np.import_array()

__all__ = ["conv", "conv_channel_sum", "conv_input_grad", "conv_weight_grad"]

# Depth (taps x channels) of a block: 144 to 1024 are within 4 % of each other.
cdef ptrdiff_t DEPTH_BLOCK = 320
# Backward-weights is cut into this many tasks, so that a single small image still occupies all threads.
cdef ptrdiff_t ENOUGH_TASKS = 64
# Backward-weights: bytes of partial sums at most, of so much of the depth at a time, and pixels of each at least.
cdef ptrdiff_t PARTIAL_BYTES = 8 << 20
cdef ptrdiff_t PARTIAL_PIXELS = 768
# and depth of a task at least: each packs the gradient again.
cdef ptrdiff_t LEAST_DEPTH = 32
# Bytes of one pixel's gradients, or products, at most: more output channels are taken by parts of at least so many.
cdef ptrdiff_t ROWS_BYTES = 16 << 10
cdef ptrdiff_t LEAST_ROWS = 256
# Backward-data: bytes of packed weights at most, or of those of a few rows.
cdef ptrdiff_t PACKED_BYTES = 8 << 20
# Long filters have large tables of patches: fewer panels a tile then.
cdef ptrdiff_t SCRATCH_BYTES = 4 << 20
# So few pixels (of all images) have ways of their own in both parts of backward, for packing weights, or sorting their
# gradients, costs as much as the product.
cdef ptrdiff_t FEW_PIXELS = 400
# spread() takes images of so many pixels at most, together so many, and so many weights in one task. Blocks of its
# depth, output channels, stay small: their rows of weights are far apart.
cdef ptrdiff_t SPREAD_IMAGE = 4096
cdef ptrdiff_t SPREAD_PIXELS = 800
cdef ptrdiff_t SPREAD_BYTES = 8 << 20
cdef ptrdiff_t SPREAD_DEPTH = 128
cdef ptrdiff_t TASK_WEIGHTS = 144
# Bytes of arrays that are copied at a time, where an algorithm does not take them as they stand.
cdef ptrdiff_t COPY_BYTES = 4 << 20
# Bytes of outputs that are summed up at a time, about: the sums of their parts take up to 3 % of it.
cdef ptrdiff_t STATISTICS_BYTES = 32 << 20
# Pixels of channels-last arrays that are summed up together.
cdef ptrdiff_t SUM_PIXELS = 256
cdef double FLOP_PER_NANOSECOND = 40.0


cdef ptrdiff_t product(tuple sizes):
    cdef ptrdiff_t result = 1
    for size in sizes:
        result *= size
    return result


cdef struct weight_view:
    # One group's weights as the matrix of the product: row, channel and tap to an element.
    const char *data
    ptrdiff_t group_stride
    ptrdiff_t row_stride
    ptrdiff_t channel_stride


cdef struct plane_view:
    # An array of images: where a group's first channel starts.
    char *data
    ptrdiff_t group_stride


cdef ptrdiff_t sum_unit(const conv_geometry *geometry, const conv_kernels *kernel, ptrdiff_t pixels,
                        ptrdiff_t depth_block, ptrdiff_t most, ptrdiff_t least):
    """How many pixels the sums of outputs are taken over by themselves, by the shape alone: whole tiles, but as small
    as many threads need."""
    while most > least and (ceil_div(pixels, most) < ENOUGH_TASKS
                            or kernel.scratch_size(geometry, depth_block, most) > SCRATCH_BYTES):
        most //= 2
    return most


cdef correlate(np.ndarray like, const conv_geometry *geometry, const ptrdiff_t *position, ptrdiff_t filter,
               weight_view weight, plane_view source, char *target, ptrdiff_t groups, ptrdiff_t rows,
               Epilogue epilogue, np.ndarray result):
    """target[n, k, p] = sum over taps and channels, through the epilogue, in tiles of pixels x rows; `target` is where
    the first output stands in `result`. Weights that are not in the depth's order already (position is NULL: all of the
    filter is) are packed first."""
    cdef const conv_kernels *kernel = kernels_for(like).conv
    cdef const gemm_kernels *tiles = kernels_for(like).gemm
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(like), channels = geometry.channels
    cdef ptrdiff_t depth = geometry.taps * channels
    cdef ptrdiff_t pixels = geometry.images * geometry.grid[0] * geometry.grid[1] * geometry.grid[2]
    cdef ptrdiff_t blocks = max(1, ceil_div(depth, DEPTH_BLOCK)), depth_block = ceil_div(depth, blocks)
    cdef ptrdiff_t padded_rows = ceil_div(rows, tiles.row_tile) * tiles.row_tile
    cdef ptrdiff_t pixel_tile = kernel.tile_panels * tiles.column_tile, row_tile = padded_rows
    cdef ptrdiff_t task, group, pixel_tiles, row_tiles, pixel_start, row_start, start
    if pixels == 0 or rows == 0:
        epilogue.over(0, result)
        return
    cdef int threads = threads_for(groups * (2.0 * rows / FLOP_PER_NANOSECOND + 0.3) * depth * pixels)
    cdef ptrdiff_t enough_tasks = 1 if threads == 1 else 4 * threads
    depth_block = max(1, depth_block)
    cdef ptrdiff_t squares = geometry.taps * kernel.lanes
    if geometry.in_pixel_stride > 1 and depth_block < depth and squares <= DEPTH_BLOCK:
        depth_block = ceil_div(depth_block, squares) * squares
    # Few pixels are packed once for all threads. More are gathered again for each tile of rows, so there are no more of
    # those than the threads need.
    cdef ptrdiff_t padded_pixels = ceil_div(pixels, tiles.column_tile) * tiles.column_tile
    cdef ptrdiff_t shared_bytes = padded_pixels * depth * itemsize
    cdef bint shared = threads > 1 and pixels <= pixel_tile and groups * shared_bytes <= SCRATCH_BYTES
    cdef ptrdiff_t unit = tiles.column_tile
    if epilogue.statistics:
        unit = sum_unit(geometry, kernel, groups * pixels, depth_block, pixel_tile, tiles.column_tile)
    while pixel_tile > unit and not shared and (
            groups * ceil_div(pixels, pixel_tile) < enough_tasks
            or kernel.scratch_size(geometry, depth_block, pixel_tile) > SCRATCH_BYTES):
        pixel_tile //= 2
    pixel_tiles = ceil_div(pixels, pixel_tile)
    cdef ptrdiff_t fewest_rows = tiles.row_tile if shared else 4 * tiles.row_tile
    while row_tile > fewest_rows and (
            groups * pixel_tiles * ceil_div(rows, row_tile) < enough_tasks
            or geometry.out_channel_stride == 1 and row_tile * pixel_tile * itemsize > SCRATCH_BYTES):
        row_tile = ceil_div(row_tile, 2 * tiles.row_tile) * tiles.row_tile
    row_tiles = ceil_div(rows, row_tile)

    cdef ptrdiff_t pack_tiles = ceil_div(rows, tiles.row_tile)
    cdef int pack_threads = threads_for(0.2 * groups * filter * channels * padded_rows)
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(geometry, depth_block, pixel_tile)
    if geometry.out_channel_stride == 1:
        scratch_bytes += row_tile * pixel_tile * itemsize + 64  # products, before they are stored; where a line begins
    cdef ptrdiff_t packed_bytes = depth * padded_rows * itemsize
    cdef Block place_memory = scratch(filter * sizeof(ptrdiff_t))
    cdef ptrdiff_t *place = <ptrdiff_t *> place_memory.data
    for task in range(filter):
        place[task] = -1
    if position != NULL:
        for task in range(geometry.taps):
            place[position[task]] = task
    cdef Block packed_memory = scratch(0 if position == NULL else groups * packed_bytes)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef Block shared_memory = scratch(groups * shared_bytes if shared else 0)
    cdef char *pixels_packed = <char *> shared_memory.data
    cdef char *packed = <char *> packed_memory.data
    cdef const char *weights = weight.data if position == NULL else packed
    cdef ptrdiff_t group_bytes = weight.group_stride * itemsize if position == NULL else packed_bytes
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const conv_epilogue *values = epilogue.over(ceil_div(pixels, unit), result)
    cdef ptrdiff_t panels = ceil_div(pixels, tiles.column_tile)
    # The tile that a thread is likely to take next.
    cdef ptrdiff_t pixels_ahead = threads * pixel_tile if row_tiles == 1 else 0
    with nogil:
        for task in prange(0 if position == NULL else groups * pack_tiles, num_threads=pack_threads, schedule="static"):
            group = task // pack_tiles
            kernel.pack_weight(
                weight.data + group * weight.group_stride * itemsize, weight.row_stride, weight.channel_stride, place,
                geometry.taps, filter, channels, rows, task % pack_tiles * tiles.row_tile, depth_block,
                packed + group * packed_bytes)
        for task in prange(groups * blocks * panels if shared else 0, num_threads=threads, schedule="static"):
            group = task // (blocks * panels)
            start = task // panels % blocks * depth_block
            pixel_start = task % panels * tiles.column_tile
            if start < depth:
                kernel.pack_panel(geometry, source.data + group * source.group_stride * itemsize, pixel_start,
                                  min(tiles.column_tile, pixels - pixel_start), start, min(depth_block, depth - start),
                                  pixels_packed + group * shared_bytes + start * padded_pixels * itemsize,
                                  thread_scratch + threadid() * scratch_bytes)
        for task in prange(groups * pixel_tiles * row_tiles, num_threads=threads, schedule="dynamic"):
            group = task // (pixel_tiles * row_tiles)
            pixel_start = task % (pixel_tiles * row_tiles) // row_tiles * pixel_tile
            row_start = task % row_tiles * row_tile
            kernel.tile(
                geometry, source.data + group * source.group_stride * itemsize, weights + group * group_bytes,
                weight.row_stride if position == NULL else 0, group, rows, depth_block,
                pixel_start, min(pixel_tile, pixels - pixel_start), pixels_ahead,
                pixels_packed + group * shared_bytes if shared else NULL, row_start, min(row_tile, rows - row_start),
                values, unit // tiles.column_tile, target, thread_scratch + threadid() * scratch_bytes)


cdef bint spread_gains(ptrdiff_t images, ptrdiff_t positions, ptrdiff_t results, ptrdiff_t out_channels,
                       ptrdiff_t depth, ptrdiff_t phases, ptrdiff_t itemsize):
    """Whether spread() is faster than correlate(), which packs transposed weights, once per phase of the stride, and
    takes the product for each tap of each result, also where that sees no gradient.

    Measured on a Zen 4 core, float32, GFLOP/s of backward-data with AVX-512, AVX2:

    ============================  ===========  ===========
    (N, C, K, H, R, stride, pad)  spread       correlate
    ============================  ===========  ===========
    (1, 512, 512, 7, 3, 1, 1)      84   72      33   25
    (2, 512, 512, 7, 3, 1, 1)      92   86      46   40
    (8, 512, 512, 7, 3, 1, 1)      97   94      77   74
    (1, 64, 64, 20, 3, 1, 1)       78   70      83   71
    (1, 512, 512, 14, 3, 2, 1)     83   72      20   15
    (8, 64, 128, 56, 3, 2, 1)      88   80      70   70
    (1, 16, 32, 28, 3, 2, 1)       31   28      23   20
    (8, 64, 128, 56, 1, 2, 0)      64   49      30   37
    (1, 256, 512, 28, 1, 2, 0)     87   80      21   32
    ============================  ===========  ===========
    """
    if positions > SPREAD_IMAGE or positions * out_channels * itemsize > SPREAD_BYTES:
        return False
    if phases > 1 or results >= 3 * positions:
        return depth >= 16
    return images * positions <= min(FEW_PIXELS, 4 * depth)


cdef spread(np.ndarray grad, conv_phase *phases, ptrdiff_t count, ptrdiff_t filter, weight_view weight,
            plane_view source, plane_view target, ptrdiff_t groups, ptrdiff_t rows, const char *bias):
    """Backward-data like all phases of correlate(), but every weight meets all pixels of a block of images where it
    lies, and only then the taps are added up."""
    cdef const conv_kernels *kernel = kernels_for(grad).conv
    cdef const conv_backward_kernels *backward = kernels_for(grad).conv_backward
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(grad), column_tile = kernels_for(grad).gemm.column_tile
    cdef ptrdiff_t no_tap[3]
    no_tap[:] = [0, 0, 0]
    cdef conv_geometry geometry = phases[0].geometry
    cdef ptrdiff_t i, task, group, start, pixel, panels, depth = geometry.channels, images = geometry.images, image = 0
    for i in range(3):
        geometry.grid[i] = geometry.in_size[i]
    geometry.taps = 1
    geometry.tap = no_tap
    cdef ptrdiff_t positions = geometry.grid[0] * geometry.grid[1] * geometry.grid[2]
    if images * positions == 0 or rows == 0:
        return
    cdef ptrdiff_t most = min(SPREAD_PIXELS, SPREAD_BYTES // (max(1, groups * depth) * itemsize))
    cdef ptrdiff_t together = min(images, max(1, most // positions)), pixels = together * positions
    geometry.images = together
    for i in range(count):
        phases[i].geometry.images = together
        phases[i].geometry.in_image_stride = positions  # the product's images follow one another
        phases[i].geometry.in_pixel_stride = 1
    cdef int threads = threads_for(groups * (2.0 * depth / FLOP_PER_NANOSECOND + 0.3) * rows * filter * pixels)
    cdef ptrdiff_t block = max(1, min(rows, TASK_WEIGHTS // filter)), blocks
    while block > 1 and groups * ceil_div(rows, block) < 2 * threads and threads > 1:
        block = ceil_div(block, 2)
    blocks = ceil_div(rows, block)

    cdef ptrdiff_t depth_blocks = max(1, ceil_div(depth, SPREAD_DEPTH)), depth_block = ceil_div(depth, depth_blocks)
    cdef ptrdiff_t row_bytes = ceil_div(pixels, column_tile) * column_tile * itemsize
    cdef ptrdiff_t scratch_bytes = max(
        kernel.pack_scratch_size(&geometry),
        backward.input_scratch_size(phases, count, pixels, depth_block, block * filter))
    cdef Block packed_memory = scratch(groups * depth * row_bytes), thread_memory = scratch(threads * scratch_bytes)
    cdef char *packed = <char *> packed_memory.data
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const char *first
    cdef char *output
    with nogil:
        while image < images:
            geometry.images = min(together, images - image)
            for i in range(count):
                phases[i].geometry.images = geometry.images
            pixels = geometry.images * positions
            row_bytes = ceil_div(pixels, column_tile) * column_tile * itemsize
            first = source.data + image * geometry.in_image_stride * itemsize
            output = target.data + image * geometry.out_image_stride * itemsize
            panels = ceil_div(pixels, column_tile)
            for task in prange(groups * depth_blocks * panels, num_threads=threads, schedule="static"):
                group = task // (depth_blocks * panels)
                start = task // panels % depth_blocks * depth_block
                pixel = task % panels * column_tile
                if start < depth:
                    kernel.pack_panel(&geometry, first + group * source.group_stride * itemsize, pixel,
                                      min(column_tile, pixels - pixel), start, min(depth_block, depth - start),
                                      packed + (group * depth + start) * row_bytes,
                                      thread_scratch + threadid() * scratch_bytes)
            for task in prange(groups * blocks, num_threads=threads, schedule="dynamic"):
                group = task // blocks
                start = task % blocks * block
                backward.input_tile(
                    phases, count, packed + group * depth * row_bytes, pixels, depth, depth_block,
                    weight.data + group * weight.group_stride * itemsize, weight.channel_stride, filter,
                    start, min(block, rows - start), bias + group * rows * itemsize if bias != NULL else NULL,
                    output + group * target.group_stride * itemsize, thread_scratch + threadid() * scratch_bytes)
            image = image + together


cdef ptrdiff_t fill_taps(list taps, tuple kernel, ptrdiff_t *tap, ptrdiff_t *position) except -1:
    """Writes where the taps stand in the image, [T][3], and where in the filter, [T], for all combinations of the three
    dimensions' taps; returns T."""
    cdef ptrdiff_t done = 0, height = kernel[1], width = kernel[2]
    for z, position_z in taps[0]:
        for y, position_y in taps[1]:
            for x, position_x in taps[2]:
                tap[3 * done], tap[3 * done + 1], tap[3 * done + 2] = position_z, position_y, position_x
                position[done] = (z * height + y) * width + x
                done += 1
    return done


cdef class Geometry:
    """A convolution of images of some shape, and its taps. Made once per shape, and not changed any more then."""
    cdef conv_geometry values
    cdef Block taps

    def __init__(self, tuple in_shape, tuple out_size, tuple kernel, tuple stride, tuple padding, tuple dilation,
                 ptrdiff_t groups, ptrdiff_t out_channels, bint in_last, bint out_last):
        """in_shape is (N, C, D, H, W), padding the zeros before each dimension, in_last and out_last whether input and
        output have their channels last."""
        cdef conv_geometry *geometry = &self.values
        cdef ptrdiff_t taps = product(kernel), in_plane = product(in_shape[2:]), out_plane = product(out_size)
        cdef ptrdiff_t out_pixel = out_channels if out_last else 1
        self.taps = scratch(4 * taps * sizeof(ptrdiff_t))
        cdef ptrdiff_t *tap = <ptrdiff_t *> self.taps.data
        geometry.images = in_shape[0]
        geometry.channels = in_shape[1] // groups
        geometry.in_channel_stride = 1 if in_last else in_plane
        geometry.in_pixel_stride = in_shape[1] if in_last else 1
        geometry.in_image_stride = in_shape[1] * in_plane
        geometry.out_channel_stride = 1 if out_last else out_plane
        geometry.out_image_stride = out_channels * out_plane
        for i in range(3):
            geometry.in_size[i] = in_shape[2 + i]
            geometry.grid[i] = out_size[i]
            geometry.stride[i] = stride[i]
        geometry.out_stride[0] = out_size[1] * out_size[2] * out_pixel
        geometry.out_stride[1] = out_size[2] * out_pixel
        geometry.out_stride[2] = out_pixel
        geometry.taps = taps
        geometry.tap = tap
        fill_taps([forward_taps(kernel[i], padding[i], dilation[i]) for i in range(3)], kernel, tap, tap + 3 * taps)


@lru_cache(maxsize=64)
def forward_geometry(in_shape, out_size, kernel, stride, padding, dilation, groups, out_channels, in_last, out_last):
    # the image as it lies is a single row
    if in_shape[2:] == out_size and product(kernel) == 1 and max(stride) == 1 and max(padding) == 0:
        in_shape, out_size = in_shape[:2] + (product(out_size),), (product(out_size),)
        kernel = stride = dilation = (1,)
        padding = (0,)
    return Geometry(in_shape[:2] + three(in_shape[2:], 1), three(out_size, 1), three(kernel, 1), three(stride, 1),
                    three(padding, 0), three(dilation, 1), groups, out_channels, in_last, out_last)


cdef str algorithm(str operation, np.ndarray source, layout, ptrdiff_t out_channels, out_size, kernel, stride, dilation,
                   ptrdiff_t groups):
    return choose(operation, source.shape[0], source.shape[1], out_channels, out_size, kernel, stride, dilation, groups,
                  kernels_for(source).conv.lanes, layout, np.PyArray_ITEMSIZE(source))


cdef bint dilates(str by, dilation):
    """Whether this algorithm, which knows no dilation, computes its phases."""
    return by in ("winograd", "fft") and max(dilation) > 1


cdef str layout_of(np.ndarray x):
    return "last" if is_channels_last(x) else "first"


cdef bint takes_last(str by, np.ndarray like, ptrdiff_t channels, ptrdiff_t out_channels, ptrdiff_t groups, kernel):
    """Whether this algorithm takes arrays with channels last as they stand, from so many of a group to so many.

    Matrix products transpose squares of channels and pixels, for each tap, and Winograd's algorithm has output channels
    in the lanes: with less than half a vector of them, copies take less time.
    """
    cdef ptrdiff_t lanes = kernels_for(like).conv.lanes
    if by in ("patches", "grouped"):
        return True
    if by == "im2col":
        return product(tuple(kernel)) == 1 or 2 * min(channels, out_channels) >= lanes
    if by == "winograd":
        return 2 * out_channels >= lanes
    return groups == 1


cdef bint is_pointwise(np.ndarray like, np.ndarray weight, out_size, stride, padding, ptrdiff_t groups):
    """Whether an array with channels last is the matrix of the product as it stands, and has pixels enough to pack the
    weights for."""
    return (product((<object> weight).shape[2:]) == 1 and groups == 1 and max(padding) == 0
            and like.shape[0] * product(tuple(out_size)) > FEW_PIXELS)


cdef list copied_parts(np.ndarray x, np.ndarray y, ptrdiff_t groups):
    """(images, channels of the input x, channels of the output y), slices of arrays which are copied, and computed with
    channels first, at a time. By the shapes alone: some images, or some groups of one."""
    cdef ptrdiff_t images = x.shape[0], in_group = x.shape[1] // groups, out_group = y.shape[1] // groups, image, group
    cdef ptrdiff_t image_bytes = max(1, (x.nbytes + y.nbytes) // max(1, images)), end
    cdef ptrdiff_t some = ceil_div(images, max(1, ceil_div(images, max(1, COPY_BYTES // image_bytes))))
    cdef ptrdiff_t together = ceil_div(groups, min(groups, ceil_div(image_bytes, COPY_BYTES)))
    cdef list parts = []
    for image in range(0, images, max(1, some)):
        for group in range(0, groups, together):
            end = min(group + together, groups)
            parts.append((slice(image, image + some), slice(group * in_group, end * in_group),
                          slice(group * out_group, end * out_group)))
    return parts


cdef ptrdiff_t groups_of(slice channels, ptrdiff_t group_size):
    """Groups of so many channels in a slice."""
    return (channels.stop - channels.start) // group_size


cdef bint copies_much(np.ndarray x):
    """Whether a copy of x, which does not stand in either layout, is made part by part."""
    return not stands(x) and x.nbytes > COPY_BYTES


cdef put_part(np.ndarray part, object target):
    """target[...] = part, where part is contiguous and target some images, or channels of them."""
    if is_channels_last(target):
        copy_pixels(part, target, False)
    else:
        target[...] = part


cdef ptrdiff_t images_together(np.ndarray x, np.ndarray y, residual, bint statistics):
    """How many images are computed at a time, by shapes and strides alone: all, unless copies of x or of the residual,
    or the sums' parts, would take much memory."""
    cdef ptrdiff_t images = x.shape[0], copied = 0 if stands(x) else x.nbytes, parts = 1
    if residual is not None and not (stands(residual) and is_channels_last(residual) == is_channels_last(y)):
        copied += residual.nbytes
    parts = max(1, ceil_div(copied, COPY_BYTES))
    if statistics:
        parts = max(parts, <ptrdiff_t> y.nbytes // STATISTICS_BYTES)
    return max(1, ceil_div(images, parts))


cdef tuple seen_part(in_size, out_size, kernel, stride, padding, dilation):
    """(index of a part of the weights, padding before the image) without the taps at either end of a dimension that no
    output has inside the image, which many are where a small image has much padding; None if all of them are needed."""
    cdef ptrdiff_t inside, outputs, taps, before, gap, step, first, end, i
    cdef list sides = [slice(None), slice(None)], paddings = []
    for i in range(len(kernel)):
        inside, outputs, taps = in_size[i], out_size[i], kernel[i]
        before, gap, step = padding[i], dilation[i], stride[i]
        if inside == 0 or outputs == 0 or taps == 0:
            return None
        first = min(ceil_div(max(0, before - (outputs - 1) * step), gap), before // gap)
        end = min(taps, (inside - 1 + before) // gap + 1)
        if first >= end - (before > first * gap):  # no tap, or only one that may be beside the image
            first, end = 0, taps
        sides.append(slice(first, end))
        paddings.append(before - first * gap)
    return tuple(sides), tuple(paddings)


cdef tuple seen_weights(in_size, out_size, kernel, stride, padding, dilation):
    """seen_part(), or at once None where no tap of any dimension is beside all images: of most convolutions."""
    for i in range(len(kernel)):
        if (padding[i] > (out_size[i] - 1) * stride[i]
                or (kernel[i] - 1) * dilation[i] - padding[i] >= in_size[i]):
            break
    else:
        return None
    part = seen_part(in_size, out_size, kernel, stride, padding, dilation)
    if part is None or all(side.stop - side.start == size for side, size in zip(part[0][2:], kernel)):
        return None
    return part


def conv(np.ndarray x, np.ndarray weight, bias, out_size, stride, padding, dilation, ptrdiff_t groups, residual=None,
         double slope=1, bint statistics=False, kept=None):
    """y of shape (N, K, *out_size) from x (N, C, *in) and weight (K, C / groups, *kernel), through an epilogue. `kept`
    are KeptWeights: what an algorithm makes of the weights stays there for the next call."""
    cdef ptrdiff_t out_channels = weight.shape[0], image
    cdef tuple kernel = (<object> weight).shape[2:]
    cdef tuple needed = seen_weights((<object> x).shape[2:], out_size, kernel, stride, padding, dilation)
    if needed is not None:
        return conv(x, (<object> weight)[needed[0]], bias, out_size, stride, needed[1], dilation, groups, residual,
                    slope, statistics)
    cdef str by = algorithm("conv", x, layout_of(x), out_channels, out_size, kernel, stride, dilation, groups)
    if dilates(by, dilation):
        if not statistics or dilated.phases_fill(out_size, dilation):
            return dilated.conv(x, weight, bias, out_size, padding, dilation, residual, slope, statistics, kept, conv)
        by = "im2col"
    cdef Epilogue epilogue
    cdef ptrdiff_t rows = out_channels // groups
    if is_channels_last(x) and not takes_last(by, x, weight.shape[1], rows, groups, kernel):
        return conv_by_parts(x, weight, bias, out_size, stride, padding, dilation, groups, residual, slope, statistics)
    cdef np.ndarray y = empty_in_layout(x, (x.shape[0], out_channels, *out_size)), sums
    cdef ptrdiff_t together = images_together(x, y, residual, statistics)
    cdef bint last = is_channels_last(x)  # of an array with gaps, a single image may stand otherwise than y
    if together >= x.shape[0]:
        epilogue = Epilogue(bias, residual, slope, statistics, out_channels)
        fill(by, x if last else contiguous(x), weight, epilogue, y, stride, padding, dilation, groups, kept)
        return epilogue.result(y)
    sums = np.zeros((2, out_channels))
    for image in range(0, x.shape[0], together):
        images = slice(image, image + together)
        epilogue = Epilogue(bias, None if residual is None else residual[images], slope, statistics, out_channels)
        part = (<object> y)[images]
        some = (<object> x)[images]
        fill(by, some if last else contiguous(some), weight, epilogue, part, stride, padding, dilation, groups, kept)
        if statistics:
            sums += epilogue.result(part)[1:]
    return (y, sums[0], sums[1]) if statistics else y


cdef fill(str by, np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride, padding, dilation,
          ptrdiff_t groups, kept):
    """conv() of an array that stands into y, which stands like it, by this algorithm."""
    cdef ptrdiff_t rows = weight.shape[0] // groups, taps
    cdef tuple out_size = (<object> y).shape[2:]
    cdef bint last = is_channels_last(x)
    cdef tuple kernel = (<object> weight).shape[2:]
    if by == "patches":
        return patches_conv(x, weight, epilogue, y, stride, padding)
    if by == "winograd":
        return winograd.conv(x, weight, epilogue, y, stride[0], padding, kept)
    if by == "fft":
        return fft.conv(x, weight, epilogue, y, stride[0], padding)
    if by == "grouped":
        return grouped.conv(x, weight, epilogue, y, stride, padding, dilation, groups)
    if by == "direct":
        return direct.conv(x, weight, epilogue, y, stride, padding, dilation, groups)
    if last and is_pointwise(x, weight, out_size, stride, padding, groups):
        return pointwise_conv(x, weight, epilogue, y, stride)
    weight = contiguous(weight)
    cdef Geometry made = forward_geometry((<object> x).shape, out_size, kernel, stride, padding, dilation, groups,
                                          weight.shape[0], last, last)
    cdef const conv_geometry *geometry = &made.values
    taps = geometry.taps
    correlate(
        x, geometry, NULL, taps,
        weight_view(np.PyArray_BYTES(weight), rows * geometry.channels * taps, geometry.channels * taps, taps),
        plane_view(np.PyArray_BYTES(x), geometry.channels * geometry.in_channel_stride),
        np.PyArray_BYTES(y), groups, rows, epilogue, y)


cdef conv_by_parts(np.ndarray x, np.ndarray weight, bias, out_size, stride, padding, dilation, ptrdiff_t groups,
                   residual, double slope, bint statistics):
    """conv() of an array with channels last by way of copies, part by part."""
    cdef np.ndarray y = empty_channels_last((x.shape[0], weight.shape[0], *out_size), np.PyArray_TYPE(x))
    sums = np.zeros((2, weight.shape[0]))
    for images, ins, outs in copied_parts(x, y, groups):
        part = conv(contiguous((<object> x)[images, ins]), (<object> weight)[outs],
                    None if bias is None else bias[outs], out_size, stride, padding, dilation,
                    groups_of(ins, weight.shape[1]),
                    None if residual is None else residual[images, outs], slope, statistics)
        if statistics:
            sums[:, outs] += part[1:]
            part = part[0]
        put_part(part, (<object> y)[images, outs])
    return (y, sums[0], sums[1]) if statistics else y


cdef correlate_by_parts(np.ndarray grad, const conv_phase *phase, ptrdiff_t filter, weight_view weight,
                        plane_view source, plane_view target, ptrdiff_t groups, ptrdiff_t rows, bias,
                        np.ndarray result):
    """correlate() with a bias for some of the rows at a time, so that their packed weights stay small."""
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(grad), group, row, start
    cdef ptrdiff_t depth_bytes = max(1, phase.geometry.taps * phase.geometry.channels * itemsize)
    cdef ptrdiff_t row_tile = kernels_for(grad).gemm.row_tile, together
    cdef weight_view some = weight
    if groups * ceil_div(rows, row_tile) * row_tile * depth_bytes <= PACKED_BYTES:
        correlate(grad, &phase.geometry, phase.position, filter, weight, source, target.data, groups, rows,
                  Epilogue(bias, None, 1, False, rows * groups), result)
        return
    together = max(1, PACKED_BYTES // depth_bytes // row_tile) * row_tile
    for group in range(groups):
        for row in range(0, rows, together):
            start = group * rows + row
            some.data = weight.data + (group * weight.group_stride + row * weight.row_stride) * itemsize
            part_bias = None if bias is None else bias[start:start + min(together, rows - row)]
            correlate(grad, &phase.geometry, phase.position, filter, some,
                      plane_view(source.data + group * source.group_stride * itemsize, 0),
                      target.data + start * phase.geometry.out_channel_stride * itemsize, 1,
                      min(together, rows - row), Epilogue(part_bias, None, 1, False, rows), result)


def conv_input_grad(np.ndarray grad, np.ndarray weight, bias, in_size, stride, padding, dilation, ptrdiff_t groups):
    """The gradient (N, C, *in_size) by the input of a convolution with output gradient `grad`; with a bias per input
    channel added it is a transposed convolution."""
    cdef ptrdiff_t rows = weight.shape[1], out_channels = weight.shape[0]
    cdef bint last = is_channels_last(grad)
    if grad.shape[0] * rows * product(tuple(in_size)) == 0:
        return empty_in_layout(grad, (grad.shape[0], rows * groups, *in_size))
    cdef tuple kernel = (<object> weight).shape[2:]
    cdef tuple needed = seen_weights(in_size, (<object> grad).shape[2:], kernel, stride, padding, dilation)
    if needed is not None:
        return conv_input_grad(grad, (<object> weight)[needed[0]], bias, in_size, stride, needed[1], dilation, groups)
    cdef str by = algorithm("conv_input_grad", grad, layout_of(grad) if stands(grad) else None, rows * groups, in_size,
                            kernel, stride, dilation, groups)
    if dilates(by, dilation):
        return dilated.conv_input_grad(grad, weight, bias, in_size, padding, dilation, conv_input_grad)
    if (last and not takes_last(by, grad, out_channels // groups, rows, groups, kernel)
            or copies_much(grad)):
        return input_grad_by_parts(grad, weight, bias, in_size, stride, padding, dilation, groups)
    epilogue = Epilogue(bias, None, 1, False, rows * groups)
    if by == "winograd":
        return winograd.conv_input_grad(grad, weight, epilogue, in_size, stride[0], padding)
    if by == "fft":
        return fft.conv_input_grad(grad, weight, epilogue, in_size, padding)
    if by == "grouped":
        return grouped.conv_input_grad(grad, weight, epilogue, in_size, stride, padding, dilation, groups)
    if by == "direct":
        return direct.conv_input_grad(grad, weight, epilogue, in_size, stride, padding, dilation, groups)
    if (last and max(stride) == 1 and tuple(in_size) == (<object> grad).shape[2:]
            and is_pointwise(grad, weight, in_size, stride, padding, groups)):
        return pointwise_input_grad(grad, weight, epilogue)
    weight = contiguous(weight)
    grad = either_layout(grad)
    cdef ptrdiff_t grad_pixel = out_channels if last else 1, pixel = rows * groups if last else 1
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], rows * groups, *in_size))
    kernel = three(kernel, 1)
    cdef tuple grad_size = three((<object> grad).shape[2:], 1)
    cdef tuple size = three(in_size, 1)
    if size == grad_size and product(kernel) == 1 and max(stride) == 1 and max(padding) == 0:  # see forward_geometry()
        size = grad_size = (1, 1, product(size))
        padding = (0, 0, 0)
    cdef ptrdiff_t taps = product(kernel), plane = product(size), grad_plane = product(grad_size)
    cdef ptrdiff_t channel = 1 if last else plane, grad_channel = 1 if last else grad_plane
    cdef Block memory = scratch(4 * taps * sizeof(ptrdiff_t))
    cdef ptrdiff_t *tap = <ptrdiff_t *> memory.data
    cdef ptrdiff_t *position = tap + 3 * taps
    stride, padding, dilation = three(stride, 1), three(padding, 0), three(dilation, 1)
    cdef list starts = list(np.ndindex(*[min(stride[i], size[i]) for i in range(3)]))
    cdef Block phase_memory = scratch(len(starts) * sizeof(conv_phase))
    cdef conv_phase *phases = <conv_phase *> phase_memory.data
    cdef conv_phase *phase = phases
    cdef ptrdiff_t i, done = 0
    for start in starts:
        phase.target = ((start[0] * <ptrdiff_t> size[1] + start[1]) * <ptrdiff_t> size[2] + start[2]) * pixel
        phase.geometry.images = grad.shape[0]
        phase.geometry.channels = out_channels // groups
        phase.geometry.in_channel_stride = grad_channel
        phase.geometry.in_pixel_stride = grad_pixel
        phase.geometry.in_image_stride = out_channels * grad_plane
        phase.column = start[2]
        phase.geometry.out_channel_stride = channel
        phase.geometry.out_image_stride = rows * groups * plane
        for i in range(3):
            phase.geometry.in_size[i] = grad_size[i]
            phase.geometry.stride[i] = 1
            phase.geometry.out_stride[i] = stride[i] * product(size[i + 1:]) * pixel
            phase.geometry.grid[i] = ceil_div(<ptrdiff_t> size[i] - <ptrdiff_t> start[i], <ptrdiff_t> stride[i])
        seen = [phase_taps(start[i], kernel[i], stride[i], padding[i], dilation[i]) for i in range(3)]
        phase.geometry.tap = tap + 3 * done
        phase.position = position + done
        phase.geometry.taps = fill_taps(seen, kernel, tap + 3 * done, position + done)
        done += phase.geometry.taps
        phase += 1
    cdef weight_view weights = weight_view(np.PyArray_BYTES(weight), out_channels // groups * rows * taps, taps,
                                           rows * taps)
    cdef plane_view source = plane_view(np.PyArray_BYTES(grad), out_channels // groups * grad_channel)
    cdef plane_view target = plane_view(np.PyArray_BYTES(result), rows * channel)
    if spread_gains(grad.shape[0], grad_plane, plane, out_channels, out_channels // groups, len(starts),
                    np.PyArray_ITEMSIZE(grad)):
        if bias is not None:
            bias = contiguous(bias)
        spread(grad, phases, len(starts), taps, weights, source, target, groups, rows,
               NULL if bias is None else np.PyArray_BYTES(bias))
        return result
    for i in range(len(starts)):
        target.data = np.PyArray_BYTES(result) + phases[i].target * np.PyArray_ITEMSIZE(result)
        correlate_by_parts(grad, &phases[i], taps, weights, source, target, groups, rows, bias, result)
    return result


cdef np.ndarray input_grad_by_parts(np.ndarray grad, np.ndarray weight, bias, in_size, stride, padding, dilation,
                                    ptrdiff_t groups):
    """conv_input_grad() by way of copies with channels first, part by part."""
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], weight.shape[1] * groups, *in_size))
    for images, ins, outs in copied_parts(result, grad, groups):
        part = conv_input_grad(contiguous((<object> grad)[images, outs]), (<object> weight)[outs],
                               None if bias is None else bias[ins], in_size, stride, padding, dilation,
                               groups_of(ins, weight.shape[1]))
        put_part(part, (<object> result)[images, ins])
    return result


cdef few_weight_grad(np.ndarray grad, np.ndarray x, const conv_geometry *geometry, ptrdiff_t groups,
                     np.ndarray result, double *bias_sums):
    """Backward-weights of few pixels: each weight's gradient is summed at once and stored where it belongs.

    GFLOP/s by this and by weight_tile(), whose sums are turned and added up afterwards (AVX-512, AVX2), 3x3:
    (1, 512, 512, 7) 89 96 and 45 57; (1, 256, 256, 8) 98 94 and 76 74; (1, 64, 64, 20) 81 73 and 82 77; for more pixels
    (2, 256, 512, 28) with stride 2 90 70 and 100 90.
    """
    cdef const conv_backward_kernels *kernel = kernels_for(x).conv_backward
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), column_tile = kernels_for(x).gemm.column_tile
    cdef ptrdiff_t rows = grad.shape[1] // groups, depth = geometry.taps * geometry.channels
    cdef ptrdiff_t pixels = geometry.images * geometry.grid[0] * geometry.grid[1] * geometry.grid[2]
    cdef np.ndarray by_channel = grad
    if geometry.images > 1 or not np.PyArray_IS_C_CONTIGUOUS(grad):  # the pixels of all images together
        by_channel = empty_of_shape((grad.shape[1], grad.shape[0], *(<object> grad).shape[2:]), np.PyArray_TYPE(x))
        by_channel[...] = grad.swapaxes(0, 1)
    cdef int threads = threads_for(groups * (2.0 * rows / FLOP_PER_NANOSECOND + 0.5) * depth * pixels)
    cdef ptrdiff_t block = ceil_div(DEPTH_BLOCK, column_tile) * column_tile
    while block > column_tile and groups * ceil_div(depth, block) < 4 * threads and threads > 1:
        block = ceil_div(block // 2, column_tile) * column_tile
    cdef ptrdiff_t blocks = ceil_div(depth, block), task, group, start
    cdef ptrdiff_t scratch_bytes = kernel.few_scratch_size(geometry)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(by_channel)
    cdef char *target = np.PyArray_BYTES(result)
    for task in prange(groups * blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        group = task // blocks
        start = task % blocks * block
        kernel.few_weight_tile(
            geometry, source + group * geometry.channels * geometry.in_channel_stride * itemsize,
            gradient + group * rows * pixels * itemsize, pixels, rows, start, min(block, depth - start),
            target + group * rows * depth * itemsize, depth, bias_sums + group * rows if start == 0 else NULL,
            thread_scratch + threadid() * scratch_bytes)


def conv_weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups,
                     bint bias_grad=False):
    """The gradient (K, C / groups, *kernel) by the weight, from the output's gradient and the input; and with
    `bias_grad` that by the bias (K,), which is summed up as the gradient is read for the weights, else None."""
    result, bias_sums = weight_grad(grad, x, kernel, stride, padding, dilation, groups, bias_grad)
    return result, bias_sums.sum(axis=0).astype(x.dtype) if bias_grad else None


cdef np.ndarray own_bias_sums(np.ndarray grad, bint bias_grad):
    """The bias_sums of weight_grad() in a pass of their own."""
    return conv_channel_sum(grad)[None].astype(np.float64) if bias_grad else np.zeros((1, grad.shape[1]))


cdef tuple weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups,
                       bint bias_grad):
    """The gradient by the weight, and sums of the output's gradient, (parts, K) in float64: zeros where they would cost
    time that nobody asks for."""
    cdef np.ndarray result, bias_sums
    cdef tuple in_size = (<object> x).shape[2:], out_size = (<object> grad).shape[2:]
    cdef tuple needed = seen_weights(in_size, out_size, kernel, stride, padding, dilation)
    if needed is not None:
        kernel_part = tuple([side.stop - side.start for side in needed[0][2:]])
        some, bias_sums = weight_grad(grad, x, kernel_part, stride, needed[1], dilation, groups, bias_grad)
        result = np.zeros((grad.shape[1], x.shape[1] // groups, *kernel), x.dtype)
        (<object> result)[needed[0]] = some
        return result, bias_sums
    if grad.shape[1] * np.PyArray_ITEMSIZE(grad) > ROWS_BYTES and grad.shape[1] > groups:
        return weight_grad_by_rows(grad, x, kernel, stride, padding, dilation, groups, bias_grad)
    cdef bint last = is_channels_last(x)
    cdef bint grad_last = is_channels_last(grad)
    cdef bint alike = last == grad_last or grad_last and x.shape[1] == 1
    cdef str layout = layout_of(grad) if stands(x) and stands(grad) and alike else None
    cdef str by = algorithm("conv_weight_grad", x, layout, grad.shape[1], out_size, kernel, stride, dilation, groups)
    if dilates(by, dilation):
        return dilated.conv_weight_grad(grad, x, tuple(kernel), padding, dilation, bias_grad, conv_weight_grad)
    if copies_much(x) or copies_much(grad) or (last or grad_last) and (
            not takes_last(by, x, x.shape[1] // groups, grad.shape[1] // groups, groups, kernel)
            or (last != grad_last and by not in ("im2col", "patches"))):
        return weight_grad_by_parts(grad, x, kernel, stride, padding, dilation, groups, bias_grad)
    if by == "patches":
        return patches_weight_grad(grad, x, tuple(kernel), stride, padding), own_bias_sums(grad, bias_grad)
    if by == "winograd":
        return winograd.conv_weight_grad(grad, x, tuple(kernel), stride[0], padding)
    if by == "fft":
        return fft.conv_weight_grad(grad, x, tuple(kernel), stride[0], padding)
    if by == "grouped":
        weights = grouped.conv_weight_grad(grad, x, tuple(kernel), stride, padding, dilation, groups)
        return weights, own_bias_sums(grad, bias_grad)
    if by == "direct":
        return direct.conv_weight_grad(grad, x, kernel, stride, padding, dilation, groups, bias_grad)
    x, grad = either_layout(x), either_layout(grad)
    cdef ptrdiff_t out_channels = grad.shape[1], rows = out_channels // groups
    result = empty_of_shape((out_channels, x.shape[1] // groups, *kernel), np.PyArray_TYPE(x))
    cdef Geometry made = forward_geometry((<object> x).shape, (<object> grad).shape[2:], kernel, stride, padding,
                                          dilation, groups, out_channels, last, grad_last)
    cdef const conv_geometry *geometry = &made.values
    cdef const conv_backward_kernels *kernels = kernels_for(x).conv_backward
    cdef ptrdiff_t row_tile = kernels_for(x).gemm.row_tile, column_tile = kernels_for(x).gemm.column_tile
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), lanes = kernels_for(x).conv.lanes
    cdef ptrdiff_t depth = geometry.taps * geometry.channels, row_length = ceil_div(rows, column_tile) * column_tile
    cdef ptrdiff_t pixels = geometry.images * geometry.grid[0] * geometry.grid[1] * geometry.grid[2]
    if pixels <= FEW_PIXELS:
        bias_sums = np.zeros((1, out_channels))
        if pixels == 0:
            result[...] = 0
        else:
            few_weight_grad(grad, x, geometry, groups, result, <double *> np.PyArray_DATA(bias_sums))
        return result, bias_sums

    # Tasks: blocks of the depth, times parts of the pixels; parts cost memory and a sum, so there are only as many as
    # needed, by shape alone. Blocks, which change no sum, are of whole tiles of channels under each tap; of large
    # weights, spans of them follow one another.
    cdef ptrdiff_t unit = (lanes if last else row_tile) * geometry.taps, least = ceil_div(LEAST_DEPTH, row_tile)
    if unit > DEPTH_BLOCK or geometry.channels < row_tile:
        unit = row_tile
    unit *= ceil_div(least * row_tile, unit)
    cdef ptrdiff_t blocks = ceil_div(depth, DEPTH_BLOCK)
    cdef ptrdiff_t depth_block = ceil_div(ceil_div(depth, blocks), unit) * unit
    blocks = ceil_div(depth, depth_block)
    cdef ptrdiff_t depth_bytes = groups * row_length * itemsize  # of a part's sums, for one in the depth
    cdef ptrdiff_t parts = max(1, min(ceil_div(ENOUGH_TASKS, blocks * groups), pixels // PARTIAL_PIXELS,
                                      PARTIAL_BYTES // (depth * depth_bytes)))
    cdef ptrdiff_t part_pixels = ceil_div(pixels, parts)
    parts = ceil_div(pixels, part_pixels)
    cdef int threads = threads_for(groups * (2.0 * rows / FLOP_PER_NANOSECOND + 0.5) * depth * pixels)
    cdef ptrdiff_t scratch_bytes = kernels.weight_scratch_size(geometry, rows)
    cdef ptrdiff_t room = max(1 << 20, min(PARTIAL_BYTES, (15 << 20) - scratch_bytes))
    while depth_block > unit and (
            parts * depth_block * depth_bytes > room
            or (groups * parts * ceil_div(depth, depth_block) < 4 * threads and threads > 1)):
        depth_block = ceil_div(depth_block, 2 * unit) * unit
    cdef ptrdiff_t span = max(1, room // (parts * depth_bytes * depth_block)) * depth_block, first, count
    span = min(span, depth)
    cdef ptrdiff_t part_stride = groups * span * row_length
    bias_sums = np.zeros((parts, out_channels))
    cdef double *sums = <double *> np.PyArray_DATA(bias_sums)
    cdef Block partial_memory = scratch(parts * part_stride * itemsize)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *partials = <char *> partial_memory.data
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(grad)
    cdef char *target = np.PyArray_BYTES(result)
    cdef ptrdiff_t task, group, part, start, bundles = ceil_div(rows, lanes)
    with nogil:
        first = 0
        while first < depth:
            count = min(span, depth - first)
            blocks = ceil_div(count, depth_block)
            for task in prange(groups * parts * blocks, num_threads=threads, schedule="dynamic"):
                group = task // (parts * blocks)
                part = task % (parts * blocks) // blocks
                start = task % blocks * depth_block
                kernels.weight_tile(
                    geometry, source + group * geometry.channels * geometry.in_channel_stride * itemsize,
                    gradient + group * rows * geometry.out_channel_stride * itemsize, rows,
                    part * part_pixels, min(part_pixels, pixels - part * part_pixels),
                    first + start, min(depth_block, count - start),
                    partials + (part * part_stride + (group * span + start) * row_length) * itemsize,
                    sums + part * out_channels + group * rows if bias_grad and first + start == 0 else NULL,
                    thread_scratch + threadid() * scratch_bytes)
            for task in prange(groups * bundles, num_threads=min(threads, threads_for(0.2 * parts * part_stride)),
                               schedule="static"):
                group = task // bundles
                start = task % bundles * lanes
                kernels.reduce_columns(
                    partials + (group * span * row_length + start) * itemsize, parts, part_stride, row_length,
                    count, min(lanes, rows - start),
                    target + ((group * rows + start) * depth + first) * itemsize, depth)
            first = first + span
    return result, bias_sums


cdef tuple weight_grad_by_rows(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups,
                               bint bias_grad):
    """weight_grad() of some output channels at a time: of some groups, or of a part of one."""
    cdef ptrdiff_t channels = x.shape[1] // groups, rows = grad.shape[1] // groups, group, first, end, start, stop
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(grad), row_bytes = channels * product(tuple(kernel)) * itemsize
    row_bytes = max(1, 2 * max(row_bytes, product((<object> grad).shape[2:]) * itemsize))
    cdef ptrdiff_t most = max(LEAST_ROWS, min(ROWS_BYTES // itemsize, COPY_BYTES // row_bytes))
    cdef ptrdiff_t together = max(1, most // rows)
    cdef np.ndarray result = empty_of_shape((grad.shape[1], channels, *kernel), np.PyArray_TYPE(x))
    cdef np.ndarray bias_sums = np.empty((1, grad.shape[1]))
    for group in range(0, groups, together):
        end = min(group + together, groups)
        for first in range(0, rows, min(most, rows)):
            start, stop = group * rows + first, (end - 1) * rows + min(first + most, rows)
            part, sums = weight_grad((<object> grad)[:, start:stop], (<object> x)[:, group * channels:end * channels],
                                     kernel, stride, padding, dilation, end - group, bias_grad)
            (<object> result)[start:stop] = part
            part = None
            (<object> bias_sums)[0, start:stop] = sums.sum(axis=0)
    return result, bias_sums


cdef tuple weight_grad_by_parts(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups,
                                bint bias_grad):
    """weight_grad() by way of copies with channels first, part by part; parts of the images are added up, of one group
    as many output channels at a time as have 4 MB of weights."""
    cdef np.ndarray result = np.zeros((grad.shape[1], x.shape[1] // groups, *kernel), x.dtype)
    cdef np.ndarray bias_sums = np.zeros((1, grad.shape[1]))
    cdef ptrdiff_t rows = max(16, COPY_BYTES // max(1, result.nbytes // max(1, grad.shape[1]))), in_part, start
    for images, ins, outs in copied_parts(x, grad, groups):
        some = contiguous((<object> x)[images, ins])
        in_part = groups_of(ins, result.shape[1])
        for start in range(outs.start, outs.stop, rows if in_part == 1 else max(1, outs.stop - outs.start)):
            of = slice(start, min(start + rows, outs.stop) if in_part == 1 else outs.stop)
            part, sums = weight_grad(contiguous((<object> grad)[images, of]), some, kernel, stride, padding, dilation,
                                     in_part, bias_grad)
            (<object> result)[of] += part
            part = None  # the memory of which the next one can have
            (<object> bias_sums)[0, of] += sums.sum(axis=0)
    return result, bias_sums


cdef np.ndarray last_channel_sum(np.ndarray x):
    """conv_channel_sum() of an array with channels last: of parts of the pixels, by shape alone, then of these."""
    cdef const conv_backward_kernels *kernel = kernels_for(x).conv_backward
    cdef ptrdiff_t channels = x.shape[1], pixels = x.shape[0] * x.shape[2] * x.shape[3]
    cdef ptrdiff_t parts = ceil_div(pixels, SUM_PIXELS), part, part_bytes = channels * np.PyArray_ITEMSIZE(x)
    cdef Block memory = scratch(parts * part_bytes)
    cdef char *partials = <char *> memory.data
    cdef const char *source = np.PyArray_BYTES(x)
    cdef np.ndarray sums = empty_of_shape((channels,), np.NPY_FLOAT64)
    for part in prange(parts, nogil=True, num_threads=threads_for(0.2 * channels * pixels), schedule="static"):
        kernel.pixel_sum(source + part * SUM_PIXELS * part_bytes, min(SUM_PIXELS, pixels - part * SUM_PIXELS), channels,
                         partials + part * part_bytes)
    kernels_for(x).conv.add_units(partials, parts, channels, <double *> np.PyArray_DATA(sums))
    return sums.astype(x.dtype)


def conv_channel_sum(np.ndarray x):
    """Sum over images and positions of each channel: the bias gradient."""
    if is_channels_last(x):
        return last_channel_sum(x)
    x = contiguous(x)
    cdef np.ndarray result = empty_of_shape((x.shape[1],), np.PyArray_TYPE(x))
    cdef const conv_backward_kernels *kernel = kernels_for(x).conv_backward
    cdef ptrdiff_t channels = x.shape[1], images = x.shape[0], positions = product((<object> x).shape[2:])
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), channel
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(result)
    for channel in prange(channels, nogil=True, num_threads=threads_for(0.2 * channels * images * positions),
                          schedule="static"):
        kernel.channel_sum(source + channel * positions * itemsize, images, channels * positions, positions,
                           target + channel * itemsize)
    return result

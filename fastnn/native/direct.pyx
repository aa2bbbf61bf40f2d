"""Convolutions of 1 and 2 dimensions from a copy of the image (csrc/direct.c): geometry, work split, scratch memory.

The arguments are those of conv.pyx's functions, which decide when. 1-D is 2-D of height 1; backward-data is a
convolution of the output's gradient per phase of the stride, see conv.pyx.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.geometry cimport forward_taps, phase_taps, two
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, direct_geometry, direct_kernels, direct_phase, direct_taps)
from fastnn.native.runtime cimport (
    Block, ceil_div, channels_last, contiguous, either_layout, empty_in_layout, empty_of_shape, is_channels_last,
    kernels_for, scratch, share, shares_for, take_task, threads_for)

from functools import lru_cache

import numpy as np

from fastnn.native.runtime import get_num_threads

np.import_array()

# Bytes of a copied band at most, where a row is not larger: it should stay in the second-level cache.
cdef ptrdiff_t BAND_BYTES = 512 << 10
# Bands are made smaller, down to so many positions, until there are this many tasks in backward-weights.
cdef ptrdiff_t ENOUGH_TASKS = 64
cdef ptrdiff_t LEAST_POSITIONS = 256
# Backward-weights: every task copies the image, so there are few, with many vectors of sums each; output channels per
# task at least, positions per partial sum at least, bytes of these at most.
cdef ptrdiff_t LEAST_TASKS = 8
cdef ptrdiff_t TASK_SUMS = 5000
cdef ptrdiff_t LEAST_CHANNELS = 8
cdef ptrdiff_t PARTIAL_POSITIONS = 2048
cdef ptrdiff_t PARTIAL_BYTES = 16 << 20
cdef double FLOP_PER_NANOSECOND = 60.0
# Multiply-adds of vectors in the time of transposing one, on its way into the copy or out to the result.
cdef double TRANSPOSE = 3.0


cdef class Plan:
    """A convolution of images of some shape: its geometry and, per phase of its outputs, the taps and where the copy
    has them. Made once per shape, for small layers take no longer, and not changed any more then."""
    cdef direct_geometry geometry
    cdef direct_phase *phase
    cdef ptrdiff_t phases, taps, filter_width, groups, rows
    cdef double nanoseconds  # not threads: another Python thread may set their number in between, or fork
    cdef const direct_kernels *kernel
    cdef Block phase_memory
    cdef Block tap_memory
    cdef Block offset_memory
    cdef Block order_memory

    def __init__(self, size_t table, tuple in_shape, bint last, ptrdiff_t groups, tuple stride, tuple kernel,
                 tuple out_shape, tuple out_stride, list phases):
        """phases: of each, the first output, the number of outputs, and the taps as lists of (index, image position
        under the first output), each as (down, across). out_shape: (K, height, width); table: of the kernels."""
        cdef direct_geometry *g = &self.geometry
        cdef tuple in_size = two(in_shape[2:], 1)
        cdef ptrdiff_t width = out_shape[2], channels = in_shape[1], step
        self.kernel = <const direct_kernels *> table
        self.groups, self.rows = groups, out_shape[0] // groups
        self.phases, self.taps, self.filter_width = len(phases), kernel[0] * kernel[1], kernel[1]
        g.images = in_shape[0]
        g.channels = channels // groups
        g.channels_last = last
        g.in_stride[1] = channels if g.channels_last else 1
        g.in_stride[0] = in_size[1] * g.in_stride[1]
        g.in_channel_stride = 1 if g.channels_last else in_size[0] * in_size[1]
        g.in_image_stride = channels * in_size[0] * in_size[1]
        step = out_shape[0] if g.channels_last else 1
        g.out_channel_stride = 1 if g.channels_last else out_shape[1] * width
        g.out_image_stride = out_shape[0] * out_shape[1] * width
        g.out_stride[0], g.out_stride[1] = out_stride[0] * width * step, out_stride[1] * step
        for i in range(2):
            positions = [position for _, _, taps in phases for _, position in taps[i]] or [0]
            g.in_size[i], g.stride[i] = in_size[i], stride[i]
            g.grid[i] = max([count[i] for _, count, _ in phases], default=0)
            g.first[i] = min(positions)
            g.reach[i] = max(positions) - g.first[i]

        self.phase_memory = scratch(max(1, self.phases) * sizeof(direct_phase))
        self.tap_memory = scratch(2 * self.phases * (kernel[0] + kernel[1]) * sizeof(ptrdiff_t))
        self.phase = <direct_phase *> self.phase_memory.data
        cdef ptrdiff_t *tap = <ptrdiff_t *> self.tap_memory.data
        cdef direct_phase *phase = self.phase
        cdef ptrdiff_t seen, axis, j
        for start, count, taps in phases:
            phase.target = (start[0] * width + start[1]) * step
            for axis in range(2):
                phase.grid[axis] = count[axis]
                seen = len(taps[axis])
                phase.taps[axis] = direct_taps(seen, tap, tap + seen)
                for j in range(seen):
                    tap[seen + j], tap[j] = taps[axis][j]
                    tap[j] -= g.first[axis]
                tap += 2 * seen
            phase += 1
        cdef double outputs = <double> g.images * g.grid[0] * g.grid[1]
        self.nanoseconds = (groups * outputs * (self.rows * 2.0 * self.taps / FLOP_PER_NANOSECOND + 1)
                            * g.channels)

    cdef ptrdiff_t widest_band(self):
        """Rows of outputs for which the copy still fits into the cache."""
        cdef direct_geometry *g = &self.geometry
        cdef ptrdiff_t one_row
        g.band = 1
        one_row = self.kernel.scratch_size(g)
        g.band = 2
        return 1 + (BAND_BYTES - one_row) // max(1, self.kernel.scratch_size(g) - one_row)

    cdef void interleave(self, bint across_rows):
        """Puts images into the lanes of the vectors, instead of neighbouring outputs, where that is estimated to need
        less work. Small outputs leave lanes of a vector empty, and every load is beside a cache line's start: images in
        the lanes have neither, but are transposed. See conv_algorithm.py for figures."""
        cdef direct_geometry *g = &self.geometry
        cdef ptrdiff_t lanes = self.kernel.lanes, height = g.grid[0], width = g.grid[1]
        cdef ptrdiff_t pitch = width + g.reach[1] // g.stride[1], vectors = height * ceil_div(width, lanes)
        cdef double depth = <double> g.channels * self.taps / max(1, self.phases), apart, together
        if across_rows:
            vectors = min(vectors, ceil_div((height - 1) * pitch + width, lanes))
        apart = g.images * vectors * (self.rows + 1) * (depth + 2)
        together = ceil_div(g.images, lanes) * height * width * (
            self.rows * depth + TRANSPOSE * (g.channels + self.rows))
        g.interleave = lanes
        if together >= apart or self.widest_band() < min(height, g.reach[0] // g.stride[0]):
            g.interleave = 1

    cdef void cut(self, ptrdiff_t most_positions, ptrdiff_t enough_tasks):
        """Sets the band: as large as the caches allow, while there are enough tasks, each with at least as many rows as
        two bands share. With the band the layout of the copy is settled, and the tables of offsets are filled."""
        cdef direct_geometry *g = &self.geometry
        cdef ptrdiff_t columns = max(1, g.grid[1] * g.interleave), i
        cdef ptrdiff_t widest = max(1, min(self.widest_band(), most_positions // columns))
        cdef ptrdiff_t least = max(ceil_div(LEAST_POSITIONS, columns), g.reach[0] // g.stride[0])
        cdef ptrdiff_t wanted = ceil_div(enough_tasks, max(1, self.batches() * self.groups))
        cdef ptrdiff_t *offset
        g.band = max(1, ceil_div(g.grid[0], max(ceil_div(g.grid[0], widest), min(wanted, g.grid[0] // least), 1)))
        self.offset_memory = scratch((g.channels * self.taps + self.kernel.spare_offsets) * sizeof(ptrdiff_t))
        offset = <ptrdiff_t *> self.offset_memory.data
        for i in range(self.phases):
            self.phase[i].offset = offset
            self.kernel.fill_offsets(g, self.phase + i, offset)
            offset += self.depth(i)
        for i in range(self.kernel.spare_offsets):  # a last tile repeats the last tap
            offset[i] = offset[-1] if offset != <ptrdiff_t *> self.offset_memory.data else 0

    cdef ptrdiff_t depth(self, ptrdiff_t phase) noexcept nogil:
        return self.geometry.channels * self.phase[phase].taps[0].count * self.phase[phase].taps[1].count

    cdef void set_order(self):
        """The depth of each channel and tap of a convolution, for weight_tile()."""
        cdef ptrdiff_t channels = self.geometry.channels, taps_x = self.phase.taps[1].count, c, y, x
        self.order_memory = scratch(channels * self.taps * sizeof(ptrdiff_t))
        cdef ptrdiff_t *order = <ptrdiff_t *> self.order_memory.data
        self.phase.order = order
        for c in range(channels):
            for y in range(self.phase.taps[0].count):
                for x in range(taps_x):
                    order[0] = (y * channels + c) * taps_x + x
                    order += 1

    cdef ptrdiff_t batches(self):
        return ceil_div(self.geometry.images, self.geometry.interleave)

    cdef Plan split_outputs(self, bint statistics):
        """For correlate()."""
        cdef direct_geometry *g = &self.geometry
        cdef int threads = threads_for(self.nanoseconds)
        self.interleave(True)
        # Bands are what statistics are summed up over by themselves, so they must not depend on the threads then.
        self.cut(g.grid[0] * g.grid[1] * g.interleave,
                 ENOUGH_TASKS if statistics else 1 if threads == 1 else 4 * threads)
        return self


cdef correlate(Plan plan, np.ndarray image, np.ndarray weight, ptrdiff_t group_stride, ptrdiff_t row_stride,
               ptrdiff_t channel_stride, Epilogue epilogue, np.ndarray result):
    """result[n, k, p] = sum over taps and channels, through the epilogue; the strides are those of the weights, in
    elements."""
    cdef const direct_geometry *g = &plan.geometry
    cdef const direct_kernels *kernel = plan.kernel
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(image), groups = plan.groups, rows = plan.rows, phases = plan.phases
    cdef ptrdiff_t padded_rows = ceil_div(rows, kernel.row_tile) * kernel.row_tile
    cdef int threads = threads_for(plan.nanoseconds)
    cdef ptrdiff_t bands = ceil_div(g.grid[0], g.band), batches = plan.batches()
    cdef ptrdiff_t packed_bytes = padded_rows * g.channels * plan.taps * itemsize
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(g)
    cdef Block packed_memory = scratch(groups * packed_bytes), thread_memory = scratch(threads * scratch_bytes)
    cdef const conv_epilogue *values = epilogue.over(batches * bands, result)
    cdef const char *weights = np.PyArray_BYTES(weight)
    cdef const char *source = np.PyArray_BYTES(image)
    cdef char *target = np.PyArray_BYTES(result)
    cdef char *packed = <char *> packed_memory.data
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef Block shares = shares_for(threads)
    cdef ptrdiff_t group, phase, batch, task, done, thread
    with nogil:
        for group in range(groups):
            done = 0
            for phase in range(phases):
                kernel.pack_weight(weights + group * group_stride * itemsize, row_stride, channel_stride,
                                   plan.filter_width, plan.phase + phase, g.channels, rows,
                                   packed + group * packed_bytes + done * padded_rows * itemsize)
                done += plan.depth(phase)
        for thread in prange(threads, num_threads=threads, schedule="static"):
            task = take_task(<share *> shares.data, thread, threads, groups * batches * bands)
            while task >= 0:
                batch = task // (groups * bands)
                group = task // bands % groups
                kernel.tile(
                    g, plan.phase, phases, source + group * g.channels * g.in_channel_stride * itemsize,
                    packed + group * packed_bytes, rows, group * rows, batch * g.interleave, task % bands * g.band,
                    values, target, thread_scratch + thread * scratch_bytes)
                task = take_task(<share *> shares.data, thread, threads, groups * batches * bands)


cdef Plan convolution(size_t table, tuple in_shape, bint last, tuple out_shape, kernel, stride, padding, dilation,
                      ptrdiff_t groups):
    cdef tuple size = two(out_shape[1:], 1)
    kernel, padding, dilation = two(kernel, 1), two(padding, 0), two(dilation, 1)
    taps = [forward_taps(kernel[d], padding[d], dilation[d]) for d in range(2)]
    return Plan(table, in_shape, last, groups, two(stride, 1), kernel, (out_shape[0], *size), (1, 1),
                [((0, 0), size, taps)])


@lru_cache(maxsize=64)
def forward_plan(table, in_shape, last, out_shape, kernel, stride, padding, dilation, groups, statistics, threads):
    return convolution(table, in_shape, last, out_shape, kernel, stride, padding, dilation,
                       groups).split_outputs(statistics)


@lru_cache(maxsize=64)
def input_grad_plan(table, grad_shape, last, out_shape, kernel, stride, padding, dilation, groups, threads):
    kernel, size = two(kernel, 1), two(out_shape[1:], 1)
    stride, padding, dilation = two(stride, 1), two(padding, 0), two(dilation, 1)
    phases = [
        (start, tuple([-(-(size[d] - start[d]) // stride[d]) for d in range(2)]),
         [phase_taps(start[d], kernel[d], stride[d], padding[d], dilation[d]) for d in range(2)])
        for start in np.ndindex(*[min(stride[d], size[d]) for d in range(2)])]
    cdef Plan plan = Plan(table, grad_shape, last, groups, (1, 1), kernel, (out_shape[0], *size), stride, phases)
    return plan.split_outputs(False)


@lru_cache(maxsize=64)
def weight_grad_plan(table, in_shape, last, out_shape, kernel, stride, padding, dilation, groups, threads):
    cdef Plan plan = convolution(table, in_shape, last, out_shape, kernel, stride, padding, dilation, groups)
    plan.interleave(False)
    plan.cut(plan.kernel.gradient_positions, ENOUGH_TASKS)
    plan.set_order()
    return plan


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride, padding, dilation,
         ptrdiff_t groups):
    """Fills y (N, K, *out) from x (N, C, *in) and weight (K, C / groups, *kernel), through an epilogue."""
    weight = contiguous(weight)
    cdef ptrdiff_t channels = weight.shape[1], rows = weight.shape[0] // groups
    if np.PyArray_SIZE(y) == 0:
        epilogue.over(0, y)
        return
    cdef Plan plan = forward_plan(
        <size_t> kernels_for(x).direct, (<object> x).shape, is_channels_last(x), (<object> y).shape[1:],
        (<object> weight).shape[2:], stride, padding, dilation, groups, epilogue.statistics, get_num_threads())
    correlate(plan, x, weight, rows * channels * plan.taps, channels * plan.taps, plan.taps, epilogue, y)


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue, in_size, stride, padding, dilation,
                    ptrdiff_t groups):
    """The gradient (N, C, *in_size) by the input of a convolution with output gradient `grad`, plus a bias: there is
    neither residual nor statistics."""
    grad = either_layout(grad)
    weight = contiguous(weight)
    cdef ptrdiff_t rows = weight.shape[1], channels = weight.shape[0] // groups
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], rows * groups, *in_size))
    if np.PyArray_SIZE(result) == 0:
        return result
    cdef Plan plan = input_grad_plan(
        <size_t> kernels_for(grad).direct, (<object> grad).shape, is_channels_last(grad), (rows * groups, *in_size),
        (<object> weight).shape[2:], stride, padding, dilation, groups, get_num_threads())
    correlate(plan, grad, weight, channels * rows * plan.taps, plan.taps, rows * plan.taps, epilogue, result)
    return result


def conv_weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups,
                     bint bias_grad):
    """The gradient (K, C / groups, *kernel) by the weight, from the output's gradient and the input; and the sums of
    the output's gradient (parts, K), zeros without `bias_grad`."""
    x = either_layout(x)
    grad = channels_last(grad) if is_channels_last(x) else contiguous(grad)
    cdef ptrdiff_t out_channels = grad.shape[1], rows = out_channels // groups
    cdef np.ndarray result = empty_of_shape((out_channels, x.shape[1] // groups, *kernel), np.PyArray_TYPE(x))
    if np.PyArray_SIZE(result) == 0 or np.PyArray_SIZE(grad) == 0:
        result[...] = 0
        return result, np.zeros((1, out_channels))

    # Tasks: blocks of output channels, each with a copy of its own, times parts of the bands of all images.
    cdef Plan plan = weight_grad_plan(
        <size_t> kernels_for(x).direct, (<object> x).shape, is_channels_last(x), (<object> grad).shape[1:],
        kernel, stride, padding, dilation, groups, get_num_threads())
    cdef const direct_geometry *g = &plan.geometry
    cdef const direct_kernels *kernels = plan.kernel
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), depth = g.channels * plan.taps, weights = out_channels * depth
    cdef ptrdiff_t units = plan.batches() * ceil_div(g.grid[0], g.band)
    cdef ptrdiff_t most_parts = max(1, g.images * g.grid[0] * g.grid[1] // PARTIAL_POSITIONS)
    cdef ptrdiff_t least_blocks = min(ceil_div(LEAST_TASKS, groups * most_parts), max(1, rows // LEAST_CHANNELS))
    cdef ptrdiff_t blocks = max(least_blocks, ceil_div(rows * depth, TASK_SUMS))
    cdef ptrdiff_t block = max(min(LEAST_CHANNELS, rows), ceil_div(rows, blocks))
    cdef ptrdiff_t parts = max(1, min(most_parts, ceil_div(ENOUGH_TASKS, groups * ceil_div(rows, block)),
                                      PARTIAL_BYTES // (weights * itemsize)))
    cdef ptrdiff_t part_units = ceil_div(units, parts)
    parts = ceil_div(units, part_units)
    cdef int threads = threads_for(plan.nanoseconds)
    if threads == 1:  # blocks change no sum, and each copies the image again
        block = ceil_div(rows, ceil_div(rows * depth, TASK_SUMS))
    blocks = ceil_div(rows, block)
    cdef ptrdiff_t scratch_bytes = kernels.weight_scratch_size(g, depth, block)
    cdef Block partial_memory = scratch((parts - 1) * weights * itemsize)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef np.ndarray bias_sums = np.zeros((parts, out_channels))
    cdef double *sums = <double *> np.PyArray_DATA(bias_sums)
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(grad)
    cdef char *target = np.PyArray_BYTES(result)
    cdef ptrdiff_t task, group, part, first, count
    with nogil:
        for task in prange(groups * parts * blocks, num_threads=threads, schedule="dynamic"):
            part = task // (groups * blocks)
            group = task // blocks % groups
            first = task % blocks * block
            count = min(block, rows - first)
            first = first + group * rows
            kernels.weight_tile(
                g, plan.phase, source + group * g.channels * g.in_channel_stride * itemsize,
                gradient + first * g.out_channel_stride * itemsize, count,
                part * part_units, min(part_units, units - part * part_units),
                (partials + (part - 1) * weights * itemsize if part > 0 else target) + first * depth * itemsize,
                sums + part * out_channels + first if bias_grad else NULL,
                thread_scratch + threadid() * scratch_bytes)
        for task in prange(out_channels if parts > 1 else 0, schedule="static",
                           num_threads=min(threads, threads_for(0.1 * parts * weights))):
            reduction.add_parts(partials + task * depth * itemsize, parts - 1, weights, depth,
                                target + task * depth * itemsize)
    return result, bias_sums

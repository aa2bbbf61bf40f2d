"""Convolutions of groups: depthwise ones (csrc/depthwise.c), and all with channels last (csrc/grouped.c): geometry and
the work split. conv.pyx decides when, and has the arguments. Depthwise backward-data with a stride, and
backward-weights, are of arrays with channels last."""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.geometry cimport forward_taps, phase_taps
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, group_geometry, group_kernels, group_tap)
from fastnn.native.runtime cimport (
    Block, ceil_div, empty_in_layout, empty_of_shape, is_channels_last, kernels_for, scratch, threads_for)

import numpy as np

np.import_array()

# Rows of outputs of a task.
cdef ptrdiff_t TASK_ROWS = 8
# Tasks that have sums of their own at most, and bytes of all these sums: statistics, and gradients by the weights.
cdef ptrdiff_t UNITS = 512
cdef ptrdiff_t STATISTICS_BYTES = 4 << 20
cdef ptrdiff_t PARTS = 64
cdef ptrdiff_t PARTIAL_BYTES = 8 << 20
# On one thread; what groups of few channels leave of the matrix product's 40.
cdef double FLOP_PER_NANOSECOND = 20.0


cdef list runs_of(list across, ptrdiff_t stride):
    """The (tap, position) of one dimension in runs of up to three taps, a step of the outputs from each other: what the
    second one sees of an output, the first one sees of the next."""
    cdef dict tap_at = {position: tap for tap, position in across}
    cdef list runs = []
    for position in sorted(tap_at):
        run = []
        while position in tap_at and len(run) < 3:
            run.append((tap_at.pop(position), position))
            position += stride
        if run:
            runs.append(run)
    return runs


cdef Block fill_taps(list down, list across, ptrdiff_t width, group_geometry *g):
    """Sets the geometry's taps, all combinations of (tap, position) per dimension; they stand in the block."""
    cdef Block memory = scratch(max(1, len(down) * len(across)) * sizeof(group_tap))
    cdef group_tap *tap = <group_tap *> memory.data
    g.tap, g.taps = tap, 0
    # Runs of a kind follow one another: gradients are summed up for some of them together.
    for run in sorted(runs_of(across, g.stride[1]), key=len, reverse=True):
        for i, y in down:
            for at, (j, x) in enumerate(run):
                tap[g.taps] = group_tap(y, x, i * width + j, 0 if at else len(run))
                g.taps += 1
    return memory


cdef const group_kernels *kernels_of(np.ndarray x, const group_geometry *g):
    cdef bint fills_lanes = not g.channels_last or g.groups >= kernels_for(x).conv.lanes
    if g.channels == 1 and g.out_channels == 1 and fills_lanes:
        return kernels_for(x).depthwise
    return kernels_for(x).grouped


cdef double nanoseconds(const group_geometry *g, ptrdiff_t rows):
    return (rows * g.grid[1] * g.groups * g.out_channels * (2.0 * g.taps * g.channels + 4)) / FLOP_PER_NANOSECOND


cdef correlate(const group_geometry *g, ptrdiff_t images, np.ndarray x, np.ndarray weight, Epilogue epilogue,
               np.ndarray y):
    """The outputs of one geometry; `weight` is [tap of the filter][C][all output channels]."""
    cdef const group_kernels *kernel = kernels_of(x, g)
    cdef ptrdiff_t rows = images * g.grid[0], block = TASK_ROWS, task, units
    cdef ptrdiff_t row_outputs = g.grid[1] * g.groups * g.out_channels
    cdef int threads = threads_for(nanoseconds(g, rows))
    if epilogue.statistics:  # by the shape alone
        units = max(1, min(UNITS, STATISTICS_BYTES // (2 * g.groups * g.out_channels * np.PyArray_ITEMSIZE(x))))
        block = max(block, ceil_div(rows, units))
    while not epilogue.statistics and block > 1 and ceil_div(rows, block) < 4 * threads:
        block //= 2
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *weights = np.PyArray_BYTES(weight)
    cdef char *target = np.PyArray_BYTES(y)
    cdef const conv_epilogue *values = epilogue.over(ceil_div(rows, block) if row_outputs > 0 else 0, y)
    if row_outputs == 0:
        return
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(g)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *thread_scratch = <char *> thread_memory.data
    for task in prange(ceil_div(rows, block), nogil=True, num_threads=threads, schedule="dynamic"):
        kernel.tile(g, source, weights, task * block, min(block, rows - task * block), values, task, target,
                    thread_scratch + threadid() * scratch_bytes)


cdef group_geometry forward_geometry(np.ndarray x, ptrdiff_t out_channels, ptrdiff_t groups, out_size, stride):
    cdef group_geometry g
    g.groups, g.channels, g.out_channels = groups, x.shape[1] // groups, out_channels // groups
    g.target, g.taps, g.tap = 0, 0, NULL
    g.channels_last = is_channels_last(x)
    g.out_pixel = out_channels if g.channels_last else 1
    for i in range(2):
        g.in_size[i], g.grid[i], g.stride[i] = x.shape[2 + i], out_size[i], stride[i]
    g.out_row = g.grid[1] * g.out_pixel
    g.out_image = g.grid[0] * g.grid[1] * out_channels
    return g


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride, padding, dilation,
         ptrdiff_t groups):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C / groups, R, S), through an epilogue."""
    cdef group_geometry g = forward_geometry(x, weight.shape[0], groups, (<object> y).shape[2:], stride)
    taps = [forward_taps(weight.shape[2 + i], padding[i], dilation[i]) for i in range(2)]
    memory = fill_taps(taps[0], taps[1], weight.shape[3], &g)
    by_taps = np.ascontiguousarray((<object> weight).transpose(2, 3, 1, 0))
    correlate(&g, x.shape[0], x, by_taps, epilogue, y)
    del memory


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue, in_size, stride, padding, dilation,
                    ptrdiff_t groups):
    """The gradient (N, C, *in_size) by the input, plus a bias: phase by phase of the stride, see conv.pyx."""
    cdef ptrdiff_t channels = weight.shape[1] * groups
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], channels, *in_size))
    by_group = (<object> weight).reshape(groups, -1, *(<object> weight).shape[1:])
    cdef np.ndarray by_taps = np.ascontiguousarray(by_group.transpose(3, 4, 1, 0, 2))
    cdef group_geometry g
    cdef ptrdiff_t width = in_size[1], pixel, i
    g.groups, g.channels, g.out_channels = groups, grad.shape[1] // groups, weight.shape[1]
    g.stride[0] = g.stride[1] = 1
    g.channels_last = is_channels_last(grad)
    pixel = channels if g.channels_last else 1
    for start in np.ndindex(*[min(stride[i], in_size[i]) for i in range(2)]):
        for i in range(2):
            g.in_size[i] = grad.shape[2 + i]
            g.grid[i] = -(-(in_size[i] - start[i]) // stride[i])
        g.target = (start[0] * width + start[1]) * pixel
        g.out_pixel, g.out_row = stride[1] * pixel, stride[0] * width * pixel
        g.out_image = in_size[0] * width * channels
        taps = [phase_taps(start[i], weight.shape[2 + i], stride[i], padding[i], dilation[i]) for i in range(2)]
        memory = fill_taps(taps[0], taps[1], weight.shape[3], &g)
        correlate(&g, grad.shape[0], grad, by_taps, epilogue, result)
        del memory
    return result


def conv_weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation, ptrdiff_t groups):
    """The gradient (K, C / groups, R, S) by the weight, from the output's gradient and the input."""
    cdef ptrdiff_t out_channels = grad.shape[1], itemsize = np.PyArray_ITEMSIZE(x), task
    cdef group_geometry g = forward_geometry(x, out_channels, groups, (<object> grad).shape[2:], stride)
    taps = [forward_taps(kernel[i], padding[i], dilation[i]) for i in range(2)]
    memory = fill_taps(taps[0], taps[1], kernel[1], &g)
    cdef ptrdiff_t rows = x.shape[0] * g.grid[0], weights = g.taps * g.channels * out_channels
    if rows * g.grid[1] * weights == 0:
        return np.zeros((out_channels, g.channels, *kernel), x.dtype)
    cdef np.ndarray sums = empty_of_shape((*kernel, g.channels, out_channels), np.PyArray_TYPE(x))
    cdef ptrdiff_t most = max(1, min(PARTS, 1 + PARTIAL_BYTES // (weights * itemsize)))
    cdef ptrdiff_t each = max(1, ceil_div(rows, most)), parts = ceil_div(rows, each)
    cdef int threads = threads_for(nanoseconds(&g, rows))
    cdef const group_kernels *kernels = kernels_of(x, &g)
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef ptrdiff_t scratch_bytes = kernels.scratch_size(&g)
    cdef Block partial_memory = scratch((parts - 1) * weights * itemsize)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef char *target = np.PyArray_BYTES(sums)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(grad)
    with nogil:
        for task in prange(parts, num_threads=threads, schedule="dynamic"):
            kernels.weight_tile(&g, source, gradient, task * each, min(each, rows - task * each),
                                partials + (task - 1) * weights * itemsize if task > 0 else target,
                                thread_scratch + threadid() * scratch_bytes)
        reduction.add_parts(partials, parts - 1, weights, weights, target)
    del memory
    return np.ascontiguousarray((<object> sums).transpose(3, 2, 0, 1))

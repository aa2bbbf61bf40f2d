"""Depthwise convolutions (csrc/depthwise.c): geometry and the work split. conv.pyx decides when, and has the arguments.
Backward-data with a stride, and backward-weights, are of arrays with channels last."""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.geometry cimport forward_taps, phase_taps
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, depthwise_geometry, depthwise_kernels, depthwise_tap)
from fastnn.native.runtime cimport (
    Block, ceil_div, channels_last, empty_in_layout, empty_of_shape, is_channels_last, kernels_for, scratch,
    threads_for)

import numpy as np

np.import_array()

# Rows of outputs of a task; tasks at most where the sums of each are kept: statistics, and gradients by the weights.
cdef ptrdiff_t TASK_ROWS = 8
cdef ptrdiff_t UNITS = 512
cdef ptrdiff_t PARTS = 64
cdef double FLOP_PER_NANOSECOND = 20.0


cdef Block fill_taps(list down, list across, ptrdiff_t width, depthwise_geometry *g):
    """Sets the geometry's taps, all combinations of (tap, position) per dimension; they stand in the block."""
    cdef Block memory = scratch(max(1, len(down) * len(across)) * sizeof(depthwise_tap))
    cdef depthwise_tap *tap = <depthwise_tap *> memory.data
    g.tap, g.taps = tap, 0
    for i, y in down:
        for j, x in across:
            tap[g.taps] = depthwise_tap(y, x, i * width + j)
            g.taps += 1
    return memory


cdef correlate(const depthwise_geometry *g, ptrdiff_t images, np.ndarray x, np.ndarray weight, Epilogue epilogue,
               np.ndarray y):
    """The outputs of one geometry; `weight` is [tap of the filter][C]."""
    cdef const depthwise_kernels *kernel = kernels_for(x).depthwise
    cdef ptrdiff_t rows = images * g.grid[0], block = TASK_ROWS, task
    cdef int threads = threads_for(rows * g.grid[1] * g.channels * (2.0 * g.taps + 4) / FLOP_PER_NANOSECOND)
    if epilogue.statistics:  # by the shape alone
        block = max(block, ceil_div(rows, UNITS))
    while not epilogue.statistics and block > 1 and ceil_div(rows, block) < 4 * threads:
        block //= 2
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *weights = np.PyArray_BYTES(weight)
    cdef char *target = np.PyArray_BYTES(y)
    cdef const conv_epilogue *values = epilogue.over(ceil_div(rows, block) if g.grid[1] * g.channels > 0 else 0, y)
    if g.grid[1] * g.channels == 0:
        return
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(g)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *thread_scratch = <char *> thread_memory.data
    for task in prange(ceil_div(rows, block), nogil=True, num_threads=threads, schedule="dynamic"):
        kernel.tile(g, source, weights, task * block, min(block, rows - task * block), values, task, target,
                    thread_scratch + threadid() * scratch_bytes)


cdef np.ndarray by_taps(np.ndarray weight):
    """[tap of the filter][C] from (C, 1, R, S)."""
    return np.ascontiguousarray((<object> weight).reshape(weight.shape[0], -1).T)


cdef depthwise_geometry forward_geometry(np.ndarray x, out_size, stride):
    cdef depthwise_geometry g
    g.channels, g.target, g.taps, g.tap = x.shape[1], 0, 0, NULL
    g.channels_last = is_channels_last(x)
    g.out_pixel = g.channels if g.channels_last else 1
    for i in range(2):
        g.in_size[i], g.grid[i], g.stride[i] = x.shape[2 + i], out_size[i], stride[i]
    g.out_row = g.grid[1] * g.out_pixel
    g.out_image = g.grid[0] * g.grid[1] * g.channels
    return g


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride, padding, dilation):
    """Fills y (N, C, P, Q) from x (N, C, H, W) and weight (C, 1, R, S), through an epilogue."""
    cdef depthwise_geometry g = forward_geometry(x, (<object> y).shape[2:], stride)
    taps = [forward_taps(weight.shape[2 + i], padding[i], dilation[i]) for i in range(2)]
    memory = fill_taps(taps[0], taps[1], weight.shape[3], &g)
    correlate(&g, x.shape[0], x, by_taps(weight), epilogue, y)
    del memory


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue, in_size, stride, padding, dilation):
    """The gradient (N, C, *in_size) by the input, plus a bias: phase by phase of the stride, see conv.pyx."""
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], grad.shape[1], *in_size))
    cdef np.ndarray taps_first = by_taps(weight)
    cdef depthwise_geometry g
    cdef ptrdiff_t width = in_size[1], pixel, i
    g.channels, g.stride[0], g.stride[1] = grad.shape[1], 1, 1
    g.channels_last = is_channels_last(grad)
    pixel = g.channels if g.channels_last else 1
    for start in np.ndindex(*[min(stride[i], in_size[i]) for i in range(2)]):
        for i in range(2):
            g.in_size[i] = grad.shape[2 + i]
            g.grid[i] = -(-(in_size[i] - start[i]) // stride[i])
        g.target = (start[0] * width + start[1]) * pixel
        g.out_pixel, g.out_row = stride[1] * pixel, stride[0] * width * pixel
        g.out_image = in_size[0] * width * g.channels
        taps = [phase_taps(start[i], weight.shape[2 + i], stride[i], padding[i], dilation[i]) for i in range(2)]
        memory = fill_taps(taps[0], taps[1], weight.shape[3], &g)
        correlate(&g, grad.shape[0], grad, taps_first, epilogue, result)
        del memory
    return result


def conv_weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding, dilation):
    """The gradient (C, 1, R, S) by the weight, from the output's gradient and the input."""
    grad, x = channels_last(grad), channels_last(x)
    cdef ptrdiff_t channels = x.shape[1], itemsize = np.PyArray_ITEMSIZE(x), task
    cdef depthwise_geometry g = forward_geometry(x, (<object> grad).shape[2:], stride)
    taps = [forward_taps(kernel[i], padding[i], dilation[i]) for i in range(2)]
    memory = fill_taps(taps[0], taps[1], kernel[1], &g)
    cdef np.ndarray sums = empty_of_shape((g.taps, channels), np.PyArray_TYPE(x))
    cdef ptrdiff_t rows = x.shape[0] * g.grid[0], each = max(1, ceil_div(rows, PARTS)), parts = ceil_div(rows, each)
    cdef ptrdiff_t weights = g.taps * channels
    if rows * g.grid[1] * weights == 0:
        return np.zeros((channels, 1, *kernel), x.dtype)
    cdef int threads = threads_for(rows * g.grid[1] * channels * (2.0 * g.taps + 4) / FLOP_PER_NANOSECOND)
    cdef const depthwise_kernels *kernels = kernels_for(x).depthwise
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef Block partial_memory = scratch((parts - 1) * weights * itemsize)
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    cdef char *target = np.PyArray_BYTES(sums)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(grad)
    with nogil:
        for task in prange(parts, num_threads=threads, schedule="dynamic"):
            kernels.weight_tile(&g, source, gradient, task * each, min(each, rows - task * each),
                                partials + (task - 1) * weights * itemsize if task > 0 else target)
        reduction.add_parts(partials, parts - 1, weights, weights, target)
    del memory
    return np.ascontiguousarray(sums.T).reshape(channels, 1, *kernel)

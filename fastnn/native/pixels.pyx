"""Convolutions of arrays with channels last whose product has pixels as rows (csrc/pixels.c): packed weights and work
split. conv.pyx decides when, and has the arguments.

pointwise_ functions are for 1x1 filters, patches_ functions for images of few channels.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, gemm_kernels, patches_geometry, pixels_geometry, pixels_kernels)
from fastnn.native.runtime cimport (
    Block, ceil_div, contiguous, empty_channels_last, empty_of_shape, is_channels_last, kernels_for, scratch,
    threads_for)

import numpy as np

np.import_array()

# Bytes of packed weights at a time.
cdef ptrdiff_t PACKED_BYTES = 8 << 20
# Pixels of a task, and at least; pixels that are summed up by themselves at least, and such units at most.
cdef ptrdiff_t TASK_PIXELS = 128
cdef ptrdiff_t LEAST_PIXELS = 32
cdef ptrdiff_t UNIT_PIXELS = 64
cdef ptrdiff_t UNITS = 512
# Pixels whose patches are packed at a time; units of such that are summed up by themselves, at most.
cdef ptrdiff_t PATCH_PIXELS = 64
cdef ptrdiff_t PATCH_UNITS = 4096
# Backward-weights: parts of the pixels at most, and bytes of their sums.
cdef ptrdiff_t PARTS = 64
cdef ptrdiff_t PARTIAL_BYTES = 4 << 20
cdef double FLOP_PER_NANOSECOND = 80.0


cdef multiply(pixels_geometry g, ptrdiff_t images, np.ndarray x, np.ndarray weight, ptrdiff_t line_stride,
              ptrdiff_t depth_stride, Epilogue epilogue, np.ndarray y):
    """y = x weight^T, where output channels and channels of the weights stand so far apart."""
    cdef const gemm_kernels *gemm = kernels_for(x).gemm
    cdef const pixels_kernels *kernel = kernels_for(x).pixels
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), tile = gemm.column_tile, rows = g.out_channels
    cdef ptrdiff_t pixels = images * g.image_rows * g.row_pixels, panel_bytes = g.channels * tile * itemsize
    if pixels * rows == 0:
        epilogue.over(0, y)
        return
    cdef int threads = threads_for(2.0 * pixels * rows * (g.channels + 1) / FLOP_PER_NANOSECOND)
    cdef ptrdiff_t enough = 1 if threads == 1 else 4 * threads, block = TASK_PIXELS, panels = ceil_div(rows, tile)
    if epilogue.statistics:  # by the shape alone
        block = max(UNIT_PIXELS, ceil_div(ceil_div(pixels, UNITS), gemm.row_tile) * gemm.row_tile)
    while not epilogue.statistics and block > LEAST_PIXELS and ceil_div(pixels, block) < enough:
        block //= 2
    cdef ptrdiff_t blocks = ceil_div(pixels, block), together = max(1, PACKED_BYTES // max(1, panel_bytes))
    together = ceil_div(panels, ceil_div(panels, together))
    cdef ptrdiff_t each = max(1, min(together, together * blocks // enough)), parts
    cdef Block memory = scratch(together * panel_bytes)
    cdef char *packed = <char *> memory.data
    cdef const char *weights = np.PyArray_BYTES(weight)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef const conv_epilogue *values = epilogue.over(blocks, y)
    cdef ptrdiff_t task, first = 0, panel, count, start
    with nogil:
        while first < panels:
            count = min(together, panels - first)
            for task in prange(count, num_threads=threads_for(0.2 * count * tile * g.channels), schedule="static"):
                panel = (first + task) * tile
                gemm.pack(weights + panel * line_stride * itemsize, line_stride, depth_stride, min(tile, rows - panel),
                          g.channels, tile, packed + task * panel_bytes)
            parts = ceil_div(count, each)
            for task in prange(blocks * parts, num_threads=threads, schedule="dynamic"):
                start = task // parts * block
                panel = task % parts * each
                kernel.tile(&g, source, packed + panel * panel_bytes, start, min(block, pixels - start),
                            (first + panel) * tile,
                            min(min(each, count - panel) * tile, rows - (first + panel) * tile), values,
                            task // parts, target)
            first = first + together


def pointwise_conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C, 1, 1), unpadded, through an epilogue."""
    weight = contiguous(weight)
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1], height = y.shape[2], width = y.shape[3]
    cdef ptrdiff_t step = stride[0], in_row = x.shape[3] * channels
    cdef pixels_geometry g = pixels_geometry(channels, weight.shape[0], 0, width, height,
                                             <ptrdiff_t> stride[1] * channels, step * in_row, x.shape[2] * in_row)
    if max(stride) == 1 and (height, width) == (x.shape[2], x.shape[3]):  # all pixels are a single row
        g.row_pixels, g.image_rows, images = images * height * width, 1, 1
    multiply(g, images, x, weight, channels, 1, epilogue, y)


def pointwise_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue):
    """The gradient by the input where the stride is 1: the same with the weights transposed."""
    weight = contiguous(weight)
    cdef ptrdiff_t images = grad.shape[0], channels = grad.shape[1], rows = weight.shape[1]
    cdef np.ndarray result = empty_channels_last((images, rows, grad.shape[2], grad.shape[3]), np.PyArray_TYPE(grad))
    cdef ptrdiff_t pixels = images * grad.shape[2] * grad.shape[3]
    cdef pixels_geometry g = pixels_geometry(channels, rows, 0, pixels, 1, channels, 0, 0)
    multiply(g, 1, grad, weight, 1, rows, epilogue, result)
    return result


cdef patches_geometry patches_of(np.ndarray x, bint last, ptrdiff_t out_channels, out_size, kernel, stride, padding):
    cdef patches_geometry g
    g.images, g.channels, g.out_channels, g.channels_last = x.shape[0], x.shape[1], out_channels, last
    for i in range(2):
        g.in_size[i], g.out_size[i], g.filter[i] = x.shape[2 + i], out_size[i], kernel[i]
        g.stride[i], g.padding[i] = stride[i], padding[i]
    return g


def patches_conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride, padding):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C, R, S), through an epilogue."""
    cdef const gemm_kernels *gemm = kernels_for(x).gemm
    cdef const pixels_kernels *kernel = kernels_for(x).pixels
    cdef patches_geometry g = patches_of(x, is_channels_last(x), weight.shape[0], (<object> y).shape[2:],
                                         (<object> weight).shape[2:], stride, padding)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), tile = gemm.column_tile, rows = g.out_channels, task, panel
    cdef ptrdiff_t pixels = g.images * g.out_size[0] * g.out_size[1], depth = g.channels * g.filter[0] * g.filter[1]
    if pixels * rows == 0:
        epilogue.over(0, y)
        return
    cdef np.ndarray by_pixel = contiguous((<object> weight).transpose(0, 2, 3, 1) if g.channels_last else weight)
    cdef int threads = threads_for(2.0 * pixels * rows * (depth + 4) / FLOP_PER_NANOSECOND)
    cdef ptrdiff_t block = PATCH_PIXELS
    if epilogue.statistics:
        block = max(block, ceil_div(pixels, PATCH_UNITS))
    while not epilogue.statistics and block > LEAST_PIXELS and threads > 1 and ceil_div(pixels, block) < 4 * threads:
        block //= 2
    cdef ptrdiff_t panels = ceil_div(rows, tile), panel_bytes = depth * tile * itemsize
    cdef ptrdiff_t blocks = ceil_div(pixels, block)
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(&g, block)
    cdef Block memory = scratch(panels * panel_bytes)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef char *packed = <char *> memory.data
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef const char *weights = np.PyArray_BYTES(by_pixel)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef const conv_epilogue *values = epilogue.over(blocks, y)
    with nogil:
        for panel in range(panels):
            gemm.pack(weights + panel * tile * depth * itemsize, depth, 1, min(tile, rows - panel * tile), depth, tile,
                      packed + panel * panel_bytes)
        for task in prange(blocks, num_threads=threads, schedule="dynamic"):
            kernel.patch_tile(&g, source, packed, task * block, min(block, pixels - task * block), values, task, target,
                              thread_scratch + threadid() * scratch_bytes)


def patches_weight_grad(np.ndarray grad, np.ndarray x, kernel, stride, padding):
    """The gradient (K, C, R, S) by the weight, from the output's gradient and the input."""
    cdef const pixels_kernels *kernels = kernels_for(x).pixels
    cdef bint last = is_channels_last(x) or is_channels_last(grad)  # the other one may stand both ways
    cdef patches_geometry g = patches_of(x, last, grad.shape[1], (<object> grad).shape[2:], kernel, stride, padding)
    cdef ptrdiff_t pixels = g.images * g.out_size[0] * g.out_size[1], itemsize = np.PyArray_ITEMSIZE(x), task
    cdef ptrdiff_t depth = g.channels * g.filter[0] * g.filter[1]
    if pixels * depth * g.out_channels == 0:
        return np.zeros((g.out_channels, g.channels, *kernel), x.dtype)
    cdef ptrdiff_t partial_bytes = kernels.partial_size(&g), scratch_bytes = kernels.scratch_size(&g, 0)
    cdef ptrdiff_t parts = min(ceil_div(pixels, PATCH_PIXELS), max(1, min(PARTS, PARTIAL_BYTES // partial_bytes)))
    cdef ptrdiff_t each = ceil_div(ceil_div(pixels, parts), PATCH_PIXELS) * PATCH_PIXELS
    parts = ceil_div(pixels, each)
    cdef int threads = threads_for(2.0 * pixels * g.out_channels * (depth + 4) / FLOP_PER_NANOSECOND)
    cdef np.ndarray sums = empty_of_shape((depth, partial_bytes // (depth * itemsize)), np.PyArray_TYPE(x))
    cdef Block partial_memory = scratch((parts - 1) * partial_bytes)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef char *target = np.PyArray_BYTES(sums)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *gradient = np.PyArray_BYTES(grad)
    with nogil:
        for task in prange(parts, num_threads=threads, schedule="dynamic"):
            kernels.weight_tile(&g, source, gradient, task * each, min(each, pixels - task * each),
                                partials + (task - 1) * partial_bytes if task > 0 else target,
                                thread_scratch + threadid() * scratch_bytes)
        reduction.add_parts(partials, parts - 1, partial_bytes // itemsize, partial_bytes // itemsize, target)
    by_filter = (<object> sums)[:, :g.out_channels].T
    if not g.channels_last:
        return np.ascontiguousarray(by_filter).reshape(g.out_channels, g.channels, *kernel)
    return np.ascontiguousarray(by_filter.reshape(g.out_channels, *kernel, g.channels).transpose(0, 3, 1, 2))

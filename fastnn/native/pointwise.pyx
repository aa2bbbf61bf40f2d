"""1x1 convolutions of arrays with channels last (csrc/pointwise.c): packed weights and the work split. conv.pyx decides
when, and has the arguments."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.kernels cimport conv_epilogue, gemm_kernels, pointwise_geometry, pointwise_kernels
from fastnn.native.runtime cimport (
    Block, ceil_div, contiguous, empty_channels_last, kernels_for, scratch, threads_for)

np.import_array()

# Bytes of packed weights at a time.
cdef ptrdiff_t PACKED_BYTES = 8 << 20
# Pixels of a task, and at least; pixels that are summed up by themselves at least, and such units at most.
cdef ptrdiff_t TASK_PIXELS = 128
cdef ptrdiff_t LEAST_PIXELS = 32
cdef ptrdiff_t UNIT_PIXELS = 64
cdef ptrdiff_t UNITS = 512
cdef double FLOP_PER_NANOSECOND = 80.0


cdef multiply(pointwise_geometry g, ptrdiff_t images, np.ndarray x, np.ndarray weight, ptrdiff_t line_stride,
              ptrdiff_t depth_stride, Epilogue epilogue, np.ndarray y):
    """y = x weight^T, where output channels and channels of the weights stand so far apart."""
    cdef const gemm_kernels *gemm = kernels_for(x).gemm
    cdef const pointwise_kernels *kernel = kernels_for(x).pointwise
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


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, stride):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C, 1, 1), unpadded, through an epilogue."""
    weight = contiguous(weight)
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1], height = y.shape[2], width = y.shape[3]
    cdef ptrdiff_t step = stride[0], in_row = x.shape[3] * channels
    cdef pointwise_geometry g = pointwise_geometry(channels, weight.shape[0], width, height,
                                                   <ptrdiff_t> stride[1] * channels, step * in_row, x.shape[2] * in_row)
    if max(stride) == 1:  # all pixels are a single row
        g.row_pixels, g.image_rows, images = images * height * width, 1, 1
    multiply(g, images, x, weight, channels, 1, epilogue, y)


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue):
    """The gradient by the input where the stride is 1: the same with the weights transposed."""
    weight = contiguous(weight)
    cdef ptrdiff_t images = grad.shape[0], channels = grad.shape[1], rows = weight.shape[1]
    cdef np.ndarray result = empty_channels_last((images, rows, grad.shape[2], grad.shape[3]), np.PyArray_TYPE(grad))
    cdef ptrdiff_t pixels = images * grad.shape[2] * grad.shape[3]
    cdef pointwise_geometry g = pointwise_geometry(channels, rows, pixels, 1, channels, 0, 0)
    multiply(g, 1, grad, weight, 1, rows, epilogue, result)
    return result

"""Softmax along any dimension: tiles are whole images [size][inner], or column blocks of a large one."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport softmax_forward, softmax_gradient
from fastnn.native.runtime cimport ceil_div, contiguous, empty_like, kernels_for, threads_for

np.import_array()

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]

# Elements per tile: 64 KiB of float32. Images are taken in multiples of IMAGES and columns in multiples of COLUMNS, so
# that tiles end where the kernels' vectors and blocks of vectors do.
cdef ptrdiff_t CHUNK = 16384
cdef ptrdiff_t IMAGES = 16
cdef ptrdiff_t COLUMNS = 128
# On one thread, for threads_for.
cdef double NANOSECONDS_PER_ELEMENT = 1.0


cdef struct softmax_plan:
    ptrdiff_t outer, size, inner  # the array is [outer][size][inner]
    ptrdiff_t images, columns     # of a tile: `images` whole images, or `columns` of one
    ptrdiff_t blocks, tiles       # column blocks of an image, tiles in all
    int threads


cdef softmax_plan plan_softmax(np.ndarray x, int dim):
    cdef softmax_plan plan
    plan.outer = plan.inner = 1
    for axis in range(np.PyArray_NDIM(x)):
        if axis < dim:
            plan.outer *= np.PyArray_DIMS(x)[axis]
        elif axis > dim:
            plan.inner *= np.PyArray_DIMS(x)[axis]
    plan.size = np.PyArray_DIMS(x)[dim]
    plan.images = max(1, CHUNK // max(1, plan.size * plan.inner) // IMAGES * IMAGES)
    plan.columns = plan.inner
    if plan.size * plan.inner > CHUNK:
        plan.columns = min(plan.inner, max(COLUMNS, CHUNK // plan.size // COLUMNS * COLUMNS))
    plan.blocks = ceil_div(plan.inner, max(1, plan.columns))
    plan.tiles = ceil_div(plan.outer, plan.images) * plan.blocks if np.PyArray_SIZE(x) else 0
    plan.threads = threads_for(np.PyArray_SIZE(x) * NANOSECONDS_PER_ELEMENT)
    return plan


cdef np.ndarray forward(softmax_forward kernel, np.ndarray x, int dim):
    cdef np.ndarray y = empty_like(x)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef softmax_plan plan = plan_softmax(x, dim)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), tile, image, column, offset
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        image = tile // plan.blocks * plan.images
        column = tile % plan.blocks * plan.columns
        offset = (image * plan.size * plan.inner + column) * itemsize
        kernel(source + offset, min(plan.images, plan.outer - image), plan.size, plan.inner,
               min(plan.columns, plan.inner - column), target + offset)
    return y


cdef np.ndarray backward(softmax_gradient kernel, np.ndarray grad_output, np.ndarray output, int dim):
    cdef np.ndarray grad_input = empty_like(output)
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const char *y = np.PyArray_BYTES(output)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef softmax_plan plan = plan_softmax(output, dim)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(output), tile, image, column, offset
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        image = tile // plan.blocks * plan.images
        column = tile % plan.blocks * plan.columns
        offset = (image * plan.size * plan.inner + column) * itemsize
        kernel(dy + offset, y + offset, min(plan.images, plan.outer - image), plan.size, plan.inner,
               min(plan.columns, plan.inner - column), dx + offset)
    return grad_input


def softmax(np.ndarray x, int dim):
    return forward(kernels_for(x).softmax.softmax, contiguous(x), dim)


def softmax_backward(np.ndarray grad_output, np.ndarray x, int dim, output=None):
    output = softmax(x, dim) if output is None else contiguous(output)
    return backward(kernels_for(x).softmax.softmax_backward, contiguous(grad_output), output, dim)


def log_softmax(np.ndarray x, int dim):
    return forward(kernels_for(x).softmax.log_softmax, contiguous(x), dim)


def log_softmax_backward(np.ndarray grad_output, np.ndarray x, int dim, output=None):
    output = log_softmax(x, dim) if output is None else contiguous(output)
    return backward(kernels_for(x).softmax.log_softmax_backward, contiguous(grad_output), output, dim)

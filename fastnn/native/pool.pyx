"""Pooling: describes the planes and their windows, groups planes into tiles, runs them.

`windows` has one (kernel, stride, padding, dilation) per spatial dimension; None is adaptive pooling. Everything is
three-dimensional here; missing leading dimensions have extent 1. A plane is never split: no two tiles write to the
same gradient.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from libc.stdint cimport int64_t
from fastnn.native.kernels cimport pool_geometry, pool_kernels
from fastnn.native.runtime cimport (
    Block, ceil_div, contiguous, empty_like, empty_of_shape, kernels_for, scratch, threads_for)

import math

np.import_array()

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward", "max_pool_route"]

# Input elements per tile at least: 64 KiB of float32, which stay in the second-level cache.
cdef ptrdiff_t TILE = 16384
# What one element of the input costs; an output costs about as much per element of its window.
cdef double FORWARD_NANOSECONDS = 0.1
cdef double BACKWARD_NANOSECONDS = 0.3


cdef struct plan:
    # A pooling of a whole array: its geometry, its planes, how they are grouped, and on how many threads they run.
    pool_geometry geometry
    ptrdiff_t planes
    ptrdiff_t group              # planes per tile
    ptrdiff_t tiles
    ptrdiff_t inputs, outputs    # elements per plane
    ptrdiff_t itemsize
    int threads
    char *scratch
    ptrdiff_t scratch_bytes      # per thread


cdef Block make_plan(plan *plan, np.ndarray like, tuple in_shape, tuple out_size, windows, double nanoseconds,
                     bint count_include_pad=False, ptrdiff_t divisor=0):
    """Fills the plan; returns the scratch memory, which must live as long as the plan is used."""
    cdef pool_geometry *geometry = &plan.geometry
    cdef const pool_kernels *kernel = kernels_for(like).pool
    cdef double taps
    cdef Block memory
    leading, in_size = in_shape[:-len(out_size)], in_shape[-len(out_size):]
    plan.itemsize = np.PyArray_ITEMSIZE(like)
    plan.planes, plan.inputs, plan.outputs = math.prod(leading), math.prod(in_size), math.prod(out_size)
    if windows is None:
        windows = tuple([adaptive_window(size, outputs) for size, outputs in zip(in_size, out_size)])
    if plan.outputs == 1 and is_whole(in_size, windows):
        in_size, out_size, windows = (plan.inputs,), (1,), ((plan.inputs, plan.inputs, 0, 1),)
    missing = 3 - len(out_size)
    in_size, out_size = (1,) * missing + in_size, (1,) * missing + out_size
    windows = ((1, 1, 0, 1),) * missing + windows
    for i in range(3):
        geometry.in_size[i], geometry.out_size[i] = in_size[i], out_size[i]
        geometry.kernel[i], geometry.stride[i], geometry.padding[i], geometry.dilation[i] = windows[i]
    geometry.count_include_pad, geometry.divisor = count_include_pad, divisor
    plan.group = max(1, TILE // plan.inputs)
    plan.tiles = ceil_div(plan.planes, plan.group)
    taps = math.prod([window[0] for window in windows]) or plan.inputs / <double> plan.outputs
    plan.threads = threads_for(plan.planes * (plan.inputs + plan.outputs * taps) * nanoseconds)
    plan.scratch_bytes = (kernel.scratch_size(geometry) * plan.itemsize + 63) // 64 * 64
    memory = scratch(plan.scratch_bytes * plan.threads)
    plan.scratch = <char *> memory.data
    return memory


cdef inline ptrdiff_t planes_of(const plan *plan, ptrdiff_t tile) noexcept nogil:
    return min(plan.group, plan.planes - tile * plan.group)


cdef inline ptrdiff_t planes_from(const plan *plan, ptrdiff_t tile) noexcept nogil:
    """Planes from the tile to the end of the array: so far its kernel may read."""
    return plan.planes - tile * plan.group


cdef inline ptrdiff_t input_at(const plan *plan, ptrdiff_t tile) noexcept nogil:
    """Bytes of the input before the tile."""
    return tile * plan.group * plan.inputs * plan.itemsize


cdef inline ptrdiff_t output_at(const plan *plan, ptrdiff_t tile) noexcept nogil:
    """Bytes of the output before the tile."""
    return tile * plan.group * plan.outputs * plan.itemsize


cdef inline void *own_scratch(const plan *plan) noexcept nogil:
    return plan.scratch + threadid() * plan.scratch_bytes


cdef tuple adaptive_window(ptrdiff_t size, ptrdiff_t outputs):
    """Regular where the sizes divide; a kernel of 0 stands for windows of varying extent."""
    if size % outputs:
        return 0, 1, 0, 1
    return size // outputs, size // outputs, 0, 1


cdef bint is_whole(in_size, windows):
    """Whether the only window covers the plane: the plane is then taken as a single row."""
    return all([kernel >= size and not padding and dilation == 1
                for size, (kernel, _, padding, dilation) in zip(in_size, windows)])


def max_pool(np.ndarray x, tuple out_size, windows=None, bint return_indices=False):
    x = contiguous(x)
    cdef tuple in_shape = (<object> x).shape, out_shape = in_shape[:-len(out_size)] + out_size
    cdef plan plan
    cdef Block _memory = make_plan(&plan, x, in_shape, out_size, windows, FORWARD_NANOSECONDS)
    cdef const pool_kernels *kernel = kernels_for(x).pool
    cdef np.ndarray y = empty_of_shape(out_shape, np.PyArray_TYPE(x)), indices = None
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef int64_t *winners = NULL
    cdef ptrdiff_t tile
    if return_indices:
        indices = empty_of_shape(out_shape, np.NPY_INT64)
        winners = <int64_t *> np.PyArray_DATA(indices)
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        kernel.max_pool(&plan.geometry, source + input_at(&plan, tile), planes_of(&plan, tile),
                        planes_from(&plan, tile) * plan.inputs, target + output_at(&plan, tile),
                        NULL if winners == NULL else winners + tile * plan.group * plan.outputs,
                        own_scratch(&plan))
    return (y, indices) if return_indices else y


def max_pool_backward(np.ndarray grad_output, np.ndarray x, tuple out_size, windows=None):
    grad_output, x = contiguous(grad_output), contiguous(x)
    cdef plan plan
    cdef Block _memory = make_plan(&plan, x, (<object> x).shape, out_size, windows, BACKWARD_NANOSECONDS)
    cdef const pool_kernels *kernel = kernels_for(x).pool
    cdef np.ndarray grad_input = empty_like(x)
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t tile
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        kernel.max_pool_backward(&plan.geometry, dy + output_at(&plan, tile), source + input_at(&plan, tile),
                                 planes_of(&plan, tile), planes_from(&plan, tile) * plan.inputs,
                                 dx + input_at(&plan, tile), own_scratch(&plan))
    return grad_input


def max_pool_route(np.ndarray grad_output, np.ndarray indices, tuple in_shape, tuple out_size):
    """None if an index is outside its plane."""
    grad_output, indices = contiguous(grad_output), contiguous(indices)
    cdef plan plan
    cdef Block _memory = make_plan(&plan, grad_output, in_shape, out_size, None, BACKWARD_NANOSECONDS)
    cdef const pool_kernels *kernel = kernels_for(grad_output).pool
    cdef np.ndarray grad_input = empty_of_shape(in_shape, np.PyArray_TYPE(grad_output))
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const int64_t *winners = <const int64_t *> np.PyArray_DATA(indices)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t tile, outside = 0
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        outside += kernel.max_pool_route(dy + output_at(&plan, tile), winners + tile * plan.group * plan.outputs,
                                         planes_of(&plan, tile), plan.outputs, plan.inputs,
                                         dx + input_at(&plan, tile))
    return None if outside else grad_input


def avg_pool(np.ndarray x, tuple out_size, windows=None, bint count_include_pad=False, ptrdiff_t divisor=0):
    x = contiguous(x)
    cdef tuple in_shape = (<object> x).shape
    cdef plan plan
    cdef Block _memory = make_plan(&plan, x, in_shape, out_size, windows, FORWARD_NANOSECONDS,
                                   count_include_pad, divisor)
    cdef const pool_kernels *kernel = kernels_for(x).pool
    cdef np.ndarray y = empty_of_shape(in_shape[:-len(out_size)] + out_size, np.PyArray_TYPE(x))
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t tile
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        kernel.avg_pool(&plan.geometry, source + input_at(&plan, tile), planes_of(&plan, tile),
                        planes_from(&plan, tile) * plan.inputs, target + output_at(&plan, tile), own_scratch(&plan))
    return y


def avg_pool_backward(np.ndarray grad_output, tuple in_shape, tuple out_size, windows=None,
                      bint count_include_pad=False, ptrdiff_t divisor=0):
    grad_output = contiguous(grad_output)
    cdef plan plan
    cdef Block _memory = make_plan(&plan, grad_output, in_shape, out_size, windows, BACKWARD_NANOSECONDS,
                                   count_include_pad, divisor)
    cdef const pool_kernels *kernel = kernels_for(grad_output).pool
    cdef np.ndarray grad_input = empty_of_shape(in_shape, np.PyArray_TYPE(grad_output))
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t tile
    for tile in prange(plan.tiles, nogil=True, num_threads=plan.threads):
        kernel.avg_pool_backward(&plan.geometry, dy + output_at(&plan, tile), planes_of(&plan, tile),
                                 planes_from(&plan, tile) * plan.outputs, dx + input_at(&plan, tile),
                                 own_scratch(&plan))
    return grad_input

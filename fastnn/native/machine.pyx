"""This machine's limits in the chosen instruction set: floating-point operations and memory traffic per second."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport machine_kernels
from fastnn.native.runtime cimport Block, ceil_div, kernels_for, scratch

import time

np.import_array()

__all__ = ["multiply_add_rate", "triad_rate"]


def multiply_add_rate(np.ndarray like, int threads, ptrdiff_t repeats):
    """Floating-point operations per second of `threads` threads in registers, for the dtype of `like`."""
    cdef const machine_kernels *kernel = kernels_for(like).machine
    cdef Block memory = scratch(threads * 64)
    cdef char *results = <char *> memory.data
    cdef double operations = 0
    cdef int thread
    start = time.perf_counter()
    for thread in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        operations += kernel.multiply_add(repeats, results + thread * 64)
    return operations / (time.perf_counter() - start)


def triad_rate(np.ndarray a, np.ndarray b, np.ndarray c, int threads):
    """Bytes per second of a = b + 0.5 c, three arrays counted."""
    cdef const machine_kernels *kernel = kernels_for(a).machine
    cdef ptrdiff_t count = np.PyArray_SIZE(a), itemsize = np.PyArray_ITEMSIZE(a)
    cdef ptrdiff_t chunk = ceil_div(count, threads), first
    cdef char *target = np.PyArray_BYTES(a)
    cdef const char *left = np.PyArray_BYTES(b)
    cdef const char *right = np.PyArray_BYTES(c)
    cdef int thread
    start = time.perf_counter()
    for thread in prange(threads, nogil=True, num_threads=threads, schedule="static"):
        first = min(thread * chunk, count)
        kernel.triad(target + first * itemsize, left + first * itemsize, right + first * itemsize, 0.5,
                     min(chunk, count - first))
    return 3 * count * itemsize / (time.perf_counter() - start)

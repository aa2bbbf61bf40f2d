"""Elementwise activations: one driver splits contiguous arrays into chunks."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport activation_kernels
from fastnn.native.runtime cimport contiguous, empty_like, kernels_for, threads_for

np.import_array()

__all__ = ["relu", "relu_backward"]

# Elements per chunk: 64 KiB of float32, so that a chunk's input and output stay in the second-level cache.
cdef ptrdiff_t CHUNK = 16384


def relu(np.ndarray x):
    x = contiguous(x)
    cdef np.ndarray y = empty_like(x)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t count = np.PyArray_SIZE(x), itemsize = np.PyArray_ITEMSIZE(x), chunk
    cdef ptrdiff_t chunks = (count + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, num_threads=threads_for(count * 0.3)):
        kernel.relu(source + chunk * CHUNK * itemsize, min(CHUNK, count - chunk * CHUNK),
                    target + chunk * CHUNK * itemsize)
    return y


def relu_backward(np.ndarray grad_output, np.ndarray x):
    grad_output = contiguous(grad_output)
    x = contiguous(x)
    cdef np.ndarray grad_input = empty_like(x)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t count = np.PyArray_SIZE(x), itemsize = np.PyArray_ITEMSIZE(x), chunk
    cdef ptrdiff_t chunks = (count + CHUNK - 1) // CHUNK
    for chunk in prange(chunks, nogil=True, num_threads=threads_for(count * 0.3)):
        kernel.relu_backward(dy + chunk * CHUNK * itemsize, source + chunk * CHUNK * itemsize,
                             min(CHUNK, count - chunk * CHUNK), dx + chunk * CHUNK * itemsize)
    return grad_input

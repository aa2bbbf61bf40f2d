"""Dropout: chunks of contiguous arrays, each multiplied by the noise of its own positions."""
cimport numpy as np
from cython.parallel cimport prange
from libc.stdint cimport uint32_t, uint64_t
from fastnn.native.kernels cimport random_kernels
from fastnn.native.runtime cimport contiguous, empty_like, kernels_for, threads_for

import numpy

np.import_array()

__all__ = ["dropout", "dropout_backward", "gaussian_dropout", "gaussian_dropout_backward", "philox"]

# Elements per chunk: a multiple of 32, because gaussian_dropout makes its noise in groups of 32 positions.
cdef enum:
    CHUNK = 16384

ctypedef void (*noise_kernel)(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double parameter,
                              void *output) noexcept nogil


cdef np.ndarray multiply_by_noise(noise_kernel kernel, np.ndarray x, uint64_t seed, uint64_t position,
                                  double parameter, double nanoseconds_per_element):
    x = contiguous(x)
    cdef np.ndarray y = empty_like(x)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t count = np.PyArray_SIZE(x), itemsize = np.PyArray_ITEMSIZE(x), start
    for start in prange(0, count, CHUNK, nogil=True, num_threads=threads_for(count * nanoseconds_per_element)):
        kernel(source + start * itemsize, min(CHUNK, count - start), seed, position + <uint64_t> start, parameter,
               target + start * itemsize)
    return y


def dropout(np.ndarray x, double p, uint64_t seed, uint64_t position):
    return multiply_by_noise(kernels_for(x).random.dropout, x, seed, position, p, 0.7)


def dropout_backward(np.ndarray grad_output, double p, uint64_t seed, uint64_t position):
    return dropout(grad_output, p, seed, position)


def gaussian_dropout(np.ndarray x, double std, uint64_t seed):
    return multiply_by_noise(kernels_for(x).random.gaussian_dropout, x, seed, 0, std, 1.5)


def gaussian_dropout_backward(np.ndarray grad_output, double std, uint64_t seed):
    return gaussian_dropout(grad_output, std, seed)


def philox(uint64_t seed, uint64_t position, ptrdiff_t count):
    words = numpy.empty(count, numpy.uint32)
    cdef uint32_t *target = <uint32_t *> np.PyArray_DATA(words)
    cdef const random_kernels *kernel = kernels_for(words).random
    with nogil:
        kernel.philox(seed, position, count, target)
    return words

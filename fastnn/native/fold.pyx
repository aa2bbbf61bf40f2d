"""im2col (unfold) and col2im (fold): one task per channel of an image."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport fold_geometry
from fastnn.native.runtime cimport contiguous, kernels_for, threads_for

from fastnn.native.runtime import allocate

np.import_array()

__all__ = ["fold", "fold_backward", "unfold", "unfold_backward"]

ctypedef void (*channel_kernel)(const fold_geometry *geometry, const void *source, void *target) noexcept nogil


cdef fold_geometry make_geometry(size, kernel_size, dilation, padding, stride):
    cdef fold_geometry geometry
    for i in range(2):
        geometry.image[i] = size[i]
        geometry.kernel[i] = kernel_size[i]
        geometry.dilation[i] = dilation[i]
        geometry.padding[i] = padding[i]
        geometry.stride[i] = stride[i]
        geometry.grid[i] = (size[i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1
    return geometry


cdef np.ndarray run(channel_kernel kernel, const fold_geometry *geometry, np.ndarray source, tuple target_shape,
                    ptrdiff_t channels):
    source = contiguous(source)
    cdef np.ndarray target = allocate(target_shape, source.dtype)
    cdef const char *source_bytes = np.PyArray_BYTES(source)
    cdef char *target_bytes = np.PyArray_BYTES(target)
    cdef ptrdiff_t source_step = np.PyArray_NBYTES(source) // max(1, channels)
    cdef ptrdiff_t target_step = np.PyArray_NBYTES(target) // max(1, channels)
    cdef double copied = max(np.PyArray_SIZE(source), np.PyArray_SIZE(target))
    cdef ptrdiff_t channel
    for channel in prange(channels, nogil=True, num_threads=threads_for(copied * 0.4)):
        kernel(geometry, source_bytes + channel * source_step, target_bytes + channel * target_step)
    return target


def unfold(x, kernel_size, dilation, padding, stride):
    images, channels, *size = x.shape
    cdef fold_geometry geometry = make_geometry(size, kernel_size, dilation, padding, stride)
    shape = (images, channels * kernel_size[0] * kernel_size[1], geometry.grid[0] * geometry.grid[1])
    return run(kernels_for(x).fold.unfold, &geometry, x, shape, images * channels)


def unfold_backward(grad_output, x, kernel_size, dilation, padding, stride):
    return fold(grad_output, x.shape[2:], kernel_size, dilation, padding, stride)


def fold(x, output_size, kernel_size, dilation, padding, stride):
    images, depth, _ = x.shape
    channels = depth // (kernel_size[0] * kernel_size[1])
    cdef fold_geometry geometry = make_geometry(output_size, kernel_size, dilation, padding, stride)
    return run(kernels_for(x).fold.fold, &geometry, x, (images, channels, *output_size), images * channels)


def fold_backward(grad_output, x, output_size, kernel_size, dilation, padding, stride):
    return unfold(grad_output, kernel_size, dilation, padding, stride)

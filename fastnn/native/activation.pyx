"""Elementwise activations: one driver splits arrays as they stand into chunks and runs the chosen kernel on each."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport (
    ELU, GELU, GELU_TANH, HARDSWISH, HARDTANH, LEAKY_RELU, LOG_SIGMOID, RELU, SIGMOID, SILU, SOFTPLUS, TANH,
    activation_kernels)
from fastnn.native.runtime cimport (
    Block, ceil_div, channels_last, contiguous, either_layout, empty_in_layout, empty_like, kernels_for, scratch,
    threads_for)

np.import_array()

__all__ = [
    "add", "elu", "elu_backward", "gelu", "gelu_backward", "hardswish", "hardswish_backward", "hardtanh",
    "hardtanh_backward", "leaky_relu", "leaky_relu_backward", "log_sigmoid", "log_sigmoid_backward", "prelu",
    "prelu_backward", "relu", "relu_backward", "sigmoid", "sigmoid_backward", "silu", "silu_backward", "softplus",
    "softplus_backward", "tanh", "tanh_backward",
]

# Elements per chunk: 64 KiB of float32, so that a chunk's input and output stay in the second-level cache.
cdef ptrdiff_t CHUNK = 16384

# Nanoseconds per element on one thread, for threads_for: kernels that wait for memory, and those that compute.
cdef double COPY = 0.3
cdef double COMPUTE = 1.0


cdef inline np.ndarray like(np.ndarray x):
    """An array for a result that stands in memory as x does."""
    return empty_like(x) if np.PyArray_IS_C_CONTIGUOUS(x) else empty_in_layout(x, (<object> x).shape)


cdef inline np.ndarray standing_as(np.ndarray x, np.ndarray other):
    """The other array, or a copy, with its channels where x has them."""
    return contiguous(other) if np.PyArray_IS_C_CONTIGUOUS(x) else channels_last(other)


cdef np.ndarray forward(int kind, double nanoseconds, np.ndarray x, double a=0, double b=0):
    x = either_layout(x)
    cdef np.ndarray y = like(x)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t count = np.PyArray_SIZE(x), itemsize = np.PyArray_ITEMSIZE(x), chunk
    cdef ptrdiff_t chunks = ceil_div(count, CHUNK)
    for chunk in prange(chunks, nogil=True, num_threads=threads_for(count * nanoseconds)):
        kernel.forward[kind](source + chunk * CHUNK * itemsize, min(CHUNK, count - chunk * CHUNK), a, b,
                             target + chunk * CHUNK * itemsize)
    return y


cdef np.ndarray backward(int kind, double nanoseconds, np.ndarray grad_output, np.ndarray x,
                         double a=0, double b=0):
    x = either_layout(x)
    grad_output = standing_as(x, grad_output)
    cdef np.ndarray grad_input = like(x)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t count = np.PyArray_SIZE(x), itemsize = np.PyArray_ITEMSIZE(x), chunk
    cdef ptrdiff_t chunks = ceil_div(count, CHUNK)
    for chunk in prange(chunks, nogil=True, num_threads=threads_for(count * nanoseconds)):
        kernel.backward[kind](dy + chunk * CHUNK * itemsize, source + chunk * CHUNK * itemsize,
                              min(CHUNK, count - chunk * CHUNK), a, b, dx + chunk * CHUNK * itemsize)
    return grad_input


def add(np.ndarray a, np.ndarray b, bint relu):
    """a + b, or its ReLU."""
    a = either_layout(a)
    b = standing_as(a, b)
    cdef np.ndarray y = like(a)
    cdef const activation_kernels *kernel = kernels_for(a).activation
    cdef const char *first = np.PyArray_BYTES(a)
    cdef const char *second = np.PyArray_BYTES(b)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t count = np.PyArray_SIZE(a), itemsize = np.PyArray_ITEMSIZE(a), chunk, start
    for chunk in prange(ceil_div(count, CHUNK), nogil=True, num_threads=threads_for(count * COPY)):
        start = chunk * CHUNK
        kernel.add(first + start * itemsize, second + start * itemsize, min(CHUNK, count - start), relu,
                   target + start * itemsize)
    return y


def relu(np.ndarray x):
    return forward(RELU, COPY, x)


def relu_backward(np.ndarray grad_output, np.ndarray x):
    return backward(RELU, COPY, grad_output, x)


def leaky_relu(np.ndarray x, double slope):
    return forward(LEAKY_RELU, COPY, x, slope)


def leaky_relu_backward(np.ndarray grad_output, np.ndarray x, double slope):
    return backward(LEAKY_RELU, COPY, grad_output, x, slope)


def elu(np.ndarray x, double alpha):
    return forward(ELU, COMPUTE, x, alpha)


def elu_backward(np.ndarray grad_output, np.ndarray x, double alpha):
    return backward(ELU, COMPUTE, grad_output, x, alpha)


def sigmoid(np.ndarray x):
    return forward(SIGMOID, COMPUTE, x)


def sigmoid_backward(np.ndarray grad_output, np.ndarray x):
    return backward(SIGMOID, COMPUTE, grad_output, x)


def tanh(np.ndarray x):
    return forward(TANH, COMPUTE, x)


def tanh_backward(np.ndarray grad_output, np.ndarray x):
    return backward(TANH, COMPUTE, grad_output, x)


def softplus(np.ndarray x, double beta, double threshold):
    return forward(SOFTPLUS, COMPUTE, x, beta, threshold)


def softplus_backward(np.ndarray grad_output, np.ndarray x, double beta, double threshold):
    return backward(SOFTPLUS, COMPUTE, grad_output, x, beta, threshold)


def log_sigmoid(np.ndarray x):
    return forward(LOG_SIGMOID, COMPUTE, x)


def log_sigmoid_backward(np.ndarray grad_output, np.ndarray x):
    return backward(LOG_SIGMOID, COMPUTE, grad_output, x)


def gelu(np.ndarray x, approximate):
    return forward(GELU_TANH if approximate == "tanh" else GELU, COMPUTE, x)


def gelu_backward(np.ndarray grad_output, np.ndarray x, approximate):
    return backward(GELU_TANH if approximate == "tanh" else GELU, COMPUTE, grad_output, x)


def silu(np.ndarray x):
    return forward(SILU, COMPUTE, x)


def silu_backward(np.ndarray grad_output, np.ndarray x):
    return backward(SILU, COMPUTE, grad_output, x)


def hardtanh(np.ndarray x, double lowest, double highest):
    return forward(HARDTANH, COPY, x, lowest, highest)


def hardtanh_backward(np.ndarray grad_output, np.ndarray x, double lowest, double highest):
    return backward(HARDTANH, COPY, grad_output, x, lowest, highest)


def hardswish(np.ndarray x):
    return forward(HARDSWISH, COPY, x)


def hardswish_backward(np.ndarray grad_output, np.ndarray x):
    return backward(HARDSWISH, COPY, grad_output, x)


# How prelu's input (N, C, ...) is cut into tiles. It is `lines` lines of `length` elements: with more than one element
# per channel, or one channel, a line per image and channel; else (per_element) a line per image with all its channels.
# A tile has some whole lines, or one of the `segments` of a long line.
cdef struct prelu_plan:
    ptrdiff_t channels, lines, length, lines_per_tile, segments, tiles
    bint per_element


cdef prelu_plan plan_prelu(np.ndarray x, np.ndarray weight):
    cdef prelu_plan plan
    cdef ptrdiff_t count = np.PyArray_SIZE(x)
    plan.channels = np.PyArray_SIZE(weight)
    plan.lines = 0 if count == 0 else np.PyArray_DIMS(x)[0] * plan.channels if plan.channels > 1 else 1
    plan.length = count // max(1, plan.lines)
    plan.per_element = plan.channels > 1 and plan.length == 1
    if plan.per_element:
        plan.lines //= plan.channels
        plan.length = plan.channels
    plan.segments = 1 if plan.per_element else max(1, ceil_div(plan.length, CHUNK))
    plan.lines_per_tile = max(1, CHUNK // max(1, plan.length))
    plan.tiles = ceil_div(plan.lines, plan.lines_per_tile) * plan.segments
    return plan


def prelu(np.ndarray x, np.ndarray weight):
    x = contiguous(x)
    weight = contiguous(weight)
    cdef np.ndarray y = empty_like(x)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *slopes = np.PyArray_BYTES(weight)
    cdef char *target = np.PyArray_BYTES(y)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), tile, line, start, offset
    cdef prelu_plan plan = plan_prelu(x, weight)
    for tile in prange(plan.tiles, nogil=True, num_threads=threads_for(np.PyArray_SIZE(x) * COPY)):
        line = tile // plan.segments * plan.lines_per_tile
        start = tile % plan.segments * CHUNK
        offset = (line * plan.length + start) * itemsize
        kernel.prelu(source + offset, slopes, line, min(plan.lines_per_tile, plan.lines - line),
                     plan.length if plan.segments == 1 else min(CHUNK, plan.length - start), plan.length,
                     plan.channels, plan.per_element, target + offset)
    return y


def prelu_backward(np.ndarray grad_output, np.ndarray x, np.ndarray weight):
    grad_output = contiguous(grad_output)
    x = contiguous(x)
    weight = contiguous(weight)
    cdef np.ndarray grad_input = empty_like(x)
    cdef np.ndarray grad_weight = empty_like(weight)
    cdef const activation_kernels *kernel = kernels_for(x).activation
    cdef const char *dy = np.PyArray_BYTES(grad_output)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef const char *slopes = np.PyArray_BYTES(weight)
    cdef char *dx = np.PyArray_BYTES(grad_input)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), tile, line, start, offset
    cdef prelu_plan plan = plan_prelu(x, weight)
    # A sum per tile and channel, or per line and segment: prelu_reduce adds them in this order.
    cdef ptrdiff_t partial_count = plan.tiles * plan.channels if plan.per_element else plan.lines * plan.segments
    cdef Block partials = scratch(partial_count * itemsize)
    cdef char *sums = <char *> partials.data
    for tile in prange(plan.tiles, nogil=True, num_threads=threads_for(np.PyArray_SIZE(x) * COPY)):
        line = tile // plan.segments * plan.lines_per_tile
        start = tile % plan.segments * CHUNK
        offset = (line * plan.length + start) * itemsize
        kernel.prelu_backward(
            dy + offset, source + offset, slopes, line, min(plan.lines_per_tile, plan.lines - line),
            plan.length if plan.segments == 1 else min(CHUNK, plan.length - start), plan.length,
            plan.channels, plan.per_element, dx + offset,
            sums + (tile * plan.channels if plan.per_element
                    else line * plan.segments + tile % plan.segments) * itemsize, plan.segments)
    if plan.per_element:
        kernel.prelu_reduce(sums, plan.tiles, plan.channels, 1, np.PyArray_BYTES(grad_weight))
    else:
        kernel.prelu_reduce(sums, plan.lines // max(1, plan.channels), plan.channels, plan.segments,
                            np.PyArray_BYTES(grad_weight))
    return grad_input, grad_weight

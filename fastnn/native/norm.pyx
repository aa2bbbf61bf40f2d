"""Batch, instance and group norm: one driver over [images][channels][positions]. Layer norm: a driver over rows."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport NORM_COLUMNS, norm_kernels, norm_shape, norm_tile
from fastnn.native.runtime cimport Block, ceil_div, contiguous, empty, empty_like, kernels_for, scratch, threads_for

import numpy as np

np.import_array()

__all__ = [
    "batch_norm", "batch_norm_backward", "group_norm", "group_norm_backward", "instance_norm", "instance_norm_backward",
    "layer_norm", "layer_norm_backward"]

# A block of small channels has about this many elements.
cdef ptrdiff_t BLOCK = 8192
# With fewer blocks than this, channels are cut into parts of at least PART elements, so that threads have work.
cdef ptrdiff_t FEW_BLOCKS = 16
cdef ptrdiff_t PART = 32768

# Layer norm's rows per part in the backward, at least: a part has sums of its own for weight and bias.
cdef ptrdiff_t PART_ROWS = 16

# Nanoseconds per element on one thread, from the cache.
cdef double FORWARD_COST = 0.3
cdef double BACKWARD_COST = 0.6


# How channels are cut: into blocks of whole channels, and each block's elements into parts. One part: a block goes
# through all passes at once, while it is in the cache.
cdef struct Split:
    ptrdiff_t block    # channels per block
    ptrdiff_t blocks
    ptrdiff_t part     # elements (images * positions) per part
    ptrdiff_t parts


cdef struct Work:
    const norm_kernels *kernel
    norm_shape shape
    norm_shape grouped       # the same array with the statistics' groups as channels
    Split split
    Split grouped_split
    const void *x
    const void *dy
    const void *residual     # or NULL
    void *result             # y or dx
    const void *weight
    const void *bias
    void *running_mean
    void *running_var
    double momentum
    double eps
    bint known               # mean and inverse_deviation are given
    bint training
    bint relu
    double *moments          # [grouped_split.parts][groups][2]
    double *mean             # [groups]
    double *inverse_deviation
    double *sums             # [split.parts][channels][2]
    void *affine             # [3][channels]
    void *gradient           # [4][channels]
    double nanoseconds


cdef Split split_of(const norm_kernels *kernel, const norm_shape *shape) noexcept nogil:
    cdef Split split
    cdef ptrdiff_t elements = shape.images * shape.positions
    cdef bint by_columns = kernel.by_columns(shape)
    split.block = NORM_COLUMNS // shape.positions if by_columns else max(BLOCK // elements, 1)
    split.block = min(split.block, shape.channels)
    split.blocks = ceil_div(shape.channels, split.block)
    split.parts = 1
    if split.blocks < FEW_BLOCKS:
        split.parts = min(ceil_div(split.block * elements, PART), ceil_div(2 * FEW_BLOCKS, split.blocks))
    cdef ptrdiff_t unit = shape.positions if by_columns or shape.images >= 2 * split.parts else 64
    split.part = ceil_div(ceil_div(elements, split.parts), unit) * unit
    split.parts = ceil_div(elements, split.part)
    return split


cdef norm_tile tile_of(const norm_shape *shape, const Split *split, ptrdiff_t block, ptrdiff_t part) noexcept nogil:
    cdef norm_tile tile
    tile.channel = block * split.block
    tile.channels = min(split.block, shape.channels - tile.channel)
    tile.start = part * split.part
    tile.count = min(split.part, shape.images * shape.positions - tile.start)
    return tile


# The passes, each over one part of one block. The second pass of two counts units from the end, because what the first
# has read last is still in the cache.

cdef void measure(const Work *work, ptrdiff_t unit) noexcept nogil:
    cdef ptrdiff_t part = unit % work.grouped_split.parts
    cdef norm_tile tile = tile_of(&work.grouped, &work.grouped_split, unit // work.grouped_split.parts, part)
    work.kernel.moments(&work.grouped, &tile, work.x, work.moments + 2 * part * work.grouped.channels)


cdef void settle(const Work *work, ptrdiff_t first, ptrdiff_t count) noexcept nogil:
    """Statistics (unless they are known) and affine coefficients of some groups."""
    if not work.known:
        work.kernel.statistics(first, count, work.grouped.channels, work.moments, work.grouped_split.parts,
                               work.grouped_split.part, work.grouped.images * work.grouped.positions, work.eps,
                               work.mean, work.inverse_deviation, work.running_mean, work.running_var, work.momentum)
    work.kernel.affine_coefficients(&work.shape, first * work.shape.group, count * work.shape.group, work.mean,
                                    work.inverse_deviation, work.weight, work.bias, work.affine)


cdef void transform(const Work *work, ptrdiff_t unit) noexcept nogil:
    unit = work.split.blocks * work.split.parts - 1 - unit
    cdef norm_tile tile = tile_of(&work.shape, &work.split, unit // work.split.parts, unit % work.split.parts)
    work.kernel.affine(&work.shape, &tile, work.x, work.affine, work.residual, work.relu, work.result)


cdef void add_up(const Work *work, ptrdiff_t unit) noexcept nogil:
    cdef ptrdiff_t part = unit % work.split.parts
    cdef norm_tile tile = tile_of(&work.shape, &work.split, unit // work.split.parts, part)
    work.kernel.gradient_sums(&work.shape, &tile, work.dy, work.x, work.affine, work.relu,
                              work.sums + 2 * part * work.shape.channels)


cdef void transform_back(const Work *work, ptrdiff_t unit) noexcept nogil:
    unit = work.split.blocks * work.split.parts - 1 - unit
    cdef norm_tile tile = tile_of(&work.shape, &work.split, unit // work.split.parts, unit % work.split.parts)
    work.kernel.backward(&work.shape, &tile, work.dy, work.x, work.affine, work.gradient, work.relu, work.training,
                         work.result)


cdef norm_tile channels_of(const Work *work, ptrdiff_t block) noexcept nogil:
    """All elements of the channels of a block of groups."""
    cdef norm_tile tile = tile_of(&work.grouped, &work.grouped_split, block, 0)
    tile.channel *= work.shape.group
    tile.channels *= work.shape.group
    tile.count = work.shape.images * work.shape.positions
    return tile


cdef void forward_block(const Work *work, ptrdiff_t block) noexcept nogil:
    cdef norm_tile tile = channels_of(work, block)
    if not work.known:
        measure(work, block)
    settle(work, tile.channel // work.shape.group, tile.channels // work.shape.group)
    work.kernel.affine(&work.shape, &tile, work.x, work.affine, work.residual, work.relu, work.result)


cdef void backward_block(const Work *work, ptrdiff_t block) noexcept nogil:
    cdef norm_tile tile = channels_of(work, block)
    cdef ptrdiff_t first = tile.channel // work.shape.group, count = tile.channels // work.shape.group
    if not work.known:
        measure(work, block)
    settle(work, first, count)
    work.kernel.gradient_sums(&work.shape, &tile, work.dy, work.x, work.affine, work.relu, work.sums)
    work.kernel.gradient_coefficients(&work.shape, first, count, work.sums, 1, work.mean, work.inverse_deviation,
                                      work.weight, work.gradient)
    work.kernel.backward(&work.shape, &tile, work.dy, work.x, work.affine, work.gradient, work.relu, work.training,
                         work.result)


cdef void find_statistics(const Work *work, int threads) noexcept nogil:
    cdef ptrdiff_t unit
    if not work.known:
        for unit in prange(work.grouped_split.blocks * work.grouped_split.parts, num_threads=threads):
            measure(work, unit)
    settle(work, 0, work.grouped.channels)


cdef void run_forward(const Work *work) noexcept nogil:
    cdef int threads = threads_for(work.nanoseconds)
    cdef ptrdiff_t unit
    if work.grouped_split.parts == 1:
        for unit in prange(work.grouped_split.blocks, num_threads=threads, schedule="dynamic"):
            forward_block(work, unit)
        return
    find_statistics(work, threads)
    for unit in prange(work.split.blocks * work.split.parts, num_threads=threads):
        transform(work, unit)


cdef void run_backward(const Work *work) noexcept nogil:
    cdef int threads = threads_for(work.nanoseconds)
    cdef ptrdiff_t unit
    if work.grouped_split.parts == 1:
        for unit in prange(work.grouped_split.blocks, num_threads=threads, schedule="dynamic"):
            backward_block(work, unit)
        return
    find_statistics(work, threads)
    for unit in prange(work.split.blocks * work.split.parts, num_threads=threads):
        add_up(work, unit)
    work.kernel.gradient_coefficients(&work.shape, 0, work.grouped.channels, work.sums, work.split.parts, work.mean,
                                      work.inverse_deviation, work.weight, work.gradient)
    for unit in prange(work.split.blocks * work.split.parts, num_threads=threads):
        transform_back(work, unit)


cdef void *pointer(array):
    return NULL if array is None else np.PyArray_DATA(array)


cdef class Norm:
    """One call: what the passes work on, and the arrays that keep it alive."""

    cdef Work work
    cdef Block moments, sums, affine, gradient
    cdef np.ndarray x
    cdef object weight, bias
    cdef np.ndarray mean, inverse_deviation

    def __cinit__(self, np.ndarray x, ptrdiff_t images, ptrdiff_t channels, ptrdiff_t group, ptrdiff_t weights,
                  weight, bias, double eps, saved=None):
        """x, contiguous, is [images][channels][positions]; weight and bias are arrays of `weights` values or None."""
        cdef Work *work = &self.work
        cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), positions = np.PyArray_SIZE(x) // (images * channels)
        cdef np.npy_intp groups = channels // group
        self.x = x
        self.weight = None if weight is None else contiguous(weight)
        self.bias = None if bias is None else contiguous(bias)
        work.kernel = kernels_for(x).norm
        work.shape = norm_shape(images, channels, positions, group, weights)
        work.grouped = norm_shape(images, groups, positions * group, 1, groups)
        work.split = split_of(work.kernel, &work.shape)
        work.grouped_split = split_of(work.kernel, &work.grouped)
        if saved is None:
            self.mean = empty(1, &groups, np.NPY_FLOAT64)
            self.inverse_deviation = empty(1, &groups, np.NPY_FLOAT64)
        else:
            self.mean, self.inverse_deviation = map(contiguous_array, saved)
        self.moments = scratch(16 * work.grouped_split.parts * groups)
        self.affine = scratch(3 * channels * itemsize)
        work.x = np.PyArray_DATA(x)
        work.weight = pointer(self.weight)
        work.bias = pointer(self.bias)
        work.eps = eps
        work.known = saved is not None
        work.training = True
        work.moments = <double *> self.moments.data
        work.mean = <double *> np.PyArray_DATA(self.mean)
        work.inverse_deviation = <double *> np.PyArray_DATA(self.inverse_deviation)
        work.affine = self.affine.data

    cdef void fix(self, running_mean, running_var) except *:
        """Inference: takes the statistics from the running ones."""
        running_mean, running_var = contiguous(running_mean), contiguous(running_var)
        self.work.kernel.fixed_statistics(self.work.grouped.channels, pointer(running_mean), pointer(running_var),
                                          self.work.eps, self.work.mean, self.work.inverse_deviation)
        self.work.known = True

    cdef np.ndarray forward(self, bint relu, np.ndarray residual, running_mean=None, running_var=None,
                            double momentum=0):
        """The output; updates the running statistics where they are given. A residual is contiguous, and wants relu."""
        cdef np.ndarray y = empty_like(self.x)
        cdef const Work *work = &self.work
        means = None if running_mean is None else contiguous(running_mean)
        variances = None if running_var is None else contiguous(running_var)
        self.work.running_mean = pointer(means)
        self.work.running_var = pointer(variances)
        self.work.momentum = momentum
        self.work.relu = relu
        self.work.residual = pointer(residual)
        self.work.result = np.PyArray_DATA(y)
        self.work.nanoseconds = FORWARD_COST * np.PyArray_SIZE(y)
        with nogil:
            run_forward(work)
        if means is not running_mean:
            running_mean[...] = means
        if variances is not running_var:
            running_var[...] = variances
        return y

    cdef tuple backward(self, np.ndarray grad_output, bint training, bint relu):
        """Gradients of x, weight and bias; grad_output is contiguous."""
        cdef np.ndarray dx = empty_like(self.x)
        cdef const Work *work = &self.work
        cdef np.npy_intp weights = work.shape.weights
        self.sums = scratch(16 * work.split.parts * work.shape.channels)
        self.gradient = scratch(4 * work.shape.channels * np.PyArray_ITEMSIZE(dx))
        self.work.sums = <double *> self.sums.data
        self.work.gradient = self.gradient.data
        self.work.dy = np.PyArray_DATA(grad_output)
        self.work.training = training
        self.work.relu = relu
        self.work.result = np.PyArray_DATA(dx)
        self.work.nanoseconds = BACKWARD_COST * np.PyArray_SIZE(dx)
        with nogil:
            run_backward(work)
        dweight = None if self.weight is None else empty(1, &weights, np.PyArray_TYPE(dx))
        dbias = None if self.bias is None else empty(1, &weights, np.PyArray_TYPE(dx))
        work.kernel.weight_gradients(&work.shape, work.sums, pointer(dweight), pointer(dbias))
        return dx, dweight, dbias


def contiguous_array(np.ndarray x):
    return contiguous(x)


def channels_last(np.ndarray x):
    """Whether x, (N, C, ...), is the view of a contiguous (N, ..., C) array; its result then has the same layout."""
    return x.ndim > 2 and not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous


def batch_norm(np.ndarray x, running_mean, running_var, weight, bias, bint training, double momentum, double eps,
               bint relu, residual=None):
    cdef Norm norm
    cdef ptrdiff_t channels = x.shape[1], images = x.shape[0]
    cdef bint last = channels_last(x)
    x = np.moveaxis(x, 1, -1) if last else contiguous(x)
    if residual is not None:
        residual = contiguous(np.moveaxis(residual, 1, -1) if last else residual)
    if last:
        images = x.size // channels
    norm = Norm(x, images, channels, 1, channels, weight, bias, eps)
    if training:
        y = norm.forward(relu, residual, running_mean, running_var, momentum)
    else:
        norm.fix(running_mean, running_var)
        y = norm.forward(relu, residual)
    return np.moveaxis(y, -1, 1) if last else y, (norm.mean, norm.inverse_deviation)


def batch_norm_backward(np.ndarray grad_output, np.ndarray x, running_mean, running_var, weight, bias, bint training,
                        double eps, saved, bint relu):
    cdef Norm norm
    cdef ptrdiff_t channels = x.shape[1], images = x.shape[0]
    cdef bint last = channels_last(x)
    x = np.moveaxis(x, 1, -1) if last else contiguous(x)
    grad_output = contiguous(np.moveaxis(grad_output, 1, -1)) if last else contiguous(grad_output)
    if last:
        images = x.size // channels
    norm = Norm(x, images, channels, 1, channels, weight, bias, eps, saved)
    if not training and saved is None:
        norm.fix(running_mean, running_var)
    dx, dweight, dbias = norm.backward(grad_output, training, relu)
    return np.moveaxis(dx, -1, 1) if last else dx, dweight, dbias


def group_norm(np.ndarray x, ptrdiff_t num_groups, weight, bias, double eps):
    cdef Norm norm
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1]
    x = contiguous(x)
    norm = Norm(x, 1, images * channels, channels // num_groups, channels, weight, bias, eps)
    return norm.forward(False, None)


def group_norm_backward(np.ndarray grad_output, np.ndarray x, ptrdiff_t num_groups, weight, bias, double eps):
    cdef Norm norm
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1]
    x = contiguous(x)
    norm = Norm(x, 1, images * channels, channels // num_groups, channels, weight, bias, eps)
    return norm.backward(contiguous(grad_output), True, False)


def instance_norm(np.ndarray x, running_mean, running_var, weight, bias, bint use_input_stats, double momentum,
                  double eps):
    cdef Norm norm
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1]
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, 0, eps, False)[0]
    x = contiguous(x)
    norm = Norm(x, 1, images * channels, 1, channels, weight, bias, eps)
    if running_mean is None:
        return norm.forward(False, None)
    means, variances = np.tile(running_mean, images), np.tile(running_var, images)
    y = norm.forward(False, None, means, variances, momentum)
    running_mean[...] = means.reshape(images, channels).mean(0)
    running_var[...] = variances.reshape(images, channels).mean(0)
    return y


def instance_norm_backward(np.ndarray grad_output, np.ndarray x, running_mean, running_var, weight, bias,
                           bint use_input_stats, double eps):
    if not use_input_stats:
        return batch_norm_backward(grad_output, x, running_mean, running_var, weight, bias, False, eps, None, False)
    return group_norm_backward(grad_output, x, x.shape[1], weight, bias, eps)


def layer_norm(np.ndarray x, ptrdiff_t length, weight, bias, double eps):
    """Rows are the last `length` elements of x, which may be several axes."""
    x = contiguous(x)
    weight = None if weight is None else contiguous(weight)
    bias = None if bias is None else contiguous(bias)
    cdef np.ndarray y = empty_like(x)
    cdef const norm_kernels *kernel = kernels_for(x).norm
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(y)
    cdef const void *weights = pointer(weight)
    cdef const void *biases = pointer(bias)
    cdef ptrdiff_t rows = np.PyArray_SIZE(x) // length, tile = max(BLOCK // length, 1), unit
    cdef ptrdiff_t stride = tile * length * np.PyArray_ITEMSIZE(x)
    for unit in prange(ceil_div(rows, tile), nogil=True, schedule="dynamic",
                       num_threads=threads_for(FORWARD_COST * np.PyArray_SIZE(x))):
        kernel.layer(source + unit * stride, weights, biases, min(tile, rows - unit * tile), length, eps,
                     target + unit * stride)
    return y


def layer_norm_backward(np.ndarray grad_output, np.ndarray x, ptrdiff_t length, weight, bias, double eps):
    x = contiguous(x)
    grad_output = contiguous(grad_output)
    dweight = None if weight is None else empty_like(weight)
    dbias = None if bias is None else empty_like(bias)
    weight = None if weight is None else contiguous(weight)
    cdef np.ndarray dx = empty_like(x)
    cdef const norm_kernels *kernel = kernels_for(x).norm
    cdef const char *gradients = np.PyArray_BYTES(grad_output)
    cdef const char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(dx)
    cdef const void *weights = pointer(weight)
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), rows = np.PyArray_SIZE(x) // length, part
    cdef ptrdiff_t part_rows = max(ceil_div(rows, 2 * FEW_BLOCKS), PART_ROWS)
    cdef ptrdiff_t parts = ceil_div(rows, part_rows), stride = part_rows * length * itemsize
    cdef Block accumulators = scratch(2 * parts * length * itemsize), sums = scratch(16 * parts * length)
    cdef char *accumulator = <char *> accumulators.data
    cdef double *sum = <double *> sums.data
    for part in prange(parts, nogil=True, schedule="dynamic",
                       num_threads=threads_for(BACKWARD_COST * np.PyArray_SIZE(x))):
        kernel.layer_backward(gradients + part * stride, source + part * stride, weights,
                              min(part_rows, rows - part * part_rows), length, eps, target + part * stride,
                              accumulator + 2 * part * length * itemsize, sum + 2 * part * length)
    kernel.layer_weight_gradients(sum, parts, length, pointer(dweight), pointer(dbias))
    return dx, dweight, dbias

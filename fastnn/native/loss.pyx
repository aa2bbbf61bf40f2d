"""Losses. Cross-entropy is split by positions, elementwise losses by elements; a tile's sum of losses goes to a place
of its own, and these are added in order.
"""
cimport numpy as np
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from fastnn.native.kernels cimport (
    FASTNN_BCE, FASTNN_BCE_LOGITS, FASTNN_HUBER, FASTNN_KL, FASTNN_KL_LOG, FASTNN_L1, FASTNN_MSE, FASTNN_SMOOTH_L1,
    cross_entropy as cross_entropy_problem, elementwise_loss, loss_kernels)
from fastnn.native.runtime cimport Block, ceil_div, contiguous, empty, empty_like, kernels_for, scratch, threads_for

np.import_array()

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_with_grad",
    "huber_loss",
    "huber_loss_backward",
    "kl_div",
    "kl_div_backward",
    "l1_loss",
    "l1_loss_backward",
    "mse_loss",
    "mse_loss_backward",
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "nll_loss",
    "nll_loss_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
]

# Elements per tile: 64 KiB of float32, so that a tile's scores and gradients stay in the second-level cache.
cdef ptrdiff_t TILE = 16384
# Positions per tile come in multiples of the widest vector.
cdef ptrdiff_t POSITIONS = 16


cdef void *data_or_null(object array):
    if array is None:
        return NULL
    return np.PyArray_DATA(<np.ndarray> array)


cdef double sum_of(Block partials, ptrdiff_t count):
    cdef double total = 0
    cdef ptrdiff_t i
    for i in range(count):
        total += (<double *> partials.data)[i]
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Positions in tiles
# ---------------------------------------------------------------------------------------------------------------------

cdef struct position_tiles:
    ptrdiff_t per_image  # positions; rows of classes are one long image
    ptrdiff_t per_tile   # a tile stays within one image
    ptrdiff_t count      # tiles of an image
    ptrdiff_t tiles


cdef position_tiles positions_in_tiles(ptrdiff_t positions, ptrdiff_t inner, ptrdiff_t classes):
    cdef position_tiles split
    split.per_image = positions if inner == 1 else inner
    split.per_tile = max(1, TILE // max(1, classes))
    if split.per_tile > POSITIONS or inner > 1:
        split.per_tile = max(POSITIONS, split.per_tile // POSITIONS * POSITIONS)
    split.count = ceil_div(split.per_image, split.per_tile)
    split.tiles = positions // split.per_image * split.count if positions else 0
    return split


cdef ptrdiff_t first_position(position_tiles split, ptrdiff_t tile) noexcept nogil:
    return tile // split.count * split.per_image + tile % split.count * split.per_tile


cdef ptrdiff_t position_count(position_tiles split, ptrdiff_t tile) noexcept nogil:
    return min(split.per_tile, split.per_image - tile % split.count * split.per_tile)


# ---------------------------------------------------------------------------------------------------------------------
# Cross-entropy
# ---------------------------------------------------------------------------------------------------------------------

cdef tuple fused_cross_entropy(np.ndarray scores, np.ndarray target, object weight, int64_t ignore_index, str reduction,
                               double label_smoothing, object grad_output, bint want_gradient):
    """The loss, and the gradient or None. grad_output is a number, or an array for reduction="none"."""
    # Classes innermost in memory, behind spatial positions: rows of classes, in place.
    cdef bint classes_last = scores.shape[2] > 1 and scores.strides[1] == scores.itemsize
    if classes_last:
        scores = scores.transpose(0, 2, 1)
        if target.ndim == 3:
            target = target.transpose(0, 2, 1)
    scores = contiguous(scores)
    target = contiguous(target)
    weight = None if weight is None else contiguous(weight)

    cdef const loss_kernels *kernel = kernels_for(scores).loss
    cdef cross_entropy_problem problem
    cdef np.ndarray losses = None, gradient = None
    cdef np.npy_intp shape[2]
    cdef position_tiles split
    cdef ptrdiff_t outer = scores.shape[0], positions, tile
    cdef double size
    problem.classes = scores.shape[2] if classes_last else scores.shape[1]
    problem.inner = 1 if classes_last else scores.shape[2]
    shape[0] = outer
    shape[1] = scores.shape[1] if classes_last else scores.shape[2]
    positions = shape[0] * shape[1]

    problem.scores = np.PyArray_DATA(scores)
    problem.index = NULL
    problem.probability = NULL
    if target.ndim == 3:
        problem.probability = np.PyArray_DATA(target)
    else:
        problem.index = <int64_t *> np.PyArray_DATA(target)
    problem.weight = data_or_null(weight)
    problem.ignore_index = ignore_index
    problem.hard = 1 - label_smoothing
    problem.soft = label_smoothing / problem.classes
    problem.scale = 1
    problem.grad_output = NULL
    problem.losses = NULL
    problem.grad_scores = NULL

    size = positions
    if problem.index != NULL and reduction == "mean":
        size = kernel.target_weight(problem.index, positions, problem.weight, ignore_index)
    if reduction == "none":
        losses = empty(2, shape, np.PyArray_TYPE(scores))
        problem.losses = np.PyArray_DATA(losses)
        if grad_output is not None:
            grad_output = contiguous(grad_output)
            problem.grad_output = data_or_null(grad_output)
    else:
        problem.scale = 1.0 if grad_output is None else <double> grad_output
        if reduction == "mean":
            problem.scale /= size
    if want_gradient:
        gradient = empty_like(scores)
        problem.grad_scores = np.PyArray_DATA(gradient)

    split = positions_in_tiles(positions, problem.inner, problem.classes)
    cdef Block partials = scratch(split.tiles * sizeof(double))
    cdef double *partial = <double *> partials.data
    for tile in prange(split.tiles, nogil=True, num_threads=threads_for(positions * problem.classes * 1.2)):
        partial[tile] = kernel.cross_entropy(&problem, first_position(split, tile), position_count(split, tile))

    if classes_last and want_gradient:
        gradient = gradient.transpose(0, 2, 1)
    if reduction == "none":
        return losses, gradient
    cdef double total = sum_of(partials, split.tiles)
    return (total / size if reduction == "mean" else total), gradient


def cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing):
    return fused_cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing, None, False)[0]


def cross_entropy_backward(grad_output, scores, target, weight, ignore_index, reduction, label_smoothing):
    return fused_cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing, grad_output, True)[1]


def cross_entropy_with_grad(scores, target, weight, ignore_index, reduction, label_smoothing):
    return fused_cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing, None, True)


# ---------------------------------------------------------------------------------------------------------------------
# Losses of class indices without a softmax
# ---------------------------------------------------------------------------------------------------------------------

cdef class_loss(np.ndarray scores, np.ndarray target, object weight, int64_t ignore_index, str reduction, int power,
                double margin, bint backward, object grad_output):
    """The loss or, backward, its gradient: power 0 is the negative log likelihood, 1 and 2 the margin loss."""
    scores = contiguous(scores)
    target = contiguous(target)
    weight = None if weight is None else contiguous(weight)
    cdef const loss_kernels *kernel = kernels_for(scores).loss
    cdef cross_entropy_problem problem
    cdef np.ndarray losses = None, gradient = None
    cdef ptrdiff_t positions = np.PyArray_SIZE(target), tile
    cdef double size = positions
    problem.classes = scores.shape[1]
    problem.inner = scores.shape[2] if scores.ndim == 3 else 1
    problem.scores = np.PyArray_DATA(scores)
    problem.index = <int64_t *> np.PyArray_DATA(target)
    problem.probability = NULL
    problem.weight = data_or_null(weight)
    problem.ignore_index = ignore_index
    problem.scale = 1
    problem.grad_output = problem.losses = problem.grad_scores = NULL
    if power == 0 and reduction == "mean":
        size = kernel.target_weight(problem.index, positions, problem.weight, ignore_index)
    if backward:
        gradient = empty_like(scores)
        problem.grad_scores = np.PyArray_DATA(gradient)
        if reduction == "none":
            grad_output = contiguous(grad_output)
            problem.grad_output = data_or_null(grad_output)
        else:
            problem.scale = <double> grad_output / (size if reduction == "mean" else 1.0)
    elif reduction == "none":
        losses = empty(np.PyArray_NDIM(target), np.PyArray_DIMS(target), np.PyArray_TYPE(scores))
        problem.losses = np.PyArray_DATA(losses)

    cdef position_tiles split = positions_in_tiles(positions, problem.inner, problem.classes)
    cdef Block partials = scratch(split.tiles * sizeof(double))
    cdef double *partial = <double *> partials.data
    for tile in prange(split.tiles, nogil=True, num_threads=threads_for(positions * (problem.classes * 0.4 + 2))):
        if power:
            partial[tile] = kernel.multi_margin(&problem, margin, power, first_position(split, tile),
                                                position_count(split, tile))
        else:
            partial[tile] = kernel.nll(&problem, first_position(split, tile), position_count(split, tile))
    if backward:
        return gradient
    if reduction == "none":
        return losses
    return sum_of(partials, split.tiles) / (size if reduction == "mean" else 1.0)


def nll_loss(x, target, weight, ignore_index, reduction):
    return class_loss(x, target, weight, ignore_index, reduction, 0, 0, False, None)


def nll_loss_backward(grad_output, x, target, weight, ignore_index, reduction):
    return class_loss(x, target, weight, ignore_index, reduction, 0, 0, True, grad_output)


def multi_margin_loss(x, target, p, margin, weight, reduction):
    return class_loss(x, target, weight, 0, reduction, p, margin, False, None)


def multi_margin_loss_backward(grad_output, x, target, p, margin, weight, reduction):
    return class_loss(x, target, weight, 0, reduction, p, margin, True, grad_output)


# ---------------------------------------------------------------------------------------------------------------------
# Elementwise losses
# ---------------------------------------------------------------------------------------------------------------------

def elementwise(int loss, double nanoseconds, np.ndarray x, np.ndarray target, str reduction, double width=0,
                object weight=None, object pos_weight=None, bint backward=False, object grad_output=None):
    """The loss (a float, or an array for reduction="none") or, backward, its gradient by x."""
    x = contiguous(x)
    target = contiguous(target)
    weight = None if weight is None else contiguous(weight)
    pos_weight = None if pos_weight is None else contiguous(pos_weight)
    cdef const loss_kernels *kernel = kernels_for(x).loss
    cdef elementwise_loss problem
    cdef np.ndarray output = empty_like(x) if backward or reduction == "none" else None
    cdef ptrdiff_t count = np.PyArray_SIZE(x), tile, tiles = ceil_div(count, TILE)
    cdef double size = count
    problem.input = np.PyArray_DATA(x)
    problem.target = np.PyArray_DATA(target)
    problem.weight = data_or_null(weight)
    problem.pos_weight = data_or_null(pos_weight)
    problem.width = width
    problem.scale = 1
    problem.grad_output = NULL
    problem.output = data_or_null(output)
    if backward and reduction == "none":
        grad_output = contiguous(grad_output)
        problem.grad_output = data_or_null(grad_output)
    elif backward:
        problem.scale = <double> grad_output / (size if reduction == "mean" else 1.0)

    cdef Block partials = scratch(tiles * sizeof(double))
    cdef double *partial = <double *> partials.data
    for tile in prange(tiles, nogil=True, num_threads=threads_for(count * nanoseconds)):
        partial[tile] = kernel.elementwise(loss, backward, &problem, tile * TILE, min(TILE, count - tile * TILE))
    if backward or reduction == "none":
        return output
    return sum_of(partials, tiles) / (size if reduction == "mean" else 1.0)


def mse_loss(x, target, reduction):
    return elementwise(FASTNN_MSE, 0.3, x, target, reduction)


def mse_loss_backward(grad_output, x, target, reduction):
    return elementwise(FASTNN_MSE, 0.4, x, target, reduction, backward=True, grad_output=grad_output)


def l1_loss(x, target, reduction):
    return elementwise(FASTNN_L1, 0.3, x, target, reduction)


def l1_loss_backward(grad_output, x, target, reduction):
    return elementwise(FASTNN_L1, 0.4, x, target, reduction, backward=True, grad_output=grad_output)


def smooth_l1_loss(x, target, reduction, beta):
    return elementwise(FASTNN_SMOOTH_L1, 0.3, x, target, reduction, width=beta)


def smooth_l1_loss_backward(grad_output, x, target, reduction, beta):
    return elementwise(FASTNN_SMOOTH_L1, 0.4, x, target, reduction, width=beta, backward=True,
                       grad_output=grad_output)


def huber_loss(x, target, reduction, delta):
    return elementwise(FASTNN_HUBER, 0.3, x, target, reduction, width=delta)


def huber_loss_backward(grad_output, x, target, reduction, delta):
    return elementwise(FASTNN_HUBER, 0.4, x, target, reduction, width=delta, backward=True, grad_output=grad_output)


def binary_cross_entropy(x, target, weight, reduction):
    return elementwise(FASTNN_BCE, 1.6, x, target, reduction, weight=weight)


def binary_cross_entropy_backward(grad_output, x, target, weight, reduction):
    return elementwise(FASTNN_BCE, 0.6, x, target, reduction, weight=weight, backward=True, grad_output=grad_output)


def binary_cross_entropy_with_logits(x, target, weight, reduction, pos_weight):
    return elementwise(FASTNN_BCE_LOGITS, 1.6, x, target, reduction, weight=weight, pos_weight=pos_weight)


def binary_cross_entropy_with_logits_backward(grad_output, x, target, weight, reduction, pos_weight):
    return elementwise(FASTNN_BCE_LOGITS, 1.2, x, target, reduction, weight=weight, pos_weight=pos_weight,
                       backward=True, grad_output=grad_output)


def kl_div(x, target, reduction, log_target):
    return elementwise(FASTNN_KL_LOG if log_target else FASTNN_KL, 0.8, x, target, reduction)


def kl_div_backward(grad_output, x, target, reduction, log_target):
    return elementwise(FASTNN_KL_LOG if log_target else FASTNN_KL, 0.6, x, target, reduction, backward=True,
                       grad_output=grad_output)

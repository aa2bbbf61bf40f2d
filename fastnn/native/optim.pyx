"""Optimiser updates: one driver cuts lists of arrays into equal pieces; each rule fills in its numbers.

Elements that are adjacent in every array of a rule form one span, across array borders too: a flat buffer is one pass,
and many small arrays are still one parallel region.
"""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport optim_kernels, optim_rule, optim_span
from fastnn.native.runtime cimport Block, ceil_div, contiguous, kernels_for, scratch, threads_for

np.import_array()

__all__ = [
    "adadelta_", "adagrad_", "adam_", "adamax_", "clamp_", "nadam_", "radam_", "rmsprop_", "scale_", "sgd_",
    "sum_of_squares",
]

# Elements per piece: long enough for the prefetchers, short enough to balance two threads over a small network.
cdef ptrdiff_t PIECE = 16384

cdef enum:
    GRADIENT = 1  # the role that kernels only read

ctypedef void (*update_kernel)(const optim_span *span, const optim_rule *rule) noexcept nogil


cdef class Spans:
    """Lists of arrays as spans, cut where the count of all elements before reaches a multiple of PIECE."""
    cdef optim_span *span
    cdef ptrdiff_t *first      # of each piece; one more at the end
    cdef ptrdiff_t spans, pieces, elements
    cdef Block memory
    cdef list kept             # the arrays that the spans point into
    cdef list copies           # (array, its contiguous copy) where the kernel changes it: written back afterwards

    def __cinit__(self, list arrays, list masks):
        """arrays: per role (parameter, gradient, buffers) one list of arrays, all of the same lengths."""
        cdef ptrdiff_t count = len(arrays[0]), most_spans, i, role, roles = len(arrays)
        cdef np.ndarray array
        self.kept = []
        self.copies = []
        for i in range(count):
            self.elements += np.PyArray_SIZE(<np.ndarray> arrays[0][i])
        self.pieces = ceil_div(self.elements, PIECE)
        most_spans = count + self.pieces
        self.memory = scratch(most_spans * sizeof(optim_span) + (self.pieces + 1) * sizeof(ptrdiff_t))
        self.span = <optim_span *> self.memory.data
        self.first = <ptrdiff_t *> (self.span + most_spans)
        self.elements = 0
        for i in range(count):
            pinned = []
            for role in range(roles):
                array = contiguous(arrays[role][i])
                if array is not arrays[role][i] and role != GRADIENT:
                    self.copies.append((arrays[role][i], array))
                pinned.append(array)
            pinned.append(None if masks is None or masks[i] is None else contiguous_bytes(masks[i]))
            self.kept.append(pinned)
            self.add(pinned, roles)
        self.first[self.pieces] = self.spans

    cdef add(self, list pinned, ptrdiff_t roles):
        """Appends the elements of one parameter's arrays; pinned: parameter, gradient, buffers, mask."""
        cdef char *source[5]
        cdef const unsigned char *mask = NULL
        cdef ptrdiff_t size = np.PyArray_ITEMSIZE(<np.ndarray> pinned[0])
        cdef ptrdiff_t left = np.PyArray_SIZE(<np.ndarray> pinned[0]), room, role
        cdef optim_span *span
        for role in range(roles):
            source[role] = np.PyArray_BYTES(<np.ndarray> pinned[role])
        if pinned[roles] is not None:
            mask = <const unsigned char *> np.PyArray_BYTES(<np.ndarray> pinned[roles])
        while left > 0:
            room = min(left, PIECE - self.elements % PIECE)
            if self.elements % PIECE == 0:
                self.first[self.elements // PIECE] = self.spans
            if self.elements % PIECE != 0 and self.continues(source, roles, size, mask):
                self.span[self.spans - 1].count += room
            else:
                span = self.span + self.spans
                span.count = room
                span.param = source[0]
                span.grad = source[1] if roles > 1 else NULL
                for role in range(3):
                    span.state[role] = source[role + 2] if role + 2 < roles else NULL
                span.mask = mask
                self.spans += 1
            for role in range(roles):
                source[role] += room * size
            if mask != NULL:
                mask += room
            self.elements += room
            left -= room

    cdef bint continues(self, char **source, ptrdiff_t roles, ptrdiff_t size, const unsigned char *mask) noexcept:
        """Whether these addresses follow the last span in every array."""
        cdef optim_span *last = self.span + self.spans - 1
        cdef ptrdiff_t bytes = last.count * size, role
        if source[0] != <char *> last.param + bytes:
            return False
        if roles > 1 and source[1] != <const char *> last.grad + bytes:
            return False
        for role in range(2, roles):
            if source[role] != <char *> last.state[role - 2] + bytes:
                return False
        return mask == NULL if last.mask == NULL else mask == last.mask + last.count

    cdef write_back(self):
        for array, copy in self.copies:
            np.PyArray_CopyInto(array, copy)


cdef np.ndarray contiguous_bytes(np.ndarray mask):
    return mask if np.PyArray_IS_C_CONTIGUOUS(mask) else mask.copy()


cdef update(update_kernel kernel, const optim_rule *rule, double nanoseconds_each, list arrays, list masks):
    """Runs a kernel over all elements, which take so many nanoseconds each on one thread."""
    cdef Spans work = Spans(arrays, masks)
    cdef const optim_span *span = work.span
    cdef const ptrdiff_t *first = work.first
    cdef ptrdiff_t pieces = work.pieces, piece, i
    cdef double nanoseconds = work.elements * nanoseconds_each
    for piece in prange(pieces, nogil=True, num_threads=threads_for(nanoseconds)):
        for i in range(first[piece], first[piece + 1]):
            kernel(span + i, rule)
    work.write_back()


cdef optim_rule make_rule(double lr, dict common):
    """What all rules share; the numbers of one rule follow."""
    cdef double weight_decay = common["weight_decay"], l1 = common["l1"]
    cdef bint decoupled = common["decoupled_weight_decay"]
    cdef optim_rule rule
    rule.sign = -1.0 if common["maximize"] else 1.0
    rule.weight_decay = 0.0 if decoupled else weight_decay
    rule.keep = 1.0 - lr * weight_decay if decoupled else 1.0
    rule.l1_subgradient = common["l1_subgradient"]
    rule.threshold = lr * l1
    rule.rate = -lr
    rule.gradient_rate = 0.0
    rule.momentum = 0.0
    rule.gain = 1.0
    rule.average = 1.0
    rule.decay = 1.0
    rule.fresh = 1.0
    rule.root_scale = 1.0
    rule.eps = 0.0
    return rule


cdef void set_momentum(optim_rule *rule, double momentum, double lr, bint lr_in_momentum) noexcept:
    """buffer = momentum * buffer + g, p -= lr * buffer; or, with the rate inside, - lr * g and p += buffer."""
    rule.momentum = momentum
    if lr_in_momentum:
        rule.gain = -lr
        rule.rate = 1.0


cdef void set_moments(optim_rule *rule, double beta1, double beta2) noexcept:
    rule.average = 1.0 - beta1
    rule.decay = beta2
    rule.fresh = 1.0 - beta2


def sgd_(list params, list grads, list momentum_buffers, list masks, bint first_step, double lr, double momentum,
         double dampening, bint nesterov, bint lr_in_momentum, **common):
    cdef optim_rule rule = make_rule(lr, common)
    cdef const optim_kernels *kernels = kernels_for(params[0]).optim
    if momentum_buffers is None:
        update(kernels.sgd, &rule, 0.35, [params, grads], masks)
        return
    set_momentum(&rule, momentum, lr, lr_in_momentum)
    if not first_step:
        rule.gain *= 1.0 - dampening
    update(kernels.sgd_nesterov if nesterov else kernels.sgd_momentum, &rule, 0.6, [params, grads, momentum_buffers],
           masks)


def adagrad_(list params, list grads, list sums, list masks, double step, double lr, double lr_decay, double eps,
             **common):
    cdef optim_rule rule
    lr /= 1.0 + (step - 1.0) * lr_decay
    rule = make_rule(lr, common)
    rule.eps = eps
    update(kernels_for(params[0]).optim.rmsprop, &rule, 0.7, [params, grads, sums], masks)


def rmsprop_(list params, list grads, list square_avgs, list grad_avgs, list momentum_buffers, list masks, double lr,
             double alpha, double eps, double momentum, bint lr_in_momentum, **common):
    cdef optim_rule rule = make_rule(lr, common)
    cdef const optim_kernels *kernels = kernels_for(params[0]).optim
    rule.decay = alpha
    rule.fresh = 1.0 - alpha
    rule.eps = eps
    if momentum_buffers is not None:
        set_momentum(&rule, momentum, lr, lr_in_momentum)
    if grad_avgs is None and momentum_buffers is None:
        update(kernels.rmsprop, &rule, 0.7, [params, grads, square_avgs], masks)
    elif grad_avgs is None:
        update(kernels.rmsprop_momentum, &rule, 0.9, [params, grads, square_avgs, momentum_buffers], masks)
    elif momentum_buffers is None:
        update(kernels.rmsprop_centered, &rule, 0.9, [params, grads, square_avgs, grad_avgs], masks)
    else:
        update(kernels.rmsprop_centered_momentum, &rule, 1.1, [params, grads, square_avgs, grad_avgs, momentum_buffers],
               masks)


def adam_(list params, list grads, list exp_avgs, list exp_avg_sqs, list max_exp_avg_sqs, list masks, double step,
          double lr, double beta1, double beta2, double eps, bint bias_correction, **common):
    cdef optim_rule rule = make_rule(lr, common)
    cdef const optim_kernels *kernels = kernels_for(params[0]).optim
    set_moments(&rule, beta1, beta2)
    rule.eps = eps
    if bias_correction:
        rule.rate /= 1.0 - beta1**step
        rule.root_scale = (1.0 - beta2**step)**-0.5
    if max_exp_avg_sqs is None:
        update(kernels.adam, &rule, 0.9, [params, grads, exp_avgs, exp_avg_sqs], masks)
    else:
        update(kernels.adam_amsgrad, &rule, 1.1, [params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs], masks)


def adadelta_(list params, list grads, list square_avgs, list acc_deltas, list masks, double lr, double rho, double eps,
              **common):
    cdef optim_rule rule = make_rule(lr, common)
    rule.decay = rho
    rule.fresh = 1.0 - rho
    rule.eps = eps
    update(kernels_for(params[0]).optim.adadelta, &rule, 0.9, [params, grads, square_avgs, acc_deltas], masks)


def adamax_(list params, list grads, list exp_avgs, list exp_infs, list masks, double step, double lr, double beta1,
            double beta2, double eps, **common):
    cdef optim_rule rule = make_rule(lr, common)
    set_moments(&rule, beta1, beta2)
    rule.eps = eps
    rule.rate /= 1.0 - beta1**step
    update(kernels_for(params[0]).optim.adamax, &rule, 0.9, [params, grads, exp_avgs, exp_infs], masks)


def nadam_(list params, list grads, list exp_avgs, list exp_avg_sqs, list masks, double step, double mu_product,
           double lr, double beta1, double beta2, double eps, double momentum_decay, **common):
    cdef optim_rule rule = make_rule(lr, common)
    cdef double mu = beta1 * (1.0 - 0.5 * 0.96**(step * momentum_decay))
    cdef double next_mu = beta1 * (1.0 - 0.5 * 0.96**((step + 1.0) * momentum_decay))
    mu_product *= mu
    set_moments(&rule, beta1, beta2)
    rule.eps = eps
    rule.rate = -lr * next_mu / (1.0 - mu_product * next_mu)
    rule.gradient_rate = -lr * (1.0 - mu) / (1.0 - mu_product)
    rule.root_scale = (1.0 - beta2**step)**-0.5
    update(kernels_for(params[0]).optim.adam, &rule, 0.9, [params, grads, exp_avgs, exp_avg_sqs], masks)
    return mu_product


def radam_(list params, list grads, list exp_avgs, list exp_avg_sqs, list masks, double step, double lr, double beta1,
           double beta2, double eps, **common):
    cdef optim_rule rule = make_rule(lr, common)
    cdef double correction = 1.0 - beta2**step
    cdef double longest = 2.0 / (1.0 - beta2) - 1.0
    cdef double length = longest - 2.0 * step * beta2**step / correction
    set_moments(&rule, beta1, beta2)
    rule.rate /= 1.0 - beta1**step
    if length > 5.0:
        rule.rate *= ((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
                      * correction)**0.5
        rule.eps = eps
    else:  # too few steps to rectify: the direction is the first moment over 1
        rule.root_scale = 0.0
        rule.eps = 1.0
    update(kernels_for(params[0]).optim.adam, &rule, 0.9, [params, grads, exp_avgs, exp_avg_sqs], masks)


def sum_of_squares(list arrays):
    """Of all elements, as a Python float; float32 is squared and summed in float64."""
    cdef Spans work = Spans([arrays], None)
    cdef const optim_span *span = work.span
    cdef const ptrdiff_t *first = work.first
    cdef double (*kernel)(const void *, ptrdiff_t) noexcept nogil
    kernel = kernels_for(arrays[0]).optim.sum_of_squares
    cdef Block memory = scratch(work.spans * sizeof(double))
    cdef double *partial = <double *> memory.data
    cdef double total = 0.0
    cdef ptrdiff_t pieces = work.pieces, piece, i
    cdef double nanoseconds = work.elements * 0.2
    for piece in prange(pieces, nogil=True, num_threads=threads_for(nanoseconds)):
        for i in range(first[piece], first[piece + 1]):
            partial[i] = kernel(span[i].param, span[i].count)
    for i in range(work.spans):
        total += partial[i]
    return total


cdef each_in_place(void (*kernel)(void *, ptrdiff_t, double) noexcept nogil, list arrays, double value):
    cdef Spans work = Spans([arrays], None)
    cdef const optim_span *span = work.span
    cdef const ptrdiff_t *first = work.first
    cdef ptrdiff_t pieces = work.pieces, piece, i
    cdef double nanoseconds = work.elements * 0.2
    for piece in prange(pieces, nogil=True, num_threads=threads_for(nanoseconds)):
        for i in range(first[piece], first[piece + 1]):
            kernel(span[i].param, span[i].count, value)
    work.write_back()


def scale_(list arrays, double factor):
    each_in_place(kernels_for(arrays[0]).optim.scale, arrays, factor)


def clamp_(list arrays, double limit):
    each_in_place(kernels_for(arrays[0]).optim.clamp, arrays, limit)

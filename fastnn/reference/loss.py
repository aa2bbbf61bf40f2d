"""Losses and their gradients by the input.

Class losses take scores (outer, C, inner) and targets (outer, inner) of int64; cross_entropy also takes probabilities
shaped like the scores. Elementwise losses take arrays of one shape; their weights are broadcast or None. With reduction
"mean" and "sum" a loss is a float, added up in float64, and grad_output is a number; with "none" both are arrays.
NaN and infinities come out as IEEE says, without warnings.
"""

import numpy as np

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


@np.errstate(all="ignore")
def reduced(losses, count, reduction):
    """The losses, their sum, or their sum over `count`; the mean of nothing is NaN."""
    if reduction == "none":
        return np.asarray(losses)
    total = losses.sum(dtype=np.float64)
    return float(total if reduction == "sum" else total / np.float64(count))


@np.errstate(all="ignore")
def spread(grad_output, count, reduction):
    """The gradient of each loss: grad_output, shared among `count` of them for the mean."""
    return float(np.float64(grad_output) / np.float64(count)) if reduction == "mean" else grad_output


# Classes -------------------------------------------------------------------------------------------------------------


def softmax_and_log_of(scores):
    shifted = scores - scores.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    return exponentials / total, shifted - np.log(total)


def one_hot_of(target, kept, classes, dtype):
    """(outer, C, inner): 1 at each kept position's class."""
    return ((target[:, None] == np.arange(classes)[:, None]) & kept[:, None]).astype(dtype)


def own_weights(target, weight, ignore_index, dtype):
    """Each position's class (0 where ignored), and its weight (0 where ignored)."""
    kept = target != ignore_index
    index = np.where(kept, target, 0)
    return index, np.where(kept, 1 if weight is None else weight[index], 0).astype(dtype)


def class_shares(scores, target, weight, ignore_index, label_smoothing):
    """The target as probabilities (outer, C, inner), zeros where ignored; the class weights (C, 1); what each position
    counts in the mean (outer, inner); which positions are kept (outer, inner)."""
    classes, dtype = scores.shape[1], scores.dtype
    weight = np.ones(classes, dtype) if weight is None else weight
    if target.ndim == 3:
        kept = np.ones((scores.shape[0], scores.shape[2]), bool)
        shares, counts = target, kept.astype(dtype)
    else:
        kept = target != ignore_index
        shares = one_hot_of(target, kept, classes, dtype)
        counts = own_weights(target, weight, ignore_index, dtype)[1]
    shares = (1 - label_smoothing) * shares + label_smoothing / classes * kept[:, None]
    return shares.astype(dtype), weight[:, None], counts, kept


@np.errstate(all="ignore")
def cross_entropy_with_grad(scores, target, weight, ignore_index, reduction, label_smoothing, grad_output=None):
    """L = -sum over classes of w_c t_c log S_c;  dL/da_c = S_c sum(w t) - w_c t_c;  S = softmax(a)."""
    shares, weight, counts, kept = class_shares(scores, target, weight, ignore_index, label_smoothing)
    probability, log_probability = softmax_and_log_of(scores)
    terms = weight * shares * log_probability
    if target.ndim == 2:
        terms = np.where(shares == 0, 0, terms)  # a class that is not asked for may be impossible
    losses = -terms.sum(axis=1)

    count = counts.sum(dtype=np.float64)
    scale = spread(1.0 if grad_output is None else grad_output, count, reduction)
    scale = np.where(kept, scale, 0).astype(scores.dtype)[:, None]
    weighted = weight * shares
    gradient = scale * (probability * weighted.sum(axis=1, keepdims=True) - weighted)
    return reduced(losses, count, reduction), gradient


def cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing):
    return cross_entropy_with_grad(scores, target, weight, ignore_index, reduction, label_smoothing)[0]


def cross_entropy_backward(grad_output, scores, target, weight, ignore_index, reduction, label_smoothing):
    return cross_entropy_with_grad(
        scores, target, weight, ignore_index, reduction, label_smoothing, grad_output=grad_output
    )[1]


@np.errstate(all="ignore")
def nll_loss(x, target, weight, ignore_index, reduction):
    """L = -w_y x_y."""
    index, own = own_weights(target, weight, ignore_index, x.dtype)
    picked = np.take_along_axis(x, index[:, None], axis=1)[:, 0]
    return reduced(np.where(target == ignore_index, 0, -own * picked), own.sum(dtype=np.float64), reduction)


@np.errstate(all="ignore")
def nll_loss_backward(grad_output, x, target, weight, ignore_index, reduction):
    index, own = own_weights(target, weight, ignore_index, x.dtype)
    slope = np.where(target == ignore_index, 0, -own * spread(grad_output, own.sum(dtype=np.float64), reduction))
    gradient = np.zeros_like(x)
    np.put_along_axis(gradient, index[:, None], slope[:, None].astype(x.dtype), axis=1)
    return gradient


def margin_violations(x, target, p, margin, weight):
    """max(0, margin - x_y + x_j) for the classes j other than y (outer, C, inner), and w_y / C (outer, inner)."""
    classes = x.shape[1]
    truth = one_hot_of(target, target >= 0, classes, x.dtype)
    violations = np.maximum(0, margin - np.take_along_axis(x, target[:, None], axis=1) + x)
    factor = (np.ones_like(x, shape=classes) if weight is None else weight) / classes
    return np.where(truth, 0, violations), factor[target][:, None], truth


@np.errstate(all="ignore")
def multi_margin_loss(x, target, p, margin, weight, reduction):
    """L = w_y / C * sum over j != y of max(0, margin - x_y + x_j)^p."""
    violations, factor, _ = margin_violations(x, target, p, margin, weight)
    return reduced((factor * violations**p).sum(axis=1), target.size, reduction)


@np.errstate(all="ignore")
def multi_margin_loss_backward(grad_output, x, target, p, margin, weight, reduction):
    violations, factor, truth = margin_violations(x, target, p, margin, weight)
    scale = np.broadcast_to(spread(grad_output, target.size, reduction), target.shape).astype(x.dtype)
    slope = scale[:, None] * factor * (np.heaviside(violations, 0) if p == 1 else 2 * violations)
    return slope - truth * slope.sum(axis=1, keepdims=True)


# Elementwise ---------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def mse_loss(x, target, reduction):
    """L = (x - t)^2."""
    return reduced((x - target) ** 2, x.size, reduction)


@np.errstate(all="ignore")
def mse_loss_backward(grad_output, x, target, reduction):
    return 2 * (x - target) * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def l1_loss(x, target, reduction):
    """L = |x - t|."""
    return reduced(np.abs(x - target), x.size, reduction)


@np.errstate(all="ignore")
def l1_loss_backward(grad_output, x, target, reduction):
    return np.sign(x - target) * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def smooth_l1_loss(x, target, reduction, beta):
    """L = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - t."""
    size = np.abs(x - target)
    return reduced(np.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta), x.size, reduction)


@np.errstate(all="ignore")
def smooth_l1_loss_backward(grad_output, x, target, reduction, beta):
    difference = x - target
    slope = np.where(np.abs(difference) < beta, difference / beta, np.sign(difference))
    return slope * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def huber_loss(x, target, reduction, delta):
    """L = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), with d = x - t."""
    size = np.abs(x - target)
    return reduced(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)), x.size, reduction)


@np.errstate(all="ignore")
def huber_loss_backward(grad_output, x, target, reduction, delta):
    return np.clip(x - target, -delta, delta) * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def binary_cross_entropy(x, target, weight, reduction):
    """L = -w (t log x + (1 - t) log(1 - x)), the logarithms at least -100."""
    losses = -(target * np.maximum(np.log(x), -100) + (1 - target) * np.maximum(np.log1p(-x), -100))
    return reduced(losses if weight is None else weight * losses, x.size, reduction)


@np.errstate(all="ignore")
def binary_cross_entropy_backward(grad_output, x, target, weight, reduction):
    slope = (x - target) / np.maximum(x * (1 - x), 1e-12)
    return (slope if weight is None else weight * slope) * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits(x, target, weight, reduction, pos_weight):
    """L = w ((1 - t) softplus(x) + p t softplus(-x)), which is -w (p t log s(x) + (1 - t) log(1 - s(x)))."""
    positive = target if pos_weight is None else pos_weight * target
    tail = np.log1p(np.exp(-np.abs(x)))
    losses = (1 - target) * (np.maximum(x, 0) + tail) + positive * (np.maximum(-x, 0) + tail)
    return reduced(losses if weight is None else weight * losses, x.size, reduction)


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits_backward(grad_output, x, target, weight, reduction, pos_weight):
    """dL/dx = w ((1 - t) s(x) - p t s(-x)): no difference of near equals."""
    positive = target if pos_weight is None else pos_weight * target
    slope = (1 - target) / (1 + np.exp(-x)) - positive / (1 + np.exp(x))
    return (slope if weight is None else weight * slope) * spread(grad_output, x.size, reduction)


@np.errstate(all="ignore")
def kl_div(x, target, reduction, log_target):
    """L = t (log t - x), 0 log 0 being 0; with log_target exp(t) (t - x)."""
    if log_target:
        return reduced(np.exp(target) * (target - x), x.size, reduction)
    entropy = target * np.log(np.where(target == 0, 1, target))
    return reduced(entropy - target * x, x.size, reduction)


@np.errstate(all="ignore")
def kl_div_backward(grad_output, x, target, reduction, log_target):
    return -(np.exp(target) if log_target else target) * spread(grad_output, x.size, reduction)

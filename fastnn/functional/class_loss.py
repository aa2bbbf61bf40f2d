"""Losses of scores against classes: checked arguments, then the active backend.

A class loss sees its scores as (outer, C, inner) and its targets as (outer, inner) in int64, whatever the shape was.
"""

import math

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    FLOATS,
    check_choice,
    check_float_array,
    check_integer,
    check_number,
    check_same_dtype,
    check_shape,
)
from fastnn.functional.loss import REDUCTIONS, check_loss_gradient

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_with_grad",
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "nll_loss",
    "nll_loss_backward",
]


def check_class_weight(function, weight, input, classes):
    if weight is not None:
        check_same_dtype(function, "weight", weight, "input", input)
        check_shape(function, "weight", weight, (classes,), "one weight per class")


def check_scores(function, input):
    """Scores (C,), (N, C) or (N, C, d1, ...) as (outer, C, inner), and the shape of the positions."""
    check_float_array(function, "input", input)
    if input.ndim == 0:
        raise ValueError(f"{function}: input must have shape (C,), (N, C) or (N, C, d1, ...), got a single number")
    axis = min(input.ndim - 1, 1)
    outer, classes, inner = input.shape[:axis], input.shape[axis], input.shape[axis + 1 :]
    if classes == 0:
        raise ValueError(f"{function}: input must have at least one class, got shape {input.shape}")
    return input.reshape(math.prod(outer), classes, math.prod(inner)), outer + inner


def check_class_target(function, target, positions, classes, ignore_index=None):
    """Class indices shaped like the positions, each a class or ignore_index, as an int64 copy: what was checked is what
    the kernels read, even where another thread changes the array meanwhile."""
    if not isinstance(target, np.ndarray):
        raise TypeError(f"{function}: target must be a NumPy array, got {type(target).__name__}; use numpy.asarray")
    if target.dtype.kind not in "iu":
        raise TypeError(f"{function}: target must hold class indices of an integer dtype, got {target.dtype}")
    check_shape(function, "target", target, positions, "one class index per position of input")
    target = target.copy()
    if target.size and not (target.min() >= 0 and target.max() < classes):
        wrong = (target < 0) | (target >= classes)
        if ignore_index is not None:
            wrong &= target != ignore_index
        if wrong.any():
            first = tuple(int(index) for index in np.argwhere(wrong)[0])
            place = f"[{', '.join(map(str, first))}]" if first else ""
            ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
            raise ValueError(
                f"{function}: target{place} must be a class index from 0 to {classes - 1}{ignored}, got {target[first]}"
            )
    return target.astype(np.int64, copy=False)


def check_ignore_index(function, ignore_index):
    ignore_index = check_integer(function, "ignore_index", ignore_index)
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"{function}: ignore_index must fit in 64 bits, got {ignore_index}")
    return ignore_index


def check_cross_entropy(function, input, target, weight, ignore_index, reduction, label_smoothing):
    """The arguments of cross_entropy as the backends take them, and the shape of the positions."""
    scores, positions = check_scores(function, input)
    outer, classes, inner = scores.shape
    check_class_weight(function, weight, input, classes)
    ignore_index = check_ignore_index(function, ignore_index)
    check_choice(function, "reduction", reduction, REDUCTIONS)
    label_smoothing = check_number(function, "label_smoothing", label_smoothing, 0, 1)
    if isinstance(target, np.ndarray) and target.dtype in FLOATS and target.shape != positions:
        check_same_dtype(function, "target", target, "input", input)
        check_shape(function, "target", target, input.shape, "probabilities shaped like input")
        target = target.reshape(scores.shape)
    else:
        if isinstance(target, np.ndarray) and target.dtype not in FLOATS and target.shape == input.shape != positions:
            raise TypeError(
                f"{function}: target must be floats for probabilities (or one-hot rows), of input's shape, or class "
                f"indices of shape {positions}; got {target.dtype} of shape {target.shape}"
            )
        target = check_class_target(function, target, positions, classes, ignore_index).reshape(outer, inner)
    return (scores, target, weight, ignore_index, reduction, label_smoothing), positions


def check_nll_loss(function, input, target, weight, ignore_index, reduction):
    scores, positions = check_scores(function, input)
    outer, classes, inner = scores.shape
    check_class_weight(function, weight, input, classes)
    ignore_index = check_ignore_index(function, ignore_index)
    check_choice(function, "reduction", reduction, REDUCTIONS)
    target = check_class_target(function, target, positions, classes, ignore_index).reshape(outer, inner)
    return (scores, target, weight, ignore_index, reduction), positions


def check_multi_margin_loss(function, input, target, p, margin, weight, reduction):
    scores, positions = check_scores(function, input)
    if input.ndim > 2:
        raise ValueError(f"{function}: input must have shape (C,) or (N, C), got {input.shape}")
    classes = scores.shape[1]
    target = check_class_target(function, target, positions, classes).reshape(-1, 1)
    p = check_integer(function, "p", p)
    if p not in (1, 2):
        raise ValueError(f"{function}: p must be 1 or 2, got {p}")
    margin = check_number(function, "margin", margin)
    check_class_weight(function, weight, input, classes)
    check_choice(function, "reduction", reduction, REDUCTIONS)
    return (scores, target, p, margin, weight, reduction), positions


def shaped(result, shape):
    """An array in this shape; a float (a reduced loss) as it is."""
    return result.reshape(shape) if isinstance(result, np.ndarray) else result


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Softmax and cross-entropy in one: ``logsumexp(a) - a_y`` for scores a and class y.

    In general ``-sum_c w_c t_c log softmax(a)_c`` with the target probabilities t (1 for the true class, 0 for the
    others) and class weights w. It never overflows.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Unnormalised scores (logits): (N, C), (N, C, d1, ...), or (C,) for one example.
    target : ndarray
        Class indices of any integer dtype, shaped like ``input`` without its class axis; or probabilities, with the
        shape and dtype of ``input``.
    weight : ndarray, optional
        (C,) class weights, in the dtype of ``input``.
    ignore_index : int
        Class indices only: positions with this target count neither in the loss nor in the mean.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the sum of the weights of the kept targets (for probabilities: by the number of positions).
    label_smoothing : float
        ``e`` from 0 to 1: the target becomes ``(1 - e) t + e / C``. With 10 classes and 0.1 that is 0.91 for the true
        class and 0.01 for the others; for any other way to smooth, pass probabilities.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the positions' shape, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, a target is no class (the message names the first), or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> scores = np.array([[2.0, 0.0], [0.0, 0.0]])
    >>> round(F.cross_entropy(scores, np.array([0, 1])), 6)
    0.410038
    """
    arguments, positions = check_cross_entropy(
        "cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing
    )
    return shaped(implementation("cross_entropy")(*arguments), positions)


def cross_entropy_backward(
    grad_output, input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Gradient of :func:`cross_entropy` by its input: ``softmax(a) sum(w t) - w t``, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the positions' shape.
    input, target, weight, ignore_index, reduction, label_smoothing
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``, in its shape.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, a target is no class (the message names the first), or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> scores = np.array([[2.0, 0.0], [0.0, 0.0]])
    >>> F.cross_entropy_backward(1.0, scores, np.array([0, 1])).round(3)
    array([[-0.06,  0.06],
           [ 0.25, -0.25]])
    """
    arguments, positions = check_cross_entropy(
        "cross_entropy_backward", input, target, weight, ignore_index, reduction, label_smoothing
    )
    grad_output = check_loss_gradient("cross_entropy_backward", grad_output, reduction, positions, input)
    grad_output = shaped(grad_output, (arguments[0].shape[0], arguments[0].shape[2]))
    return implementation("cross_entropy_backward")(grad_output, *arguments).reshape(input.shape)


def cross_entropy_with_grad(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """:func:`cross_entropy` and its gradient in one pass: one exponential per score instead of two.

    Parameters
    ----------
    input, target, weight, ignore_index, reduction, label_smoothing
        As in :func:`cross_entropy`.

    Returns
    -------
    loss : float or ndarray
        As from :func:`cross_entropy`.
    gradient : ndarray
        Gradient of the loss by ``input``; with ``reduction="none"`` of each position's own loss.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, a target is no class (the message names the first), or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> scores = np.array([[2.0, 0.0], [0.0, 0.0]])
    >>> loss, gradient = F.cross_entropy_with_grad(scores, np.array([0, 1]))
    >>> gradient.round(3)
    array([[-0.06,  0.06],
           [ 0.25, -0.25]])
    """
    options = weight, ignore_index, reduction, label_smoothing
    return loss_and_gradient("cross_entropy_with_grad", input, target, *options)


def loss_and_gradient(function, input, target, *options):
    """Of cross_entropy; messages name this function."""
    arguments, positions = check_cross_entropy(function, input, target, *options)
    loss, gradient = implementation("cross_entropy_with_grad")(*arguments)
    return shaped(loss, positions), gradient.reshape(input.shape)


def nll_loss(input, target, weight=None, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood ``-w_y x_y`` of log-probabilities x; with log_softmax before it, cross_entropy.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Log-probabilities: (N, C), (N, C, d1, ...), or (C,) for one example.
    target : ndarray
        Class indices of any integer dtype, shaped like ``input`` without its class axis.
    weight : ndarray, optional
        (C,) class weights, in the dtype of ``input``.
    ignore_index : int
        Positions with this target count neither in the loss nor in the mean.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the sum of the weights of the kept targets.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the positions' shape, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, or a target is no class (the message names the first).

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.nll_loss(np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])).__round__(6)
    1.039721
    """
    arguments, positions = check_nll_loss("nll_loss", input, target, weight, ignore_index, reduction)
    return shaped(implementation("nll_loss")(*arguments), positions)


def nll_loss_backward(grad_output, input, target, weight=None, ignore_index=-100, reduction="mean"):
    """Gradient of :func:`nll_loss` by its input: ``-w_y`` at the class y, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the positions' shape.
    input, target, weight, ignore_index, reduction
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``, in its shape.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, or a target is no class (the message names the first).

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.nll_loss_backward(1.0, np.log([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1]))
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    arguments, positions = check_nll_loss("nll_loss_backward", input, target, weight, ignore_index, reduction)
    grad_output = check_loss_gradient("nll_loss_backward", grad_output, reduction, positions, input)
    grad_output = shaped(grad_output, arguments[1].shape)
    return implementation("nll_loss_backward")(grad_output, *arguments).reshape(input.shape)


def multi_margin_loss(input, target, p=1, margin=1.0, weight=None, reduction="mean"):
    """Multiclass SVM loss: ``w_y / C`` times the sum over classes j other than y of ``max(0, margin - x_y + x_j)^p``.

    CS231n's SVM loss is C times this.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Scores: (N, C), or (C,) for one example.
    target : ndarray
        (N,) class indices y of any integer dtype, or one of shape ().
    p : {1, 2}
        1 for the hinge, 2 for the squared hinge.
    margin : float
        By how much the true class should lead.
    weight : ndarray, optional
        (C,) class weights, in the dtype of ``input``.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of examples N.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of shape (N,), in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, a target is no class (the message names the first), or ``p`` is neither 1 nor 2.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.multi_margin_loss(np.array([[2.0, 1.5, 0.0, -1.0]]), np.array([0]))
    0.125
    """
    arguments, positions = check_multi_margin_loss("multi_margin_loss", input, target, p, margin, weight, reduction)
    return shaped(implementation("multi_margin_loss")(*arguments), positions)


def multi_margin_loss_backward(grad_output, input, target, p=1, margin=1.0, weight=None, reduction="mean"):
    """Gradient of :func:`multi_margin_loss` by its input.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of shape (N,).
    input, target, p, margin, weight, reduction
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``, in its shape.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If a shape does not fit, a target is no class (the message names the first), or ``p`` is neither 1 nor 2.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.multi_margin_loss_backward(1.0, np.array([[2.0, 1.5, 0.0, -1.0]]), np.array([0]))
    array([[-0.25,  0.25,  0.  ,  0.  ]])
    """
    arguments, positions = check_multi_margin_loss(
        "multi_margin_loss_backward", input, target, p, margin, weight, reduction
    )
    grad_output = check_loss_gradient("multi_margin_loss_backward", grad_output, reduction, positions, input)
    grad_output = shaped(grad_output, arguments[1].shape)
    return implementation("multi_margin_loss_backward")(grad_output, *arguments).reshape(input.shape)

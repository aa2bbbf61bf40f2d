"""Losses of an array against a target of its shape: checked arguments, then the active backend."""

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_choice,
    check_flag,
    check_float_array,
    check_number,
    check_same_dtype,
    check_shape,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "huber_loss",
    "huber_loss_backward",
    "kl_div",
    "kl_div_backward",
    "l1_loss",
    "l1_loss_backward",
    "mse_loss",
    "mse_loss_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
]

REDUCTIONS = ("none", "mean", "sum")


def check_pair(function, input, target, reduction, reductions=REDUCTIONS):
    """Two float arrays of one shape and dtype: broadcasting (N,) against (N, 1) would be a silent mistake."""
    check_float_array(function, "input", input)
    check_same_dtype(function, "target", target, "input", input)
    check_shape(function, "target", target, input.shape, "input's shape")
    check_choice(function, "reduction", reduction, reductions)


def check_loss_gradient(function, grad_output, reduction, losses_shape, input):
    """A number for one loss, an array for reduction="none"."""
    if reduction == "none":
        check_same_dtype(function, "grad_output", grad_output, "input", input)
        check_shape(function, "grad_output", grad_output, losses_shape, "one entry per loss")
        return grad_output
    if isinstance(grad_output, np.ndarray) and grad_output.ndim == 0:
        grad_output = grad_output[()]
    return check_number(function, "grad_output", grad_output)


def check_broadcast(function, name, weight, input):
    """None, or weights that broadcast to input's shape, broadcast."""
    if weight is None:
        return None
    check_same_dtype(function, name, weight, "input", input)
    try:
        return np.broadcast_to(weight, input.shape)
    except ValueError:
        raise ValueError(
            f"{function}: {name} must broadcast to input's shape {input.shape}, got shape {weight.shape}"
        ) from None


def check_width(function, name, value, zero_allowed):
    """A finite or infinite width, positive or (where it makes sense) zero."""
    value = check_number(function, name, value, 0)
    if value == 0 and not zero_allowed:
        raise ValueError(f"{function}: {name} must be above 0, got {value}")
    return value


def check_probabilities(function, input):
    """Entries from 0 to 1; NaN passes, and comes out again."""
    if input.size and (np.fmin.reduce(input, axis=None) < 0 or np.fmax.reduce(input, axis=None) > 1):
        raise ValueError(
            f"{function}: input must hold probabilities from 0 to 1, got entries from {np.nanmin(input)} to "
            f"{np.nanmax(input)}; for unbounded scores use binary_cross_entropy_with_logits"
        )


def check_kl_div(function, input, target, reduction, log_target):
    """The arguments as the backends take them, and by how much the result is to be divided (the batch, or 1)."""
    check_pair(function, input, target, reduction, (*REDUCTIONS, "batchmean"))
    check_flag(function, "log_target", log_target)
    if reduction != "batchmean":
        return reduction, 1
    return "sum", input.shape[0] if input.ndim else 1


def mse_loss(input, target, reduction="mean"):
    """Squared error ``(x - t)^2``.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Predictions and what they should be; one shape and dtype.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.mse_loss(np.array([3.0, 0.0]), np.array([1.3, 1.9]))
    3.25
    """
    check_pair("mse_loss", input, target, reduction)
    return implementation("mse_loss")(input, target, reduction)


def mse_loss_backward(grad_output, input, target, reduction="mean"):
    """Gradient of :func:`mse_loss` by its input: ``2 (x - t)``, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, reduction
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
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.mse_loss_backward(1.0, np.array([3.0, 0.0]), np.array([1.3, 1.9]))
    array([ 1.7, -1.9])
    """
    check_pair("mse_loss_backward", input, target, reduction)
    grad_output = check_loss_gradient("mse_loss_backward", grad_output, reduction, input.shape, input)
    return np.asarray(implementation("mse_loss_backward")(grad_output, input, target, reduction))


def l1_loss(input, target, reduction="mean"):
    """Absolute error ``|x - t|``.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Predictions and what they should be; one shape and dtype.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.l1_loss(np.array([3.0, 0.0]), np.array([1.0, 0.5]))
    1.25
    """
    check_pair("l1_loss", input, target, reduction)
    return implementation("l1_loss")(input, target, reduction)


def l1_loss_backward(grad_output, input, target, reduction="mean"):
    """Gradient of :func:`l1_loss` by its input: the sign of ``x - t`` (0 at 0), times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, reduction
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
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.l1_loss_backward(1.0, np.array([3.0, 0.0]), np.array([1.0, 0.5]))
    array([ 0.5, -0.5])
    """
    check_pair("l1_loss_backward", input, target, reduction)
    grad_output = check_loss_gradient("l1_loss_backward", grad_output, reduction, input.shape, input)
    return np.asarray(implementation("l1_loss_backward")(grad_output, input, target, reduction))


def smooth_l1_loss(input, target, reduction="mean", beta=1.0):
    """``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``, with ``d = x - t``.

    Squared error near zero, absolute error far from it; with ``beta=0`` it is l1_loss.
    Girshick, "Fast R-CNN", 2015, equation 3.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Predictions and what they should be; one shape and dtype.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.
    beta : float
        Where the two forms meet, in the unit of ``input``; at least 0.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If the shapes differ or ``beta`` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.smooth_l1_loss(np.array([3.0, 0.0]), np.array([1.0, 0.5]))
    0.8125
    """
    check_pair("smooth_l1_loss", input, target, reduction)
    beta = check_width("smooth_l1_loss", "beta", beta, zero_allowed=True)
    return implementation("smooth_l1_loss")(input, target, reduction, beta)


def smooth_l1_loss_backward(grad_output, input, target, reduction="mean", beta=1.0):
    """Gradient of :func:`smooth_l1_loss` by its input: ``d / beta``, at most 1 in size, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, reduction, beta
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
        If the shapes differ or ``beta`` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.smooth_l1_loss_backward(1.0, np.array([3.0, 0.0]), np.array([1.0, 0.5]))
    array([ 0.5 , -0.25])
    """
    check_pair("smooth_l1_loss_backward", input, target, reduction)
    beta = check_width("smooth_l1_loss_backward", "beta", beta, zero_allowed=True)
    grad_output = check_loss_gradient("smooth_l1_loss_backward", grad_output, reduction, input.shape, input)
    return np.asarray(implementation("smooth_l1_loss_backward")(grad_output, input, target, reduction, beta))


def huber_loss(input, target, reduction="mean", delta=1.0):
    """``d^2 / 2`` where ``|d| <= delta``, else ``delta (|d| - delta / 2)``, with ``d = x - t``.

    ``delta`` times smooth_l1_loss with ``beta=delta``. Huber, "Robust estimation of a location parameter", 1964.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Predictions and what they should be; one shape and dtype.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.
    delta : float
        Where the two forms meet, in the unit of ``input``; above 0.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If the shapes differ or ``delta`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.huber_loss(np.array([3.0, 0.0]), np.array([0.0, 0.5]), delta=2.0)
    2.0625
    """
    check_pair("huber_loss", input, target, reduction)
    delta = check_width("huber_loss", "delta", delta, zero_allowed=False)
    return implementation("huber_loss")(input, target, reduction, delta)


def huber_loss_backward(grad_output, input, target, reduction="mean", delta=1.0):
    """Gradient of :func:`huber_loss` by its input: ``d``, at most ``delta`` in size, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, reduction, delta
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
        If the shapes differ or ``delta`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.huber_loss_backward(1.0, np.array([3.0, 0.0]), np.array([0.0, 0.5]), delta=2.0)
    array([ 1.  , -0.25])
    """
    check_pair("huber_loss_backward", input, target, reduction)
    delta = check_width("huber_loss_backward", "delta", delta, zero_allowed=False)
    grad_output = check_loss_gradient("huber_loss_backward", grad_output, reduction, input.shape, input)
    return np.asarray(implementation("huber_loss_backward")(grad_output, input, target, reduction, delta))


def binary_cross_entropy(input, target, weight=None, reduction="mean"):
    """``-w (t log x + (1 - t) log(1 - x))`` for probabilities x.

    The logarithms are at least -100, so that a certain and wrong prediction costs 100. Where x comes from a sigmoid,
    binary_cross_entropy_with_logits is more accurate and does not saturate.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Probabilities from 0 to 1, predicted and true; one shape and dtype.
    weight : ndarray, optional
        A factor for each entry; broadcasts to ``input``.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If shapes do not fit or ``input`` leaves the range from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> round(F.binary_cross_entropy(np.array([0.5, 0.75]), np.array([1.0, 0.0])), 6)
    1.039721
    """
    check_pair("binary_cross_entropy", input, target, reduction)
    weight = check_broadcast("binary_cross_entropy", "weight", weight, input)
    check_probabilities("binary_cross_entropy", input)
    return implementation("binary_cross_entropy")(input, target, weight, reduction)


def binary_cross_entropy_backward(grad_output, input, target, weight=None, reduction="mean"):
    """Gradient of :func:`binary_cross_entropy` by its input.

    ``w (x - t) / (x (1 - x))``, the divisor at least 1e-12, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, weight, reduction
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
        If shapes do not fit or ``input`` leaves the range from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.binary_cross_entropy_backward(1.0, np.array([0.5, 0.75]), np.array([1.0, 0.0]))
    array([-1.,  2.])
    """
    check_pair("binary_cross_entropy_backward", input, target, reduction)
    weight = check_broadcast("binary_cross_entropy_backward", "weight", weight, input)
    check_probabilities("binary_cross_entropy_backward", input)
    grad_output = check_loss_gradient("binary_cross_entropy_backward", grad_output, reduction, input.shape, input)
    return np.asarray(implementation("binary_cross_entropy_backward")(grad_output, input, target, weight, reduction))


def binary_cross_entropy_with_logits(input, target, weight=None, reduction="mean", pos_weight=None):
    """``-w (p t log s(x) + (1 - t) log(1 - s(x)))`` with the sigmoid s, for scores x of any size.

    The gradient, ``s(x) - t`` without weights, does not vanish where the sigmoid is saturated and wrong.

    Parameters
    ----------
    input, target : ndarray of float32 or float64
        Scores (logits), and probabilities from 0 to 1; one shape and dtype.
    weight : ndarray, optional
        A factor for each entry; broadcasts to ``input``.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of entries.
    pos_weight : ndarray, optional
        p, the factor of the positive part; broadcasts to ``input``.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> round(F.binary_cross_entropy_with_logits(np.array([0.0, 2.0]), np.array([1.0, 0.0])), 6)
    1.410038
    """
    check_pair("binary_cross_entropy_with_logits", input, target, reduction)
    weight = check_broadcast("binary_cross_entropy_with_logits", "weight", weight, input)
    pos_weight = check_broadcast("binary_cross_entropy_with_logits", "pos_weight", pos_weight, input)
    return implementation("binary_cross_entropy_with_logits")(input, target, weight, reduction, pos_weight)


def binary_cross_entropy_with_logits_backward(
    grad_output, input, target, weight=None, reduction="mean", pos_weight=None
):
    """Gradient of :func:`binary_cross_entropy_with_logits` by its input.

    ``w ((1 - t) s(x) - p t (1 - s(x)))`` with the sigmoid s, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, weight, reduction, pos_weight
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
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.binary_cross_entropy_with_logits_backward(1.0, np.array([0.0, 2.0]), np.array([1.0, 0.0])).round(4)
    array([-0.25  ,  0.4404])
    """
    check_pair("binary_cross_entropy_with_logits_backward", input, target, reduction)
    weight = check_broadcast("binary_cross_entropy_with_logits_backward", "weight", weight, input)
    pos_weight = check_broadcast("binary_cross_entropy_with_logits_backward", "pos_weight", pos_weight, input)
    grad_output = check_loss_gradient(
        "binary_cross_entropy_with_logits_backward", grad_output, reduction, input.shape, input
    )
    return np.asarray(
        implementation("binary_cross_entropy_with_logits_backward")(
            grad_output, input, target, weight, reduction, pos_weight
        )
    )


def kl_div(input, target, reduction="mean", log_target=False):
    """Kullback-Leibler divergence, elementwise ``t (log t - x)``, with 0 log 0 = 0.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Log-probabilities x of the model.
    target : ndarray
        Probabilities t, or their logarithms with ``log_target``; shape and dtype of ``input``.
    reduction : {"none", "mean", "sum", "batchmean"}
        "mean" divides by the number of entries; "batchmean" by the first dimension, which gives the divergence.
    log_target : bool
        Whether ``target`` holds logarithms.

    Returns
    -------
    float or ndarray
        The loss; with ``reduction="none"`` an array of the shape of ``input``, in the dtype of ``input``.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> round(F.kl_div(np.log([[0.5, 0.5]]), np.array([[0.25, 0.75]]), reduction="batchmean"), 6)
    0.130812
    """
    reduction, batch = check_kl_div("kl_div", input, target, reduction, log_target)
    loss = implementation("kl_div")(input, target, reduction, log_target)
    if reduction == "none":
        return loss
    return loss / batch if batch else float("nan")


def kl_div_backward(grad_output, input, target, reduction="mean", log_target=False):
    """Gradient of :func:`kl_div` by its input: ``-t``, times ``grad_output``.

    Parameters
    ----------
    grad_output : float or ndarray
        Gradient of the loss: a number, or with ``reduction="none"`` an array of the shape of ``input``.
    input, target, reduction, log_target
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
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.kl_div_backward(1.0, np.log([[0.5, 0.5]]), np.array([[0.25, 0.75]]), reduction="sum")
    array([[-0.25, -0.75]])
    """
    reduction, batch = check_kl_div("kl_div_backward", input, target, reduction, log_target)
    grad_output = check_loss_gradient("kl_div_backward", grad_output, reduction, input.shape, input)
    if reduction == "sum":
        grad_output /= max(batch, 1)
    return np.asarray(implementation("kl_div_backward")(grad_output, input, target, reduction, log_target))

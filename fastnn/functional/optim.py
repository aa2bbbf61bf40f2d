"""Optimiser updates, in place over lists of arrays: checked arguments, then the active backend.

The formulas, names and defaults are those of ``torch.optim``; ``fastnn.optim`` has the classes that keep the buffers.
"""

import math

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_flag,
    check_float_array,
    check_integer,
    check_number,
    check_same_dtype,
    check_shape,
    check_writeable,
)
from fastnn.runtime import shared_memory

__all__ = [
    "adadelta_",
    "adagrad_",
    "adam_",
    "adamax_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "nadam_",
    "radam_",
    "rmsprop_",
    "sgd_",
]

LARGEST_STEP = 2**53  # the kernels' powers of the step are float64

FLAGS = {
    "amsgrad",
    "bias_correction",
    "centered",
    "decoupled_weight_decay",
    "lr_in_momentum",
    "maximize",
    "nesterov",
}


def check_hyperparameters(function, *, betas=None, **values):
    """The values as floats and bools, betas as a pair: finite, not negative, and in the range of their meaning."""
    checked: dict = {}
    for name, value in values.items():
        if name in FLAGS:
            checked[name] = check_flag(function, name, value)
        else:
            checked[name] = check_finite(function, name, value, maximum=1.0 if name == "rho" else None)
    if betas is not None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{function}: betas must be a pair of numbers, got {betas!r}")
        checked["betas"] = tuple(check_finite(function, f"betas[{i}]", beta, below=1.0) for i, beta in enumerate(betas))
    if checked.get("nesterov") and (checked["momentum"] == 0 or checked["dampening"] != 0):
        raise ValueError(
            f"{function}: nesterov needs momentum above 0 and dampening 0, "
            f"got momentum={checked['momentum']} and dampening={checked['dampening']}"
        )
    return checked


def check_finite(function, name, value, maximum=None, below=None):
    value = check_number(function, name, value, minimum=0.0)
    if maximum is not None and value > maximum:
        raise ValueError(f"{function}: {name} must be from 0 to {maximum:g}, got {value}")
    if below is not None and value >= below:
        raise ValueError(f"{function}: {name} must be at least 0 and below {below:g}, got {value}")
    if math.isinf(value):
        raise ValueError(f"{function}: {name} must be finite, got {value}")
    return value


def check_list(function, name, arrays, like=None):
    """A list or tuple, as long as params, as a list."""
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"{function}: {name} must be a list of arrays, got {type(arrays).__name__}")
    if like is not None and len(arrays) != len(like):
        raise ValueError(f"{function}: {name} must have one entry per parameter ({len(like)}), got {len(arrays)}")
    return list(arrays)


def check_arrays(function, params, grads, masks, **buffers):
    """Every list as a list, masks included; buffers that are None stay None."""
    params = check_list(function, "params", params)
    for i, p in enumerate(params):
        # What is right is passed at once: a network has hundreds of arrays, and a step takes microseconds.
        if i and type(p) is np.ndarray and p.dtype is params[0].dtype and p.flags.writeable:
            continue
        check_float_array(function, f"params[{i}]", p)
        check_same_dtype(function, f"params[{i}]", p, "params[0]", params[0])
        check_writeable(function, f"params[{i}]", p)
    grads = check_list(function, "grads", grads, params)
    check_like_params(function, "grads", grads, params, False)
    lists = {}
    for name, arrays in buffers.items():
        lists[name] = None if arrays is None else check_list(function, name, arrays, params)
        if arrays is not None:
            check_like_params(function, name, lists[name], params, True)
    check_disjoint(function, {"params": params, **{name: a for name, a in lists.items() if a is not None}})
    return params, grads, *lists.values(), check_masks(function, masks, params)


def check_disjoint(function, lists):
    """No two arrays that are changed share memory: the threads that change them would race."""
    shared = shared_memory([x for arrays in lists.values() for x in arrays])
    if shared is not None:
        names = [f"{name}[{i}]" for name, arrays in lists.items() for i in range(len(arrays))]
        first, second = (names[i] for i in shared)
        raise ValueError(
            f"{function}: an array stands twice among the {' and '.join(lists)}, or overlaps another: {first} and "
            f"{second} share memory, and both would be changed; pass each one once, or a copy"
        )


def check_like_params(function, name, arrays, params, writeable):
    """Each array has its parameter's shape and dtype."""
    for i, (x, p) in enumerate(zip(arrays, params, strict=True)):
        if type(x) is np.ndarray and x.dtype is p.dtype and x.shape == p.shape and (x.flags.writeable or not writeable):
            continue
        check_same_dtype(function, f"{name}[{i}]", x, f"params[{i}]", p)
        check_shape(function, f"{name}[{i}]", x, p.shape, "the parameter's shape")
        if writeable:
            check_writeable(function, f"{name}[{i}]", x)


def check_masks(function, masks, params):
    if masks is None:
        return None
    masks = check_list(function, "masks", masks, params)
    for i, (mask, p) in enumerate(zip(masks, params, strict=True)):
        if mask is None:
            continue
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            given = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"{function}: masks[{i}] must be None or an array of bool, got {given}; use astype(bool)")
        check_shape(function, f"masks[{i}]", mask, p.shape, "the parameter's shape")
    return masks


def require(function, name, buffers, why):
    if buffers is None:
        raise ValueError(f"{function}: {name} must be given, because {why}; start with arrays of zeros")


def common(values, decoupled_weight_decay=False):
    """What every rule takes, out of the checked hyper-parameters."""
    shared = {name: values[name] for name in ("maximize", "weight_decay", "l1", "l1_subgradient")}
    return {"decoupled_weight_decay": values.get("decoupled_weight_decay", decoupled_weight_decay), **shared}


def sgd_(
    params,
    grads,
    momentum_buffers=None,
    *,
    lr,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    maximize=False,
    first_step=False,
    lr_in_momentum=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of stochastic gradient descent: ``v = momentum * v + g``, ``p -= lr * v``.

    Parameters
    ----------
    params : list of ndarray, float32 or float64, all of one dtype
        Updated in place; like the buffers, no two of them share memory.
    grads : list of ndarray
        One gradient per parameter, of its shape and dtype; only read.
    momentum_buffers : list of ndarray, optional
        ``v``, one per parameter, updated in place; zeros before the first step. Not used when momentum is 0.
    lr : float
        Learning rate.
    momentum, dampening : float
        ``v = momentum * v + (1 - dampening) * g``.
    weight_decay : float
        L2 penalty: ``g += weight_decay * p`` first.
    nesterov : bool
        Step along ``g + momentum * v``: Nesterov's method in the shifted variables ``p + momentum * v``.
        (``fastnn.optim.SGD.lookahead`` has the form that takes the gradient ahead.)
    maximize : bool
        Ascend: the gradient changes its sign first.
    first_step : bool
        The first update of these buffers: dampening is left out, as in torch.
    lr_in_momentum : bool
        Keep the learning rate inside the buffer: ``v = momentum * v - lr * g``, ``p += v`` (Polyak's form in many
        textbooks). Differs from torch's form once ``lr`` changes.
    l1 : float
        L1 penalty by a proximal step after the update: ``p`` moves towards 0 by ``lr * l1`` and stops at exactly 0.
    l1_subgradient : float
        L1 penalty by its subgradient: ``g += l1_subgradient * sign(p)`` first. Never gives exact zeros.
    masks : list of (ndarray of bool, or None), optional
        Where False, the parameter is held at exactly 0 and its gradient counts as 0: pruned weights.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p = np.array([1.0, 2.0])
    >>> F.sgd_([p], [np.array([0.5, -0.5])], lr=0.1)
    >>> p
    array([0.95, 2.05])
    """
    values = check_hyperparameters(
        "sgd_",
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
        maximize=maximize,
        lr_in_momentum=lr_in_momentum,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    if momentum:
        require("sgd_", "momentum_buffers", momentum_buffers, "momentum is not 0")
    else:
        momentum_buffers = None
    params, grads, momentum_buffers, masks = check_arrays(
        "sgd_", params, grads, masks, momentum_buffers=momentum_buffers
    )
    if not params:
        return
    implementation("sgd_")(
        params,
        grads,
        momentum_buffers,
        masks,
        bool(first_step),
        values["lr"],
        values["momentum"],
        values["dampening"],
        values["nesterov"],
        values["lr_in_momentum"],
        **common(values),
    )


def adagrad_(
    params,
    grads,
    sums,
    *,
    step,
    lr,
    lr_decay=0.0,
    weight_decay=0.0,
    eps=1e-10,
    maximize=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of Adagrad: ``s += g * g``, ``p -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    sums : list of ndarray
        ``s``, updated in place; zeros (or another initial value) before the first step.
    step : int
        Number of this update, from 1.
    lr, lr_decay, eps : float
        Learning rate, its decay, and what keeps the division finite.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, s = np.array([1.0, 2.0]), np.zeros(2)
    >>> F.adagrad_([p], [np.array([0.5, -0.5])], [s], step=1, lr=0.1)
    >>> p.round(6)
    array([0.9, 2.1])
    """
    values = check_hyperparameters(
        "adagrad_",
        lr=lr,
        lr_decay=lr_decay,
        eps=eps,
        weight_decay=weight_decay,
        maximize=maximize,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    step = check_integer("adagrad_", "step", step, 1, LARGEST_STEP)
    params, grads, sums, masks = check_arrays("adagrad_", params, grads, masks, sums=sums)
    if params:
        implementation("adagrad_")(
            params, grads, sums, masks, step, values["lr"], values["lr_decay"], values["eps"], **common(values)
        )


def rmsprop_(
    params,
    grads,
    square_avgs,
    grad_avgs=None,
    momentum_buffers=None,
    *,
    lr,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    maximize=False,
    lr_in_momentum=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of RMSprop: ``s = alpha * s + (1 - alpha) * g * g``, ``p -= lr * g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    square_avgs, grad_avgs, momentum_buffers : list of ndarray
        The mean square, the mean gradient (where centered) and the momentum buffer (where momentum is not 0), updated
        in place; zeros before the first step.
    lr, alpha, eps : float
        Learning rate, share of the old mean, and what keeps the division finite (outside the root).
    momentum : float
        ``v = momentum * v + g / (sqrt(s) + eps)``, ``p -= lr * v``.
    centered : bool
        Divide by the root of the variance ``s - mean(g)**2`` (at least 0) instead.
    lr_in_momentum : bool
        ``v = momentum * v - lr * g / (sqrt(s) + eps)``, ``p += v``.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, s = np.array([1.0, 2.0]), np.zeros(2)
    >>> F.rmsprop_([p], [np.array([0.5, -0.5])], [s], lr=0.01, alpha=0.75)
    >>> p.round(6)
    array([0.98, 2.02])
    """
    values = check_hyperparameters(
        "rmsprop_",
        lr=lr,
        alpha=alpha,
        eps=eps,
        momentum=momentum,
        centered=centered,
        weight_decay=weight_decay,
        maximize=maximize,
        lr_in_momentum=lr_in_momentum,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    if centered:
        require("rmsprop_", "grad_avgs", grad_avgs, "centered is True")
    if momentum:
        require("rmsprop_", "momentum_buffers", momentum_buffers, "momentum is not 0")
    params, grads, square_avgs, grad_avgs, momentum_buffers, masks = check_arrays(
        "rmsprop_",
        params,
        grads,
        masks,
        square_avgs=square_avgs,
        grad_avgs=grad_avgs if centered else None,
        momentum_buffers=momentum_buffers if momentum else None,
    )
    if params:
        implementation("rmsprop_")(
            params,
            grads,
            square_avgs,
            grad_avgs,
            momentum_buffers,
            masks,
            values["lr"],
            values["alpha"],
            values["eps"],
            values["momentum"],
            values["lr_in_momentum"],
            **common(values),
        )


def adam_(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    max_exp_avg_sqs=None,
    *,
    step,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled_weight_decay=False,
    bias_correction=True,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of Adam; of AdamW with ``decoupled_weight_decay=True``.

    ``m = beta1 * m + (1 - beta1) * g``, ``v = beta2 * v + (1 - beta2) * g * g``,
    ``p -= lr * (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps)``.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    exp_avgs, exp_avg_sqs : list of ndarray
        ``m`` and ``v``, updated in place; zeros before the first step.
    max_exp_avg_sqs : list of ndarray, optional
        The largest ``v`` so far, for amsgrad.
    step : int
        Number of this update, from 1.
    lr, eps : float
        Learning rate, and what keeps the division finite.
    betas : pair of float
        Shares of the old moments.
    amsgrad : bool
        Divide by the largest ``v`` so far (Reddi et al., On the convergence of Adam and beyond).
    decoupled_weight_decay : bool
        Decay the parameters by ``p *= 1 - lr * weight_decay`` instead of adding to the gradient (Loshchilov and
        Hutter, Decoupled weight decay regularization).
    bias_correction : bool
        False leaves out the divisions by ``1 - beta**step``.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> F.adam_([p], [np.array([0.5, -0.5])], [m], [v], step=1, lr=0.1)
    >>> p.round(6)
    array([0.9, 2.1])
    """
    values = check_hyperparameters(
        "adam_",
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        maximize=maximize,
        decoupled_weight_decay=decoupled_weight_decay,
        bias_correction=bias_correction,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    step = check_integer("adam_", "step", step, 1, LARGEST_STEP)
    if amsgrad:
        require("adam_", "max_exp_avg_sqs", max_exp_avg_sqs, "amsgrad is True")
    params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, masks = check_arrays(
        "adam_",
        params,
        grads,
        masks,
        exp_avgs=exp_avgs,
        exp_avg_sqs=exp_avg_sqs,
        max_exp_avg_sqs=max_exp_avg_sqs if amsgrad else None,
    )
    if params:
        implementation("adam_")(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            max_exp_avg_sqs,
            masks,
            step,
            values["lr"],
            *values["betas"],
            values["eps"],
            values["bias_correction"],
            **common(values),
        )


def adadelta_(
    params,
    grads,
    square_avgs,
    acc_deltas,
    *,
    lr=1.0,
    rho=0.9,
    eps=1e-6,
    weight_decay=0.0,
    maximize=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of Adadelta (Zeiler): ``d = g * sqrt(u + eps) / sqrt(s + eps)``, ``p -= lr * d``.

    ``s`` and ``u`` are the means of ``g * g`` and ``d * d``, decaying by ``rho``; ``s`` is brought up to date first.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    square_avgs, acc_deltas : list of ndarray
        ``s`` and ``u``, updated in place; zeros before the first step.
    lr, rho, eps : float
        Factor of the step, share of the old means, and what keeps the division finite.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, s, u = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> F.adadelta_([p], [np.array([0.5, -0.5])], [s], [u])
    >>> p.round(4)
    array([0.9968, 2.0032])
    """
    values = check_hyperparameters(
        "adadelta_",
        lr=lr,
        rho=rho,
        eps=eps,
        weight_decay=weight_decay,
        maximize=maximize,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    params, grads, square_avgs, acc_deltas, masks = check_arrays(
        "adadelta_", params, grads, masks, square_avgs=square_avgs, acc_deltas=acc_deltas
    )
    if params:
        implementation("adadelta_")(
            params,
            grads,
            square_avgs,
            acc_deltas,
            masks,
            values["lr"],
            values["rho"],
            values["eps"],
            **common(values),
        )


def adamax_(
    params,
    grads,
    exp_avgs,
    exp_infs,
    *,
    step,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    maximize=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of Adamax: ``u = max(beta2 * u, abs(g) + eps)``, ``p -= lr / (1 - beta1**step) * m / u``.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    exp_avgs, exp_infs : list of ndarray
        ``m`` (the mean gradient, as in :func:`adam_`) and ``u``, updated in place; zeros before the first step.
    step : int
        Number of this update, from 1.
    lr, eps : float
        Learning rate, and what keeps the division finite.
    betas : pair of float
        Shares of the old averages.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, m, u = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> F.adamax_([p], [np.array([0.5, -0.5])], [m], [u], step=1, lr=0.1)
    >>> p.round(6)
    array([0.9, 2.1])
    """
    values = check_hyperparameters(
        "adamax_",
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        maximize=maximize,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    step = check_integer("adamax_", "step", step, 1, LARGEST_STEP)
    params, grads, exp_avgs, exp_infs, masks = check_arrays(
        "adamax_", params, grads, masks, exp_avgs=exp_avgs, exp_infs=exp_infs
    )
    if params:
        implementation("adamax_")(
            params,
            grads,
            exp_avgs,
            exp_infs,
            masks,
            step,
            values["lr"],
            *values["betas"],
            values["eps"],
            **common(values),
        )


def nadam_(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    *,
    step,
    mu_product,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of NAdam, Adam with Nesterov's momentum (Dozat), by the formula of ``torch.optim.NAdam``.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    exp_avgs, exp_avg_sqs : list of ndarray
        The moments of :func:`adam_`, updated in place; zeros before the first step.
    step : int
        Number of this update, from 1.
    mu_product : float
        What the step before returned: the product of the momenta ``mu`` so far; 1 before the first step.
    lr, eps : float
        Learning rate, and what keeps the division finite.
    betas : pair of float
        Shares of the old moments.
    momentum_decay : float
        ``mu = beta1 * (1 - 0.5 * 0.96**(step * momentum_decay))``.
    decoupled_weight_decay : bool
        As in :func:`adam_`.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Returns
    -------
    float
        ``mu_product`` for the next step.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> product = F.nadam_([p], [np.array([0.5, -0.5])], [m], [v], step=1, mu_product=1.0, lr=0.1)
    >>> p.round(4), round(product, 4)
    (array([0.8944, 2.1056]), 0.4501)
    """
    values = check_hyperparameters(
        "nadam_",
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    step = check_integer("nadam_", "step", step, 1, LARGEST_STEP)
    mu_product = check_number("nadam_", "mu_product", mu_product, minimum=0.0, maximum=1.0)
    params, grads, exp_avgs, exp_avg_sqs, masks = check_arrays(
        "nadam_", params, grads, masks, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs
    )
    if not params:
        return mu_product
    return implementation("nadam_")(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        masks,
        step,
        mu_product,
        values["lr"],
        *values["betas"],
        values["eps"],
        values["momentum_decay"],
        **common(values),
    )


def radam_(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    *,
    step,
    lr,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
    l1=0.0,
    l1_subgradient=0.0,
    masks=None,
):
    """One step of rectified Adam (Liu et al., On the variance of the adaptive learning rate and beyond).

    As in ``torch.optim.RAdam``, eps is added to the root of the moment before its bias is corrected.

    Parameters
    ----------
    params, grads : list of ndarray
        As in :func:`sgd_`.
    exp_avgs, exp_avg_sqs : list of ndarray
        The moments of :func:`adam_`, updated in place; zeros before the first step.
    step : int
        Number of this update, from 1. The first few steps (five with beta2 = 0.999) follow the first moment alone.
    lr, eps : float
        Learning rate, and what keeps the division finite.
    betas : pair of float
        Shares of the old moments.
    decoupled_weight_decay : bool
        As in :func:`adam_`.
    weight_decay, maximize, l1, l1_subgradient, masks
        As in :func:`sgd_`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> F.radam_([p], [np.array([0.5, -0.5])], [m], [v], step=1, lr=0.1)
    >>> p
    array([0.95, 2.05])
    """
    values = check_hyperparameters(
        "radam_",
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
        l1=l1,
        l1_subgradient=l1_subgradient,
    )
    step = check_integer("radam_", "step", step, 1, LARGEST_STEP)
    params, grads, exp_avgs, exp_avg_sqs, masks = check_arrays(
        "radam_", params, grads, masks, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs
    )
    if params:
        implementation("radam_")(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            masks,
            step,
            values["lr"],
            *values["betas"],
            values["eps"],
            **common(values),
        )


def check_gradients(function, grads):
    """Gradients to clip: a list, or one array, of writeable arrays; sorted by dtype for the kernels."""
    grads = check_list(function, "grads", [grads] if isinstance(grads, np.ndarray) else grads)
    for i, g in enumerate(grads):
        check_float_array(function, f"grads[{i}]", g)
        check_writeable(function, f"grads[{i}]", g)
    check_disjoint(function, {"grads": grads})
    return [same for dtype in (np.float32, np.float64) if (same := [g for g in grads if g.dtype == dtype])]


def clip_grad_norm_(grads, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scales all gradients by one factor, in place, so that their global norm is at most ``max_norm``.

    The factor is ``min(1, max_norm / (norm + 1e-6))``, where the norm is taken over all elements of all arrays.

    Parameters
    ----------
    grads : list of ndarray, or ndarray
        float32 or float64; changed in place.
    max_norm : float
        Not negative.
    norm_type : {2.0, inf}
        Euclidean norm, or largest absolute value.
    error_if_nonfinite : bool
        Raise RuntimeError where the norm is infinite or NaN, and change nothing. Else, as in torch, the factor is 0 for
        an infinite norm, which turns finite gradients to 0 and infinite ones to NaN; and NaN for a norm of NaN.

    Returns
    -------
    float
        The norm before clipping, computed in float64.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype or value; nothing has been changed then.
    RuntimeError
        If the norm is not finite and ``error_if_nonfinite`` is set.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> g = np.array([3.0, 4.0])
    >>> F.clip_grad_norm_([g], max_norm=1.0)
    5.0
    >>> g.round(6)
    array([0.6, 0.8])
    """
    max_norm = check_number("clip_grad_norm_", "max_norm", max_norm, minimum=0.0)
    if norm_type not in (2, math.inf):
        raise ValueError(f"clip_grad_norm_: norm_type must be 2.0 or inf, got {norm_type!r}")
    by_dtype = check_gradients("clip_grad_norm_", grads)
    if norm_type == 2:
        norm = math.sqrt(sum(implementation("sum_of_squares")(same) for same in by_dtype))
    else:
        norm = float(np.max([np.abs(g).max(initial=0) for same in by_dtype for g in same], initial=0))
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"clip_grad_norm_: the norm of the gradients is {norm}, so they cannot be clipped; look for the overflow, "
            "or set error_if_nonfinite=False to scale them by it anyway"
        )
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1.0:  # NaN scales too, as in torch
        for same in by_dtype:
            implementation("scale_")(same, factor)
    return norm


def clip_grad_value_(grads, clip_value):
    """Clamps every gradient element into ``[-clip_value, clip_value]``, in place; NaN stays NaN.

    Parameters
    ----------
    grads : list of ndarray, or ndarray
        float32 or float64; changed in place.
    clip_value : float
        Not negative.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype or value; nothing has been changed then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> g = np.array([0.5, -3.0])
    >>> F.clip_grad_value_([g], 1.0)
    >>> g
    array([ 0.5, -1. ])
    """
    clip_value = check_number("clip_grad_value_", "clip_value", clip_value, minimum=0.0)
    for same in check_gradients("clip_grad_value_", grads):
        implementation("clamp_")(same, clip_value)

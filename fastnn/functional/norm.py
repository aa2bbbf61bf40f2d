"""Normalisation: checked arguments, then the active backend."""

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import check_float_array, check_number, check_same_dtype, check_shape

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_relu",
    "batch_norm_relu_backward",
]


def check_channels(function, input, maximum_ndim=5, minimum_ndim=2):
    """input is a float array (N, C, ...)."""
    check_float_array(function, "input", input)
    if not minimum_ndim <= input.ndim <= maximum_ndim:
        layouts = ["(N, C)", "(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)"][minimum_ndim - 2 :]
        raise ValueError(f"{function}: input must have shape {' or '.join(layouts)}, got {input.shape}")


def check_affine(function, input, shape, weight, bias, meaning):
    """weight and bias are None, or have input's dtype and this shape."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_same_dtype(function, name, value, "input", input)
            check_shape(function, name, value, shape, meaning)


def check_grad_output(function, grad_output, input):
    check_same_dtype(function, "grad_output", grad_output, "input", input)
    check_shape(function, "grad_output", grad_output, input.shape, "input's shape")


def check_eps(function, eps, positive=False):
    eps = check_number(function, "eps", eps, minimum=0)
    if positive and eps == 0:
        raise ValueError(f"{function}: eps must be positive where statistics come from input, got 0.0")
    return eps


def check_running(function, input, running_mean, running_var, needed, updated):
    """Both are None (unless needed), or have input's dtype and a value per channel; writable if they are updated."""
    given = [value is not None for value in (running_mean, running_var)]
    if any(given) and not all(given):
        missing = "running_var" if given[0] else "running_mean"
        raise ValueError(
            f"{function}: running_mean and running_var go together, but {missing} is None; give both or none"
        )
    if not any(given):
        if needed:
            raise ValueError(f"{function}: running_mean and running_var must be arrays where {needed}, got None")
        return
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        check_same_dtype(function, name, value, "input", input)
        check_shape(function, name, value, input.shape[1:2], "a value per channel of input")
        if updated and not value.flags.writeable:
            raise ValueError(f"{function}: {name} is updated in place, but it is read-only; pass a copy")


def check_batch_norm(function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates):
    """The arguments that all batch norms share; returns (training, momentum, eps), normalised."""
    check_channels(function, input)
    channels = input.shape[1:2]
    if not isinstance(training, (bool, np.bool_)):
        raise TypeError(f"{function}: training must be True or False, got {training!r}")
    check_running(
        function, input, running_mean, running_var, "" if training else "training=False", updates and training
    )
    check_affine(function, input, channels, weight, bias, "a value per channel of input")
    if momentum is None:
        raise TypeError(
            f"{function}: momentum must be a number, got None; for a cumulative average pass 1 / (batches seen so far)"
        )
    momentum = check_number(function, "momentum", momentum, 0, 1)
    eps = check_eps(function, eps, positive=bool(training))
    if training and input.size == channels[0] > 0:
        raise ValueError(f"{function}: training needs more than 1 value per channel, got input of shape {input.shape}")
    return bool(training), momentum, eps


def check_saved(function, input, saved):
    """saved is None, or (mean, inverse deviation) as the forward returns them."""
    if saved is None:
        return
    if not isinstance(saved, (tuple, list)) or len(saved) != 2:
        raise TypeError(f"{function}: saved must be (mean, inverse deviation) as the forward returns it, got {saved!r}")
    for value in saved:
        if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.shape != input.shape[1:2]:
            got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(
                f"{function}: saved must hold two float64 arrays of shape {input.shape[1:2]}, as the forward returns "
                f"them, got {got}"
            )


def empty_gradients(input, weight, bias):
    """Gradients where input has no elements."""
    return tuple(None if array is None else np.zeros_like(array, order="C") for array in (input, weight, bias))


def run_batch_norm(
    function, input, running_mean, running_var, weight, bias, training, momentum, eps, return_saved, relu
):
    training, momentum, eps = check_batch_norm(
        function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates=True
    )
    if input.size == 0:
        y, saved = np.empty_like(input, order="C"), (np.zeros(input.shape[1]), np.zeros(input.shape[1]))
    else:
        y, saved = implementation("batch_norm")(
            input, running_mean, running_var, weight, bias, training, momentum, eps, relu
        )
    return (y, saved) if return_saved else y


def run_batch_norm_backward(
    function, grad_output, input, running_mean, running_var, weight, bias, training, momentum, eps, saved, relu
):
    training, _, eps = check_batch_norm(
        function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates=False
    )
    check_grad_output(function, grad_output, input)
    check_saved(function, input, saved)
    if input.size == 0:
        return empty_gradients(input, weight, bias)
    return implementation("batch_norm_backward")(
        grad_output, input, running_mean, running_var, weight, bias, training, eps, saved, relu
    )


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    return_saved=False,
):
    """Batch normalisation: each channel to mean 0 and variance 1 over batch and space, then scaled and shifted.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``. In training, mean and (biased) variance are those of ``input``
    per channel; else they are ``running_mean`` and ``running_var``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W). A channels-last array, passed as its channels-first view, is
        computed in place, and its result has the same layout.
    running_mean, running_var : ndarray of shape (C,) or None
        Running averages, of ``input``'s dtype. Training updates them in place:
        ``running = (1 - momentum) * running + momentum * batch``, with the unbiased variance. Training
        also runs without them (None).
    weight, bias : ndarray of shape (C,), optional
        Scale and shift per channel, of ``input``'s dtype; 1 and 0 where None.
    training : bool
        Normalise with ``input``'s own statistics.
    momentum : float
        Share of this batch in the running averages, from 0 to 1.
    eps : float
        Added to the variance; positive in training.
    return_saved : bool
        Return ``(y, saved)``: for the backward, mean and inverse deviation ``1 / sqrt(var + eps)`` in float64.

    Returns
    -------
    ndarray or (ndarray, (ndarray, ndarray))
        Shape and dtype of ``input``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, dtypes differ, or ``momentum`` is None.
    ValueError
        If a shape does not fit, running statistics are missing in inference or read-only in training, or training has
        only 1 value per channel.

    Notes
    -----
    Ioffe and Szegedy, Batch normalization, ICML 2015, algorithms 1 and 2. A mean far above the deviation costs no
    accuracy. An empty input leaves the running averages as they are.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> F.batch_norm(x, None, None, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    return run_batch_norm(
        "batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps, return_saved, relu=False
    )


def batch_norm_backward(
    grad_output,
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    saved=None,
):
    """Gradients of :func:`batch_norm`: in training through mean and variance, else with these constant.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, running_mean, running_var, weight, bias, training, momentum, eps
        The forward's own. The running statistics are not changed here.
    saved : (ndarray, ndarray), optional
        What the forward returned by ``return_saved=True``; without it the statistics are computed again.

    Returns
    -------
    (ndarray, ndarray or None, ndarray or None)
        Gradients of ``input``, ``weight`` and ``bias``; None where the argument was None.

    Raises
    ------
    TypeError, ValueError
        As the forward; or if ``grad_output`` or ``saved`` does not fit.

    Notes
    -----
    With g = grad_output * weight: ``dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)`` in training.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> dx, dweight, dbias = F.batch_norm_backward(x, x, None, None, np.ones(1), np.zeros(1), training=True)
    >>> dbias
    array([6.])
    """
    return run_batch_norm_backward(
        "batch_norm_backward",
        grad_output,
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        saved,
        relu=False,
    )


def batch_norm_relu(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    return_saved=False,
):
    """``max(0, batch_norm(...))`` in one pass; arguments, results and errors are those of :func:`batch_norm`.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps, return_saved
        As in :func:`batch_norm`.

    Returns
    -------
    ndarray or (ndarray, (ndarray, ndarray))
        Shape and dtype of ``input``. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`batch_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> F.batch_norm_relu(x, None, None, training=True).round(3)
    array([[0., 0.],
           [1., 1.]])
    """
    return run_batch_norm(
        "batch_norm_relu",
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        return_saved,
        relu=True,
    )


def batch_norm_relu_backward(
    grad_output,
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    saved=None,
):
    """Gradients of :func:`batch_norm_relu`; which outputs ReLU kept is computed again from ``input``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, running_mean, running_var, weight, bias, training, momentum, eps, saved
        As in :func:`batch_norm_backward`.

    Returns
    -------
    (ndarray, ndarray or None, ndarray or None)
        Gradients of ``input``, ``weight`` and ``bias``; None where the argument was None.

    Raises
    ------
    TypeError, ValueError
        As :func:`batch_norm_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> F.batch_norm_relu_backward(np.ones((3, 1)), x, None, None, np.ones(1), np.zeros(1), training=True)[2]
    array([1.])
    """
    return run_batch_norm_backward(
        "batch_norm_relu_backward",
        grad_output,
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        saved,
        relu=True,
    )

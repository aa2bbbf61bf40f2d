"""Normalisation: checked arguments, then the active backend."""

import math

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    LARGEST_SIZE,
    check_flag,
    check_float_array,
    check_grad_output,
    check_integer,
    check_number,
    check_same_dtype,
    check_shape,
    check_writeable,
)

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_relu",
    "batch_norm_relu_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
]


LAYOUTS = {2: "(N, C)", 3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


def check_channels(function, input, ndims):
    """input is a float array (N, C, ...) with one of these numbers of dimensions."""
    check_float_array(function, "input", input)
    if input.ndim not in ndims:
        layouts = " or ".join(LAYOUTS[ndim] for ndim in ndims)
        raise ValueError(f"{function}: input must have shape {layouts}, got {input.shape}")


def check_affine(function, input, shape, weight, bias, meaning):
    """weight and bias are None, or have input's dtype and this shape."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_same_dtype(function, name, value, "input", input)
            check_shape(function, name, value, shape, meaning)


def check_eps(function, eps, positive=False):
    eps = check_number(function, "eps", eps, minimum=0)
    if positive and eps == 0:
        raise ValueError(f"{function}: eps must be positive where statistics come from input, got 0.0")
    return eps


def check_momentum(function, momentum):
    if momentum is None:
        raise TypeError(
            f"{function}: momentum must be a number, got None; for a cumulative average pass 1 / (batches seen so far)"
        )
    return check_number(function, "momentum", momentum, 0, 1)


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
        if updated:
            check_writeable(function, name, value)


def check_batch_norm(function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates):
    """The arguments that all batch norms share; returns (training, momentum, eps), normalised."""
    check_channels(function, input, (2, 3, 4, 5))
    channels = input.shape[1:2]
    training = check_flag(function, "training", training)
    check_running(
        function, input, running_mean, running_var, "" if training else "training=False", updates and training
    )
    check_affine(function, input, channels, weight, bias, "a value per channel of input")
    momentum = check_momentum(function, momentum)
    eps = check_eps(function, eps, positive=training)
    if training and input.size == channels[0] > 0:
        raise ValueError(f"{function}: training needs more than 1 value per channel, got input of shape {input.shape}")
    return training, momentum, eps


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
    function, input, running_mean, running_var, weight, bias, training, momentum, eps, return_saved, relu, residual=None
):
    training, momentum, eps = check_batch_norm(
        function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates=True
    )
    if residual is not None:
        check_same_dtype(function, "residual", residual, "input", input)
        check_shape(function, "residual", residual, input.shape, "input's")
    if input.size == 0:
        y, saved = np.empty_like(input, order="C"), (np.zeros(input.shape[1]), np.zeros(input.shape[1]))
    else:
        y, saved = implementation("batch_norm")(
            input, running_mean, running_var, weight, bias, training, momentum, eps, relu, residual
        )
    return (y, saved) if return_saved else y


def run_batch_norm_backward(
    function, grad_output, input, running_mean, running_var, weight, bias, training, momentum, eps, saved, relu
):
    training, _, eps = check_batch_norm(
        function, input, running_mean, running_var, weight, bias, training, momentum, eps, updates=False
    )
    check_grad_output(function, grad_output, input, input.shape)
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
    residual=None,
    return_saved=False,
):
    """``max(0, batch_norm(...) + residual)`` in one pass; other arguments and errors are those of :func:`batch_norm`.

    Backward, :func:`batch_norm_relu_backward` where there is no residual. Else ``g = relu_backward(grad_output, y)`` is
    the gradient by the residual, and :func:`batch_norm_backward` of g gives the others.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps, return_saved
        As in :func:`batch_norm`.
    residual : ndarray of the input's shape and dtype, optional
        Added before the ReLU, as at the end of a residual block.

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
        residual=residual,
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
    """Gradients of :func:`batch_norm_relu` without residual; which outputs ReLU kept is computed again from ``input``.

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


def check_layer_norm(function, input, normalized_shape, weight, bias, eps):
    """The arguments that layer norm's two directions share; returns (length of a row, eps)."""
    check_float_array(function, "input", input)
    if not isinstance(normalized_shape, (tuple, list)):
        normalized_shape = (normalized_shape,)
    shape = tuple(check_integer(function, "normalized_shape", size, 0) for size in normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(
            f"{function}: normalized_shape must be input's last dimensions, got {shape} for input's {input.shape}"
        )
    check_affine(function, input, shape, weight, bias, "normalized_shape")
    return math.prod(shape), check_eps(function, eps)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Layer normalisation: each row to mean 0 and variance 1 over the last dimensions, then scaled and shifted.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the row's mean and biased variance.

    Parameters
    ----------
    input : ndarray of float32 or float64
        (..., *normalized_shape).
    normalized_shape : int or tuple of int
        The last dimensions of ``input``, which make a row.
    weight, bias : ndarray of shape normalized_shape, optional
        Scale and shift per element of a row, of ``input``'s dtype; 1 and 0 where None.
    eps : float
        Added to the variance, at least 0.

    Returns
    -------
    ndarray
        Shape and dtype of ``input``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    ValueError
        If ``normalized_shape`` does not end ``input``'s shape, or ``weight`` or ``bias`` has another shape.

    Notes
    -----
    Ba, Kiros and Hinton, Layer normalization, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.layer_norm(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 9.0]]), 3).round(3)
    array([[-1.225,  0.   ,  1.225],
           [-0.707, -0.707,  1.414]])
    """
    length, eps = check_layer_norm("layer_norm", input, normalized_shape, weight, bias, eps)
    if input.size == 0:
        return np.empty_like(input, order="C")
    return implementation("layer_norm")(input, length, weight, bias, eps)


def layer_norm_backward(grad_output, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Gradients of :func:`layer_norm`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, normalized_shape, weight, bias, eps
        The forward's own.

    Returns
    -------
    (ndarray, ndarray or None, ndarray or None)
        Gradients of ``input``, ``weight`` and ``bias``; None where the argument was None.

    Raises
    ------
    TypeError, ValueError
        As the forward; or if ``grad_output`` does not fit.

    Notes
    -----
    With g = grad_output * weight: ``dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)``, per row.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0, 2.0], [3.0, 5.0]])
    >>> dx, dweight, dbias = F.layer_norm_backward(x, x, 2, np.ones(2), np.zeros(2))
    >>> dbias
    array([4., 7.])
    """
    function = "layer_norm_backward"
    length, eps = check_layer_norm(function, input, normalized_shape, weight, bias, eps)
    check_grad_output(function, grad_output, input, input.shape)
    if input.size == 0:
        return empty_gradients(input, weight, bias)
    return implementation("layer_norm_backward")(grad_output, input, length, weight, bias, eps)


def check_group_norm(function, input, num_groups, weight, bias, eps):
    """The arguments that group norm's two directions share; returns (num_groups, eps)."""
    check_float_array(function, "input", input)
    if input.ndim < 2:
        raise ValueError(f"{function}: input must have at least 2 dimensions (N, C, ...), got shape {input.shape}")
    num_groups = check_integer(function, "num_groups", num_groups, 1)
    channels = input.shape[1]
    if channels % num_groups:
        raise ValueError(f"{function}: num_groups must divide input's {channels} channels, got {num_groups}")
    check_affine(function, input, (channels,), weight, bias, "a value per channel of input")
    if input.size == num_groups:
        raise ValueError(f"{function}: a group needs more than 1 value, got input of shape {input.shape}")
    return num_groups, check_eps(function, eps)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Group normalisation: each group of adjacent channels of each image to mean 0 and variance 1.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the group's mean and biased variance, and weight and bias
    per channel.

    Parameters
    ----------
    input : ndarray of float32 or float64
        (N, C, ...).
    num_groups : int
        Number of groups, a divisor of C.
    weight, bias : ndarray of shape (C,), optional
        Scale and shift per channel, of ``input``'s dtype; 1 and 0 where None.
    eps : float
        Added to the variance, at least 0.

    Returns
    -------
    ndarray
        Shape and dtype of ``input``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    ValueError
        If a shape does not fit, or the only image has 1 value per group.

    Notes
    -----
    Wu and He, Group normalization, ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    num_groups, eps = check_group_norm("group_norm", input, num_groups, weight, bias, eps)
    if input.size == 0:
        return np.empty_like(input, order="C")
    return implementation("group_norm")(input, num_groups, weight, bias, eps)


def group_norm_backward(grad_output, input, num_groups, weight=None, bias=None, eps=1e-5):
    """Gradients of :func:`group_norm`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, num_groups, weight, bias, eps
        The forward's own.

    Returns
    -------
    (ndarray, ndarray or None, ndarray or None)
        Gradients of ``input``, ``weight`` and ``bias``; None where the argument was None.

    Raises
    ------
    TypeError, ValueError
        As the forward; or if ``grad_output`` does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> F.group_norm_backward(x, x, 2, np.ones(4), np.zeros(4))[2]
    array([ 1.,  3., 10., 30.])
    """
    function = "group_norm_backward"
    num_groups, eps = check_group_norm(function, input, num_groups, weight, bias, eps)
    check_grad_output(function, grad_output, input, input.shape)
    if input.size == 0:
        return empty_gradients(input, weight, bias)
    return implementation("group_norm_backward")(grad_output, input, num_groups, weight, bias, eps)


def check_instance_norm(
    function, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, updates
):
    """The arguments that instance norm's two directions share; returns (use_input_stats, momentum, eps)."""
    check_channels(function, input, (3, 4, 5))
    use_input_stats = check_flag(function, "use_input_stats", use_input_stats)
    needed = "" if use_input_stats else "use_input_stats=False"
    check_running(function, input, running_mean, running_var, needed, updates and use_input_stats)
    check_affine(function, input, input.shape[1:2], weight, bias, "a value per channel of input")
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ValueError(f"{function}: an instance needs more than 1 value, got input of shape {input.shape}")
    return use_input_stats, check_momentum(function, momentum), check_eps(function, eps)


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """Instance normalisation: each channel of each image to mean 0 and variance 1 over space.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with mean and (biased) variance of the channel of the image,
    or ``running_mean`` and ``running_var`` where ``use_input_stats`` is False.

    Parameters
    ----------
    input : ndarray of float32 or float64
        (N, C, L), (N, C, H, W) or (N, C, D, H, W).
    running_mean, running_var : ndarray of shape (C,), optional
        Running averages, of ``input``'s dtype. With ``use_input_stats`` they are updated in place, by the batch's
        mean of the instances' means and unbiased variances: ``running = (1 - momentum) * running + momentum * batch``.
    weight, bias : ndarray of shape (C,), optional
        Scale and shift per channel, of ``input``'s dtype; 1 and 0 where None.
    use_input_stats : bool
        Normalise with the statistics of ``input``.
    momentum : float
        Share of this batch in the running averages, from 0 to 1.
    eps : float
        Added to the variance, at least 0.

    Returns
    -------
    ndarray
        Shape and dtype of ``input``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    ValueError
        If a shape does not fit, running statistics are missing or read-only where they are needed, or an instance has
        only 1 value.

    Notes
    -----
    Ulyanov, Vedaldi and Lempitsky, Instance normalization, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    use_input_stats, momentum, eps = check_instance_norm(
        "instance_norm", input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, updates=True
    )
    if input.size == 0:
        return np.empty_like(input, order="C")
    return implementation("instance_norm")(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def instance_norm_backward(
    grad_output,
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """Gradients of :func:`instance_norm`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        The forward's own. The running statistics are not changed here.

    Returns
    -------
    (ndarray, ndarray or None, ndarray or None)
        Gradients of ``input``, ``weight`` and ``bias``; None where the argument was None.

    Raises
    ------
    TypeError, ValueError
        As the forward; or if ``grad_output`` does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> F.instance_norm_backward(x, x, weight=np.ones(2), bias=np.zeros(2))[2]
    array([ 4., 40.])
    """
    function = "instance_norm_backward"
    use_input_stats, _, eps = check_instance_norm(
        function, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, updates=False
    )
    check_grad_output(function, grad_output, input, input.shape)
    if input.size == 0:
        return empty_gradients(input, weight, bias)
    return implementation("instance_norm_backward")(
        grad_output, input, running_mean, running_var, weight, bias, use_input_stats, eps
    )


def check_local_response_norm(function, input, size, alpha, beta, k):
    """The arguments that both directions share; returns (size, alpha, beta, k)."""
    check_float_array(function, "input", input)
    if input.ndim < 3:
        raise ValueError(f"{function}: input must have at least 3 dimensions (N, C, ...), got shape {input.shape}")
    size = check_integer(function, "size", size, 1, LARGEST_SIZE)
    return size, *(check_number(function, *pair) for pair in (("alpha", alpha), ("beta", beta), ("k", k)))


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0):
    """Local response normalisation: each value divided by the energy of its neighbours in adjacent channels.

    ``y = x / (k + alpha * mean(x[window] ** 2)) ** beta``, where the window of channel c is the ``size`` channels from
    ``c - size // 2``; those outside count as zeros.

    Parameters
    ----------
    input : ndarray of float32 or float64
        (N, C, ...), at least 3 dimensions.
    size : int
        Channels per window, at least 1.
    alpha, beta, k : float
        Factor, exponent and offset.

    Returns
    -------
    ndarray
        Shape and dtype of ``input``.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64.
    ValueError
        If ``input`` has fewer than 3 dimensions, or ``size`` is below 1.

    Notes
    -----
    Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012, section
    3.3; as torch, with the mean of the squares where the paper has their sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.local_response_norm(np.array([[[3.0], [4.0]]]), 2, alpha=2.0, beta=1.0, k=0.0).round(3)
    array([[[0.333],
            [0.16 ]]])
    """
    size, alpha, beta, k = check_local_response_norm("local_response_norm", input, size, alpha, beta, k)
    return implementation("local_response_norm")(input, size, alpha, beta, k)


def local_response_norm_backward(grad_output, input, size, alpha=1e-4, beta=0.75, k=1.0):
    """Gradient of :func:`local_response_norm`.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, size, alpha, beta, k
        The forward's own.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As the forward; or if ``grad_output`` does not fit.

    Notes
    -----
    With ``d = k + alpha * mean(x[window] ** 2)``: ``dx[j] = dy[j] / d[j] ** beta - 2 * alpha * beta / size * x[j]
    * sum(dy[c] * x[c] / d[c] ** (beta + 1))`` over the channels c whose windows hold j.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x = np.array([[[3.0], [4.0]]])
    >>> F.local_response_norm_backward(np.ones_like(x), x, 1, alpha=1.0, beta=0.5, k=0.0).round(3)
    array([[[0.],
            [0.]]])
    """
    function = "local_response_norm_backward"
    size, alpha, beta, k = check_local_response_norm(function, input, size, alpha, beta, k)
    check_grad_output(function, grad_output, input, input.shape)
    return implementation("local_response_norm_backward")(grad_output, input, size, alpha, beta, k)

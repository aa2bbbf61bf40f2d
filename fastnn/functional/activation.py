"""Activations: checked arguments, then the active backend."""

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_choice,
    check_flag,
    check_float_array,
    check_grad_output,
    check_number,
    check_same_dtype,
    check_shape,
)

__all__ = [
    "add",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_sigmoid",
    "log_sigmoid_backward",
    "logsigmoid",
    "logsigmoid_backward",
    "prelu",
    "prelu_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]


def add(input, other, relu=False):
    """``input + other``, or its ReLU, in one pass: the end of a residual block.

    Backward, ``relu_backward(grad_output, y)`` is the gradient of both.

    Parameters
    ----------
    input, other : ndarray of float32 or float64
        Of one shape and dtype; the result has its channels where ``input`` has them.
    relu : bool

    Returns
    -------
    ndarray
        Same shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit: nothing is broadcast.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.add(np.array([-1.0, 2.0]), np.array([0.5, 0.5]), relu=True)
    array([0. , 2.5])
    """
    check_float_array("add", "input", input)
    check_same_dtype("add", "other", other, "input", input)
    check_shape("add", "other", other, input.shape, "input's shape")
    return implementation("add")(input, other, check_flag("add", "relu", relu))


def relu(input):
    """Rectified linear unit, elementwise: ``max(0, x)``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    check_float_array("relu", "input", input)
    return implementation("relu")(input)


def relu_backward(grad_output, input):
    """Gradient of :func:`relu`: ``grad_output`` where ``input > 0``, else 0 (0 at 0).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input (its output serves as well).

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.relu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 1.])
    """
    check_gradient("relu_backward", grad_output, input)
    return implementation("relu_backward")(grad_output, input)


def leaky_relu(input, negative_slope=0.01):
    """Leaky rectified linear unit, elementwise: ``x`` for ``x > 0``, else ``negative_slope * x``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    negative_slope : float, default 0.01
        Slope for ``x <= 0``.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.leaky_relu(np.array([-1.0, 0.0, 2.0]))
    array([-0.01,  0.  ,  2.  ])
    """
    check_float_array("leaky_relu", "input", input)
    negative_slope = check_number("leaky_relu", "negative_slope", negative_slope)
    return implementation("leaky_relu")(input, negative_slope)


def leaky_relu_backward(grad_output, input, negative_slope=0.01):
    """Gradient of :func:`leaky_relu`: ``grad_output``, times ``negative_slope`` where ``input <= 0``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    negative_slope : float, default 0.01
        Slope for ``x <= 0``.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.leaky_relu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.01, 0.01, 1.  ])
    """
    check_gradient("leaky_relu_backward", grad_output, input)
    negative_slope = check_number("leaky_relu_backward", "negative_slope", negative_slope)
    return implementation("leaky_relu_backward")(grad_output, input, negative_slope)


def prelu(input, weight):
    """Leaky rectified linear unit with learnt slopes: ``x`` for ``x > 0``, else ``weight * x`` (He et al. 2015, eq. 1).

    Parameters
    ----------
    input : ndarray of float32 or float64
        Shape (N, C, ...); any shape where there is one slope.
    weight : ndarray
        One slope, shape (1,), or one per channel, shape (C,); the dtype of ``input``.

    Returns
    -------
    ndarray
        Shape and dtype of ``input``. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.prelu(np.array([[-1.0, -1.0], [2.0, 2.0]]), np.array([0.5, 0.25]))
    array([[-0.5 , -0.25],
           [ 2.  ,  2.  ]])
    """
    check_float_array("prelu", "input", input)
    check_slopes("prelu", weight, input)
    return implementation("prelu")(input, weight)


def prelu_backward(grad_output, input, weight):
    """Gradients of :func:`prelu` (He et al. 2015, eqs. 2 and 3).

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input, weight : ndarray
        The forward's arguments.

    Returns
    -------
    grad_input : ndarray
        ``grad_output``, times the slope where ``input <= 0``.
    grad_weight : ndarray
        Shape of ``weight``: the sum of ``grad_output * input`` over where ``input <= 0``, per slope.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.prelu_backward(np.ones((2, 2)), np.array([[-1.0, -3.0], [2.0, 2.0]]), np.array([0.5, 0.25]))
    (array([[0.5 , 0.25],
           [1.  , 1.  ]]), array([-1., -3.]))
    """
    check_gradient("prelu_backward", grad_output, input)
    check_slopes("prelu_backward", weight, input)
    return implementation("prelu_backward")(grad_output, input, weight)


def elu(input, alpha=1.0):
    """Exponential linear unit, elementwise: ``x`` for ``x > 0``, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    alpha : float, default 1.0
        Minus the limit for very negative ``x``.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.elu(np.array([-1.0, 0.0, 2.0]))
    array([-0.63212056,  0.        ,  2.        ])
    """
    check_float_array("elu", "input", input)
    alpha = check_number("elu", "alpha", alpha)
    return implementation("elu")(input, alpha)


def elu_backward(grad_output, input, alpha=1.0):
    """Gradient of :func:`elu`: ``grad_output``, times ``alpha * exp(x)`` where ``input <= 0``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    alpha : float, default 1.0
        Minus the limit for very negative ``x``.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.elu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.36787944, 1.        , 1.        ])
    """
    check_gradient("elu_backward", grad_output, input)
    alpha = check_number("elu_backward", "alpha", alpha)
    return implementation("elu_backward")(grad_output, input, alpha)


def sigmoid(input):
    """Logistic function, elementwise: ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. Neither tail overflows; NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.sigmoid(np.array([-1.0, 0.0, 2.0]))
    array([0.26894142, 0.5       , 0.88079708])
    """
    check_float_array("sigmoid", "input", input)
    return implementation("sigmoid")(input)


def sigmoid_backward(grad_output, input):
    """Gradient of :func:`sigmoid`: ``grad_output * s * (1 - s)`` with ``s = sigmoid(input)``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.sigmoid_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.19661193, 0.25      , 0.10499359])
    """
    check_gradient("sigmoid_backward", grad_output, input)
    return implementation("sigmoid_backward")(grad_output, input)


def tanh(input):
    """Hyperbolic tangent, elementwise.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.tanh(np.array([-1.0, 0.0, 2.0]))
    array([-0.76159416,  0.        ,  0.96402758])
    """
    check_float_array("tanh", "input", input)
    return implementation("tanh")(input)


def tanh_backward(grad_output, input):
    """Gradient of :func:`tanh`: ``grad_output * (1 - tanh(input)**2)``, without that difference's loss of digits.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.tanh_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.41997434, 1.        , 0.07065082])
    """
    check_gradient("tanh_backward", grad_output, input)
    return implementation("tanh_backward")(grad_output, input)


def softplus(input, beta=1.0, threshold=20.0):
    """Smooth rectifier, elementwise: ``log(1 + exp(beta * x)) / beta``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    beta : float, default 1.0
        Sharpness of the bend; not 0.
    threshold : float, default 20.0
        Where ``beta * x`` is above it, the output is ``x`` itself.

    Returns
    -------
    ndarray
        Same shape and dtype. Neither tail overflows, the small tail keeps its digits; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.softplus(np.array([-1.0, 0.0, 2.0]))
    array([0.31326169, 0.69314718, 2.12692801])
    """
    check_float_array("softplus", "input", input)
    beta = check_beta("softplus", beta)
    threshold = check_number("softplus", "threshold", threshold)
    return implementation("softplus")(input, beta, threshold)


def softplus_backward(grad_output, input, beta=1.0, threshold=20.0):
    """Gradient of :func:`softplus`: ``grad_output * sigmoid(beta * input)``, that factor 1 above the threshold.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    beta : float, default 1.0
        Sharpness of the bend; not 0.
    threshold : float, default 20.0
        Where ``beta * x`` is above it, the output is ``x`` itself.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.softplus_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.26894142, 0.5       , 0.88079708])
    """
    check_gradient("softplus_backward", grad_output, input)
    beta = check_beta("softplus_backward", beta)
    threshold = check_number("softplus_backward", "threshold", threshold)
    return implementation("softplus_backward")(grad_output, input, beta, threshold)


def log_sigmoid(input):
    """Logarithm of the logistic function, elementwise: ``-log(1 + exp(-x))``.

    ``logsigmoid``, torch's name, is the same function.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. Neither tail overflows, the small tail keeps its digits; NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.log_sigmoid(np.array([-1.0, 0.0, 2.0]))
    array([-1.31326169, -0.69314718, -0.12692801])
    """
    check_float_array("log_sigmoid", "input", input)
    return implementation("log_sigmoid")(input)


def log_sigmoid_backward(grad_output, input):
    """Gradient of :func:`log_sigmoid`: ``grad_output * sigmoid(-input)``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.log_sigmoid_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.73105858, 0.5       , 0.11920292])
    """
    check_gradient("log_sigmoid_backward", grad_output, input)
    return implementation("log_sigmoid_backward")(grad_output, input)


def gelu(input, approximate="none"):
    """Gaussian error linear unit, elementwise: ``x * P(X <= x)``, X standard normal (Hendrycks and Gimpel 2016).

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    approximate : {"none", "tanh"}
        "tanh": ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` instead, as GPT-2 has it.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.gelu(np.array([-1.0, 0.0, 2.0]))
    array([-0.15865525,  0.        ,  1.95449974])
    """
    check_float_array("gelu", "input", input)
    check_choice("gelu", "approximate", approximate, ("none", "tanh"))
    return implementation("gelu")(input, approximate)


def gelu_backward(grad_output, input, approximate="none"):
    """Gradient of :func:`gelu`: ``grad_output * (P(X <= x) + x * p(x))``, p the density of X, or of the ``tanh`` form.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    approximate : {"none", "tanh"}
        "tanh": ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` instead, as GPT-2 has it.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.gelu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([-0.08331547,  0.5       ,  1.0852318 ])
    """
    check_gradient("gelu_backward", grad_output, input)
    check_choice("gelu_backward", "approximate", approximate, ("none", "tanh"))
    return implementation("gelu_backward")(grad_output, input, approximate)


def silu(input):
    """Sigmoid linear unit (swish), elementwise: ``x * sigmoid(x)``.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.silu(np.array([-1.0, 0.0, 2.0]))
    array([-0.26894142,  0.        ,  1.76159416])
    """
    check_float_array("silu", "input", input)
    return implementation("silu")(input)


def silu_backward(grad_output, input):
    """Gradient of :func:`silu`: ``grad_output * (s + input * s * (1 - s))`` with ``s = sigmoid(input)``.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.silu_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.07232949, 0.5       , 1.09078425])
    """
    check_gradient("silu_backward", grad_output, input)
    return implementation("silu_backward")(grad_output, input)


def hardtanh(input, min_val=-1.0, max_val=1.0):
    """Clipping, elementwise: ``x`` between ``min_val`` and ``max_val``, else the nearer of them.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    min_val, max_val : float, default -1.0 and 1.0
        Lowest and highest output; ``min_val <= max_val``.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.hardtanh(np.array([-1.0, 0.0, 2.0]))
    array([-1.,  0.,  1.])
    """
    check_float_array("hardtanh", "input", input)
    min_val, max_val = check_bounds("hardtanh", min_val, max_val)
    return implementation("hardtanh")(input, min_val, max_val)


def hardtanh_backward(grad_output, input, min_val=-1.0, max_val=1.0):
    """Gradient of :func:`hardtanh`: ``grad_output`` where ``min_val < input < max_val``, else 0.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.
    min_val, max_val : float, default -1.0 and 1.0
        Lowest and highest output; ``min_val <= max_val``.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.hardtanh_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0., 1., 0.])
    """
    check_gradient("hardtanh_backward", grad_output, input)
    min_val, max_val = check_bounds("hardtanh_backward", min_val, max_val)
    return implementation("hardtanh_backward")(grad_output, input, min_val, max_val)


def hardswish(input):
    """Piecewise :func:`silu`, elementwise: ``x * clip(x + 3, 0, 6) / 6`` (Howard et al. 2019).

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.

    Returns
    -------
    ndarray
        Same shape and dtype. NaN stays NaN.

    Raises
    ------
    TypeError
        If ``input`` is not a NumPy array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.hardswish(np.array([-1.0, 0.0, 2.0]))
    array([-0.33333333,  0.        ,  1.66666667])
    """
    check_float_array("hardswish", "input", input)
    return implementation("hardswish")(input)


def hardswish_backward(grad_output, input):
    """Gradient of :func:`hardswish`: ``grad_output`` times 0 up to -3, 1 from 3, and ``input / 3 + 1 / 2`` between.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output; shape and dtype of ``input``.
    input : ndarray of float32 or float64
        The forward's input.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.hardswish_backward(np.ones(3), np.array([-1.0, 0.0, 2.0]))
    array([0.16666667, 0.5       , 1.16666667])
    """
    check_gradient("hardswish_backward", grad_output, input)
    return implementation("hardswish_backward")(grad_output, input)


# torch.nn.functional's name
logsigmoid = log_sigmoid
logsigmoid_backward = log_sigmoid_backward


def check_gradient(function, grad_output, input):
    check_float_array(function, "input", input)
    check_grad_output(function, grad_output, input, input.shape)


def check_slopes(function, weight, input):
    check_same_dtype(function, "weight", weight, "input", input)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ValueError(
            f"{function}: weight must have shape (1,) or, with a slope for each of input's channels, ({channels},), "
            f"got {weight.shape}"
        )


def check_beta(function, beta):
    beta = check_number(function, "beta", beta)
    if beta == 0:
        raise ValueError(f"{function}: beta must not be 0")
    return beta


def check_bounds(function, min_val, max_val):
    min_val = check_number(function, "min_val", min_val)
    max_val = check_number(function, "max_val", max_val)
    if not min_val <= max_val:
        raise ValueError(f"{function}: min_val must not be above max_val, got {min_val} and {max_val}")
    return min_val, max_val

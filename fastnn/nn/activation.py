"""Activations, elementwise."""

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_integer
from fastnn.nn.module import Module, Parameter, Transform, accumulate, check_input

__all__ = [
    "ELU",
    "GELU",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "PReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
]


class ReLU(Module):
    """``max(0, x)``; its gradient needs the output only, so that the input's memory is free for others.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, input):
        output = F.relu(input)
        self.save_for_backward(output)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        (output,) = self.pop_saved()
        return F.relu_backward(grad_output, output) if needs_input_grad else None


class LeakyReLU(Transform):
    """``max(0, x) + negative_slope * min(0, x)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LeakyReLU(0.1)(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    function = staticmethod(F.leaky_relu)
    gradient = staticmethod(F.leaky_relu_backward)

    def __init__(self, negative_slope=0.01):
        self.negative_slope = negative_slope

    def arguments(self):
        return (self.negative_slope,)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """``max(0, x) + weight * min(0, x)`` with a slope that is learnt.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels (dimension 1 of the input).
    init : float
        The initial slope.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.PReLU()(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    def __init__(self, num_parameters=1, init=0.25):
        self.num_parameters = check_integer("PReLU", "num_parameters", num_parameters, 1)
        self.weight = Parameter(np.full(self.num_parameters, init, np.float32))

    def forward(self, input):
        per_channel = self.num_parameters > 1 and getattr(input, "ndim", 0) > 1
        check_input(self, input, self.weight.data, self.num_parameters if per_channel else None, "channels")
        output = F.prelu(input, self.weight.data)
        self.save_for_backward(input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        (input,) = self.pop_saved()
        if not needs_input_grad and not self.weight.requires_grad:
            return None
        dx, dweight = F.prelu_backward(grad_output, input, self.weight.data)
        accumulate(self.weight, dweight)
        return dx if needs_input_grad else None

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


class ELU(Transform):
    """``x`` where x > 0, else ``alpha * (exp(x) - 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.ELU()(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """

    function = staticmethod(F.elu)
    gradient = staticmethod(F.elu_backward)

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def arguments(self):
        return (self.alpha,)

    def extra_repr(self):
        return f"alpha={self.alpha}"


class Sigmoid(Transform):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Sigmoid()(np.zeros(2))
    array([0.5, 0.5])
    """

    function = staticmethod(F.sigmoid)
    gradient = staticmethod(F.sigmoid_backward)


class Tanh(Transform):
    """``tanh(x)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Tanh()(np.zeros(2))
    array([0., 0.])
    """

    function = staticmethod(F.tanh)
    gradient = staticmethod(F.tanh_backward)


class Softplus(Transform):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x > threshold``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Softplus()(np.zeros(1)).round(4)
    array([0.6931])
    """

    function = staticmethod(F.softplus)
    gradient = staticmethod(F.softplus_backward)

    def __init__(self, beta=1.0, threshold=20.0):
        self.beta, self.threshold = beta, threshold

    def arguments(self):
        return self.beta, self.threshold

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class GELU(Transform):
    """``x * P(Z <= x)`` of a standard normal Z; ``approximate="tanh"`` is the formula with the hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GELU()(np.ones(1)).round(4)
    array([0.8413])
    """

    function = staticmethod(F.gelu)
    gradient = staticmethod(F.gelu_backward)

    def __init__(self, approximate="none"):
        self.approximate = approximate

    def arguments(self):
        return (self.approximate,)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class SiLU(Transform):
    """``x * sigmoid(x)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.SiLU()(np.ones(1)).round(4)
    array([0.7311])
    """

    function = staticmethod(F.silu)
    gradient = staticmethod(F.silu_backward)


class Hardtanh(Transform):
    """``x`` between ``min_val`` and ``max_val``, and the nearer of these outside.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Hardtanh()(np.array([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    """

    function = staticmethod(F.hardtanh)
    gradient = staticmethod(F.hardtanh_backward)

    def __init__(self, min_val=-1.0, max_val=1.0):
        self.min_val, self.max_val = min_val, max_val

    def arguments(self):
        return self.min_val, self.max_val

    def extra_repr(self):
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Hardswish(Transform):
    """``x * min(max(x + 3, 0), 6) / 6``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Hardswish()(np.array([-3.0, 0.0, 3.0]))
    array([-0.,  0.,  3.])
    """

    function = staticmethod(F.hardswish)
    gradient = staticmethod(F.hardswish_backward)


class LogSigmoid(Transform):
    """``log(sigmoid(x))``, without loss for very negative x.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LogSigmoid()(np.array([-1000.0]))
    array([-1000.])
    """

    function = staticmethod(F.logsigmoid)
    gradient = staticmethod(F.logsigmoid_backward)

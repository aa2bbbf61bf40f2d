"""Softmax and its logarithm along one dimension."""

from collections.abc import Callable

import fastnn.functional as F
from fastnn.nn.module import Module

__all__ = ["LogSoftmax", "Softmax"]


class SoftmaxAlongDim(Module):
    """What both share: the output is kept for the backward, which needs its exponentials."""

    function: Callable
    gradient: Callable

    def __init__(self, dim=-1):
        self.dim = dim

    def forward(self, input):
        output = self.function(input, self.dim)
        self.save_for_backward(input, output)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        input, output = self.pop_saved()
        return self.gradient(grad_output, input, self.dim, output=output) if needs_input_grad else None

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(SoftmaxAlongDim):
    """``exp(x) / sum(exp(x))`` along ``dim``.

    For training a classifier use :class:`CrossEntropyLoss` on the values before the softmax.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Softmax()(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    function = staticmethod(F.softmax)
    gradient = staticmethod(F.softmax_backward)


class LogSoftmax(SoftmaxAlongDim):
    """``x - log(sum(exp(x)))`` along ``dim``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LogSoftmax()(np.zeros((1, 2))).round(4)
    array([[-0.6931, -0.6931]])
    """

    function = staticmethod(F.log_softmax)
    gradient = staticmethod(F.log_softmax_backward)

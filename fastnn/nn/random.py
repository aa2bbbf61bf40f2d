"""Dropout layers: noise in training, nothing in evaluation."""

from collections.abc import Callable

import fastnn.functional as F
from fastnn.nn.module import Module, check_gradient
from fastnn.seed import draw_seed

__all__ = ["Dropout", "GaussianDropout"]


class Noise(Module):
    """What the dropouts share. Only the seed is kept: the backward computes the same noise from it again."""

    function: Callable
    gradient: Callable

    def __init__(self, p=0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be from 0 to 1, got {p}")
        self.p = p

    def forward(self, input):
        seed = draw_seed() if self.training and self.p else None
        output = input if seed is None else self.function(input, self.p, True, seed=seed)
        self.save_for_backward(seed, output.shape, output.dtype)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        seed, *output = self.pop_saved()
        if not needs_input_grad:
            return None
        check_gradient(self, grad_output, *output)
        return grad_output if seed is None else self.gradient(grad_output, self.p, True, seed=seed)

    def extra_repr(self):
        return f"p={self.p}"


class Dropout(Noise):
    """Zeroes each element with probability ``p`` in training, and scales the others by 1/(1 - p).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> sorted({float(value) for value in nn.Dropout(0.5)(np.ones(100))})
    [0.0, 2.0]
    >>> nn.Dropout(0.5).eval()(np.ones(3))
    array([1., 1., 1.])
    """

    function = staticmethod(F.dropout)
    gradient = staticmethod(F.dropout_backward)


class GaussianDropout(Noise):
    """Multiplies by normal noise of mean 1 and variance p/(1 - p) in training (Srivastava et al. 2014, section 10).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> y = nn.GaussianDropout(0.2)(np.ones(10000))
    >>> bool(abs(y.mean() - 1) < 0.03), bool(abs(y.std() - 0.5) < 0.03)
    (True, True)
    """

    function = staticmethod(F.gaussian_dropout)
    gradient = staticmethod(F.gaussian_dropout_backward)

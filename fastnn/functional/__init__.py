"""Functions on arrays, with the names, argument names, order and defaults of ``torch.nn.functional``.

This is the only place where arguments are checked and normalised. Each function then calls the active backend:
the compiled kernels, or plain NumPy. A backward takes the gradient of the output, then the forward's own arguments,
and returns a gradient per differentiable array.
"""

from fastnn.functional import activation, conv, distance, fold, linear, loss, norm, optim, pool, random, softmax, vision
from fastnn.functional.activation import *
from fastnn.functional.conv import *
from fastnn.functional.distance import *
from fastnn.functional.fold import *
from fastnn.functional.linear import *
from fastnn.functional.loss import *
from fastnn.functional.norm import *
from fastnn.functional.optim import *
from fastnn.functional.pool import *
from fastnn.functional.random import *
from fastnn.functional.softmax import *
from fastnn.functional.vision import *

__all__ = [
    name
    for family in (activation, conv, distance, fold, linear, loss, norm, optim, pool, random, softmax, vision)
    for name in family.__all__
]

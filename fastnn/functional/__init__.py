"""Functions on arrays, with the names, argument names, order and defaults of ``torch.nn.functional``.

This is the only place where arguments are checked and normalised. Each function then calls the active backend:
the compiled kernels, or plain NumPy. A backward takes the gradient of the output, then the forward's own arguments,
and returns a gradient per differentiable array.
"""

import sys

from fastnn.functional.activation import *
from fastnn.functional.adaptive_pool import *
from fastnn.functional.class_loss import *
from fastnn.functional.conv import *
from fastnn.functional.distance import *
from fastnn.functional.embedding import *
from fastnn.functional.fold import *
from fastnn.functional.linear import *
from fastnn.functional.loss import *
from fastnn.functional.norm import *
from fastnn.functional.optim import *
from fastnn.functional.pool import *
from fastnn.functional.random import *
from fastnn.functional.softmax import *
from fastnn.functional.vision import *

FAMILIES = (
    "activation adaptive_pool class_loss conv distance embedding fold linear loss norm optim pool random softmax vision"
)

# Some families share their name with a function (fold, linear, softmax, ...), which hides the module here.
__all__ = [name for family in FAMILIES.split() for name in sys.modules[f"{__name__}.{family}"].__all__]

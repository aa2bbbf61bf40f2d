"""Layers, losses and containers that hold parameters and run forward and backward; names and defaults are torch's.

output = model(input)
loss = criterion(output, target)
model.backward(criterion.backward())    # adds to the gradients of model.parameters()
"""

import sys

from fastnn.nn import init
from fastnn.nn.activation import *
from fastnn.nn.container import *
from fastnn.nn.conv import *
from fastnn.nn.embedding import *
from fastnn.nn.flatten import *
from fastnn.nn.fold import *
from fastnn.nn.linear import *
from fastnn.nn.loss import *
from fastnn.nn.module import *
from fastnn.nn.norm import *
from fastnn.nn.pool import *
from fastnn.nn.random import *
from fastnn.nn.softmax import *

FILES = "activation container conv embedding flatten fold linear loss module norm pool random softmax"

__all__ = ["init", *(name for file in FILES.split() for name in sys.modules[f"{__name__}.{file}"].__all__)]

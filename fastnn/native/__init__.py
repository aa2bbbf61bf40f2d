"""The compiled backend. Takes the arguments that functional has checked and normalised; checks nothing itself.

The names are those of reference/. A name that is missing here has no kernel that pays: functional then uses the
NumPy composition in reference/.
"""

from fastnn.native.activation import *
from fastnn.native.conv import *
from fastnn.native.fold import *
from fastnn.native.linear import *
from fastnn.native.loss import *
from fastnn.native.norm import *
from fastnn.native.optim import *
from fastnn.native.pool import *
from fastnn.native.random import *
from fastnn.native.softmax import *

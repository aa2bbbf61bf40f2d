"""The same functions in plain NumPy, written to be read: the oracle of every test, and the fallback where nothing is
compiled. Takes the arguments that functional has checked and normalised. Imports NumPy and nothing of ours.
"""

from fastnn.reference.activation import *
from fastnn.reference.conv import *
from fastnn.reference.distance import *
from fastnn.reference.embedding import *
from fastnn.reference.fold import *
from fastnn.reference.linear import *
from fastnn.reference.loss import *
from fastnn.reference.norm import *
from fastnn.reference.optim import *
from fastnn.reference.pool import *
from fastnn.reference.random import *
from fastnn.reference.softmax import *
from fastnn.reference.vision import *

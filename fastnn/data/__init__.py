"""Data sets read from files, batches of them, and augmentation.

Images are float32 arrays ``(N, C, H, W)`` with values from 0 to 1, labels are int64 arrays ``(N,)``.
"""

from fastnn.data.augmentation import *
from fastnn.data.batches import *
from fastnn.data.cifar import *
from fastnn.data.dataset import *
from fastnn.data.digits import *
from fastnn.data.idx import *

__all__ = [
    "DataError",
    "Dataset",
    "add_noise",
    "batches",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "random_crop",
    "random_flip",
    "read_idx",
]

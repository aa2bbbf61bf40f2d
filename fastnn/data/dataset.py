"""What every loader returns, and the error that every loader raises."""

from typing import NamedTuple

import numpy as np

__all__ = ["DataError", "Dataset"]


class DataError(ValueError):
    """A data file is truncated, or is not what it should be; the message names the file and says what to do.

    A file or folder that does not exist raises FileNotFoundError instead.
    """


class Dataset(NamedTuple):
    """Labelled images, split into a training and a test set.

    Attributes
    ----------
    x_train, x_test : ndarray of float32
        Images (N, C, H, W), values from 0 to 1.
    y_train, y_test : ndarray of int64
        Class of each image (N,), from 0 to ``len(class_names) - 1``.
    class_names : tuple of str
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple

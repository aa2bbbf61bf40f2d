"""What every loader returns, and the error that every loader raises."""

from typing import NamedTuple

import numpy as np

__all__ = ["DataError", "Dataset"]


class DataError(ValueError):
    """A data file is truncated, or is not what it should be; the message names the file and says what to do.

    A file or folder that does not exist raises FileNotFoundError instead.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastnn.data import DataError, read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "labels")
    ...     with open(path, "wb") as file:
    ...         count = file.write(b"text")
    ...     try:
    ...         read_idx(path)
    ...     except DataError as error:
    ...         print(str(error).removeprefix(path))
    : is not an IDX file (it starts with b'text'); get the file again
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

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.data import Dataset
    >>> images, labels = np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 1])
    >>> data = Dataset(images[:2], labels[:2], images[2:], labels[2:], ("cat", "dog"))
    >>> data.class_names[data.y_test[0]]
    'dog'
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple

"""The small data set that comes with fastnn: see README.md in this folder for its source and licence."""

from pathlib import Path

import numpy as np

from fastnn.data.dataset import Dataset
from fastnn.data.idx import read_idx

__all__ = ["load_digits"]

FOLDER = Path(__file__).parent
TEST_EVERY = 4  # of the images of each class, the fourth, the eighth, ... are test images


def load_digits():
    """Handwritten digits, 1797 images of 8x8 pixels: 1352 to train with, 445 to test with.

    The split is always the same and needs no random numbers: in the order of the file, every fourth image of each
    class is a test image, so both parts have all classes in equal shares.

    Returns
    -------
    Dataset
        Images (N, 1, 8, 8) with values k/16, classes "0" to "9".

    References
    ----------
    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998.
    https://doi.org/10.24432/C50P49. Licence CC BY 4.0. These are the images of its test set.

    Examples
    --------
    >>> from fastnn.data import load_digits
    >>> data = load_digits()
    >>> data.x_train.shape, data.x_test.shape
    ((1352, 1, 8, 8), (445, 1, 8, 8))
    """
    images = read_idx(FOLDER / "digits-images-idx3-ubyte.gz")[:, None].astype(np.float32) / 16
    labels = read_idx(FOLDER / "digits-labels-idx1-ubyte.gz").astype(np.int64)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    names = tuple(str(label) for label in range(10))
    return Dataset(images[~test], labels[~test], images[test], labels[test], names)

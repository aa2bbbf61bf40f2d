"""CIFAR-10, in its binary and in its Python version: https://www.cs.toronto.edu/~kriz/cifar.html"""

import io
import pickle
from pathlib import Path

import numpy as np

from fastnn.data.dataset import DataError, Dataset
from fastnn.data.idx import read_bytes

__all__ = ["load_cifar10"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"


def load_cifar10(directory):
    """CIFAR-10, from the folder of its binary version (``*.bin``) or of its Python version.

    Parameters
    ----------
    directory : str or path
        Folder with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or with the same names
        without ``.bin``; or the folder above it, into which the archive was unpacked.

    Returns
    -------
    Dataset
        Images (N, 3, 32, 32), red, green, blue.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    DataError
        If a file is truncated or is not a batch of CIFAR-10. The Python version is a set of pickles; they are read
        by an unpickler that knows plain values and NumPy arrays only, so that no code in them can run.

    Examples
    --------
    >>> from fastnn.data import load_cifar10
    >>> data = load_cifar10("cifar-10-batches-bin")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    (50000, 3, 32, 32)
    """
    folder, suffix = find_batches(Path(directory))
    read = read_binary if suffix else read_pickle
    training = [read(folder / (name + suffix)) for name in TRAINING]
    test = [read(folder / (TEST + suffix))]
    (x_train, y_train), (x_test, y_test) = join(training), join(test)
    return Dataset(x_train, y_train, x_test, y_test, CLASSES)


def find_batches(directory):
    """The folder that holds the batches, and what their names end in."""
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder; give the one that holds {TRAINING[0]}.bin")
    for folder in (directory, directory / "cifar-10-batches-bin", directory / "cifar-10-batches-py"):
        for suffix in (".bin", ""):
            if (folder / (TRAINING[0] + suffix)).is_file():
                return folder, suffix
    raise FileNotFoundError(
        f"{directory / TRAINING[0]}.bin: no such file; unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz there"
    )


def read_binary(path):
    """Pixels (N, 3072) and labels (N,): each record is a label and 3072 pixels, a byte each."""
    content = np.frombuffer(read_bytes(path), np.uint8)
    if content.size == 0 or content.size % (1 + PIXELS):
        raise DataError(
            f"{path}: has {content.size} bytes, expected a multiple of {1 + PIXELS}; "
            "it is truncated or not a batch of CIFAR-10, get it again"
        )
    records = content.reshape(-1, 1 + PIXELS)
    return checked(path, records[:, 1:], records[:, 0])


def read_pickle(path):
    """Pixels (N, 3072) and labels (N,), from a pickled dictionary with b"data" and b"labels"."""
    content = io.BytesIO(read_bytes(path))
    try:
        batch = PlainUnpickler(content, encoding="bytes").load()
    except Exception as error:  # pickle leaves open what it raises: damage makes it call NumPy with any arguments
        raise DataError(f"{path}: is truncated or not a batch of CIFAR-10 ({error}); get it again") from None
    try:
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except (TypeError, KeyError, IndexError, ValueError):
        raise DataError(f"{path}: has no data and labels, so it is not a batch of CIFAR-10; get it again") from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or labels.dtype.kind != "i":
        raise DataError(
            f"{path}: data has shape {pixels.shape} and type {pixels.dtype}, expected {(len(labels), PIXELS)} and "
            "uint8; it is not a batch of CIFAR-10, get it again"
        )
    return checked(path, pixels, labels)


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, bytes, lists, dictionaries and NumPy arrays; refuses every other class or function."""

    ALLOWED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }
    )

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return super().find_class(module, name)


def checked(path, pixels, labels):
    if len(labels) == 0:
        raise DataError(f"{path}: holds no images; get it again")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{path}: has labels from {labels.min()} to {labels.max()}, CIFAR-10 has 0 to 9; get it again")
    return pixels, labels


def join(parts):
    """Images (N, 3, 32, 32) in float32 and labels of all parts, converted part by part to save memory."""
    images = np.empty((sum(len(labels) for _, labels in parts), *SHAPE), np.float32)
    start = 0
    for pixels, labels in parts:
        np.divide(pixels.reshape(-1, *SHAPE), np.float32(255), out=images[start : start + len(labels)])
        start += len(labels)
    return images, np.concatenate([labels for _, labels in parts]).astype(np.int64)

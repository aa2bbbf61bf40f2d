"""IDX files, the format of MNIST and Fashion-MNIST: http://yann.lecun.com/exdb/mnist/

bytes 0-1   zero
byte  2     type of the elements; 8 = unsigned byte, the only one in use
byte  3     number of dimensions, D
4 D bytes   the dimensions, big-endian
the rest    the elements, last dimension fastest
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from fastnn.data.dataset import DataError, Dataset

__all__ = ["load_mnist", "read_idx"]

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
UNSIGNED_BYTE = 8


def load_mnist(directory):
    """MNIST, Fashion-MNIST or any data set in the same four IDX files, each plain or with ``.gz``.

    Parameters
    ----------
    directory : str or path
        Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``.

    Returns
    -------
    Dataset
        Images (N, 1, H, W). The classes are named after the articles of Fashion-MNIST where the folder's path says
        "fashion" (the files themselves do not tell), else by their number.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    DataError
        If a file is truncated, is no IDX file, or does not fit the others.

    Examples
    --------
    >>> from fastnn.data import load_mnist
    >>> data = load_mnist("/usr/share/datasets/fashion-mnist")  # doctest: +SKIP
    >>> data.x_train.shape  # doctest: +SKIP
    (60000, 1, 28, 28)
    """
    directory = Path(directory)
    x_train, y_train = read_pair(directory, "train")
    x_test, y_test = read_pair(directory, "t10k")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{directory}: training images are {x_train.shape[1]}x{x_train.shape[2]} pixels, test images "
            f"{x_test.shape[1]}x{x_test.shape[2]}; the files belong to different data sets"
        )
    classes = int(max(y_train.max(), y_test.max())) + 1
    fashion = classes == 10 and "fashion" in str(directory.resolve()).lower()
    names = FASHION_CLASSES if fashion else tuple(str(label) for label in range(classes))
    return Dataset(to_images(x_train), y_train.astype(np.int64), to_images(x_test), y_test.astype(np.int64), names)


def read_pair(directory, part):
    """Images (N, H, W) and labels (N,) of one part, "train" or "t10k"."""
    image_file = find_file(directory, f"{part}-images-idx3-ubyte")
    label_file = find_file(directory, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_file), read_idx(label_file)
    for path, array, expected, content in [(image_file, images, 3, "images"), (label_file, labels, 1, "labels")]:
        if array.ndim != expected:
            raise DataError(
                f"{path}: holds an array of {array.ndim} dimensions, but {content} have {expected}; "
                "it may have been given another file's name"
            )
        if array.size == 0:
            raise DataError(f"{path}: holds no {content}; get the file again")
    if len(images) != len(labels):
        raise DataError(
            f"{label_file}: holds {len(labels)} labels, but {image_file.name} has {len(images)} images; "
            "the files belong to different data sets"
        )
    return images, labels


def find_file(directory, name):
    """The file of this name in the folder, plain or compressed, also as some mirrors spell it."""
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder; give the folder that holds {name} (plain or .gz)")
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (directory / candidate).is_file():
            return directory / candidate
    below = sorted(directory.glob(f"*/{name}*")) + sorted(directory.glob(f"*/*/{name}*"))
    hint = f"it stands in {below[0].parent}, give that folder" if below else "put it there, plain or as .gz"
    raise FileNotFoundError(f"{directory / name}: no such file; {hint}")


def read_idx(path):
    """The array in an IDX file of unsigned bytes; a file whose name ends in ``.gz`` is unpacked on the way.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    ndarray of uint8
        Read-only, with as many dimensions as the file says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is truncated or no IDX file of unsigned bytes.

    Examples
    --------
    >>> from fastnn.data import read_idx
    >>> from fastnn.data.digits import FOLDER
    >>> read_idx(FOLDER / "digits-images-idx3-ubyte.gz").shape
    (1797, 8, 8)
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise DataError(f"{path}: is not an IDX file (it starts with {content[:4]!r}); get the file again")
    if content[2] != UNSIGNED_BYTE:
        raise DataError(f"{path}: holds elements of IDX type 0x{content[2]:02X}, expected 0x08 (unsigned bytes)")
    ndim = content[3]
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(f"{path}: is truncated, it ends within its header; get the file again")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    expected, given = math.prod(shape), len(content) - start
    if given != expected:
        what = "is truncated" if given < expected else "is too long"
        raise DataError(f"{path}: {what}, shape {shape} needs {expected} bytes but it has {given}; get the file again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_bytes(path):
    """All bytes of a file, unpacked where its name ends in ``.gz``."""
    try:
        with (gzip.open if os.fspath(path).endswith(".gz") else open)(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except EOFError:
        raise DataError(f"{path}: the compressed file is truncated; get the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a gzip file, or is damaged ({error}); get the file again") from None


def to_images(pixels):
    """Bytes (N, H, W) as float32 images (N, 1, H, W), 255 becoming 1."""
    images = pixels[:, None].astype(np.float32)
    images /= 255
    return images

"""Augmentation: changes of a batch of images that leave their class alone.

Each function takes images (N, C, H, W) and a random generator, and returns new images.
"""

import numpy as np

__all__ = ["add_noise", "random_crop", "random_flip"]


def random_crop(images, padding, rng):
    """Shift each image by up to ``padding`` pixels: pad it with zeros all round and crop it back at random.

    Parameters
    ----------
    images : ndarray
        Shape (N, C, H, W).
    padding : int
        Largest shift, in pixels, in each of the four directions.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        Same shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.data import random_crop
    >>> random_crop(np.ones((2, 1, 8, 8)), 1, np.random.default_rng(0)).shape
    (2, 1, 8, 8)
    """
    count, _, height, width = images.shape
    if padding < 0:
        raise ValueError(f"random_crop: padding must be at least 0, got {padding}")
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    rows, columns = rng.integers(0, 2 * padding + 1, (2, count))
    return windows[np.arange(count), :, rows, columns]


def random_flip(images, rng, probability=0.5):
    """Mirror each image, left to right, with this probability.

    Parameters
    ----------
    images : ndarray
        Shape (N, C, H, W).
    rng : numpy.random.Generator
    probability : float

    Returns
    -------
    ndarray
        Same shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.data import random_flip
    >>> random_flip(np.arange(3.0).reshape(1, 1, 1, 3), np.random.default_rng(0), probability=1.0)
    array([[[[2., 1., 0.]]]])
    """
    flip = rng.random(len(images)) < probability
    return np.where(flip[:, None, None, None], images[..., ::-1], images)


def add_noise(images, deviation, rng):
    """Add Gaussian noise of this standard deviation to each pixel.

    Parameters
    ----------
    images : ndarray of float32 or float64
    deviation : float
        Standard deviation, in the units of the images.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        Same shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.data import add_noise
    >>> add_noise(np.zeros((1, 1, 2, 2), np.float32), 0.1, np.random.default_rng(0)).dtype
    dtype('float32')
    """
    return images + images.dtype.type(deviation) * rng.standard_normal(images.shape, images.dtype)

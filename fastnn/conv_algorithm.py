"""Which algorithm computes a convolution: by shape, or the one that the user asks for."""

import os
from contextlib import contextmanager

__all__ = ["conv_algorithm", "get_conv_algorithm", "set_conv_algorithm"]

ALGORITHMS = ("auto", "im2col", "winograd")
active = "auto"


def set_conv_algorithm(name):
    """Compute convolutions by this algorithm from now on, forward and backward, in all threads.

    Parameters
    ----------
    name : {"auto", "im2col", "winograd"}
        "im2col" is a matrix product, exact up to rounding. "winograd" needs a quarter of its multiplications, for
        filters of 3x3 with stride 1, dilation 1 and one group (others stay with im2col); its largest error in float32
        is at most 2e-5 of the output's RMS for up to 512 channels, and a NaN or an infinity reaches all of the
        4x4 outputs that share its patch, as NaN. "auto" takes the one that is faster for the shape.
        The environment variable ``FASTNN_CONV_ALGORITHM`` sets the one that a process starts with.

    Raises
    ------
    ValueError
        If there is no such algorithm.

    Examples
    --------
    >>> import fastnn
    >>> before = fastnn.get_conv_algorithm()
    >>> fastnn.set_conv_algorithm("im2col")
    >>> fastnn.get_conv_algorithm()
    'im2col'
    >>> fastnn.set_conv_algorithm(before)
    """
    global active
    active = check_algorithm("set_conv_algorithm: name", name)


def get_conv_algorithm():
    """Name of the algorithm in use: "auto", "im2col" or "winograd".

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.conv_algorithm("winograd"):
    ...     fastnn.get_conv_algorithm()
    'winograd'
    """
    return active


@contextmanager
def conv_algorithm(name):
    """Compute convolutions by this algorithm in the ``with`` block ("auto", "im2col" or "winograd").

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.conv_algorithm("im2col"):
    ...     fastnn.get_conv_algorithm()
    'im2col'
    """
    before = active
    set_conv_algorithm(name)
    try:
        yield
    finally:
        set_conv_algorithm(before)


def check_algorithm(source, name):
    if name not in ALGORITHMS:
        raise ValueError(f"{source} must be 'auto', 'im2col' or 'winograd', got {name!r}")
    return name


def choose(operation, images, channels, out_channels, out_size, kernel, stride, dilation, groups):
    """The algorithm for one operation ("conv", "conv_input_grad", "conv_weight_grad"): "im2col" or "winograd".

    The shapes are those of the convolution that is computed: backward-data convolves the output's gradient.
    Measured on a Zen 4 core with AVX-512 (AVX2 is within 5 %), float32, GFLOP/s of the three operations:

    ====================  =============  =============
    (N, C, K, H)          winograd       im2col
    ====================  =============  =============
    (64, 64, 64, 32)      271  276  212   95   95   81
    (64, 32, 32, 32)      182  179  132   83   83   69
    (64, 16, 16, 32)      145  134  118   65   65   51
    (64, 8, 8, 32)         75   77   36   44   45   28
    (64, 3, 64, 32)        63   34   29   71   21   29
    (3, 256, 256, 8)      178  162  145   59   58   88
    (2, 256, 256, 8)      136  131  112   64   61   86
    (2, 512, 512, 7)       94   75   70   44   42   75
    (1, 512, 512, 7)       48   37   35   31   28   71
    (1, 256, 256, 8)       70   67   57   49   46   79
    (1, 64, 64, 8)         51             47
    (1, 32, 32, 8)         30             33
    ====================  =============  =============
    """
    possible = (
        tuple(kernel) == (3, 3)
        and all(s == 1 for s in (*stride, *dilation))
        and groups == 1
        and max(channels, out_channels) <= 2048  # or the transformed patches of a few tiles fill a thread's 16 MB
    )
    if not possible or active == "im2col":
        return "im2col"
    if active == "winograd":
        return "winograd"
    # Few channels do not pay for the transforms of patches and outputs, few tiles not for that of the weights.
    tiles = images * -(-out_size[0] // 4) * -(-out_size[1] // 4)
    fewest_channels = min(channels, out_channels)
    enough_tiles = tiles > 8 if operation == "conv_weight_grad" else tiles * fewest_channels > 128
    return "winograd" if fewest_channels >= 8 and enough_tiles else "im2col"


active = check_algorithm("FASTNN_CONV_ALGORITHM", os.environ.get("FASTNN_CONV_ALGORITHM") or "auto")

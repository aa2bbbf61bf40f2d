"""Which algorithm computes a convolution: by shape, or the one that the user asks for."""

import itertools
import math
import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

__all__ = ["conv_algorithm", "get_conv_algorithm", "set_conv_algorithm"]

ALGORITHMS = ("auto", "im2col", "direct", "winograd", "fft")
WINOGRAD_BLOCKS = 4  # as in csrc/kernels.h
# Elements that the direct kernels copy for one row of outputs, and of their packed weights, at most: a band of rows
# stays in the second-level cache, and rows are not cut.
DIRECT_COPY = 1 << 18
DIRECT_WEIGHTS = 1 << 20
# Bytes of a dilation's phases, of image and outputs, that are copied at a time; weights whose gradients are added up
# from them at most; multiply-adds in the time of copying an element.
PHASE_BYTES = 4 << 20
PHASE_WEIGHTS = 1 << 18
COPY_COST = 130
# Elements that are copied for the neighbouring outputs of some groups' channels at most, with channels last and first,
# bytes of the weights, which are copied as well, and of what backward-weights has in the first-level cache.
GROUPED_COPY = 1 << 17
DEPTHWISE_COPY = 1 << 18
GROUPED_WEIGHT_BYTES = 4 << 20
GROUPED_RING_BYTES = 48 << 10
# Patches as rows of a matrix product: bytes of weights, elements of a patch and bytes of a pixel's outputs at most, so
# that the memory of a call stays small; and input channels of those that the matrix product would compute otherwise.
PATCH_WEIGHT_BYTES = 4 << 20
PATCH_DEPTH = 4096
PATCH_OUTPUT_BYTES = 16 << 10
PATCH_CHANNELS = 8
active = "auto"
observer: Callable | None = None  # is told of every choice: a profile's


def set_conv_algorithm(name):
    """Compute convolutions by this algorithm from now on, forward and backward, in all threads.

    Parameters
    ----------
    name : {"auto", "im2col", "direct", "winograd", "fft"}
        - "auto" takes the one that is fastest for the shape.
        - "im2col" is a matrix product, exact up to rounding.
        - "direct" is as exact, and reads a copy of the image instead of a matrix of its patches, in one or two
          dimensions, where a row fits the cache.
        - "winograd" needs a quarter of the multiplications for filters of 3x3, and up to 4 times fewer for others of
          2x2 to 12x12, with stride 1, 2 or 4 (backward-data with a stride: 2 or 3 taps per phase, as 3x3 to 6x6 have
          with stride 2), one group and at most 2048 channels, counted once per block of 3x3 or 2x2 taps; with a
          dilation where the stride is 1 and the images of every second, third, ... pixel are not large.
          Its largest error in float32 is at most 2e-5 of the output's RMS for up to 512 channels.
        - "fft" needs up to 13 times fewer, for large images and filters of up to 9x9 (stride 2: 18x18, stride 4:
          36x36), of the same kinds, with at most 512 channels, counted once per phase of the stride. Its error is
          about that of "im2col".

        One that cannot run for a shape leaves it to "im2col". The environment variable ``FASTNN_CONV_ALGORITHM`` sets
        the one that a process starts with.

    Notes
    -----
    "winograd" and "fft" compute outputs from sums and differences of whole patches, of 6x6 and 16x16 pixels (of every
    second or fourth one with such a stride), so that errors are relative to the largest value in the patch, not to
    those that an output sees: beside an outlier of 1e6 they are 1e-2, and outputs that see nothing but zeros are not
    exactly 0. A NaN or an infinity, also one of a sum that overflows, reaches all outputs that share its patch, as NaN.
    Where that matters, force "im2col".

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
    """Name of the algorithm in use: "auto", "im2col", "direct", "winograd" or "fft".

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.conv_algorithm("winograd"):
    ...     fastnn.get_conv_algorithm()
    'winograd'
    """
    return active


def conv_algorithm(name):
    """Compute convolutions by this algorithm in the ``with`` block: "auto", "im2col", "direct", "winograd" or "fft",
    see :func:`set_conv_algorithm`.

    It is that of the process, not of this Python thread alone: blocks of several threads must not overlap.

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.conv_algorithm("im2col"):
    ...     fastnn.get_conv_algorithm()
    'im2col'
    """
    return computing_by(check_algorithm("conv_algorithm: name", name))


@contextmanager
def computing_by(name):
    before = active
    set_conv_algorithm(name)
    try:
        yield
    finally:
        set_conv_algorithm(before)


@contextmanager
def telling(function):
    """In this block every choice is told to the function too."""
    global observer
    before = observer

    def tell(by):
        function(by)
        if before is not None:
            before(by)

    observer = tell
    try:
        yield
    finally:
        observer = before


def check_algorithm(source, name):
    if name not in ALGORITHMS:
        raise ValueError(f"{source} must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got {name!r}")
    return name


class Shape(NamedTuple):
    """One of a convolution's three operations: "conv", "conv_input_grad" or "conv_weight_grad".

    The sizes are those of the convolution that is computed: backward-data convolves the output's gradient. A vector has
    `lanes` elements; all arrays have channels "first" or "last", or None of both.
    """

    operation: str
    images: int
    channels: int
    out_channels: int
    out_size: tuple
    kernel: tuple
    stride: tuple
    dilation: tuple
    groups: int
    lanes: int
    layout: str | None = "first"
    itemsize: int = 4


def choose(
    operation,
    images,
    channels,
    out_channels,
    out_size,
    kernel,
    stride,
    dilation,
    groups,
    lanes,
    layout="first",
    itemsize=4,
):
    """The algorithm for a Shape, given by its fields: "im2col", "direct", "winograd", "fft", or what the user knows as
    kinds of the first two, "patches" (see packs_patches()) and "grouped".

    ``python -m fastnn bench conv --algorithms`` measures this table, and those of one group with channels first below,
    anew: every algorithm on every layer, the chosen one marked, and what the choice has lost. Figures for groups,
    dilations and channels last are of calls by forced algorithms, in turn.
    Measured on a Zen 4 core with AVX-512 (AVX2 is within 5 %), float32, GFLOP/s of the three operations:

    ====================  =============  =============
    (N, C, K, H), 3x3      winograd       im2col
    ====================  =============  =============
    (64, 64, 64, 32)      280  281  246  100   98   79
    (64, 32, 32, 32)      203  202  179   89   87   65
    (64, 16, 16, 32)      144  150  123   73   72   59
    (64, 8, 8, 32)         86   86   55   49   48   33
    (64, 3, 64, 32)        82   55   44   77   28   49
    (3, 256, 256, 8)      209  188  230  104   99  104
    (2, 256, 256, 8)      177  157  220  105   98  103
    (2, 512, 512, 7)      150  117  119  101   95  102
    (1, 512, 512, 7)      103   78   97  103   88  100
    (1, 256, 256, 8)      125  108  145  109   92  100
    (8, 96, 256, 27), 5x5 258  214  209  108  103  103
    (1, 96, 256, 27), 5x5 188  170  174  109   98  103
    (16, 20, 50, 12), 5x5 170   71  145   88   37   69
    (1, 32, 64, 14), 5x5  125  107   93   91   70   74
    (8, 64, 64, 28), 7x7  200  193  155  101  100   94
    (8, 64, 64, 28), 4x4  185  186  163  101   95   96
    (8, 64, 64, 56), 2x2  174  176  156   97   95   85
    ====================  =============  =============

    ================================  =============  =============  =============
    (N, C, K, H, R, stride), GFLOP/s  winograd       direct         im2col
    ================================  =============  =============  =============
    (8, 3, 96, 227, 11, 4)            213  195  185   97   87   66   71   61   61
    (8, 3, 64, 224, 7, 2)             135   28  103  102   87   84   85   29   61
    (8, 3, 16, 224, 7, 2)              84   18   64   89   74   73   50   25   40
    (100, 3, 32, 32, 7, 1)            111   34   91  105   90   90   72   28   58
    (32, 3, 32, 32, 5, 1)             115   39   89   88   69   84   73   26   53
    (32, 64, 64, 13, 5, 2)            155  161  130   53  109   26   81   58   81
    (32, 16, 64, 32, 4, 2)            162   98  137   92   83   55   87   62   78
    (8, 64, 128, 56, 3, 2)            119  123  114   82   86   38   98   82   89
    (8, 128, 256, 28, 3, 2)           108  108   95   80   81   34   97   89   91
    (8, 256, 512, 14, 3, 2)            94   84   83   48   59   16   90   86  100
    ================================  =============  =============  =============
    """
    sizes = (tuple(out_size), tuple(kernel), tuple(stride), tuple(dilation))
    by = choose_once(active, operation, images, channels, out_channels, *sizes, groups, lanes, layout, itemsize)
    if observer is not None:
        observer(by)
    return by


@lru_cache(maxsize=4096)  # a small layer takes no longer than the choice
def choose_once(wanted, *fields):
    """choose(), where `wanted` is the algorithm that the user asks for."""
    shape = Shape(*fields)
    by = choose_in_any_layout(wanted, shape)
    if shape.groups > 1 and grouped_runs(shape):
        if wanted == "direct" or (wanted == "auto" and grouped_gains(shape)):
            return "grouped"
        by = "im2col"
    packs = shape.channels <= PATCH_CHANNELS if by == "im2col" else by == "direct" != wanted  # who asks for it gets it
    if packs and packs_patches(shape):
        return "patches"
    return by


def choose_in_any_layout(wanted, shape):
    """Without the kernels that are for some layouts alone."""
    operation, _, channels, out_channels, out_size, kernel, stride, dilation, groups, *_ = shape
    if len(kernel) == 2 and max(dilation) > 1 == max(stride) and groups == 1:
        by = choose_for_phases(wanted, shape)
        if by in ("winograd", "fft"):
            return by
    blocks = winograd_blocks(kernel, stride)[1]
    turned = operation == "conv_input_grad" and stride != (1, 1)
    most_taps = max(taps_per_phase(kernel, stride))
    # A thread's memory has the transformed patches of a few tiles, as many times as the filter has blocks; or, turned,
    # the weights of all phases of an output channel, about twice a patch's memory for each input channel.
    copies = 2 if turned else math.prod(map(len, blocks))
    winograd_runs = (
        len(kernel) == 2
        and min(kernel) >= 2
        and (most_taps in (2, 3) if turned else max(map(len, blocks)) <= WINOGRAD_BLOCKS)
        and stride in [(1, 1), (2, 2), (4, 4)]
        and dilation == (1, 1)
        and groups == 1
        and max(channels * copies, out_channels) <= 2048
    )
    fft_runs = (
        len(kernel) == 2
        and stride in ([(1, 1)] if operation == "conv_input_grad" else [(1, 1), (2, 2), (4, 4)])
        and most_taps <= 9
        and dilation == (1, 1)
        and groups == 1
        # or the transformed patches of a few tiles fill a thread's 16 MB
        and fft_channels(channels, kernel, stride) <= 512
    )
    direct_runs = (
        len(kernel) <= 2
        and direct_copy(operation, channels // groups, out_size, kernel, stride, dilation) <= DIRECT_COPY
        and channels // groups * out_channels * math.prod(kernel) <= DIRECT_WEIGHTS
    )
    if wanted != "auto":
        return wanted if {"winograd": winograd_runs, "fft": fft_runs, "direct": direct_runs}.get(wanted) else "im2col"
    by_winograd = winograd_cost(shape) if winograd_runs else math.inf
    by_fft = fft_cost(shape) if fft_runs else math.inf
    if min(by_winograd, by_fft) < 0.93 * others_cost(shape):  # which threads share more evenly
        return "fft" if by_fft < fft_margin(operation, kernel, most_taps) * by_winograd else "winograd"
    return "direct" if direct_runs and direct_gains(shape) else "im2col"


def phases_together(channels, out_channels, out_size, kernel, dilation, itemsize):
    """How many phases of images, see native/dilated.py, are computed together: as many as are copied at a time; 0 where
    one is too much."""
    size = [-(-n // d) for n, d in zip(out_size, dilation, strict=True)]
    seen = math.prod(n + k for n, k in zip(size, kernel, strict=True))
    return PHASE_BYTES // max(1, (channels * seen + out_channels * math.prod(size)) * itemsize)


def choose_for_phases(wanted, shape):
    """What computes a dilated convolution by its phases, or something else where that is not faster than im2col.

    One core with AVX-512, milliseconds of im2col and of phases, forward: (1, 512, 512, 33, 3) with dilation 2 28 and
    27, with channels last 28 and 23; (2, 64, 64, 56, 3) 2.8 and 1.9; tiles of 4x4 waste too much of smaller phases.
    """
    _, images, channels, out_channels, out_size, kernel, _, dilation, *_, itemsize = shape
    phases, weights = images * math.prod(dilation), channels * out_channels * math.prod(kernel)
    together = phases_together(channels, out_channels, out_size, kernel, dilation, itemsize)
    large = shape.operation == "conv_weight_grad" and weights > PHASE_WEIGHTS
    if together == 0 or large or any(d > n for d, n in zip(dilation, out_size, strict=True)):
        return None
    size = tuple(-(-n // d) for n, d in zip(out_size, dilation, strict=True))
    part = shape._replace(images=min(phases, together), out_size=size, dilation=(1, 1))
    by = choose_in_any_layout(wanted, part)
    if wanted != "auto" or by not in ("winograd", "fft"):
        return by
    cost = -(-phases // together) * (winograd_cost(part) if by == "winograd" else fft_cost(part))
    cost += COPY_COST * phases * (channels + out_channels) * math.prod(size)
    return by if cost < 0.93 * others_cost(shape) else None


def grouped_runs(shape):
    """Whether native/grouped.pyx computes these groups: with channels last, or with channels first depthwise ones that
    fill half a vector, unless what some neighbouring outputs see of a vector of channels, or the weights, are too much
    to copy."""
    operation, _, channels, out_channels, _, kernel, stride, _, groups, lanes, layout, itemsize = shape
    c, k, weights = channels // groups, out_channels // groups, channels // groups * out_channels * math.prod(kernel)
    if len(kernel) != 2 or layout is None or weights * itemsize > GROUPED_WEIGHT_BYTES:
        return False
    if layout == "last":
        return grouped_seen(shape, 16) <= GROUPED_COPY
    steps = 1 if operation == "conv" else max(stride)
    by_windows = c == k == 1 and steps == 1 and operation != "conv_weight_grad" and 2 * groups >= lanes
    return by_windows and grouped_seen(shape, 64, 8) <= DEPTHWISE_COPY


def grouped_seen(shape, columns, rows=1):
    """Elements that are copied for so many columns and rows of outputs: of every lane, or once for all of them."""
    lanes, k = shape.lanes, shape.out_channels // shape.groups
    # each phase of the stride of backward-data is a convolution of stride 1
    stride = (1, 1) if shape.operation == "conv_input_grad" else shape.stride
    height, width = (
        (outputs - 1) * step + (taps - 1) * gap + 1
        for outputs, step, taps, gap in zip((rows, columns), stride, shape.kernel, shape.dilation, strict=True)
    )
    return height * width * (shape.channels // shape.groups) * (lanes if 2 * k <= lanes else 1)


def grouped_gains(shape):
    """Whether it is faster than the matrix product, which wastes what lanes and rows of its tiles a group leaves.

    Channels last, one core with AVX-512, milliseconds of this and of the matrix product, forward, backward-data and
    backward-weights of 8 images, 3x3, groups of C to K channels at H: (4, 4, 28) 1.2 1.3 1.3, 3.8 4.1 7.1; (8, 8, 28)
    2.1 2.1 2.4, 4.8 4.9 6.1; (16, 16, 28) 2.0 2.1 3.1, 3.5 3.8 3.9; (32, 32, 28) 3.7 3.7 6.0, 4.5 4.6 4.8; (32, 32, 7)
    0.76 0.71 2.8, 0.60 0.64 1.3; (64, 64, 28) 7.4 7.4 10.3, 7.0 7.2 8.0; of more channels than a vector has, which are
    spread over lanes one by one, (48, 2, 28) 2.8 0.36 2.7, 1.1 0.51 2.2. Backward-weights of 4 images, 7x7: (8, 8, 28)
    1.8, 4.4; (128, 16, 14) 8.1, 15; (32, 32, 14) 2.4, 2.4; (128, 32, 7) 11, 13; 5x5: (128, 16, 28) 13, 23; (8, 16, 14)
    0.56, 0.39.
    """
    c, k, lanes = shape.channels // shape.groups, shape.out_channels // shape.groups, shape.lanes
    wide = shape.out_size[-1] >= 16
    if 2 * k <= lanes < c:
        return False
    if shape.operation == "conv_weight_grad":
        in_cache = grouped_seen(shape, 16) * shape.itemsize <= GROUPED_RING_BYTES
        taps = math.prod(shape.kernel)
        return taps >= 36 or (k <= lanes and (wide or 2 * k <= lanes) and (in_cache or taps >= 25))
    return k <= lanes or (k <= 3 * lanes and wide)


def packs_patches(shape):
    """Whether a convolution packs patches as rows of its product, see csrc/pixels.c: with channels last of few channels
    to more than a vector of them, with channels first of patches that hardly overlap.

    Against the direct kernels, one core with AVX-512, milliseconds forward and backward-weights: (32, 3, 32, 32, 3)
    0.75 1.06 -> 0.56 0.66; (16, 3, 32, 224, 3) with stride 2 8.6 9.8 -> 3.7 5.3; (8, 3, 96, 224, 16) with stride 16
    3.6 23 -> 1.7 2.0; (32, 3, 16, 32, 7) 1.1 1.4 -> 1.9 2.1; (32, 3, 8, 32, 3) 0.27 0.32 -> 0.44 0.39. With channels
    first: (8, 3, 768, 224, 16) with stride 16 18.7 15.7 -> 15.3 14.5; (8, 3, 192, 224, 16) 5.4 6.0 -> 3.7 3.9;
    (64, 3, 16, 112, 5) with stride 5 4.3 5.3 -> 2.6 2.1; (8, 3, 64, 224, 7) with stride 4 4.4 8.7 -> 5.0 6.3.
    """
    operation, _, channels, out_channels, out_size, kernel, stride, dilation, groups, lanes, layout, itemsize = shape
    depth = math.prod(kernel) * channels
    if layout is None or operation == "conv_input_grad" or len(kernel) != 2 or groups > 1 or max(dilation) > 1:
        return False
    if math.prod(kernel) == 1 or not 0 < depth <= PATCH_DEPTH or depth * out_channels * itemsize > PATCH_WEIGHT_BYTES:
        return False
    if layout == "last":  # a vector of outputs is enough for short patches
        return out_channels >= (lanes if depth <= 64 else 2 * lanes)
    long_rows = operation == "conv" and out_size[1] > lanes
    # Products of a few patches stand in memory before they are stored.
    return min(stride) >= (5 if long_rows else 4) and out_channels * itemsize <= PATCH_OUTPUT_BYTES


def fft_margin(operation, kernel, most_taps):
    """How much of Winograd's cost Fourier transforms may take.

    They go through more memory, which other threads and processes want as well: 3x3, for which both save about as much,
    stays with Winograd ((4, 64, 64, 224): 56 against 67 ms), and so do, but for backward-weights, filters of up to 4x4
    in a phase of the stride where it is close (11x11/4, with 2 MB of second-level cache: 6.9 against 8.5 ms).
    """
    if math.prod(kernel) <= 9:
        return 0.8
    return 0.85 if most_taps <= 4 and operation != "conv_weight_grad" else 1


def others_cost(shape):
    """What the direct kernels or the matrix product take, in multiply-adds at the peak.

    They reach 82 % of it, or 78 % in backward-weights, after 7 microseconds for the call; in backward-data with a
    stride less, the fewer channels the result has, and in backward-weights, the fewer output channels there are, up to
    half a vector.
    """
    operation, images, channels, out_channels, out_size, kernel, stride, _, _, lanes, *_ = shape
    reached = 0.78 if operation == "conv_weight_grad" else 0.82
    if operation == "conv_weight_grad" and 2 * out_channels < lanes:
        reached *= out_channels / (out_channels + lanes / 2)
    if operation == "conv_input_grad" and stride != (1, 1):
        reached *= out_channels / (out_channels + 6)
        out_size = [-(-n // s) for n, s in zip(out_size, stride, strict=True)]
    multiply_adds = images * math.prod(out_size) * math.prod(kernel) * channels * out_channels
    return 4e5 + multiply_adds / reached


def winograd_blocks(kernel, stride):
    """Into which blocks of taps, `stride` apart, a filter is cut: (2, ...) of at most 2x2 or (3, ...) of at most 3x3
    taps, whichever take fewer products, with (first tap, taps) of each per dimension: at most WINOGRAD_BLOCKS, if there
    is a way."""
    cuts = [(most, [cut_taps(k, s, most) for k, s in zip(kernel, stride, strict=True)]) for most in (3, 2)]
    return min([cut for cut in cuts if max(map(len, cut[1])) <= WINOGRAD_BLOCKS] or cuts, key=winograd_products)


def cut_taps(kernel, stride, most):
    """(first tap, taps) of the blocks of one dimension: the largest first.

    The taps of a phase are shared out evenly: blocks with less than `most` taps take fewer products (7 = 3 + 2 + 2).
    """
    blocks = []
    for first in range(min(stride, kernel)):
        taps = -(-(kernel - first) // stride)
        parts = -(-taps // most)
        edges = [taps * part // parts for part in range(parts + 1)]
        blocks += [(first + start * stride, end - start) for start, end in itertools.pairwise(edges)]
    return sorted(blocks, key=lambda block: -block[1])


def winograd_products(cut):
    """Products for a tile of 4x4 outputs: without the last tap of a block, there is none at infinity."""
    most, blocks = cut
    return math.prod(sum(most + 3 - (taps < most and i > 0) for i, (_, taps) in enumerate(cuts)) for cuts in blocks)


def taps_per_phase(kernel, stride):
    """How many taps of a filter, per dimension, are a stride apart: those of its first phase, the most."""
    return [-(-k // s) for k, s in zip(kernel, stride, strict=True)]


def phase_products(kernel, stride):
    """Products for stride x stride tiles of 4x4 outputs, the planes of a patch, and of the filters of all phases, as if
    of 3x3."""
    taps = max(taps_per_phase(kernel, stride))
    products = math.prod(s * (taps + 3) - min(s, taps * s - k) for k, s in zip(kernel, stride, strict=True))
    return products, (taps + 3) ** 2 / 36, math.prod(stride) * (taps + 3) ** 2 / 36


def winograd_cost(shape):
    """What Winograd's algorithm takes, in multiply-adds at the peak; infinite where it saves no products.

    Fitted to the tables: within a fifth of the measured times from 8 to 512 channels and from 4 tiles on; transforms
    count as beside other work on the machine, which they feel more than products do. The constants are those of blocks
    of 3x3; blocks of 2x2 have fewer points in everything.
    """
    operation, images, channels, out_channels, out_size, kernel, stride, _, _, lanes, *_ = shape
    pairs = channels * (max(out_channels, lanes) if operation == "conv_weight_grad" else out_channels)
    if operation == "conv_input_grad" and stride != (1, 1):
        products, planes, filters = phase_products(kernel, stride)
        filters *= 2.8  # whose taps stand apart
        results = planes * math.prod(stride)  # planes of outputs for each output channel
        # With the usual padding, so many outputs of the first pixel of the grid stand in front of the first one.
        taps = max(taps_per_phase(kernel, stride))
        lead = [((k - 1) // 2 + taps * s - k) % s for k, s in zip(kernel, stride, strict=True)]
        out_size = [-(-(n + first) // s) for n, first, s in zip(out_size, lead, stride, strict=True)]
    else:
        most, blocks = cut = winograd_blocks(kernel, stride)
        products, results = winograd_products(cut), 1
        planes = filters = math.prod(map(len, blocks)) * (most + 3) ** 2 / 36  # as if of 3x3
    if products / 16 > 0.8 * math.prod(kernel):  # 2x2 with stride 2 saves nothing
        return math.inf
    tiles = images * -(-out_size[0] // 4) * -(-out_size[1] // 4)
    vectors = -(-tiles // lanes) * lanes
    transform, weight, multiplied = (1000, 400, vectors) if operation == "conv_weight_grad" else (750, 320, vectors)
    transformed = planes * channels + results * out_channels
    if operation == "conv_weight_grad":
        if tiles <= lanes:  # few: lanes are channels, products become weights at once
            multiplied, weight = tiles, 4400 / lanes
        else:  # a part of the weights at a time: 256 output channels and 140 channels
            rows = min(out_channels, 256)
            again = -(-planes * channels * rows // 36000)
            transformed = planes * channels * -(-out_channels // 256) + out_channels * again
    elif tiles < 16:  # channels are the lanes, see lanes_are_channels() in native/winograd.pyx
        multiplied, weight, vectors = tiles, 430, tiles
    transforms = vectors * transform * (1 if stride[0] == 1 else 1.3) * transformed
    return 9e5 + 1.1 * products * pairs * multiplied + transforms + weight * filters * pairs


def fft_channels(channels, kernel, stride):
    """Channels of the convolution with stride 1: one per phase of the stride that has taps."""
    return channels * math.prod(min(k, s) for k, s in zip(kernel, stride, strict=True))


def fft_cost(shape):
    """What Fourier transforms of tiles take, in multiply-adds at the peak.

    Large weights are transformed again for each block of tiles. Fitted to measurements on a Zen 4 core; float32, in
    turn on a machine with other work, GFLOP/s of Fourier transforms, of Winograd's algorithm and of the best other,
    forward and backward-data (alone on a machine, 7x7 reaches 740); backward-weights below:

    ============================  ===================================  ===================================
    (N, C, K, H, R, stride, pad)  AVX-512: forward, backward-data      AVX2
    ============================  ===================================  ===================================
    (8, 96, 256, 27, 5, 1, 2)     332  214  101 , 227  185   97        339  203   94 , 222  150   89
    (1, 96, 256, 27, 5, 1, 2)     160  167  103 , 118  135   93        139  163   93 , 107  130   87
    (8, 64, 64, 28, 7, 1, 3)      545  169  102 , 594  175  102        540  144   95 , 532  150   95
    (1, 64, 64, 28, 7, 1, 3)      259  124   96 , 290  139   98        244  116   91 , 256  135   90
    (8, 32, 32, 28, 5, 1, 2)      188  145   95 , 256  157   96        195  136  102 , 226  145  103
    (64, 6, 16, 14, 5, 1, 0)       87   54   83 ,  30   25   63         95   50   82 ,  32   21   61
    (64, 1, 6, 32, 5, 1, 0)        29   29   50 ,  26   10   44         25   22   44 ,  19    8   41
    (100, 3, 32, 32, 7, 1, 3)     149  114  108 , 126   33   95        130   98  104 ,  97   27   85
    (8, 128, 128, 14, 5, 1, 2)    196  166   99 , 192  179   96        179  148   97 , 165  162   98
    (1, 256, 256, 14, 7, 1, 3)     82   99   97 ,  54   80   83         88   84   87 ,  56   77   84
    (64, 32, 64, 8, 5, 1, 2)      196  177  121 , 217  149  116        193  162  122 , 186  139  114
    (8, 64, 64, 56, 3, 1, 1)      241  260  102 , 301  264  102        232  232   97 , 254  235   93
    (8, 128, 128, 14, 3, 1, 1)    128  234   98 , 134  244   95        147  217  105 , 150  231  102
    (8, 3, 64, 224, 7, 2, 3)      175  127  104                        152  107   85
    (1, 3, 64, 224, 7, 2, 3)      181  148  109                        141  118  101
    (8, 3, 96, 227, 11, 4, 0)     209  191   95                        184  171   90
    (1, 3, 96, 227, 11, 4, 0)     182  181   98                        152  155   92
    (32, 64, 64, 13, 5, 2, 2)      44  114   79                         40  119   95
    ============================  ===================================  ===================================

    ============================  =============  =============
    (N, C, K, H, R, stride, pad)  AVX-512        AVX2
    ============================  =============  =============
    (8, 96, 256, 27, 5, 1, 2)     174  197   99  222  200  103
    (1, 96, 256, 27, 5, 1, 2)     142  171   97  141  170  103
    (8, 64, 64, 28, 7, 1, 3)      514  152   91  428  133   81
    (1, 64, 64, 28, 7, 1, 3)      298  110   90  283  122   82
    (8, 32, 32, 28, 5, 1, 2)      259  144   69  253  130   94
    (64, 6, 16, 14, 5, 1, 0)      157   49   72  127   49   83
    (100, 3, 32, 32, 7, 1, 3)     118   91   91  100   83   97
    (8, 128, 128, 14, 5, 1, 2)    176  164   96  165  162   84
    (64, 32, 64, 8, 5, 1, 2)      235  174   96  174  178   92
    (8, 64, 64, 56, 3, 1, 1)      205  215   90  221  220   90
    (8, 3, 64, 224, 7, 2, 3)      152   98   85  142   91   84
    (8, 3, 96, 227, 11, 4, 0)     150  174   65  174  173   71
    (32, 64, 64, 13, 5, 2, 2)      50  127   74   47  129   73
    ============================  =============  =============
    """
    operation, images, channels, out_channels, out_size, kernel, stride, _, _, lanes, *_ = shape
    tiles = images * math.prod(-(-n // (17 - t)) for n, t in zip(out_size, taps_per_phase(kernel, stride), strict=True))
    tiles = -(-tiles // lanes) * lanes
    channels = fft_channels(channels, kernel, stride)
    if operation == "conv_weight_grad":
        weights = 4500 * channels * (-(-out_channels // lanes) * lanes)
        products = 800 * channels * max(out_channels, lanes)  # output channels are the lanes
        return tiles * (products + 7500 * (channels + out_channels)) + weights + 1e6
    blocks = 1
    if 1536 * channels * out_channels > 4 << 20:
        blocks = -(-tiles // min(192, max(16, (12 << 20) // (1024 * channels))))
    weights = 4500 * blocks * -(-channels * out_channels // lanes) * lanes
    return 4e5 + tiles * (500 * channels * out_channels + 4000 * channels + 6500 * out_channels) + weights


def direct_copy(operation, channels, out_size, kernel, stride, dilation):
    """Elements of the image that one row of outputs sees, of as many as the copy has."""
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    if operation == "conv_input_grad":  # every output of the stride's phases sees an element for each
        sizes = [n // s + r // s + 2 for n, r, s in zip(out_size, reach, stride, strict=True)]
        rows = reach[0] // stride[0] + 2
    else:
        sizes = [n * s + r for n, r, s in zip(out_size, reach, stride, strict=True)]
        rows = reach[0] + stride[0]
    return channels * sizes[-1] * (rows if len(kernel) == 2 else 1)


def direct_gains(shape):
    """Whether packing patches costs more than it saves.

    Measured on a Zen 4 core, float32, in turn on a machine with other work, GFLOP/s of the three operations:

    ============================  ===================================  ===================================
    (N, C, K, H, R, stride, pad)  direct (AVX-512, AVX2)               im2col (AVX-512, AVX2)
    ============================  ===================================  ===================================
    (64, 1, 6, 32, 5, 1, 0)       63   43   52 ,  55   31   52        15    6   10 ,   8    3   11
    (64, 6, 16, 14, 5, 1, 0)      88   63   83 ,  86   59   82        40   17   41 ,  34   12   35
    (64, 3, 64, 32, 3, 1, 1)      74   55   64 ,  66   51   62        70   22   40 ,  60   14   42
    (100, 3, 32, 32, 7, 1, 3)    102   90   93 , 101   76   95        71   23   63 ,  54   13   56
    (8, 3, 64, 224, 7, 2, 3)      97   86   87 ,  85   73   82        83   23   68 ,  70   13   71
    (8, 3, 96, 227, 11, 4, 0)     98   87   70 ,  92   70   69        79   20   70 ,  77   12   73
    (4, 32, 64, 28, 3), 4 groups  81   78   72 ,  67   62   63        55   40   49 ,  40   26   41
    (8, 64, 64, 28, 3), 64 groups  15   15   12 ,  14   15   15         2    2    1 ,   1    1    2
    (64, 64, 64, 7, 3), 64 groups  12   13   13 ,  11   11   13         1    1    1 ,   1    1    1
    (8, 32, 64, 27, 5, 1, 2)      96   95   83 , 106   99   90        93   80   85 ,  82   62   77
    (8, 48, 48, 27, 5, 1, 2)      96   97   82 , 109  106   88        88   88   82 ,  76   76   70
    (8, 96, 256, 27, 5, 1, 2)     98   95   81 ,  87   83   75       107   99   96 , 100   90   94
    (16, 20, 50, 12, 5, 1, 0)     98   64   80 ,  97   62   78        78   31   62 ,  74   25   60
    (32, 16, 32, 9, 5, 1, 0)      84   51   70 ,  79   47   58        52   19   48 ,  47   16   42
    (8, 64, 64, 28, 1, 1, 0)      80   80   57 ,  68   62   52        89   86   85 ,  79   70   89
    ============================  ===================================  ===================================

    Of many channels to a few, the direct kernels' copy of the image, and in backward-weights their sums in lanes, are
    too large for the cache where a step or a dilation has them use it seldom. Time over that of the matrix product,
    one core with AVX-512, forward and backward-weights: (2, 256, 4, 56, 3) 0.67 0.56, with stride 2 1.79 1.44, with
    dilation 4 1.63 1.70; (2, 512, 6, 56, 3) 0.92 2.5, 3.8 10.6; (2, 64, 4, 56, 5) with stride 3 0.48 0.86. And of
    backward-data of (1, 1000, 3, 78, 3) with dilation 2: 2.2; (1, 256, 8, 65, (7, 3)), stride 2, dilation 4: 3.2.

    Groups of one channel to 1 to 4, or back, are faster directly in every shape that was tried (1x1 to 5x5, 7 to 56
    pixels, strides 1 and 2): 2 images of 128 to 256 channels, 1x1 at 56x56 0.78 0.59 0.75 ms, 1.3 1.3 4.1 by the matrix
    product, 5x5 at 7x7 0.08 0.10 0.10, 0.50 0.56 0.60.
    """
    operation, images, channels, out_channels, out_size, kernel, stride, dilation, groups, lanes, *_ = shape
    channels, out_channels = channels // groups, out_channels // groups
    if groups > 1 and min(channels, out_channels) == 1 and max(channels, out_channels) <= 4:
        return True
    if math.prod(kernel) == 1:
        return False
    # Small outputs waste no lanes where there are images to fill them.
    fill_lanes = out_size[-1] <= 16 and 0 < -(-images // lanes) * lanes <= 1.25 * images
    dense = max(*stride, *dilation) == 1
    if operation == "conv_weight_grad":
        few_outputs = out_channels <= 6 and channels * out_channels <= (1024 if dense else 256)
        few = (channels <= 8 or few_outputs) and max(stride) < 4 and (out_size[-1] >= 10 or fill_lanes)
        return few or (fill_lanes and channels <= 64 and max(stride) == 1 and math.prod(out_size) >= 25)
    few_outputs = out_channels <= 8 and (
        dense or (operation == "conv_input_grad" and max(dilation) == 1) or (channels <= 128 and math.prod(kernel) > 9)
    )
    few = (channels <= 48 or few_outputs) and math.prod(out_size) >= 64
    return few or (fill_lanes and channels <= 96)


active = check_algorithm("FASTNN_CONV_ALGORITHM", os.environ.get("FASTNN_CONV_ALGORITHM") or "auto")

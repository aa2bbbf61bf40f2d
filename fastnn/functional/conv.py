"""Convolutions: the arguments of 1, 2 and 3 dimensions are checked and normalised by the same functions.

The backends know three operations, each for any number of dimensions: `conv`, `conv_input_grad` (which is the
transposed convolution too) and `conv_weight_grad`. They take the zeros before each dimension and the output's size,
which says how many there are behind it.
"""

import math
from functools import lru_cache

from fastnn.backend import implementation
from fastnn.functional.checks import (
    channels_last_hint,
    check_choice,
    check_elements,
    check_flag,
    check_float_array,
    check_grad_output,
    check_integer,
    check_integers,
    check_ndim,
    check_number,
    check_same_dtype,
    check_shape,
)
from fastnn.functional.linear import check_needs

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_fused",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
]

LAYOUTS = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
WEIGHT_LAYOUTS = {1: "(K, C / groups, R)", 2: "(K, C / groups, R, S)", 3: "(K, C / groups, Q, R, S)"}
TRANSPOSED_LAYOUTS = {1: "(C, K / groups, R)", 2: "(C, K / groups, R, S)", 3: "(C, K / groups, Q, R, S)"}


def check_arrays(function, input, weight, bias, dims, layouts):
    check_float_array(function, "input", input)
    check_ndim(function, "input", input, dims + 2, LAYOUTS[dims])
    check_same_dtype(function, "weight", weight, "input", input)
    check_ndim(function, "weight", weight, dims + 2, layouts[dims])
    if weight.size == 0:
        raise ValueError(f"{function}: weight must not be empty, got shape {weight.shape}")
    if bias is not None:
        check_same_dtype(function, "bias", bias, "input", input)


def check_groups(function, groups, out_channels):
    groups = check_integer(function, "groups", groups, 1)
    if out_channels % groups:
        raise ValueError(
            f"{function}: weight's first dimension must be a multiple of groups={groups}, got {out_channels} channels"
        )
    return groups


def channel_mismatch(shape, weight_shape, groups):
    """What is wrong where an input's channels are not those of the weight."""
    channels = shape[1]
    if channels % groups:
        return f"input's {channels} channels must be a multiple of groups={groups}"
    expected = (weight_shape[0], channels // groups, *weight_shape[2:])
    text = f"weight must have shape {expected} for input's {channels} channels and groups={groups}, got {weight_shape}"
    return text + channels_last_hint(shape, weight_shape[1] * groups)


def normalise(function, input, weight, bias, stride, padding, dilation, groups, dims):
    """The backends' arguments (out_size, stride, padding, dilation, groups), all checked."""
    check_arrays(function, input, weight, bias, dims, WEIGHT_LAYOUTS)
    groups = check_groups(function, groups, weight.shape[0])
    if input.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"{function}: {channel_mismatch(input.shape, weight.shape, groups)}")
    if bias is not None:
        check_shape(function, "bias", bias, weight.shape[:1], "one per output channel")
    stride = check_integers(function, "stride", stride, dims, 1)
    dilation = check_integers(function, "dilation", dilation, dims, 1)
    if not isinstance(padding, str):
        padding = check_integers(function, "padding", padding, dims, 0)
    size, before = output_size(function, input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return size, stride, before, dilation, groups


@lru_cache(maxsize=4096)  # a small layer takes no longer than this
def output_size(function, in_size, kernel, stride, padding, dilation):
    """The output's size, and the zeros before each dimension."""
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    before, total = check_padding(function, padding, stride, reach)
    padded = tuple(n + p for n, p in zip(in_size, total, strict=True))
    if any(r >= n for r, n in zip(reach, padded, strict=True)):
        raise ValueError(
            f"{function}: the kernel reaches over {tuple(r + 1 for r in reach)} elements (size {kernel}, dilation "
            f"{dilation}), more than the padded input's {padded}; use a larger input, more padding or a smaller kernel"
            + ("; or are input and weight swapped?" if min(kernel) > max(in_size) else "")
        )
    return tuple((n - r - 1) // s + 1 for n, r, s in zip(padded, reach, stride, strict=True)), before


def check_padding(function, padding, stride, reach):
    """Zeros before each dimension, and before and behind it together."""
    if not isinstance(padding, str):
        return padding, tuple(2 * p for p in padding)
    if padding == "valid":
        return (0,) * len(reach), (0,) * len(reach)
    if padding != "same":
        raise ValueError(f"{function}: padding must be integers, 'same' or 'valid', got {padding!r}")
    if any(s != 1 for s in stride):
        raise ValueError(f"{function}: padding='same' needs stride 1, got stride {stride}; give the padding in numbers")
    return tuple(r // 2 for r in reach), reach


def convolve(function, input, weight, bias, stride, padding, dilation, groups, dims, slope=1.0, kept=None):
    """The convolution; of negative outputs times the slope."""
    arguments = normalise(function, input, weight, bias, stride, padding, dilation, groups, dims)
    return implementation("conv")(input, weight, bias, *arguments, None, slope, False, kept)


class KeptWeights:
    """What an algorithm has made of a layer's weights, for the next call with the same ones.

    They are compared with a copy of those it was made of, so that nobody needs to tell when they change. Copies and
    pickles of it are empty.
    """

    __slots__ = ("state",)

    def __init__(self):
        self.state = None  # layout, the weights, transformed weights

    def __reduce__(self):
        return KeptWeights, ()


def convolve_backward(function, grad_output, input, weight, bias, stride, padding, dilation, groups, needs, dims):
    out_size, *arguments = normalise(function, input, weight, bias, stride, padding, dilation, groups, dims)
    check_grad_output(function, grad_output, input, (input.shape[0], weight.shape[0], *out_size))
    needs = check_needs(function, needs, bias)
    grad_input = grad_weight = grad_bias = None
    if needs[0]:
        grad_input = implementation("conv_input_grad")(grad_output, weight, None, input.shape[2:], *arguments)
    if needs[1]:
        weight_gradient = implementation("conv_weight_grad")
        grad_weight, grad_bias = weight_gradient(grad_output, input, weight.shape[2:], *arguments, needs[2])
    elif needs[2]:
        grad_bias = implementation("conv_channel_sum")(grad_output)
    return grad_input, grad_weight, grad_bias


def normalise_transposed(function, input, weight, bias, stride, padding, output_padding, groups, dilation, dims):
    """As normalise, for the convolution whose input gradient this is: out_size is that convolution's input."""
    check_arrays(function, input, weight, bias, dims, TRANSPOSED_LAYOUTS)
    groups = check_groups(function, groups, weight.shape[0])
    if input.shape[1] != weight.shape[0]:
        raise ValueError(
            f"{function}: weight expects {weight.shape[0]} input channels (its first dimension), but input has "
            f"{input.shape[1]}{channels_last_hint(input.shape, weight.shape[0])}"
        )
    if bias is not None:
        check_shape(function, "bias", bias, (weight.shape[1] * groups,), "one per output channel")
    stride = check_integers(function, "stride", stride, dims, 1)
    dilation = check_integers(function, "dilation", dilation, dims, 1)
    padding = check_integers(function, "padding", padding, dims, 0)
    extra = check_integers(function, "output_padding", output_padding, dims, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"{function}: output_padding must be smaller than stride or dilation, got output_padding {extra}, "
            f"stride {stride}, dilation {dilation}"
        )
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True)
    )
    if any(n < 1 for n in (*size, *input.shape[2:])):
        raise ValueError(
            f"{function}: the output would have size {size}; use a larger input or kernel, or less padding "
            f"(input {input.shape[2:]}, kernel {weight.shape[2:]}, padding {padding})"
        )
    check_elements(function, (input.shape[0], weight.shape[1] * groups, *size), "stride with this dilation")
    return size, stride, padding, dilation, groups


def convolve_transposed(function, input, weight, bias, stride, padding, output_padding, groups, dilation, dims):
    arguments = normalise_transposed(
        function, input, weight, bias, stride, padding, output_padding, groups, dilation, dims
    )
    return implementation("conv_input_grad")(input, weight, bias, *arguments)


def convolve_transposed_backward(
    function, grad_output, input, weight, bias, stride, padding, output_padding, groups, dilation, needs, dims
):
    out_size, *arguments = normalise_transposed(
        function, input, weight, bias, stride, padding, output_padding, groups, dilation, dims
    )
    channels = weight.shape[1] * arguments[-1]
    check_grad_output(function, grad_output, input, (input.shape[0], channels, *out_size))
    needs = check_needs(function, needs, bias)
    return (
        implementation("conv")(grad_output, weight, None, input.shape[2:], *arguments) if needs[0] else None,
        implementation("conv_weight_grad")(input, grad_output, weight.shape[2:], *arguments)[0] if needs[1] else None,
        implementation("conv_channel_sum")(grad_output) if needs[2] else None,
    )


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """1-D convolution (cross-correlation): ``y[n,k,p] = b[k] + sum w[k,c,t] x[n,c, p stride + t dilation - padding]``.

    The sum goes over the group's channels c and the filter positions t; the input counts as zero outside itself.
    The output has ``floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`` elements per dimension.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L)
    weight : ndarray, shape (K, C / groups, R)
    bias : ndarray, shape (K,), optional
    stride, dilation : int
        Steps between output positions and between filter positions, in elements.
    padding : int, "same" or "valid"
        Zeros on both sides of each dimension. "same" keeps the size at stride 1 (an odd zero goes behind); "valid": 0.
    groups : int
        Channels are cut into this many groups that do not see each other; C groups are a depthwise convolution.

    Returns
    -------
    ndarray, shape (N, K, L_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the kernel is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv1d(np.ones((1, 1, 5)), np.ones((1, 1, 3)), stride=2).shape
    (1, 1, 2)
    """
    return convolve("conv1d", input, weight, bias, stride, padding, dilation, groups, 1)


def conv1d_backward(
    grad_output, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Gradients of :func:`conv1d` by its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, dilation, groups
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None. A first layer needs none of its input. The bias
        gradient is summed up with the weights' where both are needed: in another order than alone.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv1d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 3)), np.ones((1, 1, 3))
    >>> dx, dw, db = F.conv1d_backward(np.ones((1, 1, 1)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 3), (1, 1, 3), None)
    """
    return convolve_backward(
        "conv1d_backward", grad_output, input, weight, bias, stride, padding, dilation, groups, needs, 1
    )


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """2-D convolution (cross-correlation): ``y[n,k,p] = b[k] + sum w[k,c,t] x[n,c, p stride + t dilation - padding]``.

    The sum goes over the group's channels c and the filter positions t; the input counts as zero outside itself.
    The output has ``floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`` elements per dimension.

    A batch that stands in memory as (N, H, W, C) without gaps, ``images.transpose(0, 3, 1, 2)``, gives an output that
    does so too; of a crop or a slice of one, a copy is taken.

    Filters of 2x2 to 12x12 with stride 1, 2 or 4, dilation 1 and one group may run by Winograd's algorithm: an infinity
    or NaN in the inputs that a tile of 4x4 outputs sees (6x6 for 3x3) reaches all of them, as NaN. By Fourier
    transforms, which take many filters of 5x5 and more, it reaches the outputs of each tile of 16x16 inputs that holds
    it.
    ``fastnn.set_conv_algorithm("im2col")`` turns both off.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W)
    weight : ndarray, shape (K, C / groups, R, S)
    bias : ndarray, shape (K,), optional
    stride, dilation : int or 2 ints
        Steps between output positions and between filter positions, in elements.
    padding : int or 2 ints, "same" or "valid"
        Zeros on both sides of each dimension. "same" keeps the size at stride 1 (an odd zero goes behind); "valid": 0.
    groups : int
        Channels are cut into this many groups that do not see each other; C groups are a depthwise convolution.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the kernel is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv2d(np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3)), stride=2).shape
    (1, 1, 2, 2)
    """
    return convolve("conv2d", input, weight, bias, stride, padding, dilation, groups, 2)


def conv2d_backward(
    grad_output, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Gradients of :func:`conv2d` by its input, weight and bias.

    By Winograd's algorithm and by Fourier transforms, as there, an infinity or NaN in ``grad_output`` spreads within a
    tile of ``grad_input`` (with a stride, of 4x4 times the stride), from a patch that is as large as that of the square
    filter with the longer side.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, dilation, groups
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None. A first layer needs none of its input. The bias
        gradient is summed up with the weights' where both are needed: in another order than alone.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias. ``grad_input`` stands in memory as (N, H, W, C) where
        ``grad_output`` does.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    >>> dx, dw, db = F.conv2d_backward(np.ones((1, 1, 1, 1)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 3, 3), (1, 1, 3, 3), None)
    """
    return convolve_backward(
        "conv2d_backward", grad_output, input, weight, bias, stride, padding, dilation, groups, needs, 2
    )


def conv2d_fused(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    residual=None,
    activation=None,
    negative_slope=0.01,
    statistics=False,
):
    """:func:`conv2d`, then ``activation(y + residual)``, and sums for a batch norm, in one pass over the output.

    Backward, ``g = relu_backward(grad_output, y)`` is the gradient by the residual, and :func:`conv2d_backward` of g
    gives the others (the same with :func:`leaky_relu_backward` and a positive slope, which keeps the signs of y).

    Parameters
    ----------
    input, weight, bias, stride, padding, dilation, groups
        As in :func:`conv2d`.
    residual : ndarray of the output's shape and dtype, optional
        Added to the output, as at the end of a residual block.
    activation : {None, "relu", "leaky_relu"}
    negative_slope : float
        That of "leaky_relu".
    statistics : bool
        Whether to return the sums too: divided by N H_out W_out they are the mean, and the mean of the square.
        Parts of them are taken in the output's dtype. In float32 they are right to about 1e-6, so that the variance,
        the difference of the mean square and the squared mean, is right where the mean is not far above the deviation:
        25 times as large 1e-4 to 1e-3 of it, 250 times 1e-2 to 1e-1. :func:`batch_norm` has no such limit.

    Returns
    -------
    y : ndarray, shape (N, K, H_out, W_out)
    sum, sum_of_squares : ndarray of float64, shape (K,)
        Of y, over images and positions; only with ``statistics``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape, a number or the name of the activation does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3))
    >>> y, total, squares = F.conv2d_fused(x, w, np.array([-10.0, 0.0]), activation="relu", statistics=True)
    >>> total, squares
    (array([ 0., 36.]), array([  0., 324.]))
    """
    name = "conv2d_fused"
    arguments = normalise(name, input, weight, bias, stride, padding, dilation, groups, 2)
    if residual is not None:
        check_same_dtype(name, "residual", residual, "input", input)
        check_shape(name, "residual", residual, (input.shape[0], weight.shape[0], *arguments[0]), "the output's")
    check_choice(name, "activation", activation, (None, "relu", "leaky_relu"))
    slopes = {None: 1.0, "relu": 0.0, "leaky_relu": check_number(name, "negative_slope", negative_slope)}
    if not math.isfinite(slopes["leaky_relu"]):
        raise ValueError(f"{name}: negative_slope must be finite, got {negative_slope}")
    statistics = check_flag(name, "statistics", statistics)
    return implementation("conv")(input, weight, bias, *arguments, residual, slopes[activation], statistics)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """3-D convolution (cross-correlation): ``y[n,k,p] = b[k] + sum w[k,c,t] x[n,c, p stride + t dilation - padding]``.

    The sum goes over the group's channels c and the filter positions t; the input counts as zero outside itself.
    The output has ``floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`` elements per dimension.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W)
    weight : ndarray, shape (K, C / groups, Q, R, S)
    bias : ndarray, shape (K,), optional
    stride, dilation : int or 3 ints
        Steps between output positions and between filter positions, in elements.
    padding : int or 3 ints, "same" or "valid"
        Zeros on both sides of each dimension. "same" keeps the size at stride 1 (an odd zero goes behind); "valid": 0.
    groups : int
        Channels are cut into this many groups that do not see each other; C groups are a depthwise convolution.

    Returns
    -------
    ndarray, shape (N, K, D_out, H_out, W_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the kernel is larger than the padded input.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv3d(np.ones((1, 1, 5, 5, 5)), np.ones((1, 1, 3, 3, 3)), stride=2).shape
    (1, 1, 2, 2, 2)
    """
    return convolve("conv3d", input, weight, bias, stride, padding, dilation, groups, 3)


def conv3d_backward(
    grad_output, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, needs=(True, True, True)
):
    """Gradients of :func:`conv3d` by its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, dilation, groups
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None. A first layer needs none of its input. The bias
        gradient is summed up with the weights' where both are needed: in another order than alone.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv3d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 3, 3, 3)), np.ones((1, 1, 3, 3, 3))
    >>> dx, dw, db = F.conv3d_backward(np.ones((1, 1, 1, 1, 1)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 3, 3, 3), (1, 1, 3, 3, 3), None)
    """
    return convolve_backward(
        "conv3d_backward", grad_output, input, weight, bias, stride, padding, dilation, groups, needs, 3
    )


def conv_transpose1d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """1-D transposed convolution: what :func:`conv1d_backward` computes as the gradient of its input, plus a bias.

    Output size per dimension: ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L)
    weight : ndarray, shape (C, K / groups, R)
    bias : ndarray, shape (K,), optional
    stride, padding, dilation : int
        Those of the convolution that is transposed; so padding cuts the output's border off.
    output_padding : int
        Elements added behind each dimension of the output; smaller than stride or dilation.
    groups : int
        As for :func:`conv1d`.

    Returns
    -------
    ndarray, shape (N, K, L_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the output would be empty.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv_transpose1d(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2).shape
    (1, 1, 5)
    """
    return convolve_transposed(
        "conv_transpose1d", input, weight, bias, stride, padding, output_padding, groups, dilation, 1
    )


def conv_transpose1d_backward(
    grad_output,
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    needs=(True, True, True),
):
    """Gradients of :func:`conv_transpose1d` by its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, output_padding, groups, dilation
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv_transpose1d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 2)), np.ones((1, 1, 3))
    >>> dx, dw, db = F.conv_transpose1d_backward(np.ones((1, 1, 4)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 2), (1, 1, 3), None)
    """
    return convolve_transposed_backward(
        "conv_transpose1d_backward",
        grad_output,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        needs,
        1,
    )


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """2-D transposed convolution: what :func:`conv2d_backward` computes as the gradient of its input, plus a bias.

    Output size per dimension: ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``.

    As in :func:`conv2d`, filters may run by Winograd's algorithm (stride 1, 2 or 4) or by Fourier transforms (stride
    1), which spread infinity and NaN.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W)
    weight : ndarray, shape (C, K / groups, R, S)
    bias : ndarray, shape (K,), optional
    stride, padding, dilation : int or 2 ints
        Those of the convolution that is transposed; so padding cuts the output's border off.
    output_padding : int or 2 ints
        Elements added behind each dimension of the output; smaller than stride or dilation.
    groups : int
        As for :func:`conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H_out, W_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the output would be empty.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3)), stride=2).shape
    (1, 1, 5, 5)
    """
    return convolve_transposed(
        "conv_transpose2d", input, weight, bias, stride, padding, output_padding, groups, dilation, 2
    )


def conv_transpose2d_backward(
    grad_output,
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    needs=(True, True, True),
):
    """Gradients of :func:`conv_transpose2d` by its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, output_padding, groups, dilation
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv_transpose2d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3))
    >>> dx, dw, db = F.conv_transpose2d_backward(np.ones((1, 1, 4, 4)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 2, 2), (1, 1, 3, 3), None)
    """
    return convolve_transposed_backward(
        "conv_transpose2d_backward",
        grad_output,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        needs,
        2,
    )


def conv_transpose3d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """3-D transposed convolution: what :func:`conv3d_backward` computes as the gradient of its input, plus a bias.

    Output size per dimension: ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W)
    weight : ndarray, shape (C, K / groups, Q, R, S)
    bias : ndarray, shape (K,), optional
    stride, padding, dilation : int or 3 ints
        Those of the convolution that is transposed; so padding cuts the output's border off.
    output_padding : int or 3 ints
        Elements added behind each dimension of the output; smaller than stride or dilation.
    groups : int
        As for :func:`conv3d`.

    Returns
    -------
    ndarray, shape (N, K, D_out, H_out, W_out)

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the dtypes differ.
    ValueError
        If a shape or a number does not fit, or the output would be empty.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.conv_transpose3d(np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 3, 3, 3)), stride=2).shape
    (1, 1, 5, 5, 5)
    """
    return convolve_transposed(
        "conv_transpose3d", input, weight, bias, stride, padding, output_padding, groups, dilation, 3
    )


def conv_transpose3d_backward(
    grad_output,
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    needs=(True, True, True),
):
    """Gradients of :func:`conv_transpose3d` by its input, weight and bias.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, weight, bias, stride, padding, output_padding, groups, dilation
        The forward's arguments.
    needs : three bools
        Which gradients to compute; the others come back as None.

    Returns
    -------
    grad_input, grad_weight, grad_bias
        ``grad_bias`` is None where there is no bias.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv_transpose3d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> x, w = np.ones((1, 1, 2, 2, 2)), np.ones((1, 1, 3, 3, 3))
    >>> dx, dw, db = F.conv_transpose3d_backward(np.ones((1, 1, 4, 4, 4)), x, w)
    >>> dx.shape, dw.shape, db
    ((1, 1, 2, 2, 2), (1, 1, 3, 3, 3), None)
    """
    return convolve_transposed_backward(
        "conv_transpose3d_backward",
        grad_output,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        needs,
        3,
    )

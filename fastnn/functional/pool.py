"""Pooling over windows of a given size: checked arguments, then the active backend.

It is described to the backend by one (kernel, stride, padding, dilation) per spatial dimension.
"""

import math

import numpy as np

from fastnn.backend import implementation
from fastnn.functional.checks import (
    LARGEST_SIZE,
    check_flag,
    check_float_array,
    check_grad_output,
    check_integer,
    check_integers,
    check_shape,
)

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
]

LAYOUTS = {1: "(N, C, L) or (C, L)", 2: "(N, C, H, W) or (C, H, W)", 3: "(N, C, D, H, W) or (C, D, H, W)"}


def check_planes(function, input, dims):
    """input is a float array of one image or a batch of them; the shape of its planes."""
    check_float_array(function, "input", input)
    if input.ndim not in (dims + 1, dims + 2):
        raise ValueError(f"{function}: input must have shape {LAYOUTS[dims]}, got {input.shape}")
    return check_not_empty(function, input, input.shape[-dims:])


def check_not_empty(function, input, in_size):
    if 0 in in_size:
        raise ValueError(f"{function}: input must have at least one element per plane, got shape {input.shape}")
    return in_size


def normalise(function, input, kernel_size, stride, padding, dilation, ceil_mode, dims):
    """The output's spatial size, and (kernel, stride, padding, dilation) per spatial dimension."""
    in_size = check_planes(function, input, dims)
    kernel = check_integers(function, "kernel_size", kernel_size, dims, 1)
    stride = kernel if stride is None else check_integers(function, "stride", stride, dims, 1)
    padding = check_integers(function, "padding", padding, dims, 0)
    dilation = check_integers(function, "dilation", dilation, dims, 1)
    ceil_mode = check_flag(function, "ceil_mode", ceil_mode)
    windows = tuple(zip(kernel, stride, padding, dilation, strict=True))
    if any(2 * p > k for k, p in zip(kernel, padding, strict=True)):
        raise ValueError(
            f"{function}: padding must be at most half of kernel_size, got padding {padding}, kernel_size {kernel}"
        )
    out_size = tuple(output_size(size, *window, ceil_mode) for size, window in zip(in_size, windows, strict=True))
    if min(out_size) < 1:
        raise ValueError(
            f"{function}: kernel_size {kernel} with dilation {dilation} is larger than the padded input "
            f"(size {in_size}, padding {padding}); use a smaller kernel or a larger input"
        )
    if any(has_empty_window(size, *window) for size, window in zip(in_size, windows, strict=True)):
        raise ValueError(
            f"{function}: some windows would lie in the padding alone (input {in_size}, kernel_size {kernel}, padding "
            f"{padding}, dilation {dilation}); use less padding or dilation"
        )
    return out_size, windows


def output_size(size, kernel, stride, padding, dilation, ceil_mode):
    """Windows that fit into the padded input; with ceil_mode also a last one that starts inside but does not fit."""
    spare = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return spare // stride + 1
    outputs = -(-spare // stride) + 1
    return outputs - 1 if (outputs - 1) * stride >= size + padding else outputs


def has_empty_window(size, kernel, stride, padding, dilation):
    """Whether the taps of a window that starts in the padding jump over the whole input."""
    starts = range(-padding, 0, stride) if dilation > 1 else ()
    return any(start % dilation >= min(size, start + (kernel - 1) * dilation + 1) for start in starts)


def check_plane_size(function, in_size):
    if math.prod(in_size) > LARGEST_SIZE:
        raise ValueError(f"{function}: input's planes must have at most {LARGEST_SIZE} elements, got size {in_size}")


def check_pooled(function, grad_output, input, out_size):
    check_grad_output(function, grad_output, input, (*input.shape[: -len(out_size)], *out_size))


def max_pool(function, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, dims):
    out_size, windows = normalise(function, input, kernel_size, stride, padding, dilation, ceil_mode, dims)
    return find_maxima(function, input, out_size, windows, return_indices)


def max_pool_backward(function, grad_output, input, kernel_size, stride, padding, dilation, ceil_mode, indices, dims):
    out_size, windows = normalise(function, input, kernel_size, stride, padding, dilation, ceil_mode, dims)
    return route_to_maxima(function, grad_output, input, out_size, windows, indices)


def find_maxima(function, input, out_size, windows, return_indices):
    return_indices = check_flag(function, "return_indices", return_indices)
    check_plane_size(function, input.shape[-len(out_size) :])
    return implementation("max_pool")(input, out_size, windows, return_indices)


def route_to_maxima(function, grad_output, input, out_size, windows, indices):
    check_plane_size(function, input.shape[-len(out_size) :])
    check_pooled(function, grad_output, input, out_size)
    if indices is None:
        return implementation("max_pool_backward")(grad_output, input, out_size, windows)
    if not isinstance(indices, np.ndarray) or indices.dtype != np.int64:
        given = indices.dtype if isinstance(indices, np.ndarray) else type(indices).__name__
        raise TypeError(f"{function}: indices must be the forward's int64 array, got {given}")
    check_shape(function, "indices", indices, grad_output.shape, "the output's shape")
    grad_input = implementation("max_pool_route")(grad_output, indices, input.shape, out_size)
    if grad_input is None:
        last = math.prod(input.shape[-len(out_size) :]) - 1
        raise ValueError(
            f"{function}: indices must be positions in a plane of input, 0 to {last}, got {indices.min()} to "
            f"{indices.max()}; give what the forward returned"
        )
    return grad_input


def normalise_average(
    function, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dims
):
    """The arguments of the backend's avg_pool behind the input or its shape."""
    out_size, windows = normalise(function, input, kernel_size, stride, padding, 1, ceil_mode, dims)
    count_include_pad = check_flag(function, "count_include_pad", count_include_pad)
    divisor = 0
    if divisor_override is not None:
        divisor = check_integer(function, "divisor_override", divisor_override, -LARGEST_SIZE, LARGEST_SIZE)
        if divisor == 0:
            raise ValueError(f"{function}: divisor_override must not be 0; None divides by the window's size")
    return out_size, windows, count_include_pad, divisor


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """1-D max pooling: ``y[n,c,p] = max over t of x[n,c, p stride + t dilation - padding]``, each window's largest.

    The output has ``floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` elements per dimension.
    Elements of the padding are never the largest; NaN is larger than every number.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L), or without N
    kernel_size : int
        Size of the window.
    stride : int, optional
        Step from one window to the next; by default the kernel's size.
    padding : int
        Elements added on both sides, at most half of the kernel's size.
    dilation : int
        Step from one element of a window to the next.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, L_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        L elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel, windows that
        meet nothing but padding.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool1d(np.array([[[1.0, 3.0, 2.0, 5.0]]]), 2)
    array([[[3., 5.]]])
    """
    return max_pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool1d_backward(
    grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, indices=None
):
    """Gradient of :func:`max_pool1d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, dilation, ceil_mode
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again, which takes longer.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`max_pool1d`, and if ``grad_output`` or ``indices`` has not the output's shape, or an index is outside
        the plane.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool1d_backward(np.ones((1, 1, 2)), np.array([[[1.0, 3.0, 2.0, 5.0]]]), 2)
    array([[[0., 1., 0., 1.]]])
    """
    return max_pool_backward(
        "max_pool1d_backward", grad_output, input, kernel_size, stride, padding, dilation, ceil_mode, indices, 1
    )


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """2-D max pooling: ``y[n,c,p] = max over t of x[n,c, p stride + t dilation - padding]``, each window's largest.

    The output has ``floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` elements per dimension.
    Elements of the padding are never the largest; NaN is larger than every number.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W), or without N
    kernel_size : int or 2 ints
        Size of the window.
    stride : int or 2 ints, optional
        Step from one window to the next; by default the kernel's size.
    padding : int or 2 ints
        Elements added on both sides, at most half of the kernel's size.
    dilation : int or 2 ints
        Step from one element of a window to the next.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, H_out, W_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        H * W elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel, windows that
        meet nothing but padding.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool2d(np.array([[[[1.0, 3.0], [2.0, 5.0]]]]), 2, return_indices=True)
    (array([[[[5.]]]]), array([[[[3]]]]))
    """
    return max_pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


def max_pool2d_backward(
    grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, indices=None
):
    """Gradient of :func:`max_pool2d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, dilation, ceil_mode
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again, which takes longer.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`max_pool2d`, and if ``grad_output`` or ``indices`` has not the output's shape, or an index is outside
        the plane.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool2d_backward(np.ones((1, 1, 1, 1)), np.array([[[[1.0, 3.0], [2.0, 5.0]]]]), 2)
    array([[[[0., 0.],
             [0., 1.]]]])
    """
    return max_pool_backward(
        "max_pool2d_backward", grad_output, input, kernel_size, stride, padding, dilation, ceil_mode, indices, 2
    )


def max_pool3d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """3-D max pooling: ``y[n,c,p] = max over t of x[n,c, p stride + t dilation - padding]``, each window's largest.

    The output has ``floor((size + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1`` elements per dimension.
    Elements of the padding are never the largest; NaN is larger than every number.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W), or without N
    kernel_size : int or 3 ints
        Size of the window.
    stride : int or 3 ints, optional
        Step from one window to the next; by default the kernel's size.
    padding : int or 3 ints
        Elements added on both sides, at most half of the kernel's size.
    dilation : int or 3 ints
        Step from one element of a window to the next.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    return_indices : bool
        Return also where each maximum stands.

    Returns
    -------
    ndarray, shape (N, C, D_out, H_out, W_out)
        And with ``return_indices`` an int64 array of the same shape: the index of the maximum in its flattened plane of
        D * H * W elements, the first one among equals, the last one among NaNs.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel, windows that
        meet nothing but padding.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), 2)
    array([[[[[7.]]]]])
    """
    return max_pool("max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


def max_pool3d_backward(
    grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, indices=None
):
    """Gradient of :func:`max_pool3d` by its input: each window's gradient goes to its maximum.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, dilation, ceil_mode
        The forward's arguments.
    indices : ndarray of int64, optional
        The forward's indices. Without them the maxima are found again, which takes longer.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`max_pool3d`, and if ``grad_output`` or ``indices`` has not the output's shape, or an index is outside
        the plane.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.max_pool3d_backward(np.ones((1, 1, 1, 1, 1)), np.arange(8.0).reshape(1, 1, 2, 2, 2), 2).sum()
    np.float64(1.0)
    """
    return max_pool_backward(
        "max_pool3d_backward", grad_output, input, kernel_size, stride, padding, dilation, ceil_mode, indices, 3
    )


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """1-D average pooling: ``y[n,c,p] = sum over t of x[n,c, p stride + t - padding] / count``, each window's mean.

    The output has ``floor((size + 2 padding - kernel_size) / stride) + 1`` elements per dimension. Elements of the
    padding are zeros.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, L), or without N
    kernel_size : int
        Size of the window.
    stride : int, optional
        Step from one window to the next; by default the kernel's size.
    padding : int
        Zeros added on both sides, at most half of the kernel's size.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    count_include_pad : bool
        Whether the count takes in the elements of the padding (never those past it, which ceil_mode adds).

    Returns
    -------
    ndarray, shape (N, C, L_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool1d(np.array([[[1.0, 3.0, 2.0, 5.0]]]), 2)
    array([[[2. , 3.5]]])
    """
    arguments = normalise_average(
        "avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1
    )
    return implementation("avg_pool")(input, *arguments)


def avg_pool1d_backward(
    grad_output, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    """Gradient of :func:`avg_pool1d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, ceil_mode, count_include_pad
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`avg_pool1d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool1d_backward(np.ones((1, 1, 1)), np.zeros((1, 1, 3)), 2)
    array([[[0.5, 0.5, 0. ]]])
    """
    arguments = normalise_average(
        "avg_pool1d_backward",
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        None,
        1,
    )
    check_pooled("avg_pool1d_backward", grad_output, input, arguments[0])
    return implementation("avg_pool_backward")(grad_output, input.shape, *arguments)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """2-D average pooling: ``y[n,c,p] = sum over t of x[n,c, p stride + t - padding] / count``, each window's mean.

    The output has ``floor((size + 2 padding - kernel_size) / stride) + 1`` elements per dimension. Elements of the
    padding are zeros.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, H, W), or without N
    kernel_size : int or 2 ints
        Size of the window.
    stride : int or 2 ints, optional
        Step from one window to the next; by default the kernel's size.
    padding : int or 2 ints
        Zeros added on both sides, at most half of the kernel's size.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    count_include_pad : bool
        Whether the count takes in the elements of the padding (never those past it, which ceil_mode adds).
    divisor_override : int, optional
        Divide every sum by this number.

    Returns
    -------
    ndarray, shape (N, C, H_out, W_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool2d(np.array([[[[1.0, 3.0], [2.0, 6.0]]]]), 2)
    array([[[[3.]]]])
    """
    arguments = normalise_average(
        "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2
    )
    return implementation("avg_pool")(input, *arguments)


def avg_pool2d_backward(
    grad_output,
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Gradient of :func:`avg_pool2d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`avg_pool2d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool2d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), 2)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    arguments = normalise_average(
        "avg_pool2d_backward",
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        2,
    )
    check_pooled("avg_pool2d_backward", grad_output, input, arguments[0])
    return implementation("avg_pool_backward")(grad_output, input.shape, *arguments)


def avg_pool3d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """3-D average pooling: ``y[n,c,p] = sum over t of x[n,c, p stride + t - padding] / count``, each window's mean.

    The output has ``floor((size + 2 padding - kernel_size) / stride) + 1`` elements per dimension. Elements of the
    padding are zeros.

    Parameters
    ----------
    input : ndarray of float32 or float64, shape (N, C, D, H, W), or without N
    kernel_size : int or 3 ints
        Size of the window.
    stride : int or 3 ints, optional
        Step from one window to the next; by default the kernel's size.
    padding : int or 3 ints
        Zeros added on both sides, at most half of the kernel's size.
    ceil_mode : bool
        Round the output's size up: a last window may reach past the padded input, if it starts before its end.
    count_include_pad : bool
        Whether the count takes in the elements of the padding (never those past it, which ceil_mode adds).
    divisor_override : int, optional
        Divide every sum by this number.

    Returns
    -------
    ndarray, shape (N, C, D_out, H_out, W_out)

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64, or a size is not an integer.
    ValueError
        If a size does not fit: a kernel larger than the padded input, padding above half of the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool3d(np.arange(8.0).reshape(1, 1, 2, 2, 2), 2)
    array([[[[[3.5]]]]])
    """
    arguments = normalise_average(
        "avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3
    )
    return implementation("avg_pool")(input, *arguments)


def avg_pool3d_backward(
    grad_output,
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Gradient of :func:`avg_pool3d` by its input: each window's gradient is spread evenly over its elements.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output, of its shape and dtype.
    input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        The forward's arguments; of ``input`` only the shape and the dtype matter.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        As :func:`avg_pool3d`, and if ``grad_output`` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.avg_pool3d_backward(np.ones((1, 1, 1, 1, 1)), np.zeros((1, 1, 2, 2, 2)), 2).max()
    np.float64(0.125)
    """
    arguments = normalise_average(
        "avg_pool3d_backward",
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        3,
    )
    check_pooled("avg_pool3d_backward", grad_output, input, arguments[0])
    return implementation("avg_pool_backward")(grad_output, input.shape, *arguments)

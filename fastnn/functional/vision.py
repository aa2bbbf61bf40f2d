"""Padding and resizing: checked arguments, then the active backend."""

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_choice,
    check_elements,
    check_float_array,
    check_grad_output,
    check_integer,
    check_integers,
    check_number,
)

__all__ = ["interpolate", "interpolate_backward", "pad", "pad_backward"]

MODES = ("constant", "reflect", "replicate", "circular")


def pad(input, pad, mode="constant", value=None):
    """Adds elements around an array.

    Parameters
    ----------
    input : ndarray of float32 or float64
        Any shape.
    pad : sequence of int
        Elements before and behind the last axis, then before and behind the one before it, and so on:
        ``(left, right, top, bottom)`` for images. Negative numbers cut elements off.
    mode : {"constant", "reflect", "replicate", "circular"}
        What is added: ``value``; the array mirrored at its border elements; the border elements; the array's other end.
        "reflect" needs more elements than it adds on a side, "circular" at least as many.
    value : float, optional
        For "constant" alone; 0 by default.

    Returns
    -------
    ndarray
        The padded array, same dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.pad(np.array([1.0, 2.0, 3.0]), (2, 1), mode="reflect")
    array([3., 2., 1., 2., 3., 2.])
    """
    amounts, value, _ = check_pad("pad", input, pad, mode, value)
    return implementation("pad")(input, amounts, mode, value)


def pad_backward(grad_output, input, pad, mode="constant", value=None):
    """Gradient of :func:`pad`: each element's gradient is the sum over its copies.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output.
    input, pad, mode, value
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.pad_backward(np.ones(6), np.zeros(3), (2, 1), mode="reflect")
    array([1., 3., 2.])
    """
    amounts, value, shape = check_pad("pad_backward", input, pad, mode, value)
    check_grad_output("pad_backward", grad_output, input, shape)
    return implementation("pad_backward")(grad_output, input, amounts, mode, value)


def interpolate(input, size=None, scale_factor=None, mode="nearest"):
    """Resizes images (or lines, or volumes): each output position shows the input at ``floor(position * scale)``.

    Parameters
    ----------
    input : ndarray of float32 or float64, (N, C, W), (N, C, H, W) or (N, C, D, H, W)
        What is resized along all axes after the second.
    size : int or sequence of int, optional
        The new size; then scale is the old size over the new one, rounded to the array's precision.
    scale_factor : float or sequence of float, optional
        The new size over the old one, in place of ``size``; then scale is 1 over it. The new size is rounded down.
    mode : {"nearest"}
        The only one that there is: torch's "linear", "bilinear", "bicubic" and "area" are not.
        How values are found; there is one way.

    Returns
    -------
    ndarray
        The resized images, same dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    """
    size, scale_factor = check_interpolate("interpolate", input, size, scale_factor, mode)
    return implementation("interpolate")(input, size, scale_factor)


def interpolate_backward(grad_output, input, size=None, scale_factor=None, mode="nearest"):
    """Gradient of :func:`interpolate`: each element's gradient is the sum over its copies.

    Parameters
    ----------
    grad_output : ndarray
        Gradient of the output.
    input, size, scale_factor, mode
        The forward's arguments.

    Returns
    -------
    ndarray
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.interpolate_backward(np.ones((1, 1, 5)), np.zeros((1, 1, 2)), size=5)
    array([[[3., 2.]]])
    """
    function = "interpolate_backward"
    size, scale_factor = check_interpolate(function, input, size, scale_factor, mode)
    check_grad_output(function, grad_output, input, (*input.shape[:2], *size))
    return implementation(function)(grad_output, input, size, scale_factor)


def check_pad(function, input, pad, mode, value):
    """Elements before and behind each axis from the first, the value as a float, and the output's shape."""
    check_float_array(function, "input", input)
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"{function}: pad must be a sequence of integers, got {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(
            f"{function}: pad must have two numbers per axis for at most {input.ndim} axes, got {len(pad)} numbers"
        )
    pad = [check_integer(function, "pad", amount) for amount in pad]
    amounts = [(0, 0)] * (input.ndim - len(pad) // 2) + list(zip(pad[-2::-2], pad[::-2], strict=True))
    check_choice(function, "mode", mode, MODES)
    if value is not None and mode != "constant":
        raise ValueError(f"{function}: value is for mode='constant' alone, got value={value!r} and mode={mode!r}")
    value = 0.0 if value is None else check_number(function, "value", value)
    shape = tuple(n + before + behind for n, (before, behind) in zip(input.shape, amounts, strict=True))
    for axis, (n, amount) in enumerate(zip(input.shape, amounts, strict=True)):
        limit = {"reflect": max(n - 1, 0), "circular": n, "replicate": None if n else 0}.get(mode)
        if limit is not None and max(amount) > limit:
            raise ValueError(
                f"{function}: pad may add at most {limit} elements to a side of axis {axis}, of size {n}, in mode "
                f"{mode!r}, got {amount}"
            )
        if shape[axis] < 0:
            raise ValueError(f"{function}: pad must not cut off more than there is, got {amount} for size {n}")
    check_elements(function, shape, "pad")
    return amounts, value, shape


def check_interpolate(function, input, size, scale_factor, mode):
    """The new size and the scale factors (or None) per spatial axis."""
    check_float_array(function, "input", input)
    if not 3 <= input.ndim <= 5:
        raise ValueError(f"{function}: input must have 3 to 5 dimensions (N, C, ...), got shape {input.shape}")
    check_choice(function, "mode", mode, ("nearest",))
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"{function}: give either size or scale_factor, got size={size!r} and scale_factor={scale_factor!r}"
        )
    dims, spatial = input.ndim - 2, input.shape[2:]
    if scale_factor is not None:
        scale_factor = check_scale(function, scale_factor, dims)
        size = tuple(int(min(n * factor, 2.0**63)) for n, factor in zip(spatial, scale_factor, strict=True))
    else:
        size = check_integers(function, "size", size, dims, 1)
    if 0 in spatial or 0 in size:
        raise ValueError(f"{function}: old and new size must not be empty, got {spatial} and {size}")
    check_elements(function, (*input.shape[:2], *size), "size" if scale_factor is None else "scale_factor")
    return size, scale_factor


def check_scale(function, scale_factor, dims):
    """The factors as one float per spatial axis."""
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * dims
    if len(factors) != dims:
        raise ValueError(f"{function}: scale_factor must be a number or {dims} of them, got {scale_factor!r}")
    factors = tuple(check_number(function, "scale_factor", factor, 0) for factor in factors)
    if any(not 0 < factor < float("inf") for factor in factors):
        raise ValueError(f"{function}: scale_factor must be positive and finite, got {scale_factor!r}")
    return factors

"""Checks shared by the functions, so that messages are alike.

Every message names the function, the argument, what was expected and what came. Wrong types raise TypeError, wrong
values ValueError.
"""

import math
import operator

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def check_float_array(function, name, x):
    """x is a NumPy array of float32 or float64."""
    if type(x) is not np.ndarray:
        if not isinstance(x, np.ndarray):
            cure = f"use {name}.data" if isinstance(getattr(x, "data", None), np.ndarray) else "use numpy.asarray"
            raise TypeError(f"{function}: {name} must be a NumPy array, got {type(x).__name__}; {cure}")
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{function}: {name} must be a plain NumPy array, got a masked array; fill it first")
    if x.dtype not in FLOATS:
        raise TypeError(f"{function}: {name} must be float32 or float64, got {x.dtype}; use {name}.astype(...)")


def check_same_dtype(function, name, x, other_name, other):
    """x is a float array of other's dtype."""
    check_float_array(function, name, x)
    if x.dtype != other.dtype:
        raise TypeError(
            f"{function}: {name} must have {other_name}'s dtype {other.dtype}, got {x.dtype}; "
            "convert one of them with .astype"
        )


def check_ndim(function, name, x, expected, layout):
    """x has this many dimensions; layout says which, e.g. "(N, C, H, W)"."""
    if x.ndim != expected:
        hint = f"; {name}[None] is a batch of it alone" if x.ndim == expected - 1 and layout.startswith("(N") else ""
        raise ValueError(f"{function}: {name} must have {expected} dimensions {layout}, got shape {x.shape}{hint}")


def check_shape(function, name, x, expected, meaning=""):
    """x has exactly this shape; meaning says where the shape comes from."""
    if x.shape != tuple(expected):
        meaning = f" ({meaning})" if meaning else ""
        raise ValueError(f"{function}: {name} must have shape {tuple(expected)}{meaning}, got {x.shape}")


def check_grad_output(function, grad_output, like, shape, like_name="input"):
    """grad_output has the output's shape, and its dtype, which is that of the argument `like`."""
    check_same_dtype(function, "grad_output", grad_output, like_name, like)
    check_shape(function, "grad_output", grad_output, shape, "the output's shape")


def check_writeable(function, name, x):
    """x may be changed in place."""
    if not x.flags.writeable:
        raise ValueError(f"{function}: {name} is read-only and would be changed in place; pass a copy")


LARGEST_SIZE = 2**31 - 1  # of a kernel, stride, padding or dilation: their products stay within 64 bits


def check_integer(function, name, value, minimum=None, maximum=None):
    """The value as an int (bool and float are refused), from minimum to maximum."""
    if type(value) is not int:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{function}: {name} must be an integer, got {value!r}")
        try:
            value = operator.index(value)
        except TypeError:
            raise TypeError(f"{function}: {name} must be an integer, got {value!r}") from None
    if minimum is not None and value < minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{function}: {name} must be at most {maximum}, got {value}")
    return value


def check_integers(function, name, value, count, minimum=None, maximum=LARGEST_SIZE):
    """The value as a tuple of `count` ints: one integer stands for all of them, else there is one per dimension."""
    if type(value) is int and (minimum is None or minimum <= value) and value <= maximum:
        return (value,) * count
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = tuple(value)
    if not isinstance(value, (tuple, list)):
        return (check_integer(function, name, value, minimum, maximum),) * count
    if len(value) == 1:
        value = tuple(value) * count
    if len(value) != count:
        expected = "an integer" if count == 1 else f"an integer or {count} of them"
        raise ValueError(f"{function}: {name} must be {expected}, got {value!r}{of_both_sides(name, value, count)}")
    return tuple(check_integer(function, name, entry, minimum, maximum) for entry in value)


def of_both_sides(name, value, count):
    """For those who give a padding for each side: who adds one."""
    return "; F.pad adds what differs from side to side" if name == "padding" and len(value) == 2 * count else ""


def channels_last_hint(shape, channels):
    """For those whose array does not have so many channels, where it has them last."""
    if len(shape) < 3 or shape[-1] != channels:
        return ""
    return f"; if input has its channels last, give input.transpose{(0, len(shape) - 1, *range(1, len(shape) - 1))}"


LARGEST_NDIM = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32


def check_elements(function, shape, cause):
    """An array of this shape can be addressed; cause is the argument that asks for it."""
    if math.prod(max(size, 1) for size in shape) >= 2**59:
        raise ValueError(
            f"{function}: {cause} asks for an output of shape {tuple(shape)}, which is too large for any memory; "
            "fewer than 2**59 elements are allowed"
        )


def check_most_dimensions(function, name, x, most):
    """x has at most this many dimensions."""
    if x.ndim > most:
        raise ValueError(f"{function}: {name} must have at most {most} dimensions, got {x.ndim}")


def check_number(function, name, value, minimum=None, maximum=None):
    """The value as a float, from minimum to maximum."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{function}: {name} must be a number, got {value!r}")
    try:
        value = float(value)
    except OverflowError:
        raise ValueError(f"{function}: {name} must be within float64's range, got an integer of more") from None
    if minimum is not None and maximum is not None and not minimum <= value <= maximum:
        raise ValueError(f"{function}: {name} must be from {minimum} to {maximum}, got {value}")
    if minimum is not None and not value >= minimum:
        raise ValueError(f"{function}: {name} must be at least {minimum}, got {value}")
    return value


def check_flag(function, name, value):
    """The value as a bool: no other truth is taken for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return bool(value)


def check_choice(function, name, value, choices):
    """The value is one of these strings."""
    if value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_dim(function, dim, ndim):
    """The dimension counted from the front; negative ones count from the back."""
    dim = check_integer(function, "dim", dim)
    if ndim == 0:
        raise ValueError(f"{function}: the array has no dimensions, so none for dim={dim}; reshape it to (1,)")
    if not -ndim <= dim < ndim:
        raise ValueError(f"{function}: dim must be from {-ndim} to {ndim - 1} for {ndim} dimensions, got {dim}")
    return dim % ndim

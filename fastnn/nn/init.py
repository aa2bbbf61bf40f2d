"""Initial values, written in place into a Parameter or an array; names, arguments and defaults are torch's.

With n_in and n_out the fans of a layer (inputs of one output value, outputs of one input value), the random
initialisers draw with mean 0 and a variance of 1/n_in or 1/n_out (LeCun), gain^2 * 2/(n_in + n_out) (Xavier, Glorot) or
gain^2/n_in (Kaiming, He; gain^2 is 2 for ReLU). All draw from ``generator``, or else from fastnn's own, which
``fastnn.manual_seed`` seeds.
"""

import math

import numpy as np

import fastnn.seed
from fastnn.functional.checks import check_float_array
from fastnn.nn.module import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def constant_(tensor, val):
    """Every element the same value.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> init.constant_(np.empty(3), 0.5)
    array([0.5, 0.5, 0.5])
    """
    array_of("constant_", tensor)[...] = val
    return tensor


def zeros_(tensor):
    """Every element 0. Fit for biases only: weights of 0 keep all hidden units identical.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> init.zeros_(np.empty(2))
    array([0., 0.])
    """
    return constant_(tensor, 0)


def ones_(tensor):
    """Every element 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> init.ones_(np.empty(2))
    array([1., 1.])
    """
    return constant_(tensor, 1)


def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Uniformly distributed from ``a`` to ``b``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> values = init.uniform_(np.empty(1000), -2, 2)
    >>> bool(-2 <= values.min() < values.max() < 2)
    True
    """
    array = array_of("uniform_", tensor)
    values = (generator or fastnn.seed.generator()).random(array.shape, array.dtype)
    values *= b - a
    values += a
    array[...] = values
    return tensor


def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Normally distributed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> values = init.normal_(np.empty(1000), std=0.01)
    >>> bool(0.008 < values.std() < 0.012)
    True
    """
    if std < 0:
        raise ValueError(f"normal_: std must be at least 0, got {std}")
    array = array_of("normal_", tensor)
    values = (generator or fastnn.seed.generator()).standard_normal(array.shape, array.dtype)
    values *= std
    values += mean
    array[...] = values
    return tensor


def calculate_gain(nonlinearity, param=None):
    """The factor by which a nonlinearity's weights grow so that activations keep their scale; torch's values.

    Parameters
    ----------
    nonlinearity : str
        "linear", "sigmoid" or a convolution ("conv2d", ...): 1; "tanh": 5/3; "relu": sqrt(2); "leaky_relu":
        sqrt(2/(1 + param^2)), with a slope of 0.01 by default; "selu": 3/4.
    param : float
        The slope of leaky_relu.

    Examples
    --------
    >>> from fastnn.nn import init
    >>> round(init.calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"calculate_gain: param must be leaky_relu's slope, a number, got {param!r}")
        return math.sqrt(2 / (1 + slope**2))
    linear = ["linear", "sigmoid", *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3))]
    gains = dict.fromkeys(linear, 1.0) | {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(
            f"calculate_gain: nonlinearity must be leaky_relu or one of {', '.join(gains)}, got {nonlinearity!r}"
        )
    return gains[nonlinearity]


def lecun_uniform_(tensor, mode="fan_in", generator=None):
    """Uniform with variance 1/n_in, or 1/n_out where ``mode`` is "fan_out".

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.lecun_uniform_(np.empty((50, 12)))).max() <= 0.5)
    True
    """
    return uniform_with(tensor, 1 / fan("lecun_uniform_", tensor, mode), generator)


def lecun_normal_(tensor, mode="fan_in", generator=None):
    """Normal with variance 1/n_in, or 1/n_out where ``mode`` is "fan_out".

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.lecun_normal_(np.empty((500, 100))).std() - 0.1) < 0.01)
    True
    """
    return normal_with(tensor, 1 / fan("lecun_normal_", tensor, mode), generator)


def xavier_uniform_(tensor, gain=1.0, generator=None):
    """Uniform with variance gain^2 * 2/(n_in + n_out) (Glorot and Bengio 2010).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.xavier_uniform_(np.empty((50, 100)))).max() <= 0.2)
    True
    """
    return uniform_with(tensor, gain**2 * 2 / sum(fans("xavier_uniform_", tensor)), generator)


def xavier_normal_(tensor, gain=1.0, generator=None):
    """Normal with variance gain^2 * 2/(n_in + n_out) (Glorot and Bengio 2010).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.xavier_normal_(np.empty((100, 100))).std() - 0.1) < 0.01)
    True
    """
    return normal_with(tensor, gain**2 * 2 / sum(fans("xavier_normal_", tensor)), generator)


def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Uniform with variance gain^2/n_in, or gain^2/n_out where ``mode`` is "fan_out" (He et al. 2015).

    ``gain`` is :func:`calculate_gain` of ``nonlinearity`` and its slope ``a``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.kaiming_uniform_(np.empty((50, 24)), nonlinearity="relu")).max() <= 0.5)
    True
    """
    variance = calculate_gain(nonlinearity, a) ** 2 / fan("kaiming_uniform_", tensor, mode)
    return uniform_with(tensor, variance, generator)


def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Normal with variance gain^2/n_in, or gain^2/n_out where ``mode`` is "fan_out" (He et al. 2015).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> bool(abs(init.kaiming_normal_(np.empty((100, 200)), nonlinearity="relu").std() - 0.1) < 0.01)
    True
    """
    variance = calculate_gain(nonlinearity, a) ** 2 / fan("kaiming_normal_", tensor, mode)
    return normal_with(tensor, variance, generator)


def orthogonal_(tensor, gain=1.0, generator=None):
    """Rows (or columns, where these are fewer) that are orthogonal and of length ``gain``.

    Dimensions after the first count as one (Saxe et al. 2013).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.nn import init
    >>> w = init.orthogonal_(np.empty((2, 5)))
    >>> np.allclose(w @ w.T, np.eye(2))
    True
    """
    array = array_of("orthogonal_", tensor)
    fans("orthogonal_", tensor)  # at least two dimensions
    rows, columns = array.shape[0], array[0].size
    normal = normal_(np.empty((max(rows, columns), min(rows, columns))), generator=generator)
    q, r = np.linalg.qr(normal)
    q *= gain * np.sign(np.diag(r))  # makes the distribution uniform
    array[...] = (q if rows >= columns else q.T).reshape(array.shape)
    return tensor


def default_(weight, bias):
    """torch's initial values for linear layers and convolutions: both uniform up to 1/sqrt(n_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(fan("default_", weight, "fan_in"))
        uniform_(bias, -bound, bound)


def uniform_with(tensor, variance, generator):
    bound = math.sqrt(3 * variance)
    return uniform_(tensor, -bound, bound, generator)


def normal_with(tensor, variance, generator):
    return normal_(tensor, 0.0, math.sqrt(variance), generator)


def fans(function, tensor):
    """(n_in, n_out) of a weight (out, in, kernel...)."""
    array = array_of(function, tensor)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{function}: tensor must have at least 2 dimensions (out, in, ...), got shape {array.shape}")
    return array[0].size, array[:, 0].size


def fan(function, tensor, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{function}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(function, tensor)[mode == "fan_out"]


def array_of(function, tensor):
    array = tensor.data if isinstance(tensor, Parameter) else tensor
    check_float_array(function, "tensor", array)
    return array

"""Convolution layers in one, two and three dimensions, and the transposed one in two."""

from collections.abc import Callable

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_flag, check_integer, check_integers
from fastnn.functional.conv import KeptWeights, check_padding, convolve
from fastnn.nn import init
from fastnn.nn.module import Module, Parameter, accumulate, check_input, trainable

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d"]


class Convolution(Module):
    """What the convolutions share: their parameters, and a forward and backward by the function of their kind.

    A subclass gives the number of spatial ``dimensions``, ``transposed``, ``arguments()`` (what the function takes
    after the bias), and the pair of functions. In a Sequential those that are not transposed take a ReLU behind them
    along (``relu=True``).
    """

    function: Callable
    gradient: Callable
    dimensions: int
    transposed = False
    output_padding = 0
    _kept: KeptWeights | None = None

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias):
        where, dimensions = type(self).__name__, self.dimensions
        self.in_channels = check_integer(where, "in_channels", in_channels, 1)
        self.out_channels = check_integer(where, "out_channels", out_channels, 1)
        self.groups = check_integer(where, "groups", groups, 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{where}: {name}={channels} must be a multiple of groups={self.groups}")
        self.kernel_size = check_integers(where, "kernel_size", kernel_size, dimensions, 1)
        self.stride = check_integers(where, "stride", stride, dimensions, 1)
        self.padding = padding if isinstance(padding, str) else check_integers(where, "padding", padding, dimensions, 0)
        check_padding(where, self.padding, self.stride, self.kernel_size)
        self.dilation = check_integers(where, "dilation", dilation, dimensions, 1)
        outer, inner = self.out_channels, self.in_channels
        if self.transposed:
            outer, inner = inner, outer
        self.weight = Parameter(np.zeros((outer, inner // self.groups, *self.kernel_size), np.float32))
        self.bias = Parameter(np.zeros(self.out_channels, np.float32)) if check_flag(where, "bias", bias) else None
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the initial parameters anew, by torch's rule."""
        init.default_(self.weight, self.bias)

    def arguments(self):
        """What the function takes after the bias."""
        return self.stride, self.padding, self.dilation, self.groups

    def forward(self, input, relu=False):
        if getattr(input, "ndim", 0) == self.dimensions + 2:  # others are refused by the function
            check_input(self, input, self.weight.data, self.in_channels, "channels")
        arrays = input, self.weight.data, None if self.bias is None else self.bias.data
        if self.transposed:
            output = self.function(*arrays, *self.arguments())
        else:
            self._kept = None if self.recording else self._kept or KeptWeights()
            options = {"dims": self.dimensions, "slope": 0.0 if relu else 1.0, "kept": self._kept}
            output = convolve(self.function.__name__, *arrays, *self.arguments(), **options)
        self.save_for_backward(input, output if relu else None)
        return output

    def backward(self, grad_output, needs_input_grad=True, relu=False):
        input, output = self.pop_saved()
        bias = self.bias
        needs = (needs_input_grad, self.weight.requires_grad, trainable(bias))
        if not any(needs):
            return None
        if relu:
            grad_output = F.relu_backward(grad_output, output)
        bias_data = None if bias is None else bias.data
        dx, dw, db = self.gradient(grad_output, input, self.weight.data, bias_data, *self.arguments(), needs=needs)
        accumulate(self.weight, dw)
        accumulate(bias, db)
        return dx

    def extra_repr(self):
        one = (1,) * self.dimensions
        zero = (0,) * self.dimensions
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in [("padding", zero), ("dilation", one), ("output_padding", zero), ("groups", 1)]:
            value = getattr(self, name)
            if value not in (usual, 0):
                text += f", {name}={value}"
        return text if self.bias is not None else text + ", bias=False"


class Conv1d(Convolution):
    """Convolution (cross-correlation) of (N, C, L) with ``out_channels`` filters of ``kernel_size`` values.

    Parameters
    ----------
    in_channels, out_channels : int
        C and the number of filters. The weight has shape (out_channels, in_channels / groups, kernel_size).
    kernel_size, stride, dilation : int
    padding : int, "same" or "valid"
        Zeros on both sides; "same" keeps the length (with a stride of 1).
    groups : int
        Channels are split into this many groups, each with its own filters.
    bias : bool
        Whether to add a bias per filter.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Conv1d(2, 4, 3, padding=1)(np.ones((5, 2, 8), np.float32)).shape
    (5, 4, 8)
    """

    dimensions = 1
    function = staticmethod(F.conv1d)
    gradient = staticmethod(F.conv1d_backward)

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


class Conv2d(Convolution):
    """Convolution (cross-correlation) of (N, C, H, W) with ``out_channels`` filters.

    The output has the input's dtype, which is the layer's, and the shape (N, out_channels, H_out, W_out), where
    H_out = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1. An input with another number of channels
    or another dtype raises a ValueError or a TypeError.

    Parameters
    ----------
    in_channels, out_channels : int
        C and the number of filters. The weight has shape (out_channels, in_channels / groups, height, width).
    kernel_size, stride, dilation : int or pair of int
    padding : int, pair of int, "same" or "valid"
        Zeros on both sides; "same" keeps height and width (with a stride of 1).
    groups : int
        Channels are split into this many groups, each with its own filters.
    bias : bool
        Whether to add a bias per filter.

    Notes
    -----
    In evaluation mode (and in ``no_grad()``) the layer keeps its weights as Winograd's algorithm has transformed them,
    up to 4 MB of them, and a copy of the weights, which tells when they change; both go with the next forward in
    training mode.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Conv2d(1, 6, 5)(np.ones((2, 1, 32, 32), np.float32)).shape
    (2, 6, 28, 28)
    """

    dimensions = 2
    function = staticmethod(F.conv2d)
    gradient = staticmethod(F.conv2d_backward)

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


class Conv3d(Convolution):
    """Convolution (cross-correlation) of (N, C, D, H, W); arguments as of :class:`Conv2d`, with triples.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Conv3d(1, 2, 3)(np.ones((1, 1, 5, 6, 7), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    dimensions = 3
    function = staticmethod(F.conv3d)
    gradient = staticmethod(F.conv3d_backward)

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


class ConvTranspose2d(Convolution):
    """The transpose of :class:`Conv2d`'s linear map: with a stride above 1 it makes images larger.

    The output's height is (H - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output. The weight has shape (in_channels, out_channels / groups, height,
        width).
    kernel_size, stride, dilation : int or pair of int
        Size of the filters; distance of the outputs of neighbouring inputs; distance of the taps of a filter.
    padding : int or pair of int
        Rows and columns that the output loses on either side.
    output_padding : int or pair of int
        Rows and columns that it gains behind the last one; smaller than the stride or the dilation.
    groups : int
        Channels are split into this many groups, each with its own filters.
    bias : bool
        Whether to add a bias per output channel.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.ConvTranspose2d(3, 2, 2, stride=2)(np.ones((1, 3, 4, 4), np.float32)).shape
    (1, 2, 8, 8)
    """

    dimensions = 2
    transposed = True
    function = staticmethod(F.conv_transpose2d)
    gradient = staticmethod(F.conv_transpose2d_backward)

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = check_integers("ConvTranspose2d", "output_padding", output_padding, 2, 0)

    def arguments(self):
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

"""Pooling layers: maximum and average over windows, over cells of a fixed number, and over everything."""

from collections.abc import Callable

import fastnn.functional as F
from fastnn.nn.module import Module, Transform

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


class MaximumPool(Module):
    """What the max pools share; a subclass gives ``arguments()``, and ``function`` and ``gradient`` of its dimension.

    A forward that is gone back through keeps where the maxima stand: to find them again takes longer.
    """

    arguments: Callable
    function: Callable
    gradient: Callable

    def forward(self, input):
        if not self.recording:
            return self.function(input, *self.arguments())
        output, indices = self.function(input, *self.arguments(), return_indices=True)
        self.save_for_backward(input, indices)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        input, indices = self.pop_saved()
        if not needs_input_grad:
            return None
        return self.gradient(grad_output, input, *self.arguments(), indices=indices)


class MaxPool(MaximumPool):
    """Maximum over windows; the subclasses differ in their dimension."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def arguments(self):
        """What the function takes after the input."""
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(MaxPool):
    """Maximum over windows of (N, C, L); arguments as of :class:`MaxPool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MaxPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]]))
    array([[[3., 2.]]])
    """

    function = staticmethod(F.max_pool1d)
    gradient = staticmethod(F.max_pool1d_backward)


class MaxPool2d(MaxPool):
    """Maximum over windows of (N, C, H, W).

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of a window.
    stride : int or pair of int
        Steps between windows; ``None`` means ``kernel_size``.
    padding, dilation : int or pair of int
        Border that no maximum is taken from, and distance between a window's elements.
    ceil_mode : bool
        Whether a last window may reach beyond the border.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MaxPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    function = staticmethod(F.max_pool2d)
    gradient = staticmethod(F.max_pool2d_backward)


class MaxPool3d(MaxPool):
    """Maximum over windows of (N, C, D, H, W); arguments as of :class:`MaxPool2d`, with triples.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MaxPool3d(2)(np.arange(8.0).reshape(1, 1, 2, 2, 2))
    array([[[[[7.]]]]])
    """

    function = staticmethod(F.max_pool3d)
    gradient = staticmethod(F.max_pool3d_backward)


class AvgPool1d(Transform):
    """Average over windows of (N, C, L); arguments as of :class:`AvgPool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AvgPool1d(2)(np.array([[[1.0, 3.0, 2.0, 0.0]]]))
    array([[[2., 1.]]])
    """

    function = staticmethod(F.avg_pool1d)
    gradient = staticmethod(F.avg_pool1d_backward)

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def arguments(self):
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(AvgPool1d):
    """Average over windows of (N, C, H, W).

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of a window.
    stride : int or pair of int
        Steps between windows; ``None`` means ``kernel_size``.
    padding : int or pair of int
        Zeros on both sides.
    ceil_mode : bool
        Whether a last window may reach beyond the border.
    count_include_pad : bool
        Whether the average counts the padding.
    divisor_override : int
        What to divide by instead of the number of elements.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AvgPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    function = staticmethod(F.avg_pool2d)
    gradient = staticmethod(F.avg_pool2d_backward)

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def arguments(self):
        return (*super().arguments(), self.divisor_override)


class AvgPool3d(AvgPool2d):
    """Average over windows of (N, C, D, H, W); arguments as of :class:`AvgPool2d`, with triples.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AvgPool3d(2)(np.arange(8.0).reshape(1, 1, 2, 2, 2))
    array([[[[[3.5]]]]])
    """

    function = staticmethod(F.avg_pool3d)
    gradient = staticmethod(F.avg_pool3d_backward)


class AdaptiveAvgPool2d(Transform):
    """Averages over ``output_size`` cells of nearly equal size, of (N, C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AdaptiveAvgPool2d((2, 1))(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 3.5],
             [11.5]]]])
    """

    function = staticmethod(F.adaptive_avg_pool2d)
    gradient = staticmethod(F.adaptive_avg_pool2d_backward)

    def __init__(self, output_size):
        self.output_size = output_size

    def arguments(self):
        return (self.output_size,)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(MaximumPool):
    """Maxima over ``output_size`` cells of nearly equal size, of (N, C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AdaptiveMaxPool2d((2, 1))(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 7.],
             [15.]]]])
    """

    function = staticmethod(F.adaptive_max_pool2d)
    gradient = staticmethod(F.adaptive_max_pool2d_backward)

    def __init__(self, output_size):
        self.output_size = output_size

    def arguments(self):
        """What the function takes after the input."""
        return (self.output_size,)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class GlobalAvgPool(Transform):
    """The average of each channel: (N, C, ...) becomes (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GlobalAvgPool()(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """

    function = staticmethod(F.global_avg_pool)
    gradient = staticmethod(F.global_avg_pool_backward)


class GlobalMaxPool(Transform):
    """The maximum of each channel: (N, C, ...) becomes (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GlobalMaxPool()(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 7.]])
    """

    function = staticmethod(F.global_max_pool)
    gradient = staticmethod(F.global_max_pool_backward)

"""Unfold and Fold: an image as its patches (im2col), and patches added up to an image (col2im)."""

import fastnn.functional as F
from fastnn.nn.module import Transform

__all__ = ["Fold", "Unfold"]


class Unfold(Transform):
    """The patches of (N, C, H, W) as columns: (N, C * kernel height * kernel width, number of patches).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Unfold(3)(np.zeros((1, 2, 5, 5), np.float32)).shape
    (1, 18, 9)
    """

    function = staticmethod(F.unfold)
    gradient = staticmethod(F.unfold_backward)

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def arguments(self):
        return self.kernel_size, self.dilation, self.padding, self.stride

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Transform):
    """Patches (N, C * kernel height * kernel width, number of patches) added up to images of ``output_size``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Fold(5, 3)(np.zeros((1, 18, 9), np.float32)).shape
    (1, 2, 5, 5)
    """

    function = staticmethod(F.fold)
    gradient = staticmethod(F.fold_backward)

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def arguments(self):
        return self.output_size, self.kernel_size, self.dilation, self.padding, self.stride

    def extra_repr(self):
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )

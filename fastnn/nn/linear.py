"""The fully connected layer."""

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_integer
from fastnn.nn import init
from fastnn.nn.module import Module, Parameter, accumulate, check_input, trainable

__all__ = ["Linear"]


class Linear(Module):
    """``y = x W^T + b`` along the last dimension.

    In a Sequential it takes a ReLU behind it along (``relu=True``).

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last dimension of input and output. The weight has shape (out_features, in_features).
    bias : bool
        Whether to add a bias.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Linear(3, 2)(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    def __init__(self, in_features, out_features, bias=True):
        self.in_features = check_integer("Linear", "in_features", in_features, 1)
        self.out_features = check_integer("Linear", "out_features", out_features, 1)
        self.weight = Parameter(np.zeros((self.out_features, self.in_features), np.float32))
        self.bias = Parameter(np.zeros(self.out_features, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the initial parameters anew, by torch's rule."""
        init.default_(self.weight, self.bias)

    def forward(self, input, relu=False):
        if getattr(input, "ndim", 0):  # a number is refused by the function
            check_input(self, input, self.weight.data, self.in_features, "features", axis=-1)
        function = F.linear_relu if relu else F.linear
        output = function(input, self.weight.data, None if self.bias is None else self.bias.data)
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
        dx, dw, db = F.linear_backward(
            grad_output,
            input,
            self.weight.data,
            None if bias is None else bias.data,
            needs=needs,
            out=self.weight.cleared_grad,
        )
        accumulate(self.weight, dw)
        accumulate(bias, db)
        return dx

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

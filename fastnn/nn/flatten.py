"""Flatten: several dimensions into one."""

from math import prod

from fastnn.nn.module import Module, check_gradient

__all__ = ["Flatten"]


class Flatten(Module):
    """Dimensions ``start_dim`` to ``end_dim`` as one; (N, C, H, W) becomes (N, C*H*W) by default.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 5), np.float32)).shape
    (2, 60)
    """

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input):
        shape = input.shape
        ndim = len(shape)
        start, end = (dim + ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < ndim:
            raise ValueError(
                f"Flatten: start_dim={self.start_dim} to end_dim={self.end_dim} are no dimensions of shape {shape}"
            )
        output = input.reshape(*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])
        self.save_for_backward(shape, output.shape, input.dtype)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        shape, *output = self.pop_saved()
        if not needs_input_grad:
            return None
        check_gradient(self, grad_output, *output)
        return grad_output.reshape(shape)

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"

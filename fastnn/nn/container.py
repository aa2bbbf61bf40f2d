"""Modules made of modules: a chain, a sum with a shortcut, and nothing at all."""

from collections.abc import Mapping

import numpy as np

import fastnn.functional as F
from fastnn.nn.activation import ReLU
from fastnn.nn.conv import Conv1d, Conv2d, Conv3d
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from fastnn.nn.pool import MaxPool1d, MaxPool2d, MaxPool3d

__all__ = ["Identity", "Residual", "Sequential"]


class Sequential(Module):
    """Modules one after another.

    Parameters
    ----------
    *layers : Modules, or one list of them, or one mapping from names to Modules
        Without names they are called "0", "1", and so on.

    Examples
    --------
    >>> from fastnn import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> model.append(nn.Linear(3, 2))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    >>> model[-1]
    Linear(in_features=3, out_features=2, bias=True)
    """

    def __init__(self, *layers):
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = layers[0]
        else:
            several = layers[0] if len(layers) == 1 and isinstance(layers[0], (list, tuple)) else layers
            named = {str(i): layer for i, layer in enumerate(several)}
        for name, layer in named.items():
            self.add_module(name, layer)

    def forward(self, input, last=None):
        """The output; `last` are options of the last step."""
        steps = fused(self.children())
        if last:
            steps[-1] = (steps[-1][0], last)
        for layer, options in steps:
            try:
                input = layer(input, **options)
            except Exception as error:
                error.add_note(place(self, layer, "input", input))
                raise
        return input

    def backward(self, grad_output, needs_input_grad=True):
        steps = fused(self.children())
        # Where nobody wants the input's gradient, nobody wants that of the layers before the first trainable one.
        first = -1 if needs_input_grad else first_trainable(layer for layer, _ in steps)
        for i, (layer, options) in reversed(list(enumerate(steps))):
            if i <= first:
                options = {**options, "needs_input_grad": False}
            try:
                grad_output = layer.backward(grad_output, **options)
            except Exception as error:
                error.add_note(place(self, layer, "grad_output", grad_output))
                raise
        return grad_output

    def append(self, layer):
        """Add a layer at the end."""
        self.add_module(str(len(self)), layer)
        return self

    def __len__(self):
        return len(self.children())

    def __iter__(self):
        return iter(self.children())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Sequential(dict(self.named_children()[index]))
        return self.children()[index]

    def __setitem__(self, index, layer):
        name, _ = self.named_children()[index]
        if not isinstance(layer, Module):
            raise TypeError(f"Sequential: layer {name} must be a Module, got {type(layer).__name__}")
        setattr(self, name, layer)


def place(chain, layer, what, value):
    """For the reader of an error: which of the layers, and what it was given."""
    name = next(name for name, child in chain.named_children() if child is layer)
    given = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    return f"in layer {name} ({type(layer).__name__}) of a Sequential, whose {what} was {given}"


BATCH_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
CONVOLUTIONS = (Conv1d, Conv2d, Conv3d)
MAX_POOLS = (MaxPool1d, MaxPool2d, MaxPool3d)


def fused(layers):
    """The steps of a chain, as pairs of a layer and its options: a batch norm, a Residual, an affine layer or a
    convolution takes a ReLU after it along. Between a convolution, or any other layer, and a max-pool the ReLU goes
    behind the pool, where fewer elements are left: no maximum changes its place."""
    steps: list[tuple[Module, dict]] = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        last = type(steps[-1][0]) if steps else None
        if type(layer) is ReLU and steps and takes_relu(*steps[-1], type(following) in MAX_POOLS):
            steps[-1] = (steps[-1][0], {"relu": True})
        elif last is ReLU and type(layer) in MAX_POOLS:
            steps.insert(-1, (layer, {}))
        else:
            steps.append((layer, {}))
    return steps


def takes_relu(layer, options, before_pool):
    """Whether the layer, with these options, has a ReLU behind it in its own pass."""
    if options:
        return False
    return type(layer) in (*BATCH_NORMS, Residual, Linear) or (type(layer) in CONVOLUTIONS and not before_pool)


def first_trainable(layers):
    """Index of the first layer with a parameter that is not frozen; above all indexes where there is none."""
    i = -1
    for i, layer in enumerate(layers):
        if any(parameter.requires_grad for _, parameter in layer.named_parameters()):
            return i
    return i + 1


class Residual(Module):
    """``body(x) + shortcut(x)``; without a shortcut ``body(x) + x``.

    Parameters
    ----------
    body, shortcut : Module
        Both outputs have the same shape. ``shortcut=None`` passes the input on.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> block = nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    >>> block(np.ones((2, 3), np.float32)).shape
    (2, 3)
    """

    body: Module
    shortcut: Module | None

    def __init__(self, body, shortcut=None):
        self.add_module("body", body)
        if shortcut is not None:
            self.add_module("shortcut", shortcut)
        else:
            self.shortcut = None

    def forward(self, input, relu=False):
        skipped = input if self.shortcut is None else self.shortcut(input)
        if relu and ends_in_batch_norm(self.body):
            output = self.body(input, last={"relu": True, "residual": skipped})
        else:
            output = self.body(input)
            if output.shape != skipped.shape or output.dtype != skipped.dtype:
                raise ValueError(
                    f"Residual: the body's output is {output.dtype} of shape {output.shape}, but the shortcut's "
                    f"{skipped.dtype} of shape {skipped.shape}; give a shortcut that leads to the body's output"
                )
            output = F.add(output, skipped, relu)
        if relu:
            self.save_for_backward(output)
        return output

    def backward(self, grad_output, needs_input_grad=True, relu=False):
        options = {} if needs_input_grad else {"needs_input_grad": False}
        if relu:
            (output,) = self.pop_saved()
            if grad_output is not None:  # where nothing is trainable, nobody may have computed it
                grad_output = F.relu_backward(grad_output, output)
        gradient = self.body.backward(grad_output, **options)
        skipped = grad_output if self.shortcut is None else self.shortcut.backward(grad_output, **options)
        return F.add(gradient, skipped) if needs_input_grad else None


def ends_in_batch_norm(module):
    """Whether this is a Sequential whose last step is a batch norm without a ReLU, which can add a residual."""
    steps = fused(module.children()) if type(module) is Sequential else []
    return bool(steps) and type(steps[-1][0]) in BATCH_NORMS and not steps[-1][1]


class Identity(Module):
    """Passes its input on.

    Examples
    --------
    >>> from fastnn import nn
    >>> nn.Identity()(3)
    3
    """

    def forward(self, input):
        return input

    def backward(self, grad_output, needs_input_grad=True):
        return grad_output

"""Small models, their gradient check and their training, for all tests of layers."""

from collections import OrderedDict

import numpy as np

from fastnn import nn
from tests.oracle import assert_gradient, numerical_gradient


def small_model():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def images_model():
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(4),
            relu=nn.ReLU(),
            block=nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()), nn.Conv2d(4, 4, 1)),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            head=nn.Linear(36, 3),
        )
    )


def check_gradients(model, x, loss_and_gradient, bound=1e-6):
    """The gradients of all parameters and of x by backward, against central differences, in float64."""
    model.zero_grad()
    loss, dy = loss_and_gradient(model(x))
    dx = model.backward(dy)

    def loss_at(_):
        with nn.no_grad():
            return loss_and_gradient(model(x))[0]

    for name, parameter in model.named_parameters():
        numerical = numerical_gradient(loss_at, parameter.data, 1.0)
        assert_gradient(parameter.grad, numerical, bound)
        assert np.abs(numerical).max() > 0, name
    if dx is not None:
        assert_gradient(dx, numerical_gradient(loss_at, x, 1.0), bound)
    return loss


def descend(model, criterion, x, target, steps, rate):
    """Plain gradient descent on the flat arrays; the losses."""
    losses = []
    for _ in range(steps):
        losses.append(criterion(model(x), target))
        model.zero_grad()
        model.backward(criterion.backward(), needs_input_grad=False)
        for values, gradients in nn.flat_arrays(p for p in model.parameters() if p.requires_grad):
            values -= rate * gradients
    return losses

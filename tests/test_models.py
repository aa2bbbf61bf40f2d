"""LeNet-5: shapes and counts of the literature, gradients, small images, torch's checkpoint."""

import copy

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.models import LeNet5
from tests.oracle import assert_gradient


def shapes_by_layer(model, x):
    shapes = {}
    for name, layer in model.named_children():
        x = layer(x)
        shapes[name] = x.shape[1:]
    return shapes


def test_lenet_has_the_shapes_of_the_literature():
    shapes = shapes_by_layer(LeNet5().eval(), np.zeros((1, 1, 32, 32), np.float32))
    assert shapes["conv1"] == (6, 28, 28)
    assert shapes["pool1"] == (6, 14, 14)
    assert shapes["conv2"] == (16, 10, 10)
    assert shapes["pool2"] == (16, 5, 5)
    assert [shapes[name] for name in ("flatten", "fc1", "fc2", "fc3")] == [(400,), (120,), (84,), (10,)]


def test_lenet_has_the_counts_of_the_literature():
    model = LeNet5()
    assert (model.conv1.weight.size, model.conv2.weight.size) == (150, 2400)
    inputs_of_one_output = model.conv1.weight.data[0].size + 1
    assert inputs_of_one_output * 28 * 28 * 6 == 122304
    assert sum(parameter.size for parameter in model.parameters()) == 61706


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, 32, 10), (1, 28, 10), (3, 32, 100), (2, 16, 4), (1, 33, 2)]
)
def test_lenet_takes_other_images(channels, size, classes):
    model = LeNet5(classes, channels, size)
    x = np.ones((2, channels, size, size), np.float32)
    y = model(x)
    assert y.shape == (2, classes)
    assert model.backward(np.ones_like(y)).shape == x.shape


def test_lenet_of_28_pads_to_32(rng):
    large, small = LeNet5(), LeNet5(input_size=28)
    small.load_state_dict(large.state_dict())
    x = rng.standard_normal((3, 1, 28, 28)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_allclose(small(x), large(padded), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "error"), [(15, ValueError), (28.0, TypeError)])
def test_lenet_refuses_other_sizes(size, error):
    with pytest.raises(error, match="LeNet5: input_size must be"):
        LeNet5(input_size=size)


def test_lenet_gradients_match_torch(rng):
    torch = pytest.importorskip("torch")
    fastnn.manual_seed(0)
    ours = LeNet5().to(np.float64)
    theirs = torch.nn.Sequential()
    for name, layer in ours.named_children():
        arguments = {
            "conv1": (1, 6, 5), "conv2": (6, 16, 5), "fc1": (400, 120), "fc2": (120, 84), "fc3": (84, 10),
            "pool1": (2,), "pool2": (2,),
        }.get(name, ())  # fmt: skip
        theirs.add_module(name, getattr(torch.nn, type(layer).__name__)(*arguments).double())
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    x, target = rng.standard_normal((4, 1, 32, 32)), np.array([3, 1, 4, 1])
    x_torch = torch.tensor(x, requires_grad=True)
    loss_torch = torch.nn.CrossEntropyLoss()(theirs(x_torch), torch.tensor(target))
    loss_torch.backward()
    criterion = nn.CrossEntropyLoss()
    assert criterion(ours(x), target) == pytest.approx(float(loss_torch.detach()))
    dx = ours.backward(criterion.backward())
    assert_gradient(dx, x_torch.grad.numpy(), 1e-10)
    for (name, parameter), theirs_parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_gradient(parameter.grad, theirs_parameter.grad.numpy(), 1e-10)
        assert name == parameter.name or parameter.name is None


def test_lenet_learns_and_its_copy_is_its_own(rng):
    fastnn.manual_seed(0)
    model = LeNet5(num_classes=4, input_size=16)
    twin = copy.deepcopy(model)
    x = rng.standard_normal((16, 1, 16, 16)).astype(np.float32)
    target = np.arange(16) % 4
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(150):
        losses.append(criterion(model(x), target))
        model.zero_grad()
        assert model.backward(criterion.backward(), needs_input_grad=False) is None
        for values, gradients in nn.flat_arrays(model.parameters()):
            values -= 0.2 * gradients
    assert losses[-1] < 0.1 * losses[0]
    assert criterion(twin(x), target) == pytest.approx(losses[0])

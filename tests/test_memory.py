"""Nothing grows: 200 training steps use the memory of the first ones."""

import resource

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.functional import checks
from fastnn.models import LeNet5
from fastnn.native import runtime


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def train(model, optimizer, x, target, steps):
    criterion = nn.CrossEntropyLoss()
    for _ in range(steps):
        criterion(model(x), target)
        model.backward(criterion.backward(), needs_input_grad=False)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("norm", [False, True], ids=["LeNet-5", "with batch norm and dropout"])
def test_200_training_steps_leave_resident_memory_flat(rng, norm):
    model = LeNet5(input_size=28)
    if norm:
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten())
        model.append(nn.Linear(8 * 26 * 26, 10))
    optimizer = optim.Adam(model.parameters())
    x = rng.standard_normal((64, 1, 28, 28), dtype=np.float32)
    target = rng.integers(0, 10, 64)
    train(model, optimizer, x, target, 20)
    resident, used = resident_bytes(), fastnn.memory_stats()["used_bytes"]
    train(model, optimizer, x, target, 200)
    assert fastnn.memory_stats()["used_bytes"] <= used
    assert resident_bytes() - resident < 2 << 20


def test_arrays_have_as_many_dimensions_as_numpy_gives_them():
    shape = (2, *(1,) * (checks.LARGEST_NDIM - 1))
    for made in (runtime.allocate(shape, np.float32), F.relu(np.ones(shape)), F.global_max_pool(np.ones(shape))):
        made[...] = 1
        assert made.shape == shape[: made.ndim]
    with pytest.raises(ValueError, match="an array has at most 64 dimensions, got 65"):
        runtime.allocate((1,) * 65, np.float32)

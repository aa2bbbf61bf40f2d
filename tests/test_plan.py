"""The plan of a model: the kernels that a call runs, and nothing of the model changed."""

import numpy as np
import pytest

import fastnn
from fastnn import models, nn
from fastnn.seed import manual_seed

MODELS = {
    "lenet": (lambda: models.LeNet5(input_size=28), (2, 1, 28, 28)),
    "resnet": (lambda: models.ResNet18(5, small_images=True), (2, 3, 16, 16)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Tanh()), (5, 4)),
}


def kernels_of_a_step(model, shape):
    with fastnn.profile() as p:
        output = model(np.zeros(shape, np.float32))
        if model.training:
            model.backward(np.zeros_like(output), needs_input_grad=False)
    return [(call.title, call.bytes, call.flops) for call in p.calls]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_a_plan_has_the_kernels_of_a_step_in_their_order(name, training):
    build, shape = MODELS[name]
    model = build().train(training)
    steps = model.plan(shape).steps
    assert [(s.kernel, s.bytes, s.flops) for s in steps if s.kernel] == kernels_of_a_step(model, shape)
    assert ("backward" in {step.direction for step in steps}) == training
    names = dict(model.named_modules())
    assert all(type(names[step.module]).__name__ == step.layer.split(" ")[0] for step in steps)


def test_a_plan_changes_nothing_of_the_model():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before = model.state_dict()
    manual_seed(1)
    expected = model(np.ones((2, 4), np.float32))
    model.load_state_dict(before)
    manual_seed(1)
    model.train().plan((2, 4))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert not any(parameter.grad.any() for parameter in model.parameters())
    assert not any(module._saved or "forward" in vars(module) for module in model.modules())
    np.testing.assert_array_equal(model(np.ones((2, 4), np.float32)), expected)  # with the same units dropped


def test_a_plan_says_what_layers_take_along():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))),
        nn.ReLU(),
        nn.Residual(nn.Conv2d(2, 2, 1)),
        nn.Flatten(),
    ).eval()
    plan = model.plan((1, 1, 4, 4))
    assert [(step.module, step.layer) for step in plan.steps] == [
        ("0", "Conv2d + ReLU"),
        ("2.body.0", "Conv2d"),
        ("2.body.1", "BatchNorm2d + sum + ReLU"),
        ("4.body", "Conv2d"),
        ("4", "Residual"),
        ("5", "Flatten"),
    ]
    assert [step.output for step in plan.steps] == ["1x2x4x4"] * 5 + ["1x32"]
    lines = str(plan).splitlines()
    assert lines[0].split() == ["module", "layer", "input", "kernel", "output", "MB", "MFLOP"]
    assert len(lines) == 2 + len(plan.steps) + 1


class TwoOutputs(nn.Module):
    """Kernels of its own, before and behind a child's."""

    def __init__(self):
        self.inner = nn.Tanh()

    def forward(self, input):
        hidden = self.inner(fastnn.functional.relu(input))
        return hidden, fastnn.functional.sigmoid(hidden)


def test_a_module_of_ones_own_has_the_kernels_outside_its_children():
    steps = TwoOutputs().plan((2, 3), np.float64).steps
    assert [(step.module, step.kernel) for step in steps] == [("", "relu"), ("inner", "tanh"), ("", "sigmoid")]
    assert [step.output for step in steps] == ["", "2x3", "2x3, 2x3"]


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (5, TypeError, "plan: input_shape must be a tuple of integers, got 5"),
        ((2, "a"), TypeError, "plan: input_shape must be .*integer"),
        ((2, -1), ValueError, "plan: input_shape must be"),
        ((2, 5), ValueError, "Linear: input must have 4 features, got 5"),
    ],
)
def test_wrong_shapes(shape, error, message):
    with pytest.raises(error, match=message):
        nn.Linear(4, 3).plan(shape)

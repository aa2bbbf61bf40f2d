"""Layers, losses and containers: against torch with the same weights, and what a Module promises."""

import pickle
import re
import threading
import warnings
from collections import OrderedDict

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from tests.oracle import assert_gradient, numerical_gradient
from tests.small_models import check_gradients, descend, images_model, small_model

# (layer, arguments, shape of the input): constructed alike here and in torch. The shapes are small and odd; sizes that
# hurt are the business of the functions' own tests.
LAYERS = [
    ("Linear", {"in_features": 5, "out_features": 3}, (4, 5)),
    ("Linear", {"in_features": 5, "out_features": 3, "bias": False}, (2, 3, 5)),
    ("Conv1d", {"in_channels": 2, "out_channels": 4, "kernel_size": 3, "padding": 1}, (3, 2, 7)),
    ("Conv2d", {"in_channels": 1, "out_channels": 6, "kernel_size": 5}, (2, 1, 9, 8)),
    ("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "stride": 2, "groups": 2}, (2, 4, 9, 8)),
    ("Conv2d", {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": "same", "bias": False}, (2, 2, 5, 6)),
    ("Conv2d", {"in_channels": 2, "out_channels": 2, "kernel_size": 2, "dilation": (2, 1)}, (1, 2, 5, 6)),
    ("Conv3d", {"in_channels": 2, "out_channels": 3, "kernel_size": (1, 2, 3)}, (2, 2, 3, 4, 5)),
    (
        "ConvTranspose2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 2},
        (2, 4, 3, 4),
    ),
    (
        "ConvTranspose2d",
        {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        (1, 2, 4, 3),
    ),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2}, (2, 3, 9)),
    ("MaxPool2d", {"kernel_size": 2}, (2, 3, 8, 7)),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 7)),
    ("MaxPool3d", {"kernel_size": 2}, (2, 2, 4, 5, 6)),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 9)),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 8, 7)),
    ("AvgPool2d", {"kernel_size": 2, "divisor_override": 3}, (2, 3, 8, 7)),
    ("AvgPool3d", {"kernel_size": 2}, (2, 2, 4, 5, 6)),
    ("AdaptiveAvgPool2d", {"output_size": (3, 2)}, (2, 3, 7, 5)),
    ("AdaptiveMaxPool2d", {"output_size": 2}, (2, 3, 7, 5)),
    ("BatchNorm1d", {"num_features": 5}, (7, 5)),
    ("BatchNorm1d", {"num_features": 3, "momentum": None}, (4, 3, 6)),
    ("BatchNorm2d", {"num_features": 3, "eps": 1e-3, "momentum": 0.3}, (4, 3, 5, 6)),
    ("BatchNorm2d", {"num_features": 3, "affine": False}, (4, 3, 5, 6)),
    ("BatchNorm2d", {"num_features": 3, "track_running_stats": False}, (4, 3, 5, 6)),
    ("BatchNorm3d", {"num_features": 3}, (2, 3, 3, 4, 5)),
    ("LayerNorm", {"normalized_shape": 6}, (4, 3, 6)),
    ("LayerNorm", {"normalized_shape": (3, 6), "bias": False}, (4, 3, 6)),
    ("LayerNorm", {"normalized_shape": (3, 6), "elementwise_affine": False}, (4, 3, 6)),
    ("GroupNorm", {"num_groups": 2, "num_channels": 4}, (3, 4, 5, 6)),
    ("GroupNorm", {"num_groups": 4, "num_channels": 4, "affine": False}, (3, 4, 5)),
    ("InstanceNorm1d", {"num_features": 3, "affine": True}, (2, 3, 7)),
    ("InstanceNorm2d", {"num_features": 3}, (2, 3, 5, 6)),
    ("InstanceNorm2d", {"num_features": 3, "affine": True, "track_running_stats": True}, (2, 3, 5, 6)),
    ("InstanceNorm3d", {"num_features": 2, "affine": True}, (2, 2, 3, 4, 5)),
    ("LocalResponseNorm", {"size": 3, "alpha": 0.1}, (2, 6, 3, 4)),
    ("ReLU", {}, (3, 7)),
    ("LeakyReLU", {"negative_slope": 0.2}, (3, 7)),
    ("PReLU", {}, (3, 7)),
    ("PReLU", {"num_parameters": 4, "init": 0.1}, (3, 4, 5)),
    ("ELU", {"alpha": 0.7}, (3, 7)),
    ("Sigmoid", {}, (3, 7)),
    ("Tanh", {}, (3, 7)),
    ("Softplus", {"beta": 2.0, "threshold": 3.0}, (3, 7)),
    ("GELU", {}, (3, 7)),
    ("GELU", {"approximate": "tanh"}, (3, 7)),
    ("SiLU", {}, (3, 7)),
    ("Hardtanh", {"min_val": -0.5, "max_val": 2.0}, (3, 7)),
    ("Hardswish", {}, (3, 7)),
    ("LogSigmoid", {}, (3, 7)),
    ("Softmax", {"dim": 1}, (3, 7, 2)),
    ("LogSoftmax", {"dim": -1}, (3, 7, 2)),
    ("Flatten", {}, (2, 3, 4, 5)),
    ("Flatten", {"start_dim": 0, "end_dim": 1}, (2, 3, 4)),
    ("Identity", {}, (2, 3)),
    ("Unfold", {"kernel_size": 3, "padding": 1, "stride": 2}, (2, 3, 5, 6)),
    ("Fold", {"output_size": (5, 6), "kernel_size": 3, "padding": 1, "stride": 2}, (2, 27, 9)),
    ("Dropout", {"p": 0.0}, (3, 7)),
]


def identifier(case):
    return f"{case[0]}-{'-'.join(f'{name}={value}' for name, value in case[1].items())}".replace(" ", "")


def close(dtype):
    return {"rtol": 1e-4, "atol": 2e-5} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-10}


def pair(name, arguments, dtype):
    """fastnn's layer and torch's, with torch's parameters."""
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(**arguments).to(torch.float32 if dtype == np.float32 else torch.float64)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = getattr(nn, name)(**arguments).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return torch, ours, theirs


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", LAYERS, ids=identifier)
def test_layer_matches_torch(case, training, dtype, rng):
    name, arguments, shape = case
    torch, ours, theirs = pair(name, arguments, dtype)
    ours.train(training)
    theirs.train(training)
    for _ in range(2):  # twice, so that running averages and accumulated gradients are seen
        x = rng.standard_normal(shape).astype(dtype)
        x_torch = torch.tensor(x, requires_grad=True)
        y_torch = theirs(x_torch)
        dy = rng.standard_normal(y_torch.shape).astype(dtype)
        y_torch.backward(torch.tensor(dy))
        with nn.enable_grad():
            y = ours(x)
        dx = ours.backward(dy)
        assert y.dtype == dx.dtype == dtype
        np.testing.assert_allclose(y, y_torch.detach(), **close(dtype))
        np.testing.assert_allclose(dx, x_torch.grad, **close(dtype))
    for (name, parameter), (their_name, their_parameter) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == their_name
        np.testing.assert_allclose(parameter.grad, their_parameter.grad, err_msg=name, **close(dtype))
    states = ours.state_dict(), theirs.state_dict()
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        np.testing.assert_allclose(value, states[1][key], err_msg=key, **close(dtype))


# torch prints tuples where one number was given.
PRINT_OTHERWISE = {"AvgPool1d"}


@pytest.mark.parametrize("case", [case for case in LAYERS if case[0] not in PRINT_OTHERWISE], ids=identifier)
def test_layer_prints_as_torch(case):
    torch = pytest.importorskip("torch")
    name, arguments, _ = case
    text = repr(getattr(torch.nn, name)(**arguments)).replace(", inplace=False", "")
    if "Norm" in name:  # recent versions tell of the bias
        text = re.sub(", bias=(True|False)", "", text)
    assert repr(getattr(nn, name)(**arguments)) == text


@pytest.mark.parametrize("case", LAYERS, ids=identifier)
def test_input_gradient_can_be_left_out(case, rng):
    name, arguments, shape = case
    layer = getattr(nn, name)(**arguments)
    x = rng.standard_normal(shape).astype(np.float32)
    y = layer(x)
    layer.backward(y)
    expected = [parameter.grad.copy() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x)
    if name != "Identity":
        assert layer.backward(y, needs_input_grad=False) is None
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", LAYERS, ids=identifier)
def test_frozen_parameters_get_no_gradient(case, rng):
    name, arguments, shape = case
    layer = getattr(nn, name)(**arguments).requires_grad_(False)
    y = layer(rng.standard_normal(shape).astype(np.float32))
    dx = layer.backward(y)
    assert dx.shape == shape
    for parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, 0)


@pytest.mark.parametrize("case", LAYERS, ids=identifier)
def test_eval_keeps_nothing(case, rng):
    name, arguments, shape = case
    layer = getattr(nn, name)(**arguments).eval()
    y = layer(rng.standard_normal(shape).astype(np.float32))
    if name != "Identity":
        assert not layer._saved
        with pytest.raises(RuntimeError, match=rf"{name}.backward: there is no forward to go back through"):
            layer.backward(y)


# Losses: arguments, shape of the input, and how the targets are drawn.
def classes(rng, shape, dtype):
    return rng.integers(shape[1], size=(shape[0], *shape[2:]))


def probabilities(rng, shape, dtype):
    return rng.random(shape).astype(dtype)


def values(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


LOSSES = [
    ("CrossEntropyLoss", {}, (6, 4), classes),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}, (6, 4), classes),
    ("CrossEntropyLoss", {"weight": [1.0, 2.0, 0.5, 1.5], "reduction": "sum"}, (6, 4, 3), classes),
    ("CrossEntropyLoss", {"reduction": "none"}, (6, 4), classes),
    ("CrossEntropyLoss", {}, (6, 4), probabilities),
    ("NLLLoss", {"weight": [1.0, 2.0, 0.5, 1.5]}, (6, 4), classes),
    ("NLLLoss", {"reduction": "sum", "ignore_index": 1}, (6, 4), classes),
    ("MSELoss", {}, (6, 4), values),
    ("MSELoss", {"reduction": "sum"}, (6, 4), values),
    ("MSELoss", {"reduction": "none"}, (6, 4), values),
    ("L1Loss", {}, (6, 4), values),
    ("SmoothL1Loss", {"beta": 0.5}, (6, 4), values),
    ("HuberLoss", {"delta": 0.5, "reduction": "sum"}, (6, 4), values),
    ("BCELoss", {}, (6, 4), probabilities),
    ("BCELoss", {"weight": [1.0, 2.0, 0.5, 1.5]}, (6, 4), probabilities),
    ("BCEWithLogitsLoss", {}, (6, 4), probabilities),
    ("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0, 0.5, 1.5], "reduction": "sum"}, (6, 4), probabilities),
    ("MultiMarginLoss", {}, (6, 4), classes),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": [1.0, 2.0, 0.5, 1.5]}, (6, 4), classes),
    ("KLDivLoss", {}, (6, 4), probabilities),
    ("KLDivLoss", {"reduction": "batchmean", "log_target": True}, (6, 4), values),
]


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: f"{identifier(case)}-{case[3].__name__}")
def test_loss_matches_torch(case, dtype, rng):
    torch = pytest.importorskip("torch")
    name, arguments, shape, draw = case
    weights = {key: np.array(value, dtype) for key, value in arguments.items() if isinstance(value, list)}
    ours = getattr(nn, name)(**{**arguments, **weights})
    tensors = {key: torch.tensor(value) for key, value in weights.items()}
    theirs = getattr(torch.nn, name)(**{**arguments, **tensors})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = (probabilities if name == "BCELoss" else values)(rng, shape, dtype)
    target = draw(rng, shape, dtype)
    x_torch = torch.tensor(x, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # KLDivLoss: "mean" is not the mathematical definition
        loss_torch = theirs(x_torch, torch.tensor(target))
    for scale in (1.0, 0.25):
        loss = ours(x, target)
        if arguments.get("reduction") == "none":
            weight = rng.standard_normal(loss.shape).astype(dtype)
        else:
            assert type(loss) is float
            weight = scale
        np.testing.assert_allclose(loss, loss_torch.detach(), **close(dtype))
        x_torch.grad = None
        loss_torch.backward(torch.tensor(weight, dtype=loss_torch.dtype), retain_graph=True)
        gradient = ours.backward(weight)
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, x_torch.grad, **close(dtype))
    np.testing.assert_allclose(ours.eval()(x, target), loss_torch.detach(), **close(dtype))
    with pytest.raises(RuntimeError, match="no call to go back through"):
        ours.backward()


def test_criterion_remembers_its_last_call_only(rng):
    criterion = nn.MSELoss()
    for _ in range(1000):
        criterion(rng.standard_normal(3), np.zeros(3))
    criterion.backward()
    with pytest.raises(RuntimeError, match=r"MSELoss.backward: there is no call to go back through"):
        criterion.backward()


def test_cross_entropy_takes_a_number_as_gradient_of_its_mean(rng):
    criterion = nn.CrossEntropyLoss()
    criterion(rng.standard_normal((3, 4)), np.array([0, 1, 2]))
    with pytest.raises(TypeError, match=r"CrossEntropyLoss.backward: grad_output must be a number"):
        criterion.backward(np.ones((3, 4)))


def test_embedding_matches_torch(dtype, rng):
    torch, ours, theirs = pair("Embedding", {"num_embeddings": 7, "embedding_dim": 3, "padding_idx": -2}, dtype)
    assert repr(ours) == repr(theirs)
    indices = np.array([[0, 5, 6], [2, 2, 5]])
    y_torch = theirs(torch.tensor(indices))
    dy = rng.standard_normal(y_torch.shape).astype(dtype)
    y_torch.backward(torch.tensor(dy))
    np.testing.assert_array_equal(ours(indices), y_torch.detach())
    assert ours.backward(dy) is None
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad, **close(dtype))
    np.testing.assert_array_equal(nn.Embedding(4, 3, padding_idx=1).weight.data[1], 0)


@pytest.mark.parametrize("name", ["Dropout", "GaussianDropout"])
def test_dropout_uses_the_same_noise_in_its_backward(name):
    fastnn.manual_seed(3)
    layer = getattr(nn, name)(0.4)
    ones = np.ones((50, 40), np.float32)
    first, second = layer(ones), layer(ones)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(layer.backward(ones), second)
    np.testing.assert_array_equal(layer.backward(ones), first)
    fastnn.manual_seed(3)
    np.testing.assert_array_equal(layer(ones), first)
    assert layer.eval()(ones) is ones
    with nn.enable_grad():
        layer(ones)
    assert layer.backward(ones) is ones


@pytest.mark.parametrize("name", ["GlobalAvgPool", "GlobalMaxPool"])
def test_global_pools(name, dtype, rng):
    layer = getattr(nn, name)()
    reduce = np.mean if name == "GlobalAvgPool" else np.max
    x = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    np.testing.assert_allclose(layer(x), reduce(x, (2, 3)), rtol=1e-6)
    dy = rng.standard_normal((2, 3))
    x = x.astype(np.float64)
    layer.pop_saved()
    layer(x)
    assert_gradient(layer.backward(dy), numerical_gradient(layer.eval(), x, dy))


# Models of several layers


def weighted_sum(rng, shape):
    weight = rng.standard_normal(shape)
    return lambda y: (float(np.sum(y * weight)), weight)


def test_chain_with_residual_block_passes_the_gradient_check(rng):
    fastnn.manual_seed(0)
    model = images_model().to(np.float64)
    check_gradients(model, rng.standard_normal((3, 2, 6, 6)), weighted_sum(rng, (3, 3)), 1e-5)


def test_residual_without_shortcut_adds_the_input(rng):
    block = nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.Tanh())).to(np.float64)
    x = rng.standard_normal((3, 4))
    np.testing.assert_allclose(block(x), np.tanh(F.linear(x, block.body[0].weight.data, block.body[0].bias.data)) + x)
    block.train()
    check_gradients(block, x, weighted_sum(rng, (3, 4)))


def test_residual_refuses_shapes_that_would_broadcast():
    block = nn.Residual(nn.Linear(4, 1))
    with pytest.raises(
        ValueError,
        match=r"Residual: the body's output is float32 of shape \(2, 1\), but the shortcut's float32 of shape \(2, 4\)",
    ):
        block(np.zeros((2, 4), np.float32))


def test_module_used_twice_goes_back_through_its_last_use_first(rng):
    layer = nn.Linear(4, 4).to(np.float64)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), layer)
    assert len(model.parameters()) == 2
    check_gradients(model, rng.standard_normal((3, 4)), weighted_sum(rng, (3, 4)))


def test_gradients_accumulate_until_zero_grad(rng):
    model = small_model().to(np.float64)
    x, dy = rng.standard_normal((3, 4)), rng.standard_normal((3, 3))
    model(x)
    model.backward(dy)
    once = [parameter.grad.copy() for parameter in model.parameters()]
    model(x)
    model.backward(dy)
    for parameter, gradient in zip(model.parameters(), once, strict=True):
        np.testing.assert_allclose(parameter.grad, 2 * gradient)
    model.zero_grad()
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_leading_frozen_layers_are_skipped_and_leave_nothing_behind(rng):
    model = images_model().requires_grad_(False)
    model.head.requires_grad_(True)
    x = rng.standard_normal((3, 2, 6, 6)).astype(np.float32)
    y = model(x)
    model.backward(np.ones_like(y))
    expected = model.head.weight.grad.copy()
    model.zero_grad()
    model(x)
    assert model.backward(np.ones_like(y), needs_input_grad=False) is None
    np.testing.assert_array_equal(model.head.weight.grad, expected)
    assert not any(module._saved for module in model.modules())
    assert not model.conv.weight.grad.any()


def test_frozen_batch_norm_in_eval_mode_goes_back_inside_a_model_in_training(rng):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).to(np.float64)
    model[1].running_mean[:] = rng.standard_normal(3)
    model[1].running_var[:] = rng.random(3) + 0.5
    model[1].eval()
    before = model[1].state_dict()
    check_gradients(model, rng.standard_normal((2, 2, 5, 5)), weighted_sum(rng, (2, 3, 3, 3)), 1e-5)
    for name, value in model[1].state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_fusing_batch_norm_and_relu_changes_nothing(training, dtype, rng):
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU()]
    model = nn.Sequential(layers).to(dtype).train(training)
    x = rng.standard_normal((4, 2, 6, 6)).astype(dtype)
    dy = rng.standard_normal((4, 3, 4, 4)).astype(dtype)
    state = model.state_dict()
    results = []
    for run in ("fused", "one by one"):
        model.load_state_dict(state)
        model.zero_grad()
        with nn.enable_grad():
            if run == "fused":
                y = model(x)
                assert [bool(layer._saved) for layer in layers] == [True, True, False, True, True, False]
                dx = model.backward(dy)
            else:
                y, dx = x, dy
                for layer in layers:
                    y = layer(y)
                for layer in reversed(layers):
                    dx = layer.backward(dx)
        results.append([y, dx, *(parameter.grad.copy() for parameter in model.parameters()), *model.buffers()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, **close(dtype))
    assert not any(layer._saved for layer in layers)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (4, 5)),
        (nn.Linear(5, 3, bias=False), (2, 4, 5)),
        (nn.Conv1d(5, 3, 3), (2, 5, 9)),
        (nn.Conv2d(5, 3, 3, padding=1), (2, 5, 6, 7)),
        (nn.Conv2d(16, 16, 3, padding=1), (2, 16, 12, 12)),
        (nn.Conv3d(5, 3, 2), (2, 5, 3, 4, 5)),
    ],
    ids=lambda value: repr(value).split("(")[0],
)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_layer_that_takes_the_relu_behind_it_along_changes_nothing(layer, shape, training, dtype, rng):
    layers = [layer, nn.ReLU(), nn.ReLU()]
    model = nn.Sequential(layers).to(dtype).train(training)
    model.zero_grad()
    x = rng.standard_normal(shape).astype(dtype)
    with nn.enable_grad():
        with fastnn.profile() as p:
            y = model(x)
        assert [call.kernel for call in p.calls].count("relu") == 1  # the second one's
        assert layers[1]._saved is None or not layers[1]._saved
        assert (y == 0).any()
        assert (y > 0).any()
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx = model.backward(dy)
        fused = [y, dx, *(parameter.grad.copy() for parameter in model.parameters())]
        model.zero_grad()
        plain = [layers[1](layer(x)), layer.backward(layers[1].backward(dy))]
    for one, other in zip(fused, [*plain, *(parameter.grad for parameter in model.parameters())], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(module._saved for module in layers)


def residual_block(end, shortcut):
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), *end)
    return nn.Residual(body, shortcut)


@pytest.mark.parametrize(
    ("end", "fused"),
    [([nn.BatchNorm2d(3)], True), ([nn.BatchNorm2d(3), nn.ReLU()], False), ([], False)],
    ids=["batch norm", "batch norm, ReLU", "convolution"],
)
@pytest.mark.parametrize("shortcut", [None, nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))], ids=["", "shortcut"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_fusing_a_residual_block_and_its_relu_changes_nothing(end, fused, shortcut, training, dtype, rng):
    block, relu = residual_block(end, shortcut), nn.ReLU()
    model = nn.Sequential(block, relu).to(dtype).train(training)
    x, dy = rng.standard_normal((2, 2, 3, 7, 6)).astype(dtype)
    state, results = model.state_dict(), []
    for run in ("fused", "one by one"):
        model.load_state_dict(state)
        model.zero_grad()
        with nn.enable_grad():
            if run == "fused":
                with fastnn.profile() as p:
                    y = model(x)
                assert not relu._saved
                kernels = [call.kernel for call in p.calls]
                assert "relu" not in kernels
                assert ("add" in kernels) != fused
                dx = model.backward(dy)
            else:
                y = relu(block(x))
                dx = block.backward(relu.backward(dy))
        results.append([y, dx, *(parameter.grad.copy() for parameter in model.parameters()), *model.buffers()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, **close(dtype))
    assert not any(module._saved for module in model.modules())


def test_leading_frozen_residual_blocks_are_skipped_and_leave_nothing_behind(rng):
    blocks = [layer for _ in range(2) for layer in (residual_block([nn.BatchNorm2d(3)], nn.Conv2d(3, 3, 1)), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(3 * 4 * 4, 2)).requires_grad_(False)
    model[-1].requires_grad_(True)
    y = model(rng.standard_normal((2, 3, 4, 4)).astype(np.float32))
    assert model.backward(np.ones_like(y), needs_input_grad=False) is None
    assert model[-1].weight.grad.any()
    assert not any(module._saved for module in model.modules())


def test_a_fused_residual_block_tells_shapes_that_do_not_fit():
    block = nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    with pytest.raises(
        ValueError, match=r"residual must have shape \(2, 3, 3, 3\) \(input's\), got \(2, 3, 5, 5\)"
    ) as caught:
        nn.Sequential(block, nn.ReLU())(np.ones((2, 3, 5, 5), np.float32))
    assert any("of a Residual" in note or "Residual" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1)], ids=repr)
def test_a_relu_behind_the_max_pool_that_it_stands_before_changes_nothing(pool, dtype, rng):
    layers = [nn.ReLU(), pool, nn.ReLU(), nn.ReLU(), pool]
    x = rng.integers(-2, 3, (4, 3, 11, 10)).astype(dtype)  # many ties, zeros, windows without a positive element
    x[0, 0, :2, :2] = [[np.nan, -1], [np.inf, -np.inf]]
    model = nn.Sequential(layers)
    y = model(x)
    assert [len(layer._saved) for layer in layers[:2]] == [1, 2]
    assert layers[0]._saved[0][0].size < x.size or pool.stride == 1
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = model.backward(dy)
    expected, expected_dx = x, dy
    for layer in layers:
        expected = layer(expected)
    for layer in reversed(layers):
        expected_dx = layer.backward(expected_dx)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, expected_dx)


def test_no_grad_and_eval_keep_nothing_and_enable_grad_keeps(rng):
    model = small_model().to(np.float64)
    x = rng.standard_normal((3, 4))
    with nn.no_grad():
        y = model(x)
    assert not any(module._saved for module in model.modules())
    model.eval()(x)
    assert not any(module._saved for module in model.modules())
    with nn.enable_grad():
        np.testing.assert_array_equal(model(x), y)
    assert model.backward(y).shape == x.shape


def test_train_drops_what_forwards_without_backward_kept(rng):
    model = small_model()
    model(np.ones((2, 4), np.float32))
    assert model[0]._saved
    model.train()
    assert not model[0]._saved


def test_recording_is_decided_anew_after_an_error():
    model = small_model()
    with pytest.raises(ValueError, match="Linear"):
        model(np.ones((2, 9), np.float32))
    model.eval()(np.ones((2, 4), np.float32))
    assert not model[0]._saved


def test_many_forwards_without_backward_are_told():
    model = nn.ReLU()
    x = np.ones(3, np.float32)
    for _ in range(63):
        model(x)
    with pytest.warns(RuntimeWarning, match="ReLU: 64 forwards without a backward"):
        model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(300):
            model(x)
            model.backward(x)


def test_train_and_eval_reach_every_module():
    model = images_model()
    assert all(not module.training for module in model.eval().modules())
    assert all(module.training for module in model.train().modules())


# Containers


def test_sequential_is_built_and_indexed_like_a_list():
    layers = [nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)]
    for model in (nn.Sequential(*layers), nn.Sequential(layers), nn.Sequential(tuple(layers))):
        assert len(model) == 3
        assert list(model) == layers
        assert model[0] is layers[0]
        assert model[-1] is layers[2]
        assert list(model[1:]) == layers[1:]
    model[1] = tanh = nn.Tanh()
    assert model[1] is tanh
    assert [name for name, _ in model.named_children()] == ["0", "1", "2"]
    named = nn.Sequential(OrderedDict(first=layers[0], second=layers[1]))
    assert named.first is layers[0]
    assert named.append(nn.Tanh())[2] is getattr(named, "2")
    named.first = nn.Linear(4, 3)
    assert named[0] is named.first
    with pytest.raises(IndexError):
        model[3]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: nn.Sequential(3), TypeError, r"Sequential: 0 must be a Module, got int"),
        (lambda: nn.Sequential({"a.b": nn.ReLU()}), ValueError, r"Sequential: a child cannot be called 'a.b'"),
        (lambda: nn.Sequential({"train": nn.ReLU()}), ValueError, r"Sequential: a child cannot be called 'train'"),
        (lambda: nn.Sequential({3: nn.ReLU()}), TypeError, r"Sequential: a child's name must be a string, got 3"),
        (
            lambda: nn.Sequential(nn.ReLU()).__setitem__(0, 4),
            TypeError,
            r"Sequential: layer 0 must be a Module, got int",
        ),
        (lambda: nn.Residual(abs), TypeError, r"Residual: body must be a Module"),
        (lambda: nn.Linear(0, 3), ValueError, r"Linear: in_features must be at least 1, got 0"),
        (lambda: nn.Linear(3, 2.5), TypeError, r"Linear: out_features must be an integer, got 2.5"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, r"Conv2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, (1, 2, 3)), ValueError, r"Conv2d: kernel_size must be an integer or 2 of them"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, r"Conv2d: in_channels=3 must be a multiple of groups=2"),
        (lambda: nn.Conv1d(2, 3, 3, groups=2), ValueError, r"Conv1d: out_channels=3 must be a multiple of groups=2"),
        (lambda: nn.Conv2d(3, 4, 3, padding="sam"), ValueError, r"Conv2d: padding must be integers, 'same' or 'valid'"),
        (lambda: nn.Conv2d(3, 4, 3, 2, padding="same"), ValueError, r"Conv2d: padding='same' needs stride 1"),
        (lambda: nn.Conv2d(3, 4, 3, bias=np.ones(4)), TypeError, r"Conv2d: bias must be True or False"),
        (lambda: nn.GroupNorm(3, 4), ValueError, r"GroupNorm: num_channels=4 must be a multiple of num_groups=3"),
        (lambda: nn.LayerNorm((3, 0)), ValueError, r"LayerNorm: normalized_shape must be at least 1, got 0"),
        (lambda: nn.BatchNorm2d(0), ValueError, r"BatchNorm2d: num_features must be at least 1, got 0"),
        (lambda: nn.Dropout(1.5), ValueError, r"Dropout: p must be from 0 to 1, got 1.5"),
        (
            lambda: nn.MSELoss("average"),
            ValueError,
            r"MSELoss: reduction must be 'mean', 'sum' or 'none', got 'average'",
        ),
        (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, r"Embedding: padding_idx must be an index of 3 rows"),
        (lambda: nn.Parameter(np.arange(3)), TypeError, r"Parameter: data must be float32 or float64, got int64"),
        (
            lambda: nn.Conv2d(3, 4, 3, padding_mode="zeros"),
            TypeError,
            r"Conv2d: there is no option padding_mode; it takes in_channels, out_channels, kernel_size",
        ),
        (lambda: nn.ReLU(inplace=True), TypeError, r"ReLU\(\) takes no arguments"),
        (
            lambda: nn.LeakyReLU(inplace=True),
            TypeError,
            r"LeakyReLU: there is no option inplace; it takes neg",
        ),
        (lambda: nn.Linear(3, 2).to("cpu"), TypeError, r"Linear.to: dtype must be .*, got 'cpu'; there are no devices"),
        (lambda: nn.Linear(3, 2).load_state_dict({}), ValueError, r"missing: weight, bias \(strict=False leaves these"),
        (lambda: nn.Module()(1), NotImplementedError, r"Module has no forward"),
        (lambda: nn.Module().backward(1), NotImplementedError, r"Module has no backward"),
    ],
)
def test_bad_construction(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm1d(3), (2, 3, 4, 5), r"BatchNorm1d: input must have 2 or 3 dimensions \(N, C, ...\), got shape"),
        (nn.BatchNorm2d(3), (2, 3), r"BatchNorm2d: input must have 4 dimensions"),
        (nn.InstanceNorm3d(3), (2, 3, 4, 5), r"InstanceNorm3d: input must have 5 dimensions"),
        (nn.GroupNorm(2, 4), (2, 6, 3), r"GroupNorm: input must have 4 channels"),
        (nn.BatchNorm2d(4), (2, 3, 5, 5), r"BatchNorm2d: input must have 4 channels, got 3 in shape \(2, 3, 5, 5\)"),
        (nn.BatchNorm1d(4, affine=False), (2, 3), r"BatchNorm1d: input must have 4 channels, got 3 in shape"),
        (nn.InstanceNorm2d(4, affine=True), (2, 3, 5, 5), r"InstanceNorm2d: input must have 4 channels, got 3"),
        (nn.Conv2d(4, 2, 3, groups=2), (2, 3, 5, 5), r"Conv2d: input must have 4 channels, got 3 in shape"),
        (nn.Conv2d(3, 2, 3), (2, 8, 9, 3), r"got 8 in shape .*; if input has its channels last, give .*\(0, 3, 1, 2\)"),
        (nn.Conv2d(4, 2, 3), (4, 5, 5), r"conv2d: input must have 4 dimensions \(N, C, H, W\), got shape \(4, 5, 5\)"),
        (nn.ConvTranspose2d(4, 2, 3), (2, 3, 5, 5), r"ConvTranspose2d: input must have 4 channels, got 3 in shape"),
        (nn.PReLU(4), (2, 3, 5), r"PReLU: input must have 4 channels, got 3 in shape \(2, 3, 5\)"),
        (nn.Linear(4, 2), (4, 2), r"Linear: input must have 4 features, got 2 in shape \(4, 2\)"),
        (nn.Flatten(3), (2, 3), r"Flatten: start_dim=3 to end_dim=-1 are no dimensions of shape \(2, 3\)"),
    ],
)
def test_bad_input(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 2, 3), (2, 3, 5, 5)),
        (nn.Linear(3, 2), (2, 3)),
        (nn.BatchNorm2d(3), (2, 3, 5, 5)),
        (nn.BatchNorm2d(3, affine=False), (2, 3, 5, 5)),
        (nn.InstanceNorm1d(3, affine=True), (2, 3, 5)),
        (nn.LayerNorm(3), (2, 3)),
        (nn.GroupNorm(3, 3), (2, 3, 5)),
        (nn.PReLU(), (2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_says_how_to_bring_input_and_layer_to_one_dtype(layer, shape):
    x = np.ones(shape)
    message = (
        f"{type(layer).__name__}: input is float64, but the layer float32; convert the input, "
        "input.astype(numpy.float32), or the model, model.to('float64')"
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        layer(x)
    assert layer(x.astype(np.float32)).dtype == np.float32
    assert layer.to("float64")(x).dtype == np.float64


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.array([0, 3]), ValueError, r"^cross_entropy: target\[1\] must be a class index from 0 to 2"),
        (
            np.eye(3, dtype=int)[:2],
            TypeError,
            r"^cross_entropy: target must be floats for probabilities .*, or class indices of shape \(2,\)",
        ),
    ],
)
def test_a_cross_entropy_loss_names_the_function_of_its_name(target, error, message):
    with pytest.raises(error, match=message):
        nn.CrossEntropyLoss()(np.zeros((2, 3), np.float32), target)


def test_backward_without_forward_is_an_error():
    model = small_model()
    y = model(np.ones((2, 4), np.float32))
    model.backward(y)
    with pytest.raises(RuntimeError, match=r"Linear.backward: there is no forward to go back through; call the module"):
        model.backward(y)


def test_batch_norm_averages_over_all_batches_without_momentum(rng):
    layer = nn.BatchNorm1d(3, momentum=None)
    batches = rng.standard_normal((5, 16, 3)).astype(np.float32)
    for batch in batches:
        layer(batch)
    assert layer.num_batches_tracked == 5
    np.testing.assert_allclose(layer.running_mean, batches.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(layer.running_var, batches.var(1, ddof=1).mean(0), rtol=1e-5)
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0


def test_training_reduces_the_loss(rng):
    fastnn.manual_seed(0)
    model = images_model()
    x = rng.standard_normal((24, 2, 6, 6)).astype(np.float32)
    target = rng.integers(3, size=24)
    losses = descend(model, nn.CrossEntropyLoss(), x, target, steps=30, rate=0.2)
    assert losses[-1] < 0.1 * losses[0]
    assert not any(module._saved for module in model.modules())


def test_a_forward_that_fails_leaves_nothing_behind(rng):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = rng.standard_normal((5, 3), dtype=np.float32)
    y = model(x)
    with pytest.raises(ValueError, match="Linear: input must have 3 features, got 2"):
        model(x[:, :2])
    model[2] = nn.Linear(5, 2)  # the layers before the failing one have already pushed theirs
    with pytest.raises(ValueError, match="Linear: input must have 5 features, got 4"):
        model(x)
    assert [len(layer._saved or ()) for layer in model] == [1, 1, 0]
    assert y.shape == (5, 2)


@pytest.mark.parametrize("case", [case for case in LAYERS if case[0] != "Identity"], ids=identifier)
def test_a_backward_with_a_wrong_gradient_leaves_the_way_open_for_the_right_one(case, rng):
    name, arguments, shape = case
    layer = getattr(nn, name)(**arguments).to("float64")
    x = rng.standard_normal(shape)
    y = layer(x)
    dy = rng.standard_normal(y.shape)
    expected = layer.backward(dy)
    gradients = [parameter.grad.copy() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x)
    flat = np.ascontiguousarray(dy).reshape(-1)
    for wrong, error in ((flat[:-1], ValueError), (flat.reshape(1, -1, 1), ValueError), (None, TypeError)):
        with pytest.raises(error, match="grad_output"):
            layer.backward(wrong)
    with pytest.raises(TypeError, match="grad_output"):
        layer.backward(dy.astype(np.float32))
    np.testing.assert_array_equal(layer.backward(dy), expected)
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)
    with pytest.raises(RuntimeError, match="there is no forward to go back through"):
        layer.backward(dy)


def test_a_model_goes_back_after_a_wrong_gradient(rng):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.Residual(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Dropout(0.0),
        nn.Identity(),
    ).to("float64")
    y = model(rng.standard_normal((2, 2, 5, 5)))
    for wrong in (np.zeros((2, 3, 3, 3)), np.zeros(y.size), np.zeros(y.shape, np.float32)):
        with pytest.raises((TypeError, ValueError), match=r"Dropout\.backward: grad_output must have"):
            model.backward(wrong)
    model.backward(np.ones_like(y))
    with pytest.raises(RuntimeError, match="there is no forward"):
        model.backward(np.ones_like(y))


def test_a_criterion_goes_back_after_a_wrong_gradient(rng):
    for criterion in (nn.MSELoss("none"), nn.CrossEntropyLoss(reduction="none"), nn.CrossEntropyLoss()):
        x = rng.standard_normal((4, 3))
        target = np.arange(4) % 3 if isinstance(criterion, nn.CrossEntropyLoss) else np.zeros((4, 3))
        loss = criterion(x, target)
        with pytest.raises((TypeError, ValueError), match="grad_output"):
            criterion.backward(np.ones(5))
        assert criterion.backward(np.ones_like(loss) if np.ndim(loss) else 1.0).shape == x.shape


def test_a_layer_of_ones_own_goes_back_after_an_error_in_its_backward():
    class Doubled(nn.Linear):
        def backward(self, grad_output, needs_input_grad=True):
            return 2 * super().backward(grad_output, needs_input_grad)

    layer = Doubled(3, 2)
    y = layer(np.ones((4, 3), np.float32))
    layer(np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match="grad_output"):
        layer.backward(np.ones_like(y))
    assert layer.backward(np.ones((5, 2), np.float32)).shape == (5, 3)
    assert layer.backward(np.ones_like(y)).shape == (4, 3)


def test_conv2d_in_eval_mode_keeps_its_transformed_weights_until_they_change(rng, isa):
    layer = nn.Conv2d(16, 24, 3, padding=1)
    x = rng.standard_normal((1, 16, 24, 24)).astype(np.float32)
    layer(x)
    assert layer._kept is None  # nothing in training mode, where each step changes them
    layer.eval()

    def forward(input=x):
        weight, bias = layer.weight.data, layer.bias.data
        y = layer(input)
        np.testing.assert_array_equal(y, F.conv2d(input, weight, bias, padding=1))
        np.testing.assert_array_equal(layer(input), y)  # by what was kept
        return layer._kept.state

    with fastnn.conv_algorithm("winograd"):
        first = forward()
        assert forward() is first
        layer.weight.data[3, 5, 1, 2] += 1  # written to in place, behind the layer's back
        second = forward()
        assert second is not first
        layer.load_state_dict(nn.Conv2d(16, 24, 3).state_dict())
        assert forward() is not second
        for size in (8, 24, 100):  # few tiles, and blocks of tiles in memory of their own
            forward(rng.standard_normal((3, 16, size, size)).astype(np.float32))
        for threads in (1, 3):
            with fastnn.threads(threads):
                forward()
        copy = pickle.loads(pickle.dumps(layer))
        assert copy._kept.state is None
        np.testing.assert_array_equal(copy(x), layer(x))
        copy.train()(x)
        assert copy._kept is None
        layer.to(np.float64)
        forward(x.astype(np.float64))
        large = nn.Conv2d(256, 256, 3, padding=1).eval()
        large(rng.standard_normal((1, 256, 16, 16)).astype(np.float32))
        assert large._kept.state is None  # read back no faster than transformed


def test_conv2d_in_eval_mode_keeps_nothing_of_weights_that_another_thread_writes_to(rng):
    layer = nn.Conv2d(64, 64, 3, padding=1).eval()
    x = rng.standard_normal((8, 64, 32, 32)).astype(np.float32)

    def compute():
        for _ in range(20):
            layer(x)

    with fastnn.conv_algorithm("winograd"), fastnn.threads(1):
        for _ in range(3):
            other = threading.Thread(target=compute)
            other.start()
            while other.is_alive():
                layer.weight.data += np.float32(0.01)
            other.join()
            np.testing.assert_array_equal(layer(x), F.conv2d(x, layer.weight.data, layer.bias.data, padding=1))


def test_an_error_inside_sequential_names_the_layers(rng):
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 3))
    model = nn.Sequential({"body": inner, "flatten": nn.Flatten()})
    with pytest.raises(ValueError, match="Conv2d: input must have 3 channels, got 2") as caught:
        model(rng.standard_normal((1, 1, 8, 8)).astype(np.float32))
    assert caught.value.__notes__ == [
        "in layer 1 (Conv2d) of a Sequential, whose input was float32 of shape (1, 2, 6, 6)",
        "in layer body (Sequential) of a Sequential, whose input was float32 of shape (1, 1, 8, 8)",
    ]
    inner[1] = nn.Conv2d(2, 2, 3)
    model(rng.standard_normal((1, 1, 8, 8)).astype(np.float32))
    with pytest.raises(ValueError, match="grad_output") as caught:
        model.backward(np.zeros((1, 3), np.float32))
    assert caught.value.__notes__ == [
        "in layer flatten (Flatten) of a Sequential, whose grad_output was float32 of shape (1, 3)"
    ]


def test_an_array_does_not_replace_a_parameter():
    layer = nn.Conv2d(1, 2, 3)
    with pytest.raises(TypeError, match=r"Conv2d: weight is a Parameter, got an array; assign it to weight\.data"):
        layer.weight = np.zeros((2, 1, 3, 3), np.float32)
    layer.weight.data = np.ones((2, 1, 3, 3), np.float32)
    assert layer.weight.data.all()
    with pytest.raises(TypeError, match=r"conv2d: weight must be a NumPy array, got Parameter; use weight\.data"):
        F.conv2d(np.zeros((1, 1, 5, 5), np.float32), layer.weight)

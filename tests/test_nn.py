"""Layers, losses and containers: against torch with the same weights, and what a Module promises."""

import copy
import pickle
import re
import warnings
from collections import OrderedDict

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from tests.oracle import assert_gradient, numerical_gradient

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
        ValueError, match=r"Residual: the body's output has shape \(2, 1\), but the shortcut's \(2, 4\)"
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
    with pytest.raises(ValueError, match="linear"):
        model(np.ones((2, 9), np.float32))
    model.eval()(np.ones((2, 4), np.float32))
    assert not model[0]._saved


def test_many_forwards_without_backward_are_told():
    model = nn.ReLU()
    x = np.ones(3, np.float32)
    for _ in range(255):
        model(x)
    with pytest.warns(RuntimeWarning, match="ReLU: 256 forwards without a backward"):
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


# Parameters and their flat arrays


def assert_flat(model):
    """All parameters are views into one array of values and one of gradients, in order, without overlap."""
    parameters = model.parameters()
    assert len(nn.flat_arrays(parameters)) == len({parameter.dtype for parameter in parameters})
    storages = {id(parameter.storage) for parameter in parameters}
    assert len(storages) == len({parameter.dtype for parameter in parameters})
    for parameter in parameters:
        for view, flat in zip((parameter.data, parameter.grad), parameter.storage, strict=True):
            assert np.shares_memory(view, flat)
            assert view.ctypes.data == flat.ctypes.data + parameter.offset * flat.itemsize
            assert flat.ctypes.data % 64 == 0
    assert sum(values.size for values, _ in nn.flat_arrays(parameters)) == sum(p.size for p in parameters)


def test_parameters_live_in_one_flat_array(rng):
    model = images_model()
    before = model.state_dict()
    assert_flat(model)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    ((values, gradients),) = nn.flat_arrays(model.parameters())
    values.fill(2)
    gradients.fill(3)
    assert np.all(model.head.weight.data == 2)
    assert np.all(model.block.shortcut.bias.grad == 3)
    first = [parameter.data for parameter in model.parameters()]
    model.block.parameters()  # part of a model that is together: nothing moves
    assert all(parameter.data is data for parameter, data in zip(model.parameters(), first, strict=True))
    assert model.parameters()[0].name == "conv.weight"


def test_parameters_stay_flat_after_loading_assigning_and_going_back(rng):
    model = small_model()
    assert_flat(model)
    model.load_state_dict(small_model().state_dict())
    model[0].weight.data = np.ones((5, 4), np.float32)
    model[0].bias.grad = np.ones(5, np.float32)
    model[2].bias.grad = None
    y = model(rng.standard_normal((2, 4)).astype(np.float32))
    model.backward(y)
    assert_flat(model)
    assert np.all(model[0].weight.data == 1)
    with pytest.raises(ValueError, match=r"Parameter: data must have shape \(5, 4\), got \(4, 5\)"):
        model[0].weight.data = np.ones((4, 5), np.float32)


def test_adding_a_layer_gathers_the_parameters_anew(rng):
    model = small_model()
    kept = model.parameters()
    kept[0].grad.fill(7)
    model.append(nn.Linear(3, 2))
    assert_flat(model)
    assert model.parameters()[:4] == kept
    assert np.all(kept[0].grad == 7)
    assert model.parameters()[-1].name == "3.bias"
    model[-1] = nn.Linear(3, 9)
    assert_flat(model)


def test_optimiser_keeps_working_when_parameters_have_moved():
    model = small_model()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    model.append(nn.Linear(3, 2))
    model.parameters()
    model[0].weight.grad.fill(1)
    before = model[0].weight.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(model[0].weight.data, before - 1)
    optimizer.zero_grad()
    assert_flat(model)
    assert not model[0].weight.grad.any()


def test_shared_parameters_are_listed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert_flat(model)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    model.load_state_dict(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).state_dict())
    assert model[1].weight is model[0].weight
    twin = copy.deepcopy(model)
    assert twin[1].weight is twin[0].weight


def test_each_dtype_has_its_flat_array():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).to(np.float64), nn.Linear(2, 2))
    parameters = model.parameters()
    assert len({id(parameter.storage) for parameter in parameters}) == 2
    assert len(nn.flat_arrays(parameters)) == 3
    model.to(np.float64)
    assert_flat(model)
    with pytest.raises(TypeError, match=r"Sequential.to: dtype must be float32 or float64, got int32"):
        model.to(np.int32)


def test_to_converts_parameters_and_floating_buffers():
    layer = nn.BatchNorm2d(3).to(np.float64)
    kinds = {name: value.dtype for name, value in layer.state_dict().items()}
    assert kinds.pop("num_batches_tracked") == np.int64
    assert set(kinds.values()) == {np.dtype(np.float64)}
    assert layer.weight.grad.dtype == np.float64


def test_copies_and_pickles_are_models_of_their_own(rng):
    model = images_model()
    x = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    model.parameters()
    model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not any(module._saved for module in twin.modules())
        assert_flat(twin)
        for mine, yours in zip(model.parameters(), twin.parameters(), strict=True):
            np.testing.assert_array_equal(mine.data, yours.data)
            assert not np.shares_memory(mine.data, yours.data)
        y = twin.train()(x)
        twin.backward(y)
        assert not model.conv.weight.grad.any()
        twin.conv.weight.data.fill(0)
        assert model.conv.weight.data.any()
        assert repr(twin) == repr(model)


# Checkpoints


def test_torch_checkpoint_loads(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(2, 4, 3),
            norm=torch.nn.BatchNorm2d(4),
            relu=torch.nn.ReLU(),
            flatten=torch.nn.Flatten(),
        )
    )
    theirs.append(torch.nn.Linear(64, 3))
    ours = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU(), flatten=nn.Flatten())
    ).append(nn.Linear(64, 3))
    assert repr(ours) == re.sub(", inplace=False|(?<=affine=True), bias=True", "", repr(theirs))
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    x = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach(), rtol=1e-4, atol=1e-5)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})


def test_state_that_does_not_fit_is_told_in_full_and_nothing_is_loaded():
    model = small_model()
    before = model.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    state["2.weight"] = np.zeros((3, 6), np.float32)
    state["extra"] = state.pop("0.bias")
    with pytest.raises(ValueError, match=r"Sequential.load_state_dict: the state does not fit") as caught:
        model.load_state_dict(state)
    message = str(caught.value)
    assert "missing: 0.bias" in message
    assert "not in this module: extra" in message
    assert "2.weight has shape (3, 6), expected (3, 5)" in message
    with pytest.raises(ValueError, match=r"2.weight has shape") as caught:  # shapes matter in any case
        model.load_state_dict(state, strict=False)
    assert "missing" not in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_state_loads_in_part_without_strict():
    model = small_model()
    bias = model[0].bias.data.copy()
    result = model.load_state_dict({"0.weight": np.ones((5, 4)), "other": 3}, strict=False)
    assert result.missing_keys == ["0.bias", "2.weight", "2.bias"]
    assert result.unexpected_keys == ["other"]
    assert np.all(model[0].weight.data == 1)
    assert model[0].weight.dtype == np.float32
    np.testing.assert_array_equal(model[0].bias.data, bias)


def test_state_of_a_wrong_type_is_refused():
    model = small_model()
    with pytest.raises(
        TypeError, match=r"Sequential.load_state_dict: expected a mapping from names to arrays, got list"
    ):
        model.load_state_dict([1, 2])
    state = model.state_dict()
    state["2.bias"] = np.array(["a", "b", "c"])
    before = model.state_dict()
    state["0.weight"] = state["0.weight"] + 1
    with pytest.raises(TypeError, match=r"2.bias must be float32, got <U1"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model[0].weight.data, before["0.weight"])


def test_state_dict_is_a_copy():
    model = small_model()
    state = model.state_dict()
    model[0].weight.data.fill(5)
    assert not np.any(state["0.weight"] == 5)


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
        (nn.Flatten(3), (2, 3), r"Flatten: start_dim=3 to end_dim=-1 are no dimensions of shape \(2, 3\)"),
    ],
)
def test_bad_input(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, np.float32))


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


# The worked examples of the theory


def test_batch_norm_sets_mean_and_variance(rng):
    layer = nn.BatchNorm1d(3).to(np.float64)
    layer.weight.data[:] = gamma = np.array([0.5, 2.0, 3.0])
    layer.bias.data[:] = beta = np.array([1.0, -1.0, 0.0])
    y = layer(5 + 3 * rng.standard_normal((1000, 3)))
    np.testing.assert_allclose(y.mean(0), beta, atol=1e-9)
    np.testing.assert_allclose(y.var(0), gamma**2, rtol=1e-5)


def test_affine_layer_gradients_by_formula(rng):
    layer = nn.Linear(4, 3).to(np.float64)
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    np.testing.assert_allclose(layer(x), x @ layer.weight.data.T + layer.bias.data)
    np.testing.assert_allclose(layer.backward(dy), dy @ layer.weight.data)
    np.testing.assert_allclose(layer.weight.grad, dy.T @ x)
    np.testing.assert_allclose(layer.bias.grad, dy.sum(0))


def test_worked_example_of_one_hidden_unit():
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).to(np.float64)
    model.load_state_dict({"0.weight": [[1.0, 1.0]], "0.bias": [0.0], "2.weight": [[1.0]], "2.bias": [0.0]})
    criterion = nn.MSELoss()
    x, y = np.array([[2.0, 1.0], [-3.0, 2.0]]), np.array([[1.3], [1.9]])

    def gradient(x, y):
        model.zero_grad()
        loss = criterion(model(x), y)
        model.backward(criterion.backward())
        return loss, np.concatenate([parameter.grad.ravel() for parameter in model.parameters()])

    for rows, loss, expected in [
        (slice(0, 1), 2.89, [6.8, 3.4, 3.4, 10.2, 3.4]),
        (slice(1, 2), 3.61, [0, 0, 0, 0, -3.8]),
        (slice(0, 2), 3.25, [3.4, 1.7, 1.7, 5.1, -0.2]),
    ]:
        actual_loss, actual = gradient(x[rows], y[rows])
        assert actual_loss == pytest.approx(loss)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
    for parameter in model.parameters():
        parameter.data -= 0.01 * parameter.grad
    theta = np.concatenate([parameter.data.ravel() for parameter in model.parameters()])
    np.testing.assert_allclose(theta, [0.966, 0.983, -0.017, 0.949, 0.002], atol=1e-12)
    assert gradient(x[:1], y[:1])[0] == pytest.approx(2.10889, abs=5e-6)
    assert gradient(x[1:], y[1:])[0] == pytest.approx(3.60240, abs=5e-6)
    assert gradient(x, y)[0] == pytest.approx(2.85565, abs=5e-6)


def test_mlp_with_softmax_has_the_counted_parameters_and_right_gradients(rng):
    d, hidden, classes = 3, 4, 2
    model = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, classes)).to(np.float64)
    sizes = [parameter.size for parameter in model.parameters()]
    assert sum(sizes) == hidden * (d + 1) + classes * (hidden + 1) == 26
    assert sizes[0] + sizes[2] == 20
    assert sizes[1] + sizes[3] == 6
    fastnn.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    criterion = nn.CrossEntropyLoss()
    target = np.array([0, 1, 1, 0, 1])
    check_gradients(
        model, rng.standard_normal((5, d)), lambda y: (criterion(y, target), F.cross_entropy_backward(1.0, y, target))
    )


class TiedAutoencoder(nn.Module):
    """W^T W x: the weight of the encoder, transposed, is that of the decoder."""

    def __init__(self, features, hidden):
        self.weight = nn.Parameter(np.zeros((hidden, features)))
        nn.init.normal_(self.weight)

    def forward(self, input):
        code = F.linear(input, self.weight.data)
        self.save_for_backward(input, code)
        return F.linear(code, self.weight.data.T)

    def backward(self, grad_output, needs_input_grad=True):
        input, code = self.pop_saved()
        dcode, dweight, _ = F.linear_backward(grad_output, code, self.weight.data.T)
        self.weight.grad += dweight.T
        dx, dweight, _ = F.linear_backward(dcode, input, self.weight.data)
        self.weight.grad += dweight
        return dx


def test_autoencoder_with_tied_weights(rng):
    model = TiedAutoencoder(5, 3)
    criterion = nn.MSELoss("sum")
    x = rng.standard_normal((1, 5))
    loss = 0.5 * criterion(model(x), x)
    model.backward(criterion.backward(0.5))
    w, column = model.weight.data, x.T
    rest = w.T @ w @ column - column
    assert loss == pytest.approx(0.5 * np.sum(rest**2))
    np.testing.assert_allclose(model.weight.grad, w @ rest @ column.T + w @ column @ rest.T)
    numerical = numerical_gradient(lambda w: 0.5 * np.sum((x @ w.T @ w - x) ** 2), w, 1.0)
    assert_gradient(model.weight.grad, numerical)


def test_siamese_network(rng):
    layer = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).to(np.float64)
    criterion = nn.MSELoss("sum")
    x1, x2 = rng.standard_normal((2, 6, 4))
    h1, h2 = layer(x1), layer(x2)
    loss = criterion(h1, h2)
    dh = criterion.backward()
    layer.backward(-dh)  # of h2: the last use goes back first
    layer.backward(dh)
    weight, bias = layer[0].weight, layer[0].bias
    weight.grad += 2 * weight.data  # of the penalty ||W||^2
    difference = h1 - h2
    dw = 2 * weight.data + 2 * ((difference * (1 - h1**2)).T @ x1 - (difference * (1 - h2**2)).T @ x2)
    np.testing.assert_allclose(weight.grad, dw)
    np.testing.assert_allclose(bias.grad, 2 * np.sum(difference * (h2**2 - h1**2), 0))

    def objective(_):
        h1, h2 = (np.tanh(x @ weight.data.T + bias.data) for x in (x1, x2))
        return np.sum(weight.data**2) + np.sum((h1 - h2) ** 2)

    assert objective(None) == pytest.approx(loss + np.sum(weight.data**2))
    numerical = numerical_gradient(objective, weight.data, 1.0)
    assert_gradient(weight.grad, numerical)
    assert_gradient(bias.grad, numerical_gradient(objective, bias.data, 1.0))
    # A form in print has + in place of -; the check tells.
    misprint = 2 * weight.data + 2 * ((difference * (1 - h1**2)).T @ x1 + (difference * (1 - h2**2)).T @ x2)
    with pytest.raises(AssertionError, match="gradient check"):
        assert_gradient(misprint, numerical)


class TwoHeads(nn.Module):
    """A trunk that is shared by a classifier and a regressor."""

    def __init__(self):
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.classes = nn.Linear(6, 3)
        self.value = nn.Linear(6, 1)

    def forward(self, input):
        shared = self.trunk(input)
        return self.classes(shared), self.value(shared)

    def backward(self, grad_output, needs_input_grad=True):
        dclasses, dvalue = grad_output
        dshared = self.value.backward(dvalue) + self.classes.backward(dclasses)
        return self.trunk.backward(dshared, needs_input_grad=needs_input_grad)


def test_several_heads_share_a_trunk(rng):
    fastnn.manual_seed(0)
    model = TwoHeads().to(np.float64)
    losses = nn.CrossEntropyLoss(), nn.MSELoss()
    x, target, value = rng.standard_normal((5, 4)), np.array([0, 1, 2, 1, 0]), rng.standard_normal((5, 1))

    def loss_and_gradient(outputs):
        with nn.enable_grad():
            loss = losses[0](outputs[0], target) + 0.5 * losses[1](outputs[1], value)
        return loss, (losses[0].backward(), losses[1].backward(0.5))

    check_gradients(model, x, loss_and_gradient)


def test_head_is_replaced_and_trained_alone(rng):
    fastnn.manual_seed(0)
    model = nn.Sequential(OrderedDict(trunk=nn.Sequential(nn.Linear(4, 8), nn.ReLU()), head=nn.Linear(8, 5)))
    model.parameters()
    model.requires_grad_(False)
    model.head = nn.Linear(8, 2)
    before = model.trunk.state_dict()
    x = rng.standard_normal((32, 4)).astype(np.float32)
    target = (x[:, 0] > 0).astype(np.int64)
    losses = descend(model, nn.CrossEntropyLoss(), x, target, steps=50, rate=0.5)
    assert losses[-1] < 0.8 * losses[0]
    for name, value in model.trunk.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_block_of_affine_relu_batch_norm_and_dropout(rng):
    affine, norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
    block = nn.Sequential(affine, nn.ReLU(), norm, nn.Dropout(0.5)).to(np.float64)
    x = rng.standard_normal((500, 4))
    y = block(x)
    hidden = np.maximum(x @ affine.weight.data.T + affine.bias.data, 0)
    normalised = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + norm.eps)
    np.testing.assert_allclose(y[y != 0], 2 * normalised[y != 0], rtol=1e-9)
    assert np.mean(y == 0) == pytest.approx(0.5, abs=0.05)
    expected = (hidden - norm.running_mean) / np.sqrt(norm.running_var + norm.eps)
    np.testing.assert_allclose(block.eval()(x), expected, rtol=1e-9, atol=1e-12)


def test_a_convolution_needs_fewer_parameters_than_a_full_connection():
    full, shared = nn.Linear(3072, 500), nn.Conv2d(3, 100, 4)
    assert sum(parameter.size for parameter in full.parameters()) == 1_536_500
    assert sum(parameter.size for parameter in shared.parameters()) == 4_900
    y = shared(np.zeros((1, 3, 32, 32), np.float32))
    assert y.shape == (1, 100, 29, 29)
    assert y.size == 84_100


@pytest.mark.parametrize(("layers", "kernel"), [(2, 5), (3, 7)])
def test_stacked_convolutions_of_three_see_as_much_as_a_larger_one_with_fewer_parameters(layers, kernel):
    channels = 4
    stack = nn.Sequential([nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(layers)])
    for parameter in stack.parameters():
        nn.init.ones_(parameter)
    y = stack(np.ones((1, channels, 13, 13), np.float32))
    dy = np.zeros_like(y)
    dy[0, 0, 6, 6] = 1
    seen = np.any(stack.backward(dy)[0] != 0, axis=0)
    reach = kernel // 2
    expected = np.zeros((13, 13), bool)
    expected[6 - reach : 7 + reach, 6 - reach : 7 + reach] = True
    np.testing.assert_array_equal(seen, expected)
    parameters = sum(parameter.size for parameter in stack.parameters())
    assert parameters == layers * 9 * channels**2
    assert parameters < kernel**2 * channels**2


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


def test_training_reduces_the_loss(rng):
    fastnn.manual_seed(0)
    model = images_model()
    x = rng.standard_normal((24, 2, 6, 6)).astype(np.float32)
    target = rng.integers(3, size=24)
    losses = descend(model, nn.CrossEntropyLoss(), x, target, steps=30, rate=0.2)
    assert losses[-1] < 0.1 * losses[0]
    assert not any(module._saved for module in model.modules())


def test_mlp_learns_xor_and_a_linear_model_cannot():
    fastnn.manual_seed(2)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    target = np.array([0, 1, 1, 0])
    mlp = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    descend(mlp, nn.CrossEntropyLoss(), x, target, steps=400, rate=0.5)
    np.testing.assert_array_equal(mlp(x).argmax(1), target)
    linear = nn.Linear(2, 2)
    descend(linear, nn.CrossEntropyLoss(), x, target, steps=400, rate=0.5)
    assert np.mean(linear(x).argmax(1) == target) < 1


def test_a_forward_that_fails_leaves_nothing_behind(rng):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = rng.standard_normal((5, 3), dtype=np.float32)
    y = model(x)
    with pytest.raises(ValueError, match="linear: weight expects 3 input features"):
        model(x[:, :2])
    model[2] = nn.Linear(5, 2)  # the layers before the failing one have already pushed theirs
    with pytest.raises(ValueError, match="linear: weight expects 5 input features"):
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

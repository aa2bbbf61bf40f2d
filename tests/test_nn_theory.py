"""Layers and models as the theory has them: formulas, worked examples, counts of parameters."""

from collections import OrderedDict

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from tests.oracle import assert_gradient, numerical_gradient
from tests.small_models import check_gradients, descend


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

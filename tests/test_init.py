"""Initialisers: bounds and moments by formula, torch's defaults, seeds, and what each does to a deep network."""

import math
from itertools import pairwise

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.nn import init

WEIGHT = (40, 30, 3, 5)  # n_in = 30 * 15, n_out = 40 * 15
N_IN, N_OUT = 450, 600

VARIANCES = [
    ("lecun", {}, 1 / N_IN),
    ("lecun", {"mode": "fan_out"}, 1 / N_OUT),
    ("xavier", {}, 2 / (N_IN + N_OUT)),
    ("xavier", {"gain": 5 / 3}, (5 / 3) ** 2 * 2 / (N_IN + N_OUT)),
    ("kaiming", {"nonlinearity": "relu"}, 2 / N_IN),
    ("kaiming", {"mode": "fan_out", "nonlinearity": "relu"}, 2 / N_OUT),
    ("kaiming", {"a": 0.5}, 2 / (1 + 0.25) / N_IN),
]


@pytest.mark.parametrize(("family", "arguments", "variance"), VARIANCES)
def test_random_initialisers_have_the_variance_of_their_formula(family, arguments, variance, dtype):
    fastnn.manual_seed(0)
    uniform = getattr(init, f"{family}_uniform_")(np.empty(WEIGHT, dtype), **arguments)
    normal = getattr(init, f"{family}_normal_")(np.empty(WEIGHT, dtype), **arguments)
    for values in (uniform, normal):
        assert values.dtype == dtype
        assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
        assert values.var() == pytest.approx(variance, rel=0.05)
    bound = math.sqrt(3 * variance)
    assert 0.99 * bound < np.abs(uniform).max() <= bound * (1 + 1e-6)
    assert np.abs(normal).max() > 3 * math.sqrt(variance)


def test_variances_of_a_layer_from_four_to_three():
    """1/4, 1/3 and 2/7, and 2/4 for ReLU, over many draws."""
    fastnn.manual_seed(0)
    for initialise, variance in [
        (lambda w: init.lecun_normal_(w), 1 / 4),
        (lambda w: init.lecun_uniform_(w, "fan_out"), 1 / 3),
        (lambda w: init.xavier_uniform_(w), 2 / 7),
        (lambda w: init.kaiming_normal_(w, nonlinearity="relu"), 2 / 4),
    ]:
        draws = np.array([initialise(np.empty((3, 4))) for _ in range(3000)])
        assert draws.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize(
    "name", ["linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gains_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    if name == "leaky_relu":
        assert init.calculate_gain(name, 0.3) == pytest.approx(torch.nn.init.calculate_gain(name, 0.3))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Linear", (300, 200)),
        ("Conv1d", (30, 50, 5)),
        ("Conv2d", (30, 40, 3)),
        ("Conv3d", (10, 30, 3)),
        ("ConvTranspose2d", (30, 40, 3)),
        ("Embedding", (100, 70)),
    ],
)
def test_layers_start_with_the_distribution_of_torch(name, arguments):
    torch = pytest.importorskip("torch")
    fastnn.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments)
    for parameter, their_parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        values, expected = parameter.data, their_parameter.detach().numpy()
        assert values.shape == expected.shape
        few = values.size < 1000  # a bias: its deviation is known less well
        assert values.std() == pytest.approx(expected.std(), rel=0.4 if few else 0.04)
        assert np.abs(values).max() == pytest.approx(np.abs(expected).max(), rel=0.3 if name == "Embedding" else 0.15)


def test_same_seed_gives_the_same_model():
    def draw():
        model = nn.Sequential(nn.Linear(4, 5), nn.Conv2d(1, 2, 3))
        return np.concatenate([parameter.data.ravel() for parameter in model.parameters()])

    fastnn.manual_seed(7)
    first, second = draw(), draw()
    assert not np.array_equal(first, second)
    fastnn.manual_seed(7)
    np.testing.assert_array_equal(draw(), first)


@pytest.mark.parametrize(
    "name",
    [
        "uniform_",
        "normal_",
        "lecun_uniform_",
        "lecun_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "orthogonal_",
    ],
)
def test_generator_is_used_and_fastnns_own_left_alone(name):
    initialise = getattr(init, name)
    fastnn.manual_seed(1)
    before = fastnn.seed.generator().bit_generator.state
    one = initialise(np.empty((4, 5)), generator=np.random.default_rng(3))
    two = initialise(np.empty((4, 5)), generator=np.random.default_rng(3))
    np.testing.assert_array_equal(one, two)
    assert fastnn.seed.generator().bit_generator.state == before


def test_initialisers_write_in_place_and_return_their_argument():
    parameter = nn.Parameter(np.empty((3, 4), np.float32))
    data = parameter.data
    assert init.ones_(parameter) is parameter
    assert np.all(data == 1)
    assert init.xavier_uniform_(parameter) is parameter
    assert parameter.data is data
    assert len(np.unique(data)) > 1
    array = np.empty((6, 4))
    assert init.constant_(array[::2], 3).base is array
    assert np.all(array[::2] == 3)
    assert np.all(init.zeros_(array) == 0)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 2, 3, 3), (5, 5)])
def test_orthogonal_rows_or_columns(shape, dtype):
    w = init.orthogonal_(np.empty(shape, dtype), gain=2).reshape(shape[0], -1).astype(np.float64)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def activations_by_depth(initialise, nonlinearity, depth=8, width=200):
    fastnn.manual_seed(0)
    x = fastnn.seed.generator().standard_normal((100, width), np.float32)
    spread = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        initialise(layer.weight)
        init.zeros_(layer.bias)
        x = nonlinearity(layer.eval()(x))
        spread.append(float(np.sqrt(np.mean(x**2))))
    return spread


def test_zeros_keep_hidden_units_identical(rng):
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    for parameter in model.parameters():
        init.zeros_(parameter)
    x = rng.standard_normal((8, 3)).astype(np.float32)
    criterion = nn.CrossEntropyLoss()
    for _ in range(5):
        criterion(model(x), np.array([0, 1, 0, 1, 1, 1, 0, 1]))
        model.zero_grad()
        model.backward(criterion.backward())
        for parameter in model.parameters():
            parameter.data -= parameter.grad
    hidden = model[0].weight.data
    assert np.any(hidden != 0)
    np.testing.assert_array_equal(hidden, np.broadcast_to(hidden[0], hidden.shape))


def test_small_weights_shrink_activations_and_large_ones_saturate_or_blow_up():
    small = activations_by_depth(lambda w: init.normal_(w, std=0.01), np.tanh)
    assert small[-1] < 1e-4
    assert all(next_one < one for one, next_one in pairwise(small))
    assert activations_by_depth(lambda w: init.normal_(w, std=1.0), np.tanh)[-1] > 0.9
    assert activations_by_depth(lambda w: init.normal_(w, std=1.0), lambda x: np.maximum(x, 0))[-1] > 1e6


def test_xavier_keeps_tanh_and_he_keeps_relu_activations():
    xavier = activations_by_depth(init.xavier_normal_, np.tanh)
    assert 0.2 < xavier[-1] < 1
    he = activations_by_depth(lambda w: init.kaiming_normal_(w, nonlinearity="relu"), lambda x: np.maximum(x, 0))
    assert 0.5 < he[-1] < 2
    assert activations_by_depth(init.xavier_normal_, lambda x: np.maximum(x, 0))[-1] < 0.2  # loses half each layer


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: init.ones_([1, 2]), TypeError, r"constant_: tensor must be a NumPy array, got list"),
        (lambda: init.normal_(np.empty(3, int)), TypeError, r"normal_: tensor must be float32 or float64, got int64"),
        (lambda: init.normal_(np.empty(3), std=-1), ValueError, r"normal_: std must be at least 0, got -1"),
        (
            lambda: init.xavier_uniform_(np.empty(3)),
            ValueError,
            r"xavier_uniform_: tensor must have at least 2 dimensions \(out, in, ...\), got shape \(3,\)",
        ),
        (lambda: init.orthogonal_(np.empty(3)), ValueError, r"orthogonal_: tensor must have at least 2 dimensions"),
        (
            lambda: init.kaiming_normal_(np.empty((3, 4)), mode="fan"),
            ValueError,
            r"kaiming_normal_: mode must be 'fan_in' or 'fan_out', got 'fan'",
        ),
        (
            lambda: init.kaiming_normal_(np.empty((3, 4)), nonlinearity="rel"),
            ValueError,
            r"calculate_gain: nonlinearity must be leaky_relu or one of linear, .*, got 'rel'",
        ),
        (
            lambda: init.calculate_gain("leaky_relu", "x"),
            ValueError,
            r"calculate_gain: param must be leaky_relu's slope",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

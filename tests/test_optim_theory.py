"""Optimisers as the theory has them: its formulas, its variants, and what it says of them."""

import numpy as np
import pytest

from fastnn import nn, optim

LR, MOMENTUM = 0.1, 0.9


@pytest.fixture
def walk(rng):
    """A parameter and four gradients."""
    return rng.standard_normal(5), rng.standard_normal((4, 5))


def follow(name, options, start, grads):
    """The parameter after a step with each of the gradients, and the optimiser."""
    p = start.copy()
    optimizer = getattr(optim, name)([p], **{"lr": LR, **options})
    for g in grads:
        optimizer.step([g])
    return p, optimizer


def test_d1_sgd(walk):
    start, grads = walk
    np.testing.assert_allclose(follow("SGD", {}, start, grads)[0], start - LR * grads.sum(axis=0), rtol=1e-12)


def test_d2_momentum_is_a_weighted_sum_of_gradients(walk):
    start, (g1, g2, g3, g4) = walk
    velocity = -LR * (MOMENTUM**3 * g1 + MOMENTUM**2 * g2 + MOMENTUM * g3 + g4)
    _, optimizer = follow("SGD", {"momentum": MOMENTUM, "lr_in_momentum": True}, start, walk[1])
    np.testing.assert_allclose(optimizer.state_dict()["state"][0]["momentum_buffer"], velocity, rtol=1e-12)


def test_d2_the_rate_inside_the_momentum_matters_once_it_changes(walk):
    start, grads = walk
    params = [start.copy()]
    optimizer = optim.SGD(params, lr=LR, momentum=MOMENTUM, lr_in_momentum=True)
    expected, velocity, lr = start.copy(), 0.0, LR
    for g in grads:
        optimizer.step([g])
        velocity = MOMENTUM * velocity - lr * g
        expected += velocity
        lr = optimizer.param_groups[0]["lr"] = lr / 2
    np.testing.assert_allclose(params[0], expected, rtol=1e-12)


@pytest.mark.parametrize("lr_in_momentum", [False, True])
def test_d3_both_forms_of_nesterov_are_one_method_in_shifted_variables(lr_in_momentum):
    hessian = np.diag([1.0, 3.0])
    options = {"lr": LR, "momentum": MOMENTUM, "lr_in_momentum": lr_in_momentum}
    start = np.array([1.0, -2.0])
    ahead, shifted, plain, velocity = start.copy(), start.copy(), start.copy(), np.zeros(2)
    first, second = optim.SGD([ahead], **options), optim.SGD([shifted], nesterov=True, **options)
    for _ in range(10):
        with first.lookahead():
            gradient = hessian @ ahead
        first.step([gradient])
        second.step([hessian @ shifted])
        velocity = MOMENTUM * velocity - LR * hessian @ (plain + MOMENTUM * velocity)
        plain += velocity
        np.testing.assert_allclose(ahead, plain, rtol=1e-12)
        np.testing.assert_allclose(shifted, plain + MOMENTUM * velocity, rtol=1e-12)


NU = 1e-7


def test_d4_adagrad_adds_nu_outside_the_root(walk):
    start, grads = walk
    expected, s = start.copy(), 0.0
    for g in grads * 1e-6:  # small enough for nu to matter
        s = s + g * g
        expected -= LR * g / (np.sqrt(s) + NU)
    np.testing.assert_allclose(follow("Adagrad", {"eps": NU}, start, grads * 1e-6)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, MOMENTUM], ids=["d5", "d6"])
def test_d5_d6_rmsprop_with_and_without_momentum(walk, momentum):
    start, grads = walk
    expected, s, velocity = start.copy(), 0.0, 0.0
    for g in grads * 1e-6:
        s = 0.9 * s + 0.1 * g * g
        velocity = momentum * velocity - LR * g / (np.sqrt(s) + NU)
        expected += velocity
    options = {"eps": NU, "alpha": 0.9, "momentum": momentum, "lr_in_momentum": momentum > 0}
    np.testing.assert_allclose(follow("RMSprop", options, start, grads * 1e-6)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("bias_correction", [False, True])
def test_d7_adam_without_and_with_bias_correction(walk, bias_correction):
    start, grads = walk
    expected, v, s = start.copy(), 0.0, 0.0
    for t, g in enumerate(grads * 1e-6, 1):
        v = 0.9 * v + 0.1 * g
        s = 0.99 * s + 0.01 * g * g
        first, second = (v / (1 - 0.9**t), s / (1 - 0.99**t)) if bias_correction else (v, s)
        expected -= LR * first / (np.sqrt(second) + NU)
    options = {"eps": NU, "betas": (0.9, 0.99), "bias_correction": bias_correction}
    np.testing.assert_allclose(follow("Adam", options, start, grads * 1e-6)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.24, 0.26, 0.5])
def test_d8_gradient_descent_converges_iff_rate_times_eigenvalue_is_below_one(rate):
    hessian = np.array([[3.0, 1.0], [1.0, 3.0]])  # eigenvalues 2 and 4: the limit is a rate of 1/4
    start = np.array([1.0, 0.5])
    w = start.copy()
    optimizer = optim.SGD([w], lr=rate)
    for _ in range(200):
        optimizer.step([2 * hessian @ w])
    expected = np.linalg.matrix_power(np.eye(2) - 2 * rate * hessian, 200) @ start
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-12)
    assert (np.linalg.norm(w) < 1e-3) == (rate * 4 < 1)


def test_d8_one_newton_step_reaches_the_minimum():
    hessian = np.array([[3.0, 1.0], [1.0, 3.0]])
    w = np.array([1.0, 0.5])
    optim.SGD([w], lr=1.0).step([np.linalg.solve(2 * hessian, 2 * hessian @ w)])
    np.testing.assert_allclose(w, 0, atol=1e-15)


def test_d10_a_mini_batch_gradient_is_unbiased_and_its_variance_falls_as_one_over_m(rng):
    x, target = rng.standard_normal((50, 3)), rng.standard_normal((50, 1))
    layer, criterion = nn.Linear(3, 1).to(np.float64), nn.MSELoss()

    def gradient(rows):
        criterion(layer(x[rows]), target[rows])
        layer.zero_grad()
        layer.backward(criterion.backward(), needs_input_grad=False)
        return layer.weight.grad[0].copy()

    batch_gradient = gradient(np.arange(50))
    single = np.mean([np.sum((gradient([i]) - batch_gradient) ** 2) for i in range(50)])
    samples = 2000
    for m in (1, 4, 16):
        gradients = np.array([gradient(rng.integers(0, 50, m)) for _ in range(samples)])
        deviation = np.sqrt(single / m / samples)
        assert np.linalg.norm(gradients.mean(0) - batch_gradient) < 4 * deviation
        assert np.mean(np.sum((gradients - batch_gradient) ** 2, axis=1)) == pytest.approx(single / m, rel=0.15)


def test_c3_weight_decay_shrinks_the_weights_by_the_rate_times_alpha(walk):
    start, grads = walk
    expected = (1 - LR * 0.3) * start - LR * grads[0]
    np.testing.assert_allclose(follow("SGD", {"weight_decay": 0.3}, start, grads[:1])[0], expected, rtol=1e-12)
    expected = start - LR * 0.3 * np.sign(start) - LR * grads[0]
    np.testing.assert_allclose(follow("SGD", {"l1_subgradient": 0.3}, start, grads[:1])[0], expected, rtol=1e-12)


def test_c3_the_proximal_l1_step_gives_exact_zeros_and_the_subgradient_does_not(isa, dtype):
    target = np.linspace(-2, 2, 41).astype(dtype)  # minimise |w - target|^2 / 2 + 0.55 |w|_1
    weights = {}
    for penalty in ("l1", "l1_subgradient"):
        w = weights[penalty] = np.ones(41, dtype)
        optimizer = optim.SGD([w], lr=0.1, **{penalty: 0.55})
        for _ in range(200):
            optimizer.step([w - target])
    solution = np.sign(target) * np.maximum(np.abs(target) - 0.55, 0)
    np.testing.assert_allclose(weights["l1"], solution, atol=1e-5)
    np.testing.assert_array_equal(weights["l1"] == 0, np.abs(target) < 0.55)
    assert (weights["l1_subgradient"] == 0).sum() <= 1  # the middle one may stand at sign(0) = 0

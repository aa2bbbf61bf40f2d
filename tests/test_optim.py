"""Optimisers: native against reference and torch, the theory's variants, masks, schedules, saving, bad input."""

import numpy as np
import pytest

import fastnn
from fastnn import optim
from tests.oracle import assert_matches, error

# name, options: every option at least once. The rates make twenty steps move about as far as the parameters are large.
CASES = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("Adagrad", {}),
    (
        "Adagrad",
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True},
    ),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.7, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "eps": 1e-2}),
    ("RMSprop", {"centered": True, "eps": 1e-2, "momentum": 0.5, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.4, 0.8), "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"amsgrad": True, "betas": (0.9, 0.7)}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.3, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"rho": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"betas": (0.5, 0.7), "eps": 1e-2, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"momentum_decay": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("RAdam", {}),
    ("RAdam", {"betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
]
OURS = [  # options that torch does not have
    ("SGD", {"momentum": 0.9, "lr_in_momentum": True, "dampening": 0.2}),
    ("SGD", {"momentum": 0.9, "lr_in_momentum": True, "nesterov": True}),
    ("SGD", {"l1": 0.5, "l1_subgradient": 0.3, "momentum": 0.9}),
    ("RMSprop", {"momentum": 0.9, "lr_in_momentum": True}),
    ("Adam", {"bias_correction": False, "l1": 0.2}),
    ("Adagrad", {"l1": 0.2, "l1_subgradient": 0.1}),
]
SHAPES = [(3, 5), (), (17,), (0, 4), (2, 3, 11), (16385,), (33,)]
STEPS = 20


def name_of(case):
    return "-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    name, options = request.param
    return name, {"lr": 1.0 if name == "Adadelta" else 0.1, **options}


def problem(dtype, shapes=SHAPES, steps=STEPS, seed=0):
    """Parameters, and the gradients of every step."""
    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    grads = [[np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes] for _ in range(steps)]
    return params, grads


def train(name, options, params, grads, **arguments):
    """Copies of the parameters after a step with each of the gradients, and the optimiser."""
    params = [p.copy() for p in params]
    optimizer = getattr(optim, name)(params, **options, **arguments)
    for grad in grads:
        optimizer.step(grad)
    return params, optimizer


def doubled(arrays):
    return [x.astype(np.float64) for x in arrays]


@pytest.mark.parametrize(
    "case", [(n, {"lr": 1.0 if n == "Adadelta" else 0.1, **o}) for n, o in CASES + OURS], ids=name_of
)
@pytest.mark.parametrize("steps", [1, STEPS])
def test_steps_match_the_reference(case, steps, isa, dtype):
    params, grads = problem(dtype, steps=steps)
    kernel = "optim" if steps == 1 else "optim_20_steps"
    masks = [None, None, np.arange(17) % 3 > 0, None, np.ones((2, 3, 11), bool), np.arange(16385) % 7 > 0, None]
    actual, optimizer = train(*case, params, grads, masks=masks)
    with fastnn.backend("reference"):
        expected, oracle = train(*case, doubled(params), [doubled(grad) for grad in grads], masks=masks)
    for i, (p, q) in enumerate(zip(actual, expected, strict=True)):
        assert p.dtype == dtype
        assert_matches(p, q, kernel)
        buffers, exact = optimizer.state_dict()["state"][i], oracle.state_dict()["state"][i]
        for buffer in (name for name in buffers if name not in ("step", "mu_product")):
            assert_matches(buffers[buffer], exact[buffer], kernel)


def test_twenty_steps_match_torch(case, dtype):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    name, options = case
    params, grads = problem(dtype)
    theirs = [torch.tensor(p) for p in params]
    oracle = getattr(torch.optim, name)(theirs, foreach=False, **options)
    for grad in grads:
        for t, g in zip(theirs, grad, strict=True):
            t.grad = torch.tensor(g)
        oracle.step()
    actual, _ = train(name, options, params, grads)
    for p, t in zip(actual, theirs, strict=True):
        # torch keeps NAdam's product of momenta in float32
        assert error(p, t.numpy()) < (1e-5 if dtype == np.float32 else 1e-6 if name == "NAdam" else 1e-12)


def test_defaults_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Adadelta", "Adamax", "NAdam", "RAdam"):
        ours = getattr(optim, name)([np.zeros(1)]).param_groups[0]
        theirs = getattr(torch.optim, name)([torch.zeros(1)]).param_groups[0]
        for option in set(ours) & set(theirs) - {"params"}:
            assert ours[option] == theirs[option], (name, option)

"""Schedules of the learning rate: against torch, resuming, bad input."""

import math

import numpy as np
import pytest

from fastnn import nn, optim

SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [7, 2, 7], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.02}),
    ("LinearLR", {"start_factor": 0.25, "total_iters": 6}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
]


def rates(scheduler, optimizer, epochs=30, step=None):
    """Rates of all groups, epoch by epoch."""
    seen = []
    for epoch in range(epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step() if step is None else step(scheduler, epoch)
    return np.array(seen)


def optimisers(torch):
    """One of ours and one of torch's, with two groups."""
    ours = optim.SGD([{"params": [nn.Parameter(np.ones(n))], "lr": lr} for n, lr in ((1, 0.5), (2, 2.0))], lr=0.5)
    return ours, torch.optim.SGD([{"params": [torch.ones(1)]}, {"params": [torch.ones(2)], "lr": 2.0}], lr=0.5)


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_schedules_match_torch(name, options):
    torch = pytest.importorskip("torch")
    ours, theirs = optimisers(torch)
    scheduler = getattr(optim.lr_scheduler, name)(ours, **options)
    oracle = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    np.testing.assert_allclose(rates(scheduler, ours), rates(oracle, theirs), rtol=1e-9, atol=1e-12)
    assert scheduler.get_last_lr() == [group["lr"] for group in ours.param_groups]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_a_sequence_of_schedules_matches_torch(name, options):
    torch = pytest.importorskip("torch")
    ours, theirs = optimisers(torch)
    seen = []
    for module, optimizer in ((optim.lr_scheduler, ours), (torch.optim.lr_scheduler, theirs)):
        parts = [
            module.LinearLR(optimizer, start_factor=0.1, total_iters=4),
            getattr(module, name)(optimizer, **options),
            module.ExponentialLR(optimizer, gamma=0.9),
        ]
        seen.append(rates(module.SequentialLR(optimizer, parts, milestones=[4, 20]), optimizer))
    np.testing.assert_allclose(*seen, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_reduce_on_plateau_matches_torch(mode, threshold_mode, rng):
    torch = pytest.importorskip("torch")
    ours, theirs = optimisers(torch)
    options = {"mode": mode, "threshold_mode": threshold_mode, "factor": 0.5, "patience": 2, "cooldown": 1}
    options |= {"threshold": 0.05, "min_lr": [0.01, 0.3]}
    metrics = np.cumsum(rng.standard_normal(60))
    metrics[10] = np.nan

    def step(scheduler, epoch):
        scheduler.step(metrics[epoch])

    scheduler = optim.lr_scheduler.ReduceLROnPlateau(ours, **options)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    np.testing.assert_allclose(rates(scheduler, ours, 60, step), rates(oracle, theirs, 60, step))


def test_schedules_resume_from_their_state():
    for name, options in SCHEDULES:
        optimizer = optim.SGD([np.zeros(1)], lr=0.5)
        scheduler = getattr(optim.lr_scheduler, name)(optimizer, **options)
        for _ in range(4):
            scheduler.step()
        resumed = optim.SGD([np.zeros(1)], lr=9.0)
        resumed.load_state_dict(optimizer.state_dict())
        again = getattr(optim.lr_scheduler, name)(resumed, **options)
        again.load_state_dict(scheduler.state_dict())
        continued = getattr(optim.lr_scheduler, name)(resumed, **options, last_epoch=3)
        scheduler.step()
        continued.step()
        assert continued.get_last_lr() == scheduler.get_last_lr()
        again.step()
        assert again.get_last_lr() == scheduler.get_last_lr()
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    plateau.step(1.0)
    other = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    other.load_state_dict(plateau.state_dict())
    assert other.best == 1.0


def test_warm_restarts_follow_the_curve_within_an_epoch():
    optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    scheduler = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    for epoch in (0.5, 1.0, 1.5, 2.5):
        scheduler.step(epoch)
        assert scheduler.get_last_lr()[0] == pytest.approx((1 + math.cos(math.pi * (epoch % 2) / 2)) / 2)


X = np.ones(3)
BAD_SCHEDULES = [
    (lambda o, s: s.StepLR(1, 2), TypeError, "StepLR: optimizer must be a fastnn optimiser, got int"),
    (lambda o, s: s.StepLR(o, 0), ValueError, "StepLR: step_size must be at least 1, got 0"),
    (lambda o, s: s.StepLR(o, 1, last_epoch=3), ValueError, r'StepLR: param_groups\[0\] needs "initial_lr" to resume'),
    (lambda o, s: s.StepLR(o, 1).step(-1), ValueError, "StepLR.step: epoch must be at least 0, got -1"),
    (lambda o, s: s.MultiStepLR(o, 3), TypeError, "MultiStepLR: milestones must be a list of epochs, got int"),
    (lambda o, s: s.ExponentialLR(o, -1), ValueError, "ExponentialLR: gamma must be at least 0, got -1"),
    (lambda o, s: s.CosineAnnealingLR(o, 0), ValueError, "CosineAnnealingLR: T_max must be at least 1, got 0"),
    (lambda o, s: s.CosineAnnealingWarmRestarts(o, 1.5), TypeError, "T_0 must be an integer, got 1.5"),
    (lambda o, s: s.LinearLR(o, start_factor=2), ValueError, "LinearLR: start_factor must be from 0 to 1, got 2"),
    (lambda o, s: s.LambdaLR(o, [abs, abs]), ValueError, "LambdaLR: lr_lambda must have 1 functions, got 2"),
    (lambda o, s: s.LambdaLR(o, 1.0), TypeError, "LambdaLR: lr_lambda must be a function of the epoch"),
    (lambda o, s: s.SequentialLR(o, [s.StepLR(o, 1)], [1]), ValueError, "1 schedulers need 0 milestones, got 1"),
    (lambda o, s: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], []), TypeError, "must depend on the epoch alone"),
    (
        lambda o, s: s.SequentialLR(optim.SGD([X]), [s.StepLR(o, 1)], []),
        ValueError,
        "belongs to another optimiser",
    ),
    (lambda o, s: s.ReduceLROnPlateau(o, mode="up"), ValueError, "mode must be one of 'min', 'max', got 'up'"),
    (lambda o, s: s.ReduceLROnPlateau(o, factor=1), ValueError, "factor must be below 1, got 1"),
    (
        lambda o, s: s.ReduceLROnPlateau(o, min_lr=[0, 0]),
        ValueError,
        r"min_lr must be a number or 1 of them, got \[0, 0\]",
    ),
]


@pytest.mark.parametrize(("call", "exception", "message"), BAD_SCHEDULES)
def test_bad_schedules_are_refused(call, exception, message):
    optimizer = optim.SGD([np.ones(1)], lr=0.5)
    with pytest.raises(exception, match=message):
        call(optimizer, optim.lr_scheduler)

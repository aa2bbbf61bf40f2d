"""Optimisers: native against reference and torch, memory, masks, clipping, groups, saving, bad input."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
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


def test_twenty_steps_match_torch(isa, case, dtype):
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


def test_the_two_backends_share_their_state_layout(dtype):
    params, grads = problem(dtype, steps=3)
    _, optimizer = train("Adam", {}, params, grads)
    with fastnn.backend("reference"):
        _, oracle = train("Adam", {}, params, grads)
    assert optimizer.state_dict()["state"][0].keys() == oracle.state_dict()["state"][0].keys()


# ---------------------------------------------------------------------------------------------------------------------
# Memory: spans, threads, strides
# ---------------------------------------------------------------------------------------------------------------------


def flat_views(flat, cuts):
    return np.split(flat, cuts)


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 40000), max_size=6).map(sorted),
    gaps=st.booleans(),
    masked=st.booleans(),
    name=st.sampled_from(["SGD", "Adam", "RMSprop"]),
)
def test_views_of_a_flat_buffer_step_as_separate_arrays_do(cuts, gaps, masked, name):
    rng = np.random.default_rng(len(cuts))
    data, grad = rng.standard_normal((2, 40000)).astype(np.float32)
    mask = rng.random(40000) > 0.3
    views, grads, masks = (flat_views(array, cuts) for array in (data, grad, mask))
    if gaps:  # every other view leaves its neighbours apart
        views, grads, masks = views[::2], grads[::2], masks[::2]
    apart, apart_grads = [v.copy() for v in views], [g.copy() for g in grads]
    for params, gradients in ((views, grads), (apart, apart_grads)):
        optimizer = getattr(optim, name)(params, lr=0.1, masks=masks if masked else None)
        for _ in range(2):
            optimizer.step(gradients)
    for view, other in zip(views, apart, strict=True):
        np.testing.assert_array_equal(view, other)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adadelta", "Adamax"])
def test_every_number_of_threads_gives_the_same_bits(name, dtype):
    params, grads = problem(dtype, [(300, 401), (7,), (50000,)], steps=2)
    results = []
    for count in (1, 2, 5):
        with fastnn.threads(count):
            stepped, _ = train(name, {"lr": 0.1}, params, grads)
            clipped = [g.copy() for g in grads[0]]
            norm = F.clip_grad_norm_(clipped, 1.0)
        results.append([*stepped, *clipped, np.float64(norm)])
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(x, y)


def strided(arrays, how):
    """The same values behind other strides; parameters stay writeable."""
    if how == "fortran":
        return [np.asfortranarray(x) for x in arrays]
    wide = [np.zeros((2 * x.shape[0], *x.shape[1:]), x.dtype) for x in arrays]
    views = [w[::-2] if how == "negative" else w[::2] for w in wide]
    for view, x in zip(views, arrays, strict=True):
        view[...] = x
    return views


@pytest.mark.parametrize("how", ["fortran", "negative", "gaps"])
def test_parameters_gradients_and_masks_may_have_any_strides(how, isa, dtype):
    params, grads = problem(dtype, [(6, 7), (5, 4, 3)], steps=2)
    masks = [np.arange(42).reshape(6, 7) % 2 > 0, None]
    expected, _ = train("Adam", {"lr": 0.1}, params, grads, masks=masks)
    params = strided(params, how)
    optimizer = optim.Adam(params, lr=0.1, masks=[strided(masks[:1], how)[0], None])
    for grad in grads:
        grad = strided(grad, how)
        for g in grad:
            g.flags.writeable = False
        optimizer.step(grad)
    for p, q in zip(params, expected, strict=True):
        np.testing.assert_array_equal(p, q)


def test_gradients_are_only_read(dtype):
    params, grads = problem(dtype, steps=1)
    before = [g.copy() for g in grads[0]]
    for name, options in CASES:
        train(name, options, params, grads)
    for g, b in zip(grads[0], before, strict=True):
        np.testing.assert_array_equal(g, b)


def test_nan_and_infinity_go_where_torch_sends_them(case, isa, dtype):
    torch = pytest.importorskip("torch")
    name, options = case
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 1.0], dtype)
    p, g = (np.ascontiguousarray(x).reshape(-1) for x in np.meshgrid(special, special))
    theirs = torch.tensor(p)
    oracle = getattr(torch.optim, name)([theirs], foreach=False, **options)
    (actual,), _ = train(name, options, [p], [[g], [np.ones_like(g)]])
    for gradient in (g, np.ones_like(g)):
        theirs.grad = torch.tensor(gradient)
        oracle.step()
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(theirs.numpy()))
    finite = np.isfinite(actual)
    np.testing.assert_allclose(actual[finite], theirs.numpy()[finite], rtol=1e-5, atol=1e-6)


def test_empty_lists_and_arrays_are_fine(isa, dtype):
    F.sgd_([], [], lr=0.1)
    assert F.nadam_([], [], [], [], step=1, mu_product=0.5, lr=0.1) == 0.5
    empty = np.zeros((0, 3), dtype)
    F.adam_([empty], [empty], [empty.copy()], [empty.copy()], step=1, lr=0.1)
    assert F.clip_grad_norm_([], 1.0) == 0.0
    assert F.clip_grad_norm_([empty], 1.0) == 0.0


def test_f3_masked_weights_stay_exactly_zero_in_every_optimiser(case, isa, dtype):
    name, options = case
    params, grads = problem(dtype, [(9, 11), (40,)])
    optimizer = getattr(optim, name)(params, **options)
    for grad in grads[:5]:
        optimizer.step(grad)  # momentum has built up
    masks = [np.arange(99).reshape(9, 11) % 3 > 0, None]
    optimizer.param_groups[0]["masks"] = masks
    for grad in grads[5:10]:
        grad[0][0, 0] = np.nan  # and a pruned weight's gradient counts for nothing
        optimizer.step(grad)
        assert not params[0][~masks[0]].any()
    assert np.isfinite(params[0]).all()
    assert params[0][masks[0]].all()
    for buffer in (x for x in optimizer.state_dict()["state"][0].values() if isinstance(x, np.ndarray)):
        assert np.isfinite(buffer).all()


# ---------------------------------------------------------------------------------------------------------------------
# Clipping
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e9])
def test_clip_grad_norm_scales_to_the_norm_of_all_arrays(max_norm, isa, dtype):
    grads, _ = problem(dtype)
    before = doubled(grads)
    norm = np.sqrt(sum(np.sum(g**2) for g in before))
    assert F.clip_grad_norm_(grads, max_norm) == pytest.approx(norm, rel=1e-14)
    for g, b in zip(grads, before, strict=True):
        assert_matches(g, b * min(1, max_norm / (norm + 1e-6)), "clip")


def test_clip_grad_norm_matches_torch(isa, dtype):
    torch = pytest.importorskip("torch")
    for norm_type in (2.0, math.inf):
        for bad in (1.0, np.nan, np.inf):
            grads, _ = problem(dtype, [(3, 5), (17,)])
            grads[1][3] = bad
            theirs = [torch.zeros(g.shape, dtype=getattr(torch, str(dtype))) for g in grads]
            for t, g in zip(theirs, grads, strict=True):
                t.grad = torch.tensor(g)
            expected = torch.nn.utils.clip_grad_norm_(theirs, 1.5, norm_type).item()
            assert F.clip_grad_norm_(grads, 1.5, norm_type) == pytest.approx(expected, rel=1e-6, nan_ok=True)
            for t, g in zip(theirs, grads, strict=True):
                np.testing.assert_allclose(g, t.grad.numpy(), rtol=1e-5)


def test_d9_a_clipped_gradient_has_the_norm_and_the_direction(rng):
    g = rng.standard_normal(100) * 10
    before = g.copy()
    F.clip_grad_norm_(g, 2.0)
    np.testing.assert_allclose(g, before * 2.0 / np.linalg.norm(before), rtol=1e-7)


def test_clip_grad_norm_does_not_overflow(isa):
    g = np.full(1000, 1e30, np.float32)
    assert F.clip_grad_norm_([g], 1.0) == pytest.approx(1e30 * math.sqrt(1000), rel=1e-6)
    assert np.linalg.norm(g) == pytest.approx(1.0, rel=1e-6)


def test_clip_grad_norm_over_parameters_of_both_dtypes_and_without_gradients():
    parameters = [Parameter(np.zeros(1, np.float32)), Parameter(np.zeros(1)), Parameter(np.zeros(3))]
    parameters[0].grad = np.array([3.0], np.float32)
    parameters[1].grad = np.array([4.0])
    assert optim.clip_grad_norm_(iter(parameters), 1.0) == 5.0
    assert parameters[0].grad == pytest.approx(0.6, rel=1e-6)
    assert parameters[1].grad == pytest.approx(0.8, rel=1e-6)
    optim.clip_grad_value_(parameters, 0.7)
    assert parameters[1].grad == 0.7


def test_clip_grad_norm_can_refuse_what_is_not_finite():
    g = np.array([1.0, np.inf])
    with pytest.raises(RuntimeError, match="clip_grad_norm_: the norm of the gradients is inf"):
        F.clip_grad_norm_([g], 1.0, error_if_nonfinite=True)
    assert g[0] == 1.0


def test_clip_grad_norm_of_an_infinite_gradient_is_torchs(isa, dtype):
    """The factor is 0: what is finite becomes 0, and the infinity NaN."""
    torch = pytest.importorskip("torch")
    for norm_type in (2.0, math.inf):
        grads = [np.array([1.0, -np.inf, -2.0], dtype), np.array([3.0], dtype)]
        theirs = [torch.zeros(g.shape, dtype=getattr(torch, str(dtype))) for g in grads]
        for t, g in zip(theirs, grads, strict=True):
            t.grad = torch.tensor(g)
        assert F.clip_grad_norm_(grads, 1.0, norm_type) == math.inf
        assert torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type).item() == math.inf
        np.testing.assert_array_equal(grads[0], [0.0, np.nan, 0.0])
        np.testing.assert_array_equal(grads[1], [0.0])
        for t, g in zip(theirs, grads, strict=True):
            np.testing.assert_array_equal(g, t.grad.numpy())
        with pytest.raises(RuntimeError, match="non-finite"):
            torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type, error_if_nonfinite=True)
        with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
            F.clip_grad_norm_(grads, 1.0, norm_type, error_if_nonfinite=True)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_clip_grad_value_clamps_and_keeps_nan(backend, isa, dtype):
    g = np.array([np.nan, np.inf, -np.inf, 0.5, -3.0, 2.0, -0.0] * 3, dtype)
    with fastnn.backend(backend):
        F.clip_grad_value_([g], 2.0)
    np.testing.assert_array_equal(g, np.array([np.nan, 2.0, -2.0, 0.5, -2.0, 2.0, 0.0] * 3, dtype))


def test_clip_grad_value_matches_torch(isa, dtype, rng):
    torch = pytest.importorskip("torch")
    g = (3 * rng.standard_normal(1031)).astype(dtype)
    g[[3, 500, 1030]] = np.nan, np.inf, -np.inf
    theirs = torch.zeros(g.shape, dtype=getattr(torch, str(dtype)))
    theirs.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_value_(theirs, 1.5)
    F.clip_grad_value_(g, 1.5)
    np.testing.assert_array_equal(g, theirs.grad.numpy())


def test_clipping_takes_any_strides(dtype, rng):
    wide = rng.standard_normal((8, 6)).astype(dtype)
    expected = wide[::2, ::-1] / np.linalg.norm(wide[::2])
    rest = wide[1::2].copy()
    F.clip_grad_norm_([wide[::2, ::-1]], 1.0)
    np.testing.assert_allclose(wide[::2, ::-1], expected, rtol=1e-5)
    np.testing.assert_array_equal(wide[1::2], rest)


# ---------------------------------------------------------------------------------------------------------------------
# The classes: parameters, groups, saving
# ---------------------------------------------------------------------------------------------------------------------


class Parameter:
    """What the optimisers need of one."""

    def __init__(self, data, grad=None, requires_grad=True):
        self.data = data
        self.grad = grad
        self.requires_grad = requires_grad


def test_parameters_bring_their_gradients_and_frozen_ones_stay():
    p, frozen, unused = (
        Parameter(np.ones(2), np.ones(2)),
        Parameter(np.ones(2), np.ones(2), False),
        Parameter(np.ones(2)),
    )
    optimizer = optim.Adam([p, frozen, unused], lr=0.1)
    optimizer.step()
    np.testing.assert_allclose(p.data, 0.9, rtol=1e-6)
    np.testing.assert_array_equal(frozen.data, 1)
    np.testing.assert_array_equal(unused.data, 1)
    gradient = p.grad
    optimizer.zero_grad()
    assert p.grad is gradient
    assert not gradient.any()


def test_a_parameter_that_joins_later_counts_its_own_steps():
    torch = pytest.importorskip("torch")
    late, early = Parameter(np.ones(3)), Parameter(np.ones(3))
    theirs = [torch.ones(3, dtype=torch.float64) for _ in range(2)]
    for name in ("Adam", "NAdam", "SGD"):
        options = {"lr": 0.1, **({"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {})}
        ours, oracle = getattr(optim, name)([late, early], **options), getattr(torch.optim, name)(theirs, **options)
        for step in range(4):
            early.grad, late.grad = np.full(3, 0.5 + step), np.ones(3) if step > 1 else None
            theirs[1].grad = torch.tensor(early.grad)
            theirs[0].grad = torch.ones(3, dtype=torch.float64) if step > 1 else None
            ours.step()
            oracle.step()
        np.testing.assert_allclose(late.data, theirs[0].numpy(), rtol=1e-6)
        np.testing.assert_allclose(early.data, theirs[1].numpy(), rtol=1e-6)


def test_groups_have_rates_of_their_own_and_may_be_added():
    a, b, c = np.ones(2), np.ones(2, np.float32), np.ones(2)
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.1)
    optimizer.add_param_group({"params": [c], "weight_decay": 1.0})
    optimizer.step([np.ones(2), np.ones(2, np.float32), np.ones(2)])
    np.testing.assert_allclose(a, 0.5)
    np.testing.assert_allclose(b, 0.9, rtol=1e-6)
    np.testing.assert_allclose(c, 0.8)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step([np.ones(2), None, None])
    np.testing.assert_allclose(a, 0.5)


def test_state_dict_resumes_exactly(case, dtype):
    name, options = case
    params, grads = problem(dtype, [(3, 5), (17,)], steps=6)
    whole, _ = train(name, options, params, grads)
    half, optimizer = train(name, options, params, grads[:3])
    saved = optimizer.state_dict()
    optimizer.step(grads[3])  # the saved state is a copy
    half, _ = train(name, options, params, grads[:3])
    resumed = getattr(optim, name)(half, lr=7.0)
    resumed.load_state_dict(saved)
    for grad in grads[3:]:
        resumed.step(grad)
    for p, q in zip(half, whole, strict=True):
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_an_optimiser_goes_on_by_itself(duplicate):
    params, grads = problem(np.dtype(np.float32), [(3, 5), (17,)], steps=2)
    optimizer = optim.Adam(params, lr=0.1)
    optimizer.step(grads[0])
    twin = duplicate(optimizer)
    before = [p.copy() for p in params]
    twin.step(grads[1])
    for p, q in zip(params, before, strict=True):
        np.testing.assert_array_equal(p, q)
    optimizer.step(grads[1])
    for p, q in zip(params, twin.param_groups[0]["params"], strict=True):
        np.testing.assert_array_equal(p, q.data)


def test_a_model_steps_as_its_arrays_do():
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    parameters = list(model.parameters())
    arrays = [p.data.copy() for p in parameters]
    first, second = optim.AdamW(parameters, lr=0.1), optim.AdamW(arrays, lr=0.1)
    for seed in range(3):
        grads = problem(parameters[0].dtype, [p.shape for p in parameters], 1, seed)[0]
        for p, g in zip(parameters, grads, strict=True):
            p.grad[...] = g
        norm = optim.clip_grad_norm_(model.parameters(), 1.0)
        assert norm == pytest.approx(F.clip_grad_norm_(grads, 1.0), rel=1e-12)
        first.step()
        second.step(grads)
        first.zero_grad()
        assert not any(p.grad.any() for p in parameters)
    for p, x in zip(parameters, arrays, strict=True):
        np.testing.assert_array_equal(p.data, x)


def test_a_torch_state_dict_can_be_loaded(case):
    torch = pytest.importorskip("torch")
    name, options = case
    params, grads = problem(np.dtype(np.float64), [(3, 5), (17,)], steps=6)
    theirs = [torch.tensor(p) for p in params]
    oracle = getattr(torch.optim, name)(theirs, foreach=False, **options)
    for step, grad in enumerate(grads):
        if step == 3:
            params = [t.numpy().copy() for t in theirs]
            optimizer = getattr(optim, name)(params)
            optimizer.load_state_dict(oracle.state_dict())
        for t, g in zip(theirs, grad, strict=True):
            t.grad = torch.tensor(g)
        oracle.step()
        if step >= 3:
            optimizer.step(grad)
    for p, t in zip(params, theirs, strict=True):
        np.testing.assert_allclose(p, t.numpy(), rtol=1e-6)


def test_load_state_dict_refuses_what_does_not_fit_and_changes_nothing():
    p = np.ones(3)
    optimizer = optim.Adam([p], lr=0.1)
    optimizer.step([np.ones(3)])
    before = optimizer.state_dict()
    changes = [
        (
            lambda d: d["state"][0].update(exp_avg=np.zeros(4)),
            ValueError,
            r"exp_avg of parameter 0 must have shape \(3,\)",
        ),
        (lambda d: d["state"][0].update(exp_avg=np.zeros(3, "f4")), TypeError, r"exp_avg of parameter 0 must have"),
        (lambda d: d["state"][0].pop("exp_avg_sq"), ValueError, "exp_avg_sq of parameter 0 is missing"),
        (lambda d: d["param_groups"][0].update(params=[0, 1]), ValueError, r"expected groups of \[1\] parameters"),
        (lambda d: d["param_groups"][0].update(lr=-1.0), ValueError, "Adam: lr must be at least 0"),
    ]
    for change, exception, message in changes:
        broken = optimizer.state_dict()
        change(broken)
        with pytest.raises(exception, match=message):
            optimizer.load_state_dict(broken)
        after = optimizer.state_dict()
        np.testing.assert_array_equal(after["state"][0]["exp_avg"], before["state"][0]["exp_avg"])
        assert after["param_groups"] == before["param_groups"]


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_arrays_that_lie_between_one_another_are_updated_and_those_that_overlap_are_not(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(fastnn.runtime, "native_runtime", None)
    whole = np.zeros((6, 8))
    columns = [whole[:, 0::2], whole[::-1, 1::2][:, :2], whole[:, 5:6], whole[:3, 7], whole[3:, 7]]
    empty = np.zeros((0, 3))
    params = [*columns, whole[:0], empty, empty]
    F.sgd_(params, [np.ones(p.shape) for p in params], lr=1.0)
    np.testing.assert_array_equal(whole, -1.0)
    optim.SGD(params)
    for wrong in (whole[2:3], whole[5:, 7:], whole.T[7, ::-2]):
        before = whole.copy()
        with pytest.raises(ValueError, match=r"sgd_: .*share memory, and both would be changed"):
            F.sgd_([*columns, wrong], [np.ones(p.shape) for p in [*columns, wrong]], lr=1.0)
        np.testing.assert_array_equal(whole, before)
        with pytest.raises(ValueError, match=r"SGD: .*share memory"):
            optim.SGD([*columns, wrong])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, st.sampled_from([-3, -2, -1, 1, 2, 3])), max_size=6))
def test_shared_memory_is_what_numpy_finds(slices):
    base = np.zeros(12)
    arrays = [base[min(a, b) : max(a, b)][::step] for a, b, step in slices]
    pairs = [(i, j) for j in range(len(arrays)) for i in range(j) if np.shares_memory(arrays[i], arrays[j])]
    found = fastnn.runtime.shared_memory(arrays)
    assert found in pairs if pairs else found is None


def read_only(x):
    x.flags.writeable = False
    return x


ONE = np.ones(3)
BAD_CALLS = [
    (lambda p, g, b: F.sgd_(p, [g], lr=0.1), TypeError, "sgd_: params must be a list of arrays, got ndarray"),
    (lambda p, g, b: F.sgd_([[1.0]], [g], lr=0.1), TypeError, r"sgd_: params\[0\] must be a NumPy array, got list"),
    (
        lambda p, g, b: F.sgd_([p, p.astype("f4")], [g, g], lr=0.1),
        TypeError,
        r"params\[1\] must have params\[0\]'s dtype",
    ),
    (
        lambda p, g, b: F.sgd_([np.arange(3)], [g], lr=0.1),
        TypeError,
        r"params\[0\] must be float32 or float64, got int64",
    ),
    (lambda p, g, b: F.sgd_([read_only(p)], [g], lr=0.1), ValueError, r"params\[0\] is read-only and would be changed"),
    (
        lambda p, g, b: F.sgd_([p, p], [g, g], lr=0.1),
        ValueError,
        r"sgd_: an array stands twice among the params, or overlaps another: params\[0\] and params\[1\] share",
    ),
    (lambda p, g, b: F.sgd_([p], [], lr=0.1), ValueError, r"grads must have one entry per parameter \(1\), got 0"),
    (
        lambda p, g, b: F.sgd_([p], [g[:2]], lr=0.1),
        ValueError,
        r"grads\[0\] must have shape \(3,\) \(the parameter's shape",
    ),
    (
        lambda p, g, b: F.sgd_([p], [g.astype("f4")], lr=0.1),
        TypeError,
        r"grads\[0\] must have params\[0\]'s dtype float64",
    ),
    (lambda p, g, b: F.sgd_([p], [g], lr=-0.1), ValueError, "sgd_: lr must be at least 0.0, got -0.1"),
    (lambda p, g, b: F.sgd_([p], [g], lr=math.nan), ValueError, "sgd_: lr must be at least 0.0, got nan"),
    (lambda p, g, b: F.sgd_([p], [g], lr=math.inf), ValueError, "sgd_: lr must be finite, got inf"),
    (lambda p, g, b: F.sgd_([p], [g], lr="1"), TypeError, "sgd_: lr must be a number, got '1'"),
    (lambda p, g, b: F.sgd_([p], [g], lr=0.1, maximize=1), TypeError, "sgd_: maximize must be True or False, got 1"),
    (
        lambda p, g, b: F.sgd_([p], [g], lr=0.1, momentum=0.9),
        ValueError,
        "momentum_buffers must be given, because momentum",
    ),
    (
        lambda p, g, b: F.sgd_([p], [g], [b], lr=0.1, momentum=0.9, dampening=0.1, nesterov=True),
        ValueError,
        "sgd_: nesterov needs momentum above 0 and dampening 0, got momentum=0.9 and dampening=0.1",
    ),
    (
        lambda p, g, b: F.sgd_([p], [g], [read_only(b)], lr=1, momentum=1),
        ValueError,
        r"momentum_buffers\[0\] is read-only",
    ),
    (
        lambda p, g, b: F.sgd_([p], [g], lr=0.1, masks=[ONE]),
        TypeError,
        r"masks\[0\] must be None or an array of bool, got float",
    ),
    (lambda p, g, b: F.sgd_([p], [g], lr=0.1, masks=[ONE[:2] > 0]), ValueError, r"masks\[0\] must have shape \(3,\)"),
    (lambda p, g, b: F.sgd_([p], [g], lr=0.1, masks=[]), ValueError, "masks must have one entry per parameter"),
    (lambda p, g, b: F.adagrad_([p], [g], [b], step=0, lr=1), ValueError, "adagrad_: step must be at least 1, got 0"),
    (
        lambda p, g, b: F.rmsprop_([p], [g], [b], lr=1, centered=True),
        ValueError,
        "grad_avgs must be given, because centered",
    ),
    (lambda p, g, b: F.rmsprop_([p], [g], [b], lr=1, momentum=1), ValueError, "momentum_buffers must be given"),
    (
        lambda p, g, b: F.adam_([p], [g], [b], [b], step=1, lr=1),
        ValueError,
        r"adam_: an array stands twice .*: exp_avgs\[0\] and exp_avg_sqs\[0\] share memory",
    ),
    (
        lambda p, g, b: F.adam_([p[:2]], [g[:2]], [b[:2]], [p[1:]], step=1, lr=1),
        ValueError,
        r"adam_: an array stands twice .*: params\[0\] and exp_avg_sqs\[0\] share memory",
    ),
    (
        lambda p, g, b: F.clip_grad_norm_([g[1:], g[:2]], 1.0),
        ValueError,
        r"clip_grad_norm_: .*grads\[0\] and grads\[1\]",
    ),
    (
        lambda p, g, b: F.clip_grad_value_([g, g], 1.0),
        ValueError,
        r"clip_grad_value_: .*grads\[0\] and grads\[1\] share",
    ),
    *[
        (call, ValueError, rf"{name}: step must be at most {2**53}, got 1000000")
        for name, call in {
            "adagrad_": lambda p, g, b: F.adagrad_([p], [g], [b], step=10**400, lr=1),
            "adam_": lambda p, g, b: F.adam_([p], [g], [b], [b.copy()], step=10**400, lr=1),
            "adamax_": lambda p, g, b: F.adamax_([p], [g], [b], [b.copy()], step=10**400, lr=1),
            "nadam_": lambda p, g, b: F.nadam_([p], [g], [b], [b.copy()], step=10**400, lr=1, mu_product=1.0),
            "radam_": lambda p, g, b: F.radam_([p], [g], [b], [b.copy()], step=10**400, lr=1),
        }.items()
    ],
    (lambda p, g, b: F.sgd_([p], [g], lr=10**400), ValueError, "sgd_: lr must be within float64's range"),
    (
        lambda p, g, b: F.adam_([p], [g], [b], [b.copy()], step=1.5, lr=1),
        TypeError,
        "adam_: step must be an integer, got 1.5",
    ),
    (
        lambda p, g, b: F.adam_([p], [g], [b], [b.copy()], step=1, lr=1, betas=(0.9, 1.0)),
        ValueError,
        r"adam_: betas\[1\] must be at least 0 and below 1, got 1.0",
    ),
    (
        lambda p, g, b: F.adam_([p], [g], [b], [b.copy()], step=1, lr=1, betas=0.9),
        TypeError,
        "betas must be a pair of numbers",
    ),
    (
        lambda p, g, b: F.adam_([p], [g], [b], [b.copy()], step=1, lr=1, amsgrad=True),
        ValueError,
        "adam_: max_exp_avg_sqs must be given, because amsgrad is True; start with arrays of zeros",
    ),
    (
        lambda p, g, b: F.adadelta_([p], [g], [b], [b.copy()], rho=1.5),
        ValueError,
        "adadelta_: rho must be from 0 to 1, got 1.5",
    ),
    (
        lambda p, g, b: F.nadam_([p], [g], [b], [b.copy()], step=1, mu_product=2.0, lr=1),
        ValueError,
        "nadam_: mu_product must be from 0.0 to 1.0, got 2.0",
    ),
    (lambda p, g, b: F.clip_grad_norm_([read_only(g)], 1.0), ValueError, r"grads\[0\] is read-only"),
    (
        lambda p, g, b: F.clip_grad_norm_([g], -1.0),
        ValueError,
        "clip_grad_norm_: max_norm must be at least 0.0, got -1.0",
    ),
    (lambda p, g, b: F.clip_grad_norm_([g], 1.0, norm_type=1), ValueError, "norm_type must be 2.0 or inf, got 1"),
    (
        lambda p, g, b: F.clip_grad_value_([g], math.nan),
        ValueError,
        "clip_grad_value_: clip_value must be at least 0.0, got nan",
    ),
    (lambda p, g, b: F.clip_grad_value_([1.0], 1.0), TypeError, r"grads\[0\] must be a NumPy array, got float"),
    (
        lambda p, g, b: optim.clip_grad_norm_([1.0], 1.0),
        TypeError,
        r"parameters\[0\] must be a Parameter or a gradient array",
    ),
    (lambda p, g, b: optim.SGD(p), TypeError, r"SGD: params must be an iterable, got one ndarray; pass \[params\]"),
    (
        lambda p, g, b: optim.Adam(nn.Linear(2, 2)),
        TypeError,
        r"Adam: params must be parameters, got a Linear; pass its \.parameters\(\)",
    ),
    (lambda p, g, b: optim.SGD(3), TypeError, "SGD: params must be an iterable of parameters, got int"),
    (lambda p, g, b: optim.SGD([]), ValueError, "SGD: params is empty; there is nothing to optimise"),
    (lambda p, g, b: optim.SGD([1.0]), TypeError, r"SGD: params\[0\] must be a Parameter \(with .data and .grad\)"),
    (lambda p, g, b: optim.SGD([p, p]), ValueError, r"SGD: an array stands twice .*params\[0\] and params\[1\] share"),
    (
        lambda p, g, b: optim.SGD([p[1:], b, p[:2][::-1]]),
        ValueError,
        r"SGD: .*params\[0\] and params\[2\] share memory",
    ),
    (
        lambda p, g, b: optim.SGD([{"params": [b]}, {"params": [p[1:]]}, {"params": [g, p[:2]]}]),
        ValueError,
        r'SGD: .*param_groups\[1\]\["params"\]\[0\] and params\[1\] share memory',
    ),
    (lambda p, g, b: optim.SGD([read_only(p)]), ValueError, r"SGD: params\[0\] is read-only"),
    (lambda p, g, b: optim.SGD([np.arange(3)]), TypeError, r"SGD: params\[0\] must be float32 or float64, got int64"),
    (lambda p, g, b: optim.Adam([p], lr=-1), ValueError, "Adam: lr must be at least 0.0, got -1"),
    (
        lambda p, g, b: optim.Adam([{"params": [p], "rate": 1}]),
        ValueError,
        r"Adam: parameter group has unknown options \['rate'\]",
    ),
    (lambda p, g, b: optim.Adam([{"lr": 1}]), TypeError, 'Adam: a parameter group must be a dictionary with "params"'),
    (lambda p, g, b: optim.Adam([{"params": [p]}], masks=[None]), ValueError, "parameter groups carry their own masks"),
    (lambda p, g, b: optim.Adam([p], masks=[ONE]), TypeError, r"Adam: masks\[0\] must be None or an array of bool"),
    (lambda p, g, b: optim.SGD([p]).step(), TypeError, r"SGD.step: the parameters are arrays; pass their gradients"),
    (lambda p, g, b: optim.SGD([Parameter(p)]).step([g]), TypeError, "SGD.step: Parameters bring their own gradients"),
    (lambda p, g, b: optim.SGD([p]).step([g, g]), ValueError, "SGD.step: grads must be a list of 1 arrays, got 2"),
    (lambda p, g, b: optim.SGD([p]).step([g[:2]]), ValueError, r"sgd_: grads\[0\] must have shape \(3,\)"),
]


@pytest.mark.parametrize(("call", "exception", "message"), BAD_CALLS)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_bad_input_is_refused_and_changes_nothing(call, exception, message, backend):
    p, g, b = np.arange(3.0), np.arange(3.0) + 1, np.zeros(3)
    with fastnn.backend(backend), pytest.raises(exception, match=message):
        call(p, g, b)
    np.testing.assert_array_equal(p, np.arange(3.0))
    np.testing.assert_array_equal(g, np.arange(3.0) + 1)
    np.testing.assert_array_equal(b, np.zeros(3))


def test_an_error_in_one_group_leaves_the_others_as_they_were():
    a, b = np.ones(2), np.ones(2)
    optimizer = optim.Adam([{"params": [a]}, {"params": [b]}])
    with pytest.raises(ValueError, match=r"grads\[0\] must have shape"):
        optimizer.step([np.ones(2), np.ones(3)])
    np.testing.assert_array_equal(a, 1)
    optimizer.param_groups[1]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be at least 0"):
        optimizer.step([np.ones(2), np.ones(2)])
    np.testing.assert_array_equal(a, 1)
    assert optimizer.state_dict()["state"][0]["step"] == 0


def test_an_optimiser_in_print_shows_its_hyper_parameters_by_group():
    slow, fast = np.ones(2), np.ones(2)
    assert repr(optim.SGD([slow], lr=0.5, momentum=0.9)).startswith("SGD(lr=0.5, momentum=0.9, dampening=0.0")
    text = repr(optim.SGD([{"params": [slow]}, {"params": [fast], "lr": 2.0}], lr=0.5))
    assert [line.strip().split(",")[0] for line in text.splitlines()] == ["SGD:", "lr=0.5", "lr=2.0"]

"""Losses: native against the float64 reference, gradients, torch, figures from theory, hard shapes, bad input."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from tests.oracle import assert_gradient, assert_matches, numerical_gradient
from tests.tolerances import tolerance

# Shapes of scores: one example, one class, one class, around every vector width, primes, spatial, empty, size-1 axes.
SCORES = [
    (3,),
    (1,),
    (1, 1),
    (5, 1),
    (4, 2),
    (7, 10),
    (33, 10),
    (16, 7),
    (17, 8),
    (3, 9),
    (9, 16),
    (5, 17),
    (6, 31),
    (19, 32),
    (2, 33),
    (3, 63),
    (2, 64),
    (3, 100),
    (2, 1009),
    (0, 10),
    (2, 3, 0),
    (2, 3, 1),
    (2, 3, 5),
    (2, 10, 16),
    (3, 2, 67),
    (1, 21, 13, 11),
    (2, 5, 3, 1, 7),
    (2, 1, 9),
]
SHAPES = [(), (0,), (1,), (7,), (16,), (33,), (3, 0, 2), (5, 1), (2, 3, 5, 7), (1009,), (16385,)]
REDUCTIONS = ["none", "mean", "sum"]


def positions_of(shape):
    return shape[:-1] if len(shape) == 1 else shape[:1] + shape[2:]


def classes_of(shape):
    return shape[min(len(shape) - 1, 1)]


def scores_and_target(rng, shape, dtype, kind="indices"):
    """Scores, and class indices (some of them ignored) or probabilities."""
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    if kind == "probabilities":
        target = rng.random(shape)
        return x, (target / target.sum(axis=min(len(shape) - 1, 1), keepdims=True)).astype(dtype)
    target = rng.integers(0, classes_of(shape), positions_of(shape))
    return x, np.asarray(np.where(rng.random(target.shape) < 0.2, -100, target))


def grad_output_for(rng, reduction, shape, dtype):
    return np.asarray(rng.standard_normal(shape), dtype) if reduction == "none" else 0.75


def as_float64(argument):
    is_float = isinstance(argument, np.ndarray) and argument.dtype.kind == "f"
    return argument.astype(np.float64) if is_float else argument


def reference(function, *arguments, **options):
    """The float64 reference through the same face."""
    with fastnn.backend("reference"):
        return function(*map(as_float64, arguments), **{name: as_float64(value) for name, value in options.items()})


def assert_close(actual, expected, kernel, dtype, scale=0.0):
    """Within the kernel's tolerance, relative to the largest entry or `scale`; special values at the same places."""
    if isinstance(expected, np.ndarray):
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
    else:
        assert type(actual) is float
    scale = max(scale, np.abs(expected, where=np.isfinite(expected), out=np.zeros(np.shape(expected))).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance(kernel, dtype) * scale, err_msg=kernel)


def scale_of_loss(losses, reduction):
    """The size at which losses are rounded: differences of scores of size 1, before they cancel in the sum."""
    sizes = np.maximum(1, np.abs(losses[np.isfinite(losses)]))
    return sizes.sum() if reduction == "sum" else 1.0


def check(kernel, arguments, options, grad_output, dtype, gradient_scale=0.0):
    """Forward and backward of F.<kernel> are within tolerance of the reference."""
    forward, backward = getattr(F, kernel), getattr(F, kernel + "_backward")
    losses = np.asarray(reference(forward, *arguments, **{**options, "reduction": "none"}))
    expected = reference(forward, *arguments, **options)
    loss = forward(*arguments, **options)
    assert_close(loss, expected, kernel, dtype, scale_of_loss(losses, options["reduction"]))
    gradient = backward(grad_output, *arguments, **options)
    assert gradient.shape == arguments[0].shape
    assert_close(gradient, reference(backward, grad_output, *arguments, **options), kernel, dtype, gradient_scale)
    return loss


def check_cross_entropy(x, target, options, grad_output):
    """The gradient is a difference of probabilities, rounded at their size."""
    scale = np.abs(grad_output).max(initial=0)
    if options["reduction"] == "mean":
        scale /= max(1, target.size)
    return check("cross_entropy", (x, target), options, grad_output, x.dtype, gradient_scale=0.1 * scale)


# Cross-entropy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", SCORES, ids=str)
def test_cross_entropy_matches_reference(isa, dtype, rng, shape, kind):
    x, target = scores_and_target(rng, shape, dtype, kind)
    weight = rng.random(classes_of(shape)).astype(dtype) + dtype.type(0.1)
    for reduction, w, smoothing in [
        ("none", None, 0.0),
        ("none", weight, 0.0),
        ("none", None, 0.1),
        ("mean", weight, 0.3),
        ("mean", None, 0.0),
        ("sum", weight, 0.0),
    ]:
        grad_output = grad_output_for(rng, reduction, positions_of(shape), dtype)
        options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
        loss = check_cross_entropy(x, target, options, grad_output)
        fused_loss, gradient = F.cross_entropy_with_grad(x, target, **options)
        np.testing.assert_array_equal(fused_loss, loss)
        ones = np.ones(positions_of(shape), dtype) if reduction == "none" else 1.0
        np.testing.assert_array_equal(gradient, F.cross_entropy_backward(ones, x, target, **options))


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", [(256, 1000), (8192, 10), (300, 27), (2, 21, 50, 40)], ids=str)
def test_cross_entropy_is_accurate(isa, dtype, rng, shape, kind):
    x, target = scores_and_target(rng, shape, dtype, kind)
    for smoothing in (0.0, 0.1):
        options = {"reduction": "none", "label_smoothing": smoothing}
        losses, gradient = F.cross_entropy_with_grad(x, target, **options)
        expected_losses, expected_gradient = reference(F.cross_entropy_with_grad, x, target, **options)
        assert_matches(losses, expected_losses, "cross_entropy")
        assert_close(gradient, expected_gradient, "cross_entropy gradient", dtype)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", [(3,), (4, 5), (3, 40), (2, 3, 2, 3)], ids=str)
def test_cross_entropy_backward_matches_finite_differences(isa, rng, shape, kind):
    x, target = scores_and_target(rng, shape, np.float64, kind)
    weight = rng.random(classes_of(shape)) + 0.1
    for reduction in REDUCTIONS:
        grad_output = grad_output_for(rng, reduction, positions_of(shape), np.float64)
        options = {"weight": weight, "reduction": reduction, "label_smoothing": 0.2}
        numerical = numerical_gradient(lambda a, o=options: F.cross_entropy(a, target, **o), x, grad_output)
        if np.isnan(numerical).any():
            continue  # every position happened to be ignored
        assert_gradient(F.cross_entropy_backward(grad_output, x, target, **options), numerical)


@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("shape", [(6,), (9, 10), (5, 33), (2, 4, 3, 5)], ids=str)
def test_cross_entropy_matches_torch(isa, dtype, rng, shape, kind):
    torch = pytest.importorskip("torch")
    x, target = scores_and_target(rng, shape, dtype, kind)
    weight = (rng.random(classes_of(shape)) + 0.1).astype(dtype)
    tolerance = {"rtol": 2e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
    if target.dtype.kind == "i":
        target.flat[0] = 0  # at least one that is kept
    for reduction in REDUCTIONS:
        # torch cannot smooth with class weights where targets are ignored
        smoothable = target.dtype.kind == "f" or (target >= 0).all()
        for w, smoothing in [(None, 0.0), (weight, 0.0), (None, 0.1), (weight if smoothable else None, 0.3)]:
            leaf = torch.tensor(x, requires_grad=True)
            grad_output = grad_output_for(rng, reduction, positions_of(shape), dtype)
            loss = torch.nn.functional.cross_entropy(
                leaf,
                torch.tensor(target),
                None if w is None else torch.tensor(w),
                reduction=reduction,
                label_smoothing=smoothing,
            )
            loss.backward(torch.tensor(grad_output, dtype=leaf.dtype))
            options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
            np.testing.assert_allclose(F.cross_entropy(x, target, **options), loss.detach().numpy(), **tolerance)
            gradient = F.cross_entropy_backward(grad_output, x, target, **options)
            np.testing.assert_allclose(gradient, leaf.grad.numpy(), **tolerance)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cross_entropy_of_random_shapes_matches_reference(isa, dtype, data):
    shape = data.draw(st.lists(st.integers(1, 70), min_size=1, max_size=2).map(tuple))
    shape += data.draw(st.sampled_from([(), (1,), (5,), (3, 11)])) if len(shape) == 2 else ()
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x, target = scores_and_target(rng, shape, dtype, data.draw(st.sampled_from(["indices", "probabilities"])))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    weight = data.draw(st.sampled_from([None, (rng.random(classes_of(shape)) + 0.1).astype(dtype)]))
    ignore_index = data.draw(st.sampled_from([-100, 0])) if (target >= 0).all() else -100
    options = {
        "weight": weight,
        "reduction": reduction,
        "ignore_index": ignore_index,
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.25, 1.0])),
    }
    grad_output = grad_output_for(rng, reduction, positions_of(shape), dtype)
    check_cross_entropy(x, target, options, grad_output)


def test_cross_entropy_is_stable_and_keeps_special_values(isa, dtype):
    rows = np.array(
        [
            [1e4, -1e4, 0],  # no overflow
            [-1e4, 1e4, 0],
            [30, 0, 0],  # a small loss survives
            [0, -np.inf, 0],  # an impossible class that is not asked for
            [-np.inf, 0, 0],  # an impossible class that is
            [np.inf, 0, 0],
            [-np.inf, -np.inf, -np.inf],
            [np.nan, 0, 0],
            [0, np.nan, 0],
        ],
        dtype,
    )
    for classes in (3, 40):
        x = np.concatenate([rows, np.full((len(rows), classes - 3), -1e4, dtype)], axis=1)
        x[6] = -np.inf
        target = np.zeros(len(rows), np.int64)
        for scores, positions in [(x, target), (np.repeat(x[:, :, None], 5, axis=2), np.repeat(target[:, None], 5, 1))]:
            options = {"reduction": "none"}
            grad_output = np.ones(positions.shape, dtype)
            check("cross_entropy", (scores, positions), options, grad_output, dtype)
            losses = F.cross_entropy(scores, positions, **options)
            assert losses[0].max() == 0
            assert np.all(losses[1] == 2e4)
            assert np.all(losses[2] < 1e-12)
            assert np.all(losses[4] == np.inf)
            assert np.isnan(losses[5:]).all()


def test_cross_entropy_ignored_positions_count_nothing(isa, dtype, rng):
    x, target = scores_and_target(rng, (20, 10), dtype)
    target[:] = rng.integers(0, 10, 20)
    ignored = target.copy()
    ignored[::3] = -7
    kept = ignored != -7
    loss, gradient = F.cross_entropy_with_grad(x, ignored, ignore_index=-7)
    kept_loss, kept_gradient = F.cross_entropy_with_grad(x[kept], target[kept])
    assert loss == pytest.approx(kept_loss, rel=1e-6)
    np.testing.assert_allclose(gradient[kept], kept_gradient, rtol=1e-5, atol=1e-7)
    assert not gradient[~kept].any()
    # an ignored class may also be a valid one
    assert F.cross_entropy(x, target, ignore_index=3, reduction="sum") == pytest.approx(
        F.cross_entropy(x[target != 3], target[target != 3], reduction="sum"), rel=1e-6
    )


def test_cross_entropy_mean_of_no_targets_is_nan_and_its_gradient_zero(isa, dtype):
    x = np.ones((3, 4), dtype)
    loss, gradient = F.cross_entropy_with_grad(x, np.full(3, -100))
    assert np.isnan(loss)
    assert not gradient.any()
    assert np.isnan(F.cross_entropy(x[:0], np.zeros(0, np.int64)))
    assert np.isnan(F.nll_loss(x, np.full(3, -100)))
    assert F.cross_entropy(x, np.full(3, -100), reduction="sum") == 0


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_cross_entropy_takes_any_integer_dtype(isa, rng, name):
    x, _ = scores_and_target(rng, (12, 10), np.float32)
    target = rng.integers(0, 10, 12)
    assert F.cross_entropy(x, target.astype(name)) == F.cross_entropy(x, target)


def test_cross_entropy_takes_any_strides_and_leaves_its_input_alone(isa, dtype, rng):
    x, target = scores_and_target(rng, (4, 6, 10, 14), dtype)
    x.flags.writeable = target.flags.writeable = False
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    views = [
        (x[::2, :, ::-3], target[::2, ::-3]),
        (np.asfortranarray(x), np.asfortranarray(target)),
        (nhwc, target),
        (np.broadcast_to(x[:1], x.shape), target),
    ]
    for scores, positions in views:
        expected = F.cross_entropy_with_grad(scores.copy("C"), positions.copy("C"), label_smoothing=0.1)
        loss, gradient = F.cross_entropy_with_grad(scores, positions, label_smoothing=0.1)
        assert loss == pytest.approx(expected[0], rel=1e-6)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("shape", [(20000, 10), (3001, 100), (300, 1000), (4, 7, 150, 201), (2, 200, 37, 41)], ids=str)
def test_cross_entropy_has_the_same_bits_for_any_number_of_threads(dtype, rng, shape):
    for kind in ("indices", "probabilities"):
        x, target = scores_and_target(rng, shape, dtype, kind)
        results = []
        for threads in (1, 2, 5):
            with fastnn.threads(threads):
                results.append(F.cross_entropy_with_grad(x, target))
        for loss, gradient in results[1:]:
            assert loss == results[0][0]
            np.testing.assert_array_equal(gradient, results[0][1])


def test_cross_entropy_is_logsumexp_less_the_score_and_its_gradient_softmax_less_one_hot(isa):
    a = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -0.5]])
    y = np.array([2, 1])
    exponentials = np.exp(a)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    losses = np.log(exponentials.sum(axis=1)) - a[[0, 1], y]
    loss, gradient = F.cross_entropy_with_grad(a, y)
    assert loss == pytest.approx(losses.mean(), rel=1e-14)
    np.testing.assert_allclose(gradient, (softmax - np.eye(3)[y]) / 2, rtol=1e-13)


def test_label_smoothing_of_a_tenth_over_ten_classes_aims_at_091_and_001(isa):
    # where the softmax equals the target, the gradient vanishes
    probabilities = np.full((1, 10), 0.01)
    probabilities[0, 4] = 0.91
    gradient = F.cross_entropy_backward(1.0, np.log(probabilities), np.array([4]), label_smoothing=0.1)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
    # the form that spreads 0.1 over the other nine classes, by passing probabilities
    others = np.full((1, 10), 0.1 / 9)
    others[0, 4] = 0.9
    np.testing.assert_allclose(F.cross_entropy_backward(1.0, np.log(others), others), 0, atol=1e-15)


# The other losses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SCORES, ids=str)
def test_nll_loss_matches_reference_and_torch(isa, dtype, rng, shape, reduction):
    torch = pytest.importorskip("torch")
    x, target = scores_and_target(rng, shape, dtype)
    weight = rng.random(classes_of(shape)).astype(dtype) + dtype.type(0.1)
    grad_output = grad_output_for(rng, reduction, positions_of(shape), dtype)
    check("nll_loss", (x, target), {"weight": weight, "reduction": reduction}, grad_output, dtype)
    if x.size == 0:
        return
    leaf = torch.tensor(x, requires_grad=True)
    loss = torch.nn.functional.nll_loss(leaf, torch.tensor(target), torch.tensor(weight), reduction=reduction)
    loss.backward(torch.tensor(grad_output, dtype=leaf.dtype))
    np.testing.assert_allclose(F.nll_loss(x, target, weight, reduction=reduction), loss.detach().numpy(), rtol=1e-5)
    gradient = F.nll_loss_backward(grad_output, x, target, weight, reduction=reduction)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", [shape for shape in SCORES if len(shape) < 3], ids=str)
def test_multi_margin_loss_matches_reference_and_torch(isa, dtype, rng, shape, p, reduction):
    torch = pytest.importorskip("torch")
    x, target = scores_and_target(rng, shape, dtype)
    target = np.asarray(np.abs(target) % classes_of(shape))
    weight = rng.random(classes_of(shape)).astype(dtype) + dtype.type(0.1)
    grad_output = grad_output_for(rng, reduction, positions_of(shape), dtype)
    for w, margin in [(None, 1.0), (weight, 0.5)]:
        options = {"p": p, "margin": margin, "weight": w, "reduction": reduction}
        check("multi_margin_loss", (x, target), options, grad_output, dtype)
        if x.size == 0:
            continue
        leaf = torch.tensor(x, requires_grad=True)
        options["weight"] = None if w is None else torch.tensor(w)
        loss = torch.nn.functional.multi_margin_loss(leaf, torch.tensor(target), **options)
        loss.backward(torch.tensor(grad_output, dtype=leaf.dtype).reshape(loss.shape))
        options["weight"] = w
        actual = F.multi_margin_loss(x, target, **options)
        np.testing.assert_allclose(actual, loss.detach().numpy().reshape(np.shape(actual)), rtol=3e-5, atol=1e-6)
        gradient = F.multi_margin_loss_backward(grad_output, x, target, **options)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=3e-5, atol=1e-6)


def test_targets_are_copied_before_they_are_checked(monkeypatch):
    # Another thread may write to the array between the check and the kernel.
    seen = []
    module = sys.modules["fastnn.functional.class_loss"]
    monkeypatch.setattr(module, "implementation", lambda name: lambda *arguments: seen.append(arguments) or 0.0)
    x, target = np.zeros((3, 4)), np.array([0, 1, 2])
    F.cross_entropy(x, target)
    F.nll_loss(x, target)
    F.multi_margin_loss(x, target)
    assert len(seen) == 3
    assert not any(np.shares_memory(arguments[1], target) for arguments in seen)


@pytest.mark.parametrize("p", [1, 2])
def test_multi_margin_loss_backward_matches_finite_differences(isa, rng, p):
    x, target = rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    for reduction in REDUCTIONS:
        grad_output = grad_output_for(rng, reduction, (6,), np.float64)
        options = {"p": p, "margin": 0.7, "reduction": reduction}
        numerical = numerical_gradient(lambda a, o=options: F.multi_margin_loss(a, target, **o), x, grad_output)
        assert_gradient(F.multi_margin_loss_backward(grad_output, x, target, **options), numerical)


def elementwise_cases(rng, shape, dtype):
    """(function, input, target, options) for every elementwise loss."""
    x, t = (2 * rng.standard_normal((2, *shape))).astype(dtype)
    p, q = rng.uniform(0.02, 0.98, (2, *shape)).astype(dtype)
    w, v = rng.uniform(0.1, 2, (2, *shape)).astype(dtype)
    row = w[..., :1] if shape else w
    yield "mse_loss", x, t, {}
    yield "l1_loss", x, t, {}
    for beta in (0.0, 0.5, 1.0):
        yield "smooth_l1_loss", x, t, {"beta": beta}
    for delta in (0.5, 1.0, np.inf):
        yield "huber_loss", x, t, {"delta": delta}
    for weight in (None, w, row):
        yield "binary_cross_entropy", p, q, {"weight": weight}
        for pos_weight in (None, v):
            yield "binary_cross_entropy_with_logits", x, q, {"weight": weight, "pos_weight": pos_weight}
    yield "kl_div", np.log(p), q, {"log_target": False}
    yield "kl_div", np.log(p), np.log(q), {"log_target": True}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elementwise_losses_match_reference(isa, dtype, rng, shape, reduction):
    for kernel, x, target, options in elementwise_cases(rng, shape, dtype):
        x, target = np.asarray(x), np.asarray(target)
        options = {
            name: np.asarray(value) if isinstance(value, np.generic) else value for name, value in options.items()
        }
        grad_output = grad_output_for(rng, reduction, shape, dtype)
        check(kernel, (x, target), {**options, "reduction": reduction}, grad_output, dtype)


def test_elementwise_losses_backward_match_finite_differences(isa, rng):
    for kernel, x, target, options in elementwise_cases(rng, (3, 7), np.float64):
        for reduction in REDUCTIONS:
            grad_output = grad_output_for(rng, reduction, (3, 7), np.float64)
            options = {**options, "reduction": reduction}
            forward, backward = getattr(F, kernel), getattr(F, kernel + "_backward")
            numerical = numerical_gradient(lambda a, f=forward, t=target, o=options: f(a, t, **o), x, grad_output)
            assert_gradient(backward(grad_output, x, target, **options), numerical)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
def test_elementwise_losses_match_torch(isa, dtype, rng, reduction):
    torch = pytest.importorskip("torch")
    for kernel, x, target, options in elementwise_cases(rng, (6, 11), dtype):
        if reduction == "batchmean" and kernel != "kl_div":
            continue
        grad_output = grad_output_for(rng, reduction, (6, 11), dtype)
        theirs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        leaf = torch.tensor(x, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's kl_div recommends batchmean over mean
            loss = getattr(torch.nn.functional, kernel)(leaf, torch.tensor(target), reduction=reduction, **theirs)
        loss.backward(torch.tensor(grad_output, dtype=leaf.dtype))
        options = {**options, "reduction": reduction}
        tolerance = {"rtol": 2e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
        actual = getattr(F, kernel)(x, target, **options)
        np.testing.assert_allclose(actual, loss.detach().numpy(), err_msg=kernel, **tolerance)
        gradient = getattr(F, kernel + "_backward")(grad_output, x, target, **options)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), err_msg=kernel, **tolerance)


def test_elementwise_losses_keep_special_values(isa, dtype):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1e4, -1e4, 1e-30, 0.5], dtype)
    x, target = (grid.ravel() for grid in np.meshgrid(special, special))
    ones = np.ones_like(x)
    chance = (x >= 0) & (x <= 1)
    for kernel, options in [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("smooth_l1_loss", {"beta": 1.0}),
        ("huber_loss", {"delta": 2.0}),
        ("binary_cross_entropy", {}),
        ("binary_cross_entropy_with_logits", {}),
        ("binary_cross_entropy_with_logits", {"pos_weight": 2 * ones}),
        ("kl_div", {"log_target": False}),
        ("kl_div", {"log_target": True}),
    ]:
        # a "probability" of 1e4 makes a difference of large numbers
        keep = np.abs(target) != 1e4 if "binary" in kernel else ones > 0
        keep = keep & chance if kernel == "binary_cross_entropy" else keep
        options = {k: v[keep] if isinstance(v, np.ndarray) else v for k, v in options.items()}
        for function, arguments in [
            (getattr(F, kernel), (x[keep], target[keep])),
            (getattr(F, kernel + "_backward"), (ones[keep], x[keep], target[keep])),
        ]:
            actual = function(*arguments, reduction="none", **options)
            with fastnn.backend("reference"):
                expected = function(*arguments, reduction="none", **options)
            np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-37, err_msg=kernel)


def test_binary_cross_entropy_with_logits_is_stable_and_does_not_vanish(isa, dtype):
    z = np.array([1e4, -1e4, 20.0, -20.0], dtype)
    ones = np.ones(4, dtype)
    losses = F.binary_cross_entropy_with_logits(z, ones, reduction="none")
    np.testing.assert_allclose(losses, [0, 1e4, 2.061153620314381e-09, 20.000000002061153], rtol=1e-6)
    gradient = F.binary_cross_entropy_with_logits_backward(ones, z, ones, reduction="none")
    np.testing.assert_allclose(gradient, [0, -1, -2.0611536181902037e-09, -1], rtol=1e-6)


def test_binary_cross_entropy_costs_at_most_100_per_entry(isa, dtype):
    certain = np.array([0.0, 1.0], dtype)
    np.testing.assert_array_equal(F.binary_cross_entropy(certain, 1 - certain, reduction="none"), [100, 100])
    np.testing.assert_array_equal(F.binary_cross_entropy(certain, certain, reduction="none"), [0, 0])


def test_squared_error_of_a_sigmoid_vanishes_where_it_saturates_wrongly_and_cross_entropy_does_not(isa):
    z, target = np.linspace(-30, 30, 61), np.ones(61)
    s = F.sigmoid(z)
    by_cross_entropy = F.binary_cross_entropy_with_logits_backward(1.0, z, target, reduction="sum")
    np.testing.assert_allclose(by_cross_entropy, s - target, rtol=1e-12, atol=1e-15)
    by_squared_error = F.sigmoid_backward(F.mse_loss_backward(1.0, s, target, reduction="sum"), z)
    np.testing.assert_allclose(by_squared_error, 2 * (s - target) * s * (1 - s), rtol=1e-12, atol=1e-15)
    assert abs(by_squared_error[0]) < 1e-12 < 0.99 < abs(by_cross_entropy[0])


def test_gradients_of_the_norms_are_twice_the_vector_and_its_signs(isa, dtype, rng):
    x = np.append(rng.standard_normal(37), [0.0, -0.0]).astype(dtype)
    zeros = np.zeros_like(x)
    assert F.mse_loss(x, zeros, reduction="sum") == pytest.approx(float(np.sum(x.astype(float) ** 2)), rel=1e-6)
    np.testing.assert_array_equal(F.mse_loss_backward(1.0, x, zeros, reduction="sum"), 2 * x)
    signs = (x > 0).astype(dtype) - (x < 0).astype(dtype)
    np.testing.assert_array_equal(F.l1_loss_backward(1.0, x, zeros, reduction="sum"), signs)


def test_mse_loss_of_the_worked_example(isa, dtype):
    # One hidden unit, two examples: predictions 3 and 0 for 1.3 and 1.9; after one gradient step 2.85565.
    predictions, truth = np.array([3.0, 0.0], dtype), np.array([1.3, 1.9], dtype)
    np.testing.assert_allclose(F.mse_loss(predictions, truth, reduction="none"), [2.89, 3.61], rtol=1e-6)
    assert F.mse_loss(predictions, truth) == pytest.approx(3.25, rel=1e-6)
    np.testing.assert_allclose(
        F.mse_loss_backward(np.ones(2, dtype), predictions, truth, reduction="none"), [3.4, -3.8], rtol=1e-6
    )
    np.testing.assert_allclose(F.mse_loss_backward(1.0, predictions, truth), [1.7, -1.9], rtol=1e-6)


def test_elementwise_losses_take_any_strides(isa, dtype, rng):
    x, target = rng.uniform(0.1, 0.9, (2, 6, 10, 7)).astype(dtype)
    for view in (lambda a: a[::2, ::-3], lambda a: a.transpose(2, 0, 1), lambda a: np.broadcast_to(a[0], (4, 10, 7))):
        for kernel in ("mse_loss", "binary_cross_entropy"):
            forward, backward = getattr(F, kernel), getattr(F, kernel + "_backward")
            a, b = view(x), view(target)
            assert forward(a, b) == pytest.approx(forward(a.copy("C"), b.copy("C")), rel=1e-6)
            np.testing.assert_array_equal(backward(1.0, a, b), backward(1.0, a.copy("C"), b.copy("C")))


def test_elementwise_losses_have_the_same_bits_for_any_number_of_threads(dtype, rng):
    for kernel, x, target, options in elementwise_cases(rng, (3, 60001), dtype):
        results = []
        for threads in (1, 2, 5):
            with fastnn.threads(threads):
                gradient = getattr(F, kernel + "_backward")(1.0, x, target, **options)
                results.append((getattr(F, kernel)(x, target, **options), gradient))
        for loss, gradient in results[1:]:
            assert loss == results[0][0]
            np.testing.assert_array_equal(gradient, results[0][1])


def test_mean_of_nothing_is_nan(isa, dtype):
    nothing = np.zeros((0, 3), dtype)
    for kernel in ("mse_loss", "l1_loss", "binary_cross_entropy", "kl_div"):
        assert np.isnan(getattr(F, kernel)(nothing, nothing))
        assert getattr(F, kernel)(nothing, nothing, reduction="sum") == 0
    assert np.isnan(F.kl_div(nothing, nothing, reduction="batchmean"))
    assert F.kl_div_backward(1.0, nothing, nothing, reduction="batchmean").shape == (0, 3)


# Bad input -----------------------------------------------------------------------------------------------------------

X = np.zeros((4, 3))
Y = np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "message"),
    [
        (F.cross_entropy, ([[1.0]], Y), {}, TypeError, r"cross_entropy: input must be a NumPy array, got list"),
        (F.cross_entropy, (np.zeros((4, 3), int), Y), {}, TypeError, r"input must be float32 or float64, got int64"),
        (F.cross_entropy, (np.array(1.0), Y), {}, ValueError, r"input must have shape \(C,\), \(N, C\) or"),
        (F.cross_entropy, (np.zeros((4, 0)), Y), {}, ValueError, r"input must have at least one class, got .*\(4, 0\)"),
        (F.cross_entropy, (X, [0, 1, 2, 0]), {}, TypeError, r"target must be a NumPy array, got list"),
        (F.cross_entropy, (X, Y > 0), {}, TypeError, r"target must hold class indices of an integer dtype, got bool"),
        (F.cross_entropy, (X, X.astype("f4")), {}, TypeError, r"target must have input's dtype float64, got float32"),
        (F.cross_entropy, (X, X[:3]), {}, ValueError, r"target must have shape \(4, 3\) .*, got \(3, 3\)"),
        (F.cross_entropy, (X, Y[:3]), {}, ValueError, r"target must have shape \(4,\) .*, got \(3,\)"),
        (F.cross_entropy, (X, Y[:, None]), {}, ValueError, r"target must have shape \(4,\) .*, got \(4, 1\)"),
        (
            F.cross_entropy,
            (X, np.array([0, -100, 3, -1])),
            {},
            ValueError,
            r"target\[2\] must be a class index from 0 to 2 or ignore_index=-100, got 3",
        ),
        (F.cross_entropy, (X, np.array([0, -1, 3, -1])), {}, ValueError, r"target\[1\] .*, got -1"),
        (
            F.cross_entropy,
            (X, np.array([0, 1, 2, 2**64 - 100], np.uint64)),
            {},
            ValueError,
            r"target\[3\] .*, got 184467",
        ),
        (F.cross_entropy, (np.zeros((1, 2, 2, 2)), np.array([[[0, 1], [2, 0]]])), {}, ValueError, r"target\[0, 1, 0\]"),
        (F.cross_entropy, (np.zeros(3), np.array(3)), {}, ValueError, r"target must be a class index from 0 to 2"),
        (F.cross_entropy, (X, Y), {"weight": np.ones(4)}, ValueError, r"weight must have shape \(3,\) .*, got \(4,\)"),
        (F.cross_entropy, (X, Y), {"weight": np.ones(3, "f4")}, TypeError, r"weight must have input's dtype float64"),
        (F.cross_entropy, (X, Y), {"reduction": "avg"}, ValueError, r"reduction must be one of 'none', 'mean', 'sum'"),
        (
            F.cross_entropy,
            (X, Y),
            {"label_smoothing": 1.5},
            ValueError,
            r"label_smoothing must be from 0 to 1, got 1.5",
        ),
        (F.cross_entropy, (X, Y), {"ignore_index": 0.5}, TypeError, r"ignore_index must be an integer, got 0.5"),
        (F.cross_entropy, (X, Y), {"ignore_index": 2**63}, ValueError, r"ignore_index must fit in 64 bits"),
        (F.cross_entropy_backward, (X, X, Y), {}, TypeError, r"cross_entropy_backward: grad_output must be a number"),
        (F.cross_entropy_backward, (1.0, X, Y), {"reduction": "none"}, TypeError, r"grad_output must be a NumPy array"),
        (F.cross_entropy_backward, (X, X, Y), {"reduction": "none"}, ValueError, r"grad_output must have shape \(4,\)"),
        (F.cross_entropy_with_grad, (X, Y + 1), {}, ValueError, r"cross_entropy_with_grad: target\[2\] .*, got 3"),
        (
            F.nll_loss,
            (X, X),
            {},
            TypeError,
            r"nll_loss: target must hold class indices of an integer dtype, got float64",
        ),
        (
            F.cross_entropy,
            (X, Y.astype(float)),
            {},
            TypeError,
            "target must hold class indices of an integer dtype",
        ),
        (F.nll_loss, (X, Y + 1), {}, ValueError, r"nll_loss: target\[2\] must be a class index .*, got 3"),
        (F.multi_margin_loss, (X, Y - 100), {}, ValueError, r"target\[0\] must be a class index from 0 to 2, got -100"),
        (F.multi_margin_loss, (X, Y), {"p": 3}, ValueError, r"multi_margin_loss: p must be 1 or 2, got 3"),
        (F.multi_margin_loss, (X[:, :, None], Y), {}, ValueError, r"input must have shape \(C,\) or \(N, C\)"),
        (F.mse_loss, (X, X[:, :1]), {}, ValueError, r"mse_loss: target must have shape \(4, 3\) .*, got \(4, 1\)"),
        (F.mse_loss, (X, X.astype("f4")), {}, TypeError, r"target must have input's dtype float64, got float32"),
        (F.mse_loss, (X, X, "batchmean"), {}, ValueError, r"reduction must be one of .*, got 'batchmean'"),
        (
            F.mse_loss_backward,
            (None, X, X),
            {},
            TypeError,
            r"mse_loss_backward: grad_output must be a number, got None",
        ),
        (F.smooth_l1_loss, (X, X), {"beta": -1}, ValueError, r"smooth_l1_loss: beta must be at least 0, got -1"),
        (F.smooth_l1_loss, (X, X), {"beta": "1"}, TypeError, r"smooth_l1_loss: beta must be a number, got '1'"),
        (F.huber_loss, (X, X), {"delta": 0}, ValueError, r"huber_loss: delta must be above 0, got 0"),
        (F.binary_cross_entropy, (X + 2, X), {}, ValueError, r"probabilities from 0 to 1, got entries from 2.0 to 2.0"),
        (
            F.binary_cross_entropy,
            (X, X, np.ones(4)),
            {},
            ValueError,
            r"weight must broadcast to input's shape \(4, 3\)",
        ),
        (
            F.binary_cross_entropy_with_logits,
            (X, X),
            {"pos_weight": np.ones(2)},
            ValueError,
            r"pos_weight must broadcast to input's shape \(4, 3\), got shape \(2,\)",
        ),
        (F.kl_div, (X, X), {"log_target": 1}, TypeError, r"kl_div: log_target must be True or False, got 1"),
        (F.kl_div, (X, X, "avg"), {}, ValueError, r"reduction must be one of .*'batchmean', got 'avg'"),
    ],
)
def test_losses_bad_input(function, arguments, options, error, message):
    with pytest.raises(error, match=message):
        function(*arguments, **options)

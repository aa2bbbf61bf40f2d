"""Random numbers and dropout: known answers, the same bits everywhere, statistics, gradients, bad input."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import native, reference
from fastnn.native import runtime
from tests.oracle import assert_gradient, assert_matches, numerical_gradient
from tests.shapes import COUNTS

LARGEST_SEED = 2**64 - 1


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # the known answers that come with Salmon et al.'s Random123
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_reference_philox_gives_the_known_answers(counter, key, answer):
    words = reference.philox4x32([np.array([word], np.uint64) for word in counter], key)
    assert [int(word[0]) for word in words] == answer


def test_native_philox_gives_the_known_answer(isa):
    assert native.philox(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed", [0, 1, 0x299F31D0A4093822, LARGEST_SEED])
@pytest.mark.parametrize("position", [0, 1, 7, 2**34 - 5, 2**63 - 1])
def test_native_philox_is_the_reference_bit_for_bit(isa, seed, position):
    for count in (0, 1, 5, 64, 1024, 2051):
        np.testing.assert_array_equal(native.philox(seed, position, count), reference.philox(seed, position, count))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("p", [0.1, 0.5, 1 - 2.0**-33, 1.0])
def test_dropout_is_the_reference_bit_for_bit(isa, dtype, rng, count, p):
    x, dy = rng.standard_normal((2, count)).astype(dtype)
    for seed, position in [(3, 0), (LARGEST_SEED, 2**34 - 5)]:
        np.testing.assert_array_equal(
            F.dropout(x, p, seed=seed, position=position), reference.dropout(x, p, seed, position)
        )
        np.testing.assert_array_equal(
            F.dropout_backward(dy, p, seed=seed, position=position), reference.dropout(dy, p, seed, position)
        )


def test_dropout_has_one_mask_for_every_instruction_set_dtype_backend_and_number_of_threads():
    masks = []
    for isa in runtime.available_isas():
        runtime.select_isa(isa)
        for dtype in (np.float32, np.float64):
            for threads in (1, 2, 5):
                with fastnn.threads(threads):
                    masks.append(F.dropout(np.ones((301, 707), dtype), 0.3, seed=11) != 0)
    runtime.select_isa(None)
    with fastnn.backend("reference"):
        masks.append(F.dropout(np.ones((301, 707)), 0.3, seed=11) != 0)
    for mask in masks:
        np.testing.assert_array_equal(mask, masks[0])


def test_dropout_in_parts_is_dropout_of_the_whole(isa, dtype, rng):
    x = rng.standard_normal(40_000).astype(dtype)
    cuts = [0, 1, 2, 9, 16_390, 39_999, 40_000]
    parts = [F.dropout(x[a:b], seed=5, position=a) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), F.dropout(x, seed=5))


def test_dropout_of_a_view_masks_by_logical_position(isa, dtype, rng):
    x = rng.standard_normal((6, 10, 7)).astype(dtype)
    read_only = x.copy()
    read_only.flags.writeable = False
    for view in (
        x[::2, ::-3],
        x.transpose(2, 0, 1),
        np.broadcast_to(x[0], (4, 10, 7)),
        x[:, :0],
        np.asfortranarray(x),
        read_only,
        x[0, 0, 0],
    ):
        view = np.asarray(view)
        before = view.copy()
        np.testing.assert_array_equal(F.dropout(view, seed=1), F.dropout(view.copy(), seed=1))
        np.testing.assert_array_equal(F.gaussian_dropout(view, seed=1), F.gaussian_dropout(view.copy(), seed=1))
        np.testing.assert_array_equal(view, before)


def test_dropout_without_training_or_with_nothing_to_drop_is_a_copy(dtype, rng):
    x = rng.standard_normal((3, 4)).astype(dtype)
    for y in (
        F.dropout(x, 0.0),
        F.dropout(x, 0.5, False),
        F.dropout(x, 1.0, training=False),
        F.dropout_backward(x, 0.0, seed=1),
        F.dropout_backward(x, 0.5, False, seed=1),
        F.gaussian_dropout(x, 0.0),
        F.gaussian_dropout(x, 0.5, False),
        F.gaussian_dropout(x, std=0),
        F.gaussian_dropout_backward(x, 0.0, seed=1),
        F.gaussian_dropout_backward(x, 0.5, False, seed=1),
    ):
        np.testing.assert_array_equal(y, x)
        assert y.dtype == dtype
        assert not np.shares_memory(x, y)


def test_dropout_of_everything_and_of_special_values_follows_torch(isa, dtype):
    torch = pytest.importorskip("torch")
    x = np.array([1.0, -2.0, np.nan, np.inf, -np.inf, 0.0], dtype)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(F.dropout(x, 1.0, seed=0), torch.dropout(torch.from_numpy(x), 1.0, True).numpy())
    kept = F.dropout(np.ones(6, dtype), 0.5, seed=0) != 0
    y = F.dropout(np.full(6, np.inf, dtype), 0.5, seed=0)
    np.testing.assert_array_equal(y, np.where(kept, np.inf, np.nan))
    assert np.isnan(F.dropout(np.full(6, np.nan, dtype), 0.5, seed=0)).all()


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_dropout_drops_a_share_p_and_keeps_the_mean(p):
    count = 400_000
    y = F.dropout(np.ones(count), p, seed=2024)
    assert abs(np.mean(y == 0) - p) < 4 * math.sqrt(p * (1 - p) / count)
    assert abs(y.mean() - 1) < 4 * math.sqrt(p / (1 - p) / count)
    np.testing.assert_array_equal(np.unique(y), [0, 1 / (1 - p)])


def test_dropout_masks_of_neighbours_and_of_seeds_are_independent():
    count = 400_000
    masks = [F.dropout(np.ones(count), 0.5, seed=seed) - 1 for seed in (0, 1, 2**32, LARGEST_SEED)]
    bound = 4.5 / math.sqrt(count)  # of a correlation of independent +-1 variables, in 4.5 standard deviations
    for lag in (1, 2, 3, 4, 8, 16, 32, 1024, 16384):
        assert abs(np.mean(masks[0][:-lag] * masks[0][lag:])) < bound
    for i in range(4):
        for j in range(i):
            assert abs(np.mean(masks[i] * masks[j])) < bound


def test_dropout_words_are_uniform():
    words = native.philox(7, 0, 1 << 20)
    for shift in (24, 0):  # the highest and the lowest byte
        observed = np.bincount((words >> shift) & 255, minlength=256)
        chi_square = np.sum((observed - 4096) ** 2 / 4096)
        assert abs(chi_square - 255) < 4 * math.sqrt(2 * 255)


def test_dropout_without_a_seed_repeats_after_manual_seed(monkeypatch):
    monkeypatch.setattr(fastnn.seed, "current", fastnn.seed.current)
    x = np.ones(1000)
    fastnn.manual_seed(1)
    first, second, noise = F.dropout(x), F.dropout(x), F.gaussian_dropout(x)
    assert (first != second).any()
    fastnn.manual_seed(1)
    np.testing.assert_array_equal(F.dropout(x), first)
    np.testing.assert_array_equal(F.dropout(x), second)
    np.testing.assert_array_equal(F.gaussian_dropout(x), noise)


def test_original_form_of_dropout_as_documented():
    """No scaling in training, multiplied by 1 - p at test time: both forms have the same expectation at test time."""
    p = 0.25
    x = np.arange(1.0, 100_001.0)
    inverted = F.dropout(x, p, seed=3)
    np.testing.assert_allclose(inverted * (1 - p), np.where(inverted != 0, x, 0), rtol=1e-15)
    assert np.sum(inverted * (1 - p)) == pytest.approx(np.sum(x * (1 - p)), rel=0.01)


@pytest.mark.parametrize("name", ["dropout", "gaussian_dropout"])
def test_backward_matches_finite_differences(isa, rng, name):
    x, dy = rng.standard_normal((2, 3, 17))
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    numerical = numerical_gradient(lambda x: forward(x, 0.4, seed=9), x, dy)
    assert_gradient(backward(dy, 0.4, seed=9), numerical)


@pytest.mark.parametrize("count", [*COUNTS, 100_003])
def test_gaussian_dropout_matches_reference(isa, dtype, rng, count):
    x, dy = rng.standard_normal((2, count)).astype(dtype)
    for seed, std in [(0, 1.0), (LARGEST_SEED, 0.3)]:
        expected = reference.gaussian_dropout(x.astype(np.float64), std, seed)
        assert_matches(F.gaussian_dropout(x, std=std, seed=seed), expected, "gaussian_dropout")
        expected = reference.gaussian_dropout_backward(dy.astype(np.float64), std, seed)
        assert_matches(F.gaussian_dropout_backward(dy, std=std, seed=seed), expected, "gaussian_dropout")


def test_gaussian_dropout_has_the_same_bits_for_every_number_of_threads(isa, dtype):
    x = np.ones(200_003, dtype)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            results.append(F.gaussian_dropout(x, seed=1))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_gaussian_dropout_keeps_special_values(isa, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0] * 9, dtype)
    np.testing.assert_array_equal(F.gaussian_dropout(x, std=0.1, seed=0), x)


def test_gaussian_dropout_noise_is_normal(isa):
    count = 400_000
    z = np.sort(F.gaussian_dropout(np.ones(count), std=1.0, seed=5) - 1)
    points = np.linspace(-4, 4, 81)
    below = np.searchsorted(z, points) / count
    expected = [NormalDist().cdf(point) for point in points]
    assert np.abs(below - expected).max() < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov at the 0.1 % level
    assert 4.4 < np.abs(z).max() < 5.77


def test_gaussian_dropout_noise_of_neighbours_is_independent():
    count = 400_000
    z = F.gaussian_dropout(np.ones(count), std=1.0, seed=6) - 1
    for lag in (1, 2, 4, 16, 32, 1024, 16384):
        assert abs(np.mean(z[:-lag] * z[lag:])) < 4.5 / math.sqrt(count)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_gaussian_dropout_has_the_variance_of_dropout(p):
    x = np.ones(400_000)
    assert F.gaussian_dropout(x, p, seed=1).std() == pytest.approx(math.sqrt(p / (1 - p)), rel=0.01)
    assert F.dropout(x, p, seed=1).std() == pytest.approx(math.sqrt(p / (1 - p)), rel=0.01)


def test_gaussian_dropout_is_in_expectation_an_l2_penalty_weighted_by_the_squared_inputs():
    """A linear unit with loss (t - w x)^2: E[grad_i J_D] = grad_i J_N + 2 sigma^2 x_i^2 w_i, by Monte Carlo."""
    samples, sigma, target = 400_000, 0.7, 0.5
    x, w = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.3, 0.2, -1.0, 0.4])
    noisy = F.gaussian_dropout(np.broadcast_to(x, (samples, 4)), std=sigma, seed=8)
    gradients = -2 * (target - noisy @ w)[:, None] * noisy
    expected = -2 * (target - x @ w) * x + 2 * sigma**2 * x**2 * w
    deviation = gradients.std(axis=0) / math.sqrt(samples)
    assert (np.abs(gradients.mean(axis=0) - expected) < 4 * deviation).all()
    assert (np.abs(2 * sigma**2 * x**2 * w) > 10 * deviation).all()  # the penalty is large enough to be seen


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=4).map(tuple),
    p=st.floats(0, 1),
    seed=st.integers(0, LARGEST_SEED),
    position=st.integers(0, 2**63 - 1),
)
def test_dropout_on_random_shapes_is_the_reference(isa, dtype, shape, p, seed, position):
    x = np.asarray(np.random.default_rng(0).standard_normal(shape), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = reference.dropout(x, p, seed, position)
        np.testing.assert_array_equal(F.dropout(x, p, seed=seed, position=position), expected)


X = np.ones(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout([1.0]), TypeError, r"dropout: input must be a NumPy array, got list"),
        (lambda: F.dropout(np.arange(3)), TypeError, r"dropout: input must be float32 or float64, got int64"),
        (lambda: F.dropout(X, -0.1), ValueError, r"dropout: p must be from 0 to 1, got -0\.1"),
        (lambda: F.dropout(X, 1.5), ValueError, r"dropout: p must be from 0 to 1, got 1\.5"),
        (lambda: F.dropout(X, math.nan), ValueError, r"dropout: p must be from 0 to 1, got nan"),
        (lambda: F.dropout(X, "half"), TypeError, r"dropout: p must be a number, got 'half'"),
        (lambda: F.dropout(X, seed=-1), ValueError, r"dropout: seed must be at least 0, got -1"),
        (lambda: F.dropout(X, seed=2**64), ValueError, r"dropout: seed must be at most 18446744073709551615"),
        (lambda: F.dropout(X, seed=1.0), TypeError, r"dropout: seed must be an integer, got 1\.0"),
        (lambda: F.dropout(X, position=-1), ValueError, r"dropout: position must be at least 0, got -1"),
        (lambda: F.dropout(X, position=2**63), ValueError, r"dropout: position must be at most 9223372036854775807"),
        (lambda: F.dropout(X, position=None), TypeError, r"dropout: position must be an integer, got None"),
        (lambda: F.dropout_backward(X), TypeError, r"required keyword-only argument: 'seed'"),
        (lambda: F.dropout_backward(X, seed=None), TypeError, r"dropout_backward: seed must be an integer, got None"),
        (lambda: F.dropout_backward([1.0], seed=0), TypeError, r"dropout_backward: grad_output must be a NumPy array"),
        (lambda: F.gaussian_dropout(X, 1.0), ValueError, r"gaussian_dropout: p must be below 1 .*got 1\.0"),
        (lambda: F.gaussian_dropout(X, std=-1), ValueError, r"gaussian_dropout: std must be at least 0, got -1\.0"),
        (lambda: F.gaussian_dropout(X, std=math.inf), ValueError, r"gaussian_dropout: std must be finite, got inf"),
        (lambda: F.gaussian_dropout(X, std=math.nan), ValueError, r"gaussian_dropout: std must be at least 0, got nan"),
        (lambda: F.gaussian_dropout(None), TypeError, r"gaussian_dropout: input must be a NumPy array, got NoneType"),
        (
            lambda: F.gaussian_dropout_backward(X, seed=None),
            TypeError,
            r"gaussian_dropout_backward: seed must be an integer, got None",
        ),
        (
            lambda: F.gaussian_dropout_backward(1.0, seed=0),
            TypeError,
            r"gaussian_dropout_backward: grad_output must be a NumPy array, got float",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

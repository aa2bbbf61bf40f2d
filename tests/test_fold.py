"""unfold and fold: native against reference, torch and finite differences, on hard shapes and bad input."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnn
import fastnn.functional as F
from fastnn import reference
from tests.oracle import assert_gradient, assert_matches, numerical_gradient

# (N, C, size, kernel, dilation, padding, stride)
CASES = [
    (1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),  # ones everywhere
    (2, 3, (7, 11), (3, 3), (1, 1), (1, 1), (1, 1)),  # primes
    (0, 3, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1)),  # empty batch
    (2, 0, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1)),  # no channels
    (3, 2, (5, 7), (5, 7), (1, 1), (0, 0), (1, 1)),  # kernel = image
    (2, 3, (9, 8), (2, 3), (1, 1), (0, 1), (4, 5)),  # stride > kernel: pixels that no patch reads
    (2, 2, (13, 12), (3, 2), (3, 2), (2, 3), (1, 2)),  # dilation
    (5, 2, (3, 3), (3, 3), (2, 2), (5, 5), (1, 1)),  # patches that never meet the image
    (1, 2, (1, 1), (3, 3), (1, 1), (4, 4), (3, 2)),  # image within the padding
    (2, 3, (33, 17), (3, 3), (1, 1), (1, 1), (2, 2)),  # one past a vector
    (1, 2, (4, 65), (1, 9), (1, 1), (0, 4), (1, 1)),  # one row
    (1, 2, (0, 3), (2, 2), (1, 1), (1, 1), (1, 1)),  # an empty image within padding
]


def arrays(case, rng, dtype):
    """An image and columns that fit together, and the arguments of unfold."""
    images, channels, size, *arguments = case
    x = rng.standard_normal((images, channels, *size)).astype(dtype)
    columns = rng.standard_normal(reference.unfold(x, *arguments).shape).astype(dtype)
    return x, columns, arguments


@pytest.mark.parametrize("case", CASES, ids=str)
def test_unfold_and_fold_match_reference(isa, dtype, rng, case):
    x, columns, arguments = arrays(case, rng, dtype)
    np.testing.assert_array_equal(F.unfold(x, *arguments), reference.unfold(x, *arguments))
    expected = reference.fold(columns.astype(np.float64), x.shape[2:], *arguments)
    assert_matches(F.unfold_backward(columns, x, *arguments), expected, "fold")
    if 0 not in x.shape[2:]:  # fold makes no empty images
        assert_matches(F.fold(columns, x.shape[2:], *arguments), expected, "fold")
        actual = F.fold_backward(x, columns, x.shape[2:], *arguments)
        np.testing.assert_array_equal(actual, reference.unfold(x, *arguments))


@pytest.mark.parametrize("case", [case for case in CASES if 0 not in (case[1], *case[2])], ids=str)
def test_unfold_and_fold_match_torch(isa, dtype, rng, case):
    torch = pytest.importorskip("torch")
    x, columns, (kernel, dilation, padding, stride) = arrays(case, rng, dtype)
    peer = torch.from_numpy(x).requires_grad_()
    unfolded = torch.nn.functional.unfold(peer, kernel, dilation, padding, stride)
    np.testing.assert_array_equal(F.unfold(x, kernel, dilation, padding, stride), unfolded.detach().numpy())
    unfolded.backward(torch.from_numpy(columns))
    assert_matches(F.unfold_backward(columns, x, kernel, dilation, padding, stride), peer.grad.numpy(), "fold")
    peer = torch.from_numpy(columns).requires_grad_()
    folded = torch.nn.functional.fold(peer, x.shape[2:], kernel, dilation, padding, stride)
    assert_matches(F.fold(columns, x.shape[2:], kernel, dilation, padding, stride), folded.detach().numpy(), "fold")
    folded.backward(torch.from_numpy(x))
    actual = F.fold_backward(x, columns, x.shape[2:], kernel, dilation, padding, stride)
    np.testing.assert_array_equal(actual, peer.grad.numpy())


def test_gradients_match_finite_differences(isa, rng):
    x, columns, arguments = arrays((2, 2, (5, 4), (3, 2), (1, 2), (1, 0), (2, 1)), rng, np.float64)
    numerical = numerical_gradient(lambda x: F.unfold(x, *arguments), x, columns)
    assert_gradient(F.unfold_backward(columns, x, *arguments), numerical)
    numerical = numerical_gradient(lambda columns: F.fold(columns, (5, 4), *arguments), columns, x)
    assert_gradient(F.fold_backward(x, columns, (5, 4), *arguments), numerical)


def test_fold_of_unfold_counts_the_patches_of_each_pixel(isa, dtype):
    x = np.ones((1, 1, 3, 4), dtype)
    counts = F.fold(F.unfold(x, 2), (3, 4), 2)
    np.testing.assert_array_equal(counts[0, 0], [[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]])


def test_convolution_is_a_product_with_the_unfolded_image(rng):
    x, weight = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((5, 3, 3, 2))
    product = weight.reshape(5, -1) @ F.unfold(x, (3, 2), (2, 1), (1, 2), (1, 2))
    expected = F.conv2d(x, weight, stride=(1, 2), padding=(1, 2), dilation=(2, 1))
    np.testing.assert_allclose(product.reshape(expected.shape), expected, atol=1e-12)


def test_special_values_are_copied_and_added(isa, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -0.0], dtype).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(F.unfold(x, 1)[0, 0], x.ravel())
    folded = F.fold(F.unfold(x, 2, padding=1), (2, 2), 2, padding=1)
    np.testing.assert_array_equal(folded, 4 * x)


def test_any_strides_are_taken_and_inputs_left_alone(isa, dtype, rng):
    x = rng.standard_normal((4, 6, 10, 8)).astype(dtype)
    read_only = x.copy()
    read_only.flags.writeable = False
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for view in (x[::2, ::-1, ::-3], nhwc, np.asfortranarray(x), read_only, np.broadcast_to(x[:1], x.shape)):
        before = view.copy()
        columns = F.unfold(view, 3, padding=1)
        np.testing.assert_array_equal(columns, F.unfold(before, 3, padding=1))
        strided = np.asfortranarray(columns)
        np.testing.assert_array_equal(
            F.fold(strided, view.shape[2:], 3, padding=1), F.fold(columns, view.shape[2:], 3, padding=1)
        )
        np.testing.assert_array_equal(view, before)


def test_same_bits_for_every_number_of_threads(isa, dtype, rng):
    x = rng.standard_normal((4, 16, 32, 32)).astype(dtype)
    columns = F.unfold(x, 3, padding=1)
    results = []
    for threads in (1, 2, 5):
        with fastnn.threads(threads):
            results.append((F.unfold(x, 3, padding=1), F.fold(columns, 32, 3, padding=1)))
    for unfolded, folded in results[1:]:
        np.testing.assert_array_equal(unfolded, results[0][0])
        np.testing.assert_array_equal(folded, results[0][1])


pair = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    lead=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel=pair,
    dilation=pair,
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    stride=pair,
)
def test_random_shapes_match_reference(isa, dtype, lead, size, kernel, dilation, padding, stride):
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(max(n, r - 2 * p) for n, r, p in zip(size, reach, padding, strict=True))  # at least one patch
    rng = np.random.default_rng(0)
    x, columns, arguments = arrays((*lead, size, kernel, dilation, padding, stride), rng, dtype)
    np.testing.assert_array_equal(F.unfold(x, *arguments), reference.unfold(x, *arguments))
    expected = reference.fold(columns.astype(np.float64), size, *arguments)
    assert_matches(F.fold(columns, size, *arguments), expected, "fold", 1)


X, C = np.ones((1, 2, 5, 6)), np.ones((1, 8, 20))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.unfold([1.0], 2), TypeError, r"unfold: input must be a NumPy array, got list"),
        (lambda: F.unfold(X.astype(int), 2), TypeError, r"unfold: input must be float32 or float64, got int64"),
        (lambda: F.unfold(X[0], 2), ValueError, r"unfold: input must have 4 dimensions \(N, C, H, W\), got shape"),
        (lambda: F.unfold(X, 0), ValueError, r"unfold: kernel_size must be at least 1, got 0"),
        (lambda: F.unfold(X, 1.5), TypeError, r"unfold: kernel_size must be an integer, got 1\.5"),
        (lambda: F.unfold(X, (1, 2, 3)), ValueError, r"unfold: kernel_size must be an integer or 2 of them, got"),
        (lambda: F.unfold(X, 2, dilation=0), ValueError, r"unfold: dilation must be at least 1, got 0"),
        (lambda: F.unfold(X, 2, padding=-1), ValueError, r"unfold: padding must be at least 0, got -1"),
        (lambda: F.unfold(X, 2, stride=0), ValueError, r"unfold: stride must be at least 1, got 0"),
        (
            lambda: F.unfold(X, 6),
            ValueError,
            r"unfold: the kernel reaches over \(6, 6\) elements \(size \(6, 6\), dilation \(1, 1\)\), more than the "
            r"padded image's \(5, 6\); use a larger image",
        ),
        (
            lambda: F.unfold(X, 3, padding=2**31 - 1),
            ValueError,
            r"unfold: input with this padding asks for .* too large",
        ),
        (lambda: F.fold(C, 2**31 - 1, 2), ValueError, r"fold: output_size asks for an output of shape .* too large"),
        (lambda: F.unfold(X, 3, dilation=(3, 1)), ValueError, r"reaches over \(7, 3\) elements"),
        (
            lambda: F.unfold_backward(np.ones((1, 8, 19)), X, 2),
            ValueError,
            r"unfold_backward: grad_output must have shape \(1, 8, 20\) \(the output's shape\), got \(1, 8, 19\)",
        ),
        (
            lambda: F.unfold_backward(C.astype(np.float32), X, 2),
            TypeError,
            r"unfold_backward: grad_output must have input's dtype float64, got float32",
        ),
        (lambda: F.fold(X, (5, 6), 2), ValueError, r"fold: input must have 3 dimensions"),
        (
            lambda: F.fold(C, (5, 6), 3),
            ValueError,
            r"fold: input's second dimension must be a multiple of the kernel's 3 x",
        ),
        (
            lambda: F.fold(C, (5, 5), 2),
            ValueError,
            r"fold: input's last dimension must be 4 x 4 = 16 patches for output_size \(5, 5\)",
        ),
        (lambda: F.fold(C, 0, 2), ValueError, r"fold: output_size must be at least 1, got 0"),
        (lambda: F.fold(C, (1, 1), 2), ValueError, r"fold: the kernel reaches over \(2, 2\)"),
        (
            lambda: F.fold_backward(X[:, :1], C, (5, 6), 2),
            ValueError,
            r"fold_backward: grad_output must have shape \(1, 2, 5, 6\) \(the output's shape\), got \(1, 1, 5, 6\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_sizes_beyond_memory_raise():
    with pytest.raises(ValueError, match="too large for any memory"):
        F.unfold(np.ones((1, 1, 2, 2), np.float32), 2**30, padding=2**30)

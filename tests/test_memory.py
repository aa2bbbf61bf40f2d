"""Nothing grows: 200 training steps use the memory of the first ones."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.functional import checks
from fastnn.models import LeNet5
from fastnn.native import runtime

ROOT = str(Path(fastnn.__file__).parent.parent)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def train(model, optimizer, x, target, steps):
    criterion = nn.CrossEntropyLoss()
    for _ in range(steps):
        criterion(model(x), target)
        model.backward(criterion.backward(), needs_input_grad=False)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("norm", [False, True], ids=["LeNet-5", "with batch norm and dropout"])
def test_200_training_steps_leave_resident_memory_flat(rng, norm):
    model = LeNet5(input_size=28)
    if norm:
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten())
        model.append(nn.Linear(8 * 26 * 26, 10))
    optimizer = optim.Adam(model.parameters())
    x = rng.standard_normal((64, 1, 28, 28), dtype=np.float32)
    target = rng.integers(0, 10, 64)
    train(model, optimizer, x, target, 20)
    resident, used = resident_bytes(), fastnn.memory_stats()["used_bytes"]
    train(model, optimizer, x, target, 200)
    assert fastnn.memory_stats()["used_bytes"] <= used
    assert resident_bytes() - resident < 2 << 20


# Run alone, for the peak of a process does not fall again: what one pass of a layer uses beside its result.
EXTRA_MEMORY = """
import sys, numpy as np, fastnn, fastnn.functional as F

images, channels, out_channels, size, kernel, stride, padding, threads, last, groups, dilation = map(int, sys.argv[4:])
fastnn.set_conv_algorithm(sys.argv[2])
fastnn.set_num_threads(threads)


def ones(shape):
    n, c, h, w = shape
    if last == 1 or (last == 2 and c == channels):
        return np.ones((n, h, w, c), sys.argv[3]).transpose(0, 3, 1, 2)
    return np.ones(shape, sys.argv[3])


x = ones((images, channels, size, size))
weight = np.ones((out_channels, channels // groups, kernel, kernel), x.dtype)
out_size = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
grad, bias = ones((images, out_channels, out_size, out_size)), weight[:, 0, 0, 0]


def resident(line):
    return next(int(text.split()[1]) << 10 for text in open("/proc/self/status") if text.startswith(line))


# What is loaded when it is first needed.
F.conv2d_backward(*[np.ones((1, 1, 9, 9), x.dtype)] * 2, np.ones((1, 1, 3, 3), x.dtype), None, 1, 1)
fastnn.empty_cache()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # VmHWM starts anew
before, used_before = resident("VmRSS"), fastnn.memory_stats()["used_bytes"]
if sys.argv[1] == "forward":
    results = F.conv2d(x, weight, None, stride, padding, dilation, groups)
else:
    needs = {"input": (True, False, False), "weight": (False, True, True)}[sys.argv[1]]
    results = F.conv2d_backward(grad, x, weight, bias, stride, padding, dilation, groups, needs=needs)
grown = resident("VmHWM") - before - sum(
    array.nbytes for array in (results if isinstance(results, tuple) else [results]) if array is not None
)
peak, used = fastnn.memory_stats()["peak_bytes"], fastnn.memory_stats()["used_bytes"]
del results
in_results = used - fastnn.memory_stats()["used_bytes"]  # what they are rounded up to
print(peak - in_results - used_before, grown)
"""
PASSES = ("forward", "input", "weight")


OTHER_MEMORY = 15 << 20


def extra_memory(algorithm, dtype, layer, threads, channels_last=False, passes=PASSES, groups=1, dilation=1):
    """The most that one of the passes takes."""
    numbers = [str(number) for number in (*layer, threads, int(channels_last), groups, dilation)]
    found = []
    for name in passes:
        command = [sys.executable, "-c", EXTRA_MEMORY, name, algorithm, np.dtype(dtype).name, *numbers]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        found.append([int(number) for number in done.stdout.split()])
    # What the system counts is also blocks that wait for re-use, code that runs for the first time, NumPy's own arrays.
    assert all(resident <= own + OTHER_MEMORY for own, resident in found), found
    return max(own for own, _ in found)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "layer",  # N, C, K, size, kernel, stride, padding
    [
        (16, 256, 256, 8, 3, 1, 1),
        (1, 512, 512, 28, 3, 1, 1),
        (8, 512, 512, 7, 3, 1, 1),
        (2, 96, 256, 27, 5, 1, 2),
        (2, 3, 64, 224, 7, 2, 3),
        (8, 256, 64, 56, 1, 1, 0),
        (2, 64, 128, 56, 3, 2, 1),
        (1, 32, 128, 128, 3, 2, 1),
        (16, 512, 512, 14, 3, 2, 1),
        (16, 256, 32, 112, 5, 2, 2),  # large weights for few channels of the gradient: blocks of many tiles
        (8, 64, 32, 224, 11, 4, 5),
        (16, 64, 512, 56, 3, 1, 1),
        (8, 512, 512, 28, 5, 1, 2),
        (2, 1453, 10, 56, 3, 1, 1),  # fewer output channels than a chunk has
        (2, 4096, 4096, 16, 1, 1, 0),  # weights of 64 MB
    ],
)
def test_a_convolution_uses_at_most_16_mb_per_thread_beside_its_result(layer, threads):
    assert extra_memory("auto", np.float32, layer, threads) <= threads * (16 << 20)


@pytest.mark.parametrize(
    "layer",
    [
        (32, 3, 64, 224, 7, 2, 3),
        (32, 3, 96, 227, 11, 4, 0),
        (8, 64, 64, 56, 3, 1, 1),
        (8, 512, 512, 7, 3, 1, 1),
        (8, 64, 2048, 56, 3, 1, 1),  # large weights: products of many tiles stay from part to part of the channels
        (2, 64, 2048, 56, 3, 2, 1),
        (8, 96, 256, 27, 5, 1, 2),
        (1, 64, 64, 224, 7, 1, 3),  # images of 12 MB
        (4, 96, 20000, 28, 3, 3, 1),  # products of very many output channels
    ],
)
def test_a_convolution_with_channels_last_uses_at_most_16_mb_beside_its_result(layer):
    assert extra_memory("auto", np.float32, layer, 1, channels_last=True) <= 16 << 20


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        ((64, 64, 64, 56, 3, 1, 1), 4),
        ((64, 128, 128, 28, 3, 1, 1), 64),
        ((1, 33, 66, 512, 3, 1, 1), 33),  # groups of an image of 35 MB
        ((16, 64, 64, 112, 3, 2, 1), 64),
        ((16, 64, 128, 112, 3, 2, 1), 64),
        ((8, 128, 128, 56, 3, 1, 1), 32),  # bundles of some groups
        ((4, 512, 512, 28, 7, 1, 3), 2),
    ],
)
def test_groups_with_channels_last_use_at_most_16_mb_beside_their_result(layer, groups):
    assert extra_memory("auto", np.float32, layer, 1, channels_last=True, groups=groups) <= 16 << 20


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "last"])
@pytest.mark.parametrize("layer", [(1, 512, 512, 65, 3, 1, 4), (2, 64, 64, 256, 5, 1, 8), (4, 160, 180, 65, 3, 1, 4)])
def test_a_dilated_convolution_uses_at_most_16_mb_beside_its_result(layer, channels_last):
    assert extra_memory("auto", np.float32, layer, 1, channels_last, dilation=4) <= 16 << 20


def test_a_dilated_convolution_in_float64_or_without_padding_uses_at_most_16_mb_beside_its_result():
    assert extra_memory("auto", np.float64, (2, 512, 512, 33, 3, 1, 2), 1, True, dilation=2) <= 16 << 20
    assert extra_memory("auto", np.float32, (1, 512, 512, 48, 7, 1, 0), 1, dilation=2) <= 16 << 20
    assert extra_memory("auto", np.float32, (4, 64, 64, 40, 9, 1, 32), 1, dilation=4) <= 16 << 20


def test_gradients_of_arrays_with_different_layouts_use_at_most_16_mb_beside_their_result():
    for layer in ((32, 64, 65, 56, 3, 1, 1), (32, 3, 64, 112, 7, 2, 3), (16, 64, 65, 56, 7, 1, 3)):
        assert extra_memory("auto", np.float32, layer, 1, channels_last=2, passes=["weight"]) <= 16 << 20  # x alone


@pytest.mark.parametrize(
    ("shape", "weight", "dilation"),
    [((1, 16, 320000), (16, 16, 9), 1), ((1, 8, 300000), (64, 8, 5), 1), ((1, 48, 16, 16), (4096, 48, 7, 7), 2)],
    ids=["long rows", "many outputs", "large weights"],
)
def test_long_rows_and_large_weights_of_few_channels_use_at_most_16_mb_beside_their_result(shape, weight, dilation):
    program = f"""
import numpy as np, fastnn, fastnn.functional as F
fastnn.set_num_threads(1)
conv = F.conv{len(shape) - 2}d
y = conv(np.ones({shape}, np.float32), np.ones({weight}, np.float32), dilation={dilation})
print(fastnn.memory_stats()["peak_bytes"] - fastnn.memory_stats()["used_bytes"])
"""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) <= 16 << 20


def test_a_matrix_product_with_large_weights_uses_at_most_16_mb_beside_its_result():
    for channels_last in (False, True):
        assert extra_memory("im2col", np.float32, (2, 2048, 256, 33, 3, 1, 1), 1, channels_last) <= 16 << 20
    assert extra_memory("im2col", np.float32, (4, 64, 8192, 16, 3, 1, 1), 1, passes=["weight"]) <= 16 << 20


def test_backward_weights_of_many_output_channels_uses_at_most_16_mb_beside_its_result():
    assert extra_memory("winograd", np.float32, (4, 3, 2048, 48, 3, 1, 1), 1) <= 16 << 20
    for layer in ((2, 64, 16384, 14, 1, 1, 0), (4, 3, 16384, 28, 3, 1, 1)):
        for channels_last in (False, True):
            assert extra_memory("auto", np.float32, layer, 1, channels_last, passes=["weight"]) <= 16 << 20


@pytest.mark.parametrize(
    "call",
    [
        "F.conv2d(gaps(x), weight, bias, padding=1)",
        "F.conv2d_backward(gaps(y), x, weight, bias, padding=1, needs=(True, False, False))",
        "F.conv2d_backward(gaps(y), x, weight, bias, padding=1, needs=(False, True, True))",
        "F.conv2d_fused(x, weight, bias, padding=1, residual=last(y))",
        "F.conv2d_fused(last(x), weight, bias, padding=1, residual=y)",
        "F.conv2d_fused(large, wide, bias, padding=3, statistics=True)",
        "F.conv2d_fused(last(large), wide, bias, padding=3, statistics=True)",
    ],
)
def test_arrays_that_stand_otherwise_and_statistics_use_at_most_16_mb_beside_the_result(call):
    program = f"""
import numpy as np, fastnn, fastnn.functional as F
fastnn.set_num_threads(1)
x = y = np.ones((64, 64, 56, 56), np.float32)
large = np.ones((64, 64, 112, 112), np.float32)
weight, wide, bias = (np.ones(shape, np.float32) for shape in ((64, 64, 3, 3), (64, 64, 7, 7), 64))
gaps = lambda array: array.repeat(2, 3)[..., ::2]
last = lambda array: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
results = {call}
peak, used = fastnn.memory_stats()["peak_bytes"], fastnn.memory_stats()["used_bytes"]
del results
print(peak - (used - fastnn.memory_stats()["used_bytes"]))
"""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) <= 16 << 20


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "layer",
    [
        (2, 512, 5, 52, 5, 1, 2),  # few output channels of many: panels of tiles would be large
        (2, 300, 4, 60, 5, 1, 2),
        (1, 512, 128, 32, 5, 1, 2),  # weights in chunks
        (60, 64, 64, 20, 5, 1, 2),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "last"])
def test_a_convolution_by_fft_uses_at_most_16_mb_beside_its_result(layer, dtype, channels_last):
    assert extra_memory("fft", dtype, layer, 1, channels_last) <= 16 << 20


def test_arrays_have_as_many_dimensions_as_numpy_gives_them():
    shape = (2, *(1,) * (checks.LARGEST_NDIM - 1))
    for made in (runtime.allocate(shape, np.float32), F.relu(np.ones(shape)), F.global_max_pool(np.ones(shape))):
        made[...] = 1
        assert made.shape == shape[: made.ndim]
    with pytest.raises(ValueError, match="an array has at most 64 dimensions, got 65"):
        runtime.allocate((1,) * 65, np.float32)

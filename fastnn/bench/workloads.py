"""The calls that are timed. Each has a forward and a backward; operations and bytes are the least a call must do:
inputs read once, outputs written once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import fastnn.functional as F


@dataclass(frozen=True)
class Pass:
    """One timed call: ours, the same one in torch, and the least it must do."""

    ours: Callable
    torch: Callable | None
    flops: float
    bytes: float


@dataclass(frozen=True)
class Workload:
    """Named calls; `build(torch)` makes their data and returns {pass: Pass}. torch: the module, or None without it."""

    family: str
    name: str
    build: Callable
    passes: tuple[str, ...] = ("forward", "backward")


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def size_of(*arrays):
    return float(sum(array.nbytes for array in arrays))


def torch_passes(torch, function, arrays, dy):
    """Forward without a graph, and the backward of a graph built once."""
    if torch is None:
        return None, None
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    output = function(*tensors)
    gradient = torch.tensor(dy).reshape(output.shape)

    def forward():
        with torch.no_grad():
            return function(*tensors)

    return forward, lambda: torch.autograd.grad(output, tensors, gradient, retain_graph=True)


def conv2d_arrays(n, c, k, h, r, stride, padding):
    """Input, weight, bias, and the gradient of the output, which have nothing in common: sums of products of equal
    numbers are large, and so are their errors."""
    out = (h + 2 * padding - r) // stride + 1
    shapes = (n, c, h, h), (k, c, r, r), (k,), (n, k, out, out)
    return tuple(random_array(*shape, seed=seed) for seed, shape in enumerate(shapes))


def conv2d(n, c, k, h, r, stride, padding):
    def build(torch):
        x, weight, bias, dy = conv2d_arrays(n, c, k, h, r, stride, padding)
        flops = 2.0 * dy.size * c * r * r
        forward, backward = torch_passes(
            torch, lambda *a: torch.nn.functional.conv2d(*a, stride=stride, padding=padding), (x, weight, bias), dy
        )
        return {
            "forward": Pass(
                lambda: F.conv2d(x, weight, bias, stride, padding), forward, flops, size_of(x, weight, bias, dy)
            ),
            "backward": Pass(
                lambda: F.conv2d_backward(dy, x, weight, bias, stride, padding),
                backward,
                2 * flops,
                size_of(dy, x, weight, x, weight, bias),
            ),
        }

    return Workload("conv", f"conv2d N{n} C{c} K{k} {h}x{h} {r}x{r}/{stride} p{padding}", build)


def linear(n, inputs, outputs):
    def build(torch):
        x, weight, bias = random_array(n, inputs), random_array(outputs, inputs), random_array(outputs)
        dy = random_array(n, outputs)
        flops = 2.0 * n * inputs * outputs
        forward, backward = torch_passes(torch, lambda *a: torch.nn.functional.linear(*a), (x, weight, bias), dy)
        return {
            "forward": Pass(lambda: F.linear(x, weight, bias), forward, flops, size_of(x, weight, bias, dy)),
            "backward": Pass(
                lambda: F.linear_backward(dy, x, weight, bias),
                backward,
                2 * flops,
                size_of(dy, x, weight, x, weight, bias),
            ),
        }

    return Workload("linear", f"linear {n}x{inputs} -> {outputs}", build)


def elementwise(family, name, shape, forward, backward, torch_function, flops_each=1, extra_bytes=(0, 0)):
    """A function of one array with an output of any shape; backward(dy, x)."""

    def build(torch):
        x = random_array(*shape)
        y = forward(x)
        dy = random_array(*y.shape)
        theirs = torch_passes(torch, lambda a: torch_function(torch)(a), (x,), dy)
        saved = backward(dy, x)
        return {
            "forward": Pass(lambda: forward(x), theirs[0], flops_each * x.size, size_of(x, y) + extra_bytes[0]),
            "backward": Pass(saved, theirs[1], flops_each * x.size, size_of(dy, x) + extra_bytes[1]),
        }

    return Workload(family, f"{name} {'x'.join(map(str, shape))}", build)


def activation(name, shape):
    """Backward reads the output's gradient and the input."""
    forward, backward = getattr(F, name), getattr(F, f"{name}_backward")
    elements = float(np.prod(shape))
    return elementwise(
        "activation",
        name,
        shape,
        forward,
        lambda dy, x: lambda: backward(dy, x),
        lambda torch: getattr(torch.nn.functional, name),
        extra_bytes=(0, 4 * elements),
    )


def max_pool2d(shape, kernel, stride):
    def backward(dy, x):
        _, indices = F.max_pool2d(x, kernel, stride, return_indices=True)
        return lambda: F.max_pool2d_backward(dy, x, kernel, stride, indices=indices)

    return elementwise(
        "pool",
        f"max_pool2d {kernel}x{kernel}/{stride}",
        shape,
        lambda x: F.max_pool2d(x, kernel, stride),
        backward,
        lambda torch: lambda a: torch.nn.functional.max_pool2d(a, kernel, stride),
    )


def avg_pool2d(shape, kernel, stride):
    return elementwise(
        "pool",
        f"avg_pool2d {kernel}x{kernel}/{stride}",
        shape,
        lambda x: F.avg_pool2d(x, kernel, stride),
        lambda dy, x: lambda: F.avg_pool2d_backward(dy, x, kernel, stride),
        lambda torch: lambda a: torch.nn.functional.avg_pool2d(a, kernel, stride),
    )


def batch_norm(shape):
    def build(torch):
        x, dy = random_array(*shape), random_array(*shape)
        channels = shape[1]
        weight, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        _, saved = F.batch_norm(x, mean, variance, weight, bias, training=True, return_saved=True)
        forward = backward = None
        if torch is not None:
            running = [torch.tensor(mean), torch.tensor(variance)]
            forward, backward = torch_passes(
                torch,
                lambda a, w, b: torch.nn.functional.batch_norm(a, *running, w, b, training=True),
                (x, weight, bias),
                dy,
            )
        return {
            "forward": Pass(
                lambda: F.batch_norm(x, mean, variance, weight, bias, training=True),
                forward,
                5.0 * x.size,
                size_of(x, x),
            ),
            "backward": Pass(
                lambda: F.batch_norm_backward(dy, x, mean, variance, weight, bias, True, saved=saved),
                backward,
                8.0 * x.size,
                size_of(dy, x, x),
            ),
        }

    return Workload("norm", f"batch_norm {'x'.join(map(str, shape))}", build)


def layer_norm(rows, features):
    def build(torch):
        x, dy = random_array(rows, features), random_array(rows, features)
        weight, bias = np.ones(features, np.float32), np.zeros(features, np.float32)
        forward, backward = torch_passes(
            torch, lambda a, w, b: torch.nn.functional.layer_norm(a, (features,), w, b), (x, weight, bias), dy
        )
        return {
            "forward": Pass(
                lambda: F.layer_norm(x, (features,), weight, bias), forward, 5.0 * x.size, size_of(x, x, weight, bias)
            ),
            "backward": Pass(
                lambda: F.layer_norm_backward(dy, x, (features,), weight, bias),
                backward,
                8.0 * x.size,
                size_of(dy, x, x, weight, bias),
            ),
        }

    return Workload("norm", f"layer_norm {rows}x{features}", build)


def cross_entropy(rows, classes):
    """One pass gives loss and gradient; torch needs its forward and its backward for them."""

    def build(torch):
        x = random_array(rows, classes)
        target = np.random.default_rng(1).integers(0, classes, rows)
        forward = both = None
        if torch is not None:
            tensor, labels = torch.tensor(x, requires_grad=True), torch.tensor(target)

            def forward():
                with torch.no_grad():
                    return torch.nn.functional.cross_entropy(tensor, labels)

            def both():
                return torch.autograd.grad(torch.nn.functional.cross_entropy(tensor, labels), tensor)

        return {
            "forward": Pass(lambda: F.cross_entropy(x, target), forward, 4.0 * x.size, size_of(x)),
            "with gradient": Pass(lambda: F.cross_entropy_with_grad(x, target), both, 6.0 * x.size, size_of(x, x)),
        }

    return Workload("loss", f"cross_entropy {rows}x{classes}", build, ("forward", "with gradient"))


def adam(count, torch_options, label):
    def build(torch):
        import fastnn.optim

        parameter, gradient = random_array(count), random_array(count) * 1e-3
        optimizer = fastnn.optim.Adam([parameter], lr=1e-3)
        step = None
        if torch is not None:
            tensor = torch.nn.Parameter(torch.tensor(parameter))
            tensor.grad = torch.tensor(gradient)
            step = torch.optim.Adam([tensor], lr=1e-3, **torch_options).step
        return {
            "step": Pass(lambda: optimizer.step([gradient]), step, 12.0 * count, 7.0 * 4 * count),
        }

    return Workload("optim", f"Adam {count / 1e6:.0f} M parameters, {label}", build, ("step",))


CONV_LAYERS = [
    (64, 1, 6, 32, 5, 1, 0),
    (64, 3, 64, 32, 3, 1, 1),
    (64, 64, 64, 32, 3, 1, 1),
    (8, 64, 64, 56, 3, 1, 1),
    (8, 3, 64, 224, 7, 2, 3),
    (8, 256, 64, 56, 1, 1, 0),
]

WORKLOADS = [
    *[conv2d(*layer) for layer in CONV_LAYERS],
    linear(64, 400, 120),
    linear(512, 512, 512),
    max_pool2d((64, 64, 32, 32), 2, 2),
    max_pool2d((8, 64, 112, 112), 3, 2),
    avg_pool2d((64, 64, 32, 32), 2, 2),
    batch_norm((64, 64, 32, 32)),
    batch_norm((8, 64, 112, 112)),
    layer_norm(4096, 768),
    activation("relu", (64, 64, 32, 32)),
    activation("gelu", (64, 64, 32, 32)),
    cross_entropy(256, 1000),
    cross_entropy(8192, 10),
    adam(11_000_000, {}, "torch's default"),
    adam(11_000_000, {"fused": True}, "torch's fused"),
]

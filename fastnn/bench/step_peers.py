"""Training steps in fastnn and in the libraries that it is compared with, all of one model, translated from fastnn's.

A library's `build(net, threads)` returns a function without arguments that makes one step, forward, cross-entropy,
backward and Adam, always on the same batch, and returns the loss.
"""

from functools import partial

import numpy as np

import fastnn
from fastnn import nn, optim
from fastnn.bench.peers import Library
from fastnn.bench.step_nets import LEARNING_RATE
from fastnn.nn.norm import BatchNorm
from fastnn.seed import manual_seed


def seeded_model(net):
    """The same weights for every library."""
    manual_seed(0)
    return net.build()


def fastnn_step(net, threads):
    fastnn.set_num_threads(threads)
    model, criterion = seeded_model(net), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    images, labels = net.arrays()

    def step():
        loss = criterion(model(images), labels)
        model.backward(criterion.backward(), needs_input_grad=False)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


# ----------------------------------------------------------------------------------------------------------------------
# PyTorch
# ----------------------------------------------------------------------------------------------------------------------


def torch_step(net, threads, channels_last=False, compiled=False):
    import torch

    torch.set_num_threads(threads)
    model = torch_module(seeded_model(net))
    images, labels = map(torch.from_numpy, net.arrays())
    if channels_last:
        model, images = (item.to(memory_format=torch.channels_last) for item in (model, images))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    forward = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_module(module):
    """A torch module that computes what this one of fastnn does, with its weights."""
    import torch

    if isinstance(module, nn.Residual):
        return torch_residual(torch_module(module.body), module.shortcut and torch_module(module.shortcut))
    if isinstance(module, nn.Sequential):
        children = [torch_module(child) for child in module]
        return torch.nn.Sequential(*children)
    translated = torch_layer(torch.nn, module)
    translated.load_state_dict({name: torch.from_numpy(array) for name, array in module.state_dict().items()})
    return translated


def torch_layer(layers, module):
    match module:
        case nn.Conv2d():
            options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
            bias = module.bias is not None
            return layers.Conv2d(module.in_channels, module.out_channels, module.kernel_size, bias=bias, **options)
        case nn.Linear():
            outputs, inputs = module.weight.shape
            return layers.Linear(inputs, outputs, module.bias is not None)
        case nn.BatchNorm2d():
            return layers.BatchNorm2d(module.num_features, module.eps, module.momentum)
        case nn.MaxPool2d():
            return layers.MaxPool2d(module.kernel_size, module.stride, module.padding)
        case nn.AdaptiveAvgPool2d():
            return layers.AdaptiveAvgPool2d(module.output_size)
        case nn.Dropout():
            return layers.Dropout(module.p)
        case nn.ReLU():
            return layers.ReLU(inplace=True)
        case nn.Flatten():
            return layers.Flatten()
    # a new net of step_nets.py may need one more case: the tests build every net
    raise NotImplementedError(f"bench steps: there is no translation of {type(module).__name__}")


def torch_residual(body, shortcut):
    import torch

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.shortcut = body, shortcut or torch.nn.Identity()

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    return Residual()


# ----------------------------------------------------------------------------------------------------------------------
# JAX
# ----------------------------------------------------------------------------------------------------------------------


def jax_step(net, threads):
    """Images stand with channels last, as XLA's convolutions on CPUs want them. How many threads JAX uses stands in the
    environment when it starts."""
    import jax
    import optax

    model = seeded_model(net)
    images, labels = net.arrays()
    images = jax.device_put(images.transpose(0, 2, 3, 1))
    labels = jax.device_put(labels.astype(np.int32))
    parameters = jax.tree.map(jax.device_put, jax_parameters(model))
    optimizer = optax.adam(LEARNING_RATE)
    state = optimizer.init(parameters)

    def loss_of(parameters, key):
        scores = jax_apply(model, parameters, images, key)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(parameters, state, key):
        key, used = jax.random.split(key)
        loss, gradients = jax.value_and_grad(loss_of)(parameters, used)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, key, loss

    current = [parameters, state, jax.random.key(0)]

    def step():
        *current[:], loss = update(*current)
        return float(loss)

    return step


def jax_parameters(module):
    """Arrays by name, nested like the model; filters as (height, width, in, out)."""
    found = {name: jax_parameters(child) for name, child in module.named_children()}
    for name in ("weight", "bias"):
        parameter = getattr(module, name, None)
        if parameter is not None:
            data = parameter.data
            found[name] = data.transpose(2, 3, 1, 0) if data.ndim == 4 else data.T
    return found


def jax_apply(module, parameters, x, key):
    """What the module computes in training mode; running statistics are left out, in JAX's favour."""
    import jax

    children = module.named_children()
    if isinstance(module, nn.Residual):
        results = [jax_apply(child, parameters[name], x, key) for name, child in children]
        return results[0] + (results[1] if len(results) > 1 else x)
    if isinstance(module, nn.Sequential):
        for i, (name, child) in enumerate(children):
            x = jax_apply(child, parameters[name], x, jax.random.fold_in(key, i))
        return x
    return jax_layer(module, parameters, x, key)


def jax_layer(module, parameters, x, key):
    import jax
    from jax import lax
    from jax import numpy as jnp

    match module:
        case nn.Conv2d():
            padding = [(p, p) for p in module.padding]
            y = lax.conv_general_dilated(
                x, parameters["weight"], module.stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            return y + parameters["bias"] if "bias" in parameters else y
        case nn.Linear():
            return x @ parameters["weight"] + parameters["bias"]
        case BatchNorm():
            mean = x.mean(axis=(0, 1, 2))
            variance = jnp.square(x).mean(axis=(0, 1, 2)) - jnp.square(mean)
            scale = parameters["weight"] * lax.rsqrt(variance + module.eps)
            return x * scale + (parameters["bias"] - mean * scale)
        case nn.MaxPool2d():
            window, stride, padding = map(pair, (module.kernel_size, module.stride, module.padding))
            padding = [(0, 0), *[(p, p) for p in padding], (0, 0)]
            return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding)
        case nn.AdaptiveAvgPool2d():
            height, width = pair(module.output_size)
            shape = (x.shape[0], height, x.shape[1] // height, width, x.shape[2] // width, x.shape[3])
            return x.reshape(shape).mean(axis=(2, 4))
        case nn.Dropout():
            kept = jax.random.bernoulli(key, 1 - module.p, x.shape)
            return jnp.where(kept, x / (1 - module.p), 0)
        case nn.ReLU():
            return jax.nn.relu(x)
        case nn.Flatten():
            return (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(len(x), -1)
    # a new net of step_nets.py may need one more case: the tests build every net
    raise NotImplementedError(f"bench steps: there is no translation of {type(module).__name__}")


def pair(value):
    return (value, value) if isinstance(value, int) else value


FASTNN = Library("fastnn", ("fastnn",), fastnn_step, "")
PEERS = [
    Library("torch", ("torch",), torch_step, "eager, fused Adam"),
    Library("torch last", ("torch",), partial(torch_step, channels_last=True), "the same, images with channels last"),
    Library("torch.compile", ("torch",), partial(torch_step, compiled=True), "the model compiled, fused Adam"),
    Library("jax", ("jax", "optax"), jax_step, "jit of a whole step, optax's Adam, channels last"),
]

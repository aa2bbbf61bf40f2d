"""conv2d in fastnn and in the libraries that it is compared with, each fed as it takes its arrays natively (NCHW).

A library's `build(layer, arrays, threads)` returns the forward and the backward (None where it is not timed) as
functions without arguments; np.asarray reads their results.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn.cli.info import version


@dataclass(frozen=True)
class Library:
    """`packages`: what pip installs, the first one being the one whose version counts."""

    name: str
    packages: tuple[str, ...]
    build: Callable
    note: str

    def prepare(self):
        """Import what it needs, before memory is measured."""
        for package in self.packages:
            importlib.import_module(package)

    @property
    def version(self):
        """None where one of the packages is missing."""
        return version(self.packages[0]) if all(map(version, self.packages)) else None

    def __str__(self):
        return f"{self.name} {self.version}: {self.note}"

    @property
    def how_to_install(self):
        return f"{self.name} is not installed and left out: {sys.executable} -m pip install {' '.join(self.packages)}"


def fastnn_calls(layer, arrays, threads):
    fastnn.set_num_threads(threads)
    x, weight, bias, dy = arrays
    stride, padding = layer.stride, layer.padding
    return (
        lambda: F.conv2d(x, weight, bias, stride, padding),
        lambda: F.conv2d_backward(dy, x, weight, bias, stride, padding),
    )


def torch_calls(layer, arrays, threads):
    import torch

    torch.set_num_threads(threads)
    x, weight, bias, dy = map(torch.from_numpy, arrays)
    strides, padding, dilation, no_output_padding = (layer.stride,) * 2, (layer.padding,) * 2, (1, 1), (0, 0)
    rest = strides, padding, dilation, False, no_output_padding, 1, (True, True, True)
    return (
        lambda: torch.nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding),
        lambda: torch.ops.aten.convolution_backward(dy, x, weight, [layer.out_channels], *rest),
    )


def jax_calls(layer, arrays, threads):
    """How many threads JAX uses stands in the environment when it starts: `limit_jax`."""
    import jax

    strides, padding = (layer.stride,) * 2, [(layer.padding,) * 2] * 2

    @jax.jit
    def conv2d(x, weight, bias):
        layout = ("NCHW", "OIHW", "NCHW")
        y = jax.lax.conv_general_dilated(x, weight, strides, padding, dimension_numbers=layout)
        return y + bias[:, None, None]

    x, weight, bias = map(jax.device_put, arrays[:3])
    return lambda: conv2d(x, weight, bias).block_until_ready(), None


def limit_jax(environment, threads):
    """Before JAX starts: its pools of threads take their size from here."""
    environment.update(PJRT_NPROC=str(threads), JAX_PLATFORMS="cpu")


def onnxruntime_calls(layer, arrays, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = onnx_model(layer, arrays)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x, _, _, dy = arrays
    y = np.empty_like(dy)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

    def forward():
        session.run_with_iobinding(binding)
        return y

    return forward, None


def onnx_model(layer, arrays):
    """A file of one node, with the weight and the bias as constants."""
    from onnx import TensorProto, helper, numpy_helper

    x, weight, bias, dy = arrays
    node = helper.make_node(
        "Conv", ["x", "weight", "bias"], ["y"], strides=[layer.stride] * 2, pads=[layer.padding] * 4
    )
    graph = helper.make_graph(
        [node],
        "conv2d",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dy.shape)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    # Versions of some years ago, which every ONNX Runtime of today reads.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


FASTNN = Library("fastnn", ("fastnn",), fastnn_calls, "")
PEERS = [
    Library("torch", ("torch",), torch_calls, "conv2d and aten.convolution_backward; set_num_threads"),
    Library("jax", ("jax",), jax_calls, "jit of lax.conv_general_dilated; as many threads in its pools (PJRT_NPROC)"),
    Library(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        onnxruntime_calls,
        "constant weights, input and output bound; intra_op_num_threads",
    ),
]

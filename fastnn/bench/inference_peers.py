"""Forwards of nets in evaluation mode, in fastnn and in the libraries that it is compared with: one model, translated.

A library's `build(net, threads)` returns a function without arguments that gives the scores of always the same batch.
"""

from dataclasses import replace
from functools import partial

import numpy as np

import fastnn
from fastnn import nn
from fastnn.bench.peers import Library
from fastnn.bench.step_nets import NETS
from fastnn.bench.step_peers import pair, seeded_model, torch_module

BATCHES = (1, 32)


def inference_nets():
    """Every net once, one image and 32 at a time; nothing is dropped in evaluation mode."""
    once = {net.name: net for net in NETS}.values()
    return [replace(net, batch=batch, random=False) for net in once for batch in BATCHES]


def evaluated_model(net):
    """The same weights for every library, and running statistics as after training: of the batch."""
    model = seeded_model(net)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with nn.no_grad():
        model(replace(net, batch=8).arrays()[0])
    return model.eval()


def fastnn_forward(net, threads):
    fastnn.set_num_threads(threads)
    model, images = evaluated_model(net), net.arrays()[0]
    return lambda: model(images)


def torch_forward(net, threads, channels_last=False, compiled=False):
    import torch

    torch.set_num_threads(threads)
    model = torch_module(evaluated_model(net)).eval()
    images = torch.from_numpy(net.arrays()[0])
    if channels_last:
        model, images = (item.to(memory_format=torch.channels_last) for item in (model, images))
    if compiled:
        model = torch.compile(model)

    def forward():
        with torch.inference_mode():
            return model(images).numpy()

    return forward


def onnxruntime_forward(net, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = onnx_model(evaluated_model(net), net.shape)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = net.arrays()[0]
    return lambda: session.run(["scores"], {"images": images})[0]


def onnx_model(model, shape):
    """The bytes of an ONNX file with this model, weights included."""
    from onnx import TensorProto, helper

    graph = OnnxGraph()
    last, _ = graph.add_module(model, "images", np.zeros((1, *shape), np.float32))
    graph.nodes.append(helper.make_node("Identity", [last], ["scores"]))
    float32 = TensorProto.FLOAT
    whole = helper.make_graph(
        graph.nodes,
        "model",
        [helper.make_tensor_value_info("images", float32, ("N", *shape))],
        [helper.make_tensor_value_info("scores", float32, ("N", "classes"))],
        graph.arrays,
    )
    # Versions of some years ago, which every ONNX Runtime of today reads.
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


class OnnxGraph:
    """Nodes and constants of a model, put down while one image runs through it: pools need its size."""

    def __init__(self):
        self.nodes: list = []
        self.arrays: list = []

    def add_module(self, module, name, x):
        """Takes the value of this name, of which x is one, and returns the same of what the module makes of it."""
        if isinstance(module, nn.Residual):
            skipped = name if module.shortcut is None else self.add_module(module.shortcut, name, x)[0]
            last, y = self.add_module(module.body, name, x)
            return self.add_node("Add", [last, skipped]), y
        if isinstance(module, nn.Sequential):
            for child in module:
                name, x = self.add_module(child, name, x)
            return name, x
        node = onnx_node(module, x.shape)
        if node is None:
            return name, x
        kind, arrays, options = node
        return self.add_node(kind, [name, *map(self.add_constant, arrays)], **options), module(x)

    def add_node(self, kind, inputs, **options):
        from onnx import helper

        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **options))
        return output

    def add_constant(self, array):
        from onnx import numpy_helper

        self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(array), f"array{len(self.arrays)}"))
        return self.arrays[-1].name


def onnx_node(module, shape):
    """Kind, constants and options of the node that stands for a layer with such an input; None where nothing does."""
    parameters = [parameter.data for _, parameter in module.named_parameters()]
    match module:
        case nn.Conv2d():
            return "Conv", parameters, {"strides": list(module.stride), "pads": 2 * list(module.padding)}
        case nn.Linear():
            return "Gemm", parameters, {"transB": 1}
        case nn.BatchNorm2d():
            return "BatchNormalization", [*parameters, module.running_mean, module.running_var], {"epsilon": module.eps}
        case nn.MaxPool2d():
            window, strides, padding = (list(pair(x)) for x in (module.kernel_size, module.stride, module.padding))
            return "MaxPool", [], {"kernel_shape": window, "strides": strides, "pads": 2 * padding}
        case nn.AdaptiveAvgPool2d():
            window = [size // cells for size, cells in zip(shape[2:], pair(module.output_size), strict=True)]
            return "AveragePool", [], {"kernel_shape": window, "strides": window}
        case nn.ReLU():
            return "Relu", [], {}
        case nn.Flatten():
            return "Flatten", [], {}
        case nn.Dropout():
            return None
    # a new net of step_nets.py may need one more case: the tests build every net
    raise NotImplementedError(f"bench inference: there is no translation of {type(module).__name__}")


FASTNN = Library("fastnn", ("fastnn",), fastnn_forward, "")
PEERS = [
    Library("torch", ("torch",), torch_forward, "eager, in inference mode"),
    Library("torch last", ("torch",), partial(torch_forward, channels_last=True), "the same, channels last"),
    Library("torch.compile", ("torch",), partial(torch_forward, compiled=True), "the model compiled"),
    Library("onnxruntime", ("onnxruntime", "onnx"), onnxruntime_forward, "constant weights; intra_op_num_threads"),
]

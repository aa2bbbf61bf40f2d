"""The plan of a model: which kernels a call runs, on what, found out by running a copy of it on zeros."""

import copy
from typing import NamedTuple

import numpy as np

from fastnn.functional.checks import check_integers
from fastnn.profiler import Profile, arrays_in, describe, profile
from fastnn.seed import generator

__all__ = ["Plan", "PlanStep"]


class PlanStep(NamedTuple):
    """One kernel's call.

    Attributes
    ----------
    direction : {"forward", "backward"}
    module : str
        Name of the module in the model.
    layer : str
        Its type, with what it takes along, such as "Conv2d + ReLU".
    input : str
        Shape of what the module was given.
    kernel : str
        Empty where nothing is computed. A convolution's has its algorithm behind it.
    output : str
        Shape of what the module made; empty where the module does more after this.
    bytes, flops : float
        Least traffic and operations, as :class:`fastnn.profiler.Call` counts them.
    """

    direction: str
    module: str
    layer: str
    input: str
    kernel: str
    output: str
    bytes: float
    flops: float


class Plan:
    """The steps of a call, in the order in which they run; ``print`` shows them as a table.

    Attributes
    ----------
    steps : list of PlanStep
    """

    def __init__(self, steps):
        self.steps = steps

    def __str__(self):
        rows = [("module", "layer", "input", "kernel", "output", "MB", "MFLOP")]
        for direction in dict.fromkeys(step.direction for step in self.steps):
            steps = [step for step in self.steps if step.direction == direction]
            rows += [(direction, "", "", "", "", "", "")]
            rows += [
                (f"  {step.module}", step.layer, step.input, step.kernel, step.output, *amounts([step]))
                for step in steps
            ]
            rows += [("  all", "", "", "", "", *amounts(steps))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            words = [text.ljust(width) for text, width in zip(row[:5], widths, strict=False)]
            figures = [text.rjust(width) for text, width in zip(row[5:], widths[5:], strict=True)]
            lines.append("  ".join(words + figures).rstrip())
        return "\n".join(lines)


def amounts(steps):
    traffic, operations = sum(step.bytes for step in steps), sum(step.flops for step in steps)
    return f"{traffic / 1e6:.2f}", f"{operations / 1e6:.1f}" if operations else ""


def make_plan(model, input_shape, dtype):
    """``model.plan(input_shape, dtype)``."""
    if not isinstance(input_shape, (tuple, list)):
        raise TypeError(f"plan: input_shape must be a tuple of integers, got {input_shape!r}")
    shape = check_integers("plan", "input_shape", tuple(input_shape), len(input_shape), 0)
    if dtype is None:
        dtype = next((parameter.dtype for _, parameter in model.named_parameters()), np.dtype(np.float32))
    model, notes = copy.deepcopy(model), Notes()
    numbers = generator().bit_generator
    state = numbers.state
    try:
        with profile() as notes.seen:
            for name, module in model.named_modules():
                notes.watch(module, name)
            output = model(np.zeros(shape, dtype))
            if model.training and isinstance(output, np.ndarray):
                model.backward(np.zeros_like(output), needs_input_grad=False)
    finally:
        numbers.state = state  # dropout has drawn from them
    return Plan(notes.steps)


class Notes:
    """Watches the forwards and backwards of modules, and notes the kernels that each runs itself."""

    def __init__(self):
        self.steps: list[PlanStep] = []
        self.seen = Profile()
        self.taken = 0  # calls of kernels that are in a step already
        self.around: list[Use] = []

    def watch(self, module, name):
        """The module's own two methods stand behind ones that note what happens in them."""
        for direction in ("forward", "backward"):
            vars(module)[direction] = self.watched(module, name, direction, getattr(module, direction))

    def watched(self, module, name, direction, method):
        def run(given, *arguments, **options):
            if self.around:
                self.take(self.around[-1])
            use = Use(direction, name, titled(module, options), shape_of(given))
            self.around.append(use)
            made = method(given, *arguments, **options)
            self.around.pop()
            before = len(self.steps)
            self.take(use, shape_of(made))
            if len(self.steps) == before and not module.children():
                self.steps.append(use.step("", shape_of(made)))
            return made

        return run

    def take(self, use, output=""):
        """Steps of the kernels that have run since the last time."""
        for call in self.seen.calls[self.taken :]:
            self.steps.append(use.step(call.title, output, call.bytes, call.flops))
        self.taken = len(self.seen.calls)


class Use(NamedTuple):
    """A method of a module at work."""

    direction: str
    module: str
    layer: str
    input: str

    def step(self, kernel, output, traffic=0.0, operations=0.0):
        return PlanStep(**self._asdict(), kernel=kernel, output=output, bytes=traffic, flops=operations)


def titled(module, options):
    """The module's type, with what it does besides."""
    words = [type(module).__name__]
    if options.get("residual") is not None:
        words.append("sum")
    if options.get("relu"):
        words.append("ReLU")
    return " + ".join(words)


def shape_of(value):
    """Of arrays, and of several of them."""
    return describe(arrays_in(value))

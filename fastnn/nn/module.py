"""Parameter and Module: arrays with gradients, and the tree of layers that holds them.

A forward pushes what its backward needs on a stack of its layer, and a backward pops it, so that a module that is used
twice in one forward goes back through its last use first. Whether anything is pushed is decided once, by the module
that is called from outside: it is when that module is in training mode, so a frozen batch norm in eval mode inside a
model that is being trained still goes back. ``no_grad()`` and ``enable_grad()`` decide otherwise.

The parameters of a model live in one array per dtype, and their gradients in another: ``Parameter.data`` and ``.grad``
are views into them. ``Module.parameters()`` moves them there when they are not yet all together, which is the case
after construction and after a layer was added. Parameters, not their arrays, are therefore what to keep hold of.
"""

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from fastnn.functional.checks import FLOATS, channels_last_hint, check_float_array, check_shape

__all__ = ["LoadResult", "Module", "Parameter", "enable_grad", "flat_arrays", "no_grad"]

ALIGNMENT = 64  # bytes: flat arrays begin on a cache line
FORGOTTEN = 64  # forwards without a backward after which a warning says that memory is growing


# ----------------------------------------------------------------------------------------------------------------------
# Parameters and the flat arrays that they live in
# ----------------------------------------------------------------------------------------------------------------------


class Parameter:
    """An array that is learnt, with its gradient.

    Parameters
    ----------
    data : ndarray of float32 or float64
        The initial value; it is copied.
    requires_grad : bool
        False freezes the parameter: a backward leaves its gradient alone, and optimisers leave its value alone.

    Attributes
    ----------
    data, grad : ndarray
        Value and gradient, of the same shape and dtype. Assigning to either writes into the array (``grad = None``
        zeroes it), so that it stays part of its model's flat arrays. The array of a gradient that was zeroed is filled
        with zeros when it is next read, unless a backward has written it first: read the attribute, keep no array.
    name : str or None
        Its name in the model whose ``parameters()`` was called last, such as "conv1.weight".

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> parameter = nn.Parameter(np.ones((2, 3), np.float32))
    >>> parameter
    Parameter(shape=(2, 3), dtype=float32)
    >>> parameter.grad.sum()
    np.float32(0.0)
    """

    __slots__ = ("_data", "_grad", "cleared", "name", "offset", "requires_grad", "storage")

    def __init__(self, data, requires_grad=True):
        check_float_array("Parameter", "data", data)
        self._data = np.array(data, order="C")
        self._grad = np.zeros(data.shape, data.dtype)
        self.cleared = False  # whether the gradient is zero whatever stands in its array
        self.requires_grad = requires_grad
        self.name = None
        self.storage = None  # the pair of flat arrays that it lives in, and where
        self.offset = 0

    @property
    def data(self):
        return self._data

    @data.setter
    def data(self, value):
        if value is not self._data:
            self._data[...] = self.fitting("data", value)

    @property
    def grad(self):
        self.fill_cleared()
        return self._grad

    @grad.setter
    def grad(self, value):
        if value is None:
            self.cleared = True
        elif value is not self._grad:
            self._grad[...] = self.fitting("grad", value)
            self.cleared = False

    def fill_cleared(self):
        """Write the zeros of a gradient that was zeroed and is now to be read."""
        if self.cleared:
            self._grad.fill(0)
            self.cleared = False

    @property
    def cleared_grad(self):
        """The gradient's array for a backward to write into, where the gradient is zero; None where it adds to it."""
        return self._grad if self.cleared else None

    def add_grad(self, gradient):
        """Add to the gradient; what was written into ``cleared_grad`` is there already."""
        if gradient is not self._grad:
            if self.cleared:
                self._grad[...] = gradient
            else:
                self._grad += gradient
        self.cleared = False

    def fitting(self, name, value):
        """The value as an array, once it has the parameter's shape."""
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ValueError(f"Parameter: {name} must have shape {self.shape}, got {value.shape}")
        return value

    @property
    def shape(self):
        return self._data.shape

    @property
    def size(self):
        return self._data.size

    @property
    def dtype(self):
        return self._data.dtype

    def move(self, data, grad, storage=None, offset=0):
        """Live in these arrays from now on."""
        self._data, self._grad, self.storage, self.offset = data, grad, storage, offset
        self.cleared = False

    def __getstate__(self):  # a copy starts outside of any flat array
        return {"data": self._data, "grad": self.grad, "requires_grad": self.requires_grad, "name": self.name}

    def __setstate__(self, state):
        self.move(state["data"], state["grad"])
        self.requires_grad = state["requires_grad"]
        self.name = state["name"]

    def __repr__(self):
        name = f"{self.name}: " if self.name else ""
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter({name}shape={self.shape}, dtype={self.dtype}{frozen})"


class Storage(NamedTuple):
    data: np.ndarray
    grad: np.ndarray


def gather(parameters):
    """Move parameters of the same dtype into one flat array, unless they already share one."""
    for dtype in FLOATS:
        group = [parameter for parameter in parameters if parameter.dtype == dtype]
        if not group or (group[0].storage is not None and len({id(parameter.storage) for parameter in group}) == 1):
            continue
        size = sum(parameter.size for parameter in group)
        storage = Storage(aligned_zeros(size, dtype), aligned_zeros(size, dtype))
        offset = 0
        for parameter in group:
            here = slice(offset, offset + parameter.size)
            data, grad = (array[here].reshape(parameter.shape) for array in storage)
            data[...] = parameter.data
            grad[...] = parameter.grad
            parameter.move(data, grad, storage, offset)
            offset += parameter.size


def aligned_zeros(size, dtype):
    unit = ALIGNMENT // dtype.itemsize
    array = np.zeros(size + unit, dtype)
    start = -array.ctypes.data % ALIGNMENT // dtype.itemsize
    return array[start : start + size]


def flat_arrays(parameters):
    """The values and gradients of these parameters in as few one-dimensional arrays as possible.

    Neighbours in one flat array come as one piece, so an update, a norm or an all-reduce over a whole model is one
    pass over one array.

    Parameters
    ----------
    parameters : iterable of Parameter

    Returns
    -------
    list of (ndarray, ndarray)
        Pairs of views, values and gradients.

    Examples
    --------
    >>> from fastnn import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> [(values.shape, gradients.shape) for values, gradients in nn.flat_arrays(model.parameters())]
    [((26,), (26,))]
    """
    pieces: list = []  # [storage, begin, end], or a parameter that lives outside of any storage
    for parameter in parameters:
        parameter.fill_cleared()
        last = pieces[-1] if pieces else None
        end = parameter.offset + parameter.size
        if parameter.storage is None:
            pieces.append(parameter)
        elif isinstance(last, list) and last[0] is parameter.storage and last[2] == parameter.offset:
            last[2] = end
        else:
            pieces.append([parameter.storage, parameter.offset, end])
    return [
        (piece.data.reshape(-1), piece.grad.reshape(-1))
        if isinstance(piece, Parameter)
        else tuple(array[piece[1] : piece[2]] for array in piece[0])
        for piece in pieces
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Whether forwards keep what their backwards need
# ----------------------------------------------------------------------------------------------------------------------


class Recording(threading.local):
    mode: bool | None = None  # None outside of every call: then the mode of the module that is called decides
    pushed: list | None = None  # the modules that have pushed values in the outermost call, in order


recording = Recording()


@contextmanager
def set_recording(mode):
    before = recording.mode
    recording.mode = mode
    try:
        yield
    finally:
        recording.mode = before


def no_grad():
    """Forwards in the ``with`` block keep nothing for a backward, in training mode either.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> model = nn.Linear(3, 2)
    >>> with nn.no_grad():
    ...     model(np.ones((4, 3), np.float32)).shape
    (4, 2)
    """
    return set_recording(False)


def enable_grad():
    """Forwards in the ``with`` block keep what a backward needs, in eval mode too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> model = nn.Linear(3, 2).eval()
    >>> with nn.enable_grad():
    ...     y = model(np.ones((4, 3), np.float32))
    >>> model.backward(np.ones_like(y)).shape
    (4, 3)
    """
    return set_recording(True)


# ----------------------------------------------------------------------------------------------------------------------
# Modules
# ----------------------------------------------------------------------------------------------------------------------


class LoadResult(NamedTuple):
    """What ``load_state_dict(..., strict=False)`` did not find, and did not use.

    Attributes
    ----------
    missing_keys, unexpected_keys : list of str

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Linear(3, 2).load_state_dict({"bias": np.zeros(2), "scale": np.ones(2)}, strict=False)
    LoadResult(missing_keys=['weight'], unexpected_keys=['scale'])
    """

    missing_keys: list
    unexpected_keys: list


class Module:
    """Base class of layers, losses and models.

    A module's parameters and children are its attributes that are a Parameter or a Module, in the order of their
    assignment. A class of your own writes ``forward`` and ``backward``: a layer keeps values with
    ``save_for_backward`` and takes them back with ``pop_saved``; a model calls its children, and goes back through them
    in the opposite order. ``backward`` takes the gradient of the output, adds to the gradients of the parameters, and
    returns the gradient of the input. With ``needs_input_grad=False`` that one is not wanted, and may be None;
    if nothing in the module is trainable either, then ``grad_output`` may be None, and the module only pops.
    A ``backward`` that raises, as for a gradient of the wrong shape, leaves what it has popped on the stack.

    Attributes
    ----------
    training : bool
        Set by ``train()`` and ``eval()``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(np.ones(1, np.float32))
    ...
    ...     def forward(self, input):
    ...         self.save_for_backward(input)
    ...         return self.factor.data * input
    ...
    ...     def backward(self, grad_output, needs_input_grad=True):
    ...         (input,) = self.pop_saved()
    ...         self.factor.grad += np.sum(grad_output * input)
    ...         return self.factor.data * grad_output
    >>> model = nn.Sequential(nn.Linear(3, 4), Scale())
    >>> y = model(np.ones((2, 3), np.float32))
    >>> model.backward(np.ones_like(y)).shape
    (2, 3)
    >>> [name for name, parameter in model.named_parameters()]
    ['0.weight', '0.bias', '1.factor']
    """

    training = True
    _saved: list | None = None  # the stack, made when something is first pushed
    _buffers: tuple[str, ...] = ()  # names of the attributes that are buffers

    def __setattr__(self, name, value):
        if isinstance(value, np.ndarray) and isinstance(vars(self).get(name), Parameter):
            raise TypeError(f"{type(self).__name__}: {name} is a Parameter, got an array; assign it to {name}.data")
        super().__setattr__(name, value)

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = naming_options(cls.__init__)  # type: ignore[method-assign]
        if "backward" in vars(cls):
            cls.backward = restoring(cls.backward)  # type: ignore[method-assign]

    def forward(self, *inputs):
        """The output for these inputs; call the module itself, ``module(input)``, which decides what is kept.

        In training mode a forward keeps what its backward needs until that is called; in evaluation mode nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output, needs_input_grad=True):
        """Go back through the last forward that has not yet gone back.

        Adds to the gradients of the parameters (``zero_grad()`` clears them).

        Parameters
        ----------
        grad_output : ndarray
            Gradient of the loss by the output: of its shape and dtype.
        needs_input_grad : bool
            False where the gradient of the input is not wanted, as for a model's first layer: it is then not computed.

        Returns
        -------
        ndarray or None
            Gradient of the loss by the input. None where it is not wanted.

        Raises
        ------
        RuntimeError
            If there is no forward to go back through.
        TypeError, ValueError
            If ``grad_output`` does not fit; a right one may follow.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def __call__(self, *inputs, **options):
        if recording.mode is not None:  # inside another module's call, or one of the contexts
            return self.forward(*inputs, **options)
        pushed: list[Module] = []
        recording.mode, recording.pushed = self.training, pushed
        try:
            return self.forward(*inputs, **options)
        except BaseException:  # no backward will follow: what the call has pushed goes
            for module in reversed(pushed):
                if module._saved:
                    module._saved.pop()
            raise
        finally:
            recording.mode = recording.pushed = None

    # What a forward keeps for its backward

    @property
    def recording(self):
        """Whether a forward must now keep what its backward needs."""
        mode = recording.mode
        return self.training if mode is None else mode

    def save_for_backward(self, *values):
        """Push values for the backward of this use of the module, if there may be one."""
        if not self.recording:
            return
        if self._saved is None:
            self._saved = []
        self._saved.append(values)
        if recording.pushed is not None:
            recording.pushed.append(self)
        if len(self._saved) == FORGOTTEN:
            warnings.warn(
                f"{type(self).__name__}: {FORGOTTEN} forwards without a backward, each of which keeps its input; "
                "where no backward follows, call eval() or use `with fastnn.nn.no_grad():`",
                RuntimeWarning,
                stacklevel=3,
            )

    def pop_saved(self):
        """The values of the last use of the module that has not yet gone back."""
        if not self._saved:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no forward to go back through; call the module first, in "
                "training mode or in `with fastnn.nn.enable_grad():` (eval mode keeps nothing), once per backward"
            )
        return self._saved.pop()

    # Parameters, buffers, children

    def named_members(self, kind):
        """Pairs of name and value of the attributes of this kind, in the order of their assignment."""
        return [(name, value) for name, value in vars(self).items() if isinstance(value, kind)]

    def named_children(self):
        """Pairs of name and module, one level down."""
        return self.named_members(Module)

    def children(self):
        """The modules one level down."""
        return [child for _, child in self.named_members(Module)]

    def named_modules(self, prefix="", seen=None):
        """Pairs of name and module, this one first (its name is ""), each module once."""
        seen = set() if seen is None else seen
        if self in seen:
            return
        seen.add(self)
        yield prefix, self
        for name, child in self.named_members(Module):
            yield from child.named_modules(join(prefix, name), seen)

    def modules(self):
        """This module and all below it, each once."""
        return [module for _, module in self.named_modules()]

    def named_parameters(self):
        """Pairs of name and Parameter; one that is shared comes once, under its first name."""
        seen = set()
        for prefix, module in self.named_modules():
            for name, parameter in module.named_members(Parameter):
                if parameter not in seen:
                    seen.add(parameter)
                    yield join(prefix, name), parameter

    def parameters(self):
        """All Parameters of this module and those below it, each once.

        Their values are moved into one array per dtype, and their gradients into another, unless they are there
        already: ``Parameter.data`` and ``.grad`` are views into these. So keep hold of Parameters, not of their arrays.

        Returns
        -------
        list of Parameter
        """
        named = list(self.named_parameters())
        parameters = [parameter for _, parameter in named]
        if any(parameter.storage is None for parameter in parameters):
            for name, parameter in named:
                parameter.name = name
        gather(parameters)
        return parameters

    def register_buffer(self, name, value):
        """Make an attribute that is saved and loaded with the parameters but not learnt: an array, or None."""
        self._buffers = (*self._buffers, name)
        setattr(self, name, value)

    def own_buffers(self):
        """Pairs of name and array, of this module alone."""
        return [(name, getattr(self, name)) for name in self._buffers if getattr(self, name) is not None]

    def named_buffers(self):
        """Pairs of name and array."""
        for prefix, module in self.named_modules():
            for name, buffer in module.own_buffers():
                yield join(prefix, name), buffer

    def buffers(self):
        """The arrays that are saved with the parameters but not learnt."""
        return [buffer for _, buffer in self.named_buffers()]

    def add_module(self, name, module):
        """Make ``module`` a child of this name."""
        where = type(self).__name__
        if not isinstance(module, Module):
            raise TypeError(f"{where}: {name} must be a Module, got {type(module).__name__}")
        if not isinstance(name, str):
            raise TypeError(f"{where}: a child's name must be a string, got {name!r}")
        if not name or "." in name or hasattr(self, name):
            raise ValueError(f"{where}: a child cannot be called {name!r} (empty, with a dot, or taken)")
        setattr(self, name, module)

    # Modes

    def train(self, mode=True):
        """Put this module and all below it into training mode; what forwards without a backward kept is dropped."""
        for module in self.modules():
            module.training = mode
            module._saved = None
        return self

    def eval(self):
        """Put this module and all below it into evaluation mode, in which a forward keeps nothing."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Freeze (False) or thaw all parameters of this module and those below it."""
        for _, parameter in self.named_parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self):
        """Set all gradients to zero. Nothing is written: a backward writes them next, instead of adding to them."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, dtype):
        """Turn parameters and floating-point buffers into float32 or float64, in place.

        Examples
        --------
        >>> from fastnn import nn
        >>> nn.Linear(3, 2).to("float64").weight
        Parameter(shape=(2, 3), dtype=float64)
        """
        where = f"{type(self).__name__}.to: dtype must be float32 or float64"
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"{where}, got {dtype!r}; there are no devices, everything runs on the CPU") from None
        if dtype not in FLOATS:
            raise TypeError(f"{where}, got {dtype}")
        for _, parameter in self.named_parameters():
            if parameter.dtype != dtype:
                parameter.move(parameter.data.astype(dtype), parameter.grad.astype(dtype))
        for module in self.modules():
            for name, buffer in module.own_buffers():
                if buffer.dtype in FLOATS:
                    setattr(module, name, buffer.astype(dtype))
        return self

    def plan(self, input_shape, dtype=None):
        """What a call of this module does: its kernels, step by step, and in training mode those of its backward.

        A copy of the module runs once, on zeros, so that nothing of this one changes.

        Parameters
        ----------
        input_shape : tuple of int
        dtype : dtype, optional
            The input's; that of the parameters if it is not given.

        Returns
        -------
        Plan
            ``print`` it; its ``steps`` say the same.

        Raises
        ------
        TypeError, ValueError
            If the shape is none, or the module does not take such an input.

        Examples
        --------
        >>> from fastnn import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> [(step.module, step.layer, step.output) for step in model.eval().plan((2, 3, 8, 8)).steps]
        [('0', 'Conv2d + ReLU', '2x8x6x6'), ('2', 'Flatten', '2x288'), ('3', 'Linear', '2x10')]
        """
        from fastnn.nn.plan import make_plan

        return make_plan(self, input_shape, dtype)

    # Checkpoints

    def named_arrays(self, prefix=""):
        """Every array of the state under every name that it has, in torch's order."""
        for name, parameter in self.named_members(Parameter):
            yield join(prefix, name), parameter.data
        for name, buffer in self.own_buffers():
            yield join(prefix, name), buffer
        for name, child in self.named_members(Module):
            yield from child.named_arrays(join(prefix, name))

    def state_dict(self):
        """Copies of all parameters and buffers by name; the names are torch's.

        Examples
        --------
        >>> from fastnn import nn
        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        return {name: array.copy() for name, array in self.named_arrays()}

    def load_state_dict(self, state_dict, strict=True):
        """Copy parameters and buffers from a dictionary such as ``state_dict()`` gives, or a torch checkpoint.

        Nothing is written unless everything fits.

        Parameters
        ----------
        state_dict : mapping from str to array
            NumPy arrays or torch tensors. Floating-point values are converted to the module's dtype.
        strict : bool
            Whether names that are missing or not known are an error. Shapes that differ always are.

        Returns
        -------
        LoadResult
            The names that were missing, and those not known.

        Raises
        ------
        TypeError
            If ``state_dict`` is no mapping, or a value's type is wrong.
        ValueError
            If names or shapes do not fit; the message lists all of them.
        """
        where = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{where}: expected a mapping from names to arrays, got {type(state_dict).__name__}")
        own = dict(self.named_arrays())
        given = {name: np.asarray(state_dict[name]) for name in own if name in state_dict}
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)} (strict=False leaves these as they are)")
        if strict and unexpected:
            problems.append(f"not in this module: {', '.join(map(str, unexpected))} (strict=False ignores these)")
        problems += [
            f"{name} has shape {array.shape}, expected {own[name].shape}"
            for name, array in given.items()
            if array.shape != own[name].shape
        ]
        if problems:
            raise ValueError("; ".join([f"{where}: the state does not fit", *problems]))
        for name, array in given.items():
            if not np.can_cast(array.dtype, own[name].dtype, "same_kind"):
                raise TypeError(f"{where}: {name} must be {own[name].dtype}, got {array.dtype}")
        for name, array in given.items():
            own[name][...] = array
        return LoadResult(missing, unexpected)

    def __getstate__(self):  # copies and pickles start with nothing kept
        return {name: value for name, value in vars(self).items() if name != "_saved"}

    # The tree in print

    def extra_repr(self):
        """What ``repr`` shows between the parentheses."""
        return ""

    def __repr__(self):
        lines = [self.extra_repr()] if self.extra_repr() else []
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_members(Module)]
        if not children:
            return f"{type(self).__name__}({', '.join(lines)})"
        return "\n  ".join([f"{type(self).__name__}(", *lines, *children]) + "\n)"


def naming_options(constructor):
    """A module's constructor that, for an option that it does not know, says which ones it knows."""
    parameters = inspect.signature(constructor).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return constructor

    @functools.wraps(constructor)
    def wrapper(self, *arguments, **options):
        unknown = [name for name in options if name not in names]
        if unknown:
            known = ", ".join(names) or "no options"
            raise TypeError(f"{type(self).__name__}: there is no option {', '.join(unknown)}; it takes {known}")
        constructor(self, *arguments, **options)

    return wrapper


def restoring(backward):
    """A module's backward that, where it raises, puts back what it has popped: a correct call may follow."""

    @functools.wraps(backward)
    def wrapper(self, *arguments, **options):
        before = len(self._saved) if self._saved else 0
        last = self._saved[-1] if before else None
        try:
            return backward(self, *arguments, **options)
        except Exception:
            if before and len(self._saved) < before:
                self._saved.append(last)
            raise

    return wrapper


def check_input(module, input, array, count=None, meaning="", axis=1):
    """The input has the layer's dtype (that of one of its arrays, or None), and as many channels or features as its
    constructor was told: messages speak of these, and not of a weight or a buffer that the user never made.
    """
    where = type(module).__name__
    check_float_array(where, "input", input)
    if count is not None and input.shape[axis] != count:
        hint = channels_last_hint(input.shape, count) if axis == 1 else ""
        raise ValueError(
            f"{where}: input must have {count} {meaning}, got {input.shape[axis]} in shape {input.shape}{hint}"
        )
    if array is not None and array.dtype != input.dtype:
        raise TypeError(
            f"{where}: input is {input.dtype}, but the layer {array.dtype}; convert the input, "
            f"input.astype(numpy.{array.dtype}), or the model, model.to('{input.dtype}')"
        )


def check_gradient(module, grad_output, shape, dtype):
    """For a backward that calls no function to check the gradient of its output."""
    where = f"{type(module).__name__}.backward"
    check_float_array(where, "grad_output", grad_output)
    if grad_output.dtype != dtype:
        raise TypeError(f"{where}: grad_output must have the output's dtype {dtype}, got {grad_output.dtype}")
    check_shape(where, "grad_output", grad_output, shape, "the output's shape")


class Transform(Module):
    """A layer without parameters: a subclass gives ``function(input, *arguments)`` and
    ``gradient(grad_output, input, *arguments)``, and ``arguments()`` where there are any."""

    function: Callable
    gradient: Callable

    def arguments(self):
        """What the function takes after the input."""
        return ()

    def forward(self, input):
        output = self.function(input, *self.arguments())
        self.save_for_backward(input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        (input,) = self.pop_saved()
        return self.gradient(grad_output, input, *self.arguments()) if needs_input_grad else None


def accumulate(parameter, gradient):
    """Add to the gradient of a parameter that is there (not None) and not frozen."""
    if trainable(parameter):
        parameter.add_grad(gradient)


def trainable(parameter):
    return parameter is not None and parameter.requires_grad


def join(prefix, name):
    return f"{prefix}.{name}" if prefix else name

"""What all optimisers share: parameter groups, buffers, saving and loading."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from fastnn.functional.checks import check_float_array, check_same_dtype, check_shape, check_writeable
from fastnn.functional.optim import check_arrays, check_disjoint, check_hyperparameters, check_masks
from fastnn.nn import Parameter

__all__ = ["Optimizer"]


class Array:
    """A plain array as a parameter: its gradient comes with each step."""

    def __init__(self, data):
        self.data = data
        self.grad = None


class Optimizer:
    """Base of the optimisers: holds parameter groups and buffers, and steps through them.

    Parameters
    ----------
    params : iterable of Parameter, of ndarray, or of dict
        Parameters (objects with ``.data`` and ``.grad`` arrays; those whose ``.grad`` is None or whose
        ``.requires_grad`` is False are left out of a step), or arrays, whose gradients then come with ``step(grads)``.
        All are changed in place, so no two may share memory. Dictionaries are parameter groups:
        ``{"params": [...], "lr": 0.01, ...}`` with hyper-parameters of their own.
    masks : list of (ndarray of bool, or None), optional
        One per parameter: where False, the parameter is held at exactly 0, through momentum and decay. May be set or
        changed between steps as ``param_groups[i]["masks"]``.

    Attributes
    ----------
    param_groups : list of dict
        The hyper-parameters, one dict per group; may be changed between steps (schedulers change ``"lr"``).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> slow, fast = np.ones(2), np.ones(2)
    >>> optimizer = optim.SGD([{"params": [slow]}, {"params": [fast], "lr": 0.5}], lr=0.1)
    >>> isinstance(optimizer, optim.Optimizer), [group["lr"] for group in optimizer.param_groups]
    (True, [0.1, 0.5])
    >>> optimizer.step([np.ones(2), np.ones(2)])
    >>> slow, fast
    (array([0.9, 0.9]), array([0.5, 0.5]))
    """

    scalars: ClassVar[dict] = {"step": 0}  # kept per parameter, with their values before the first step

    def __init__(self, params, masks=None, **defaults):
        self.name = type(self).__name__
        self.defaults = check_hyperparameters(self.name, **defaults)
        self.param_groups = []
        self.state = {}  # parameter -> its scalars and buffers
        params = self._check_params(params)
        groups = params if isinstance(params[0], dict) else [{"params": params, "masks": masks}]
        if masks is not None and groups is params:
            raise ValueError(f'{self.name}: parameter groups carry their own masks; set "masks" in the dictionaries')
        for group in groups:
            self.add_param_group(group)

    def __repr__(self):
        groups = [
            ", ".join(f"{name}={group[name]!r}" for name in self.defaults if name in group)
            for group in self.param_groups
        ]
        return f"{self.name}({groups[0]})" if len(groups) == 1 else "\n  ".join([f"{self.name}:", *groups])

    def _check_params(self, params):
        if hasattr(params, "parameters"):
            raise TypeError(
                f"{self.name}: params must be parameters, got a {type(params).__name__}; pass its .parameters()"
            )
        if isinstance(params, (np.ndarray, dict)) or hasattr(params, "grad"):
            raise TypeError(f"{self.name}: params must be an iterable, got one {type(params).__name__}; pass [params]")
        if not isinstance(params, Iterable):
            raise TypeError(f"{self.name}: params must be an iterable of parameters, got {type(params).__name__}")
        params = list(params)
        if not params:
            raise ValueError(f"{self.name}: params is empty; there is nothing to optimise")
        return params

    def add_param_group(self, group):
        """Adds parameters with hyper-parameters of their own; those not given are the optimiser's.

        Parameters
        ----------
        group : dict
            ``{"params": [...], ...}``

        Raises
        ------
        TypeError, ValueError
            If a parameter or hyper-parameter is wrong, or a parameter is already there; nothing is added then.
        """
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'{self.name}: a parameter group must be a dictionary with "params", got {group!r}')
        extra = set(group) - set(self.defaults) - {"params", "masks", "initial_lr"}
        if extra:
            raise ValueError(f"{self.name}: parameter group has unknown options {sorted(extra)}")
        given = {name: group[name] for name in self.defaults if name in group}
        values = check_hyperparameters(self.name, **{**self.defaults, **given})
        params = [self._check_param(i, p) for i, p in enumerate(self._check_params(group["params"]))]
        groups = {f'param_groups[{i}]["params"]': g["params"] for i, g in enumerate(self.param_groups)}
        lists = {name: [p.data for p in members] for name, members in {**groups, "params": params}.items()}
        check_disjoint(self.name, lists)
        check_masks(self.name, group.get("masks"), [p.data for p in params])
        kept = {"initial_lr": group["initial_lr"]} if "initial_lr" in group else {}
        self.param_groups.append({"params": params, **values, "masks": group.get("masks"), **kept})

    def _check_param(self, i, param):
        param = Array(param) if isinstance(param, np.ndarray) else param
        data = getattr(param, "data", None)
        if not isinstance(data, np.ndarray) or not hasattr(param, "grad"):
            raise TypeError(
                f"{self.name}: params[{i}] must be a Parameter (with .data and .grad) or a NumPy array, "
                f"got {type(param).__name__}"
            )
        check_float_array(self.name, f"params[{i}]", data)
        check_writeable(self.name, f"params[{i}]", data)
        return param

    def step(self, grads=None):
        """Updates every parameter that has a gradient.

        Parameters
        ----------
        grads : list of (ndarray or None), optional
            One per parameter, in the order of the groups: needed where the optimiser was given arrays. Parameters
            bring their own.

        Raises
        ------
        TypeError, ValueError
            If gradients, masks or hyper-parameters are wrong; nothing has been changed then.
        """
        self._take_gradients(grads)
        parts = []
        for group in self.param_groups:
            self._make_state(group)
            parts += [(group, members) for members in self._members(group)]
        if len(parts) > 1:  # the kernels check one part each
            for group, members in parts:
                self._check_part(group, members)
        for group, members in parts:
            self._step_part(group, members)

    def _check_part(self, group, members):
        """What the kernel of this part will check, before another part is changed."""
        params = [group["params"][i] for i in members]
        check_hyperparameters(self.name, **{name: group[name] for name in self.defaults})
        check_masks(self.name, group["masks"], [p.data for p in group["params"]])
        check_arrays(self.name, [p.data for p in params], [p.grad for p in params], None)

    def _take_gradients(self, grads):
        params = [p for group in self.param_groups for p in group["params"]]
        if grads is None:
            if any(isinstance(p, Array) for p in params):
                raise TypeError(f"{self.name}.step: the parameters are arrays; pass their gradients, step(grads)")
            return
        if not all(isinstance(p, Array) for p in params):
            raise TypeError(f"{self.name}.step: Parameters bring their own gradients; call step() without grads")
        if not isinstance(grads, (list, tuple)) or len(grads) != len(params):
            given = len(grads) if isinstance(grads, (list, tuple)) else type(grads).__name__
            raise ValueError(f"{self.name}.step: grads must be a list of {len(params)} arrays, got {given}")
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad

    def _make_state(self, group):
        """Buffers for the parameters that have none yet: views of one flat array, so that a step is one pass."""
        names = self.buffer_names(group)
        for p in group["params"]:
            if p not in self.state:
                self.state[p] = dict(self.scalars)
        for name in names:
            new = [p for p in group["params"] if name not in self.state[p]]
            for dtype in {p.data.dtype for p in new}:
                same = [p for p in new if p.data.dtype == dtype]
                flat = aligned_full(sum(p.data.size for p in same), dtype, self.initial_value(group))
                for p in same:
                    self.state[p][name] = flat[: p.data.size].reshape(p.data.shape)
                    flat = flat[p.data.size :]

    def _members(self, group):
        """Indices of the parameters that take part, by dtype and by the scalars of their state: one call for each."""
        together: dict = {}
        for i, p in enumerate(group["params"]):
            if p.grad is not None and getattr(p, "requires_grad", True):
                key = (p.data.dtype.num, *map(self.state[p].get, self.scalars))
                together.setdefault(key, []).append(i)
        return together.values()

    def _step_part(self, group, members):
        params = [group["params"][i] for i in members]
        states = [self.state[p] for p in params]
        masks = group["masks"]
        if masks is not None:
            masks = check_masks(self.name, masks, [p.data for p in group["params"]])
            masks = [masks[i] for i in members]
        scalars = {name: states[0][name] for name in self.scalars}
        scalars["step"] += 1
        scalars |= (
            self.update(
                [p.data for p in params],
                [p.grad for p in params],
                {name: [state[name] for state in states] for name in self.buffer_names(group)},
                {name: group[name] for name in self.defaults},
                masks,
                scalars,
            )
            or {}
        )
        for state in states:
            state.update(scalars)

    def buffer_names(self, group):
        """Names of the buffers that this group's hyper-parameters need, in the order of the kernel's arguments."""
        raise NotImplementedError

    def initial_value(self, group):
        """What the buffers hold before the first step."""
        return 0.0

    def update(self, params, grads, buffers, values, masks, scalars):
        """Calls the kernel; returns the scalars that it changed beside the step."""
        raise NotImplementedError

    def zero_grad(self):
        """Sets the gradients of all parameters to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if isinstance(p, Array | Parameter):
                    p.grad = None
                elif p.grad is not None:
                    p.grad.fill(0)

    def state_dict(self):
        """The buffers, scalars and hyper-parameters: a dictionary of copied arrays and numbers, in torch's layout.

        Returns
        -------
        dict
            ``{"state": {index: {...}}, "param_groups": [{..., "params": [indices]}]}``
        """
        params = [p for group in self.param_groups for p in group["params"]]
        index = {p: i for i, p in enumerate(params)}
        state = {index[p]: copied(self.state[p]) for p in params if p in self.state}
        groups = [{**copied(group), "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict):
        """Takes over what :meth:`state_dict` (or that of the torch optimiser of the same name) returned.

        Raises
        ------
        TypeError, ValueError
            If it does not fit these parameters; nothing has been changed then.
        """
        groups, saved = state_dict["param_groups"], state_dict["state"]
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in groups]
        if sizes != given:
            raise ValueError(f"{self.name}.load_state_dict: expected groups of {sizes} parameters, got {given}")
        values = [
            check_hyperparameters(self.name, **{name: group.get(name, own[name]) for name in self.defaults})
            for group, own in zip(groups, self.param_groups, strict=True)
        ]
        masks = [
            check_masks(self.name, group.get("masks"), [p.data for p in own["params"]])
            for group, own in zip(groups, self.param_groups, strict=True)
        ]
        indices = [i for group in groups for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        needed = [
            name
            for name, own in zip(map(self.buffer_names, values), self.param_groups, strict=True)
            for _ in own["params"]
        ]
        states = {
            p: self._check_state(i, p, saved[i], names)
            for i, p, names in zip(indices, params, needed, strict=True)
            if i in saved
        }
        for group, own, checked, mask in zip(groups, self.param_groups, values, masks, strict=True):
            own.update(checked)
            own["masks"] = mask
            if "initial_lr" in group:
                own["initial_lr"] = group["initial_lr"]
        self.state = {}
        for group in self.param_groups:
            self._make_state(group)
            for p in group["params"]:
                state = self.state[p]
                for name, value in states.get(p, {}).items():
                    if name in self.scalars:
                        state[name] = value
                    elif name in state:
                        state[name][...] = value

    def _check_state(self, i, param, saved, names):
        """The scalars as numbers and the buffers as arrays like the parameter."""
        function = f"{self.name}.load_state_dict"
        state: dict = {name: type(start)(saved[name]) for name, start in self.scalars.items() if name in saved}
        for name in names:
            if saved.get(name) is None:
                if state.get("step"):
                    raise ValueError(f"{function}: {name} of parameter {i} is missing")
                continue
            value = np.asarray(saved[name])
            check_same_dtype(function, f"{name} of parameter {i}", value, "its parameter", param.data)
            check_shape(function, f"{name} of parameter {i}", value, param.data.shape, "the parameter's shape")
            state[name] = value
        state.setdefault("step", 1 if state else 0)  # torch's SGD keeps a buffer, but does not count
        return state


def aligned_full(count, dtype, value):
    """A flat array whose first element stands on a cache line: no vector of the update crosses one."""
    dtype = np.dtype(dtype)
    line = 64 // dtype.itemsize
    memory = np.zeros(count + line, dtype) if value == 0 else np.full(count + line, value, dtype)
    start = -memory.__array_interface__["data"][0] % 64 // dtype.itemsize
    return memory[start : start + count]


def copied(entries):
    """A dictionary of state or of hyper-parameters with its arrays copied; parameters are left out."""
    return {name: copy_value(value) for name, value in entries.items() if name != "params"}


def copy_value(value):
    if isinstance(value, list):
        return [copy_value(entry) for entry in value]
    return value.copy() if isinstance(value, np.ndarray) else value

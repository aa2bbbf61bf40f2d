"""Files with weights, or with everything that training needs to go on.

A checkpoint is any tree of dictionaries, lists, numbers, strings and arrays. The arrays become entries of an .npz or
.safetensors file, and the tree itself one text in JSON, with {"array": name} where an array stands. Other objects in
JSON are {"tuple": [...]} and {"items": [[key, value], ...]}, a dictionary whose keys need not be strings.
No file is ever half written: it is written under another name and then renamed.
"""

import contextlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np

__all__ = ["CheckpointError", "load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

TREE = "fastnn_tree"  # the entry (.npz) or metadata key (.safetensors) that holds the tree


class CheckpointError(ValueError):
    """A file of weights or a checkpoint cannot be read; the message names the file and says what is wrong.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastnn.training import CheckpointError, load_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "state.npz")
    ...     with open(path, "wb") as file:
    ...         count = file.write(b"text")
    ...     try:
    ...         load_checkpoint(path)
    ...     except CheckpointError as error:
    ...         print("not a checkpoint" in str(error))
    True
    """


def save_checkpoint(path, state):
    """Write a tree of dictionaries, lists, numbers, strings and arrays to a file, all or nothing.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz`` or, where safetensors is installed, in ``.safetensors``.
    state : dict
        For instance ``{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from fastnn.training import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/state.npz", {"epoch": 3, "weights": [np.zeros(2)]})
    ...     load_checkpoint(f"{folder}/state.npz")
    {'epoch': 3, 'weights': [array([0., 0.])]}
    """
    arrays: dict = {}
    tree = json.dumps(encode(state, arrays, ""))
    write_arrays(path, arrays, tree)


def load_checkpoint(path):
    """Read what :func:`save_checkpoint` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged or no checkpoint.

    Examples
    --------
    >>> import tempfile
    >>> from fastnn.training import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/state.npz", {"epoch": 3})
    ...     load_checkpoint(f"{folder}/state.npz")["epoch"]
    3
    """
    arrays, tree = read_arrays(path, "a checkpoint")
    if tree is None:
        raise CheckpointError(f"{path}: holds weights only, not a checkpoint of a training run")
    try:
        return decode(json.loads(tree), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}); use an older checkpoint") from None


def save_weights(path, model):
    """Write a model's parameters and buffers, under torch's names, to an ``.npz`` or ``.safetensors`` file.

    Parameters
    ----------
    path : str or path
        Folders on the way that do not exist are made.
    model : fastnn.nn.Module

    Raises
    ------
    TypeError
        If ``model`` is none: the path comes first.
    ValueError
        If the name does not end in ``.npz`` or ``.safetensors``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from fastnn import nn
    >>> from fastnn.training import load_weights, save_weights
    >>> model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/model.npz", model)
    ...     load_weights(f"{folder}/model.npz", other)
    >>> np.array_equal(model.weight.data, other.weight.data)
    True
    """
    check_order("save_weights", path, model)
    write_arrays(path, dict(model.state_dict()), None)


def check_order(function, path, model):
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"{function}: path must be a string or a path, got {type(path).__name__}; it comes before the model"
        )
    if not hasattr(model, "state_dict"):
        raise TypeError(f"{function}: model must be a Module, got {type(model).__name__}; the path comes first")


def load_weights(path, model):
    """Set a model's parameters and buffers from a file of :func:`save_weights` or from a training checkpoint.

    Parameters
    ----------
    path : str or path
    model : fastnn.nn.Module

    Raises
    ------
    FileNotFoundError, CheckpointError
        If the file is missing or damaged, or holds the weights of another model.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from fastnn import nn
    >>> from fastnn.training import load_weights, save_weights
    >>> model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/model.npz", model)
    ...     load_weights(f"{folder}/model.npz", other)
    >>> np.array_equal(model.weight.data, other.weight.data)
    True
    """
    check_order("load_weights", path, model)
    arrays, tree = read_arrays(path, "a file of weights")
    weights = arrays if tree is None else load_checkpoint(path).get("model")
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path}: holds no weights of a model")
    try:
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not fit this model: {error}") from error


def encode(value, arrays, name):
    """The value in JSON's terms; arrays are put into `arrays`, named after their place in the tree."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):  # as pairs, because JSON would turn keys into strings
        return {"items": [[key, encode(entry, arrays, join(name, key))] for key, entry in value.items()]}
    if isinstance(value, list):
        return [encode(entry, arrays, join(name, index)) for index, entry in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": encode(list(value), arrays, name)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"save_checkpoint: {name or 'state'} must be made of dictionaries, lists, numbers, strings and "
                    f"arrays, got {type(value).__name__}")  # fmt: skip


def join(name, key):
    return f"{name}/{key}" if name else str(key)


def decode(value, arrays):
    if isinstance(value, list):
        return [decode(entry, arrays) for entry in value]
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        if "tuple" in value:
            return tuple(decode(value["tuple"], arrays))
        return {key: decode(entry, arrays) for key, entry in value["items"]}
    return value


def write_arrays(path, arrays, tree):
    """Named arrays and a text, to a file whose name says its format."""
    path = Path(path)
    if path.suffix == ".npz":
        entries = arrays if tree is None else {**arrays, TREE: np.array(tree)}
        with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in entries.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
    elif path.suffix == ".safetensors":
        try:
            from safetensors.numpy import save
        except ImportError:
            raise ImportError(
                f"{path}: writing it needs safetensors; run pip install safetensors, or choose a name ending in .npz"
            ) from None
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with atomic_write(path) as file:
            file.write(save(contiguous, metadata=None if tree is None else {TREE: tree}))
    else:
        raise ValueError(f"{path}: the name of a checkpoint must end in .npz or .safetensors")


def read_arrays(path, kind):
    """Named arrays, and the text or None where there is none; kind is what the file should be."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, (file.metadata() or {}).get(TREE)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except ImportError:
        raise ImportError(f"{path}: reading it needs safetensors; run pip install safetensors") from None
    except Exception as error:  # zipfile, zlib, NumPy and safetensors each raise their own at damage, and name no list
        cause = "" if "pickle" in str(error) else f" ({error})"  # that is what NumPy calls every unknown format
        raise CheckpointError(f"{path}: is damaged or not {kind}{cause}") from None
    tree = arrays.pop(TREE, None)
    return arrays, None if tree is None else str(tree)


@contextlib.contextmanager
def atomic_write(path):
    """An open binary file that takes the place of `path` when the block ends, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

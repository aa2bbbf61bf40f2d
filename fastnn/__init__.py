"""fastnn: neural-network layers for CPUs, forward and backward, on NumPy arrays.

functional   layers, losses and optimisers' steps as functions: ``F.conv2d`` and ``F.conv2d_backward``
nn           the same as modules with parameters: ``nn.Sequential``, ``nn.Conv2d``, ``nn.CrossEntropyLoss``
optim        ``optim.Adam`` and others, with schedules in ``optim.lr_scheduler``
training     ``fit``, checkpoints, early stopping
data         readers of MNIST's and CIFAR-10's files, digits that come with the package, augmentation
models       ``LeNet5``

``set_num_threads``, ``set_backend`` ("native" or "reference", which is NumPy) and ``set_conv_algorithm`` choose how
functions run; ``manual_seed`` makes all that is random repeat; ``with profile()`` notes which kernels run for how long.

>>> import numpy as np
>>> from fastnn import nn, optim
>>> model, criterion = nn.Linear(3, 1), nn.MSELoss()
>>> optimizer = optim.SGD(model.parameters(), lr=0.1)
>>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
>>> loss = criterion(model(x), y)  # a float; its gradient comes from the criterion
>>> dx = model.backward(criterion.backward())
>>> optimizer.step()
>>> criterion(model(x), y) < loss
True

There is no autograd: docs/nn.md tells those who know torch what to do instead. ``python -m fastnn`` lists the commands.
"""

import importlib
import sys
import warnings

# `python -m fastnn` imports this before a line of __main__ runs, and is "-m" meanwhile.
_is_command = sys.argv[:1] == ["-m"] and bool({"fastnn", "-mfastnn"} & set(sys.orig_argv))
if _is_command:  # which says it in a line of its own, or does not need the kernels
    warnings.filterwarnings("ignore", "fastnn runs on slow NumPy code", RuntimeWarning)

try:
    from fastnn import functional, seed
    from fastnn.backend import backend, get_backend, set_backend
    from fastnn.conv_algorithm import conv_algorithm, get_conv_algorithm, set_conv_algorithm
    from fastnn.profiler import profile
    from fastnn.runtime import empty_cache, get_num_threads, memory_stats, set_num_threads, threads
    from fastnn.seed import manual_seed
except (ValueError, RuntimeError) as error:  # a wrong environment variable
    if not _is_command:
        raise
    print(f"fastnn: {error}", file=sys.stderr)
    sys.exit(2)

__version__ = "0.1.0"

SUBMODULES = ("data", "models", "nn", "optim", "training")  # imported when they are first used

__all__ = [
    "backend",
    "conv_algorithm",
    "data",
    "empty_cache",
    "functional",
    "get_backend",
    "get_conv_algorithm",
    "get_num_threads",
    "manual_seed",
    "memory_stats",
    "models",
    "nn",
    "optim",
    "profile",
    "seed",
    "set_backend",
    "set_conv_algorithm",
    "set_num_threads",
    "threads",
    "training",
]


def __getattr__(name):
    if name in SUBMODULES:
        return importlib.import_module(f"fastnn.{name}")
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *SUBMODULES})

"""fastnn: neural-network layers for CPUs, forward and backward, on NumPy arrays."""

from fastnn import functional, models, nn, seed
from fastnn.backend import backend, get_backend, set_backend
from fastnn.runtime import empty_cache, get_num_threads, memory_stats, set_num_threads, threads
from fastnn.seed import manual_seed

__version__ = "0.1.0"

__all__ = [
    "backend",
    "empty_cache",
    "functional",
    "get_backend",
    "get_num_threads",
    "manual_seed",
    "memory_stats",
    "models",
    "nn",
    "seed",
    "set_backend",
    "set_num_threads",
    "threads",
]

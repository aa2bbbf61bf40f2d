"""Threads, instruction sets and memory: the face of native.runtime, which also works where nothing is compiled."""

import itertools
import operator
import os
from contextlib import contextmanager, suppress
from types import ModuleType

import numpy as np

from fastnn.backend import native

native_runtime: ModuleType | None
if native is not None:
    from fastnn.native import runtime as native_runtime
else:
    native_runtime = None

__all__ = ["empty_cache", "get_num_threads", "memory_stats", "set_num_threads", "threads"]


def set_num_threads(count):
    """Use at most this many threads in every function from now on.

    A process starts with ``FASTNN_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs that it may use (its
    affinity and its cgroup's quota). Small work stays on fewer threads. Results do not depend on the number. A child
    of ``os.fork`` (and so of ``multiprocessing``'s "fork") has one thread whatever is asked for, as OpenMP does not
    survive a fork; start processes by "spawn" to have more.

    On Linux helping threads keep off the CPU that their caller runs on, unless ``OMP_PROC_BIND``, ``OMP_PLACES`` or
    ``GOMP_CPU_AFFINITY`` is set: then they run where these say.

    Parameters
    ----------
    count : int
        At least 1.

    Raises
    ------
    TypeError
        If ``count`` is not an integer.
    ValueError
        If ``count`` is below 1 or above 1024.

    Examples
    --------
    >>> import fastnn
    >>> before = fastnn.get_num_threads()
    >>> fastnn.set_num_threads(1)
    >>> fastnn.get_num_threads()
    1
    >>> fastnn.set_num_threads(before)
    """
    count = check_thread_count("set_num_threads", count)
    if native_runtime is not None:
        native_runtime.set_num_threads(count)


def get_num_threads():
    """The most threads that a function may use; 1 in a build without OpenMP and in a forked child.

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.threads(1):
    ...     fastnn.get_num_threads()
    1
    """
    return native_runtime.get_num_threads() if native_runtime is not None else 1


@contextmanager
def threads(count):
    """Use at most ``count`` threads in the ``with`` block (of this process, not of this Python thread alone).

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.threads(1):
    ...     fastnn.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def empty_cache():
    """Give the memory that fastnn keeps for re-use back to the system.

    Arrays come from a cache of blocks, so that a training loop neither asks the system for memory nor touches new
    pages after its first steps. The cache keeps at most 2 GiB.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.empty_cache()
    >>> fastnn.memory_stats()["cached_bytes"]
    0
    """
    if native_runtime is not None:
        native_runtime.empty_cache()


def shared_memory(arrays):
    """The indices of two arrays that have memory in common, or None."""
    if native_runtime is not None:
        pairs = native_runtime.overlapping(arrays)
    else:
        pairs = itertools.combinations(range(len(arrays)), 2)
    for i, j in pairs:
        with suppress(np.exceptions.TooHardError):  # only for views that no layer makes
            if np.shares_memory(arrays[i], arrays[j], max_work=100_000):  # type: ignore[arg-type]
                return i, j
    return None


def memory_stats():
    """Statistics of the array cache.

    Returns
    -------
    dict
        ``used_bytes`` (in live arrays), ``cached_bytes`` (kept for re-use), ``peak_bytes`` (most in use so far),
        ``limit_bytes`` (most that is kept), ``requests`` (blocks asked for) and ``reused`` (met from the cache).

    Examples
    --------
    >>> import fastnn
    >>> fastnn.memory_stats()["used_bytes"] >= 0
    True
    """
    if native_runtime is not None:
        return native_runtime.memory_stats()
    return dict.fromkeys(("used_bytes", "cached_bytes", "peak_bytes", "limit_bytes", "requests", "reused"), 0)


def check_thread_count(name, count):
    try:
        count = operator.index(count)
    except TypeError:
        raise TypeError(f"{name}: count must be an integer, got {type(count).__name__}") from None
    if not 1 <= count <= 1024:
        raise ValueError(f"{name}: count must be from 1 to 1024, got {count}")
    return count


def starting_thread_count():
    for variable in ("FASTNN_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if not text:
            continue
        if text.isdecimal() and 1 <= int(text) <= 1024:
            return int(text)
        if variable == "FASTNN_NUM_THREADS":
            raise ValueError(f"FASTNN_NUM_THREADS: expected a whole number from 1 to 1024, got {text!r}")
    return min(available_cpus(), 1024)


def available_cpus():
    """CPUs that this process may use: its affinity mask, and its cgroup's quota rounded up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, min(cpus, quota) if quota else cpus)


def cgroup_quota():
    """Whole CPUs of this process's cgroup (version 2 or 1), or None where it has no quota."""
    for quota_file, period_file in [
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ]:
        try:
            with open(quota_file) as file:
                fields = file.read().split()
            if period_file:
                with open(period_file) as file:
                    fields += file.read().split()
            quota, period = int(fields[0]), int(fields[1])
        except (OSError, ValueError, IndexError):  # no such cgroup version, or "max": no quota
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None


set_num_threads(starting_thread_count())

"""This machine's limits, measured in the instruction set and with the threads in use."""

from dataclasses import dataclass

import numpy as np

from fastnn.native import machine

TRIAD_ELEMENTS = 1 << 24  # three arrays of 64 MiB: beyond the last-level cache of common CPUs


@dataclass(frozen=True)
class Limits:
    """Floating-point operations and bytes per second at most."""

    flops: float
    bandwidth: float


def measure_limits(threads):
    """The best of several runs each: float32 multiply-adds in registers, and the triad a = b + s c."""
    like = np.zeros(1, np.float32)
    flops = max(machine.multiply_add_rate(like, threads, 2_000_000) for _ in range(10))
    a, b, c = (np.ones(TRIAD_ELEMENTS, np.float32) for _ in range(3))
    bandwidth = max(machine.triad_rate(a, b, c, threads) for _ in range(10))
    return Limits(flops, bandwidth)

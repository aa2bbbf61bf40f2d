"""The worst error that each kernel may show, in one table with its reason.

The measure is max |kernel - reference| / RMS of the reference, where the reference runs in float64 on the same
inputs; an output that is all zeros must be met exactly. float64 kernels are held to the same bound scaled by the
ratio of the machine epsilons (2^-29), with a margin of 4 for the reference's own rounding.
"""

import numpy as np

TOLERANCES = {
    # GEMM-based: rounding grows with the root of the reduction length; 4608 = 512 x 3 x 3 is the longest tested.
    "conv": 5e-6,
    "linear": 5e-6,
    # One comparison and one selection: exact.
    "relu": 0.0,
}


def tolerance(kernel, dtype):
    bound = TOLERANCES[kernel]
    return bound if np.dtype(dtype) == np.float32 else bound * 2.0**-27

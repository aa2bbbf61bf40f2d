"""The worst error that each kernel may show, in one table with its reason.

The measure is max |kernel - reference| / RMS of the reference, where the reference runs in float64 on the same
inputs; an output that is all zeros must be met exactly. float64 kernels are held to the same bound scaled by the
ratio of the machine epsilons (2^-29), with a margin of 4 for the reference's own rounding.
"""

import numpy as np

TOLERANCES = {
    # GEMM-based: rounding grows with the root of the reduction length; 4608 = 512 x 3 x 3 is the longest tested.
    "conv": 5e-6,
    # Winograd F(4x4, 3x3): the transforms add numbers several times larger than the result, in input, weights and
    # products. Points 0, +-1/sqrt(2), +-sqrt(2), and sums of at most 128 channels at a time; 512 channels are promised.
    "conv_winograd": 2e-5,
    "linear": 5e-6,
    # NumPy in the arrays' own precision: norms, and gradients of them, where a small norm divides.
    "distance": 2e-6,
    "distance_backward": 2e-5,
    # Gradients of copies: sums of a few terms.
    "pad": 1e-6,
    # Sums of the gradients of one row.
    "embedding": 1e-6,
    # Sums of as many terms as a kernel has elements, the largest of them several times the RMS.
    "fold": 2e-6,
    # A few rounding errors of log, square root and sine; the largest normal numbers are 5 times the RMS.
    "gaussian_dropout": 2e-6,
    # Sums in float32 over at most 4096 elements, then in float64. What remains is a few roundings of
    # the output, seen relative to the RMS of all channels.
    "batch_norm": 2e-6,
    "batch_norm_backward": 2e-6,
    "group_norm": 2e-6,
    "group_norm_backward": 2e-6,
    "instance_norm": 2e-6,
    "instance_norm_backward": 2e-6,
    "layer_norm": 2e-6,
    "layer_norm_backward": 2e-6,
    # One comparison and one selection: exact.
    "relu": 0.0,
    # exp, log and their sums, a few roundings each; the compositions in NumPy the same.
    "cross_entropy": 2e-6,
    # Over the largest entry, not the RMS: a probability near 1 among a thousand is 100 RMS, its last bit 6e-6 RMS.
    "cross_entropy gradient": 6e-7,
    "nll_loss": 2e-6,
    "multi_margin_loss": 2e-6,
    "mse_loss": 2e-6,
    "l1_loss": 2e-6,
    "smooth_l1_loss": 2e-6,
    "huber_loss": 2e-6,
    "binary_cross_entropy": 2e-6,
    "binary_cross_entropy_with_logits": 2e-6,
    "kl_div": 2e-6,
    # A sum of a window and one division, or a few shares of gradients; the mean of a large plane of unit normal numbers
    # is small against the sums that it comes from.
    "avg_pool": 2e-6,
    # Sums of the gradients of the windows that share a maximum.
    "max_pool_backward": 2e-6,
    # An optimiser step rounds a handful of times, elementwise; squares double the rounding of what they
    # square. The worst element is some four times the RMS.
    "optim": 2e-6,
    # Twenty steps, one after another, add their roundings.
    "optim_20_steps": 6e-6,
    # A sum of float32 squares in float64, and one product: half a unit in the last place of the largest element.
    "clip": 5e-7,
    # exp, log1p, tanh, sigmoid within 2 ulp, then a few roundings; erfc's 10 ulp in gelu weigh on small outputs only.
    "activation": 2e-6,
    # exp within 1 ulp, and a sum in float32. Every entry is right to a few ulp; the bound holds for outputs that are no
    # more than some ten times their RMS, as with logits of standard deviation 0.25.
    "softmax": 2e-6,
    # A sum over the batch of products of both signs, measured against what is left of it.
    "prelu_weight": 5e-6,
}


def tolerance(kernel, dtype):
    bound = TOLERANCES[kernel]
    return bound if np.dtype(dtype) == np.float32 else bound * 2.0**-27

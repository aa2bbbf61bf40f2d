"""Dilated convolutions as convolutions of phases: outputs, and what they see of the image, a dilation apart are an
image of their own, convolved without gaps, which Winograd's algorithm and Fourier transforms can do.

Output y sees y + t * d - p for tap t, dilation d and padding p. Of the outputs a + j * d, with p = P * d + e, these are
the elements i = j + t - P of the phase a, which stand at a + i * d - e: as with padding P and dilation 1. As many
images and phases are computed together as are copied at a time. The functions of native/conv.pyx that compute them are
arguments.
"""

import itertools

import numpy as np

from fastnn.conv_algorithm import phases_together
from fastnn.native.runtime import empty_in_layout

__all__ = ["conv", "conv_input_grad", "conv_weight_grad"]


def positions(phase, size, dilation, lead):
    """(slice of the image, slice of the phase) of one dimension: the elements a phase has of an image of this size, the
    first `lead` of which would stand in front of it."""
    first = 1 if phase < lead else 0
    start = phase + first * dilation - lead
    return slice(start, None, dilation), slice(first, first + len(range(start, size, dilation)))


def phase_size(size, dilation, lead):
    return tuple(-(-(n + e) // d) for n, d, e in zip(size, dilation, lead, strict=True))


def parts_of(x, out_channels, out_size, kernel, dilation):
    """Lists of (image, phase down, phase across), as many as are computed together, of x with some output."""
    phases = [range(min(d, n)) for d, n in zip(dilation, out_size, strict=True)]
    every = list(itertools.product(range(len(x)), *phases))
    together = max(1, phases_together(x.shape[1], out_channels, out_size, kernel, dilation, x.itemsize))
    return [every[start : start + together] for start in range(0, len(every), together)]


def where(place, size, dilation, lead):
    """Indices of an image's phase: in the array of images, and in that of phases without the first dimension."""
    image, *phase = place
    pairs = [positions(*of) for of in zip(phase, size, dilation, lead, strict=True)]
    return (image, slice(None), *(pair[0] for pair in pairs)), (slice(None), *(pair[1] for pair in pairs))


def gather(x, part, dilation, lead):
    """The phases of x (N, C, H, W), (number of them, C, height, width) in its layout, with zeros where it has no
    elements."""
    size = x.shape[2:]
    result = empty_in_layout(x, (len(part), x.shape[1], *phase_size(size, dilation, lead)))
    if any(e or n % d for n, d, e in zip(size, dilation, lead, strict=True)):
        result[...] = 0
    for i, place in enumerate(part):
        there, here = where(place, size, dilation, lead)
        result[(i, *here)] = x[there]
    return result


def scatter(phases, part, dilation, lead, target):
    """Puts phases where they belong."""
    for i, place in enumerate(part):
        there, here = where(place, target.shape[2:], dilation, lead)
        target[there] = phases[(i, *here)]


def split(padding, dilation):
    """(P, e) of the padding, each of both dimensions."""
    return tuple(zip(*map(divmod, padding, dilation), strict=True))


def phases_fill(out_size, dilation):
    """Whether all phases of the outputs have the same size: sums over the phases are then sums over the outputs."""
    return all(n % d == 0 for n, d in zip(out_size, dilation, strict=True))


def conv(x, weight, bias, out_size, padding, dilation, residual, slope, statistics, kept, convolve):
    whole, lead = split(padding, dilation)
    size = phase_size(out_size, dilation, (0, 0))
    y = empty_in_layout(x, (len(x), len(weight), *out_size))
    sums = np.zeros((2, len(weight)))

    def compute(part):  # whose arrays are gone before those of the next
        some = gather(x, part, dilation, lead)
        added = None if residual is None else gather(residual, part, dilation, (0, 0))
        outputs = convolve(some, weight, bias, size, (1, 1), whole, (1, 1), 1, added, slope, statistics, kept)
        if statistics:
            outputs, *some_sums = outputs
            sums[...] += some_sums
        scatter(outputs, part, dilation, (0, 0), y)

    for part in parts_of(x, len(weight), out_size, weight.shape[2:], dilation):
        compute(part)
    return (y, *sums) if statistics else y


def conv_input_grad(grad, weight, bias, in_size, padding, dilation, convolve):
    whole, lead = split(padding, dilation)
    size = phase_size(in_size, dilation, lead)
    result = empty_in_layout(grad, (len(grad), weight.shape[1], *in_size))

    def compute(part):
        some = gather(grad, part, dilation, (0, 0))
        scatter(convolve(some, weight, bias, size, (1, 1), whole, (1, 1), 1), part, dilation, lead, result)

    for part in parts_of(grad, weight.shape[1], in_size, weight.shape[2:], dilation):
        compute(part)
    return result


def conv_weight_grad(grad, x, kernel, padding, dilation, bias_grad, convolve):
    whole, lead = split(padding, dilation)

    def compute(part):
        grads, images = gather(grad, part, dilation, (0, 0)), gather(x, part, dilation, lead)
        return convolve(grads, images, kernel, (1, 1), whole, (1, 1), 1, bias_grad)

    parts = parts_of(x, grad.shape[1], grad.shape[2:], kernel, dilation)
    if not parts:
        return np.zeros((grad.shape[1], x.shape[1], *kernel), x.dtype), np.zeros((1, grad.shape[1]))
    result, bias_sums = compute(parts[0])
    bias_sums = np.zeros((1, grad.shape[1])) if bias_sums is None else bias_sums[None].astype(np.float64)
    for part in parts[1:]:
        some, sums = compute(part)
        result += some
        del some
        if bias_grad:
            bias_sums += sums
    return result, bias_sums

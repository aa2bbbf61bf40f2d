# What the three convolutions share: sizes per spatial dimension, and which taps of the filter an output sees.


cdef inline tuple two(sequence, fill):
    """Values per spatial dimension as (height, width)."""
    return (fill,) * (2 - len(sequence)) + tuple(sequence)


cdef inline tuple three(sequence, fill):
    """Values per spatial dimension as (depth, height, width)."""
    return (fill,) * (3 - len(sequence)) + tuple(sequence)


cdef inline list forward_taps(kernel, padding, dilation):
    """(tap, position in the image under the first output) of all taps along one dimension."""
    return [(tap, tap * dilation - padding) for tap in range(kernel)]


cdef inline list phase_taps(phase, kernel, stride, padding, dilation):
    """(tap, position in the output's gradient) of the taps that reach input positions phase, phase + stride, ...,
    along one dimension."""
    return [(tap, (phase + padding - tap * dilation) // stride) for tap in range(kernel)
            if (phase + padding - tap * dilation) % stride == 0]

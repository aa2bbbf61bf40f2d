"""im2col (unfold) and col2im (fold), one position of the kernel (tap) at a time; each is the other's gradient."""

import numpy as np

__all__ = ["fold", "fold_backward", "unfold", "unfold_backward"]


def taps(padded_size, kernel, dilation, stride):
    """For each tap the slices of the padded image that it reads, one element per patch."""
    for tap in np.ndindex(*kernel):
        reach = [n - d * (k - 1) for n, d, k in zip(padded_size, dilation, kernel, strict=True)]
        yield tuple(slice(t * d, t * d + r, s) for t, d, r, s in zip(tap, dilation, reach, stride, strict=True))


def unfold(x, kernel_size, dilation, padding, stride):
    padded = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    columns = [padded[:, :, rows, across] for rows, across in taps(padded.shape[2:], kernel_size, dilation, stride)]
    patches = columns[0].shape[2] * columns[0].shape[3]
    return np.stack(columns, axis=2).reshape(x.shape[0], x.shape[1] * len(columns), patches)


def unfold_backward(grad_output, x, kernel_size, dilation, padding, stride):
    return fold(grad_output, x.shape[2:], kernel_size, dilation, padding, stride)


def fold(x, output_size, kernel_size, dilation, padding, stride):
    padded_size = [n + 2 * p for n, p in zip(output_size, padding, strict=True)]
    channels = x.shape[1] // (kernel_size[0] * kernel_size[1])
    padded = np.zeros((x.shape[0], channels, *padded_size), x.dtype)
    for tap, (rows, across) in enumerate(taps(padded_size, kernel_size, dilation, stride)):
        window = padded[:, :, rows, across]
        window += x[:, tap :: kernel_size[0] * kernel_size[1]].reshape(window.shape)
    (top, left), (height, width) = padding, output_size
    return padded[:, :, top : top + height, left : left + width].copy()


def fold_backward(grad_output, x, output_size, kernel_size, dilation, padding, stride):
    return unfold(grad_output, kernel_size, dilation, padding, stride)

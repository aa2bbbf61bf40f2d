"""Normalisation. Statistics are float64: float32 input keeps its accuracy where the mean exceeds the deviation."""

import numpy as np

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
]


def per_channel(values, x):
    """Values of the channels, (C,), shaped to broadcast against x, (N, C, ...)."""
    return np.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


def normalized(x, mean, inverse_deviation):
    return (x - mean) * inverse_deviation


def affine(xhat, weight, bias):
    """weight and bias are shaped to broadcast, or None."""
    y = xhat if weight is None else xhat * weight
    return y if bias is None else y + bias


def normalize_backward(g, xhat, inverse_deviation, axes):
    """Gradient of x from that of xhat, through mean and variance over axes (Ioffe and Szegedy, 2015, section 3)."""
    mean_g = g.mean(axes, keepdims=True)
    mean_g_xhat = (g * xhat).mean(axes, keepdims=True)
    return inverse_deviation * (g - mean_g - xhat * mean_g_xhat)


def batch_statistics(x, eps):
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, dtype=np.float64)
    variance = ((x - per_channel(mean, x)) ** 2).mean(axes)
    return mean, variance, 1 / np.sqrt(variance + eps)


def batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps, relu, residual=None):
    """Returns the output and (mean, inverse deviation); updates the running statistics when training."""
    if training:
        mean, variance, inverse_deviation = batch_statistics(x, eps)
        if running_mean is not None:
            count = x.size // x.shape[1]
            running_mean[...] = momentum * mean + (1 - momentum) * running_mean
            running_var[...] = momentum * variance * count / (count - 1) + (1 - momentum) * running_var
    else:
        mean, inverse_deviation = fixed_statistics(running_mean, running_var, eps)
    y = batch_output(x, mean, inverse_deviation, weight, bias)
    y = y if residual is None else y + residual
    y = np.maximum(y, 0) if relu else y
    return y.astype(x.dtype), (mean, inverse_deviation)


def fixed_statistics(running_mean, running_var, eps):
    with np.errstate(divide="ignore", invalid="ignore"):  # eps = 0; a negative variance gives NaN
        return running_mean.astype(np.float64), 1 / np.sqrt(running_var.astype(np.float64) + eps)


def batch_output(x, mean, inverse_deviation, weight, bias):
    xhat = normalized(x, per_channel(mean, x), per_channel(inverse_deviation, x))
    weight = None if weight is None else per_channel(weight, x)
    return affine(xhat, weight, None if bias is None else per_channel(bias, x))


def batch_norm_backward(grad_output, x, running_mean, running_var, weight, bias, training, eps, saved, relu):
    axes = (0, *range(2, x.ndim))
    if saved is not None:
        mean, inverse_deviation = saved
    elif training:
        mean, _, inverse_deviation = batch_statistics(x, eps)
    else:
        mean, inverse_deviation = fixed_statistics(running_mean, running_var, eps)
    if relu:
        grad_output = np.where(batch_output(x, mean, inverse_deviation, weight, bias) > 0, grad_output, 0)
    inverse_deviation = per_channel(inverse_deviation, x)
    xhat = normalized(x, per_channel(mean, x), inverse_deviation)
    g = grad_output if weight is None else grad_output * per_channel(weight, x)
    dx = normalize_backward(g, xhat, inverse_deviation, axes) if training else g * inverse_deviation
    dweight = None if weight is None else (grad_output * xhat).sum(axes).astype(x.dtype)
    dbias = None if bias is None else grad_output.sum(axes, dtype=np.float64).astype(x.dtype)
    return dx.astype(x.dtype), dweight, dbias


def row_statistics(rows, eps):
    """Mean and inverse deviation over the last axis, which is kept."""
    mean = rows.mean(-1, keepdims=True, dtype=np.float64)
    return mean, 1 / np.sqrt(((rows - mean) ** 2).mean(-1, keepdims=True) + eps)


def group_norm(x, num_groups, weight, bias, eps):
    groups = x.reshape(x.shape[0], num_groups, -1)
    xhat = normalized(groups, *row_statistics(groups, eps)).reshape(x.shape)
    weight = None if weight is None else per_channel(weight, x)
    return affine(xhat, weight, None if bias is None else per_channel(bias, x)).astype(x.dtype)


def group_norm_backward(grad_output, x, num_groups, weight, bias, eps):
    groups = x.reshape(x.shape[0], num_groups, -1)
    mean, inverse_deviation = row_statistics(groups, eps)
    xhat = normalized(groups, mean, inverse_deviation)
    g = grad_output if weight is None else grad_output * per_channel(weight, x)
    dx = normalize_backward(g.reshape(groups.shape), xhat, inverse_deviation, -1).reshape(x.shape)
    axes = (0, *range(2, x.ndim))
    dweight = None if weight is None else (grad_output * xhat.reshape(x.shape)).sum(axes).astype(x.dtype)
    dbias = None if bias is None else grad_output.sum(axes, dtype=np.float64).astype(x.dtype)
    return dx.astype(x.dtype), dweight, dbias


def instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps):
    """Running statistics take the mean over the batch of the instances' means and unbiased variances."""
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps, False)[0]
    if running_mean is not None:
        planes = x.reshape(*x.shape[:2], -1).astype(np.float64)
        running_mean[...] = momentum * planes.mean((0, 2)) + (1 - momentum) * running_mean
        running_var[...] = momentum * planes.var(2, ddof=1).mean(0) + (1 - momentum) * running_var
    return group_norm(x, x.shape[1], weight, bias, eps)


def instance_norm_backward(grad_output, x, running_mean, running_var, weight, bias, use_input_stats, eps):
    if not use_input_stats:
        return batch_norm_backward(grad_output, x, running_mean, running_var, weight, bias, False, eps, None, False)
    return group_norm_backward(grad_output, x, x.shape[1], weight, bias, eps)


def layer_norm(x, length, weight, bias, eps):
    """Rows are the last `length` elements of x, which may be several axes."""
    rows = x.reshape(-1, length)
    xhat = normalized(rows, *row_statistics(rows, eps)).reshape(x.shape)
    return affine(xhat, weight, bias).astype(x.dtype)


def layer_norm_backward(grad_output, x, length, weight, bias, eps):
    rows = x.reshape(-1, length)
    mean, inverse_deviation = row_statistics(rows, eps)
    xhat = normalized(rows, mean, inverse_deviation)
    g = grad_output if weight is None else grad_output * weight
    dx = normalize_backward(g.reshape(rows.shape), xhat, inverse_deviation, -1)
    dy = grad_output.reshape(rows.shape)
    dweight = None if weight is None else (dy * xhat).sum(0).reshape(weight.shape).astype(x.dtype)
    dbias = None if bias is None else dy.sum(0, dtype=np.float64).reshape(bias.shape).astype(x.dtype)
    return dx.reshape(x.shape).astype(x.dtype), dweight, dbias


def channel_window_sum(x, before, after):
    """Sum over the channels from c - before to c + after, zeros outside."""
    padded = np.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
    return sum(padded[:, i : i + x.shape[1]] for i in range(before + after + 1))


def local_response_norm(x, size, alpha, beta, k):
    return x * (k + alpha / size * channel_window_sum(x * x, size // 2, (size - 1) // 2)) ** -beta


def local_response_norm_backward(grad_output, x, size, alpha, beta, k):
    divisor = k + alpha / size * channel_window_sum(x * x, size // 2, (size - 1) // 2)
    # x[j] stands in the windows of the channels from j - (size - 1) // 2 to j + size // 2.
    through_windows = channel_window_sum(grad_output * x * divisor ** (-beta - 1), (size - 1) // 2, size // 2)
    return grad_output * divisor**-beta - 2 * alpha * beta / size * x * through_windows

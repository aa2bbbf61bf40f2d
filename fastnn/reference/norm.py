"""Normalisation. Statistics are float64: float32 input keeps its accuracy where the mean exceeds the deviation."""

import numpy as np

__all__ = ["batch_norm", "batch_norm_backward"]


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


def batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps, relu):
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

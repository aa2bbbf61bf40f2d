"""Optimiser updates in place, by the formulas of torch.optim's documentation. Lists of arrays; one formula per rule."""

import numpy as np

__all__ = [
    "adadelta_",
    "adagrad_",
    "adam_",
    "adamax_",
    "clamp_",
    "nadam_",
    "radam_",
    "rmsprop_",
    "scale_",
    "sgd_",
    "sum_of_squares",
]


def each(params, grads, masks, lr, maximize, weight_decay, decoupled_weight_decay, l1, l1_subgradient):
    """Yields (index, parameter, gradient with penalties); constrains the parameter when the caller is done with it."""
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        dead = None if masks is None or masks[i] is None else ~masks[i]
        g = -g if maximize else g.copy()
        if dead is not None:
            g[dead] = 0
            p[dead] = 0
        if l1_subgradient:
            g += l1_subgradient * np.sign(p)
        if weight_decay and decoupled_weight_decay:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g += weight_decay * p
        yield i, p, g
        if l1:
            p -= np.clip(p, -lr * l1, lr * l1)  # soft threshold
        if dead is not None:
            p[dead] = 0


def decay(average, value, keep):
    """average <- keep * average + (1 - keep) * value"""
    average += (1 - keep) * (value - average)


def sgd_(
    params, grads, momentum_buffers, masks, first_step, lr, momentum, dampening, nesterov, lr_in_momentum, **common
):
    inside, outside = (-lr, 1) if lr_in_momentum else (1, -lr)
    for i, p, g in each(params, grads, masks, lr, **common):
        direction = inside * g
        if momentum_buffers is not None:
            buffer = momentum_buffers[i]
            buffer *= momentum
            buffer += direction if first_step else (1 - dampening) * direction
            direction = direction + momentum * buffer if nesterov else buffer
        p += outside * direction


def adagrad_(params, grads, sums, masks, step, lr, lr_decay, eps, **common):
    lr = lr / (1 + (step - 1) * lr_decay)
    for i, p, g in each(params, grads, masks, lr, **common):
        sums[i] += g * g
        p -= lr * g / (np.sqrt(sums[i]) + eps)


def rmsprop_(
    params, grads, square_avgs, grad_avgs, momentum_buffers, masks, lr, alpha, eps, momentum, lr_in_momentum, **common
):
    inside, outside = (-lr, 1) if lr_in_momentum else (1, -lr)
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(square_avgs[i], g * g, alpha)
        variance = square_avgs[i]
        if grad_avgs is not None:
            decay(grad_avgs[i], g, alpha)
            variance = np.maximum(variance - grad_avgs[i] ** 2, 0)
        direction = g / (np.sqrt(variance) + eps)
        if momentum_buffers is None:
            p -= lr * direction
        else:
            buffer = momentum_buffers[i]
            buffer *= momentum
            buffer += inside * direction
            p += outside * buffer


def adam_(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    max_exp_avg_sqs,
    masks,
    step,
    lr,
    beta1,
    beta2,
    eps,
    bias_correction,
    **common,
):
    correction1 = 1 - beta1**step if bias_correction else 1
    correction2 = 1 - beta2**step if bias_correction else 1
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(exp_avgs[i], g, beta1)
        decay(exp_avg_sqs[i], g * g, beta2)
        second = exp_avg_sqs[i]
        if max_exp_avg_sqs is not None:
            second = np.maximum(max_exp_avg_sqs[i], second, out=max_exp_avg_sqs[i])
        p -= lr * (exp_avgs[i] / correction1) / (np.sqrt(second / correction2) + eps)


def adadelta_(params, grads, square_avgs, acc_deltas, masks, lr, rho, eps, **common):
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(square_avgs[i], g * g, rho)
        delta = np.sqrt(acc_deltas[i] + eps) / np.sqrt(square_avgs[i] + eps) * g
        decay(acc_deltas[i], delta * delta, rho)
        p -= lr * delta


def adamax_(params, grads, exp_avgs, exp_infs, masks, step, lr, beta1, beta2, eps, **common):
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(exp_avgs[i], g, beta1)
        np.maximum(beta2 * exp_infs[i], np.abs(g) + eps, out=exp_infs[i])
        p -= lr / (1 - beta1**step) * exp_avgs[i] / exp_infs[i]


def nadam_(
    params, grads, exp_avgs, exp_avg_sqs, masks, step, mu_product, lr, beta1, beta2, eps, momentum_decay, **common
):
    mu = beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))
    next_mu = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
    mu_product *= mu
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(exp_avgs[i], g, beta1)
        decay(exp_avg_sqs[i], g * g, beta2)
        first = next_mu / (1 - mu_product * next_mu) * exp_avgs[i] + (1 - mu) / (1 - mu_product) * g
        p -= lr * first / (np.sqrt(exp_avg_sqs[i] / (1 - beta2**step)) + eps)
    return mu_product


def radam_(params, grads, exp_avgs, exp_avg_sqs, masks, step, lr, beta1, beta2, eps, **common):
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    for i, p, g in each(params, grads, masks, lr, **common):
        decay(exp_avgs[i], g, beta1)
        decay(exp_avg_sqs[i], g * g, beta2)
        direction = exp_avgs[i] / (1 - beta1**step)
        if length > 5:
            rectification = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            direction *= np.sqrt(rectification * correction) / (np.sqrt(exp_avg_sqs[i]) + eps)
        p -= lr * direction


def sum_of_squares(arrays):
    return float(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays))


def scale_(arrays, factor):
    for x in arrays:
        x *= factor


def clamp_(arrays, limit):
    for x in arrays:
        np.clip(x, -limit, limit, out=x)

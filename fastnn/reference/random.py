"""Counter-based random numbers, and the two kinds of dropout made from them."""

import numpy as np

__all__ = ["dropout", "dropout_backward", "gaussian_dropout", "gaussian_dropout_backward", "philox", "philox4x32"]

WORD = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(counter, key):
    """Philox4x32-10 of Salmon et al. (2011): four words (uint64 arrays) and a key of two give four words."""
    c0, c1, c2, c3 = counter
    key0, key1 = key
    for _ in range(10):
        product0, product2 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = product2 >> HALF ^ c1 ^ np.uint64(key0), product2 & WORD
        c2, c3 = product0 >> HALF ^ c3 ^ np.uint64(key1), product0 & WORD
        key0, key1 = (key0 + 0x9E3779B9) % 2**32, (key1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def philox(seed, position, count):
    """Words position ... position + count of the stream of a seed: word p is word p % 4 of block p / 4."""
    first = position // 4
    block = np.arange((position + count + 3) // 4 - first, dtype=np.uint64) + np.uint64(first)
    zero = np.zeros_like(block)
    words = philox4x32((block & WORD, block >> HALF, zero, zero), (seed % 2**32, seed // 2**32))
    return np.stack(words, axis=-1).astype(np.uint32).reshape(-1)[position % 4 :][:count]


def dropout(x, p, seed, position):
    keep = philox(seed, position, x.size).reshape(x.shape) >= min(int(p * 2**32), 2**32 - 1)
    return x * np.where(keep, 1 / (1 - p) if p < 1 else 0, 0).astype(x.dtype)


def dropout_backward(grad_output, p, seed, position):
    return dropout(grad_output, p, seed, position)


def standard_normal(seed, count):
    """Box-Muller: of each 32 words of the stream, the first 16 give radii and the last 16 angles."""
    words = philox(seed, 0, count + -count % 32).reshape(-1, 2, 16)
    radius = np.sqrt(-2 * np.log(((words[:, 0] >> 8) + 1) / 2**24))
    angle = words[:, 1] * (2 * np.pi / 2**32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]


def gaussian_dropout(x, std, seed):
    noise = 1 + std * standard_normal(seed, x.size)
    return x * noise.astype(x.dtype).reshape(x.shape)


def gaussian_dropout_backward(grad_output, std, seed):
    return gaussian_dropout(grad_output, std, seed)

/* What a convolution does to its outputs while they are in registers or in the first-level cache:
 *
 *   v = sum + bias[k] + residual,   out = v > 0 ? v : slope * v,   and the sums of out and of its squares.
 *
 * The sums are those of `unit`s, parts of the outputs that depend on the shape alone: sums[unit][2][K].
 */
#ifndef FASTNN_EPILOGUE_H
#define FASTNN_EPILOGUE_H

#include "kernels.h"
#include "vec.h"

/* Leaky ReLU; a slope of 1 changes nothing and 0 is ReLU, also of an infinity. NaN stays NaN. */
INLINE vec epilogue_activate(vec v, real slope)
{
    if (slope == 1) return v;
    if (slope == 0) return vec_max((vec){0}, v);
    return vec_select(v > (vec){0}, v, vec_set(slope) * v);
}

struct channel_sums {
    vec sum, squares;
};

/* Stores `count` outputs of one channel, bias included: residual and activation are applied, lanes behind them are zeros
 * in the sums. `from` has room for whole vectors; NULL stands for no residual, and for no sums. */
INLINE void epilogue_store(const real *from, ptrdiff_t count, const real *residual, real slope, real *to,
                           struct channel_sums *sums)
{
    for (ptrdiff_t j = 0; j < count; j += LANES) {
        ptrdiff_t rest = count - j;
        vec v = vec_load_rest(from + j, rest);
        if (residual) v += vec_load_rest(residual + j, rest);
        v = epilogue_activate(v, slope);
        if (sums) {
            sums->sum += v;
            sums->squares += v * v;
        }
        vec_store_rest(to + j, v, rest);
    }
}

/* Writes the sums of channel k of one unit. */
INLINE void epilogue_store_sums(const struct conv_epilogue *epilogue, ptrdiff_t unit, ptrdiff_t k,
                                const struct channel_sums *sums)
{
    real *to = (real *)epilogue->sums + 2 * unit * epilogue->channels + k;
    to[0] = vec_sum(sums->sum);
    to[epilogue->channels] = vec_sum(sums->squares);
}

/* Stores `count` outputs, at most LANES, of `channels` neighbouring channels with this bias, from rows [pixel][channel], `stride`
 * elements apart, in planes of channels. `residual` (or NULL) and `to` point at the first one. */
INLINE void epilogue_store_turned(const real *pixels, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t channels, vec bias,
                                  ptrdiff_t plane, const real *residual, real slope, real *to,
                                  struct channel_sums sums[LANES])
{
    _Alignas(64) real lines[LANES * LANES];
    vec square[LANES];
    for (int i = 0; i < LANES; i++) square[i] = i < count ? vec_load(pixels + i * stride) + bias : (vec){0};
    vec_transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) vec_store(lines + i * LANES, square[i]);
    for (ptrdiff_t c = 0; c < channels; c++)
        epilogue_store(lines + c * LANES, count, residual ? residual + c * plane : NULL, slope, to + c * plane,
                       &sums[c]);
}

/* Stores one pixel of `count` channels, at most LANES, bias included. */
INLINE void epilogue_store_pixel(vec v, ptrdiff_t count, const real *residual, real slope, real *to,
                                 struct channel_sums *sums)
{
    if (residual) v += vec_load_rest(residual, count);
    v = epilogue_activate(v, slope);
    sums->sum += v;
    sums->squares += v * v;
    vec_store_rest(to, v, count);
}

/* Writes the sums of `count` channels from k on of one unit, which are the lanes. */
INLINE void epilogue_store_channels(const struct conv_epilogue *epilogue, ptrdiff_t unit, ptrdiff_t k, ptrdiff_t count,
                                    const struct channel_sums *sums)
{
    real *to = (real *)epilogue->sums + 2 * unit * epilogue->channels + k;
    vec_store_rest(to, sums->sum, count);
    vec_store_rest(to + epilogue->channels, sums->squares, count);
}

#endif

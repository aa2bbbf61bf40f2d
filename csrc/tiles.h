/* Tiles of images: what the algorithms of convolution that transform tiles share. */
#ifndef FASTNN_TILES_H
#define FASTNN_TILES_H

#include "gemm_micro.h"
#include "vec.h"

enum { PLANE_PADDING = 64 / sizeof(real) };

/* Planes are a cache line further apart than they need to be, so that they do not share cache sets. */
INLINE ptrdiff_t plane_size(ptrdiff_t rows, ptrdiff_t row_length) { return rows * row_length + PLANE_PADDING; }

/* All ones from lane `first` on. */
INLINE ivec lanes_from(ptrdiff_t first)
{
    static const lane_int edge[2 * LANES] = {[LANES... 2 * LANES - 1] = -1};
    ivec mask;
    memcpy(&mask, edge + LANES - smaller(larger(first, 0), LANES), sizeof mask);
    return mask;
}

/* Lanes first <= i < end alone, at the edge of the memory; the others are zero. */
static vec load_lanes(const real *from, ptrdiff_t stride, ptrdiff_t first, ptrdiff_t end)
{
    real lanes[LANES] = {0};
    for (ptrdiff_t i = larger(first, 0); i < smaller(end, LANES); i++) lanes[i] = from[i * stride];
    return vec_load(lanes);
}

/* LANES elements, `stride` apart. */
INLINE vec load_strided(const real *from, const int stride)
{
    if (stride == 1) return vec_load(from);
    if (stride == 2) return VEC_EVEN(vec_load(from), vec_load(from + LANES));
    vec low = VEC_EVEN(vec_load(from), vec_load(from + LANES));
    vec high = VEC_EVEN(vec_load(from + 2 * LANES), vec_load(from + 3 * LANES));
    return VEC_EVEN(low, high);
}

#endif

/* Convolution by Winograd's F(4x4, 3x3): 36 products for 16 outputs, where the sum itself takes 144; and by F(4x4, 2x2),
 * 25 products, where it takes 64.
 * A larger filter is cut into blocks of at most 3x3: each sees the image moved by so much, and so its channels, block by
 * block, are the channels of a convolution by 3x3. With a stride, the taps of a block stand that far apart, and see every
 * so manieth pixel of the image: the channels of a convolution with stride 1. A block without its last row or column of
 * taps has no product at infinity there, so that 5 = 3 + 2 takes 6 + 5 points: 5x5 takes 121 products for 16 outputs (not
 * 400), 7x7 256 (784), 11x11 with stride 4 529 (1936). Blocks are of at most 2x2 where that takes fewer products (3x3 with
 * stride 2: 4 blocks, 81 products, not 144).
 *
 *   forward           out = A' [ sum over c of (G w G') . (B' in B) ] A  per 4x4 tile of the output and 6x6 patch of the input
 *   backward-data     the same, with the gradient as `in` and the weights transposed and turned by 180 degrees; with a
 *                     stride, each phase of the outputs sees the gradient through every so manieth tap: the phases are
 *                     output channels, with common patches (3x3 with stride 2: 81 products for 64 outputs, not 144)
 *   backward-weights  dw = A3' [ sum over tiles of (G4 dout G4') . (B' in B) ] A3, F(3x3, 4x4) on the same patches
 *                    (or A2 and F(2x2, 4x4))
 *
 * Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the interpolation points 0, +-a, +-b and
 * infinity, a = 1 / sqrt(2) and b = sqrt(2): the error is a quarter of that with 0, +-1, +-2. For 2x2 they are the same
 * without 0.
 *
 * N images, C input channels (times blocks), K output channels; a tile is 4x4 outputs, tiles are numbered along rows,
 * images last. P = 36 (or 25) positions in the transformed patch. Per position a matrix product, in one of two ways:
 *
 * Tiles in lanes (winograd.c): whatever rows and images neighbouring tiles belong to, so that narrow images and any number of
 * channels fill the vectors.
 *
 *   weights   U [chunk][P][K in chunk][C]     chunks of g->chunk_rows output channels, K times the phases
 *   patches   V [P][panel][C][tile in panel]  panels of COLUMN_TILE tiles, the last one narrower
 *   products  M [P][K in chunk][tile] = U V   one chunk at a time: it is turned into outputs while it is in the cache
 *
 * Channels in lanes (winograd_channels.h): what arrays with channels last are in already. A chunk of large weights is
 * transformed and multiplied part by part of C, so that it may have more K and the patches are read fewer times; this, and
 * that no vector of tiles is partly empty, pays for transposing few tiles of arrays with channels first too.
 *
 *   weights   U [chunk][part][P][panel][C in part][K in panel]
 *   patches   V [P][tile][C]
 *   products  M [P][tile][K in chunk] (+)= V U
 *
 * of at most 8 tiles a few C at a time, which do not leave the first-level cache.
 *
 * Backward-weights (winograd_weight.h) has channels in lanes, for some K, some C, and round after round of tiles:
 *
 *   gradients D [P][K][tile], or with channels last [P][group][tile][K in group]
 *   patches   V [P][group][tile][C in group]  groups of COLUMN_TILE channels, the last one narrower
 *   products  M [P][K][C] (+)= D V
 *
 * or, of at most a vector of tiles, whose products with LANES channels are turned into weights while in registers
 *
 *   patches   V [P][tile][C]
 *   products  M [K][P][C] = D V
 *
 * Planes of one position are a cache line further apart than they need to be, so that the positions do not share cache sets.
 */
#ifndef FASTNN_WINOGRAD_H
#define FASTNN_WINOGRAD_H

#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"
#include "tiles.h"

enum {
    PATCH_ROW = 4 * COLUMN_TILE + LANES, /* elements of a row of patches, four per tile, and room for a whole vector */
    MOST_POINTS = 6,                     /* per dimension: one less than the outputs and the taps of a block together */
    MOST_PHASES = 4,                     /* per dimension */
    MOST_TAPS = 144,                     /* of a filter: blocks of 3x3, WINOGRAD_BLOCKS in each dimension */
    DEPTH_BLOCK = 128,                   /* sums of 512 channels in one go err twice as much as in four parts */
    PRODUCT_BYTES = 1 << 20,             /* of products of one chunk that are computed together */
};

static const real A = (real)0.70710678118654752440, B = (real)1.41421356237309504880;

/* ---- The one-dimensional transforms. N(x) = (x^2 - a^2) (x^2 - b^2), times x for 6 points. A filter's value at a point p
 * is over N'(p), for 5 points with the factor 1 / p on the patch's side. The order is 0, a, -a, b, -b, infinity. ---- */

/* B' d: the coefficients of N(x) / (x - p) for each point, and of N(x) for infinity. */
INLINE void transform_patch_line(const int points, const vec *d, vec *v)
{
    if (points == 5) {
        vec even_a = d[2] - (real)2 * d[0], odd_a = d[3] - (real)2 * d[1];
        vec even_b = d[2] - (real)0.5 * d[0], odd_b = d[3] - (real)0.5 * d[1];
        v[0] = even_a + B * odd_a;
        v[1] = even_a - B * odd_a;
        v[2] = even_b + A * odd_b;
        v[3] = even_b - A * odd_b;
        v[4] = d[0] + d[4] - (real)2.5 * d[2];
        return;
    }
    vec even_a = d[4] - (real)2 * d[2], odd_a = d[3] - (real)2 * d[1];
    vec even_b = d[4] - (real)0.5 * d[2], odd_b = d[3] - (real)0.5 * d[1];
    v[0] = d[0] + d[4] - (real)2.5 * d[2];
    v[1] = even_a + A * odd_a;
    v[2] = even_a - A * odd_a;
    v[3] = even_b + B * odd_b;
    v[4] = even_b - B * odd_b;
    v[5] = d[1] + d[5] - (real)2.5 * d[3];
}

/* G g: the values of the polynomial with 2, 3 or 4 coefficients g at the points, over N'(0) = 1, N'(+-a) = -3/2,
 * N'(+-b) = 6; for 5 points over N'(+-a) / +-a = -3 and N'(+-b) / +-b = 3. */
INLINE void transform_filter_line(const int points, const int count, const vec *g, vec *u)
{
    vec even_a = g[0], odd_a = g[1], even_b = g[0], odd_b = g[1];
    if (count > 2) {
        even_a += (real)0.5 * g[2];
        even_b += (real)2 * g[2];
    }
    if (count > 3) {
        odd_a += (real)0.5 * g[3];
        odd_b += (real)2 * g[3];
    }
    const real over_a = (real)(points == 5 ? -1.0 / 3 : -2.0 / 3), over_b = (real)(points == 5 ? 1.0 / 3 : 1.0 / 6);
    even_a *= over_a, odd_a *= over_a * A;
    even_b *= over_b, odd_b *= over_b * B;
    if (points == 6) *u++ = g[0];
    u[0] = even_a + odd_a;
    u[1] = even_a - odd_a;
    u[2] = even_b + odd_b;
    u[3] = even_b - odd_b;
    u[4] = g[count - 1];
}

/* A' m: 4 outputs (or 3 or 2 weights), y[i] = sum over points p of p^i m[p]; infinity adds to the last. */
INLINE void transform_product_line(const int points, const int count, const vec *m, vec *y)
{
    const vec *p = m + (points == 6);
    vec even_a = p[0] + p[1], odd_a = p[0] - p[1], even_b = p[2] + p[3], odd_b = p[2] - p[3];
    y[0] = points == 6 ? m[0] + even_a + even_b : even_a + even_b;
    y[1] = A * odd_a + B * odd_b;
    if (count > 2) y[2] = (real)0.5 * even_a + (real)2 * even_b;
    if (count > 3) y[3] = (real)0.5 * A * odd_a + (real)2 * B * odd_b;
    y[count - 1] += p[4];
}

/* ---- Tiles and their patches ---- */

/* Neighbouring tiles of one row of tiles. */
struct run {
    ptrdiff_t start, count; /* among the tiles of the panel */
    ptrdiff_t image, y, x;  /* place in the grid of outputs of the first one's corner */
};

struct panel {
    ptrdiff_t width, runs; /* tiles rounded up to whole vectors */
    struct run run[COLUMN_TILE + 1];
};

/* The panel of tiles start .. start + count. Tiles that fill up the last vector stand below the image: all zeros. */
static void describe_panel(const struct winograd_geometry *g, ptrdiff_t start, ptrdiff_t count, struct panel *panel)
{
    ptrdiff_t across = (g->grid[1] + 3) / 4, down = (g->grid[0] + 3) / 4;
    panel->width = round_up(count, LANES);
    panel->runs = 0;
    for (ptrdiff_t done = 0; done < count;) {
        ptrdiff_t row = (start + done) / across, column = (start + done) % across;
        ptrdiff_t length = smaller(count - done, across - column);
        panel->run[panel->runs++] = (struct run){done, length, row / down, row % down * 4, column * 4};
        done += length;
    }
    if (count < panel->width)
        panel->run[panel->runs++] = (struct run){count, panel->width - count, 0, PTRDIFF_MAX / 8, 0};
}

/* Images [N][channels][height][width], or channels last. */
struct images {
    const real *data;
    ptrdiff_t count, channels, height, width;
};

INLINE ptrdiff_t image_channels(const struct winograd_geometry *g)
{ return g->channels / (g->blocks[0] * g->blocks[1]); }

INLINE struct images input_images(const struct winograd_geometry *g, const void *input)
{ return (struct images){input, g->images, image_channels(g), g->in_size[0], g->in_size[1]}; }

INLINE struct images output_images(const struct winograd_geometry *g, const void *output)
{ return (struct images){output, g->images, g->out_channels, g->out_size[0], g->out_size[1]}; }

/* How many steps reach over a distance; none over a negative one. */
INLINE ptrdiff_t steps_to(ptrdiff_t distance, const int stride)
{ return distance <= 0 ? 0 : (distance + stride - 1) / stride; }

/* left[row][4 * tile + j] = one channel of the images at (y + row, x + j) * stride + shift of each tile's corner (y, x), for
 * columns j = 0 to 3, and right[row][4 * tile + j] for columns 4 and 5; zeros outside the image. The latter are columns 0
 * and 1 of the next tile: both are stored from one vector, for the run and two columns behind it. Whole vectors are loaded
 * and masked, so that short rows cost no more than their vectors; what they store behind a run is overwritten by the next
 * one, and nothing is stored in front of it. The same place in the next channel is prefetched. */
INLINE void gather_patches(ptrdiff_t rows, const int stride, const struct images *images, ptrdiff_t channel,
                           const struct panel *panel, ptrdiff_t shift_y, ptrdiff_t shift_x, real *left, real *right)
{
    ptrdiff_t height = images->height, width = images->width, step = stride * width;
    ptrdiff_t size = images->count * images->channels * height * width;
    for (ptrdiff_t i = 0; i < panel->runs; i++) {
        const struct run *run = &panel->run[i];
        ptrdiff_t y = run->y * stride + shift_y, columns = 4 * run->count + (right ? 2 : 0);
        ptrdiff_t first_row = steps_to(-y, stride), end_row = smaller(rows, steps_to(height - y, stride));
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            ptrdiff_t x = (run->x + j) * stride + shift_x, at = 4 * run->start + j;
            ptrdiff_t first = steps_to(-x, stride), end = steps_to(width - x, stride);
            int outside = first >= LANES || end <= 0 || first_row >= end_row;
            ptrdiff_t row_offset = (run->image * images->channels + channel) * height;
            ptrdiff_t offset = outside ? 0 : (row_offset + y) * width + x; /* y may be far below the image */
            const real *from = images->data + offset;
            int whole = offset + first_row * step >= 0 && offset + (end_row - 1) * step + stride * LANES <= size;
            ivec mask = lanes_from(first) & ~lanes_from(end);
            for (ptrdiff_t row = 0; row < rows; row++) {
                vec v = {0};
                if (!outside && row >= first_row && row < end_row) {
                    v = whole ? (vec)((ivec)load_strided(from + row * step, stride) & mask)
                              : load_lanes(from + row * step, stride, first, end);
                    for (int line = 0; line < stride; line++)
                        __builtin_prefetch(from + row * step + height * width + line * LANES);
                }
                if (j < 4 * run->count) vec_store(left + row * PATCH_ROW + at, v);
                if (!right) continue;
                if (j < 4)
                    vec_store_from_lane_4(right + row * PATCH_ROW + at - 4, v);
                else
                    vec_store(right + row * PATCH_ROW + at - 4, v);
            }
        }
    }
}

/* Columns 0 to count - 1 (2 or 4) of LANES tiles from their gathered row. */
INLINE void split_columns(const int count, const real *row, vec *column)
{
    vec a = vec_load(row), b = vec_load(row + LANES), c = vec_load(row + 2 * LANES), d = vec_load(row + 3 * LANES);
    vec even[2] = {VEC_EVEN(a, b), VEC_EVEN(c, d)}, odd[2] = {VEC_ODD(a, b), VEC_ODD(c, d)};
    column[0] = VEC_EVEN(even[0], even[1]);
    column[1] = VEC_EVEN(odd[0], odd[1]);
    if (count == 4) {
        column[2] = VEC_ODD(even[0], even[1]);
        column[3] = VEC_ODD(odd[0], odd[1]);
    }
}

/* A channel of the convolution by 3x3 (or 2x2) is a channel of the image and a block of the filter: all of them with the
 * first block, then all with the second, and so on. */
struct block {
    ptrdiff_t channel, y, x; /* of the image; the block's first tap */
    ptrdiff_t rows, columns; /* of taps */
    ptrdiff_t same;          /* so many channels from this one on, at most LANES, have the same block */
};

INLINE struct block block_of(const struct winograd_geometry *g, ptrdiff_t channel)
{
    ptrdiff_t channels = image_channels(g), y = channel / channels / g->blocks[1],
              x = channel / channels % g->blocks[1];
    channel %= channels;
    return (struct block){channel,       g->block[0][y], g->block[1][x],
                          g->taps[0][y], g->taps[1][x],  smaller(LANES, channels - channel)};
}

INLINE ptrdiff_t positions_of(const struct winograd_geometry *g) { return g->points * g->points; }
INLINE ptrdiff_t phases_of(const struct winograd_geometry *g) { return g->phases * g->phases; }

/* Of a patch whose first row and column the block's first tap sees: columns 0 to 3 of each tile, and from 4 on. */
static void gather_both(const struct winograd_geometry *g, const struct images *images, struct block block,
                        const struct panel *panel, real *left, real *right)
{
    ptrdiff_t y = block.y - g->padding[0], x = block.x - g->padding[1];
    switch (g->stride) {
    case 1: gather_patches(g->points, 1, images, block.channel, panel, y, x, left, right); break;
    case 2: gather_patches(g->points, 2, images, block.channel, panel, y, x, left, right); break;
    default: gather_patches(g->points, 4, images, block.channel, panel, y, x, left, right);
    }
}

/* B' patch B, whose rows are transformed already, stored plane_stride elements apart. */
INLINE void transform_patch_lines(const int points, vec lines[][MOST_POINTS], real *to, ptrdiff_t plane_stride)
{
#pragma GCC unroll 6
    for (int column = 0; column < points; column++) {
        vec line[MOST_POINTS], v[MOST_POINTS];
        for (int row = 0; row < points; row++) line[row] = lines[row][column];
        transform_patch_line(points, line, v);
        for (int row = 0; row < points; row++) vec_store(to + (row * points + column) * plane_stride, v[row]);
    }
}

/* to[position][tile] = B' patch B of LANES tiles, whose gathered columns 0 to 3 and 4 to 7 are in `left` and `right`. */
INLINE void transform_columns(const int points, const real *left, const real *right, ptrdiff_t row_stride, real *to,
                              ptrdiff_t plane_stride)
{
    vec lines[MOST_POINTS][MOST_POINTS];
#pragma GCC unroll 6
    for (int row = 0; row < points; row++) {
        vec line[MOST_POINTS];
        split_columns(4, left + row * row_stride, line);
        split_columns(2, right + row * row_stride, line + 4);
        transform_patch_line(points, line, lines[row]);
    }
    transform_patch_lines(points, lines, to, plane_stride);
}

/* The same for one channel of a panel; positions stand plane_stride elements apart. */
static void transform_patches(const struct winograd_geometry *g, const struct images *images, ptrdiff_t channel,
                              const struct panel *panel, real *to, ptrdiff_t plane_stride)
{
    real left[MOST_POINTS * PATCH_ROW], right[MOST_POINTS * PATCH_ROW];
    gather_both(g, images, block_of(g, channel), panel, left, right);
    for (ptrdiff_t tile = 0; tile < panel->width; tile += LANES)
        if (g->points == 5)
            transform_columns(5, left + 4 * tile, right + 4 * tile, PATCH_ROW, to + tile, plane_stride);
        else
            transform_columns(6, left + 4 * tile, right + 4 * tile, PATCH_ROW, to + tile, plane_stride);
}

/* G (or G4) f G' of a square of 2x2, 3x3 or 4x4 vectors, stored plane_stride elements apart: the first `lanes` of each. */
INLINE void transform_square(const int points, const int count, vec filter[][4], ptrdiff_t lanes, real *to,
                             ptrdiff_t plane_stride)
{
    vec lines[4][MOST_POINTS];
#pragma GCC unroll 4
    for (int row = 0; row < count; row++) transform_filter_line(points, count, filter[row], lines[row]);
#pragma GCC unroll 6
    for (int column = 0; column < points; column++) {
        vec line[4], u[MOST_POINTS];
        for (int row = 0; row < count; row++) line[row] = lines[row][column];
        transform_filter_line(points, count, line, u);
        for (int row = 0; row < points; row++)
            vec_store_rest(to + (row * points + column) * plane_stride, u[row], lanes);
    }
}

/* A' m A: 4x4 outputs, or 3x3 or 2x2 weights, from the products of all positions, plane_stride elements apart. */
INLINE void transform_products(const int points, const int count, const real *from, ptrdiff_t plane_stride,
                               vec result[][4])
{
    vec lines[4][MOST_POINTS];
#pragma GCC unroll 6
    for (int column = 0; column < points; column++) {
        vec line[MOST_POINTS], y[4];
        for (int row = 0; row < points; row++) line[row] = vec_load(from + (row * points + column) * plane_stride);
        transform_product_line(points, count, line, y);
        for (int row = 0; row < count; row++) lines[row][column] = y[row];
    }
#pragma GCC unroll 4
    for (int row = 0; row < count; row++) transform_product_line(points, count, lines[row], result[row]);
}

/* ---- The product of one position: C[rows][width] (+)= A B, with A as it stands and B in panels ---- */

/* All rows of A against one panel of B, [depth][vectors * LANES], as many at a time as each other: a single last row would
 * take as long as four. */
INLINE void multiply_vectors(const int vectors, ptrdiff_t rows, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                             ptrdiff_t a_depth, const real *b, real *c, ptrdiff_t c_stride, int accumulate)
{
    ptrdiff_t groups = larger(1, (rows + ROW_TILE - 1) / ROW_TILE), together = (rows + groups - 1) / groups;
    for (; rows > 0; rows -= together, a += together * a_row, c += together * c_stride)
        multiply_some_rows(smaller(together, rows), vectors, depth, a, a_row, a_depth, b, vectors * LANES, c, c_stride,
                           accumulate);
}

/* How many blocks, down or across, have products at this point: those that lack their last taps have none at infinity. */
INLINE ptrdiff_t blocks_at(const struct winograd_geometry *g, int dimension, ptrdiff_t point)
{ return point == g->points - 1 ? g->whole[dimension] : g->blocks[dimension]; }

/* The channels of blocks that have products at a position, in `lines` of `length`, `step` apart. */
struct depth {
    ptrdiff_t lines, length, step;
};

INLINE struct depth depth_of(const struct winograd_geometry *g, ptrdiff_t position)
{
    ptrdiff_t lines = blocks_at(g, 0, position / g->points), across = blocks_at(g, 1, position % g->points);
    ptrdiff_t channels = image_channels(g), step = g->blocks[1] * channels;
    if (across == g->blocks[1]) return (struct depth){1, lines * step, 0};
    return (struct depth){lines, across * channels, step};
}

/* For a_depth = 1 GCC would make another copy, 16 KB that are no faster. */
static __attribute__((noclone)) void multiply_panel(ptrdiff_t width, ptrdiff_t rows, ptrdiff_t depth_total,
                                                    const real *a, ptrdiff_t a_row, ptrdiff_t a_depth, const real *b,
                                                    real *c, ptrdiff_t c_stride, int accumulate)
{
    for (ptrdiff_t start = 0; start < depth_total; start += DEPTH_BLOCK, accumulate = 1) {
        ptrdiff_t depth = smaller(DEPTH_BLOCK, depth_total - start);
        switch (width / LANES) {
        case 1: multiply_vectors(1, rows, depth, a, a_row, a_depth, b, c, c_stride, accumulate); break;
        case 2: multiply_vectors(2, rows, depth, a, a_row, a_depth, b, c, c_stride, accumulate); break;
        default: multiply_vectors(COLUMN_VECTORS, rows, depth, a, a_row, a_depth, b, c, c_stride, accumulate);
        }
        a += DEPTH_BLOCK * a_depth, b += DEPTH_BLOCK * width;
    }
}

/* Elements of the transformed patches of so many tiles in one position. */
INLINE ptrdiff_t patch_plane(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return plane_size(g->channels, round_up(tiles, LANES)); }

/* ---- Weights ---- */

/* tap[t]: which weight of a filter stands at place t of its block of size x size taps, from the other end if it is turned;
 * -1 where the block, or the phase of a turned filter, has none. */
INLINE void find_taps(const int size, const struct winograd_geometry *g, ptrdiff_t turned, ptrdiff_t phase,
                      struct block block, ptrdiff_t tap[9])
{
    ptrdiff_t bottom = g->filter[0] - g->phases + phase / g->phases,
              right = g->filter[1] - g->phases + phase % g->phases;
#pragma GCC unroll 9
    for (int t = 0; t < size * size; t++) {
        ptrdiff_t y = block.y + t / size * g->stride, x = block.x + t % size * g->stride;
        if (turned) y = bottom - g->phases * y, x = right - g->phases * x;
        int none = t / size >= block.rows || t % size >= block.columns || y < 0 || x < 0;
        tap[t] = none ? -1 : y * g->filter[1] + x;
    }
}

/* to[t][i] = tap t of filter i, for `count` filters of `taps` taps, `stride` apart: squares transposed in registers, and
 * taps that do not fill half a square one by one. `to` has room for whole squares. */
INLINE void transpose_taps(const real *from, ptrdiff_t stride, ptrdiff_t count, ptrdiff_t taps, real to[][LANES])
{
    for (ptrdiff_t first = 0; first < taps; first += LANES) {
        ptrdiff_t some = smaller(LANES, taps - first);
        if (2 * some < LANES) {
            for (ptrdiff_t i = 0; i < count; i++)
                for (ptrdiff_t t = first; t < taps; t++) to[t][i] = from[i * stride + t];
            continue;
        }
        vec square[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) /* behind the last filter, that one again */
            square[i] = vec_load_tail(from + smaller(i, count - 1) * stride + first, some);
        vec_transpose(square);
#pragma GCC unroll 16
        for (int t = 0; t < LANES; t++) vec_store(to[first + t], square[t]);
    }
}

/* One block and phase of the filters of `count` neighbouring channels, at most LANES, from their transposed taps. */
INLINE void transform_block(const int size, const ptrdiff_t tap[9], real taps[][LANES], ptrdiff_t count, real *to,
                            ptrdiff_t plane_stride)
{
    vec filter[3][4];
#pragma GCC unroll 9
    for (int t = 0; t < size * size; t++) filter[t / size][t % size] = tap[t] < 0 ? (vec){0} : vec_load(taps[tap[t]]);
    if (count == LANES)
        transform_square(size + 3, size, filter, LANES, to, plane_stride);
    else
        transform_square(size + 3, size, filter, count, to, plane_stride);
}

/* ---- Outputs ---- */

INLINE void transform_outputs(const struct winograd_geometry *g, const real *from, ptrdiff_t plane_stride,
                              vec output[4][4])
{
    if (g->points == 5)
        transform_products(5, 4, from, plane_stride, output);
    else
        transform_products(6, 4, from, plane_stride, output);
}

INLINE void copy_row(const real *from, ptrdiff_t count, real *to)
{
    ptrdiff_t j = 0;
    for (; j + LANES <= count; j += LANES) vec_store(to + j, vec_load(from + j));
    for (; j + 4 <= count; j += 4) memcpy(to + j, from + j, 4 * sizeof(real));
    for (; j < count; j++) to[j] = from[j];
}

/* Puts a row of outputs where it goes: elements from x on, of which those left and right of the output are left out. */
INLINE void put_row(const struct winograd_geometry *g, const real *from, ptrdiff_t x, ptrdiff_t count, ptrdiff_t row_at,
                    const struct conv_epilogue *epilogue, struct channel_sums *sums, real *output)
{
    if (x < 0) from -= x, count += x, x = 0;
    count = smaller(count, g->out_size[1] - x);
    ptrdiff_t at = row_at + x;
    if (epilogue->residual || epilogue->sums)
        epilogue_store(from, count, epilogue->residual ? (const real *)epilogue->residual + at : NULL,
                       (real)epilogue->slope, output + at, epilogue->sums ? sums : NULL);
    else
        copy_row(from, count, output + at);
}

#endif

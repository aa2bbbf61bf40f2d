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
 * images last. P = 36 (or 25) positions in the transformed patch. The lanes of a vector are neighbouring tiles, whatever
 * rows and images they belong to, so that narrow images and any number of channels fill the vectors. Per position a matrix
 * product:
 *
 *   weights   U [chunk][P][K in chunk][C]     chunks of g->chunk_rows output channels, K times the phases
 *   patches   V [P][panel][C][tile in panel]  panels of COLUMN_TILE tiles, the last one narrower
 *   products  M [P][K in chunk][tile] = U V   one chunk at a time: it is turned into outputs while it is in the cache
 *
 * or, of tiles that would leave most of a vector empty ("few"), with lanes along C:
 *
 *   patches   V [P][tile][C]
 *   products  M [P][K in chunk][tile] = dot(U, V)
 *
 * and in backward-weights, for some K, some C, and round after round of tiles
 *
 *   gradients D [P][K][tile]
 *   patches   V [P][group][tile][C in group]  groups of COLUMN_TILE channels, the last one narrower
 *   products  M [P][K][C] (+)= D V
 *
 * Planes of one position are a cache line further apart than they need to be, so that the positions do not share cache sets.
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"
#include "tiles.h"

enum {
    PATCH_ROW = 4 * COLUMN_TILE + LANES, /* elements of a row of patches, four per tile, and room for a whole vector */
    MOST_POINTS = 6,                     /* per dimension: one less than the outputs and the taps of a block together */
    MOST_PHASES = 4,                     /* per dimension */
    MOST_TAPS = 144,                     /* of a filter: blocks of 3x3, WINOGRAD_BLOCKS in each dimension */
    PRODUCT_BYTES = 1 << 20,             /* of products of one chunk that are computed together */
    DEPTH_BLOCK = 128,                   /* sums of 512 channels in one go err twice as much as in four parts */
};

static const real A = (real)0.70710678118654752440, B = (real)1.41421356237309504880;

/* ---- The one-dimensional transforms. N(x) = (x^2 - a^2) (x^2 - b^2), times x for 6 points. A filter's value at a point p
 * is over N'(p), for 5 points with the factor p or 1 / p on the patch's side. The order is 0, a, -a, b, -b, infinity. ---- */

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

/* The other way round: rows of 4 * LANES outputs of `phases` phases from their 4 columns of LANES tiles, one row whose
 * neighbours are of different phases. */
INLINE void join_columns(const int phases, const vec column[][4], real *to)
{
    vec row[4 * MOST_PHASES]; /* of a phase, then of two, then of four */
    for (int phase = 0; phase < phases; phase++) {
        const vec *of = column[phase];
        vec even[2] = {VEC_ZIP_LOW(of[0], of[2]), VEC_ZIP_HIGH(of[0], of[2])};
        vec odd[2] = {VEC_ZIP_LOW(of[1], of[3]), VEC_ZIP_HIGH(of[1], of[3])};
        for (int i = 0; i < 2; i++) {
            row[4 * phase + 2 * i] = VEC_ZIP_LOW(even[i], odd[i]);
            row[4 * phase + 2 * i + 1] = VEC_ZIP_HIGH(even[i], odd[i]);
        }
    }
    for (int joined = 1; joined < phases; joined *= 2) { /* rows of phases f and f + phases / 2 become one */
        vec half[4 * MOST_PHASES];
        memcpy(half, row, sizeof half);
        for (int i = 0; i < 2 * phases; i++) {
            row[2 * i] = VEC_ZIP_LOW(half[i], half[i + 2 * phases]);
            row[2 * i + 1] = VEC_ZIP_HIGH(half[i], half[i + 2 * phases]);
        }
    }
    for (int i = 0; i < 4 * phases; i++) vec_store(to + i * LANES, row[i]);
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
#pragma GCC unroll 6
    for (int column = 0; column < points; column++) {
        vec line[MOST_POINTS], v[MOST_POINTS];
        for (int row = 0; row < points; row++) line[row] = lines[row][column];
        transform_patch_line(points, line, v);
        for (int row = 0; row < points; row++) vec_store(to + (row * points + column) * plane_stride, v[row]);
    }
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

INLINE void transform_outputs(const struct winograd_geometry *g, const real *from, ptrdiff_t plane_stride,
                              vec output[4][4])
{
    if (g->points == 5)
        transform_products(5, 4, from, plane_stride, output);
    else
        transform_products(6, 4, from, plane_stride, output);
}

INLINE void transform_gradient_square(const struct winograd_geometry *g, vec gradient[4][4], real *to,
                                      ptrdiff_t plane_stride)
{
    if (g->points == 5)
        transform_square(5, 4, gradient, LANES, to, plane_stride);
    else
        transform_square(6, 4, gradient, LANES, to, plane_stride);
}

/* ---- The product of one position: C[rows][width] (+)= A B, with A as it stands and B in panels ---- */

/* All rows of A against one panel of B, [depth][vectors * LANES]. */
INLINE void multiply_vectors(const int vectors, ptrdiff_t rows, ptrdiff_t depth, const real *a, ptrdiff_t a_stride,
                             const real *b, real *c, ptrdiff_t c_stride, int accumulate)
{
    for (; rows > 0; rows -= ROW_TILE, a += ROW_TILE * a_stride, c += ROW_TILE * c_stride)
        multiply_some_rows(smaller(ROW_TILE, rows), vectors, depth, a, a_stride, 1, b, vectors * LANES, c, c_stride,
                           accumulate);
}

/* A block whose last row of taps is missing has no products at infinity there, nor one without its last column: the
 * channels of blocks that have products at this position, in `lines` of `length`, `step` apart. */
struct depth {
    ptrdiff_t lines, length, step;
};

INLINE ptrdiff_t blocks_at(const struct winograd_geometry *g, int dimension, ptrdiff_t point)
{ return point == g->points - 1 ? g->whole[dimension] : g->blocks[dimension]; }

INLINE struct depth depth_of(const struct winograd_geometry *g, ptrdiff_t position)
{
    ptrdiff_t lines = blocks_at(g, 0, position / g->points), across = blocks_at(g, 1, position % g->points);
    ptrdiff_t channels = image_channels(g), step = g->blocks[1] * channels;
    if (across == g->blocks[1]) return (struct depth){1, lines * step, 0};
    return (struct depth){lines, across * channels, step};
}

static void multiply_panel(ptrdiff_t width, ptrdiff_t rows, ptrdiff_t depth_total, const real *a, ptrdiff_t a_stride,
                           const real *b, real *c, ptrdiff_t c_stride, int accumulate)
{
    for (ptrdiff_t start = 0; start < depth_total; start += DEPTH_BLOCK, a += DEPTH_BLOCK, b += DEPTH_BLOCK * width) {
        ptrdiff_t depth = smaller(DEPTH_BLOCK, depth_total - start);
        switch (width / LANES) {
        case 1: multiply_vectors(1, rows, depth, a, a_stride, b, c, c_stride, accumulate || start); break;
        case 2: multiply_vectors(2, rows, depth, a, a_stride, b, c, c_stride, accumulate || start); break;
        default: multiply_vectors(COLUMN_VECTORS, rows, depth, a, a_stride, b, c, c_stride, accumulate || start);
        }
    }
}

/* ---- Channels last: LANES channels of LANES tiles at a time, transposed in registers ---- */

/* Gathered patches of one channel: columns 0 to 3 of LANES tiles in rows, and 4 to 7, with room in front for 0 to 3. */
enum { LAST_ROW = 4 * LANES };
struct last_patches {
    real left[MOST_POINTS * LAST_ROW], before_right[4], right[MOST_POINTS * LAST_ROW];
};

/* At most LANES pixels of a row of the image, `count` from x on, `stride` apart: LANES of the `rest` channels from `line` on;
 * zeros outside. The next channels of these pixels are prefetched. */
INLINE void load_pixels(const real *line, const struct images *images, ptrdiff_t x, ptrdiff_t stride, ptrdiff_t count,
                        int outside_rows, ptrdiff_t rest, vec square[LANES])
{
    ptrdiff_t step = stride * images->channels;
    const real *from = line + x * images->channels;
    if (!outside_rows && x >= 0 && count >= LANES && x + (LANES - 1) * stride < images->width && rest >= LANES) {
#pragma GCC unroll 16
        for (int k = 0; k < LANES; k++) {
            square[k] = vec_load(from + k * step);
            __builtin_prefetch(from + k * step + LANES);
        }
        return;
    }
#pragma GCC unroll 16
    for (int k = 0; k < LANES; k++, x += stride) {
        square[k] = (vec){0};
        if (outside_rows || k >= count || x < 0 || x >= images->width) continue;
        square[k] = vec_load_rest(from + k * step, rest);
        __builtin_prefetch(from + k * step + LANES);
    }
}

/* What gather_patches() has for one channel, for LANES channels from `channel` on (those behind the last are zeros); the
 * panel has LANES tiles. Columns 4 to 7 of a tile are columns 0 to 3 of the next one in its run: both are stored from one
 * transposed square. The runs go backwards, as what a run stores in front of its columns 4 to 7 is not its own. */
INLINE void gather_channels(ptrdiff_t rows, const int with_right, ptrdiff_t stride, const struct images *images,
                            ptrdiff_t channel, const struct panel *panel, ptrdiff_t shift_y, ptrdiff_t shift_x,
                            struct last_patches to[LANES])
{
    ptrdiff_t rest = images->channels - channel;
    for (ptrdiff_t row = rows - 1; row >= 0; row--)
        for (ptrdiff_t i = panel->runs - 1; i >= 0; i--) {
            const struct run *run = &panel->run[i];
            ptrdiff_t y = (run->y + row) * stride + shift_y, count = 4 * run->count;
            ptrdiff_t at = row * LAST_ROW + 4 * run->start;
            int outside_rows = y >= images->height || y < 0;
            const real *line = images->data;
            if (!outside_rows) line += (run->image * images->height + y) * images->width * images->channels + channel;
            ptrdiff_t columns = with_right ? count + 2 : count;
            for (ptrdiff_t j = 0; j < columns; j += LANES) {
                vec square[LANES];
                load_pixels(line, images, (run->x + j) * stride + shift_x, stride, columns - j, outside_rows, rest,
                            square);
                vec_transpose(square);
                for (ptrdiff_t c = 0; c < LANES; c++) {
                    if (j < count) vec_store_rest(to[c].left + at + j, square[c], count - j);
                    if (with_right) vec_store_rest(to[c].right + at + j - 4, square[c], count - j + 4);
                }
            }
        }
}

/* Transforms channels channel_start .. + channels of `count` tiles (at most a panel) from tile `start` on; those of the
 * first channel go to to[position][tile], of the others channel_stride further each. */
static void transform_last_patches(const struct winograd_geometry *g, const struct images *images, ptrdiff_t start,
                                   ptrdiff_t count, ptrdiff_t channel_start, ptrdiff_t channels, real *to,
                                   ptrdiff_t channel_stride, ptrdiff_t plane_stride)
{
    struct last_patches gathered[LANES];
    for (ptrdiff_t tile = 0; tile < count; tile += LANES) {
        struct panel panel;
        describe_panel(g, start + tile, smaller(LANES, count - tile), &panel);
        for (ptrdiff_t c = 0, some; c < channels; c += some) {
            struct block block = block_of(g, channel_start + c);
            some = smaller(block.same, channels - c);
            gather_channels(g->points, 1, g->stride, images, block.channel, &panel, block.y - g->padding[0],
                            block.x - g->padding[1], gathered);
            real *first = to + c * channel_stride + tile;
            for (ptrdiff_t i = 0; i < some; i++)
                if (g->points == 5)
                    transform_columns(5, gathered[i].left, gathered[i].right, LAST_ROW, first + i * channel_stride,
                                      plane_stride);
                else
                    transform_columns(6, gathered[i].left, gathered[i].right, LAST_ROW, first + i * channel_stride,
                                      plane_stride);
        }
    }
}

/* ---- Few tiles ---- */

/* Products that are summed up together: their vectors of sums are one vector of each. */
enum { FEW_ROWS = LANES < 4 ? LANES : 4, FEW_TILES = LANES / FEW_ROWS };

INLINE void add_few(const int whole, ptrdiff_t rest, ptrdiff_t c, const real *const *row, const real *patch,
                    ptrdiff_t patch_stride, vec sum[LANES])
{
    vec weight[FEW_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < FEW_ROWS; r++) weight[r] = whole ? vec_load(row[r] + c) : vec_load_tail(row[r] + c, rest);
#pragma GCC unroll 4
    for (int t = 0; t < FEW_TILES; t++) {
        const real *from = patch + t * patch_stride + c;
        vec value = whole ? vec_load(from) : vec_load_tail(from, rest);
#pragma GCC unroll 4
        for (int r = 0; r < FEW_ROWS; r++) sum[r * FEW_TILES + t] += weight[r] * value;
    }
}

/* products[row][tile] of one position, for at most FEW_ROWS rows of weights and FEW_TILES tiles, dot products of `depth`. */
INLINE void multiply_few(ptrdiff_t rows, ptrdiff_t depth, const real *weight, ptrdiff_t weight_stride,
                         const real *patch, ptrdiff_t patch_stride, real *products, ptrdiff_t width)
{
    vec sum[LANES];
    const real *row[FEW_ROWS]; /* the last one again where there are no more */
#pragma GCC unroll 4
    for (int r = 0; r < FEW_ROWS; r++) row[r] = weight + smaller(r, rows - 1) * weight_stride;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) sum[i] = (vec){0};
    ptrdiff_t c = 0;
    for (; c + LANES <= depth; c += LANES) add_few(1, LANES, c, row, patch, patch_stride, sum);
    if (c < depth) add_few(0, depth - c, c, row, patch, patch_stride, sum);
    vec sums = vec_sums(sum);
    for (ptrdiff_t r = 0; r < smaller(FEW_ROWS, rows); r++)
        memcpy(products + r * width, (const real *)&sums + r * FEW_TILES, FEW_TILES * sizeof(real));
}

/* to[position][tile][channel] of channels channel_start .. + channels of a block of few tiles, from squares of LANES
 * channels by LANES tiles. */
static void transform_few_tiles(const struct winograd_geometry *g, const struct images *images,
                                const struct winograd_block *block, ptrdiff_t channel_start, ptrdiff_t channels,
                                real *to, ptrdiff_t plane_stride)
{
    enum { SQUARE = LANES * LANES + PLANE_PADDING };
    real squares[MOST_POINTS * MOST_POINTS * SQUARE];
    ptrdiff_t row_length = round_up(g->channels, LANES);
    struct panel panel;
    describe_panel(g, block->start, block->tiles, &panel);
    for (ptrdiff_t c = channel_start; c < channel_start + channels; c += LANES) {
        ptrdiff_t some = smaller(LANES, channel_start + channels - c);
        if (g->channels_last)
            transform_last_patches(g, images, block->start, block->tiles, c, some, squares, LANES, SQUARE);
        else
            for (ptrdiff_t i = 0; i < some; i++)
                transform_patches(g, images, c + i, &panel, squares + i * LANES, SQUARE);
        for (ptrdiff_t position = 0; position < positions_of(g); position++) {
            vec square[LANES];
            for (int i = 0; i < LANES; i++)
                square[i] = i < some ? vec_load(squares + position * SQUARE + i * LANES) : (vec){0};
            vec_transpose(square);
            real *line = to + position * plane_stride + c;
            for (ptrdiff_t tile = 0; tile < round_up(block->tiles, FEW_TILES); tile++)
                vec_store_rest(line + tile * row_length, square[tile], some);
        }
    }
}

/* ---- Forward and backward-data ---- */

/* Elements of the transformed weights of one chunk, [phase][K in chunk][C] in one position, and in all. */
INLINE ptrdiff_t weight_plane(const struct winograd_geometry *g)
{ return plane_size(phases_of(g) * g->chunk_rows, round_up(g->channels, LANES)); }

INLINE ptrdiff_t chunk_size(const struct winograd_geometry *g) { return positions_of(g) * weight_plane(g); }

/* Elements of the products of one position and chunk with so many tiles. */
INLINE ptrdiff_t product_plane(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return plane_size(phases_of(g) * g->chunk_rows, round_up(tiles, LANES)); }

static ptrdiff_t weight_size(const struct winograd_geometry *g)
{
    ptrdiff_t chunks = (g->out_channels + g->chunk_rows - 1) / g->chunk_rows;
    return chunks * chunk_size(g) * (ptrdiff_t)sizeof(real);
}

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

/* Transforms the weights of one output channel: the neighbouring taps of its filter per input channel. `to` is that
 * output channel's row in its chunk of `rows` output channels. */
static void transform_row(const struct winograd_geometry *g, const struct winograd_weight *weight, ptrdiff_t k,
                          ptrdiff_t rows, real *to)
{
    ptrdiff_t row_length = round_up(g->channels, LANES), plane_stride = weight_plane(g), tap[9];
    ptrdiff_t channels = image_channels(g), filter = g->filter[0] * g->filter[1], count;
    const real *from = (const real *)weight->data + k * weight->row_stride;
    real taps[MOST_TAPS + LANES][LANES];
    for (ptrdiff_t c = 0; c < channels; c += count) {
        count = smaller(LANES, channels - c);
        transpose_taps(from + c * weight->channel_stride, weight->channel_stride, count, filter, taps);
        for (ptrdiff_t at = c; at < g->channels; at += channels)
            for (ptrdiff_t phase = 0; phase < phases_of(g); phase++) {
                real *row = to + phase * rows * row_length + at;
                if (g->points == 5) {
                    find_taps(2, g, weight->turned, phase, block_of(g, at), tap);
                    transform_block(2, tap, taps, count, row, plane_stride);
                } else {
                    find_taps(3, g, weight->turned, phase, block_of(g, at), tap);
                    transform_block(3, tap, taps, count, row, plane_stride);
                }
            }
    }
}

static void transform_weight(const struct winograd_geometry *g, const struct winograd_weight *weight, ptrdiff_t k,
                             void *transformed)
{
    real *chunk = (real *)transformed + k / g->chunk_rows * chunk_size(g);
    ptrdiff_t row = k % g->chunk_rows, rows = smaller(g->chunk_rows, g->out_channels - (k - row));
    transform_row(g, weight, k, rows, chunk + row * round_up(g->channels, LANES));
}

/* Elements of the transformed patches of a block of tiles in one position, and bytes in all. */
INLINE ptrdiff_t patch_plane(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return plane_size(g->few ? round_up(g->channels, LANES) : g->channels, round_up(tiles, LANES)); }

static ptrdiff_t patches_size(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return positions_of(g) * patch_plane(g, tiles) * (ptrdiff_t)sizeof(real); }

/* So many tiles' products of a chunk are computed, and turned into outputs, together: what stays in the cache. */
static ptrdiff_t product_tiles(const struct winograd_geometry *g, ptrdiff_t tiles)
{
    ptrdiff_t panel_bytes = positions_of(g) * product_plane(g, COLUMN_TILE) * (ptrdiff_t)sizeof(real);
    ptrdiff_t panels = PRODUCT_BYTES / panel_bytes;
    return smaller(tiles, (panels > 1 ? panels : 1) * COLUMN_TILE);
}

/* Bytes for multiply_tiles(): products, and one chunk of weights where they are not transformed beforehand. */
static ptrdiff_t scratch_size(const struct winograd_geometry *g, ptrdiff_t tiles, int transformed)
{
    ptrdiff_t products = positions_of(g) * product_plane(g, product_tiles(g, tiles));
    return round_up((products + (transformed ? 0 : chunk_size(g))) * (ptrdiff_t)sizeof(real), 64);
}

/* Transforms the patches of channels channel_start .. + channels, of tiles tile_start .. + tiles of a block. */
static void transform_tiles(const struct winograd_geometry *g, const void *input, const struct winograd_block *block,
                            ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                            void *patches)
{
    struct images images = input_images(g, input);
    ptrdiff_t plane = patch_plane(g, block->tiles);
    if (g->few) {
        transform_few_tiles(g, &images, block, channel_start, channels, patches, plane);
        return;
    }
    for (ptrdiff_t start = tile_start; start < tile_start + tiles; start += COLUMN_TILE) {
        struct panel panel;
        describe_panel(g, block->start + start, smaller(COLUMN_TILE, tile_start + tiles - start), &panel);
        real *to = (real *)patches + start * g->channels;
        if (g->channels_last)
            transform_last_patches(g, &images, block->start + start, smaller(COLUMN_TILE, tile_start + tiles - start),
                                   channel_start, channels, to + channel_start * panel.width, panel.width, plane);
        else
            for (ptrdiff_t c = channel_start; c < channel_start + channels; c++)
                transform_patches(g, &images, c, &panel, to + c * panel.width, plane);
    }
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

/* The outputs of one output channel k and one panel, from products[position][tile] of each phase, phase_stride elements
 * apart; the unit of the sums is the panel. */
INLINE void store_phases(const int phases, const struct winograd_geometry *g, const struct panel *panel, ptrdiff_t k,
                         const real *products, ptrdiff_t phase_stride, ptrdiff_t plane_stride,
                         const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output)
{
    const real bias = epilogue->bias ? ((const real *)epilogue->bias)[k] : 0;
    const int late = epilogue->residual || epilogue->sums; /* not before the ragged edge is cut off */
    const real slope = late ? 1 : (real)epilogue->slope;
    real rows[4][MOST_PHASES * 4 * COLUMN_TILE];
    struct channel_sums sums = {0};
    for (ptrdiff_t down = 0; down < phases; down++, products += phases * phase_stride) {
        for (ptrdiff_t tile = 0; tile < panel->width; tile += LANES) {
            vec y[4][MOST_PHASES][4];
            for (int phase = 0; phase < phases; phase++) {
                vec square[4][4];
                transform_outputs(g, products + phase * phase_stride + tile, plane_stride, square);
                for (int row = 0; row < 4; row++)
                    for (int column = 0; column < 4; column++)
                        y[row][phase][column] = epilogue_activate(square[row][column] + vec_set(bias), slope);
            }
            for (int row = 0; row < 4; row++) join_columns(phases, y[row], rows[row] + 4 * phases * tile);
        }
        for (ptrdiff_t i = 0; i < panel->runs; i++) {
            const struct run *run = &panel->run[i];
            if (run->y >= g->grid[0]) continue;
            ptrdiff_t plane = (run->image * g->out_channels + k) * g->out_size[0];
            for (ptrdiff_t row = 0; row < 4; row++) {
                ptrdiff_t y = phases * (run->y + row) - g->lead[0] + down;
                if (y < 0 || y >= g->out_size[0]) continue;
                put_row(g, rows[row] + 4 * phases * run->start, phases * run->x - g->lead[1], 4 * phases * run->count,
                        (plane + y) * g->out_size[1], epilogue, &sums, output);
            }
        }
    }
    if (epilogue->sums) epilogue_store_sums(epilogue, unit, k, &sums);
}

static void store_outputs(const struct winograd_geometry *g, const struct panel *panel, ptrdiff_t k,
                          const real *products, ptrdiff_t phase_stride, ptrdiff_t plane_stride,
                          const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output)
{
    switch (g->phases) {
    case 1: store_phases(1, g, panel, k, products, phase_stride, plane_stride, epilogue, unit, output); break;
    case 2: store_phases(2, g, panel, k, products, phase_stride, plane_stride, epilogue, unit, output); break;
    default: store_phases(4, g, panel, k, products, phase_stride, plane_stride, epilogue, unit, output);
    }
}

/* The same of one phase for `rows` output channels from k on, at most LANES, channels last; products[position][row][tile]. */
static void store_last_outputs(const struct winograd_geometry *g, ptrdiff_t start, ptrdiff_t tiles, ptrdiff_t phase,
                               ptrdiff_t k, ptrdiff_t rows, const real *products, ptrdiff_t row_stride,
                               ptrdiff_t plane_stride, const struct conv_epilogue *epilogue, struct channel_sums *total,
                               real *output)
{
    const real *bias = epilogue->bias, *residual = epilogue->residual, slope = (real)epilogue->slope;
    ptrdiff_t height = g->out_size[0], width = g->out_size[1], channels = g->out_channels, phases = g->phases;
    real gathered[LANES][4][5 * LANES]; /* whole vectors are read from any tile on */
    memset(gathered, 0, sizeof gathered);
    struct channel_sums sums = *total; /* which the compiler knows to be no output */
    for (ptrdiff_t tile = 0; tile < tiles; tile += LANES) {
        struct panel panel;
        describe_panel(g, start + tile, smaller(LANES, tiles - tile), &panel);
        for (ptrdiff_t i = 0; i < rows; i++) {
            vec y[4][4];
            transform_outputs(g, products + i * row_stride + tile, plane_stride, y);
            for (int row = 0; row < 4; row++) {
                for (int column = 0; column < 4; column++) y[row][column] += vec_set(bias ? bias[k + i] : 0);
                join_columns(1, &y[row], gathered[i][row]);
            }
        }
        for (ptrdiff_t i = 0; i < panel.runs; i++) {
            const struct run *run = &panel.run[i];
            if (run->y >= g->grid[0]) continue;
            for (ptrdiff_t row = 0; row < 4; row++) {
                ptrdiff_t y = phases * (run->y + row) - g->lead[0] + phase / phases;
                ptrdiff_t left = phases * run->x - g->lead[1] + phase % phases;
                if (y < 0 || y >= height) continue;
                for (ptrdiff_t j = 0; j < 4 * run->count; j += LANES) {
                    vec square[LANES];
                    for (int c = 0; c < LANES; c++) square[c] = vec_load(gathered[c][row] + 4 * run->start + j);
                    vec_transpose(square);
                    for (ptrdiff_t i = j; i < smaller(j + LANES, 4 * run->count); i++) {
                        ptrdiff_t x = left + i * phases, at = ((run->image * height + y) * width + x) * channels + k;
                        if (x >= 0 && x < width)
                            epilogue_store_pixel(square[i - j], rows, residual ? residual + at : NULL, slope,
                                                 output + at, &sums);
                    }
                }
            }
        }
    }
    *total = sums;
}

/* Sends for this position's share of the weights of output channels k .. end - 1, which are to be transformed next: large
 * weights come from memory, and would be waited for. Inlined, for GCC (12) leaves out calls of a function that only
 * prefetches. */
INLINE void prefetch_weights(const struct winograd_geometry *g, const struct winograd_weight *weight, ptrdiff_t k,
                             ptrdiff_t end, ptrdiff_t position)
{
    ptrdiff_t channels = image_channels(g), positions = positions_of(g);
    ptrdiff_t first_channel = position * channels / positions, end_channel = (position + 1) * channels / positions;
    for (; k < end; k++)
        for (ptrdiff_t c = first_channel; c < end_channel; c++)
            __builtin_prefetch((const real *)weight->data + k * weight->row_stride + c * weight->channel_stride, 0, 2);
}

/* products[row][tile] of one position and one panel for `rows` output channels of a chunk, in all phases: those that lack
 * their last taps have none at infinity. */
INLINE void multiply_position(const struct winograd_geometry *g, ptrdiff_t position, ptrdiff_t panel_width,
                              ptrdiff_t rows, const real *weight, const real *patches, real *products, ptrdiff_t width)
{
    struct depth depth = depth_of(g, position);
    ptrdiff_t row_length = round_up(g->channels, LANES), last = g->points - 1;
    ptrdiff_t first_down = position / g->points == last ? g->lacking[0] : 0;
    ptrdiff_t first_across = position % g->points == last ? g->lacking[1] : 0;
    for (ptrdiff_t down = 0; down < g->phases; down++) {
        ptrdiff_t none = (down < first_down ? g->phases : first_across) * rows, some = g->phases * rows - none;
        for (ptrdiff_t row = 0; row < none; row++)
            memset(products + row * width, 0, (size_t)panel_width * sizeof(real));
        weight += none * row_length, products += none * width;
        for (ptrdiff_t line = 0; line < depth.lines; line++)
            multiply_panel(panel_width, some, depth.length, weight + line * depth.step, row_length,
                           patches + line * depth.step * panel_width, products, width, line > 0);
        weight += some * row_length, products += some * width;
    }
}

/* products[position][row][tile] of a chunk of output channels k .. + rows for tiles tile_start .. + tiles of a block. Weights
 * of the next chunk, before next_end, are sent for. */
static void multiply_chunk(const struct winograd_geometry *g, const struct winograd_weight *weight, const real *chunk,
                           ptrdiff_t k, ptrdiff_t rows, ptrdiff_t next_end, const real *patches,
                           const struct winograd_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, real *products)
{
    ptrdiff_t row_length = round_up(g->channels, LANES), width = round_up(tiles, LANES), next = k + g->chunk_rows;
    ptrdiff_t plane = patch_plane(g, block->tiles);
    for (ptrdiff_t position = 0; position < positions_of(g);
         position++, chunk += weight_plane(g), patches += plane, products += product_plane(g, tiles)) {
        prefetch_weights(g, weight, next, smaller(next + g->chunk_rows, next_end), position);
        for (ptrdiff_t start = 0; start < width && !g->few; start += COLUMN_TILE)
            multiply_position(g, position, smaller(COLUMN_TILE, width - start), rows, chunk,
                              patches + (tile_start + start) * g->channels, products + start, width);
        for (ptrdiff_t row = 0; row < phases_of(g) * rows && g->few; row += FEW_ROWS)
            for (ptrdiff_t tile = 0; tile < tiles; tile += FEW_TILES)
                multiply_few(phases_of(g) * rows - row, g->channels, chunk + row * row_length, row_length,
                             patches + tile * row_length, row_length, products + row * width + tile, width);
    }
}

/* The outputs of a panel of tiles, from `first` on, for `rows` output channels from k on, from their products. */
static void store_panel(const struct winograd_geometry *g, ptrdiff_t first, ptrdiff_t tiles, ptrdiff_t k,
                        ptrdiff_t rows, const real *products, ptrdiff_t width, ptrdiff_t plane_stride,
                        const struct conv_epilogue *epilogue, real *output)
{
    ptrdiff_t unit = first / COLUMN_TILE, phase_stride = rows * width;
    if (g->channels_last) {
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            ptrdiff_t some = smaller(LANES, rows - row);
            struct channel_sums sums = {0};
            for (ptrdiff_t phase = 0; phase < phases_of(g); phase++)
                store_last_outputs(g, first, tiles, phase, k + row, some, products + phase * phase_stride + row * width,
                                   width, plane_stride, epilogue, &sums, output);
            if (epilogue->sums) epilogue_store_channels(epilogue, unit, k + row, some, &sums);
        }
        return;
    }
    struct panel panel;
    describe_panel(g, first, tiles, &panel);
    for (ptrdiff_t row = 0; row < rows; row++)
        store_outputs(g, &panel, k + row, products + row * width, phase_stride, plane_stride, epilogue, unit, output);
}

/* Output channels row_start .. + row_count (from a multiple of chunk_rows) of tiles tile_start .. + tiles (from a multiple
 * of panel_tiles) of a block, from its transformed patches. */
static void multiply_tiles(const struct winograd_geometry *g, const struct winograd_weight *weight, const void *patches,
                           const struct winograd_block *block, ptrdiff_t tile_start, ptrdiff_t tiles,
                           ptrdiff_t row_start, ptrdiff_t row_count, const struct conv_epilogue *epilogue, void *output,
                           void *scratch)
{
    ptrdiff_t together = product_tiles(g, tiles), row_end = row_start + row_count;
    real *products = scratch, *own_chunk = products + positions_of(g) * product_plane(g, together);
    if (g->few) memset(products, 0, (size_t)(own_chunk - products) * sizeof(real)); /* the lanes without tiles */
    for (ptrdiff_t k = row_start; k < row_end; k += g->chunk_rows) {
        ptrdiff_t rows = smaller(g->chunk_rows, row_end - k);
        const real *chunk = own_chunk;
        if (weight->transformed)
            chunk = (const real *)weight->transformed + k / g->chunk_rows * chunk_size(g);
        else
            for (ptrdiff_t row = 0; row < rows; row++)
                transform_row(g, weight, k + row, rows, own_chunk + row * round_up(g->channels, LANES));
        for (ptrdiff_t start = 0; start < tiles; start += together) {
            ptrdiff_t some = smaller(together, tiles - start), width = round_up(some, LANES);
            ptrdiff_t next_end = weight->transformed || start ? k : row_end; /* nothing to prefetch, or done */
            multiply_chunk(g, weight, chunk, k, rows, next_end, patches, block, tile_start + start, some, products);
            for (ptrdiff_t tile = 0; tile < some; tile += COLUMN_TILE)
                store_panel(g, block->start + tile_start + start + tile, smaller(COLUMN_TILE, some - tile), k, rows,
                            products + tile, width, product_plane(g, some), epilogue, output);
        }
    }
}

/* ---- Backward-weights ---- */

/* to[position][tile] = G4 (4x4 tile of the gradient) G4' for one output channel of a panel. */
static void transform_gradient(const struct winograd_geometry *g, const struct images *images, ptrdiff_t channel,
                               const struct panel *panel, real *to, ptrdiff_t plane_stride)
{
    real rows[4 * PATCH_ROW];
    gather_patches(4, 1, images, channel, panel, 0, 0, rows, NULL);
    for (ptrdiff_t tile = 0; tile < panel->width; tile += LANES) {
        vec square[4][4];
        for (int row = 0; row < 4; row++) split_columns(4, rows + row * PATCH_ROW + 4 * tile, square[row]);
        transform_gradient_square(g, square, to + tile, plane_stride);
    }
}

/* The same for output channels k .. + rows, channels last; those of the first go to to[position][tile], of the others
 * row_stride further each. */
static void transform_last_gradients(const struct winograd_geometry *g, const struct images *images, ptrdiff_t start,
                                     ptrdiff_t count, ptrdiff_t k, ptrdiff_t rows, real *to, ptrdiff_t row_stride,
                                     ptrdiff_t plane_stride)
{
    struct last_patches gathered[LANES];
    for (ptrdiff_t tile = 0; tile < count; tile += LANES) {
        struct panel panel;
        describe_panel(g, start + tile, smaller(LANES, count - tile), &panel);
        for (ptrdiff_t first = 0; first < rows; first += LANES) {
            gather_channels(4, 0, 1, images, k + first, &panel, 0, 0, gathered);
            for (ptrdiff_t i = 0; i < smaller(LANES, rows - first); i++) {
                vec square[4][4];
                for (int row = 0; row < 4; row++) split_columns(4, gathered[i].left + row * LAST_ROW, square[row]);
                transform_gradient_square(g, square, to + (first + i) * row_stride + tile, plane_stride);
            }
        }
    }
}

INLINE ptrdiff_t sum_patch_plane(const struct winograd_sum *s)
{ return plane_size(round_up(s->channels, LANES), s->room); }
INLINE ptrdiff_t sum_gradient_plane(const struct winograd_sum *s) { return plane_size(s->rows, s->room); }
INLINE ptrdiff_t sum_product_plane(const struct winograd_sum *s)
{ return plane_size(s->rows, round_up(s->channels, LANES)); }

/* Bytes of the patches, the gradients and the products of a sum, and of transform_sum_patches()'s scratch memory. */
static void sum_sizes(const struct winograd_geometry *g, const struct winograd_sum *s, ptrdiff_t sizes[4])
{
    ptrdiff_t planes[] = {sum_patch_plane(s), sum_gradient_plane(s), sum_product_plane(s),
                          plane_size(COLUMN_TILE, COLUMN_TILE)};
    for (int i = 0; i < 4; i++) sizes[i] = round_up(positions_of(g) * planes[i] * (ptrdiff_t)sizeof(real), 64);
}

/* Transforms and packs the patches of one panel of the round, from `tile` on, and one group of channels, from `channel`
 * on. */
static void transform_sum_patches(const struct winograd_geometry *g, const struct winograd_sum *s, const void *input,
                                  ptrdiff_t tile, ptrdiff_t channel, void *patches, void *scratch)
{
    struct images images = input_images(g, input);
    ptrdiff_t tiles = smaller(COLUMN_TILE, s->tiles - tile), channels = smaller(COLUMN_TILE, s->channels - channel);
    ptrdiff_t width = round_up(channels, LANES), plane = plane_size(COLUMN_TILE, COLUMN_TILE);
    struct panel panel;
    describe_panel(g, s->tile_start + tile, tiles, &panel);
    if (g->channels_last)
        transform_last_patches(g, &images, s->tile_start + tile, tiles, s->channel_start + channel, channels, scratch,
                               COLUMN_TILE, plane);
    else
        for (ptrdiff_t c = 0; c < channels; c++)
            transform_patches(g, &images, s->channel_start + channel + c, &panel, (real *)scratch + c * COLUMN_TILE,
                              plane);
    real *to = (real *)patches + channel * s->room + tile * width;
    for (ptrdiff_t position = 0; position < positions_of(g); position++, to += sum_patch_plane(s))
        pack_panels((real *)scratch + position * plane, COLUMN_TILE, 1, channels, tiles, width, to);
}

/* Transforms the gradients of one panel of the round, from `tile` on, for output channels row .. + rows. */
static void transform_sum_gradients(const struct winograd_geometry *g, const struct winograd_sum *s,
                                    const void *grad_output, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t rows,
                                    void *gradients)
{
    struct images images = output_images(g, grad_output);
    struct panel panel;
    describe_panel(g, s->tile_start + tile, smaller(COLUMN_TILE, s->tiles - tile), &panel);
    real *to = (real *)gradients + row * s->room + tile;
    if (g->channels_last)
        transform_last_gradients(g, &images, s->tile_start + tile, smaller(COLUMN_TILE, s->tiles - tile),
                                 s->row_start + row, rows, to, s->room, sum_gradient_plane(s));
    else
        for (ptrdiff_t k = 0; k < rows; k++)
            transform_gradient(g, &images, s->row_start + row + k, &panel, to + k * s->room, sum_gradient_plane(s));
}

/* Whether any block of channels start .. + count has weights that the products of a position go into. */
INLINE int has_position(const struct winograd_geometry *g, ptrdiff_t position, ptrdiff_t start, ptrdiff_t count)
{
    ptrdiff_t down = blocks_at(g, 0, position / g->points), across = blocks_at(g, 1, position % g->points);
    ptrdiff_t channels = image_channels(g);
    for (ptrdiff_t block = start / channels; block * channels < start + count; block++)
        if (block / g->blocks[1] < down && block % g->blocks[1] < across) return 1;
    return 0;
}

/* The products of one position, for output channels row .. + rows: written, or added to those of the rounds before. Those
 * without weights are left as they are. */
static void multiply_sum(const struct winograd_geometry *g, const struct winograd_sum *s, ptrdiff_t position,
                         ptrdiff_t row, ptrdiff_t rows, const void *gradients, const void *patches, int accumulate,
                         void *products)
{
    ptrdiff_t row_length = round_up(s->channels, LANES);
    const real *from = (const real *)patches + position * sum_patch_plane(s);
    real *to = (real *)products + position * sum_product_plane(s) + row * row_length;
    for (ptrdiff_t c = 0; c < s->channels; c += COLUMN_TILE)
        if (has_position(g, position, s->channel_start + c, smaller(COLUMN_TILE, s->channels - c)))
            multiply_panel(smaller(COLUMN_TILE, row_length - c), rows, s->tiles,
                           (const real *)gradients + position * sum_gradient_plane(s) + row * s->room, s->room,
                           from + c * s->room, to + c, row_length, accumulate);
}

/* Where the weights of a block's channels go in grad_weight[k][channel of the image][tap]. */
struct place {
    ptrdiff_t filter, count, tap[9]; /* taps of a filter; places of the block, and their taps, see find_taps() */
    int whole;                       /* is the block all of the filter, tap by tap? */
};

INLINE struct place place_of(const struct winograd_geometry *g, struct block block)
{
    const int size = (int)g->points - 3;
    struct place place = {.filter = g->filter[0] * g->filter[1], .count = size * size};
    place.whole = g->blocks[0] * g->blocks[1] == 1 && g->filter[0] == size && g->filter[1] == size;
    if (size == 2)
        find_taps(2, g, 0, 0, block, place.tap);
    else
        find_taps(3, g, 0, 0, block, place.tap);
    return place;
}

/* The weights of `some` neighbouring channels, the lanes, from the products of all positions: to[channel][tap]. */
INLINE void store_weights(const struct winograd_geometry *g, const struct place *place, const real *products,
                          ptrdiff_t plane_stride, ptrdiff_t some, real *to)
{
    const int size = (int)g->points - 3;
    vec weight[3][4];
    real taps[9][LANES];
    if (size == 2)
        transform_products(5, 2, products, plane_stride, weight);
    else
        transform_products(6, 3, products, plane_stride, weight);
    if (place->whole && place->count <= LANES) {
        vec square[LANES];
        for (int t = 0; t < LANES; t++) square[t] = t < place->count ? weight[t / size][t % size] : (vec){0};
        vec_transpose(square);
        for (int i = 0; i < some; i++, to += place->filter) vec_store_rest(to, square[i], place->count);
        return;
    }
    for (int t = 0; t < place->count; t++) vec_store(taps[t], weight[t / size][t % size]);
    for (ptrdiff_t i = 0; i < some; i++, to += place->filter)
        for (int t = 0; t < place->count; t++)
            if (place->tap[t] >= 0) to[place->tap[t]] = taps[t][i];
}

/* The weights of one of the sum's output channels, from the products. */
static void store_sum(const struct winograd_geometry *g, const struct winograd_sum *s, ptrdiff_t row,
                      const void *products, void *grad_weight)
{
    const real *from = (const real *)products + row * round_up(s->channels, LANES);
    ptrdiff_t filter = g->filter[0] * g->filter[1];
    real *filters = (real *)grad_weight + (s->row_start + row) * image_channels(g) * filter;
    for (ptrdiff_t c = 0, some; c < s->channels; c += some) {
        struct block block = block_of(g, s->channel_start + c);
        struct place place = place_of(g, block);
        some = smaller(block.same, s->channels - c);
        store_weights(g, &place, from + c, sum_product_plane(s), some, filters + block.channel * filter);
    }
}

/* ---- Backward-weights of few tiles: products become weights at once, LANES channels at a time ---- */

enum { SUM_ROWS = 8 }; /* output channels together: so many sums at a time */

/* products[row][position] of LANES channels, for `rows` output channels of gradients D [P][K][tile] on patches
 * V [P][tile][C]. */
static void multiply_few_sums(const struct winograd_geometry *g, const struct winograd_sum *s, ptrdiff_t rows,
                              const real *gradients, const real *patches, vec products[SUM_ROWS][36])
{
    ptrdiff_t plane = patch_plane(g, s->tiles), gradient_plane = sum_gradient_plane(s);
    ptrdiff_t row_length = round_up(g->channels, LANES), row[SUM_ROWS];
    for (int r = 0; r < SUM_ROWS; r++) row[r] = smaller(r, rows - 1) * s->room; /* the last one again */
    for (ptrdiff_t position = 0; position < positions_of(g);
         position++, gradients += gradient_plane, patches += plane) {
        vec sum[SUM_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < SUM_ROWS; r++) sum[r] = (vec){0};
        for (ptrdiff_t tile = 0; tile < s->tiles; tile++) {
            vec v = vec_load(patches + tile * row_length);
#pragma GCC unroll 8
            for (int r = 0; r < SUM_ROWS; r++) sum[r] += gradients[row[r] + tile] * v;
        }
#pragma GCC unroll 8
        for (int r = 0; r < SUM_ROWS; r++) products[r][position] = sum[r];
    }
}

/* The weights of output channels row .. + rows and channels channel .. + channels, from all gradients and patches. */
static void sum_few(const struct winograd_geometry *g, const struct winograd_sum *s, ptrdiff_t row, ptrdiff_t rows,
                    ptrdiff_t channel, ptrdiff_t channels, const void *gradients, const void *patches,
                    void *grad_weight)
{
    ptrdiff_t filter = g->filter[0] * g->filter[1], together;
    for (ptrdiff_t k = row; k < row + rows; k += together) {
        together = smaller(SUM_ROWS, row + rows - k);
        real *filters = (real *)grad_weight + k * image_channels(g) * filter;
        for (ptrdiff_t c = channel, some; c < channel + channels; c += some) {
            struct block block = block_of(g, c);
            struct place place = place_of(g, block);
            vec products[SUM_ROWS][36];
            some = smaller(block.same, channel + channels - c);
            multiply_few_sums(g, s, together, (const real *)gradients + k * s->room, (const real *)patches + c,
                              products);
            for (ptrdiff_t r = 0; r < together; r++)
                store_weights(g, &place, (const real *)products[r], LANES, some,
                              filters + (r * image_channels(g) + block.channel) * filter);
        }
    }
}

const struct winograd_kernels FASTNN_TABLE(winograd) = {
    .row_tile = ROW_TILE,
    .panel_tiles = COLUMN_TILE,
    .lanes = LANES,
    .few_tiles = LANES * 3 / 4,
    .weight_size = weight_size,
    .transform_weight = transform_weight,
    .patches_size = patches_size,
    .transform_tiles = transform_tiles,
    .scratch_size = scratch_size,
    .multiply_tiles = multiply_tiles,
    .sum_sizes = sum_sizes,
    .transform_sum_patches = transform_sum_patches,
    .transform_sum_gradients = transform_sum_gradients,
    .multiply_sum = multiply_sum,
    .store_sum = store_sum,
    .sum_few = sum_few,
};

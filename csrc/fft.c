/* Convolution by Fourier transforms of tiles of 16x16 pixels: 382 products for (17 - R) x (17 - S) outputs of a filter of
 * R x S taps, for each pair of channels (5x5: 2.7 an output, where the sum itself takes 25; 7x7: 3.8, not 49).
 * With a stride s, the filter is cut into s x s phases of every s-th tap, each of which sees every s-th pixel: phases times
 * channels are the channels of a convolution with stride 1 (7x7 with stride 2: 4x4 taps, 9.1 products an output, not 49).
 *
 *   forward        out = F^-1 [ sum over c of conj(F w) . F in ]   per tile of the output and 16x16 patch of the input
 *   backward-data  the same, with the gradient as `in` and the weights transposed and turned by 180 degrees
 *   backward-weights  dw = F^-1 [ sum over tiles of conj(F dout) . F in ], where a tile of dout is filled up with zeros
 *
 * The patch is periodic to a Fourier transform: the first 17 - R rows and 17 - S columns of what comes back are right, and
 * the others are left out ("overlap-save"). Numbers being real, half of the transform tells it all: 256 real numbers.
 *
 * N images, C input channels (times phases), K output channels; tiles are numbered along rows, images last. The lanes of a
 * vector are neighbouring tiles, whatever rows and images they belong to. P = 256 planes: 2 q and 2 q + 1 hold the real and
 * the imaginary part of frequency q, but for q = 0 and q = 8, which hold two real frequencies each. Per frequency a product
 * of complex matrices, from three products of real ones (Gauss):
 *
 *   V = a + bi, U = c + di:   V U = (p - b (c + d)) + (p + a (d - c)) i   with   p = c (a + b)
 *
 *   weights   U [chunk][q][c, d - c, -(c + d)][K in chunk][C]   chunks of g->chunk_rows output channels
 *   patches   V [P][panel][C][tile in panel]   panels of COLUMN_TILE tiles, the last one narrower
 *   products  M [K in chunk][vector of tiles][P][LANES]   one chunk at a time, turned into outputs while it is in the cache
 *
 * and in backward-weights, for some K, some C, and round after round of tiles, whose conjugate comes back turned around
 *
 *   patches   V [q][c, d - c, -(c + d)][C][tile]
 *   gradients D [P][group][tile][K in group]   groups of COLUMN_TILE output channels, the last one narrower
 *   products  M [P][C][K] (+)= conj(V) D
 *
 * Planes, and the 256 vectors of a tile's M, are a cache line further apart than they need to be, so that they do
 * not share cache sets.
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"
#include "tiles.h"

enum {
    SIZE = 16, /* of a tile of the input, in both dimensions */
    PLANES = SIZE * SIZE,
    FREQUENCIES = PLANES / 2,
    PARTS = SIZE / LANES > 0 ? SIZE / LANES : 1,     /* vectors of a tile's row */
    PRODUCT_VECTOR = PLANES * LANES + PLANE_PADDING, /* elements of M from one vector of tiles to the next */
    WEIGHT_PLANES = 3 * FREQUENCIES,
};

static const real HALF_ROOT = (real)0.70710678118654752440;
static const real COSINE = (real)0.92387953251128675613, SINE = (real)0.38268343236508977173; /* of pi / 8 */

INLINE int is_real(int q) { return q == 0 || q == SIZE / 2; } /* a pair of real frequencies */

/* ---- The one-dimensional transforms of 16 numbers. w = exp(-2 pi i / 16). A real number's transform stands as
 * X0, X8, then real and imaginary part of X1, X2, ... X7. ---- */

/* x[0] + x[1] + ..., x[0] - i x[1] - x[2] + i x[3], ...: the transform of four numbers `step` apart. */
INLINE void transform_four(vec *re, vec *im, const int step)
{
    vec sum_re = re[0] + re[2 * step], sum_im = im[0] + im[2 * step];
    vec odd_re = re[step] + re[3 * step], odd_im = im[step] + im[3 * step];
    vec across_re = re[0] - re[2 * step], across_im = im[0] - im[2 * step];
    vec turned_re = im[step] - im[3 * step], turned_im = re[3 * step] - re[step];
    re[0] = sum_re + odd_re, im[0] = sum_im + odd_im;
    re[step] = across_re + turned_re, im[step] = across_im + turned_im;
    re[2 * step] = sum_re - odd_re, im[2 * step] = sum_im - odd_im;
    re[3 * step] = across_re - turned_re, im[3 * step] = across_im - turned_im;
}

/* Times c - s i. */
INLINE void turn(vec *re, vec *im, real c, real s)
{
    vec before = *re;
    *re = before * c + *im * s;
    *im = *im * c - before * s;
}

/* The transform of 16 complex numbers; X[k] comes to place k / 4 + k % 4 * 4. With the arguments exchanged it is the
 * inverse, times 16. */
INLINE void transform_complex(vec re[SIZE], vec im[SIZE])
{
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) transform_four(re + n, im + n, 4);
    turn(re + 5, im + 5, COSINE, SINE);
    turn(re + 6, im + 6, HALF_ROOT, HALF_ROOT);
    turn(re + 7, im + 7, SINE, COSINE);
    turn(re + 9, im + 9, HALF_ROOT, HALF_ROOT);
    vec fourth = re[10]; /* times -i */
    re[10] = im[10], im[10] = -fourth;
    turn(re + 11, im + 11, -HALF_ROOT, HALF_ROOT);
    turn(re + 13, im + 13, SINE, COSINE);
    turn(re + 14, im + 14, -HALF_ROOT, HALF_ROOT);
    turn(re + 15, im + 15, -COSINE, -SINE);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) transform_four(re + 4 * k, im + 4 * k, 1);
}
INLINE int place_of(int k) { return k / 4 + k % 4 * 4; }

/* The transform of 16 real numbers. */
INLINE void transform_real(const vec x[SIZE], vec to[SIZE])
{
    vec zero[4], re[4], im[4], two[4]; /* the four-point transforms of x[n], x[n + 4], ... at 0, 1 and 2 */
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        vec even = x[n] + x[n + 8], odd = x[n + 4] + x[n + 12];
        zero[n] = even + odd;
        two[n] = even - odd;
        re[n] = x[n] - x[n + 8];
        im[n] = x[n + 12] - x[n + 4];
    }
    turn(re + 1, im + 1, COSINE, SINE);
    turn(re + 2, im + 2, HALF_ROOT, HALF_ROOT);
    turn(re + 3, im + 3, SINE, COSINE);
    transform_four(re, im, 1); /* X1, X5, X9 = conj X7, X13 = conj X3 */
    vec even = zero[0] + zero[2], odd = zero[1] + zero[3];
    vec across = two[1] - two[3], along = two[1] + two[3];
    to[0] = even + odd, to[1] = even - odd;
    to[2] = re[0], to[3] = im[0];
    to[4] = two[0] + HALF_ROOT * across, to[5] = -two[2] - HALF_ROOT * along;
    to[6] = re[3], to[7] = -im[3];
    to[8] = zero[0] - zero[2], to[9] = zero[3] - zero[1];
    to[10] = re[1], to[11] = im[1];
    to[12] = two[0] - HALF_ROOT * across, to[13] = two[2] - HALF_ROOT * along;
    to[14] = re[2], to[15] = -im[2];
}

/* Its inverse, times 16. */
INLINE void invert_real(const vec x[SIZE], vec to[SIZE])
{
    const real root = 2 * HALF_ROOT;
    /* The inverse transforms of X1, X5, X9, X13 turned back, which are complex, and of the other even and odd ones. */
    vec re[4] = {x[2], x[10], x[14], x[6]}, im[4] = {x[3], x[11], -x[15], -x[7]};
    transform_four(im, re, 1);
    turn(re + 1, im + 1, COSINE, -SINE);
    turn(re + 2, im + 2, HALF_ROOT, -HALF_ROOT);
    turn(re + 3, im + 3, SINE, -COSINE);
    vec sum = x[0] + x[1], difference = x[0] - x[1];
    vec zero[4] = {sum + (real)2 * x[8], difference - (real)2 * x[9], sum - (real)2 * x[8],
                   difference + (real)2 * x[9]};
    vec less = x[4] - x[12], more = x[5] + x[13];
    vec two[4] = {(real)2 * (x[4] + x[12]), root * (less - more), (real)2 * (x[13] - x[5]), -root * (less + more)};
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        vec even = zero[n] + two[n], odd = zero[n] - two[n];
        to[n] = even + (real)2 * re[n];
        to[n + 4] = odd - (real)2 * im[n];
        to[n + 8] = even - (real)2 * re[n];
        to[n + 12] = odd + (real)2 * im[n];
    }
}

/* ---- The two-dimensional transforms, of LANES tiles: rows [SIZE][SIZE][LANES], each transformed ---- */

/* Stores a pair of planes, 2 q and 2 q + 1, or the first `rest` lanes of the three factors of a product with the
 * conjugate. */
INLINE void store_pair(const int factors, int q, vec re, vec im, ptrdiff_t rest, real *to, ptrdiff_t plane_stride)
{
    if (!factors) {
        vec_store(to + 2 * q * plane_stride, re);
        vec_store(to + (2 * q + 1) * plane_stride, im);
        return;
    }
    vec_store_rest(to + 3 * q * plane_stride, re, rest);
    vec_store_rest(to + (3 * q + 1) * plane_stride, is_real(q) ? im : -im - re, rest);
    if (!is_real(q)) vec_store_rest(to + (3 * q + 2) * plane_stride, im - re, rest);
}

/* to[plane]: the transforms along the columns of transformed rows. Inlined, this and the inverse would take 40 KB for each
 * instruction set. */
static __attribute__((noinline)) void transform_columns(const int factors, const real *rows, ptrdiff_t rest, real *to,
                                                        ptrdiff_t plane_stride)
{
    vec re[SIZE], im[SIZE];
    for (int part = 0; part < 2; part++) { /* X0 and X8 of the rows are real */
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) re[i] = vec_load(rows + (i * SIZE + part) * LANES);
        transform_real(re, im);
#pragma GCC unroll 8
        for (int q = 0; q < SIZE / 2; q++)
            store_pair(factors, part * SIZE / 2 + q, im[2 * q], im[2 * q + 1], rest, to, plane_stride);
    }
    for (int column = 2; column < SIZE; column += 2) {
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) {
            re[i] = vec_load(rows + (i * SIZE + column) * LANES);
            im[i] = vec_load(rows + (i * SIZE + column + 1) * LANES);
        }
        transform_complex(re, im);
#pragma GCC unroll 16
        for (int k = 0; k < SIZE; k++)
            store_pair(factors, column * SIZE / 2 + k, re[place_of(k)], im[place_of(k)], rest, to, plane_stride);
    }
}

/* The first `count` rows of the inverse along the columns, times 16. */
static __attribute__((noinline)) void invert_columns(const real *from, ptrdiff_t plane_stride, ptrdiff_t count,
                                                     real *rows)
{
    vec re[SIZE], im[SIZE];
    for (int part = 0; part < 2; part++) {
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) re[i] = vec_load(from + (part * SIZE + i) * plane_stride);
        invert_real(re, im);
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) vec_store(rows + (i * SIZE + part) * LANES, im[i]);
    }
    for (int column = 2; column < SIZE; column += 2) {
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) {
            re[i] = vec_load(from + (column * SIZE + 2 * i) * plane_stride);
            im[i] = vec_load(from + (column * SIZE + 2 * i + 1) * plane_stride);
        }
        transform_complex(im, re);
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++)
            if (i < count) {
                vec_store(rows + (i * SIZE + column) * LANES, re[place_of(i)]);
                vec_store(rows + (i * SIZE + column + 1) * LANES, im[place_of(i)]);
            }
    }
}

/* ---- Tiles and their patches ---- */

/* The corners of LANES neighbouring tiles, in the output. */
struct tiles {
    ptrdiff_t image[LANES], y[LANES], x[LANES];
};

/* Tiles from `start` on; those from `end` on, which fill up a vector, stand below the image. */
static void find_tiles(const struct fft_geometry *g, ptrdiff_t start, ptrdiff_t end, struct tiles *tiles)
{
    ptrdiff_t down = g->tiles[0], across = g->tiles[1];
    const ptrdiff_t below = g->in_size[0] + g->out_size[0] + larger(g->padding[0], 0);
    for (int lane = 0; lane < LANES; lane++) {
        ptrdiff_t tile = smaller(start + lane, end - 1), row = tile / across;
        tiles->image[lane] = row / down;
        tiles->y[lane] = start + lane < end ? row % down * g->tile_size[0] : below;
        tiles->x[lane] = tile % across * g->tile_size[1];
    }
}

/* Where a tile's patch stands in the images, of one phase and one channel. */
struct patch {
    ptrdiff_t offset;             /* of its first pixel, in the first channel; may stand outside */
    ptrdiff_t first_row, end_row; /* rows and columns that stand inside the image */
    ptrdiff_t first, end;
    ivec mask[PARTS]; /* the same columns */
};

/* How many steps reach over a distance; none over a negative one, and at most SIZE. */
INLINE ptrdiff_t steps_to(ptrdiff_t distance, ptrdiff_t stride)
{ return distance <= 0 ? 0 : distance >= SIZE * stride ? SIZE : (distance + stride - 1) / stride; }

/* Images [N][channels][height][width], or with channels last, every so manieth pixel of which is seen, of patches' first so
 * many rows and columns. */
struct source {
    const real *data;
    ptrdiff_t images, channels, height, width, stride, rows, columns, channels_last;
};

/* Returns whether all of all patches stand inside. */
static int find_patches(const struct source *s, const struct tiles *tiles, ptrdiff_t shift_y, ptrdiff_t shift_x,
                        struct patch patch[LANES])
{
    int inside = 1;
    for (int lane = 0; lane < LANES; lane++) {
        struct patch *p = &patch[lane];
        ptrdiff_t y = tiles->y[lane] * s->stride + shift_y, x = tiles->x[lane] * s->stride + shift_x;
        p->offset = s->channels_last ? ((tiles->image[lane] * s->height + y) * s->width + x) * s->channels
                                     : (tiles->image[lane] * s->channels * s->height + y) * s->width + x;
        p->first_row = steps_to(-y, s->stride), p->end_row = smaller(s->rows, steps_to(s->height - y, s->stride));
        p->first = steps_to(-x, s->stride), p->end = smaller(s->columns, steps_to(s->width - x, s->stride));
        if (p->first >= p->end) p->end_row = 0;
        if (p->first_row >= p->end_row) p->first_row = p->end_row = p->offset = 0;
        for (int part = 0; part < PARTS; part++)
            p->mask[part] = lanes_from(p->first - part * LANES) & ~lanes_from(p->end - part * LANES);
        inside &= p->end_row - p->first_row == SIZE && p->end - p->first == SIZE;
    }
    return inside;
}

/* rows[SIZE][SIZE][LANES] = the transforms of the rows that are seen of the patches in one channel. */
INLINE void transform_rows_strided(const struct source *s, const int stride, ptrdiff_t channel,
                                   const struct patch patch[LANES], int inside, real *rows)
{
    ptrdiff_t step = stride * s->width, plane = s->height * s->width, before = channel * plane;
    ptrdiff_t behind = s->images * s->channels * plane - before;
    const real *data = s->data + before;
    int whole[LANES], all = inside; /* does the memory reach over the vectors' ends? */
    for (int lane = 0; lane < LANES; lane++) {
        const struct patch *p = &patch[lane];
        whole[lane] =
            p->offset + p->first_row * step >= -before && p->offset + (p->end_row - 1) * step + stride * SIZE <= behind;
        all &= whole[lane];
    }
    for (int row = 0; row < s->rows; row++) {
        vec x[SIZE], transformed[SIZE];
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; part++) {
            vec *square = x + part * LANES;
            ptrdiff_t column = part * stride * LANES;
            if (all)
#pragma GCC unroll 16
                for (int lane = 0; lane < LANES; lane++) {
                    const real *from = data + patch[lane].offset + row * step + column;
                    square[lane] = load_strided(from, stride);
                    __builtin_prefetch(from + plane); /* the same place in the next channel */
                }
            else
                for (int lane = 0; lane < LANES; lane++) {
                    const struct patch *p = &patch[lane];
                    const real *from = data + p->offset + row * step + column;
                    vec v = {0};
                    if (row >= p->first_row && row < p->end_row) {
                        v = whole[lane] ? (vec)((ivec)load_strided(from, stride) & p->mask[part])
                                        : load_lanes(from, stride, p->first - part * LANES, p->end - part * LANES);
                        __builtin_prefetch(from + plane);
                    }
                    square[lane] = v;
                }
            vec_transpose(square);
        }
        transform_real(x, transformed);
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) vec_store(rows + (row * SIZE + i) * LANES, transformed[i]);
    }
}

static void transform_rows(const struct source *s, ptrdiff_t channel, const struct patch patch[LANES], int inside,
                           real *rows)
{
    switch (s->stride) {
    case 1: transform_rows_strided(s, 1, channel, patch, inside, rows); break;
    case 2: transform_rows_strided(s, 2, channel, patch, inside, rows); break;
    default: transform_rows_strided(s, 4, channel, patch, inside, rows);
    }
}

/* ---- Channels last: patches are transposed channel by tile, not pixel by tile, and so are outputs ---- */

/* Elements of the transformed rows of a channel, and of LANES of them. */
enum { CHANNEL_ROWS = PLANES * LANES + PLANE_PADDING, LAST_ROWS = LANES * CHANNEL_ROWS };

/* Whether elements of neighbouring pixels are transposed together, for channels alone, so many `step` apart, would not fill
 * the squares. */
INLINE int is_few(ptrdiff_t step) { return 2 * step <= LANES; }

/* A row of LANES patches: where its first element would stand, and which elements stand inside the image, `pixel` apart from
 * pixel to pixel. */
struct patch_row {
    const real *from[LANES];
    ptrdiff_t first[LANES], end[LANES];
};

static void find_patch_row(const struct patch patch[LANES], const real *row_start, ptrdiff_t row, ptrdiff_t pixel,
                           ptrdiff_t channels, struct patch_row *found)
{
    for (int lane = 0; lane < LANES; lane++) {
        const struct patch *p = &patch[lane];
        int inside = row >= p->first_row && row < p->end_row;
        found->from[lane] = row_start + p->offset;
        found->first[lane] = p->first * pixel;
        found->end[lane] = inside ? (p->end - 1) * pixel + channels : 0;
    }
}

/* square[element][tile]: elements e .. e + LANES of a row; the same of the next row are sent for. */
INLINE void load_square(const struct patch_row *row, ptrdiff_t e, ptrdiff_t next_row, vec square[LANES])
{
#pragma GCC unroll 16
    for (int lane = 0; lane < LANES; lane++) {
        const real *from = row->from[lane] + e;
        square[lane] = vec_load_inside(from, row->first[lane] - e, row->end[lane] - e);
        __builtin_prefetch(from + next_row);
    }
    vec_transpose(square);
}

/* rows[channel][SIZE][SIZE][LANES] = the transforms of the rows of the patches, in `channels` channels from `channel` on. */
static void transform_last_rows(const struct source *s, ptrdiff_t channel, ptrdiff_t channels,
                                const struct patch patch[LANES], real *rows)
{
    const ptrdiff_t pixel = s->stride * s->channels, step = pixel * s->width;
    for (ptrdiff_t row = 0; row < SIZE; row++, rows += SIZE * LANES) {
        struct patch_row seen;
        vec square[LANES], x[SIZE], transformed[SIZE];
        find_patch_row(patch, s->data + channel + row * step, row, pixel, channels, &seen);
        if (row < s->rows && is_few(pixel)) {
            for (ptrdiff_t e = 0, column = 0, c = 0; column < SIZE; e += LANES) {
                load_square(&seen, e, step, square);
                for (int i = 0; i < LANES && column < SIZE; i++) {
                    if (c < channels) vec_store(rows + c * CHANNEL_ROWS + column * LANES, square[i]);
                    if (++c == pixel) c = 0, column++;
                }
            }
        } else if (row < s->rows) {
            for (ptrdiff_t column = 0; column < SIZE; column++) {
                load_square(&seen, column * pixel, step, square);
#pragma GCC unroll 16 /* or GCC calls memcpy() */
                for (int c = 0; c < LANES; c++)
                    if (c < channels) vec_store(rows + c * CHANNEL_ROWS + column * LANES, square[c]);
            }
        }
        for (ptrdiff_t c = 0; c < channels; c++) {
            real *to = rows + c * CHANNEL_ROWS;
#pragma GCC unroll 16
            for (int i = 0; i < SIZE; i++) x[i] = row < s->rows ? vec_load(to + i * LANES) : (vec){0};
            transform_real(x, transformed);
#pragma GCC unroll 16
            for (int i = 0; i < SIZE; i++) vec_store(to + i * LANES, transformed[i]);
        }
    }
}

/* Transforms channels channel_start .. + channels of one vector of tiles, from `tile` on and before `end`; those of the
 * first channel go to to[plane][tile], of the others channel_stride further each. `scratch` is for LAST_ROWS numbers, with
 * channels last. */
INLINE void transform_vector(const struct fft_geometry *g, const int factors, const void *input, ptrdiff_t tile,
                             ptrdiff_t end, ptrdiff_t channel_start, ptrdiff_t channels, real *to,
                             ptrdiff_t channel_stride, ptrdiff_t plane_stride, real *scratch)
{
    _Alignas(64) real rows[PLANES * LANES];
    ptrdiff_t phases = g->phases[0] * g->phases[1];
    struct source source = {input, g->images, g->channels / phases, g->in_size[0], g->in_size[1], g->stride,
                            SIZE,  SIZE,      g->channels_last};
    struct tiles corners;
    find_tiles(g, tile, end, &corners);
    for (ptrdiff_t phase = 0; phase < phases; phase++) {
        struct patch patch[LANES];
        int inside = find_patches(&source, &corners, phase / g->phases[1] - g->padding[0],
                                  phase % g->phases[1] - g->padding[1], patch);
        /* of the image's channels */
        ptrdiff_t first = (channel_start - phase + phases - 1) / phases;
        ptrdiff_t last = (channel_start + channels - phase + phases - 1) / phases;
        for (ptrdiff_t c = first; c < last; c++) {
            const real *transformed = rows;
            if (!g->channels_last) {
                transform_rows(&source, c, patch, inside, rows);
            } else {
                ptrdiff_t among = (c - first) % LANES;
                if (among == 0) transform_last_rows(&source, c, smaller(LANES, last - c), patch, scratch);
                transformed = scratch + among * CHANNEL_ROWS;
            }
            transform_columns(factors, transformed, LANES, to + (c * phases + phase - channel_start) * channel_stride,
                              plane_stride);
        }
    }
}

/* ---- The weights ---- */

/* Elements of the transformed weights of one chunk, and of one of its planes. */
INLINE ptrdiff_t weight_plane(const struct fft_geometry *g) { return plane_size(g->chunk_rows, g->channels); }
INLINE ptrdiff_t chunk_size(const struct fft_geometry *g) { return WEIGHT_PLANES * weight_plane(g); }

static ptrdiff_t weight_size(const struct fft_geometry *g)
{ return (g->out_channels + g->chunk_rows - 1) / g->chunk_rows * chunk_size(g) * (ptrdiff_t)sizeof(real); }

/* Filters are numbered along the channels of an output channel, then output channel by output channel from k on, as their
 * transforms stand in a chunk, so that few channels fill the vectors too.
 * taps[y][x][i] = the taps of LANES filters, for the `count` ones from `first` on; all else is zero. */
static void find_taps(const struct fft_geometry *g, const struct tiled_weight *weight, ptrdiff_t k, ptrdiff_t first,
                      ptrdiff_t count, real taps[FFT_TAPS][SIZE][LANES])
{
    ptrdiff_t height = g->filter[0], width = g->filter[1], stride = g->stride, across = g->phases[1];
    ptrdiff_t phases = g->phases[0] * across, sign = weight->turned ? -1 : 1;
    memset(taps, 0, (SIZE + 1 - g->tile_size[0]) * sizeof *taps);
    for (ptrdiff_t i = 0; i < count; i++) {
        ptrdiff_t channel = (first + i) % g->channels, phase = channel % phases;
        const real *filter = (const real *)weight->data + (k + (first + i) / g->channels) * weight->row_stride +
                             channel / phases * weight->channel_stride + (weight->turned ? height * width - 1 : 0);
        for (ptrdiff_t y = phase / across, row = 0; y < height; y += stride, row++)
            for (ptrdiff_t x = phase % across, column = 0; x < width; x += stride, column++)
                taps[row][column][i] = filter[sign * (y * width + x)];
    }
}

/* Transforms filters first .. end - 1 of a chunk of output channels from k on. */
static void transform_filters(const struct fft_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                              ptrdiff_t first, ptrdiff_t end, real *chunk)
{
    _Alignas(64) real taps[FFT_TAPS][SIZE][LANES], rows[PLANES * LANES];
    ptrdiff_t height = SIZE + 1 - g->tile_size[0];
    memset(rows, 0, sizeof rows);
    for (; first < end; first += LANES) {
        find_taps(g, weight, k, first, smaller(end - first, LANES), taps);
        for (ptrdiff_t y = 0; y < height; y++) {
            vec x[SIZE], row[SIZE];
#pragma GCC unroll 16
            for (int i = 0; i < SIZE; i++) x[i] = vec_load(taps[y][i]) * (real)(1.0 / PLANES);
            transform_real(x, row);
#pragma GCC unroll 16
            for (int i = 0; i < SIZE; i++) vec_store(rows + (y * SIZE + i) * LANES, row[i]);
        }
        transform_columns(1, rows, end - first, chunk + first, weight_plane(g));
    }
}

/* Transforms filters first .. + count of the chunk from output channel k on, or as many as it has. */
static void transform_weight(const struct fft_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                             ptrdiff_t first, ptrdiff_t count, void *transformed)
{
    ptrdiff_t all = smaller(g->chunk_rows, g->out_channels - k) * g->channels;
    transform_filters(g, weight, k, first, smaller(first + count, all),
                      (real *)transformed + k / g->chunk_rows * chunk_size(g));
}

/* ---- The products ---- */

INLINE void add_products(const int rows, const int vectors, const int both, ptrdiff_t depth, const real *a,
                         const real *b, const real *other, vec sum[ROW_TILE][COLUMN_VECTORS])
{
    for (ptrdiff_t d = 0; d < depth; d++, a++, b += vectors * LANES, other += vectors * LANES) {
        vec column[COLUMN_VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            column[v] = vec_load(b + v * LANES);
            if (both) column[v] += vec_load(other + v * LANES);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            vec value = vec_set(a[row * depth]);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sum[row][v] += value * column[v];
        }
    }
}

/* Where products go: those of one row, of the vector of columns behind it, and their imaginary parts, stand so far apart. */
struct strides {
    ptrdiff_t row, vector, plane;
};

INLINE void store_sums(const int rows, const int vectors, vec sum[ROW_TILE][COLUMN_VECTORS], real *c,
                       struct strides strides, int accumulate)
{
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            real *to = c + row * strides.row + v * strides.vector;
            vec_store(to, accumulate ? vec_load(to) + sum[row][v] : sum[row][v]);
        }
}

INLINE void clear_sums(const int rows, const int vectors, vec sum[ROW_TILE][COLUMN_VECTORS])
{
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) sum[row][v] = (vec){0};
}

/* A pair of frequencies, some rows of factors against one panel: the products of two complex matrices from three of real
 * ones, or of two pairs of real matrices. */
INLINE void multiply_pair(const int rows, const int vectors, int real_pair, ptrdiff_t depth, const real *a,
                          ptrdiff_t a_plane, const real *b, ptrdiff_t b_plane, real *c, struct strides strides,
                          int accumulate)
{
    vec both[ROW_TILE][COLUMN_VECTORS];
    const real *b_imaginary = b + b_plane;
    if (accumulate) /* what is added to comes while the sums are taken */
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) {
                __builtin_prefetch(c + row * strides.row + v * strides.vector, 1);
                __builtin_prefetch(c + row * strides.row + v * strides.vector + strides.plane, 1);
            }
    clear_sums(rows, vectors, both);
    if (!real_pair) add_products(rows, vectors, 1, depth, a, b, b_imaginary, both);
    const real *factor = real_pair ? a : a + a_plane;
#pragma GCC unroll 1                                          /* one loop over the depth in the code, not four */
    for (int part = 0; part < 2; part++, factor += a_plane) { /* of a complex product the imaginary part is first */
        vec sum[ROW_TILE][COLUMN_VECTORS];
        const real *column = part ? b_imaginary : b;
        memcpy(sum, both, sizeof sum);
        add_products(rows, vectors, 0, depth, factor, column, column, sum);
        store_sums(rows, vectors, sum, part == real_pair ? c + strides.plane : c, strides, accumulate);
    }
}

/* The same with all rows of a chunk. */
INLINE void multiply_vectors(const int vectors, ptrdiff_t rows, int real_pair, ptrdiff_t depth, const real *a,
                             ptrdiff_t a_plane, const real *b, ptrdiff_t b_plane, real *c, struct strides strides,
                             int accumulate)
{
#define ROWS(count) multiply_pair(count, vectors, real_pair, depth, a, a_plane, b, b_plane, c, strides, accumulate)
    for (; rows > 0; rows -= ROW_TILE, a += ROW_TILE * depth, c += ROW_TILE * strides.row) {
        SWITCH_ROWS(smaller(rows, ROW_TILE));
    }
#undef ROWS
}

/* The same with one panel of up to COLUMN_TILE columns. */
INLINE void multiply_columns(ptrdiff_t width, ptrdiff_t rows, int q, ptrdiff_t depth, const real *a, ptrdiff_t a_plane,
                             const real *b, ptrdiff_t b_plane, real *c, struct strides strides, const int accumulate)
{
    switch (width / LANES) {
    case 1: multiply_vectors(1, rows, is_real(q), depth, a, a_plane, b, b_plane, c, strides, accumulate); break;
    case 2: multiply_vectors(2, rows, is_real(q), depth, a, a_plane, b, b_plane, c, strides, accumulate); break;
    default: multiply_vectors(COLUMN_VECTORS, rows, is_real(q), depth, a, a_plane, b, b_plane, c, strides, accumulate);
    }
}

/* Products of a few channels take so little time that a look at `accumulate` for each would be a fifth of it. */
static __attribute__((noinline)) void multiply_panel(ptrdiff_t width, ptrdiff_t rows, int q, ptrdiff_t depth,
                                                     const real *a, ptrdiff_t a_plane, const real *b, ptrdiff_t b_plane,
                                                     real *c, struct strides strides)
{ multiply_columns(width, rows, q, depth, a, a_plane, b, b_plane, c, strides, 0); }
static __attribute__((noinline)) void multiply_panel_onto(ptrdiff_t width, ptrdiff_t rows, int q, ptrdiff_t depth,
                                                          const real *a, ptrdiff_t a_plane, const real *b,
                                                          ptrdiff_t b_plane, real *c, struct strides strides)
{ multiply_columns(width, rows, q, depth, a, a_plane, b, b_plane, c, strides, 1); }

/* ---- Tasks ---- */

/* Elements of a plane of the transformed patches of a block of tiles, and of the products of one row and so many tiles. */
INLINE ptrdiff_t patch_plane(const struct fft_geometry *g, ptrdiff_t tiles)
{ return plane_size(g->channels, round_up(tiles, LANES)); }
INLINE ptrdiff_t product_row(ptrdiff_t tiles) { return (tiles + LANES - 1) / LANES * PRODUCT_VECTOR; }

static ptrdiff_t patches_size(const struct fft_geometry *g, ptrdiff_t tiles)
{ return PLANES * patch_plane(g, tiles) * (ptrdiff_t)sizeof(real); }

/* Bytes for transform_tiles(), or for multiply_tiles(): products, and one chunk of weights where they are not transformed
 * beforehand. */
static ptrdiff_t scratch_size(const struct fft_geometry *g, ptrdiff_t tiles, int transformed)
{
    ptrdiff_t elements = g->chunk_rows * product_row(tiles) + (transformed ? 0 : chunk_size(g));
    if (g->channels_last) elements = larger(elements, LAST_ROWS);
    return round_up(elements * (ptrdiff_t)sizeof(real), 64);
}

/* Transforms the patches of channels channel_start .. + channels, of tiles tile_start .. + tiles of a block. */
static void transform_tiles(const struct fft_geometry *g, const void *input, const struct tiled_block *block,
                            ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                            void *patches, void *scratch)
{
    ptrdiff_t plane = patch_plane(g, block->tiles), block_width = round_up(block->tiles, LANES);
    for (ptrdiff_t tile = tile_start; tile < tile_start + tiles; tile += LANES) {
        ptrdiff_t panel = tile / COLUMN_TILE * COLUMN_TILE, width = smaller(COLUMN_TILE, block_width - panel);
        real *to = (real *)patches + panel * g->channels + tile - panel;
        transform_vector(g, 0, input, block->start + tile, block->start + block->tiles, channel_start, channels,
                         to + channel_start * width, width, plane, scratch);
    }
}

/* Where a tile's outputs stand in the first channel of its image, and how many of its rows and columns are in the image. */
struct target {
    ptrdiff_t offset, rows, columns;
};

static void find_targets(const struct fft_geometry *g, const struct tiles *tiles, struct target target[LANES])
{
    ptrdiff_t height = g->out_size[0], width = g->out_size[1];
    for (int lane = 0; lane < LANES; lane++) {
        ptrdiff_t y = tiles->y[lane], x = tiles->x[lane];
        target[lane].offset = g->channels_last ? ((tiles->image[lane] * height + y) * width + x) * g->out_channels
                                               : (tiles->image[lane] * g->out_channels * height + y) * width + x;
        target[lane].rows = smaller(g->tile_size[0], height - y);
        target[lane].columns = smaller(g->tile_size[1], width - x);
    }
}

/* One row of pixels of LANES tiles, transposed, to the output channel at `output`. */
INLINE void store_row(ptrdiff_t row, vec y[SIZE], const struct target target[LANES], ptrdiff_t width, real *output)
{
#pragma GCC unroll 8
    for (int part = 0; part < PARTS; part++) {
        vec_transpose(y + part * LANES);
#pragma GCC unroll 16
        for (int lane = 0; lane < LANES; lane++) {
            ptrdiff_t rest = target[lane].columns - part * LANES;
            if (row < target[lane].rows && rest > 0)
                vec_store_rest(output + target[lane].offset + row * width + part * LANES, y[part * LANES + lane], rest);
        }
    }
}

/* The same by way of memory, for sums leave out what is not in the image. */
static void store_row_late(ptrdiff_t row, vec y[SIZE], const struct target target[LANES], ptrdiff_t width, real slope,
                           const real *residual, real *output, struct channel_sums *sums)
{
    _Alignas(64) real line[LANES][SIZE];
    for (int part = 0; part < PARTS; part++) {
        vec_transpose(y + part * LANES);
        for (int lane = 0; lane < LANES; lane++) vec_store(line[lane] + part * LANES, y[part * LANES + lane]);
    }
    for (int lane = 0; lane < LANES; lane++) {
        if (row >= target[lane].rows) continue;
        ptrdiff_t at = target[lane].offset + row * width;
        epilogue_store(line[lane], target[lane].columns, residual ? residual + at : NULL, slope, output + at, sums);
    }
}

/* y[SIZE] = the outputs of one row of pixels, through bias and activation. */
INLINE void invert_row(const real *row, vec bias, real slope, vec y[SIZE])
{
    vec x[SIZE];
#pragma GCC unroll 16
    for (int i = 0; i < SIZE; i++) x[i] = vec_load(row + i * LANES);
    invert_real(x, y);
#pragma GCC unroll 16
    for (int i = 0; i < SIZE; i++) y[i] = epilogue_activate(y[i] + bias, slope);
}

/* The outputs of one output channel and LANES tiles from products[plane]; the unit of the sums are these tiles. */
static void store_outputs(const struct fft_geometry *g, const struct target target[LANES], ptrdiff_t k,
                          const real *products, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output)
{
    _Alignas(64) real rows[PLANES * LANES];
    const real bias = epilogue->bias ? ((const real *)epilogue->bias)[k] : 0, slope = (real)epilogue->slope;
    const int late = epilogue->residual || epilogue->sums; /* not before the ragged edge is cut off */
    ptrdiff_t width = g->out_size[1], channel = k * g->out_size[0] * width;
    const real *residual = epilogue->residual ? (const real *)epilogue->residual + channel : NULL;
    struct channel_sums sums = {0};
    invert_columns(products, LANES, g->tile_size[0], rows);
    for (ptrdiff_t row = 0; row < g->tile_size[0]; row++) {
        vec y[SIZE];
        invert_row(rows + row * SIZE * LANES, vec_set(bias), late ? 1 : slope, y);
        if (late)
            store_row_late(row, y, target, width, slope, residual, output + channel, epilogue->sums ? &sums : NULL);
        else
            store_row(row, y, target, width, output + channel);
    }
    if (epilogue->sums) epilogue_store_sums(epilogue, unit, k, &sums);
}

/* outputs[SIZE][SIZE][LANES] of one output channel in the place of its products. */
static void invert_products(const struct fft_geometry *g, vec bias, real slope, real *products)
{
    _Alignas(64) real rows[PLANES * LANES];
    invert_columns(products, LANES, g->tile_size[0], rows);
    for (ptrdiff_t row = 0; row < g->tile_size[0]; row++) {
        vec y[SIZE];
        invert_row(rows + row * SIZE * LANES, bias, slope, y);
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; i++) vec_store(products + (row * SIZE + i) * LANES, y[i]);
    }
}

/* The outputs of `count` output channels, at most LANES, from k on, which are last, and of LANES tiles, from products
 * product_row apart, which are overwritten. */
static void store_last_outputs(const struct fft_geometry *g, const struct target target[LANES], ptrdiff_t k,
                               ptrdiff_t count, real *products, ptrdiff_t product_row,
                               const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output)
{
    const real *bias = epilogue->bias, *residual = epilogue->residual;
    const real slope = (real)epilogue->slope;
    const int late = epilogue->residual || epilogue->sums; /* not before the ragged edge is cut off */
    const ptrdiff_t pixel = g->out_channels, line = pixel * g->out_size[1];
    const int few = is_few(pixel) && count == pixel && !epilogue->sums; /* neighbouring pixels together */
    struct channel_sums sums = {0};
    for (ptrdiff_t i = 0; i < count; i++)
        invert_products(g, vec_set(bias ? bias[k + i] : 0), late ? 1 : slope, products + i * product_row);
    for (ptrdiff_t row = 0; row < g->tile_size[0]; row++) {
        const ptrdiff_t elements = g->tile_size[1] * pixel;
        ptrdiff_t at[LANES], end[LANES]; /* of a row of a tile: where it begins in the output, and its elements */
        for (int lane = 0; lane < LANES; lane++) {
            at[lane] = target[lane].offset + row * line + k;
            end[lane] = row < target[lane].rows ? (target[lane].columns - 1) * pixel + count : 0;
        }
        for (ptrdiff_t e = 0, column = 0, c = 0; e < elements; e += few ? LANES : pixel) {
            vec square[LANES];
            const real *from = products + (row * SIZE + column) * LANES;
            for (int i = 0; i < LANES; i++) {
                ptrdiff_t among = few ? c : i;
                square[i] = among < count && column < SIZE ? vec_load(from + among * product_row) : (vec){0};
                if (few && ++c == pixel) c = 0, column++, from += LANES;
            }
            if (!few) column++;
            vec_transpose(square);
#pragma GCC unroll 16
            for (int lane = 0; lane < LANES; lane++) {
                ptrdiff_t rest = smaller(end[lane] - e, few ? LANES : count), to = at[lane] + e;
                if (rest <= 0) continue;
                __builtin_prefetch(output + to + pixel, 1);
                if (late)
                    epilogue_store_pixel(square[lane], rest, residual ? residual + to : NULL, slope, output + to,
                                         &sums);
                else
                    vec_store_rest(output + to, square[lane], rest);
            }
        }
    }
    if (epilogue->sums) epilogue_store_channels(epilogue, unit, k, count, &sums);
}

/* products[row][vector of tiles][plane] of the `rows` output channels of a chunk, for tiles tile_start .. + tiles of a block. */
static void multiply_chunk(const struct fft_geometry *g, const real *chunk, ptrdiff_t rows, const real *patches,
                           const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, real *products)
{
    ptrdiff_t width = round_up(tiles, LANES), depth = g->channels, a_plane = weight_plane(g);
    ptrdiff_t b_plane = patch_plane(g, block->tiles);
    const struct strides strides = {product_row(tiles), PRODUCT_VECTOR, LANES};
    for (int q = 0; q < FREQUENCIES; q++)
        for (ptrdiff_t start = 0; start < width; start += COLUMN_TILE) {
            const real *a = chunk + 3 * q * a_plane;
            const real *b = patches + 2 * q * b_plane + (tile_start + start) * depth;
            real *c = products + 2 * q * LANES + start / LANES * PRODUCT_VECTOR;
            multiply_panel(smaller(COLUMN_TILE, width - start), rows, q, depth, a, a_plane, b, b_plane, c, strides);
        }
}

/* Output channels row_start .. + row_count (from a multiple of chunk_rows) of tiles tile_start .. + tiles (from a multiple
 * of panel_tiles) of a block, from its transformed patches. */
static void multiply_tiles(const struct fft_geometry *g, const struct tiled_weight *weight, const void *patches,
                           const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t row_start,
                           ptrdiff_t row_count, const struct conv_epilogue *epilogue, void *output, void *scratch)
{
    ptrdiff_t row_size = product_row(tiles);
    real *products = scratch, *own_chunk = products + g->chunk_rows * row_size;
    for (ptrdiff_t k = row_start; k < row_start + row_count; k += g->chunk_rows) {
        ptrdiff_t rows = smaller(g->chunk_rows, row_start + row_count - k);
        const real *chunk = own_chunk;
        if (weight->transformed)
            chunk = (const real *)weight->transformed + k / g->chunk_rows * chunk_size(g);
        else
            transform_filters(g, weight, k, 0, rows * g->channels, own_chunk);
        multiply_chunk(g, chunk, rows, patches, block, tile_start, tiles, products);
        for (ptrdiff_t tile = 0; tile < tiles; tile += LANES) {
            struct tiles corners;
            struct target target[LANES];
            ptrdiff_t first = block->start + tile_start + tile;
            find_tiles(g, first, block->start + tile_start + tiles, &corners);
            find_targets(g, &corners, target);
            real *own = products + tile / LANES * PRODUCT_VECTOR;
            for (ptrdiff_t row = 0; row < (g->channels_last ? 0 : rows); row++)
                store_outputs(g, target, k + row, own + row * row_size, epilogue, first / LANES, output);
            for (ptrdiff_t row = 0; row < (g->channels_last ? rows : 0); row += LANES)
                store_last_outputs(g, target, k + row, smaller(LANES, rows - row), own + row * row_size, row_size,
                                   epilogue, first / LANES, output);
        }
    }
}

/* ---- Backward-weights ---- */

INLINE ptrdiff_t sum_patch_plane(const struct tiled_sum *s) { return plane_size(s->channels, s->room); }
INLINE ptrdiff_t sum_gradient_plane(const struct tiled_sum *s) { return plane_size(round_up(s->rows, LANES), s->room); }
INLINE ptrdiff_t sum_product_plane(const struct tiled_sum *s)
{ return plane_size(s->channels, round_up(s->rows, LANES)); }

enum { SQUARE = LANES * LANES + PLANE_PADDING }; /* elements from one plane of transformed gradients to the next */

/* Bytes of the patches, the gradients and the products of a sum, and of the transforms' scratch memory. */
static void sum_sizes(const struct fft_geometry *g, const struct tiled_sum *s, ptrdiff_t sizes[4])
{
    ptrdiff_t elements[] = {WEIGHT_PLANES * sum_patch_plane(s), PLANES * sum_gradient_plane(s),
                            PLANES * sum_product_plane(s), PLANES * SQUARE + (g->channels_last ? LAST_ROWS : 0)};
    for (int i = 0; i < 4; i++) sizes[i] = round_up(elements[i] * (ptrdiff_t)sizeof(real), 64);
}

/* Transforms the patches of one vector of tiles of the round, from `tile` on, of channels channel .. + channels. */
static void transform_sum_patches(const struct fft_geometry *g, const struct tiled_sum *s, const void *input,
                                  ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels, void *patches, void *scratch)
{
    transform_vector(g, 1, input, s->tile_start + tile, s->tile_start + s->tiles, s->channel_start + channel, channels,
                     (real *)patches + channel * s->room + tile, s->room, sum_patch_plane(s), scratch);
}

/* Transforms the gradients of one vector of tiles of the round, from `tile` on, and of LANES output channels, from `row` on;
 * transposed, so that these are the lanes. bias_sums[vector of tiles][row] has the sums of the gradients themselves, which
 * are what frequency 0 sees. */
static void transform_sum_gradients(const struct fft_geometry *g, const struct tiled_sum *s, const void *grad_output,
                                    ptrdiff_t tile, ptrdiff_t row, void *gradients, double *bias_sums, void *scratch)
{
    _Alignas(64) real rows[PLANES * LANES];
    struct source source = {grad_output, g->images,       g->out_channels, g->out_size[0],  g->out_size[1],
                            1,           g->tile_size[0], g->tile_size[1], g->channels_last};
    struct tiles corners;
    struct patch patch[LANES];
    real *transformed = scratch;
    ptrdiff_t count = smaller(LANES, s->rows - row), panel = row / COLUMN_TILE * COLUMN_TILE;
    ptrdiff_t width = smaller(COLUMN_TILE, round_up(s->rows, LANES) - panel);
    find_tiles(g, s->tile_start + tile, s->tile_start + s->tiles, &corners);
    int inside = find_patches(&source, &corners, 0, 0, patch);
    real *last_rows = transformed + PLANES * SQUARE;
    if (g->channels_last)
        transform_last_rows(&source, s->row_start + row, count, patch, last_rows);
    else
        memset(rows, 0, sizeof rows);
    for (ptrdiff_t k = 0; k < count; k++) {
        if (!g->channels_last) transform_rows(&source, s->row_start + row + k, patch, inside, rows);
        transform_columns(0, g->channels_last ? last_rows + k * CHANNEL_ROWS : rows, 0, transformed + k * LANES,
                          SQUARE);
        bias_sums[tile / LANES * s->rows + row + k] = (double)vec_sum(vec_load(transformed + k * LANES));
    }
    real *to = (real *)gradients + panel * s->room + tile * width + row - panel;
    for (int plane = 0; plane < PLANES; plane++, to += sum_gradient_plane(s), transformed += SQUARE) {
        vec square[LANES];
#pragma GCC unroll 16
        for (int k = 0; k < LANES; k++) square[k] = k < count ? vec_load(transformed + k * LANES) : (vec){0};
        vec_transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) vec_store(to + i * width, square[i]);
    }
}

/* The products of pair q of frequencies, summed up over the round's tiles: written, or added to those of rounds before. */
static void multiply_sum(const struct tiled_sum *s, ptrdiff_t q, const void *gradients, const void *patches,
                         int accumulate, void *products)
{
    ptrdiff_t width = round_up(s->rows, LANES), depth = s->room, a_plane = sum_patch_plane(s);
    ptrdiff_t b_plane = sum_gradient_plane(s);
    const struct strides strides = {width, LANES, sum_product_plane(s)};
    for (ptrdiff_t start = 0; start < width; start += COLUMN_TILE)
        (accumulate ? multiply_panel_onto : multiply_panel)(
            smaller(COLUMN_TILE, width - start), s->channels, (int)q, depth, (const real *)patches + 3 * q * a_plane,
            a_plane, (const real *)gradients + 2 * q * b_plane + start * depth, b_plane,
            (real *)products + 2 * q * strides.plane + start, strides);
}

/* grad_weight[k][channel of the image][tap] of one of the sum's channels: what stands at -tap in the inverse transform. */
static void store_sum(const struct fft_geometry *g, const struct tiled_sum *s, ptrdiff_t channel, const void *products,
                      void *grad_weight)
{
    _Alignas(64) real rows[PLANES * LANES], lanes[SIZE][LANES];
    ptrdiff_t phases = g->phases[0] * g->phases[1], phase = (s->channel_start + channel) % phases;
    ptrdiff_t height = g->filter[0], width = g->filter[1], filter = height * width, row = g->channels / phases * filter;
    const real *from = (const real *)products + channel * round_up(s->rows, LANES);
    for (ptrdiff_t k = 0; k < s->rows; k += LANES, from += LANES) {
        real *to = (real *)grad_weight + (s->row_start + k) * row + (s->channel_start + channel) / phases * filter;
        invert_columns(from, sum_product_plane(s), SIZE, rows);
        for (ptrdiff_t y = phase / g->phases[1], i = 0; y < height; y += g->stride, i++) {
            vec transformed[SIZE], inverse[SIZE];
#pragma GCC unroll 16
            for (int j = 0; j < SIZE; j++) transformed[j] = vec_load(rows + ((SIZE - i) % SIZE * SIZE + j) * LANES);
            invert_real(transformed, inverse);
#pragma GCC unroll 16
            for (int j = 0; j < SIZE; j++) vec_store(lanes[j], inverse[j] * (real)(1.0 / PLANES));
            for (ptrdiff_t x = phase % g->phases[1], j = 0; x < width; x += g->stride, j++)
                for (ptrdiff_t lane = 0; lane < smaller(LANES, s->rows - k); lane++)
                    to[lane * row + y * width + x] = lanes[(SIZE - j) % SIZE][lane];
        }
    }
}

const struct fft_kernels FASTNN_TABLE(fft) = {
    .row_tile = ROW_TILE,
    .last_row_tile = LANES % ROW_TILE == 0 ? LANES : LANES * ROW_TILE / 2,
    .panel_tiles = COLUMN_TILE,
    .lanes = LANES,
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
};

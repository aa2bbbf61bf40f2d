/* Convolution of 1 or 2 spatial dimensions straight from a padded copy of the image, for layers where the packing of a
 * matrix product costs more than its product: few channels, few rows, large filters.
 *
 * A band of output rows is computed at a time. The part of the image that it sees is copied once, bordered by zeros and
 * split by the remainder of its position by the stride:
 *
 *   copy[channel][y % stride][x % stride][y / stride][x / stride][image], rows of `pitch` positions
 *
 * Output position (y, x) then finds the input of depth d (a channel and a tap) at offset[d] + (y * pitch + x) * I: every
 * tap is a plain vector load, with no border to check and nothing to pack. I images are interleaved:
 *
 *   1      the lanes of a vector are neighbouring outputs. Vectors either start anew with each row or run on across rows
 *          (their lanes in the gap between two rows are wasted), whichever needs fewer of them
 *   LANES  the lanes are images, for outputs so small that the first kind wastes many lanes. The copy is transposed
 *          while it is made, the outputs again while they are stored
 *
 *   forward           out[k,p]  = bias[k] + sum over d of weight[k,d] * copy[p + offset[d]]
 *   backward-data     the same for each phase of the stride, with the gradient as image and the weights transposed
 *   backward-weights  dw[k,d] = sum over images, p of dout[k,p] * copy[p + offset[d]]
 *
 * K output channels, C channels of the image (both per group), T filter positions (taps). The depth is ordered
 * [row of taps][C][tap of the row], so that the rows of taps that fall beside the image are a piece at either end, which
 * is left out. Packed weights: [tile of up to ROW_TILE output channels][d][ROW_TILE].
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"

/* Accumulators of a micro-kernel, in vectors: with its operands they fill the registers. Fewer rows take more vectors
 * of positions, as the multiply-add's latency needs some eight sums under way. */
#if VEC_BYTES == 64
enum { ACCUMULATORS = 24, GRADIENT_ROWS = 6 };
#else
enum { ACCUMULATORS = 12, GRADIENT_ROWS = 4 };
#endif
enum { MOST_VECTORS = 8, MOST_LANES = MOST_VECTORS * LANES };
/* Outputs of interleaved images that are transposed together: whole panels and whole squares. */
enum { CHUNK = 48 };
/* Longer sums are taken in blocks of so many terms, which keeps their rounding errors small. */
enum { DEPTH_BLOCK = 256 };
/* Pixels of so many channels, side by side, are transposed in squares, of fewer they are picked one by one. */
enum { LEAST_PIXEL = 4 };
/* Backward-weights reads a band again for every few channels and taps: so many positions stay in the first-level cache. */
enum { GRADIENT_POSITIONS = 1024 };

/* Vectors of positions for so many output channels. Each leaves a register over: 3 x 4 and 4 x 3
 * of 16 spill. */
INLINE int panel_vectors(int rows)
{
#if VEC_BYTES == 64
    const int vectors[] = {8, 8, 6, 4, 4, 4, 3, 3};
#else
    const int vectors[] = {8, 4, 3, 2, 2, 2};
#endif
    return vectors[rows - 1];
}

INLINE int accumulator_columns(int rows)
{ return ACCUMULATORS / rows < MOST_VECTORS ? ACCUMULATORS / rows : MOST_VECTORS; }

static ptrdiff_t plane_rows(const struct direct_geometry *g) { return g->band + g->reach[0] / g->stride[0]; }
static ptrdiff_t phase_count(const struct direct_geometry *g, int axis)
{ return smaller(g->stride[axis], g->reach[axis] + 1); }
static ptrdiff_t row_pitch(const struct direct_geometry *g) { return g->grid[1] + g->reach[1] / g->stride[1]; }

/* Elements of the copied band, a multiple of LANES. A row is written in whole vectors, and the last vector of positions
 * begins at a position that exists, which even at the largest offset lies in the band: both go less than a vector past
 * its end. */
static ptrdiff_t copy_size(const struct direct_geometry *g)
{
    ptrdiff_t planes = g->channels * phase_count(g, 0) * phase_count(g, 1);
    ptrdiff_t used = planes * plane_rows(g) * row_pitch(g) * g->interleave + LANES - 1;
    return (used + LANES - 1) / LANES * LANES;
}

/* Bytes for tile(): the copy, and outputs that wait for being transposed. */
static ptrdiff_t scratch_size(const struct direct_geometry *g)
{ return (copy_size(g) + (g->interleave > 1 ? ROW_TILE * CHUNK * LANES : 0)) * (ptrdiff_t)sizeof(real); }

/* offset[row of taps][channel][tap of the row] */
static void fill_offsets(const struct direct_geometry *g, const struct direct_phase *phase, ptrdiff_t *offset)
{
    ptrdiff_t plane = plane_rows(g) * row_pitch(g), phases_x = phase_count(g, 1);
    ptrdiff_t channel_planes = phase_count(g, 0) * phases_x;
    for (ptrdiff_t row = 0; row < phase->taps[0].count; row++)
        for (ptrdiff_t c = 0; c < g->channels; c++)
            for (ptrdiff_t column = 0; column < phase->taps[1].count; column++) {
                ptrdiff_t y = phase->taps[0].position[row], x = phase->taps[1].position[column];
                ptrdiff_t among_planes = c * channel_planes + y % g->stride[0] * phases_x + x % g->stride[1];
                ptrdiff_t in_plane = y / g->stride[0] * row_pitch(g) + x / g->stride[1];
                *offset++ = (among_planes * plane + in_plane) * g->interleave;
            }
}

/* Output channels come in tiles of nearly equal size, at most ROW_TILE: tile i starts at channel tile_start(i). */
INLINE ptrdiff_t tile_count(ptrdiff_t rows) { return (rows + ROW_TILE - 1) / ROW_TILE; }
INLINE ptrdiff_t tile_start(ptrdiff_t rows, ptrdiff_t i) { return i * rows / tile_count(rows); }

/* packed[tile][d][ROW_TILE] */
static void pack_weight(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, ptrdiff_t filter_width,
                        const struct direct_phase *phase, ptrdiff_t channels, ptrdiff_t rows, void *packed)
{
    real *to = packed;
    for (ptrdiff_t i = 0; i < tile_count(rows); i++) {
        ptrdiff_t k = tile_start(rows, i), count = tile_start(rows, i + 1) - k;
        for (ptrdiff_t y = 0; y < phase->taps[0].count; y++)
            for (ptrdiff_t c = 0; c < channels; c++)
                for (ptrdiff_t x = 0; x < phase->taps[1].count; x++, to += ROW_TILE) {
                    ptrdiff_t tap = phase->taps[0].index[y] * filter_width + phase->taps[1].index[x];
                    const real *from = (const real *)weight + k * row_stride + c * channel_stride + tap;
                    for (ptrdiff_t row = 0; row < count; row++) to[row] = from[row * row_stride];
                }
    }
}

/* Lanes first ... end - 1 from an array's elements 0, 2, 4, ..., which ends with the last of them; zeros around them. */
INLINE vec load_even(const real *from, ptrdiff_t first, ptrdiff_t end)
{
    if (first == 0 && end > LANES) return VEC_EVEN(vec_load(from), vec_load(from + LANES));
    ptrdiff_t low = 2 * first, high = 2 * end - 1;
    return VEC_EVEN(vec_load_lanes(from, smaller(low, LANES), smaller(high, LANES)),
                    vec_load_lanes(from + LANES, larger(low - LANES, 0), smaller(larger(high - LANES, 0), LANES)));
}

/* Lanes first ... end - 1 from every `stride`-th element. Whole vectors of stride 4 read up to a step further, so that is
 * done where another element follows. */
INLINE vec load_strided(const real *from, ptrdiff_t stride, ptrdiff_t first, ptrdiff_t end)
{
    if (stride == 1)
        return first == 0 && end >= LANES ? vec_load(from) : vec_load_lanes(from, first, smaller(end, LANES));
    if (stride == 2) return load_even(from, first, end);
    if (first == 0 && end > LANES && stride == 4) {
        vec low = VEC_EVEN(vec_load(from), vec_load(from + LANES));
        vec high = VEC_EVEN(vec_load(from + 2 * LANES), vec_load(from + 3 * LANES));
        return VEC_EVEN(low, high);
    }
    real lanes[LANES] = {0};
    for (ptrdiff_t lane = first; lane < smaller(end, LANES); lane++) lanes[lane] = from[lane * stride];
    return vec_load(lanes);
}

/* to[i][image] = from[image][i * step] for i < count, images `image_stride` apart; the lanes of images that do not exist
 * are zeros. */
static void interleave(const real *from, ptrdiff_t image_stride, ptrdiff_t images, ptrdiff_t step, ptrdiff_t count,
                       real *to)
{
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        vec square[LANES];
        for (int image = 0; image < LANES; image++)
            square[image] =
                image < images ? load_strided(from + image * image_stride + i * step, step, 0, count - i) : (vec){0};
        vec_transpose(square);
#pragma GCC unroll 16 /* or GCC calls memcpy() */
        for (ptrdiff_t j = 0; j < LANES; j++)
            if (i + j < count) vec_store(to + (i + j) * LANES, square[j]);
    }
}

/* first ... end - 1 of something */
struct range {
    ptrdiff_t first, end;
};

/* Where an image stands under a row of the copy, that begins at `from`: elements first ... end - 1 are inside, `step` apart. */
struct row_source {
    const real *from;
    ptrdiff_t first, end, step;
};

INLINE void copy_row_strided(const struct row_source *row, const ptrdiff_t step, ptrdiff_t pitch, real *to)
{
    for (ptrdiff_t x = 0; x < pitch; x += LANES) {
        ptrdiff_t low = smaller(larger(row->first - x, 0), LANES), high = larger(row->end - x, 0);
        vec value = low < high ? load_strided(row->from + x * step, step, low, high) : (vec){0};
        vec_store(to + x, value);
    }
}

static void copy_row(const struct row_source *row, ptrdiff_t pitch, real *to)
{
    if (row->step == 1)
        copy_row_strided(row, 1, pitch, to);
    else
        copy_row_strided(row, row->step, pitch, to);
}

static void copy_row_of_images(const struct row_source *row, ptrdiff_t image_stride, ptrdiff_t images, ptrdiff_t pitch,
                               real *to)
{
    ptrdiff_t first = smaller(row->first, pitch), end = larger(first, smaller(row->end, pitch));
    for (ptrdiff_t x = 0; x < first; x++) vec_store(to + x * LANES, (vec){0});
    interleave(row->from + first * row->step, image_stride, images, row->step, end - first, to + first * LANES);
    for (ptrdiff_t x = end; x < pitch; x++) vec_store(to + x * LANES, (vec){0});
}

/* Where rows of the image stand under the rows of the copy's plane (phase_y, phase_x). */
struct plane_source {
    ptrdiff_t y, stride, height;             /* row of the image under the copy's first, and from there to the next */
    ptrdiff_t offset, row, first, end, step; /* of elements; row is from one row of the image to the next */
};

static struct plane_source find_plane(const struct direct_geometry *g, ptrdiff_t band_start, ptrdiff_t phase_y,
                                      ptrdiff_t phase_x)
{
    ptrdiff_t shift = phase_x + g->first[1], step = g->stride[1];
    return (struct plane_source){.y = band_start * g->stride[0] + phase_y + g->first[0],
                                 .stride = g->stride[0],
                                 .height = g->in_size[0],
                                 .offset = shift * g->in_stride[1],
                                 .row = g->in_stride[0],
                                 .first = shift < 0 ? (-shift + step - 1) / step : 0,
                                 .end = g->in_size[1] > shift ? (g->in_size[1] - shift + step - 1) / step : 0,
                                 .step = step * g->in_stride[1]};
}

/* The row of a channel of the image under a row of the plane. */
INLINE struct row_source find_row(const struct plane_source *plane, const real *channel, ptrdiff_t row)
{
    ptrdiff_t y = plane->y + row * plane->stride;
    int outside = y < 0 || y >= plane->height;
    return (struct row_source){channel + y * plane->row + plane->offset, plane->first, outside ? 0 : plane->end,
                               plane->step};
}

/* square[channel][pixel] from pixels seen.first ... seen.end - 1, `stride` apart, with their channels side by side: of
 * these a vector, or as many as there are. */
INLINE void load_pixels(const real *from, ptrdiff_t stride, struct range seen, ptrdiff_t channels, vec square[LANES])
{
    for (int i = 0; i < LANES; i++)
        square[i] = i >= seen.first && i < seen.end ? vec_load_rest(from + i * stride, channels) : (vec){0};
    vec_transpose(square);
}

/* copy_row() for all channels, which are last. */
static void copy_row_of_pixels(const struct row_source *row, ptrdiff_t pitch, ptrdiff_t channels,
                               ptrdiff_t channel_stride, real *to)
{
    for (ptrdiff_t x = 0; x < pitch; x += LANES)
        for (ptrdiff_t c = 0; c < channels; c += LANES) {
            vec square[LANES];
            load_pixels(row->from + x * row->step + c, row->step, (struct range){row->first - x, row->end - x},
                        channels - c, square);
#pragma GCC unroll 16 /* or GCC calls memcpy() */
            for (ptrdiff_t j = 0; j < LANES; j++)
                if (c + j < channels) vec_store_rest(to + (c + j) * channel_stride + x, square[j], pitch - x);
        }
}

/* The inside of a row of all planes from interleaved images with channels last: `from` has `count` elements, pixels from
 * column `start` on, counted from the first that the copy has. */
static void interleave_pixels(const struct direct_geometry *g, const real *from, ptrdiff_t images, ptrdiff_t start,
                              ptrdiff_t count, real *to)
{
    ptrdiff_t plane = plane_rows(g) * row_pitch(g), channel_stride = phase_count(g, 0) * phase_count(g, 1) * plane;
    ptrdiff_t x = start, c = 0, place = x % g->stride[1] * plane + x / g->stride[1];
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        real square[LANES * LANES];
        interleave(from + i, g->in_image_stride, images, 1, smaller(LANES, count - i), square);
        for (ptrdiff_t j = 0; j < smaller(LANES, count - i); j++) {
            if (x % g->stride[1] < phase_count(g, 1) && x / g->stride[1] < row_pitch(g))
                vec_store(to + (place + c * channel_stride) * LANES, vec_load(square + j * LANES));
            if (++c == g->channels) {
                c = 0;
                x++;
                place = x % g->stride[1] * plane + x / g->stride[1];
            }
        }
    }
}

/* copy_band() of several images, or of many channels, with channels last. */
static void copy_last_band(const struct direct_geometry *g, const real *input, ptrdiff_t images, ptrdiff_t band_start,
                           ptrdiff_t used, real *copy)
{
    ptrdiff_t pitch = row_pitch(g), rows = plane_rows(g), phases_y = phase_count(g, 0), phases_x = phase_count(g, 1);
    ptrdiff_t channel_stride = phases_y * phases_x * rows * pitch;
    if (g->interleave > 1) memset(copy, 0, (size_t)(g->channels * channel_stride * LANES) * sizeof(real));
    for (ptrdiff_t phase_y = 0; phase_y < phases_y; phase_y++)
        for (ptrdiff_t row = 0; row < used; row++) {
            real *to = copy + (phase_y * phases_x * rows + row) * pitch * g->interleave;
            if (g->interleave == 1) {
                for (ptrdiff_t phase_x = 0; phase_x < phases_x; phase_x++, to += rows * pitch) {
                    struct plane_source plane = find_plane(g, band_start, phase_y, phase_x);
                    struct row_source source = find_row(&plane, input, row);
                    copy_row_of_pixels(&source, pitch, g->channels, channel_stride, to);
                }
                continue;
            }
            ptrdiff_t y = (band_start + row) * g->stride[0] + phase_y + g->first[0], x = larger(0, g->first[1]);
            if (y >= 0 && y < g->in_size[0])
                interleave_pixels(g, input + y * g->in_stride[0] + x * g->in_stride[1], images, x - g->first[1],
                                  (g->in_size[1] - x) * g->channels, to);
        }
}

/* Copies what `height` output rows from band_start on see of one image, or of those from there on that are interleaved. */
static void copy_band(const struct direct_geometry *g, const real *input, ptrdiff_t image, ptrdiff_t band_start,
                      ptrdiff_t height, real *copy)
{
    ptrdiff_t images = smaller(g->interleave, g->images - image);
    input += image * g->in_image_stride;
    ptrdiff_t pitch = row_pitch(g), rows = plane_rows(g), used = height + g->reach[0] / g->stride[0];
    ptrdiff_t phases_y = phase_count(g, 0), phases_x = phase_count(g, 1);
    if (g->channels_last && (g->interleave > 1 || g->channels >= LEAST_PIXEL)) {
        copy_last_band(g, input, images, band_start, used, copy);
        return;
    }
    for (ptrdiff_t i = 0; i < g->channels * phases_y; i++)
        for (ptrdiff_t phase_x = 0; phase_x < phases_x; phase_x++, copy += rows * pitch * g->interleave) {
            const real *channel = input + i / phases_y * g->in_channel_stride;
            struct plane_source plane = find_plane(g, band_start, i % phases_y, phase_x);
            for (ptrdiff_t row = 0; row < used; row++) {
                struct row_source source = find_row(&plane, channel, row);
                if (g->interleave == 1)
                    copy_row(&source, pitch, copy + row * pitch);
                else
                    copy_row_of_images(&source, g->in_image_stride, images, pitch, copy + row * pitch * LANES);
            }
        }
}

/* The rows of taps that any of the band's output rows y.first ... y.end - 1 sees inside the image. The taps' positions
 * rise or fall steadily, so the others are at the ends. */
static struct range seen_taps(const struct direct_geometry *g, const struct direct_phase *phase, ptrdiff_t band_start,
                              struct range y)
{
    ptrdiff_t low = (band_start + y.first) * g->stride[0] + g->first[0];
    ptrdiff_t high = (band_start + y.end - 1) * g->stride[0] + g->first[0];
    struct range rows = {0, phase->taps[0].count};
#define OUTSIDE(row) (high + phase->taps[0].position[row] < 0 || low + phase->taps[0].position[row] >= g->in_size[0])
    while (rows.first < rows.end && OUTSIDE(rows.first)) rows.first++;
    while (rows.first < rows.end && OUTSIDE(rows.end - 1)) rows.end--;
#undef OUTSIDE
    return rows;
}

/* Neighbouring outputs of one row in one vector: lanes of the panel, and where they go in an output plane. */
struct run {
    ptrdiff_t lane, count, target;
};

/* A panel: the vectors of outputs that a micro-kernel computes together. */
struct panel {
    ptrdiff_t base[MOST_VECTORS];  /* offset of each vector's first output in the copy */
    ptrdiff_t place[MOST_VECTORS]; /* ... and in what the micro-kernel writes */
    struct range y;                /* rows of outputs */
    ptrdiff_t runs;
    struct run run[MOST_LANES];
};

/* How the positions of a band are cut into vectors, and where the next vector starts. */
struct walk {
    ptrdiff_t height, width, pitch;
    ptrdiff_t row_length; /* from row to row: the pitch, or whole vectors where rows start anew */
    ptrdiff_t vectors;    /* that are left */
    ptrdiff_t y, x;
};

static struct walk start_walk(ptrdiff_t height, ptrdiff_t width, ptrdiff_t pitch)
{
    ptrdiff_t row_vectors = (width + LANES - 1) / LANES;
    ptrdiff_t across = ((height - 1) * pitch + width + LANES - 1) / LANES;
    if (height * row_vectors <= across)
        return (struct walk){height, width, pitch, row_vectors * LANES, height * row_vectors, 0, 0};
    return (struct walk){height, width, pitch, pitch, across, 0, 0};
}

/* The next panel of a walk with vectors left. Behind the last one its first is computed again, for nothing. */
static void next_panel(struct walk *at, ptrdiff_t vectors, const ptrdiff_t *out_stride, struct panel *panel)
{
    panel->runs = 0;
    panel->y.first = at->y;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        panel->place[v] = v * LANES;
        if (at->vectors == 0) {
            panel->base[v] = panel->base[0];
            continue;
        }
        at->vectors--;
        panel->base[v] = at->y * at->pitch + at->x;
        for (ptrdiff_t lane = 0, step; lane < LANES && at->y < at->height; lane += step) {
            step = smaller(LANES - lane, at->row_length - at->x);
            ptrdiff_t count = smaller(step, at->width - at->x);
            ptrdiff_t target = at->y * out_stride[0] + at->x * out_stride[1];
            if (count > 0) panel->run[panel->runs++] = (struct run){v * LANES + lane, count, target};
            panel->y.end = at->y + 1;
            at->x += step;
            if (at->x == at->row_length) {
                at->x = 0;
                at->y++;
            }
        }
    }
}

/* Where all vectors are whole and contiguous in the output, the micro-kernel writes them there. */
static int place_in_output(struct panel *panel, ptrdiff_t vectors, ptrdiff_t step)
{
    if (step != 1 || panel->runs != vectors) return 0;
    for (ptrdiff_t v = 0; v < vectors; v++)
        if (panel->run[v].count != LANES) return 0;
    for (ptrdiff_t v = 0; v < vectors; v++) panel->place[v] = panel->run[v].target;
    return 1;
}

/* A panel of interleaved images: outputs `position` ... of `positions` in rows of `width`. Behind the last one it is computed
 * again, for nothing. */
static void panel_of_images(ptrdiff_t position, ptrdiff_t positions, ptrdiff_t vectors, ptrdiff_t width,
                            ptrdiff_t pitch, struct panel *panel)
{
    ptrdiff_t y = position / width, x = position % width;
    panel->y.first = y;
    for (ptrdiff_t v = 0; v < vectors; v++) {
        panel->base[v] = (y * pitch + x) * LANES;
        panel->place[v] = v * LANES;
        panel->y.end = y + 1;
        if (position + v + 1 < positions && ++x == width) {
            x = 0;
            y++;
        }
    }
}

/* target[row][place] = bias[row] + sum over d of a[d][row] * copy[base + offset[d]], or without bias added to it; then
 * activated */
INLINE void multiply_panel(const int rows, ptrdiff_t depth, const real *a, const real *copy, const ptrdiff_t *offset,
                           const struct panel *panel, const real *bias, int accumulate, real slope, real *target,
                           ptrdiff_t row_stride)
{
    const int vectors = panel_vectors(rows);
    vec sum[ROW_TILE][MOST_VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[row][v] = vec_set(accumulate ? 0 : bias[row]);

    const real *from[MOST_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) from[v] = copy + panel->base[v];

    for (ptrdiff_t d = 0; d < depth; d++, a += ROW_TILE) {
        ptrdiff_t at = offset[d];
        vec column[MOST_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) column[v] = vec_load(from[v] + at);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            vec value = vec_set(a[row]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[row][v] += value * column[v];
        }
    }

    if (accumulate)
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[row][v] += vec_load(target + row * row_stride + panel->place[v]);
    if (slope != 1)
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[row][v] = epilogue_activate(sum[row][v], slope);
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) vec_store(target + row * row_stride + panel->place[v], sum[row][v]);
}

static void multiply_some_panel(ptrdiff_t rows, ptrdiff_t depth, const real *a, const real *copy,
                                const ptrdiff_t *offset, const struct panel *panel, const real *bias, int accumulate,
                                real slope, real *target, ptrdiff_t row_stride)
{
#define ROWS(count) multiply_panel(count, depth, a, copy, offset, panel, bias, accumulate, slope, target, row_stride)
    SWITCH_ROWS(rows);
#undef ROWS
}

/* What a tile of output channels is computed from, in one phase and band, and how the micro-kernels activate it. */
struct product {
    const struct direct_geometry *geometry;
    const struct direct_phase *phase;
    ptrdiff_t band_start, height, rows;
    const real *weight, *copy, *bias;
    real slope;
};

/* One panel: the rows of taps that it sees, in blocks which begin at the same depths for every panel. The first block's sum
 * begins with the bias, which is stored by itself where that block is left out: neighbours of an output, which depend on the
 * threads, must not change how its sum is rounded. */
static void compute_panel(const struct product *p, const struct panel *panel, real *target, ptrdiff_t row_stride)
{
    ptrdiff_t tap_row = p->geometry->channels * p->phase->taps[1].count;
    struct range taps = seen_taps(p->geometry, p->phase, p->band_start, panel->y);
    ptrdiff_t d = taps.first * tap_row, end = taps.end * tap_row;
    int begun = 0;
    do { /* once even without any tap: the output is then the bias */
        ptrdiff_t next = !begun && d >= DEPTH_BLOCK ? d : smaller(end, (d / DEPTH_BLOCK + 1) * DEPTH_BLOCK);
        multiply_some_panel(p->rows, next - d, p->weight + d * ROW_TILE, p->copy, p->phase->offset + d, panel, p->bias,
                            begun, next < end ? 1 : p->slope, target, row_stride);
        d = next, begun = 1;
    } while (d < end);
}

enum { PIXEL = LANES < 8 ? LANES : 8 };

/* Channels last: output[i * step][row] = buffer[row][i] for i < count. PIXEL rows are transposed at a time, by as many
 * rounds of zipping as make vectors of whole pixels. */
static void store_pixels(const real *buffer, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t count, real *output,
                         ptrdiff_t step)
{
    for (; rows > 0; rows -= PIXEL, buffer += PIXEL * row_stride, output += PIXEL) {
        real pixels[PIXEL * LANES];
        vec line[PIXEL], zipped[PIXEL];
        for (int i = 0; i < PIXEL; i++) line[i] = i < rows ? vec_load(buffer + i * row_stride) : (vec){0};
        for (int width = 1; width < PIXEL; width *= 2) {
            for (int i = 0; i < PIXEL / 2; i++) {
                zipped[2 * i] = VEC_ZIP_LOW(line[i], line[i + PIXEL / 2]);
                zipped[2 * i + 1] = VEC_ZIP_HIGH(line[i], line[i + PIXEL / 2]);
            }
            for (int i = 0; i < PIXEL; i++) line[i] = zipped[i];
        }
        for (int i = 0; i < PIXEL; i++) vec_store(pixels + i * LANES, line[i]);
        for (ptrdiff_t i = 0; i < count; i++) {
            const real *from = pixels + i * PIXEL;
            real *to = output + i * step;
            if (rows >= PIXEL) {
                memcpy(to, from, PIXEL * sizeof(real));
                continue;
            }
            if (rows & 4) memcpy(to, from, 4 * sizeof(real)); /* masked stores take longer */
            for (ptrdiff_t j = rows & 4; j < rows; j++) to[j] = from[j];
        }
    }
}

/* Stores the outputs among a buffered panel's lanes. */
static void store_panel(const struct direct_geometry *g, const real *buffer, const struct panel *panel, ptrdiff_t rows,
                        real *output)
{
    ptrdiff_t row_stride = g->out_channel_stride, step = g->out_stride[1];
    if (g->channels_last) {
        for (const struct run *run = panel->run; run < panel->run + panel->runs; run++)
            store_pixels(buffer + run->lane, MOST_LANES, rows, run->count, output + run->target, step);
        return;
    }
    for (ptrdiff_t row = 0; row < rows; row++, buffer += MOST_LANES, output += row_stride)
        for (const struct run *run = panel->run; run < panel->run + panel->runs; run++) {
            real *target = output + run->target;
            if (step == 1)
                vec_store_rest(target, vec_load(buffer + run->lane), run->count);
            else
                for (ptrdiff_t i = 0; i < run->count; i++) target[i * step] = buffer[run->lane + i];
        }
}

/* Pixels are far apart: their lines come while the sums are taken. */
static void prefetch_pixels(const struct direct_geometry *g, const struct panel *panel, const real *output)
{
    for (const struct run *run = panel->run; run < panel->run + panel->runs; run++)
        for (ptrdiff_t i = 0; i < run->count; i++) __builtin_prefetch(output + run->target + i * g->out_stride[1], 1);
}

/* All outputs of one image. */
static void compute_image(const struct product *p, real *output)
{
    const struct direct_geometry *g = p->geometry;
    real buffer[ROW_TILE * MOST_LANES + LANES];
    ptrdiff_t vectors = panel_vectors((int)p->rows);
    struct walk at = start_walk(p->height, p->phase->grid[1], row_pitch(g));
    struct panel panel;
    while (at.vectors > 0) {
        next_panel(&at, vectors, g->out_stride, &panel);
        if (place_in_output(&panel, vectors, g->out_stride[1])) {
            compute_panel(p, &panel, output, g->out_channel_stride);
        } else {
            if (g->channels_last) prefetch_pixels(g, &panel, output);
            compute_panel(p, &panel, buffer, MOST_LANES);
            store_panel(g, buffer, &panel, p->rows, output);
        }
    }
}

/* Stores `count` neighbouring outputs of one channel: output[image][i * step] = buffer[i][image]. */
static void store_images(const real *buffer, ptrdiff_t count, ptrdiff_t images, real *output, ptrdiff_t image_stride,
                         ptrdiff_t step)
{
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        vec square[LANES];
        for (int j = 0; j < LANES; j++) square[j] = i + j < count ? vec_load(buffer + (i + j) * LANES) : (vec){0};
        vec_transpose(square);
        for (ptrdiff_t image = 0; image < images; image++) {
            real *target = output + image * image_stride + i * step, lanes[LANES];
            if (step == 1) {
                vec_store_rest(target, square[image], count - i);
                continue;
            }
            vec_store(lanes, square[image]);
            for (ptrdiff_t j = 0; j < smaller(LANES, count - i); j++) target[j * step] = lanes[j];
        }
    }
}

/* All outputs of interleaved images. */
static void compute_images(const struct product *p, ptrdiff_t images, real *output, real *buffer)
{
    const struct direct_geometry *g = p->geometry;
    ptrdiff_t width = p->phase->grid[1], positions = p->height * width, vectors = panel_vectors((int)p->rows);
    int gapless = g->out_stride[0] == width * g->out_stride[1]; /* a run of outputs goes on in the next row */
    struct panel panel;
    for (ptrdiff_t start = 0; start < positions; start += CHUNK) {
        ptrdiff_t end = smaller(start + CHUNK, positions);
        for (ptrdiff_t i = start; i < end; i += vectors) {
            panel_of_images(i, end, vectors, width, row_pitch(g), &panel);
            compute_panel(p, &panel, buffer + (i - start) * LANES, CHUNK * LANES);
        }
        for (ptrdiff_t i = start; g->channels_last && i < end; i++)
            store_pixels(buffer + (i - start) * LANES, CHUNK * LANES, p->rows, images,
                         output + i / width * g->out_stride[0] + i % width * g->out_stride[1], g->out_image_stride);
        for (ptrdiff_t i = start, count; !g->channels_last && i < end; i += count) {
            ptrdiff_t y = i / width, x = i % width;
            count = gapless ? end - i : smaller(width - x, end - i);
            for (ptrdiff_t row = 0; row < p->rows; row++)
                store_images(buffer + (row * CHUNK + i - start) * LANES, count, images,
                             output + row * g->out_channel_stride + y * g->out_stride[0] + x * g->out_stride[1],
                             g->out_image_stride, g->out_stride[1]);
        }
    }
}

/* Applies an epilogue with residual or sums to a tile's outputs, which are still in the cache. */
static void finish(const struct product *p, const struct conv_epilogue *epilogue, ptrdiff_t unit, ptrdiff_t k,
                   ptrdiff_t images, ptrdiff_t at, real *output)
{
    const struct direct_geometry *g = p->geometry;
    ptrdiff_t count = p->height * p->phase->grid[1];
    for (ptrdiff_t row = 0; row < p->rows; row++, at += g->out_channel_stride) {
        struct channel_sums sums = {0};
        for (ptrdiff_t image = 0; image < images; image++) {
            ptrdiff_t first = at + image * g->out_image_stride;
            const real *residual = epilogue->residual ? (const real *)epilogue->residual + first : NULL;
            epilogue_store(output + first, count, residual, (real)epilogue->slope, output + first, &sums);
        }
        if (epilogue->sums) epilogue_store_sums(epilogue, unit, k + row, &sums);
    }
}

/* The same for all of the `rows` channels of a band, last: sums are taken in lanes. */
static void finish_last(const struct direct_geometry *g, const struct conv_epilogue *epilogue, ptrdiff_t unit,
                        ptrdiff_t rows, ptrdiff_t height, ptrdiff_t images, ptrdiff_t at, real *output)
{
    for (ptrdiff_t k = 0; k < rows; k += LANES) {
        struct channel_sums sums = {0};
        for (ptrdiff_t image = 0; image < images; image++)
            for (ptrdiff_t i = 0; i < height * g->grid[1]; i++) {
                ptrdiff_t place = at + image * g->out_image_stride + i * rows + k;
                const real *residual = epilogue->residual ? (const real *)epilogue->residual + place : NULL;
                epilogue_store_pixel(vec_load_rest(output + place, rows - k), rows - k, residual, (real)epilogue->slope,
                                     output + place, &sums);
            }
        if (epilogue->sums) epilogue_store_channels(epilogue, unit, k, rows - k, &sums);
    }
}

/* Output rows band_start ... of all phases, all of a group's `rows` output channels, of one image or of those from there on
 * that are interleaved: the unit of the epilogue's sums. These and a residual are for a single phase. `input` points at the
 * group's first channel, packed_weight at its first phase; of the outputs it is channel `first`. */
static void tile(const struct direct_geometry *g, const struct direct_phase *phase, ptrdiff_t phases, const void *input,
                 const void *packed_weight, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t image, ptrdiff_t band_start,
                 const struct conv_epilogue *epilogue, void *output, void *scratch)
{
    const real no_bias[ROW_TILE] = {0}, *bias = epilogue->bias;
    const int late = epilogue->residual || epilogue->sums;
    ptrdiff_t unit = image / g->interleave * ((g->grid[0] + g->band - 1) / g->band) + band_start / g->band;
    ptrdiff_t images = smaller(g->interleave, g->images - image);
    real *copy = scratch;
    copy_band(g, input, image, band_start, smaller(g->band, g->grid[0] - band_start), copy);
    for (const real *weight = packed_weight; phases > 0; phases--, phase++) {
        ptrdiff_t depth = g->channels * phase->taps[0].count * phase->taps[1].count;
        ptrdiff_t height = smaller(g->band, phase->grid[0] - band_start);
        ptrdiff_t plane = image * g->out_image_stride + phase->target + band_start * g->out_stride[0];
        for (ptrdiff_t i = 0; i < tile_count(rows); i++, weight += depth * ROW_TILE) {
            if (height <= 0 || phase->grid[1] == 0) continue;
            ptrdiff_t k = first + tile_start(rows, i), at = plane + k * g->out_channel_stride;
            struct product product = {.geometry = g,
                                      .phase = phase,
                                      .band_start = band_start,
                                      .height = height,
                                      .rows = tile_start(rows, i + 1) - tile_start(rows, i),
                                      .weight = weight,
                                      .copy = copy,
                                      .bias = bias ? bias + k : no_bias,
                                      .slope = late ? 1 : (real)epilogue->slope};
            if (g->interleave == 1)
                compute_image(&product, (real *)output + at);
            else
                compute_images(&product, images, (real *)output + at, copy + copy_size(g));
            if (late && !g->channels_last) finish(&product, epilogue, unit, k, images, at, output);
        }
        if (late && g->channels_last) finish_last(g, epilogue, unit, rows, height, images, plane, output);
    }
}

INLINE vec load_lanes(const real *p, const int whole, ptrdiff_t count)
{ return whole ? vec_load(p) : vec_load_tail(p, count); }

/* sum[row][column] += grad[row] * copy[offset[column]]. Of the copy nothing is read behind `count` lanes, so that a NaN
 * there does no harm; the gradient has zeros there. */
INLINE void multiply_gradient(const int rows, const int columns, const real *grad, ptrdiff_t grad_stride,
                              const real *copy, const ptrdiff_t *offset, const int whole, ptrdiff_t count,
                              vec sum[GRADIENT_ROWS][MOST_VECTORS])
{
    vec kept[MOST_VECTORS];
    if (rows < columns) { /* the fewer operands stay in registers */
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) kept[row] = vec_load(grad + row * grad_stride);
#pragma GCC unroll 8
        for (int column = 0; column < columns; column++) {
            vec seen = load_lanes(copy + offset[column], whole, count);
#pragma GCC unroll 8
            for (int row = 0; row < rows; row++) sum[row][column] += kept[row] * seen;
        }
    } else {
#pragma GCC unroll 8
        for (int column = 0; column < columns; column++) kept[column] = load_lanes(copy + offset[column], whole, count);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            vec value = vec_load(grad + row * grad_stride);
#pragma GCC unroll 8
            for (int column = 0; column < columns; column++) sum[row][column] += value * kept[column];
        }
    }
}

/* The bands that are reduced together: `images` of them (or of groups of interleaved images), of `height` output rows, and
 * where they stand. */
struct bands {
    ptrdiff_t images, height;
    ptrdiff_t width, pitch; /* elements of a row of outputs, and from row to row of the copy */
    ptrdiff_t grad_row;     /* elements of a copied row of the gradient: whole vectors */
    ptrdiff_t copy_image;   /* elements from one image's copy to the next */
};

/* partial[row][column] (+)= the sums over the positions in the rows `seen` of the bands, lane by lane */
INLINE void accumulate_gradient(const int rows, const struct bands *b, const real *grad, const real *copy,
                                const ptrdiff_t *offset, struct range seen, real *partial, ptrdiff_t partial_stride,
                                int accumulate)
{
    const int columns = accumulator_columns(rows);
    ptrdiff_t at[MOST_VECTORS], grad_stride = b->images * b->height * b->grad_row;
    vec sum[GRADIENT_ROWS][MOST_VECTORS];
#pragma GCC unroll 8
    for (int column = 0; column < columns; column++) at[column] = offset[column];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int column = 0; column < columns; column++) sum[row][column] = (vec){0};

    for (ptrdiff_t image = 0; image < b->images; image++)
        for (ptrdiff_t y = seen.first; y < seen.end; y++) {
            const real *from = copy + image * b->copy_image + y * b->pitch;
            const real *by = grad + (image * b->height + y) * b->grad_row;
            ptrdiff_t x = 0;
            for (; x + LANES <= b->width; x += LANES)
                multiply_gradient(rows, columns, by + x, grad_stride, from + x, at, 1, LANES, sum);
            if (x < b->width) multiply_gradient(rows, columns, by + x, grad_stride, from + x, at, 0, b->width - x, sum);
        }

#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int column = 0; column < columns; column++) {
            real *target = partial + row * partial_stride + column * LANES;
            vec_store(target, accumulate ? vec_load(target) + sum[row][column] : sum[row][column]);
        }
}

/* Where a band of the gradient begins, counted through the images (or groups of interleaved ones). */
INLINE const real *find_band(const struct direct_geometry *g, const real *grad, ptrdiff_t unit)
{
    ptrdiff_t bands = (g->grid[0] + g->band - 1) / g->band;
    return grad + unit / bands * g->interleave * g->out_image_stride + unit % bands * g->band * g->out_stride[0];
}

/* Copies the gradient of the bands, or of `images` interleaved ones, for one output channel; each row is padded with zeros to
 * whole vectors. */
static void copy_gradient(const struct direct_geometry *g, const struct bands *b, const real *grad, ptrdiff_t images,
                          real *to)
{
    if (g->interleave > 1) {
        interleave(grad, g->out_image_stride, images, 1, b->height * g->grid[1], to);
        return;
    }
    for (ptrdiff_t i = 0; i < b->images; i++, grad += g->out_image_stride)
        for (ptrdiff_t y = 0; y < b->height; y++)
            for (ptrdiff_t x = 0; x < b->width; x += LANES, to += LANES)
                vec_store(to, vec_load_rest(grad + y * b->width + x, b->width - x));
}

/* The same for `rows` output channels, at most LANES, which are last. */
static void copy_last_gradients(const struct direct_geometry *g, const struct bands *b, const real *grad,
                                ptrdiff_t rows, ptrdiff_t images, real *to)
{
    ptrdiff_t row_stride = b->images * b->height * b->grad_row, positions = b->height * g->grid[1];
    struct range seen = {0, images};
    for (ptrdiff_t i = 0, x = 0; i < b->images * positions; to += LANES) {
        const real *from = grad + i / positions * g->out_image_stride + i % positions * g->out_stride[1];
        vec square[LANES];
        if (g->interleave > 1) {
            load_pixels(from, g->out_image_stride, seen, rows, square);
            i++;
        } else {
            ptrdiff_t count = smaller(LANES, b->width - x);
            load_pixels(from, g->out_stride[1], (struct range){0, count}, rows, square);
            i += count;
            x = (x + count) % b->width;
        }
#pragma GCC unroll 16 /* or GCC calls memcpy() */
        for (ptrdiff_t row = 0; row < LANES; row++)
            if (row < rows) vec_store(to + row * row_stride, square[row]);
    }
}

/* A part of the gradients of `rows` output channels, from `grad` on, that are copied next: they come from memory while products
 * are computed. */
static void send_gradients(const struct direct_geometry *g, const struct bands *b, const real *grad, ptrdiff_t rows,
                           struct range part, ptrdiff_t parts)
{
    const ptrdiff_t count = b->height * b->width, line = 64 / sizeof(real);
    for (ptrdiff_t image = 0; image < b->images; image++, grad += g->out_image_stride)
        for (ptrdiff_t row = 0; row < rows; row++) {
            const real *from = grad + row * g->out_channel_stride;
            for (ptrdiff_t i = part.first * count / parts; i < part.end * count / parts; i += line)
                __builtin_prefetch(from + i, 0, 2);
        }
}

/* The sum of one output channel of the bands, from its copy. */
static double sum_gradient(const struct bands *b, const real *grad)
{
    double total = 0;
    for (ptrdiff_t image = 0; image < b->images; image++) {
        vec sum = {0};
        for (ptrdiff_t i = 0; i < b->height * b->grad_row; i += LANES, grad += LANES) sum += vec_load(grad);
        total += (double)vec_sum(sum);
    }
    return total;
}

/* Small images are reduced several at a time. */
static ptrdiff_t images_together(const struct direct_geometry *g)
{
    if (g->interleave > 1 || g->band < g->grid[0]) return 1;
    return larger(1, GRADIENT_POSITIONS / (g->grid[0] * g->grid[1]));
}

/* Vectors of sums per output channel: one per channel and tap, and room for a last tile. */
static ptrdiff_t sum_vectors(ptrdiff_t depth) { return depth + MOST_VECTORS; }

static ptrdiff_t gradient_row(const struct direct_geometry *g)
{ return (g->grid[1] * g->interleave + LANES - 1) / LANES * LANES; }

/* Bytes for weight_tile(): copies of the gradient, and of the images, and a vector of sums per weight. */
static ptrdiff_t weight_scratch_size(const struct direct_geometry *g, ptrdiff_t depth, ptrdiff_t rows)
{
    ptrdiff_t gradients = GRADIENT_ROWS * images_together(g) * g->band * gradient_row(g);
    ptrdiff_t elements = gradients + rows * sum_vectors(depth) * LANES + images_together(g) * copy_size(g);
    return elements * (ptrdiff_t)sizeof(real);
}

/* target[i] = sum of the lanes of sums[order[i]] */
static void add_lanes(const real *sums, const ptrdiff_t *order, ptrdiff_t depth, real *target)
{
    for (ptrdiff_t d = 0; d < depth; d += LANES) {
        vec square[LANES];
        for (int i = 0; i < LANES; i++) square[i] = d + i < depth ? vec_load(sums + order[d + i] * LANES) : (vec){0};
        vec_transpose(square);
        for (int width = LANES / 2; width > 0; width /= 2)
            for (int i = 0; i < width; i++) square[i] += square[i + width];
        vec_store_rest(target + d, square[0], depth - d);
    }
}

/* The band's output rows that see the image under any of the taps of depths d.first ... d.end - 1. */
static struct range seen_rows(const struct direct_geometry *g, const struct direct_phase *phase, ptrdiff_t band_start,
                              ptrdiff_t height, struct range d)
{
    ptrdiff_t tap_row = g->channels * phase->taps[1].count, step = g->stride[0];
    ptrdiff_t lowest = phase->taps[0].position[d.first / tap_row],
              highest = phase->taps[0].position[(d.end - 1) / tap_row];
    ptrdiff_t above = -(band_start * step + g->first[0] + highest); /* rows of the image */
    ptrdiff_t below = g->in_size[0] - (band_start * step + g->first[0] + lowest);
    struct range seen = {above > 0 ? (above + step - 1) / step : 0, below > 0 ? (below + step - 1) / step : 0};
    seen.end = smaller(seen.end, height);
    return seen;
}

/* partial[k][c * T + t] = sum over `units` bands from `unit` on, counted through the images (or groups of interleaved ones).
 * `input` points at the group's first channel, `grad_output` at the first of the `rows` output channels. Unless
 * bias_sums is NULL, the sums of the gradient are added to it. */
static void weight_tile(const struct direct_geometry *g, const struct direct_phase *phase, const void *input,
                        const void *grad_output, ptrdiff_t rows, ptrdiff_t unit, ptrdiff_t units, void *partial,
                        double *bias_sums, void *scratch)
{
    ptrdiff_t bands = (g->grid[0] + g->band - 1) / g->band,
              depth = g->channels * phase->taps[0].count * phase->taps[1].count;
    ptrdiff_t together = g->channels_last ? LANES : 1; /* output channels whose gradients are copied */
    ptrdiff_t stride = sum_vectors(depth) * LANES, tiles = (rows + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
    struct bands b = {.width = g->grid[1] * g->interleave,
                      .pitch = row_pitch(g) * g->interleave,
                      .grad_row = gradient_row(g),
                      .copy_image = copy_size(g)};
    real *grads = scratch, *sums = grads + GRADIENT_ROWS * images_together(g) * g->band * b.grad_row;
    real *copy = sums + rows * stride;
    for (ptrdiff_t done = 0; done < units; done += b.images) {
        ptrdiff_t image = (unit + done) / bands * g->interleave, start = (unit + done) % bands * g->band;
        b.images = smaller(images_together(g), units - done);
        b.height = smaller(g->band, g->grid[0] - start);
        const ptrdiff_t images = smaller(g->interleave, g->images - image);
        /* those that any tap sees: tiles of taps, which depend on the threads, must not decide what meets a NaN */
        const struct range seen = seen_rows(g, phase, start, b.height, (struct range){0, depth});
        const real *band = find_band(g, grad_output, unit + done);
        for (ptrdiff_t i = 0; i < b.images; i++)
            copy_band(g, input, image + i, start, b.height, copy + i * b.copy_image);
        for (ptrdiff_t i = 0; i < tiles; i++) {
            ptrdiff_t k = i * rows / tiles, count = (i + 1) * rows / tiles - k;
            const real *from = band + k * g->out_channel_stride;
            for (ptrdiff_t row = 0; row < count; row += together) {
                real *to = grads + row * b.images * b.height * b.grad_row;
                if (g->channels_last)
                    copy_last_gradients(g, &b, from + row, smaller(together, count - row), images, to);
                else
                    copy_gradient(g, &b, from + row * g->out_channel_stride, images, to);
            }
            for (ptrdiff_t row = 0; row < (bias_sums ? count : 0); row++)
                bias_sums[k + row] += sum_gradient(&b, grads + row * b.images * b.height * b.grad_row);
            const real *next = from + count * g->out_channel_stride;
            if (i + 1 == tiles)
                next = done + b.images < units ? find_band(g, grad_output, unit + done + b.images) : NULL;
            for (ptrdiff_t d = 0; d < depth; d += accumulator_columns((int)count)) {
                const ptrdiff_t *offset = phase->offset + d;
                struct range part = {d, smaller(d + accumulator_columns((int)count), depth)};
                if (next && g->interleave == 1 && !g->channels_last) send_gradients(g, &b, next, count, part, depth);
                real *to = sums + k * stride + d * LANES;
#define ROWS(count) accumulate_gradient(count, &b, grads, copy, offset, seen, to, stride, done > 0)
                switch (count) {
                case 1: ROWS(1); break;
                case 2: ROWS(2); break;
                case 3: ROWS(3); break;
#if VEC_BYTES == 64
                case 4: ROWS(4); break;
                case 5: ROWS(5); break;
#endif
                default: ROWS(GRADIENT_ROWS);
                }
#undef ROWS
            }
        }
    }
    for (ptrdiff_t k = 0; k < rows; k++) add_lanes(sums + k * stride, phase->order, depth, (real *)partial + k * depth);
}

const struct direct_kernels FASTNN_TABLE(direct) = {
    .lanes = LANES,
    .row_tile = ROW_TILE,
    .gradient_positions = GRADIENT_POSITIONS,
    .spare_offsets = MOST_VECTORS,
    .scratch_size = scratch_size,
    .fill_offsets = fill_offsets,
    .pack_weight = pack_weight,
    .tile = tile,
    .weight_scratch_size = weight_scratch_size,
    .weight_tile = weight_tile,
};

/* Convolution of 1 or 2 spatial dimensions straight from a padded copy of the image, for layers where the packing of a
 * matrix product costs more than its product: few channels, few rows, large filters.
 *
 * A band of output rows is computed at a time. The part of the image that it sees is copied once, bordered by zeros and
 * split by the remainder of its position by the stride:
 *
 *   copy[channel][y % stride][x % stride][y / stride][x / stride], rows `pitch` apart
 *
 * Output position (y, x) then finds tap t of channel c at offset[c * T + t] + y * pitch + x: every tap is a plain vector
 * load, with no border to check and nothing to pack. Vectors of outputs either start anew with each row or run on across
 * rows (their lanes in the gap between two rows are wasted), whichever needs fewer of them.
 *
 *   forward           out[k,p]  = bias[k] + sum over c, t of weight[k,c,t] * copy[p + offset[c * T + t]]
 *   backward-data     the same for each phase of the stride, with the gradient as image and the weights transposed
 *   backward-weights  dw[k,c,t] = sum over images, p of dout[k,p] * copy[p + offset[c * T + t]]
 *
 * K output channels, C channels of the image (both per group), T filter positions (taps), depth d = c * T + t.
 * Packed weights: [tile of up to ROW_TILE output channels][d][ROW_TILE].
 */
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
/* Longer sums are taken in blocks of so many terms, which keeps their rounding errors small. */
enum { DEPTH_BLOCK = 256 };
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

/* Bytes of the copied band. A row is written in whole vectors, and the last vector of positions begins at a position
 * that exists, which even at the largest offset lies in the band: both go less than a vector past its end. */
static ptrdiff_t scratch_size(const struct direct_geometry *g)
{
    ptrdiff_t planes = g->channels * phase_count(g, 0) * phase_count(g, 1);
    return (planes * plane_rows(g) * row_pitch(g) + LANES - 1) * (ptrdiff_t)sizeof(real);
}

/* offset[c * T + t], from the taps' positions [T][2] */
static void fill_offsets(const struct direct_geometry *g, ptrdiff_t taps, const ptrdiff_t *tap, ptrdiff_t *offset)
{
    ptrdiff_t plane = plane_rows(g) * row_pitch(g), phases_x = phase_count(g, 1);
    ptrdiff_t channel_planes = phase_count(g, 0) * phases_x;
    for (ptrdiff_t c = 0; c < g->channels; c++)
        for (ptrdiff_t t = 0; t < taps; t++) {
            ptrdiff_t y = tap[2 * t], x = tap[2 * t + 1];
            ptrdiff_t phase = y % g->stride[0] * phases_x + x % g->stride[1];
            *offset++ = (c * channel_planes + phase) * plane + y / g->stride[0] * row_pitch(g) + x / g->stride[1];
        }
}

/* Output channels come in tiles of nearly equal size, at most ROW_TILE: tile i starts at channel tile_start(i). */
INLINE ptrdiff_t tile_count(ptrdiff_t rows) { return (rows + ROW_TILE - 1) / ROW_TILE; }
INLINE ptrdiff_t tile_start(ptrdiff_t rows, ptrdiff_t i) { return i * rows / tile_count(rows); }

/* packed[tile][c * T + t][ROW_TILE] */
static void pack_weight(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, const ptrdiff_t *tap_index,
                        ptrdiff_t taps, ptrdiff_t channels, ptrdiff_t rows, void *packed)
{
    real *to = packed;
    for (ptrdiff_t i = 0; i < tile_count(rows); i++) {
        ptrdiff_t k = tile_start(rows, i), count = tile_start(rows, i + 1) - k;
        for (ptrdiff_t c = 0; c < channels; c++)
            for (ptrdiff_t t = 0; t < taps; t++, to += ROW_TILE) {
                const real *from = (const real *)weight + k * row_stride + c * channel_stride + tap_index[t];
                for (ptrdiff_t row = 0; row < count; row++) to[row] = from[row * row_stride];
            }
    }
}

/* Every `stride`-th element for a vector whose lanes first ... end - 1 exist. Strides of 2 and 4 read up to a step
 * further, so that is done where another element follows. */
INLINE vec load_strided(const real *from, ptrdiff_t stride, ptrdiff_t first, ptrdiff_t end)
{
    if (stride == 1)
        return first == 0 && end >= LANES ? vec_load(from) : vec_load_lanes(from, first, smaller(end, LANES));
    if (first == 0 && end > LANES && stride == 2) return VEC_EVEN(vec_load(from), vec_load(from + LANES));
    if (first == 0 && end > LANES && stride == 4) {
        vec low = VEC_EVEN(vec_load(from), vec_load(from + LANES));
        vec high = VEC_EVEN(vec_load(from + 2 * LANES), vec_load(from + 3 * LANES));
        return VEC_EVEN(low, high);
    }
    real lanes[LANES] = {0};
    for (ptrdiff_t lane = first; lane < smaller(end, LANES); lane++) lanes[lane] = from[lane * stride];
    return vec_load(lanes);
}

/* Copies what `height` output rows from band_start on see of one image. */
static void copy_band(const struct direct_geometry *g, const real *input, ptrdiff_t band_start, ptrdiff_t height,
                      real *copy)
{
    ptrdiff_t pitch = row_pitch(g), rows = plane_rows(g), used = height + g->reach[0] / g->stride[0];
    ptrdiff_t phases_y = phase_count(g, 0), phases_x = phase_count(g, 1), step = g->stride[1];
    for (ptrdiff_t plane = 0; plane < g->channels * phases_y; plane++)
        for (ptrdiff_t phase_x = 0; phase_x < phases_x; phase_x++, copy += rows * pitch) {
            /* elements first ... end - 1 of a row lie inside the image, and `from` is where element 0 would */
            ptrdiff_t shift = phase_x + g->first[1];
            ptrdiff_t first = shift < 0 ? (-shift + step - 1) / step : 0;
            ptrdiff_t end = g->in_size[1] > shift ? (g->in_size[1] - shift + step - 1) / step : 0;
            for (ptrdiff_t row = 0; row < used; row++) {
                ptrdiff_t y = (band_start + row) * g->stride[0] + plane % phases_y + g->first[0];
                const real *from = input + plane / phases_y * g->in_channel_stride + y * g->in_size[1] + shift;
                int outside = y < 0 || y >= g->in_size[0];
                for (ptrdiff_t x = 0; x < pitch; x += LANES) {
                    ptrdiff_t low = smaller(larger(first - x, 0), LANES), high = outside ? 0 : larger(end - x, 0);
                    vec value = low < high ? load_strided(from + x * step, step, low, high) : (vec){0};
                    vec_store(copy + row * pitch + x, value);
                }
            }
        }
}

/* Neighbouring outputs of one row in one vector: lanes of the panel, and where they go in an output plane. */
struct run {
    ptrdiff_t lane, count, target;
};

/* A panel: the vectors of positions that a micro-kernel computes together. */
struct panel {
    ptrdiff_t base[MOST_VECTORS]; /* offset of each vector's first position in the copy */
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
    for (ptrdiff_t v = 0; v < vectors; v++) {
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
            at->x += step;
            if (at->x == at->row_length) {
                at->x = 0;
                at->y++;
            }
        }
    }
}

/* buffer[row][MOST_LANES] (+)= sum over d of a[d][row] * copy[base + offset[d]] */
INLINE void multiply_panel(const int rows, ptrdiff_t depth, const real *a, const real *copy, const ptrdiff_t *base,
                           const ptrdiff_t *offset, int accumulate, real *buffer)
{
    const int vectors = panel_vectors(rows);
    vec sum[ROW_TILE][MOST_VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[row][v] = (vec){0};

    const real *from[MOST_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) from[v] = copy + base[v];

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

#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            real *target = buffer + row * MOST_LANES + v * LANES;
            vec_store(target, accumulate ? vec_load(target) + sum[row][v] : sum[row][v]);
        }
}

static void multiply_some_panel(ptrdiff_t rows, ptrdiff_t depth, const real *a, const real *copy, const ptrdiff_t *base,
                                const ptrdiff_t *offset, int accumulate, real *buffer)
{
    switch (rows) {
    case 1: multiply_panel(1, depth, a, copy, base, offset, accumulate, buffer); break;
    case 2: multiply_panel(2, depth, a, copy, base, offset, accumulate, buffer); break;
    case 3: multiply_panel(3, depth, a, copy, base, offset, accumulate, buffer); break;
    case 4: multiply_panel(4, depth, a, copy, base, offset, accumulate, buffer); break;
    case 5: multiply_panel(5, depth, a, copy, base, offset, accumulate, buffer); break;
#if VEC_BYTES == 64
    case 6: multiply_panel(6, depth, a, copy, base, offset, accumulate, buffer); break;
    case 7: multiply_panel(7, depth, a, copy, base, offset, accumulate, buffer); break;
#endif
    default: multiply_panel(ROW_TILE, depth, a, copy, base, offset, accumulate, buffer);
    }
}

/* Stores the outputs among a buffered panel's lanes, with the bias added. */
static void store_panel(const real *buffer, const struct panel *panel, ptrdiff_t rows, const real *bias, real *output,
                        ptrdiff_t row_stride, ptrdiff_t step)
{
    for (ptrdiff_t row = 0; row < rows; row++, buffer += MOST_LANES, output += row_stride) {
        real added = bias ? bias[row] : 0;
        for (const struct run *run = panel->run; run < panel->run + panel->runs; run++) {
            real *target = output + run->target;
            if (step == 1)
                vec_store_rest(target, vec_load(buffer + run->lane) + vec_set(added), run->count);
            else
                for (ptrdiff_t i = 0; i < run->count; i++) target[i * step] = buffer[run->lane + i] + added;
        }
    }
}

/* Output rows band_start ... of all phases, all of a group's `rows` output channels, of one image. `input`, `bias` and
 * `output` point at the group's first channel, packed_weight at its first phase. */
static void tile(const struct direct_geometry *g, const struct direct_phase *phase, ptrdiff_t phases, const void *input,
                 const void *packed_weight, ptrdiff_t rows, ptrdiff_t band_start, const void *bias, void *output,
                 void *scratch)
{
    real buffer[ROW_TILE * MOST_LANES + LANES];
    struct panel panel;
    real *copy = scratch;
    copy_band(g, input, band_start, smaller(g->band, g->grid[0] - band_start), copy);
    for (const real *weight = packed_weight; phases > 0; phases--, phase++) {
        ptrdiff_t depth = g->channels * phase->taps, height = smaller(g->band, phase->grid[0] - band_start);
        real *plane = (real *)output + phase->target + band_start * g->out_stride[0];
        for (ptrdiff_t i = 0; i < tile_count(rows); i++, weight += depth * ROW_TILE) {
            ptrdiff_t k = tile_start(rows, i), row_count = tile_start(rows, i + 1) - k;
            ptrdiff_t vectors = panel_vectors((int)row_count);
            real *target = plane + k * g->out_channel_stride;
            const real *row_bias = bias ? (const real *)bias + k : NULL;
            struct walk at = start_walk(height, phase->grid[1], row_pitch(g));
            ptrdiff_t d;
            while (height > 0 && at.vectors > 0) {
                next_panel(&at, vectors, g->out_stride, &panel);
                d = 0;
                do { /* once even without any tap: the output is then the bias */
                    multiply_some_panel(row_count, smaller(DEPTH_BLOCK, depth - d), weight + d * ROW_TILE, copy,
                                        panel.base, phase->offset + d, d > 0, buffer);
                    d += DEPTH_BLOCK;
                } while (d < depth);
                store_panel(buffer, &panel, row_count, row_bias, target, g->out_channel_stride, g->out_stride[1]);
            }
        }
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

/* The bands that are reduced together: `images` of them, of `height` output rows, and where they stand. */
struct bands {
    ptrdiff_t images, height, width, pitch;
    ptrdiff_t grad_row;   /* elements of a copied row of the gradient: whole vectors */
    ptrdiff_t copy_image; /* elements from one image's copy to the next */
};

/* partial[row][column] (+)= the sums over the bands' positions, lane by lane */
INLINE void accumulate_gradient(const int rows, const struct bands *b, const real *grad, const real *copy,
                                const ptrdiff_t *offset, real *partial, ptrdiff_t partial_stride, int accumulate)
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
        for (ptrdiff_t y = 0; y < b->height; y++, grad += b->grad_row) {
            const real *from = copy + image * b->copy_image + y * b->pitch;
            ptrdiff_t x = 0;
            for (; x + LANES <= b->width; x += LANES)
                multiply_gradient(rows, columns, grad + x, grad_stride, from + x, at, 1, LANES, sum);
            if (x < b->width)
                multiply_gradient(rows, columns, grad + x, grad_stride, from + x, at, 0, b->width - x, sum);
        }

#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int column = 0; column < columns; column++) {
            real *target = partial + row * partial_stride + column * LANES;
            vec_store(target, accumulate ? vec_load(target) + sum[row][column] : sum[row][column]);
        }
}

/* Copies the gradient of the bands for one output channel, each row padded with zeros to whole vectors. */
static void copy_gradient(const struct bands *b, const real *grad, ptrdiff_t image_stride, real *to)
{
    for (ptrdiff_t image = 0; image < b->images; image++)
        for (ptrdiff_t y = 0; y < b->height; y++) {
            const real *from = grad + image * image_stride + y * b->width;
            for (ptrdiff_t x = 0; x < b->width; x += LANES, to += LANES)
                vec_store(to, vec_load_rest(from + x, b->width - x));
        }
}

/* Small images are reduced several at a time. */
static ptrdiff_t images_together(const struct direct_geometry *g)
{ return g->band < g->grid[0] ? 1 : larger(1, GRADIENT_POSITIONS / (g->grid[0] * g->grid[1])); }

/* Vectors of sums per output channel: one per channel and tap, and room for a last tile and for a last transpose. */
static ptrdiff_t sum_vectors(ptrdiff_t depth) { return (depth + MOST_VECTORS + LANES - 1) / LANES * LANES; }

static ptrdiff_t gradient_row(const struct direct_geometry *g) { return (g->grid[1] + LANES - 1) / LANES * LANES; }

/* Bytes for weight_tile(): copies of the gradient, and of the images, and a vector of sums per weight. */
static ptrdiff_t weight_scratch_size(const struct direct_geometry *g, ptrdiff_t depth, ptrdiff_t rows)
{
    ptrdiff_t gradients = GRADIENT_ROWS * images_together(g) * g->band * gradient_row(g);
    ptrdiff_t elements = gradients + rows * sum_vectors(depth) * LANES;
    return elements * (ptrdiff_t)sizeof(real) + images_together(g) * scratch_size(g);
}

/* target[d] = sum of the lanes of sums[d] */
static void add_lanes(const real *sums, ptrdiff_t depth, real *target)
{
    for (ptrdiff_t d = 0; d < depth; d += LANES, sums += LANES * LANES) {
        vec square[LANES];
        for (int i = 0; i < LANES; i++) square[i] = vec_load(sums + i * LANES);
        vec_transpose(square);
        for (int width = LANES / 2; width > 0; width /= 2)
            for (int i = 0; i < width; i++) square[i] += square[i + width];
        vec_store_rest(target + d, square[0], depth - d);
    }
}

/* partial[k][d] = sum over `units` bands from `unit` on, counted through the images. `input` points at the group's first
 * channel, `grad_output` at the first of the `rows` output channels. */
static void weight_tile(const struct direct_geometry *g, const struct direct_phase *phase, const void *input,
                        const void *grad_output, ptrdiff_t rows, ptrdiff_t unit, ptrdiff_t units, void *partial,
                        void *scratch)
{
    ptrdiff_t bands = (g->grid[0] + g->band - 1) / g->band, depth = g->channels * phase->taps;
    ptrdiff_t stride = sum_vectors(depth) * LANES, tiles = (rows + GRADIENT_ROWS - 1) / GRADIENT_ROWS;
    struct bands b = {.width = g->grid[1],
                      .pitch = row_pitch(g),
                      .grad_row = gradient_row(g),
                      .copy_image = scratch_size(g) / (ptrdiff_t)sizeof(real)};
    real *grads = scratch, *sums = grads + GRADIENT_ROWS * images_together(g) * g->band * b.grad_row;
    real *copy = sums + rows * stride;
    for (ptrdiff_t done = 0; done < units; done += b.images) {
        ptrdiff_t image = (unit + done) / bands, start = (unit + done) % bands * g->band;
        b.images = smaller(images_together(g), units - done);
        b.height = smaller(g->band, g->grid[0] - start);
        for (ptrdiff_t i = 0; i < b.images; i++)
            copy_band(g, (const real *)input + (image + i) * g->in_image_stride, start, b.height,
                      copy + i * b.copy_image);
        for (ptrdiff_t i = 0; i < tiles; i++) {
            ptrdiff_t k = i * rows / tiles, count = (i + 1) * rows / tiles - k;
            const real *grad = (const real *)grad_output + image * g->out_image_stride + start * b.width;
            for (ptrdiff_t row = 0; row < count; row++)
                copy_gradient(&b, grad + (k + row) * g->out_channel_stride, g->out_image_stride,
                              grads + row * b.images * b.height * b.grad_row);
            for (ptrdiff_t d = 0; d < depth; d += accumulator_columns((int)count)) {
                const ptrdiff_t *offset = phase->offset + d;
                real *to = sums + k * stride + d * LANES;
                switch (count) {
                case 1: accumulate_gradient(1, &b, grads, copy, offset, to, stride, done > 0); break;
                case 2: accumulate_gradient(2, &b, grads, copy, offset, to, stride, done > 0); break;
                case 3: accumulate_gradient(3, &b, grads, copy, offset, to, stride, done > 0); break;
#if VEC_BYTES == 64
                case 4: accumulate_gradient(4, &b, grads, copy, offset, to, stride, done > 0); break;
                case 5: accumulate_gradient(5, &b, grads, copy, offset, to, stride, done > 0); break;
#endif
                default: accumulate_gradient(GRADIENT_ROWS, &b, grads, copy, offset, to, stride, done > 0);
                }
            }
        }
    }
    for (ptrdiff_t k = 0; k < rows; k++) add_lanes(sums + k * stride, depth, (real *)partial + k * depth);
}

const struct direct_kernels FASTNN_TABLE(direct) = {
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

/* Backward passes of the convolution by matrix products, see conv.c for the forward and the names:
 *
 *   backward-data     for strides and for few pixels: product[c,t,p] = sum over k of weight[k,c,t] * dout[n,k,p], added up
 *                     over t; else conv.c's tile() with the gradient as input
 *   backward-weights  dw[k,c,t] = sum over n, p of dout[n,k,p] * in[n,c, p * stride + tap(t)]
 *   bias gradient     db[k] = sum over n, p of dout[n,k,p], while the gradient is read for the weights, or by itself
 */
#include "patches.h"

/* Rows of the matrix of patches that backward-weights holds: COLUMN_TILE or more, squares of channels-last pixels and tiles
 * of rows both fill it. */
enum { BUFFER_ROWS = 3 * (int)LANES };

/* rows[pixel][COLUMN_TILE] = sum over k of grad[k][pixel] weight[k][e] for up to COLUMN_TILE neighbouring weights e, rows
 * of which are weight_row apart: each is brought into the cache once, and used for all pixels. */
static void multiply_weights(const real *packed_grad, ptrdiff_t pixels, ptrdiff_t out_channels, ptrdiff_t depth_block,
                             const real *weight, ptrdiff_t weight_row, ptrdiff_t count, real *panel, real *rows)
{
    for (ptrdiff_t start = 0; start < out_channels; start += depth_block) {
        ptrdiff_t depth = smaller(depth_block, out_channels - start);
        pack_panels(weight + start * weight_row, 1, weight_row, count, depth, COLUMN_TILE, panel);
        const real *grad = packed_grad + start * padded_columns(pixels);
        for (ptrdiff_t p = 0; p < pixels; p += COLUMN_TILE, grad += depth * COLUMN_TILE)
            for (ptrdiff_t q = 0, end = smaller(COLUMN_TILE, pixels - p); q < end; q += ROW_TILE) {
                real *to = rows + (p + q) * COLUMN_TILE;
                if (count == COLUMN_TILE && end - q >= ROW_TILE)
                    multiply_rows(ROW_TILE, COLUMN_VECTORS, depth, grad + q, 1, COLUMN_TILE, panel, COLUMN_TILE, to,
                                  COLUMN_TILE, start > 0);
                else
                    multiply_ragged_tile(smaller(ROW_TILE, end - q), count, depth, grad + q, 1, COLUMN_TILE, panel, to,
                                         COLUMN_TILE, start > 0);
            }
    }
}

/* to[e][line_length] from rows[pixel][COLUMN_TILE]; lines hold whole vectors. */
static void turn_rows(const real *rows, ptrdiff_t pixels, ptrdiff_t count, ptrdiff_t line_length, real *to)
{
    for (ptrdiff_t p = 0; p < pixels; p += LANES)
        for (ptrdiff_t e = 0; e < count; e += LANES) {
            vec square[LANES];
            for (ptrdiff_t i = 0; i < LANES; i++)
                square[i] = vec_load(rows + smaller(p + i, pixels - 1) * COLUMN_TILE + e);
            vec_transpose(square);
            for (ptrdiff_t i = 0; i < smaller(LANES, count - e); i++)
                vec_store(to + (e + i) * line_length + p, square[i]);
        }
}

/* sum[pixel] += product under each tap, of one panel and one input channel */
INLINE void add_taps(const struct conv_phase *phase, const struct patches *patches, ptrdiff_t panel,
                     const real *product, ptrdiff_t row_length, real *sum)
{
    for (ptrdiff_t t = 0; t < phase->geometry.taps; t++) {
        const struct lanes *part = patches->part + patches->first[t * patches->panels + panel];
        const struct lanes *end = patches->part + patches->first[t * patches->panels + panel + 1];
        const real *plane = product + phase->position[t] * row_length;
        for (; part < end; part++) {
            real *to = sum + part->vector * LANES;
            vec_store(to, vec_load(to) + load_part(plane, part, 1));
        }
    }
}

/* Stores the sums of one panel of the phase of even columns, and of that of odd ones, as whole rows. */
INLINE void store_pairs(const real *even, const real *odd, const struct pixels *pixels, real *output)
{
    for (const struct run *run = pixels->run; run < pixels->run + pixels->runs; run++)
        for (ptrdiff_t i = 0; i < run->count; i += LANES) {
            real *to = output + pixels->target[run->start] + 2 * i;
            ptrdiff_t rest = 2 * (run->count - i);
            vec a = vec_load(even + run->start + i), b = vec_load(odd + run->start + i);
            vec_store_rest(to, VEC_ZIP_LOW(a, b), rest);
            if (rest > LANES) vec_store_rest(to + LANES, VEC_ZIP_HIGH(a, b), rest - LANES);
        }
}

/* Whether a phase and the next one are the even and the odd columns of the same rows, channels first. */
static int are_pair(const struct conv_phase *phase, ptrdiff_t phases)
{
    return phases > 1 && phase->geometry.out_channel_stride != 1 && phase->geometry.out_stride[2] == 2 &&
           phase->column == 0 && phase[1].column == 1 && phase[1].geometry.grid[2] == phase->geometry.grid[2];
}

/* One panel of LANES or fewer channels from their products, channels last. */
static void add_last_channels(const struct conv_phase *phase, const struct patches *patches, ptrdiff_t i,
                              const struct pixels *pixels, const real *product, ptrdiff_t channel_stride,
                              ptrdiff_t row_length, ptrdiff_t count, const real *bias, real *output)
{
    real sum[LANES][COLUMN_TILE + LANES];
    struct channel_sums ignored = {0};
    for (ptrdiff_t c = 0; c < count; c++) {
        for (int v = 0; v < COLUMN_VECTORS; v++) vec_store(sum[c] + v * LANES, vec_set(bias ? bias[c] : 0));
        add_taps(phase, patches, i, product + c * channel_stride, row_length, sum[c]);
    }
    for (ptrdiff_t j = 0; j < pixels->count; j += LANES)
        store_square(pixels, j, sum[0], COLUMN_TILE + LANES, count, (vec){0}, NULL, 1, output, &ignored);
}

/* The input's gradient at the positions of one phase, or of two that are a pair, from the products of all taps. */
static void add_phases(const struct conv_phase *phase, int pair, const real *product, ptrdiff_t filter,
                       ptrdiff_t row_length, ptrdiff_t channels, const real *bias, real *output, void *scratch)
{
    const struct conv_geometry *g = &phase->geometry;
    ptrdiff_t pixels = count_pixels(g), panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    struct pixels *panel = scratch;
    struct patches patches[2];
    describe_panels(g, 0, pixels, panel);
    void *memory = panel + panels;
    for (int j = 0; j <= pair; j++) {
        patches[j] = find_patches(&phase[j].geometry, panel, panels, memory);
        memory = patches[j].part + patches[j].first[phase[j].geometry.taps * panels];
    }
    output += phase->target;
    if (g->out_channel_stride == 1) {
        for (ptrdiff_t c = 0; c < channels; c += LANES)
            for (ptrdiff_t i = 0; i < panels; i++)
                add_last_channels(phase, patches, i, &panel[i], product + c * filter * row_length, filter * row_length,
                                  row_length, smaller(LANES, channels - c), bias ? bias + c : NULL, output + c);
        return;
    }
    for (ptrdiff_t c = 0; c < channels; c++, product += filter * row_length, output += g->out_channel_stride)
        for (ptrdiff_t i = 0; i < panels; i++) {
            real sum[2][COLUMN_TILE + LANES];
            for (int j = 0; j <= pair; j++) {
                for (int v = 0; v < COLUMN_VECTORS; v++) vec_store(sum[j] + v * LANES, vec_set(bias ? bias[c] : 0));
                add_taps(&phase[j], &patches[j], i, product, row_length, sum[j]);
            }
            if (pair)
                store_pairs(sum[0], sum[1], &panel[i], output);
            else
                scatter_tile(sum[0], &panel[i], 1, NULL, output, 0, 0);
        }
}

static ptrdiff_t input_scratch_size(const struct conv_phase *phase, ptrdiff_t phases, ptrdiff_t pixels,
                                    ptrdiff_t depth_block, ptrdiff_t weights)
{
    ptrdiff_t described = 0, tables = 0;
    for (ptrdiff_t i = 0; i < phases; i++) {
        ptrdiff_t panels = (count_pixels(&phase[i].geometry) + COLUMN_TILE - 1) / COLUMN_TILE;
        described = larger(described, panels * (ptrdiff_t)sizeof(struct pixels));
        tables += patches_size(&phase[i].geometry, panels, COLUMN_TILE);
    }
    ptrdiff_t elements = padded_columns(pixels) * (weights + COLUMN_TILE) + depth_block * COLUMN_TILE;
    return elements * (ptrdiff_t)sizeof(real) + described + tables;
}

/* Backward-data for few pixels, which sees each weight once, where it lies: first the products of input channels
 * channel_start ... with all pixels of the gradient, tap by tap, then each position of the input adds up those of its taps.
 * `weight`, `bias` and `output` point at the group's first input channel. packed_grad[depth block][panel][k][COLUMN_TILE] */
static void input_tile(const struct conv_phase *phase, ptrdiff_t phases, const void *packed_grad, ptrdiff_t pixels,
                       ptrdiff_t out_channels, ptrdiff_t depth_block, const void *weight, ptrdiff_t weight_row,
                       ptrdiff_t filter, ptrdiff_t channel_start, ptrdiff_t channels, const void *bias, void *output,
                       void *scratch)
{
    ptrdiff_t row_length = padded_columns(pixels), count = channels * filter;
    real *product = scratch, *rows = product + row_length * count, *panel = rows + row_length * COLUMN_TILE;
    for (ptrdiff_t e = 0; e < count; e += COLUMN_TILE) {
        ptrdiff_t width = smaller(COLUMN_TILE, count - e);
        multiply_weights(packed_grad, pixels, out_channels, depth_block,
                         (const real *)weight + channel_start * filter + e, weight_row, width, panel, rows);
        turn_rows(rows, pixels, width, row_length, product + e * row_length);
    }
    for (ptrdiff_t i = 0, pair; i < phases; i += 1 + pair) {
        pair = are_pair(&phase[i], phases - i);
        add_phases(&phase[i], (int)pair, product, filter, row_length, channels,
                   bias ? (const real *)bias + channel_start : NULL,
                   (real *)output + channel_start * phase[i].geometry.out_channel_stride,
                   panel + depth_block * COLUMN_TILE);
    }
}

/* packed[pixel][COLUMN_TILE] of `lines` channels of the gradient, channels last. */
INLINE void pack_last_gradient(const real *grad, const struct pixels *pixels, ptrdiff_t lines, real *packed)
{
    for (ptrdiff_t p = 0; p < pixels->count; p++, packed += COLUMN_TILE)
        for (ptrdiff_t k = 0; k < COLUMN_TILE; k += LANES) {
            const real *from = grad + pixels->target[p] + k;
            vec_store(packed + k, k < lines ? vec_load_rest(from, lines - k) : (vec){0});
        }
}

/* packed[k / COLUMN_TILE][pixel][COLUMN_TILE]: the gradient of these pixels. Where they do not follow one another, they
 * are first brought together, in `rows` [COLUMN_TILE][REDUCE_PIXELS]. */
static void pack_gradient(const struct conv_geometry *g, const real *grad_output, ptrdiff_t out_channels,
                          const struct pixels *pixels, real *rows, real *packed)
{
    for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE, packed += pixels->count * COLUMN_TILE) {
        const real *grad = grad_output + k * g->out_channel_stride;
        ptrdiff_t lines = smaller(COLUMN_TILE, out_channels - k);
        if (g->out_channel_stride == 1) {
            pack_last_gradient(grad, pixels, lines, packed);
            continue;
        }
        if (pixels->contiguous) {
            pack_panels(grad + pixels->target[0], g->out_channel_stride, 1, lines, pixels->count, COLUMN_TILE, packed);
            continue;
        }
        for (ptrdiff_t line = 0; line < lines; line++, grad += g->out_channel_stride)
            for (const struct run *run = pixels->run; run < pixels->run + pixels->runs; run++)
                for (ptrdiff_t i = 0; i < run->count; i += LANES)
                    vec_store_rest(rows + line * REDUCE_PIXELS + run->start + i,
                                   vec_load_rest(grad + pixels->target[run->start] + i, run->count - i),
                                   run->count - i);
        pack_panels(rows, REDUCE_PIXELS, 1, lines, pixels->count, COLUMN_TILE, packed);
    }
}

/* bias_sums[k] += the sum over these pixels, from the packed gradient. */
static void add_gradients(const real *packed, ptrdiff_t pixels, ptrdiff_t out_channels, double *bias_sums)
{
    for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE, packed += pixels * COLUMN_TILE) {
        vec even[COLUMN_VECTORS] = {0}, odd[COLUMN_VECTORS] = {0};
        for (ptrdiff_t pixel = 0; pixel < pixels; pixel++) {
            vec *sum = pixel % 2 ? odd : even;
            for (int v = 0; v < COLUMN_VECTORS; v++) sum[v] += vec_load(packed + pixel * COLUMN_TILE + v * LANES);
        }
        for (ptrdiff_t i = 0; i < smaller(COLUMN_TILE, out_channels - k); i++)
            bias_sums[k + i] += (double)(even[i / LANES] + odd[i / LANES])[i % LANES];
    }
}

static ptrdiff_t weight_scratch_size(const struct conv_geometry *g, ptrdiff_t out_channels)
{
    ptrdiff_t elements = (padded_columns(out_channels) + BUFFER_ROWS) * REDUCE_PIXELS;
    return elements * (ptrdiff_t)sizeof(real) + (ptrdiff_t)sizeof(struct pixels) + patches_size(g, 1, REDUCE_PIXELS) +
           VEC_BYTES;
}

/* The first channel whose depth under this tap is not before d. */
INLINE ptrdiff_t channel_from(const struct conv_geometry *g, ptrdiff_t d, ptrdiff_t tap)
{ return (d - tap + g->taps - 1) / g->taps; }

/* weight_tile() of one block of pixels: some channels under one tap at a time. */
static void sum_patches(const struct conv_geometry *g, const real *input, const struct patches *patches,
                        ptrdiff_t pixels, ptrdiff_t depth_start, ptrdiff_t depth_count, const real *packed_grad,
                        ptrdiff_t out_channels, real *rows, real *partial, int accumulate)
{
    ptrdiff_t row_stride = padded_columns(out_channels);
    for (ptrdiff_t tap = 0; tap < g->taps; tap++) {
        ptrdiff_t c = channel_from(g, depth_start, tap), end = channel_from(g, depth_start + depth_count, tap);
        for (; c < end; c += BUFFER_ROWS) {
            ptrdiff_t count = smaller(BUFFER_ROWS, end - c);
            gather_tap(g, input + c * g->in_channel_stride, patches, 0, tap, count, pixels, REDUCE_PIXELS, rows);
            real *sums = partial + (c * g->taps + tap - depth_start) * row_stride;
            for (ptrdiff_t row = 0; row < count; row += ROW_TILE)
                for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE)
                    multiply_ragged_tile(smaller(ROW_TILE, count - row), out_channels - k, pixels,
                                         rows + row * REDUCE_PIXELS, REDUCE_PIXELS, 1, packed_grad + k * pixels,
                                         sums + row * g->taps * row_stride + k, g->taps * row_stride, accumulate);
        }
    }
}

/* partial[d - depth_start][k] = sum over these pixels, with out_channels rounded up to COLUMN_TILE. The gradient is packed;
 * the patches are gathered a few rows at a time and multiplied as they lie. `grad_output` points at the group's first
 * channel. Unless bias_sums is NULL, the sums of the gradient are added to it. */
static void weight_tile(const struct conv_geometry *g, const void *input, const void *grad_output,
                        ptrdiff_t out_channels, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t depth_start,
                        ptrdiff_t depth_count, void *partial, double *bias_sums, void *scratch)
{
    ptrdiff_t row_stride = padded_columns(out_channels);
    real *packed_grad = scratch, *rows = packed_grad + row_stride * REDUCE_PIXELS;
    struct pixels *block = (struct pixels *)(rows + BUFFER_ROWS * REDUCE_PIXELS);

    ptrdiff_t positions = g->grid[0] * g->grid[1] * g->grid[2], count;
    for (ptrdiff_t done = 0; done < pixels; done += count) {
        /* Within one image, gradients are read where they lie; blocks of small images run across. */
        count = smaller(REDUCE_PIXELS, pixels - done);
        if (positions >= REDUCE_PIXELS / 2) count = smaller(count, positions - (pixel_start + done) % positions);
        describe_pixels(g, pixel_start + done, count, block);
        pack_gradient(g, grad_output, out_channels, block, rows, packed_grad);
        if (bias_sums) add_gradients(packed_grad, count, out_channels, bias_sums);
        /* Gradients of one channel follow one another across images, their inputs do not. */
        int in_place = block->contiguous && block->runs == 1 && reads_in_place(g);
        struct patches patches = find_patches(g, block, 1, block + 1);
        if (!in_place && g->channels >= ROW_TILE) {
            sum_patches(g, input, &patches, count, depth_start, depth_count, packed_grad, out_channels, rows, partial,
                        done > 0);
            continue;
        }
        for (ptrdiff_t d = 0; d < depth_count; d += ROW_TILE) {
            ptrdiff_t row_count = smaller(ROW_TILE, depth_count - d), a_row = REDUCE_PIXELS;
            const real *a = rows;
            if (in_place) {
                ptrdiff_t n = (pixel_start + done) / positions, p = (pixel_start + done) % positions;
                a_row = g->in_channel_stride;
                a = (const real *)input + n * g->in_image_stride + (depth_start + d) * a_row + p;
                for (ptrdiff_t row = 0; row < row_count; row++) /* the next pixels of these channels */
                    for (ptrdiff_t j = count; j < 2 * count; j += LANES) __builtin_prefetch(a + row * a_row + j, 0, 2);
            } else {
                gather_panels(g, input, &patches, depth_start + d, row_count, REDUCE_PIXELS, rows);
            }
            for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE)
                multiply_ragged_tile(row_count, out_channels - k, count, a, a_row, 1, packed_grad + k * count,
                                     (real *)partial + d * row_stride + k, row_stride, done > 0);
        }
    }
}

/* The sum of up to some thousand neighbours, in lanes. */
static real line_sum(const real *from, ptrdiff_t count)
{
    vec first = {0}, second = {0};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        first += vec_load(from + i);
        second += vec_load(from + i + LANES);
    }
    for (; i < count; i += LANES) first += vec_load_tail(from + i, smaller(LANES, count - i));
    return vec_sum(first + second);
}

static ptrdiff_t few_scratch_size(const struct conv_geometry *g)
{
    ptrdiff_t length = padded_columns(count_pixels(g));
    return 2 * length * COLUMN_TILE * (ptrdiff_t)sizeof(real) + description_size(g, length / COLUMN_TILE);
}

/* packed[pixel][COLUMN_TILE] of rows d .. + width of the matrix of patches, by way of `rows` [panel][d][COLUMN_TILE]. */
static void pack_patches(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t d,
                         ptrdiff_t width, real *rows, real *packed)
{
    ptrdiff_t pixels = count_pixels(g);
    if (g->images == 1 && reads_in_place(g)) {
        pack_panels(input + d * g->in_channel_stride, g->in_channel_stride, 1, width, pixels, COLUMN_TILE, packed);
        return;
    }
    gather_panels(g, input, patches, d, width, COLUMN_TILE, rows);
    for (ptrdiff_t p = 0; p < pixels; p += COLUMN_TILE)
        pack_panels(rows + p * width, COLUMN_TILE, 1, width, smaller(COLUMN_TILE, pixels - p), COLUMN_TILE,
                    packed + p * COLUMN_TILE);
}

/* weight_grad[k][d] = sum over all pixels, which are few, for depth_start <= d < depth_start + depth_count. The gradient's
 * channels lie grad_row apart, in each the pixels of all images; the group's weights weight_row apart. bias_sums, unless it
 * is NULL, is set to the sums of the gradient. */
static void few_weight_tile(const struct conv_geometry *g, const void *input, const void *grad, ptrdiff_t grad_row,
                            ptrdiff_t out_channels, ptrdiff_t depth_start, ptrdiff_t depth_count, void *weight_grad,
                            ptrdiff_t weight_row, double *bias_sums, void *scratch)
{
    ptrdiff_t pixels = count_pixels(g), length = padded_columns(pixels), panels = length / COLUMN_TILE;
    real *rows = scratch, *packed = rows + length * COLUMN_TILE, buffer[ROW_TILE * COLUMN_TILE];
    struct pixels *panel = (struct pixels *)(packed + length * COLUMN_TILE);
    describe_panels(g, 0, pixels, panel);
    struct patches patches = find_patches(g, panel, panels, panel + panels);
    for (ptrdiff_t k = 0; k < (bias_sums ? out_channels : 0); k++)
        bias_sums[k] = (double)line_sum((const real *)grad + k * grad_row, pixels);
    for (ptrdiff_t d = depth_start, end = depth_start + depth_count; d < end; d += COLUMN_TILE) {
        ptrdiff_t width = smaller(COLUMN_TILE, end - d);
        pack_patches(g, input, &patches, d, width, rows, packed);
        for (ptrdiff_t k = 0; k < out_channels; k += ROW_TILE) {
            ptrdiff_t count = smaller(ROW_TILE, out_channels - k);
            const real *a = (const real *)grad + k * grad_row;
            real *target = (real *)weight_grad + k * weight_row + d;
            if (width == COLUMN_TILE) {
                multiply_ragged_tile(count, width, pixels, a, grad_row, 1, packed, target, weight_row, 0);
                continue;
            }
            multiply_ragged_tile(count, width, pixels, a, grad_row, 1, packed, buffer, COLUMN_TILE, 0);
            for (ptrdiff_t row = 0; row < count; row++, target += weight_row)
                for (ptrdiff_t j = 0; j < width; j += LANES)
                    vec_store_rest(target + j, vec_load(buffer + row * COLUMN_TILE + j), width - j);
        }
    }
}

/* weight_grad[k][d] = sum over parts, in order, of partial[part][d][k] for up to LANES output channels: `partials` points at
 * the first, rows are row_stride apart, of the weights weight_row. */
static void reduce_columns(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t row_stride,
                           ptrdiff_t depth, ptrdiff_t out_channels, void *weight_grad, ptrdiff_t weight_row)
{
    for (ptrdiff_t e = 0; e < depth; e += LANES) {
        vec square[LANES];
        for (ptrdiff_t i = 0; i < LANES; i++) {
            square[i] = (vec){0};
            const real *from = (const real *)partials + (e + i) * row_stride;
            for (ptrdiff_t part = 0; part < parts && e + i < depth; part++)
                square[i] += vec_load(from + part * part_stride);
        }
        vec_transpose(square);
        for (ptrdiff_t i = 0; i < out_channels; i++)
            vec_store_rest((real *)weight_grad + i * weight_row + e, square[i], depth - e);
    }
}

/* weight_grad[i] += the sums over other parts, in order, partial[part][i] */
static void add_parts(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t count, void *weight_grad)
{
    const real *from = partials;
    real *sum = weight_grad;
    for (ptrdiff_t part = 0; part < parts; part++, from += part_stride)
        for (ptrdiff_t i = 0; i < count; i++) sum[i] += from[i];
}

/* Sum of one channel over all images and positions: vectors over up to 4096 positions, double across them. */
static void channel_sum(const void *x, ptrdiff_t images, ptrdiff_t image_stride, ptrdiff_t positions, void *sum)
{
    double total = 0;
    for (ptrdiff_t n = 0; n < images; n++)
        for (ptrdiff_t start = 0; start < positions; start += 4096)
            total += (double)line_sum((const real *)x + n * image_stride + start, smaller(4096, positions - start));
    *(real *)sum = (real)total;
}

/* sums[c] = the sum over pixels of x[pixel][c] */
static void pixel_sum(const void *x, ptrdiff_t pixels, ptrdiff_t channels, void *sums)
{
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        ptrdiff_t rest = channels - c;
        const real *from = (const real *)x + c;
        vec sum = {0};
        for (ptrdiff_t i = 0; i < pixels; i++, from += channels) sum += vec_load_rest(from, rest);
        vec_store_rest((real *)sums + c, sum, rest);
    }
}

const struct conv_backward_kernels FASTNN_TABLE(conv_backward) = {
    .input_tile = input_tile,
    .input_scratch_size = input_scratch_size,
    .weight_tile = weight_tile,
    .few_scratch_size = few_scratch_size,
    .few_weight_tile = few_weight_tile,
    .reduce_columns = reduce_columns,
    .pixel_sum = pixel_sum,
    .add_parts = add_parts,
    .channel_sum = channel_sum,
    .weight_scratch_size = weight_scratch_size,
};

/* Convolution of 1 to 3 spatial dimensions as an implicit matrix product (im2col inside the packing):
 *
 *   out[n,k,p] = bias[k] + sum over t, c of weight[k,c,t] * in[n,c, p * stride + tap(t)]
 *
 * Backward-data may be the same, phase by phase, with the gradient as `in` and the weights transposed; see conv_backward.c
 * for the rest of the backward.
 *
 * K output channels, C input channels (both per group), T filter positions (taps), N images, p an output position.
 * The depth of the product is d = c * T + t, as the weights lie.
 * The columns are "pixels", q = n * positions + p: panels of COLUMN_TILE pixels run across rows and images, so that
 * narrow images fill the vectors too. The matrix of patches exists one panel block at a time, in the thread's scratch memory.
 *
 *   packed weights  [depth block][K / ROW_TILE][depth in block][ROW_TILE]
 *   packed pixels   [panel][depth in block][COLUMN_TILE]
 */
#include "patches.h"

/* Panels of pixels in a tile: 4 to 32 are within 4 % of each other. */
enum { TILE_PANELS = 8 };

/* Squares of LANES that a tile of output channels takes. */
enum { ROW_SQUARES = ((int)ROW_TILE + (int)LANES - 1) / (int)LANES };

/* Where the weights of one tile of output channels go: [depth block][K / ROW_TILE][depth in block][ROW_TILE]. */
INLINE real *packed_place(real *packed, ptrdiff_t d, ptrdiff_t depth, ptrdiff_t depth_block, ptrdiff_t padded_rows,
                          ptrdiff_t row)
{
    ptrdiff_t start = d / depth_block * depth_block;
    return packed + start * padded_rows + row * smaller(depth_block, depth - start) + (d - start) * ROW_TILE;
}

/* Packs the weights of output channels row ... row + ROW_TILE of a group: of all filter positions the taps, whose number
 * in the depth is place[position], or -1. Where channels follow one another in memory, squares of output channels by
 * contiguous numbers are transposed in registers, and else of output channels by filter positions. */
static void pack_weight(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, const ptrdiff_t *place,
                        ptrdiff_t taps, ptrdiff_t filter, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t row,
                        ptrdiff_t depth_block, void *packed)
{
    ptrdiff_t count = smaller(ROW_TILE, rows - row), padded_rows = (rows + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    ptrdiff_t span = channel_stride == filter ? channels * filter : filter, depth = taps * channels;
    const real *lines = (const real *)weight + row * row_stride;
    ptrdiff_t channel = 0, position = 0;
    for (ptrdiff_t done = 0; done < channels * filter; done += span, lines += channel_stride)
        for (ptrdiff_t e = 0; e < span; e += LANES) {
            vec squares[ROW_SQUARES][LANES];
            for (int group = 0; group < ROW_SQUARES; group++) {
                for (int i = 0; i < LANES; i++) {
                    ptrdiff_t line = group * LANES + i;
                    squares[group][i] =
                        line < count ? vec_load_rest(lines + line * row_stride + e, span - e) : (vec){0};
                }
                vec_transpose(squares[group]);
            }
            for (ptrdiff_t i = 0; i < smaller(LANES, span - e); i++) {
                if (place[position] >= 0) {
                    ptrdiff_t d = channel * taps + place[position];
                    real *to = packed_place(packed, d, depth, depth_block, padded_rows, row);
                    for (int group = 0; group < ROW_SQUARES; group++)
                        vec_store_rest(to + group * LANES, squares[group][i], ROW_TILE - group * LANES);
                }
                if (++position == filter) {
                    position = 0;
                    channel++;
                }
            }
        }
}

/* Adds the bias to a tile just stored, still in the first-level cache. */
INLINE void add_bias(ptrdiff_t rows, const real *bias, real *output, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < COLUMN_TILE; j += LANES) {
            real *target = output + row * row_stride + j;
            vec_store(target, vec_load(target) + vec_set(bias[row]));
        }
}

/* Stores a buffered tile, whose depth is complete, through the epilogue: the output's own memory is touched once, and its
 * lines are waited for once. Adds to the sums of the tile's rows, if they are wanted; `residual` has the outputs' strides. */
static void finish_tile(const struct conv_epilogue *epilogue, real *buffer, const struct pixels *pixels, ptrdiff_t rows,
                        const real *bias, const real *residual, real *output, ptrdiff_t row_stride, int accumulate,
                        struct channel_sums *sums)
{
    const real slope = (real)epilogue->slope;
    const ptrdiff_t *target = pixels->target;
    for (ptrdiff_t row = 0; row < rows; row++, buffer += COLUMN_TILE, output += row_stride) {
        struct channel_sums *row_sums = epilogue->sums ? &sums[row] : NULL;
        const real *from = residual ? residual + row * row_stride : NULL, first = bias ? bias[row] : 0;
        if (pixels->contiguous) {
            for (ptrdiff_t j = 0; j < pixels->count; j += LANES) {
                vec v = vec_load(buffer + j) + vec_set(first);
                if (accumulate) v += vec_load_rest(output + target[0] + j, pixels->count - j);
                vec_store(buffer + j, v);
            }
            epilogue_store(buffer, pixels->count, from ? from + target[0] : NULL, slope, output + target[0], row_sums);
            continue;
        }
        for (ptrdiff_t j = 0; j < pixels->count; j++)
            buffer[j] += first + (accumulate ? output[target[j]] : 0) + (from ? from[target[j]] : 0);
        epilogue_store(buffer, pixels->count, NULL, slope, buffer, row_sums);
        for (ptrdiff_t j = 0; j < pixels->count; j++) output[target[j]] = buffer[j];
    }
}

/* Bytes of scratch memory for tile(): the packed pixels of one depth block, their description, and the table of patches. */
static ptrdiff_t scratch_size(const struct conv_geometry *g, ptrdiff_t depth_block, ptrdiff_t pixels)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    ptrdiff_t elements = depth_block * (panels * COLUMN_TILE + DOT_ROWS);
    return elements * (ptrdiff_t)sizeof(real) + description_size(g, panels) + VEC_BYTES;
}

/* One or two pixels do not fill a vector (7x7 is one more than a panel): over a long depth they have lanes along it. */
enum { DOT_DEPTH = 256 };
static ptrdiff_t count_dots(const struct pixels *panel, ptrdiff_t depth)
{ return panel->count <= DOT_ROWS && depth >= DOT_DEPTH ? panel->count : 0; }

/* lines[pixel][depth] of so few pixels, from their panel */
static void take_lines(const real *panel, ptrdiff_t pixels, ptrdiff_t depth, real *lines)
{
    for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
        for (ptrdiff_t d = 0; d < depth; d++) lines[pixel * depth + d] = panel[d * COLUMN_TILE + pixel];
}

/* tile[row][pixel] = dot(row of the weights, line), with lanes along the depth */
static void multiply_lines(ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t depth, const real *weight, ptrdiff_t weight_row,
                           const real *lines, real *tile)
{
    real sums[DOT_ROWS * DOT_LINES];
    for (ptrdiff_t row = 0; row < rows; row += DOT_LINES) {
        const real *line[DOT_LINES]; /* the last one again where there are no more */
        for (ptrdiff_t l = 0; l < DOT_LINES; l++) line[l] = weight + smaller(row + l, rows - 1) * weight_row;
        if (pixels == DOT_ROWS)
            dot_tile(DOT_ROWS, depth, lines, depth, line, sums);
        else
            dot_tile(1, depth, lines, depth, line, sums);
        for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
            for (ptrdiff_t l = 0; l < smaller(DOT_LINES, rows - row); l++)
                tile[(row + l) * COLUMN_TILE + pixel] = sums[pixel * DOT_LINES + l];
    }
}

/* The products of one tile of output channels with the panels of one depth block, added to earlier blocks' or not. */
struct products {
    ptrdiff_t rows, depth, a_row, a_depth, panels;
    ptrdiff_t dots; /* pixels of the last panel that are dot products with `lines`, or none */
    const real *a, *lines;
    real *packed;
    const struct pixels *panel;
    int accumulate;
    /* Panels that stand in the image and are still to be packed, in passing, channels channel_stride apart, or NULL. */
    const real *unpacked[TILE_PANELS];
    ptrdiff_t channel_stride, tiles; /* of output channels that are done */
    /* A tile of pixels to come, which is sent for channel by channel, in runs of so many lines: memory delivers lines
     * that follow one another sooner than single ones. Or NULL. */
    const real *to_come;
    ptrdiff_t lines_to_come;
};

/* The tile of pixels from q on, as far as it is in one image. */
static void find_to_come(const struct conv_geometry *g, const real *first_channel, ptrdiff_t q, struct products *p)
{
    ptrdiff_t positions = g->in_channel_stride, image = q / positions, at = q % positions;
    if (image >= g->images) return;
    p->to_come = first_channel + image * g->in_image_stride + at;
    p->lines_to_come = (smaller(p->panels * COLUMN_TILE, positions - at) + LANES - 1) / LANES;
}

/* What is sent for with panel i and the present tile of output channels: each pair of these sends for as many lines as
 * there are channels. */
INLINE struct ahead find_ahead(const struct products *p, ptrdiff_t i)
{
    ptrdiff_t lines = p->lines_to_come, first = (p->tiles * p->panels + i) * p->depth;
    if (!p->to_come || first >= lines * p->depth) return (struct ahead){0};
    return (struct ahead){p->to_come + first / lines * p->channel_stride + first % lines * LANES, lines - first % lines,
                          lines, p->channel_stride - lines * LANES};
}

/* Packs the panels of a depth block, or leaves it to the first products (1x1 filters, which use what they read so seldom
 * that memory must not be waited for). `next` is the first pixel of the tile that the thread is likely to compute next. */
static void pack_block(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t pixel,
                       ptrdiff_t next, ptrdiff_t depth_start, int in_passing, struct products *p)
{
    const real *first_channel = input + depth_start * g->in_channel_stride;
    p->channel_stride = g->in_channel_stride;
    if (in_passing) find_to_come(g, first_channel, next, p);
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const real *place = in_passing ? find_in_place(g, first_channel, pixel + i * COLUMN_TILE) : NULL;
        p->unpacked[i] = place;
        if (!place)
            gather_panel(g, input, patches, i, depth_start, p->depth, COLUMN_TILE,
                         p->packed + i * p->depth * COLUMN_TILE);
    }
}

/* After the products of a tile of output channels, panels are packed. */
static void pass_on(struct products *p)
{
    for (ptrdiff_t i = 0; i < TILE_PANELS; i++) p->unpacked[i] = NULL;
    p->tiles++;
}

INLINE void multiply_whole_panel(const struct products *p, ptrdiff_t i, real *to, ptrdiff_t row_stride, int accumulate)
{
    real *packed = p->packed + i * p->depth * COLUMN_TILE;
    const real *unpacked = p->unpacked[i];
    const struct ahead ahead = find_ahead(p, i);
    if (p->rows < ROW_TILE || (!unpacked && !ahead.at))
        multiply_ragged_tile(p->rows, COLUMN_TILE, p->depth, p->a, p->a_row, p->a_depth, packed, to, row_stride,
                             accumulate);
    else if (unpacked)
        multiply_in_passing(ROW_TILE, COLUMN_VECTORS, p->depth, p->a, p->a_row, p->a_depth, unpacked, p->channel_stride,
                            packed, ahead, to, row_stride, accumulate);
    else
        multiply_in_passing(ROW_TILE, COLUMN_VECTORS, p->depth, p->a, p->a_row, p->a_depth, packed, COLUMN_TILE, NULL,
                            ahead, to, row_stride, accumulate);
}

INLINE void multiply_into_buffer(const struct products *p, ptrdiff_t i, real *buffer)
{
    if (p->dots && i == p->panels - 1)
        multiply_lines(p->rows, p->dots, p->depth, p->a, p->a_row, p->lines, buffer);
    else if (p->panel[i].count == COLUMN_TILE)
        multiply_whole_panel(p, i, buffer, COLUMN_TILE, 0);
    else
        multiply_ragged_tile(p->rows, p->panel[i].count, p->depth, p->a, p->a_row, p->a_depth,
                             p->packed + i * p->depth * COLUMN_TILE, buffer, COLUMN_TILE, 0);
}

/* Products that are not complete yet, or have no epilogue but a bias: whole panels are multiplied where they stand. */
INLINE void store_products(const struct products *p, const real *bias, real *output, ptrdiff_t row_stride)
{
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const struct pixels *panel = &p->panel[i];
        if (panel->contiguous && panel->count == COLUMN_TILE) {
            real *target = output + panel->target[0];
            multiply_whole_panel(p, i, target, row_stride, p->accumulate);
            if (bias) add_bias(p->rows, bias, target, row_stride);
            continue;
        }
        real buffer[ROW_TILE * COLUMN_TILE];
        multiply_into_buffer(p, i, buffer);
        scatter_tile(buffer, panel, p->rows, bias, output, row_stride, p->accumulate);
    }
}

INLINE void prefetch_tile(const struct pixels *pixels, ptrdiff_t rows, const real *from, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = 0; row < rows; row++, from += row_stride)
        for (ptrdiff_t j = 0; j < pixels->count; j += LANES) __builtin_prefetch(from + pixels->target[j], 1);
}

/* Complete products through the epilogue, from output channel `channel` on; `unit` is that of the first panel's sums.
 * In a function of its own, for inlined into tile() it costs the other products a tenth. */
static __attribute__((noinline)) void finish_products(const struct products *p, const struct conv_epilogue *epilogue,
                                                      ptrdiff_t channel, ptrdiff_t unit, ptrdiff_t unit_panels,
                                                      real *output, ptrdiff_t row_stride)
{
    const real *bias = epilogue->bias, *residual = epilogue->residual;
    if (bias) bias += channel;
    if (residual) residual += channel * row_stride;
    real *target = output + channel * row_stride, buffer[ROW_TILE * COLUMN_TILE];
    struct channel_sums sums[ROW_TILE];
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        if (i % unit_panels == 0) memset(sums, 0, sizeof sums);
        if (residual) prefetch_tile(&p->panel[i], p->rows, residual, row_stride);
        prefetch_tile(&p->panel[i], p->rows, target, row_stride);
        multiply_into_buffer(p, i, buffer);
        finish_tile(epilogue, buffer, &p->panel[i], p->rows, bias, residual, target, row_stride, p->accumulate, sums);
        if (epilogue->sums && (i % unit_panels == unit_panels - 1 || i == p->panels - 1))
            for (ptrdiff_t row = 0; row < p->rows; row++)
                epilogue_store_sums(epilogue, unit + i / unit_panels, channel + row, &sums[row]);
    }
}

/* Products for outputs with their channels last: product[row][panel][COLUMN_TILE]. */
static __attribute__((noinline)) void add_products(const struct products *p, real *product)
{
    ptrdiff_t row_stride = p->panels * COLUMN_TILE;
    for (ptrdiff_t i = 0; i < p->panels; i++, product += COLUMN_TILE) {
        if (!p->dots || i < p->panels - 1) {
            multiply_ragged_tile(p->rows, p->panel[i].count, p->depth, p->a, p->a_row, p->a_depth,
                                 p->packed + i * p->depth * COLUMN_TILE, product, row_stride, p->accumulate);
            continue;
        }
        real buffer[ROW_TILE * COLUMN_TILE];
        multiply_lines(p->rows, p->dots, p->depth, p->a, p->a_row, p->lines, buffer);
        for (ptrdiff_t row = 0; row < p->rows; row++)
            for (ptrdiff_t j = 0; j < p->dots; j++) {
                real *to = product + row * row_stride + j;
                *to = buffer[row * COLUMN_TILE + j] + (p->accumulate ? *to : 0);
            }
    }
}

/* Groups of LANES output channels that are stored together, pixel by pixel: one by one they write to lines far apart. */
enum { CHANNEL_GROUPS = 16 };

/* finish_products() for `count` output channels from `channel` on, at most CHANNEL_GROUPS * LANES, channels last. */
static void finish_last(const struct pixels *panel, ptrdiff_t panels, const real *product,
                        const struct conv_epilogue *epilogue, ptrdiff_t channel, ptrdiff_t count, ptrdiff_t unit,
                        ptrdiff_t unit_panels, real *output)
{
    const real *residual = epilogue->residual, *bias = epilogue->bias;
    ptrdiff_t row_stride = panels * COLUMN_TILE;
    struct channel_sums sums[CHANNEL_GROUPS];
    for (ptrdiff_t i = 0; i < panels; i++) {
        if (i % unit_panels == 0) memset(sums, 0, sizeof sums);
        for (ptrdiff_t j = 0; j < panel[i].count; j += LANES)
            for (ptrdiff_t c = 0; c < count; c += LANES) {
                ptrdiff_t k = channel + c, some = smaller(LANES, count - c);
                store_square(&panel[i], j, product + c * row_stride + i * COLUMN_TILE, row_stride, some,
                             bias ? vec_load_rest(bias + k, some) : (vec){0}, residual ? residual + k : NULL,
                             (real)epilogue->slope, output + k, &sums[c / LANES]);
            }
        if (!epilogue->sums || (i % unit_panels < unit_panels - 1 && i < panels - 1)) continue;
        for (ptrdiff_t c = 0; c < count; c += LANES)
            epilogue_store_channels(epilogue, unit + i / unit_panels, channel + c, smaller(LANES, count - c),
                                    &sums[c / LANES]);
    }
}

/* Output channels channel_start .. + channel_count (a multiple of ROW_TILE from the start) of one group, for pixels
 * pixel_start .. + pixels: all of the depth. `output` and `epilogue` are those of all groups. Weights that lie in
 * the order of the depth are read in place, with weight_row from one output channel to the next; packed ones have a
 * weight_row of 0. Pixels that pack_panel() has packed, block of the depth by block, are not gathered again. The units of
 * the epilogue's sums are unit_panels panels, from the first pixel of all; pixel_start is that of a unit. Behind
 * the scratch memory is room for [channel_count][pixels rounded up to COLUMN_TILE] if outputs have their channels last. */
static void tile(const struct conv_geometry *g, const void *input, const void *weight, ptrdiff_t weight_row,
                 ptrdiff_t group, ptrdiff_t out_channels, ptrdiff_t depth_block, ptrdiff_t pixel_start,
                 ptrdiff_t pixels, ptrdiff_t pixels_ahead, const void *packed_pixels, ptrdiff_t channel_start,
                 ptrdiff_t channel_count, const struct conv_epilogue *epilogue, ptrdiff_t unit_panels, void *output,
                 void *scratch)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE, depth_total = g->taps * g->channels;
    ptrdiff_t padded_channels = (out_channels + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    real *own = scratch, *lines = own + panels * depth_block * COLUMN_TILE;
    struct pixels *panel = (struct pixels *)(lines + DOT_ROWS * depth_block);
    describe_panels(g, pixel_start, pixels, panel);
    ptrdiff_t dots = weight_row > 0 ? count_dots(&panel[panels - 1], depth_total) : 0;
    struct patches patches = {0};
    if (!packed_pixels) patches = find_patches(g, panel, panels, panel + panels);
    const int only_bias = !epilogue->residual && epilogue->slope == 1 && !epilogue->sums;
    const int channels_last = g->out_channel_stride == 1;
    const int in_passing = !channels_last && channel_count >= ROW_TILE && reads_in_place(g);
    uintptr_t behind = (uintptr_t)scratch + (uintptr_t)scratch_size(g, depth_block, pixels);
    real *product = (real *)((behind + 63) & ~(uintptr_t)63);
    ptrdiff_t unit = pixel_start / COLUMN_TILE / unit_panels, row_length = panels * COLUMN_TILE;

    ptrdiff_t depth_start = 0;
    int last;
    do { /* once even without any tap: the output is then the bias */
        ptrdiff_t depth = smaller(depth_block, depth_total - depth_start);
        last = depth_start + depth >= depth_total;
        struct products p = {.depth = depth,
                             .a_row = weight_row > 0 ? weight_row : 1,
                             .a_depth = weight_row > 0 ? 1 : ROW_TILE,
                             .panels = panels,
                             .dots = dots,
                             .packed = packed_pixels ? (real *)packed_pixels + depth_start * panels * COLUMN_TILE : own,
                             .lines = lines,
                             .panel = panel,
                             .accumulate = depth_start > 0};
        if (!packed_pixels)
            pack_block(g, input, &patches, pixel_start, pixel_start + pixels_ahead, depth_start, in_passing, &p);
        if (dots) take_lines(p.packed + (panels - 1) * depth * COLUMN_TILE, dots, depth, lines);
        for (ptrdiff_t k = channel_start; k < channel_start + channel_count; k += ROW_TILE) {
            ptrdiff_t channel = group * out_channels + k;
            p.rows = smaller(ROW_TILE, channel_start + channel_count - k);
            p.a = weight;
            p.a += weight_row > 0 ? k * weight_row + depth_start : depth_start * padded_channels + k * depth;
            if (channels_last)
                add_products(&p, product + (k - channel_start) * row_length);
            else if (last && !only_bias)
                finish_products(&p, epilogue, channel, unit, unit_panels, output, g->out_channel_stride);
            else
                store_products(&p, last && epilogue->bias ? (const real *)epilogue->bias + channel : NULL,
                               (real *)output + channel * g->out_channel_stride, g->out_channel_stride);
            pass_on(&p);
        }
        depth_start += depth;
    } while (!last);
    const ptrdiff_t together = CHANNEL_GROUPS * LANES;
    for (ptrdiff_t k = 0; k < (channels_last ? channel_count : 0); k += together)
        finish_last(panel, panels, product + k * row_length, epilogue, group * out_channels + channel_start + k,
                    smaller(together, channel_count - k), unit, unit_panels, output);
}

/* packed[panel][d][COLUMN_TILE] of one panel, pixels start .. + count, for a part of the depth; `packed` is the place of
 * the first panel. */
static void pack_panel(const struct conv_geometry *g, const void *input, ptrdiff_t start, ptrdiff_t count,
                       ptrdiff_t depth_start, ptrdiff_t depth, void *packed, void *scratch)
{
    struct pixels *panel = scratch;
    describe_pixels(g, start, count, panel);
    struct patches patches = find_patches(g, panel, 1, panel + 1);
    gather_panel(g, input, &patches, 0, depth_start, depth, COLUMN_TILE, (real *)packed + start * depth);
}

static ptrdiff_t pack_scratch_size(const struct conv_geometry *g) { return description_size(g, 1); }

/* sums[i] = the sum over units of partials[unit][i] */
static void add_units(const void *partials, ptrdiff_t units, ptrdiff_t count, double *sums)
{
    const real *from = partials;
    for (ptrdiff_t i = 0; i < count; i++) sums[i] = 0;
    for (ptrdiff_t unit = 0; unit < units; unit++, from += count)
        for (ptrdiff_t i = 0; i < count; i++) sums[i] += (double)from[i];
}

const struct conv_kernels FASTNN_TABLE(conv) = {
    .lanes = LANES,
    .tile_panels = TILE_PANELS,
    .pack_weight = pack_weight,
    .tile = tile,
    .pack_panel = pack_panel,
    .pack_scratch_size = pack_scratch_size,
    .add_units = add_units,
    .scratch_size = scratch_size,
};

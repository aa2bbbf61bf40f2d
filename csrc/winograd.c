/* Forward and backward-data by Winograd's algorithm with tiles in the lanes: see winograd.h. */
#include "winograd.h"
#include "winograd_channels.h"
#include "winograd_weight.h"

/* ---- Weights, patches and products ---- */

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

/* Transforms the weights of one output channel: the neighbouring taps of its filter per input channel. `to` is that
 * output channel's row in its chunk of `rows` output channels. */
static void transform_row(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
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

static void transform_weight(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                             void *transformed)
{
    real *chunk = (real *)transformed + k / g->chunk_rows * chunk_size(g);
    ptrdiff_t row = k % g->chunk_rows, rows = smaller(g->chunk_rows, g->out_channels - (k - row));
    transform_row(g, weight, k, rows, chunk + row * round_up(g->channels, LANES));
}

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
static void transform_tiles(const struct winograd_geometry *g, const void *input, const struct tiled_block *block,
                            ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                            void *patches)
{
    struct images images = input_images(g, input);
    ptrdiff_t plane = patch_plane(g, block->tiles), end = tile_start + tiles;
    for (ptrdiff_t start = tile_start, width; start < end; start += COLUMN_TILE) {
        struct panel panel;
        width = smaller(COLUMN_TILE, end - start);
        describe_panel(g, block->start + start, width, &panel);
        real *to = (real *)patches + start * g->channels;
        for (ptrdiff_t c = channel_start; c < channel_start + channels; c++)
            transform_patches(g, &images, c, &panel, to + c * panel.width, plane);
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

/* Sends for this position's share of the weights of output channels k .. end - 1, which are to be transformed next: large
 * weights come from memory, and would be waited for. Inlined, for GCC (12) leaves out calls of a function that only
 * prefetches. */
INLINE void prefetch_weights(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
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
            multiply_panel(panel_width, some, depth.length, weight + line * depth.step, row_length, 1,
                           patches + line * depth.step * panel_width, products, width, line > 0);
        weight += some * row_length, products += some * width;
    }
}

/* products[position][row][tile] of a chunk of output channels k .. + rows for tiles tile_start .. + tiles of a block. Weights
 * of the next chunk, before next_end, are sent for. */
static void multiply_chunk(const struct winograd_geometry *g, const struct tiled_weight *weight, const real *chunk,
                           ptrdiff_t k, ptrdiff_t rows, ptrdiff_t next_end, const real *patches,
                           const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, real *products)
{
    ptrdiff_t width = round_up(tiles, LANES), next = k + g->chunk_rows, plane = patch_plane(g, block->tiles);
    for (ptrdiff_t position = 0; position < positions_of(g); position++) {
        prefetch_weights(g, weight, next, smaller(next + g->chunk_rows, next_end), position);
        for (ptrdiff_t start = 0; start < tiles; start += COLUMN_TILE)
            multiply_position(g, position, smaller(COLUMN_TILE, round_up(tiles - start, LANES)), rows, chunk,
                              patches + (tile_start + start) * g->channels, products + start, width);
        chunk += weight_plane(g), patches += plane, products += product_plane(g, tiles);
    }
}

/* The outputs of a panel of tiles, from `first` on, for `rows` output channels from k on, from their products. */
static void store_panel(const struct winograd_geometry *g, ptrdiff_t first, ptrdiff_t tiles, ptrdiff_t k,
                        ptrdiff_t rows, const real *products, ptrdiff_t width, ptrdiff_t plane_stride,
                        const struct conv_epilogue *epilogue, real *output)
{
    ptrdiff_t unit = first / COLUMN_TILE, phase_stride = rows * width;
    struct panel panel;
    describe_panel(g, first, tiles, &panel);
    for (ptrdiff_t row = 0; row < rows; row++)
        store_outputs(g, &panel, k + row, products + row * width, phase_stride, plane_stride, epilogue, unit, output);
}

/* Output channels row_start .. + row_count (from a multiple of chunk_rows) of tiles tile_start .. + tiles (from a multiple
 * of panel_tiles) of a block, from its transformed patches. */
static void multiply_tiles(const struct winograd_geometry *g, const struct tiled_weight *weight, const void *patches,
                           const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t row_start,
                           ptrdiff_t row_count, const struct conv_epilogue *epilogue, void *output, void *scratch)
{
    ptrdiff_t together = product_tiles(g, tiles), row_end = row_start + row_count;
    real *products = scratch, *own_chunk = products + positions_of(g) * product_plane(g, together);
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

const struct winograd_kernels FASTNN_TABLE(winograd) = {
    .weight_rows = 1,
    .row_tile = ROW_TILE,
    .chunk_tiles = 8,
    .panel_tiles = COLUMN_TILE,
    .lanes = LANES,
    .tile_step = LANES,
    .weight_size = weight_size,
    .transform_weight = transform_weight,
    .patches_size = patches_size,
    .transform_tiles = transform_tiles,
    .scratch_size = scratch_size,
    .multiply_tiles = multiply_tiles,
};

/* Forward and backward-data by Winograd's algorithm with channels in the lanes: see winograd.h. Nothing is transposed but the
 * weights' taps, and patches and outputs where arrays have their channels first. A part of winograd.c, because the products
 * that both use would be in the library twice. */
#ifndef FASTNN_WINOGRAD_CHANNELS_H
#define FASTNN_WINOGRAD_CHANNELS_H

#include "epilogue.h"
#include "winograd.h"

enum { CHANNEL_CHUNK_TILES = 2 * COLUMN_VECTORS }; /* vectors of output channels in a chunk, at most */

/* ---- Patches ---- */

/* Where a tile is: image, and corner in the grid of outputs. */
struct corner {
    ptrdiff_t image, y, x;
};

INLINE struct corner corner_of(const struct winograd_geometry *g, ptrdiff_t tile)
{
    ptrdiff_t across = (g->grid[1] + 3) / 4, down = (g->grid[0] + 3) / 4;
    return (struct corner){tile / across / down, tile / across % down * 4, tile % across * 4};
}

/* What of a patch is inside of the image. */
struct window {
    ptrdiff_t first_row, end_row, first_column, end_column;
};

/* B' patch B of LANES channels: the patch's corner is at `from`, its pixels are row_step and column_step apart. */
INLINE void transform_pixels(const int points, const real *from, ptrdiff_t row_step, ptrdiff_t column_step, real *to,
                             ptrdiff_t plane_stride)
{
    vec lines[MOST_POINTS][MOST_POINTS];
#pragma GCC unroll 6
    for (int row = 0; row < points; row++) {
        vec line[MOST_POINTS];
#pragma GCC unroll 6
        for (int column = 0; column < points; column++)
            line[column] = vec_load(from + row * row_step + column * column_step);
        transform_patch_line(points, line, lines[row]);
    }
    transform_patch_lines(points, lines, to, plane_stride);
}

/* pixels[row][column] = a patch of `rest` channels, at most LANES: zeros where it is outside of the image. */
static void copy_pixels(ptrdiff_t points, const struct window *inside, const real *from, ptrdiff_t row_step,
                        ptrdiff_t column_step, ptrdiff_t rest, real *pixels)
{
    for (ptrdiff_t row = 0; row < points; row++)
        for (ptrdiff_t column = 0; column < points; column++) {
            int outside = row < inside->first_row || row >= inside->end_row || column < inside->first_column ||
                          column >= inside->end_column;
            vec_store(pixels + (row * points + column) * LANES,
                      outside ? (vec){0} : vec_load_rest(from + row * row_step + column * column_step, rest));
        }
}

/* Transforms `channels` channels of one patch, all of one block. There is room for `room` of them, in which zeros follow. */
static void transform_pixel_run(const struct winograd_geometry *g, const real *from, ptrdiff_t row_step,
                                ptrdiff_t column_step, const struct window *inside, ptrdiff_t channels, ptrdiff_t room,
                                real *to, ptrdiff_t plane_stride)
{
    ptrdiff_t whole = inside->first_row <= 0 && inside->end_row >= g->points && inside->first_column <= 0 &&
                      inside->end_column >= g->points;
    for (ptrdiff_t c = 0; c < channels; c += LANES, from += LANES, to += LANES) {
        real pixels[MOST_POINTS * MOST_POINTS * LANES], transformed[MOST_POINTS * MOST_POINTS * LANES];
        ptrdiff_t rest = channels - c, lanes = room - c;
        int copied = !whole || rest < LANES;
        if (copied) copy_pixels(g->points, inside, from, row_step, column_step, rest, pixels);
        const real *source = copied ? pixels : from;
        ptrdiff_t down = copied ? g->points * LANES : row_step, across = copied ? LANES : column_step;
        real *target = lanes < LANES ? transformed : to;
        ptrdiff_t stride = lanes < LANES ? LANES : plane_stride;
        if (g->points == 5)
            transform_pixels(5, source, down, across, target, stride);
        else
            transform_pixels(6, source, down, across, target, stride);
        for (ptrdiff_t position = 0; position < (lanes < LANES ? positions_of(g) : 0); position++)
            vec_store_tail(to + position * plane_stride, vec_load(transformed + position * LANES), lanes);
    }
}

/* to[position][tile][channel] = transformed patches of channels channel_start .. + channels, with room for whole vectors, of
 * `count` tiles from `start` on; tiles are tile_stride apart. */
static void transform_pixel_tiles(const struct winograd_geometry *g, const struct images *images, ptrdiff_t start,
                                  ptrdiff_t count, ptrdiff_t channel_start, ptrdiff_t channels, real *to,
                                  ptrdiff_t tile_stride, ptrdiff_t plane_stride)
{
    ptrdiff_t column_step = g->stride * images->channels, row_step = images->width * column_step, some;
    ptrdiff_t room = round_up(channels, LANES);
    for (ptrdiff_t tile = start; tile < start + count; tile++, to += tile_stride) {
        struct corner corner = corner_of(g, tile);
        for (ptrdiff_t c = 0; c < channels; c += some) {
            struct block block = block_of(g, channel_start + c);
            ptrdiff_t y = corner.y * g->stride + block.y - g->padding[0];
            ptrdiff_t x = corner.x * g->stride + block.x - g->padding[1];
            ptrdiff_t offset =
                ((corner.image * images->height + y) * images->width + x) * images->channels + block.channel;
            const struct window inside = {steps_to(-y, g->stride), steps_to(images->height - y, g->stride),
                                          steps_to(-x, g->stride), steps_to(images->width - x, g->stride)};
            some = smaller(images->channels - block.channel, channels - c);
            transform_pixel_run(g, images->data + offset, row_step, column_step, &inside, some, room - c, to + c,
                                plane_stride);
        }
    }
}

/* The same of an array with channels first, by tiles in lanes and squares that are transposed in registers. So many tiles at
 * a time take 80 KB of the stack at most: a thread may have no more than 128. */
enum { SQUARE_TILES = 2 * LANES };
static void transform_square_tiles(const struct winograd_geometry *g, const struct images *images, ptrdiff_t start,
                                   ptrdiff_t count, ptrdiff_t channel_start, ptrdiff_t channels, real *to,
                                   ptrdiff_t tile_stride, ptrdiff_t plane_stride)
{
    enum { PLANE = LANES * SQUARE_TILES + PLANE_PADDING };
    real transformed[MOST_POINTS * MOST_POINTS * PLANE]; /* [position][channel][tile] */
    for (ptrdiff_t c = 0; c < channels; c += LANES)
        for (ptrdiff_t tile = 0; tile < count; tile += SQUARE_TILES) {
            ptrdiff_t some = smaller(LANES, channels - c), tiles = smaller(SQUARE_TILES, count - tile);
            struct panel panel;
            describe_panel(g, start + tile, tiles, &panel);
            for (ptrdiff_t i = 0; i < some; i++)
                transform_patches(g, images, channel_start + c + i, &panel, transformed + i * SQUARE_TILES, PLANE);
            for (ptrdiff_t i = 0; i < positions_of(g) * panel.width; i += LANES) {
                ptrdiff_t position = i / panel.width, first = i % panel.width;
                const real *from = transformed + position * PLANE + first;
                real *line = to + position * plane_stride + (tile + first) * tile_stride + c;
                vec square[LANES];
#pragma GCC unroll 16
                for (int j = 0; j < LANES; j++) square[j] = j < some ? vec_load(from + j * SQUARE_TILES) : (vec){0};
                vec_transpose(square);
                for (ptrdiff_t t = 0; t < smaller(LANES, tiles - first); t++)
                    vec_store(line + t * tile_stride, square[t]);
            }
        }
}

/* The same of an array of either kind. */
static void transform_by_channels(const struct winograd_geometry *g, const void *input, ptrdiff_t start,
                                  ptrdiff_t count, ptrdiff_t channel_start, ptrdiff_t channels, real *to,
                                  ptrdiff_t tile_stride, ptrdiff_t plane_stride)
{
    struct images images = input_images(g, input);
    if (g->channels_last)
        transform_pixel_tiles(g, &images, start, count, channel_start, channels, to, tile_stride, plane_stride);
    else
        transform_square_tiles(g, &images, start, count, channel_start, channels, to, tile_stride, plane_stride);
}

INLINE ptrdiff_t channel_row_length(const struct winograd_geometry *g) { return round_up(g->channels, LANES); }

INLINE ptrdiff_t channel_patch_plane(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return plane_size(tiles, channel_row_length(g)); }

static ptrdiff_t channel_patches_size(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return positions_of(g) * channel_patch_plane(g, tiles) * (ptrdiff_t)sizeof(real); }

static void transform_channel_tiles(const struct winograd_geometry *g, const void *input,
                                    const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles,
                                    ptrdiff_t channel_start, ptrdiff_t channels, void *patches)
{
    transform_by_channels(g, input, block->start + tile_start, tiles, channel_start, channels,
                          (real *)patches + tile_start * channel_row_length(g) + channel_start, channel_row_length(g),
                          channel_patch_plane(g, block->tiles));
}

/* ---- Weights: of a chunk, [part][position][phase][panel][C in part][K in panel]; parts of g->part_channels ---- */

/* Panels of `rows` output channels are equally wide, but for the last one. */
INLINE ptrdiff_t channel_panel_width(ptrdiff_t rows)
{
    ptrdiff_t vectors = (rows + LANES - 1) / LANES, panels = (vectors + COLUMN_VECTORS - 1) / COLUMN_VECTORS;
    return (vectors + panels - 1) / panels * LANES;
}

INLINE ptrdiff_t channel_weight_plane(const struct winograd_geometry *g)
{ return plane_size(phases_of(g) * g->chunk_rows, g->part_channels); }

INLINE ptrdiff_t channel_part_size(const struct winograd_geometry *g)
{ return positions_of(g) * channel_weight_plane(g); }

INLINE ptrdiff_t channel_chunk_size(const struct winograd_geometry *g)
{ return (g->channels + g->part_channels - 1) / g->part_channels * channel_part_size(g); }

static ptrdiff_t channel_weight_size(const struct winograd_geometry *g)
{
    ptrdiff_t chunks = (g->out_channels + g->chunk_rows - 1) / g->chunk_rows;
    return chunks * channel_chunk_size(g) * (ptrdiff_t)sizeof(real);
}

/* Transforms one block, in all phases, of the filters of `rows` output channels, the lanes, and `channels` input channels,
 * the first of which stand at `from`: to[position][phase][channel][K in panel], channels `width` apart. */
static __attribute__((noinline)) void transform_filters(const struct winograd_geometry *g,
                                                        const struct tiled_weight *weight, struct block block,
                                                        const real *from, ptrdiff_t rows, ptrdiff_t channels, real *to,
                                                        ptrdiff_t plane_stride, ptrdiff_t phase_stride, ptrdiff_t width)
{
    const int size = (int)g->points - 3;
    ptrdiff_t tap[MOST_PHASES * MOST_PHASES][9], first = MOST_TAPS, end = 0; /* those of the block are among these */
    for (ptrdiff_t phase = 0; phase < phases_of(g); phase++) {
        if (size == 2)
            find_taps(2, g, weight->turned, phase, block, tap[phase]);
        else
            find_taps(3, g, weight->turned, phase, block, tap[phase]);
        for (int t = 0; t < size * size; t++) {
            end = larger(end, tap[phase][t] + 1);
            first = tap[phase][t] < 0 ? first : smaller(first, tap[phase][t]);
        }
    }
    for (ptrdiff_t phase = 0; phase < phases_of(g); phase++)
        for (int t = 0; t < size * size; t++) tap[phase][t] -= tap[phase][t] < 0 ? 0 : first;

    real taps[MOST_TAPS + LANES][LANES];
    ptrdiff_t used = end - first, together = weight->channel_stride == used ? MOST_TAPS / used : 1, some;
    for (ptrdiff_t c = 0; c < channels; c += some) {
        some = smaller(together, channels - c);
        transpose_taps(from + c * weight->channel_stride + first, weight->row_stride, rows, some * used, taps);
        for (ptrdiff_t i = 0; i < some * phases_of(g); i++) {
            ptrdiff_t phase = i / some, neighbour = i % some;
            real *square = to + phase * phase_stride + (c + neighbour) * width;
            if (size == 2)
                transform_block(2, tap[phase], taps + neighbour * used, LANES, square, plane_stride);
            else
                transform_block(3, tap[phase], taps + neighbour * used, LANES, square, plane_stride);
        }
    }
}

/* Transforms the weights of LANES output channels, `row` and the next of the `rows` in a chunk which starts with k, for
 * the channels of a part, which starts with `start`. */
static void transform_channel_rows(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                                   ptrdiff_t row, ptrdiff_t rows, ptrdiff_t start, real *part)
{
    ptrdiff_t padded = round_up(rows, LANES), panel = row / channel_panel_width(rows) * channel_panel_width(rows);
    ptrdiff_t width = smaller(channel_panel_width(rows), padded - panel), some;
    const real *filters = (const real *)weight->data + (k + row) * weight->row_stride;
    real *to = part + panel * g->part_channels + row - panel;
    for (ptrdiff_t c = start; c < smaller(start + g->part_channels, g->channels); c += some, to += some * width) {
        struct block block = block_of(g, c);
        some = smaller(image_channels(g) - block.channel, smaller(start + g->part_channels, g->channels) - c);
        transform_filters(g, weight, block, filters + block.channel * weight->channel_stride,
                          smaller(LANES, rows - row), some, to, channel_weight_plane(g), padded * g->part_channels,
                          width);
    }
}

static void transform_channel_weight(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                                     void *transformed)
{
    real *part = (real *)transformed + k / g->chunk_rows * channel_chunk_size(g);
    ptrdiff_t row = k % g->chunk_rows, rows = smaller(g->chunk_rows, g->out_channels - (k - row));
    for (ptrdiff_t start = 0; start < g->channels; start += g->part_channels, part += channel_part_size(g))
        transform_channel_rows(g, weight, k - row, row, rows, start, part);
}

/* ---- Products: [position][phase][tile][K in chunk] ---- */

INLINE ptrdiff_t channel_product_plane(const struct winograd_geometry *g, ptrdiff_t tiles)
{ return plane_size(phases_of(g) * tiles, g->chunk_rows); }

/* Tiles whose products are computed together. Where weights are transformed here, that is once for all of them. */
static ptrdiff_t channel_product_tiles(const struct winograd_geometry *g, ptrdiff_t tiles, int transformed)
{
    ptrdiff_t panel_bytes = positions_of(g) * channel_product_plane(g, COLUMN_TILE) * (ptrdiff_t)sizeof(real);
    return transformed ? smaller(tiles, larger(1, PRODUCT_BYTES / panel_bytes) * COLUMN_TILE) : tiles;
}

static ptrdiff_t channel_scratch_size(const struct winograd_geometry *g, ptrdiff_t tiles, int transformed)
{
    ptrdiff_t products = positions_of(g) * channel_product_plane(g, channel_product_tiles(g, tiles, transformed));
    return round_up((products + (transformed ? 0 : channel_part_size(g))) * (ptrdiff_t)sizeof(real), 64);
}

/* Adds the channels of a part, from `start` on, to the products of one position, phase and panel of `width` output channels
 * with `tiles` tiles; those of the first channels are written. Sums are cut at the same channels whatever the parts. */
static void multiply_part(const struct winograd_geometry *g, ptrdiff_t position, ptrdiff_t start, ptrdiff_t tiles,
                          ptrdiff_t width, const real *weight, const real *patches, real *products,
                          ptrdiff_t product_stride)
{
    struct depth depth = depth_of(g, position);
    ptrdiff_t part_end = smaller(start + g->part_channels, g->channels), next;
    for (ptrdiff_t line = 0; line < depth.lines; line++) {
        ptrdiff_t end = smaller(line * depth.step + depth.length, part_end);
        for (ptrdiff_t c = larger(line * depth.step, start); c < end; c = next) {
            next = smaller(end, (c / DEPTH_BLOCK + 1) * DEPTH_BLOCK);
            multiply_panel(width, tiles, next - c, patches + c, channel_row_length(g), 1, weight + (c - start) * width,
                           products, product_stride, c > 0);
        }
    }
}

/* The same of all phases and panels of a chunk of `rows` output channels. */
static void multiply_channel_position(const struct winograd_geometry *g, ptrdiff_t position, ptrdiff_t start,
                                      ptrdiff_t tiles, ptrdiff_t rows, const real *weight, const real *patches,
                                      real *products)
{
    ptrdiff_t padded = round_up(rows, LANES), panel_width = channel_panel_width(rows), last = g->points - 1, width;
    ptrdiff_t first_down = position / g->points == last ? g->lacking[0] : 0;
    ptrdiff_t first_across = position % g->points == last ? g->lacking[1] : 0;
    for (ptrdiff_t phase = 0; phase < phases_of(g); phase++, products += tiles * padded) {
        if (phase / g->phases < first_down || phase % g->phases < first_across) {
            memset(products, 0, (size_t)(tiles * padded) * sizeof(real));
            continue;
        }
        for (ptrdiff_t k = 0; k < padded; k += width) {
            width = smaller(panel_width, padded - k);
            multiply_part(g, position, start, tiles, width, weight + (phase * padded + k) * g->part_channels, patches,
                          products + k, padded);
        }
    }
}

/* ---- Very few tiles: each vector of weights is used at once, while it is in the first-level cache ---- */

enum { FEW_TILES = 8, FEW_CHANNELS = 8 };

/* sums[position][tile] += of `channels` channels, from their weights, [position][channel], for 4 or 8 tiles. */
INLINE void add_few(const int count, ptrdiff_t positions, ptrdiff_t channels, const real *weight, const real *patches,
                    ptrdiff_t patch_plane, const ptrdiff_t *row, vec sums[][FEW_TILES])
{
    for (ptrdiff_t position = 0; position < positions; position++, patches += patch_plane) {
        vec sum[FEW_TILES];
#pragma GCC unroll 8
        for (int tile = 0; tile < count; tile++) sum[tile] = sums[position][tile];
        for (ptrdiff_t c = 0; c < channels; c++) {
            vec value = vec_load(weight + (position * FEW_CHANNELS + c) * LANES);
#pragma GCC unroll 8
            for (int tile = 0; tile < count; tile++) sum[tile] += patches[row[tile] + c] * value;
        }
#pragma GCC unroll 8
        for (int tile = 0; tile < count; tile++) sums[position][tile] = sum[tile];
    }
}

/* products[position][tile] of at most FEW_TILES tiles and LANES output channels, of which `rows` exist, from k on; the filter
 * is one block. Sums are cut where multiply_part() cuts them. */
static void multiply_few(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                         ptrdiff_t rows, const real *patches, ptrdiff_t patch_plane, ptrdiff_t tiles, real *products,
                         ptrdiff_t product_stride, ptrdiff_t product_plane)
{
    const real *filters = (const real *)weight->data + k * weight->row_stride;
    real own[MOST_POINTS * MOST_POINTS * FEW_CHANNELS * LANES];
    vec sums[MOST_POINTS * MOST_POINTS][FEW_TILES] = {0};
    ptrdiff_t patch[FEW_TILES]; /* the last one again where there are no more */
    for (int tile = 0; tile < FEW_TILES; tile++) patch[tile] = smaller(tile, tiles - 1) * channel_row_length(g);
    for (ptrdiff_t c = 0, some; c < g->channels; c += some) {
        ptrdiff_t cut = smaller((c / DEPTH_BLOCK + 1) * DEPTH_BLOCK, g->channels);
        some = smaller(FEW_CHANNELS, cut - c);
        transform_filters(g, weight, block_of(g, c), filters + c * weight->channel_stride, rows, some, own,
                          FEW_CHANNELS * LANES, 0, LANES);
        if (tiles <= 4)
            add_few(4, positions_of(g), some, own, patches + c, patch_plane, patch, sums);
        else
            add_few(8, positions_of(g), some, own, patches + c, patch_plane, patch, sums);
        if (c + some < cut) continue;
        for (ptrdiff_t i = 0; i < positions_of(g) * tiles; i++) {
            real *to = products + i / tiles * product_plane + i % tiles * product_stride;
            vec sum = sums[i / tiles][i % tiles];
            vec_store(to, c >= DEPTH_BLOCK ? vec_load(to) + sum : sum);
        }
        memset(sums, 0, sizeof sums);
    }
}

/* The outputs of one tile, whose corner is pixel (y, x) of its image's grid, of one phase and LANES output channels from k
 * on, of which `rows` exist. */
INLINE void store_tile(const struct winograd_geometry *g, ptrdiff_t image, ptrdiff_t y, ptrdiff_t x, ptrdiff_t k,
                       ptrdiff_t rows, const real *products, ptrdiff_t plane_stride, vec bias,
                       const struct conv_epilogue *epilogue, struct channel_sums *sums, real *output)
{
    const real *residual = epilogue->residual, slope = (real)epilogue->slope;
    ptrdiff_t height = g->out_size[0], width = g->out_size[1], channels = g->out_channels;
    vec square[4][4];
    transform_outputs(g, products, plane_stride, square);
    for (int row = 0; row < 4; row++) {
        ptrdiff_t down = y + row * g->phases;
        if (down < 0 || down >= height) continue;
        for (int column = 0; column < 4; column++) {
            ptrdiff_t across = x + column * g->phases, at = ((image * height + down) * width + across) * channels + k;
            if (across >= 0 && across < width)
                epilogue_store_pixel(square[row][column] + bias, rows, residual ? residual + at : NULL, slope,
                                     output + at, sums);
        }
    }
}

/* The outputs of a panel of tiles, from `first` on, for `rows` output channels from k on; phases of the products are
 * phase_stride apart. */
static void store_pixels(const struct winograd_geometry *g, ptrdiff_t first, ptrdiff_t tiles, ptrdiff_t k,
                         ptrdiff_t rows, const real *products, ptrdiff_t phase_stride, ptrdiff_t plane_stride,
                         const struct conv_epilogue *epilogue, real *output)
{
    ptrdiff_t phases = g->phases;
    struct channel_sums sums[CHANNEL_CHUNK_TILES] = {0};
    for (ptrdiff_t tile = first; tile < first + tiles; tile++, products += round_up(rows, LANES)) {
        struct corner corner = corner_of(g, tile);
        ptrdiff_t y = phases * corner.y - g->lead[0], x = phases * corner.x - g->lead[1];
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            ptrdiff_t some = smaller(LANES, rows - row);
            vec bias = epilogue->bias ? vec_load_rest((const real *)epilogue->bias + k + row, some) : (vec){0};
            const real *from = products + row;
            for (ptrdiff_t phase = 0; phase < phases_of(g); phase++, from += phase_stride)
                store_tile(g, corner.image, y + phase / phases, x + phase % phases, k + row, some, from, plane_stride,
                           bias, epilogue, &sums[row / LANES], output);
        }
    }
    for (ptrdiff_t row = 0; row < (epilogue->sums ? rows : 0); row += LANES)
        epilogue_store_channels(epilogue, first / COLUMN_TILE, k + row, smaller(LANES, rows - row), &sums[row / LANES]);
}

enum { JOINED_TILES = LANES < 4 ? 1 : LANES / 4 }; /* whose rows fill a vector */

/* lines[channel][row] = the outputs of LANES output channels and `tiles` neighbouring tiles, at most JOINED_TILES, for one
 * row of phases, those of the columns one after the other. */
INLINE void join_tiles(const struct winograd_geometry *g, ptrdiff_t tiles, const real *products, ptrdiff_t tile_stride,
                       ptrdiff_t phase_stride, ptrdiff_t plane_stride, vec bias, real slope,
                       real lines[LANES][4][4 * JOINED_TILES * MOST_PHASES])
{
    for (ptrdiff_t phase = 0; phase < g->phases; phase++, products += phase_stride) {
        vec square[JOINED_TILES][4][4];
        for (ptrdiff_t tile = 0; tile < JOINED_TILES; tile++) /* behind the last tile, that one again */
            transform_outputs(g, products + smaller(tile, tiles - 1) * tile_stride, plane_stride, square[tile]);
        for (int row = 0; row < 4; row++)
            for (ptrdiff_t start = 0; start < 4 * JOINED_TILES; start += LANES) {
                vec line[LANES];
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    line[i] = epilogue_activate(square[(start + i) / 4][row][(start + i) % 4] + bias, slope);
                vec_transpose(line);
                for (int channel = 0; channel < LANES; channel++)
                    if (g->phases == 1)
                        vec_store(lines[channel][row] + start, line[channel]);
                    else
                        for (int i = 0; i < LANES; i++)
                            lines[channel][row][(start + i) * g->phases + phase] = line[channel][i];
            }
    }
}

/* The outputs of neighbouring tiles, for `rows` output channels from k on, at most LANES, in an array with channels first. */
static void store_joined(const struct winograd_geometry *g, struct corner corner, ptrdiff_t tiles, ptrdiff_t k,
                         ptrdiff_t rows, const real *products, ptrdiff_t tile_stride, ptrdiff_t phase_stride,
                         ptrdiff_t plane_stride, vec bias, const struct conv_epilogue *epilogue,
                         struct channel_sums sums[LANES], real *output)
{
    const real slope = epilogue->residual || epilogue->sums ? 1 : (real)epilogue->slope; /* put_row() applies it */
    ptrdiff_t phases = g->phases, height = g->out_size[0], x = phases * corner.x - g->lead[1];
    real lines[LANES][4][4 * JOINED_TILES * MOST_PHASES];
    for (ptrdiff_t down = 0; down < phases; down++, products += phases * phase_stride) {
        join_tiles(g, tiles, products, tile_stride, phase_stride, plane_stride, bias, slope, lines);
        for (ptrdiff_t channel = 0; channel < rows; channel++)
            for (ptrdiff_t row = 0; row < 4; row++) {
                ptrdiff_t y = phases * (corner.y + row) - g->lead[0] + down;
                ptrdiff_t plane = (corner.image * g->out_channels + k + channel) * height;
                if (y >= 0 && y < height)
                    put_row(g, lines[channel][row], x, 4 * tiles * phases, (plane + y) * g->out_size[1], epilogue,
                            &sums[channel], output);
            }
    }
}

/* What store_pixels() does, for arrays with channels first. */
static void store_planes(const struct winograd_geometry *g, ptrdiff_t first, ptrdiff_t tiles, ptrdiff_t k,
                         ptrdiff_t rows, const real *products, ptrdiff_t phase_stride, ptrdiff_t plane_stride,
                         const struct conv_epilogue *epilogue, real *output)
{
    ptrdiff_t across = (g->grid[1] + 3) / 4, tile_stride = round_up(rows, LANES);
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        ptrdiff_t some = smaller(LANES, rows - row);
        vec bias = epilogue->bias ? vec_load_rest((const real *)epilogue->bias + k + row, some) : (vec){0};
        struct channel_sums sums[LANES] = {0};
        for (ptrdiff_t tile = first, joined; tile < first + tiles; tile += joined) {
            joined = smaller(smaller(JOINED_TILES, first + tiles - tile), across - tile % across);
            store_joined(g, corner_of(g, tile), joined, k + row, some, products + (tile - first) * tile_stride + row,
                         tile_stride, phase_stride, plane_stride, bias, epilogue, sums, output);
        }
        for (ptrdiff_t channel = 0; channel < (epilogue->sums ? some : 0); channel++)
            epilogue_store_sums(epilogue, first / COLUMN_TILE, k + row + channel, &sums[channel]);
    }
}

/* The products of a chunk of output channels k .. + rows and `tiles` tiles. Weights that are not transformed yet are so in
 * `own_part`, part by part. */
static void multiply_channel_chunk(const struct winograd_geometry *g, const struct tiled_weight *weight, ptrdiff_t k,
                                   ptrdiff_t rows, const real *patches, ptrdiff_t patch_plane, ptrdiff_t tiles,
                                   real *products, ptrdiff_t product_plane, real *own_part)
{
    const real *part = own_part;
    if (!weight->transformed && tiles <= FEW_TILES && g->phases * g->blocks[0] * g->blocks[1] == 1) {
        for (ptrdiff_t row = 0; row < rows; row += LANES)
            multiply_few(g, weight, k + row, smaller(LANES, rows - row), patches, patch_plane, tiles, products + row,
                         round_up(rows, LANES), product_plane);
        return;
    }
    if (weight->transformed) part = (const real *)weight->transformed + k / g->chunk_rows * channel_chunk_size(g);
    for (ptrdiff_t start = 0; start < g->channels; start += g->part_channels) {
        if (!weight->transformed)
            for (ptrdiff_t row = 0; row < rows; row += LANES)
                transform_channel_rows(g, weight, k, row, rows, start, own_part);
        for (ptrdiff_t position = 0; position < positions_of(g); position++)
            multiply_channel_position(g, position, start, tiles, rows, part + position * channel_weight_plane(g),
                                      patches + position * patch_plane, products + position * product_plane);
        if (weight->transformed) part += channel_part_size(g);
    }
}

static void multiply_channel_tiles(const struct winograd_geometry *g, const struct tiled_weight *weight,
                                   const void *patches, const struct tiled_block *block, ptrdiff_t tile_start,
                                   ptrdiff_t tiles, ptrdiff_t row_start, ptrdiff_t row_count,
                                   const struct conv_epilogue *epilogue, void *output, void *scratch)
{
    ptrdiff_t together = channel_product_tiles(g, tiles, weight->transformed != NULL), row_end = row_start + row_count;
    ptrdiff_t plane = channel_product_plane(g, together);
    real *products = scratch, *own_part = products + positions_of(g) * plane;
    for (ptrdiff_t k = row_start; k < row_end; k += g->chunk_rows) {
        ptrdiff_t rows = smaller(g->chunk_rows, row_end - k), padded = round_up(rows, LANES);
        for (ptrdiff_t start = tile_start, some; start < tile_start + tiles; start += some) {
            some = smaller(together, tile_start + tiles - start);
            multiply_channel_chunk(g, weight, k, rows, (const real *)patches + start * channel_row_length(g),
                                   channel_patch_plane(g, block->tiles), some, products, plane, own_part);
            for (ptrdiff_t tile = 0; tile < some; tile += COLUMN_TILE)
                (g->channels_last ? store_pixels : store_planes)(
                    g, block->start + start + tile, smaller(COLUMN_TILE, some - tile), k, rows,
                    products + tile * padded, some * padded, plane, epilogue, output);
        }
    }
}

const struct winograd_kernels FASTNN_TABLE(winograd_channels) = {
    .weight_rows = LANES,
    .row_tile = LANES,
    .chunk_tiles = CHANNEL_CHUNK_TILES,
    .panel_tiles = COLUMN_TILE,
    .lanes = LANES,
    .tile_step = ROW_TILE,
    .depth_block = DEPTH_BLOCK,
    .few_tiles = FEW_TILES,
    .weight_size = channel_weight_size,
    .transform_weight = transform_channel_weight,
    .patches_size = channel_patches_size,
    .transform_tiles = transform_channel_tiles,
    .scratch_size = channel_scratch_size,
    .multiply_tiles = multiply_channel_tiles,
};

#endif

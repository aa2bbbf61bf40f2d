/* Backward-weights by Winograd's algorithm: see winograd.h. A part of winograd.c, because the transforms that both use would
 * be in the library twice (170 KB). */
#ifndef FASTNN_WINOGRAD_WEIGHT_H
#define FASTNN_WINOGRAD_WEIGHT_H

#include "winograd.h"
#include "winograd_channels.h"

static __attribute__((noinline)) void transform_gradient_square(const struct winograd_geometry *g, vec gradient[4][4],
                                                                real *to, ptrdiff_t plane_stride)
{
    if (g->points == 5)
        transform_square(5, 4, gradient, LANES, to, plane_stride);
    else
        transform_square(6, 4, gradient, LANES, to, plane_stride);
}

/* Of each lane, the sum of its tile. */
INLINE vec square_sum(vec square[4][4])
{
    vec row[4];
    for (int i = 0; i < 4; i++) row[i] = (square[i][0] + square[i][1]) + (square[i][2] + square[i][3]);
    return (row[0] + row[1]) + (row[2] + row[3]);
}

/* to[position][tile] = G4 (4x4 tile of the gradient) G4' for one output channel of a panel; returns the panel's sum. */
static real transform_gradient(const struct winograd_geometry *g, const struct images *images, ptrdiff_t channel,
                               const struct panel *panel, real *to, ptrdiff_t plane_stride)
{
    real rows[4 * PATCH_ROW];
    vec sum = {0};
    gather_patches(4, 1, images, channel, panel, 0, 0, rows, NULL);
    for (ptrdiff_t tile = 0; tile < panel->width; tile += LANES) {
        vec square[4][4];
        for (int row = 0; row < 4; row++) split_columns(4, rows + row * PATCH_ROW + 4 * tile, square[row]);
        sum += square_sum(square);
        transform_gradient_square(g, square, to + tile, plane_stride);
    }
    return vec_sum(sum);
}

INLINE ptrdiff_t sum_patch_plane(const struct tiled_sum *s)
{ return plane_size(round_up(s->channels, LANES), s->room); }
/* Gradients are [position][K][tile], or with channels last [position][group][tile][K in group], whose groups are whole
 * vectors and whole row tiles, so that the tiles of a product follow each other in memory: where they begin for a K, the
 * steps between the K of a group and between tiles, and elements of a position. */
enum { GROUP_ROWS = ROW_TILE == 8 ? LANES : 3 * LANES };

INLINE ptrdiff_t gradient_start(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t k)
{ return g->channels_last ? k / GROUP_ROWS * GROUP_ROWS * s->room + k % GROUP_ROWS : k * s->room; }
INLINE ptrdiff_t gradient_row(const struct winograd_geometry *g, const struct tiled_sum *s)
{ return g->channels_last ? 1 : s->room; }
INLINE ptrdiff_t gradient_tile(const struct winograd_geometry *g) { return g->channels_last ? GROUP_ROWS : 1; }
INLINE ptrdiff_t sum_gradient_plane(const struct winograd_geometry *g, const struct tiled_sum *s)
{ return plane_size(g->channels_last ? round_up(s->rows, GROUP_ROWS) : s->rows, s->room); }
INLINE ptrdiff_t sum_product_plane(const struct tiled_sum *s)
{ return plane_size(s->rows, round_up(s->channels, LANES)); }

/* Bytes of the patches, the gradients and the products of a sum. */
static void sum_sizes(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t sizes[3])
{
    ptrdiff_t planes[] = {sum_patch_plane(s), sum_gradient_plane(g, s), sum_product_plane(s)};
    for (int i = 0; i < 3; i++) sizes[i] = round_up(positions_of(g) * planes[i] * (ptrdiff_t)sizeof(real), 64);
}

/* Transforms the patches of one panel of the round, from `tile` on, and some channels of a group of COLUMN_TILE, from
 * `channel` on. */
static void transform_sum_patches(const struct winograd_geometry *g, const struct tiled_sum *s, const void *input,
                                  ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels, void *patches)
{
    ptrdiff_t group = channel / COLUMN_TILE * COLUMN_TILE;
    ptrdiff_t width = round_up(smaller(COLUMN_TILE, s->channels - group), LANES);
    transform_by_channels(
        g, input, s->tile_start + tile, smaller(COLUMN_TILE, s->tiles - tile), s->channel_start + channel, channels,
        (real *)patches + group * s->room + tile * width + channel - group, width, sum_patch_plane(s));
}

/* Transforms the gradients of one panel of the round, from `tile` on, for output channels row .. + rows, at most COLUMN_TILE, the
 * lanes, of an array with channels last; and their sums. */
static void transform_last_gradients(const struct winograd_geometry *g, const struct tiled_sum *s,
                                     const struct images *images, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t rows,
                                     real *gradients, double *sums)
{
    ptrdiff_t width = images->width, channels = images->channels;
    vec sum[COLUMN_VECTORS] = {0};
    for (ptrdiff_t t = tile; t < smaller(tile + COLUMN_TILE, s->tiles); t++) {
        struct corner at = corner_of(g, s->tile_start + t);
        ptrdiff_t pixel = (at.image * images->height + at.y) * width + at.x;
        for (ptrdiff_t k = 0; k < rows; k += LANES) {
            const real *from = images->data + pixel * channels + s->row_start + row + k;
            vec square[4][4];
            for (int down = 0; down < 4; down++)
                for (int across = 0; across < 4; across++) {
                    square[down][across] = (vec){0};
                    if (at.y + down < images->height && at.x + across < width)
                        square[down][across] = vec_load_rest(from + (down * width + across) * channels, rows - k);
                }
            sum[k / LANES] += square_sum(square);
            transform_gradient_square(g, square, gradients + gradient_start(g, s, row + k) + t * gradient_tile(g),
                                      sum_gradient_plane(g, s));
        }
    }
    for (ptrdiff_t k = 0; k < rows; k++) sums[k] = (double)sum[k / LANES][k % LANES];
}

/* Transforms the gradients of one panel of the round, from `tile` on, for output channels row .. + rows, at most COLUMN_TILE.
 * bias_sums[panel][row] has the sums of the gradients themselves. */
static void transform_sum_gradients(const struct winograd_geometry *g, const struct tiled_sum *s,
                                    const void *grad_output, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t rows,
                                    void *gradients, double *bias_sums)
{
    struct images images = output_images(g, grad_output);
    double *sums = bias_sums + tile / COLUMN_TILE * s->rows + row;
    if (g->channels_last) {
        transform_last_gradients(g, s, &images, tile, row, rows, gradients, sums);
        return;
    }
    struct panel panel;
    describe_panel(g, s->tile_start + tile, smaller(COLUMN_TILE, s->tiles - tile), &panel);
    for (ptrdiff_t k = 0; k < rows; k++)
        sums[k] = (double)transform_gradient(g, &images, s->row_start + row + k, &panel,
                                             (real *)gradients + gradient_start(g, s, row + k) + tile,
                                             sum_gradient_plane(g, s));
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
static void multiply_sum(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t position,
                         ptrdiff_t row, ptrdiff_t rows, const void *gradients, const void *patches, int accumulate,
                         void *products)
{
    ptrdiff_t row_length = round_up(s->channels, LANES), end = row + rows;
    const real *from = (const real *)patches + position * sum_patch_plane(s);
    const real *gradient = (const real *)gradients + position * sum_gradient_plane(g, s);
    real *to = (real *)products + position * sum_product_plane(s);
    for (ptrdiff_t c = 0; c < s->channels; c += COLUMN_TILE) {
        if (!has_position(g, position, s->channel_start + c, smaller(COLUMN_TILE, s->channels - c))) continue;
        ptrdiff_t width = smaller(COLUMN_TILE, row_length - c);
        for (ptrdiff_t tile = 0; tile < s->tiles; tile += DEPTH_BLOCK) /* so many patches stay in the cache */
            for (ptrdiff_t k = row, some; k < end; k += some) {
                some = g->channels_last ? smaller(GROUP_ROWS, end - k) : rows;
                multiply_panel(width, some, smaller(DEPTH_BLOCK, s->tiles - tile),
                               gradient + gradient_start(g, s, k) + tile * gradient_tile(g), gradient_row(g, s),
                               gradient_tile(g), from + c * s->room + tile * width, to + k * row_length + c, row_length,
                               accumulate || tile > 0);
            }
    }
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
static void store_sum(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t row, const void *products,
                      void *grad_weight)
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

/* ---- Few tiles: products become weights at once, LANES channels at a time ---- */

enum { SUM_ROWS = 8 }; /* output channels together: so many sums at a time */

/* products[row][position] of LANES channels, for `rows` output channels from k on of gradients D on patches
 * V [P][tile][C]. */
static void multiply_few_sums(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t k, ptrdiff_t rows,
                              const real *gradients, const real *patches, vec products[SUM_ROWS][36])
{
    ptrdiff_t plane = channel_patch_plane(g, s->tiles);
    ptrdiff_t gradient_plane = sum_gradient_plane(g, s), tile_step = gradient_tile(g);
    ptrdiff_t row_length = round_up(g->channels, LANES), row[SUM_ROWS];
    for (int r = 0; r < SUM_ROWS; r++) row[r] = gradient_start(g, s, k + smaller(r, rows - 1)); /* the last one again */
    for (ptrdiff_t position = 0; position < positions_of(g);
         position++, gradients += gradient_plane, patches += plane) {
        vec sum[SUM_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < SUM_ROWS; r++) sum[r] = (vec){0};
        for (ptrdiff_t tile = 0; tile < s->tiles; tile++) {
            vec v = vec_load(patches + tile * row_length);
#pragma GCC unroll 8
            for (int r = 0; r < SUM_ROWS; r++) sum[r] += gradients[row[r] + tile * tile_step] * v;
        }
#pragma GCC unroll 8
        for (int r = 0; r < SUM_ROWS; r++) products[r][position] = sum[r];
    }
}

/* The weights of output channels row .. + rows and channels channel .. + channels, from all gradients and patches. */
static void sum_few(const struct winograd_geometry *g, const struct tiled_sum *s, ptrdiff_t row, ptrdiff_t rows,
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
            multiply_few_sums(g, s, k, together, gradients, (const real *)patches + c, products);
            for (ptrdiff_t r = 0; r < together; r++)
                store_weights(g, &place, (const real *)products[r], LANES, some,
                              filters + (r * image_channels(g) + block.channel) * filter);
        }
    }
}

const struct winograd_weight_kernels FASTNN_TABLE(winograd_weight) = {
    .row_tile = ROW_TILE,
    .panel_tiles = COLUMN_TILE,
    .lanes = LANES,
    .sum_sizes = sum_sizes,
    .transform_sum_patches = transform_sum_patches,
    .transform_sum_gradients = transform_sum_gradients,
    .multiply_sum = multiply_sum,
    .store_sum = store_sum,
    .sum_few = sum_few,
};

#endif

/* Convolution as a matrix product whose rows are the outputs' pixels q and whose columns are output channels k:
 *
 *   forward           out[q][k] = sum over d of in[q][d] * weight[k][d], through the epilogue
 *   backward-weights  dw[d][k] = sum over q of in[q][d] * dout[q][k]
 *
 * Of a 1x1 convolution of arrays with channels last, (N, height, width, C), d is a channel, and rows are read where they stand:
 * nothing is transposed, and of the image nothing is copied. Of other filters patches are packed, a few pixels at a time, for the
 * elements under a row of the filter are neighbours in the image: of images of few channels, which are last, d is (row of the
 * filter, column, channel); of patches that hardly overlap, with channels first, (channel, row, column), and outputs are transposed
 * as they are stored. The weights are packed
 * beforehand, as gemm's B: [panel of K][depth][COLUMN_TILE]. A panel of a block of the depth, which stays in the first-level
 * cache, meets all pixels of a task.
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"
#include "vec.h"

/* Patches that are packed at a time for backward-weights. */
enum { PATCHES = 64 };
/* Channels of a block, which sums are cut at, at most: a panel of at most 36 KB. */
enum { DEPTH_BLOCK = 192 };

/* Stores the sums of pixels x output channels, the last of them complete, from a buffer [pixel][COLUMN_TILE]. */
static void finish(const struct conv_epilogue *epilogue, ptrdiff_t pixels, ptrdiff_t channel, ptrdiff_t count,
                   const real *buffer, int accumulate, ptrdiff_t at, ptrdiff_t row_stride, real *output,
                   struct channel_sums sums[COLUMN_VECTORS])
{
    const real *bias = epilogue->bias, *residual = epilogue->residual;
    for (ptrdiff_t j = 0; j < count; j += LANES) {
        ptrdiff_t some = smaller(LANES, count - j), place = at + channel + j;
        vec first = bias ? vec_load_rest(bias + channel + j, some) : (vec){0};
        struct channel_sums own = sums[j / LANES]; /* in registers */
        for (ptrdiff_t pixel = 0; pixel < pixels; pixel++, place += row_stride) {
            vec value = vec_load(buffer + pixel * COLUMN_TILE + j) + first;
            if (accumulate) value += vec_load_rest(output + place, some);
            epilogue_store_pixel(value, some, residual ? residual + place : NULL, (real)epilogue->slope, output + place,
                                 &own);
        }
        sums[j / LANES] = own;
    }
}

/* The outputs behind a tile of pixels come while it is computed. */
INLINE void send_for_next(const real *output, ptrdiff_t columns, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = ROW_TILE; row < 2 * ROW_TILE; row++)
        for (ptrdiff_t j = 0; j < columns; j += LANES) __builtin_prefetch(output + row * row_stride + j, 1);
}

/* Output channels first .. + channels (from a multiple of COLUMN_TILE) of pixels start .. + count, which are `unit` to the
 * epilogue's sums; `packed` begins with the panel of the first one. */
static void tile(const struct pixels_geometry *g, const void *input, const void *packed, ptrdiff_t start,
                 ptrdiff_t count, ptrdiff_t first, ptrdiff_t channels, const struct conv_epilogue *epilogue,
                 ptrdiff_t unit, void *output)
{
    const int plain = !epilogue->bias && !epilogue->residual && !epilogue->sums && epilogue->slope == 1;
    /* one even without any channel: the output is then the bias */
    const ptrdiff_t blocks = larger(1, (g->channels + DEPTH_BLOCK - 1) / DEPTH_BLOCK);
    for (ptrdiff_t block = 0; block < blocks; block++) {
        const ptrdiff_t depth_start = block * g->channels / blocks;
        const ptrdiff_t depth = (block + 1) * g->channels / blocks - depth_start;
        const int last = block == blocks - 1;
        for (ptrdiff_t k = 0; k < channels; k += COLUMN_TILE) {
            const real *panel = (const real *)packed + k * g->channels + depth_start * COLUMN_TILE;
            const ptrdiff_t columns = smaller(COLUMN_TILE, channels - k);
            struct channel_sums sums[COLUMN_VECTORS] = {0};
            for (ptrdiff_t q = start, pixels; q < start + count; q += pixels) {
                const ptrdiff_t row = (q - g->first) / g->row_pixels, x = (q - g->first) % g->row_pixels;
                const ptrdiff_t at = q * g->out_channels;
                const real *pixel = (const real *)input + row / g->image_rows * g->in_image +
                                    row % g->image_rows * g->in_row + x * g->in_pixel + depth_start;
                real buffer[ROW_TILE * COLUMN_TILE], *to = (real *)output + at + first + k;
                pixels = smaller(smaller(ROW_TILE, g->row_pixels - x), start + count - q);
                send_for_next(to, columns, g->out_channels);
                if ((plain || !last) && columns % LANES == 0) {
                    multiply_ragged_tile(pixels, columns, depth, pixel, g->in_pixel, 1, panel, to, g->out_channels,
                                         depth_start > 0);
                    continue;
                }
                multiply_ragged_tile(pixels, columns, depth, pixel, g->in_pixel, 1, panel, buffer, COLUMN_TILE, 0);
                const struct conv_epilogue none = {.slope = 1};
                finish(last ? epilogue : &none, pixels, first + k, columns, buffer, depth_start > 0, at,
                       g->out_channels, output, sums);
            }
            for (ptrdiff_t j = 0; j < (last && epilogue->sums ? columns : 0); j += LANES)
                epilogue_store_channels(epilogue, unit, first + k + j, smaller(LANES, columns - j), &sums[j / LANES]);
        }
    }
}

/* ---- Packed patches ---- */

INLINE ptrdiff_t depth_of(const struct patches_geometry *g) { return g->filter[0] * g->filter[1] * g->channels; }
/* Elements from one packed patch to the next: rows of the filter are written in whole vectors. */
INLINE ptrdiff_t patch_stride(const struct patches_geometry *g) { return depth_of(g) + LANES; }
INLINE ptrdiff_t partial_row(const struct patches_geometry *g) { return round_up(g->out_channels, LANES); }

/* What stands under one row of the filter, `run` elements each, of `count` patches from column `column` of the image on; `line` is
 * a row, inside the image or not, whose columns are `pixel` elements apart, and before `end` all is readable. */
INLINE void pack_runs(const struct patches_geometry *g, const int one_vector, ptrdiff_t run, ptrdiff_t pixel,
                      const real *line, int inside, const real *end, ptrdiff_t column, ptrdiff_t count, real *to)
{
    const ptrdiff_t width = g->in_size[1], step = g->stride[1], stride = patch_stride(g);
    /* the columns whose patches are read in whole vectors, and the patches on them */
    const ptrdiff_t room = inside ? end - line - round_up(run, LANES) : -1;
    const ptrdiff_t last = room < 0 ? -1 : smaller(width - g->filter[1], room / pixel);
    const ptrdiff_t behind = last < column ? 0 : smaller(count, (last - column) / step + 1);
    const ptrdiff_t first = column < 0 ? smaller(behind, (-column + step - 1) / step) : 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (i == first) {
            const real *from = line + (column + i * step) * pixel;
            for (; i < behind; i++, from += step * pixel)
                for (ptrdiff_t e = 0; e < (one_vector ? 1 : run); e += LANES)
                    vec_store(to + i * stride + e, vec_load(from + e));
            if (i == count) break;
        }
        const ptrdiff_t at = column + i * step, readable = inside ? smaller(run, (width - at) * pixel) : 0;
        for (ptrdiff_t e = 0; e < run; e += LANES)
            vec_store(to + i * stride + e, vec_load_inside(line + at * pixel + e, -at * pixel - e, readable - e));
    }
}

/* patches[q - start][depth] for outputs start .. + count. Rows of a patch are those of all channels, or those of one after the
 * other. */
static void pack_patches(const struct patches_geometry *g, const real *input, ptrdiff_t start, ptrdiff_t count,
                         real *patches)
{
    const ptrdiff_t height = g->in_size[0], pixel = g->channels_last ? g->channels : 1;
    const ptrdiff_t run = g->filter[1] * pixel, row_size = g->in_size[1] * pixel, rows = depth_of(g) / run;
    const real *end = input + g->images * g->channels * height * g->in_size[1];
    for (ptrdiff_t q = start, some; q < start + count; q += some, patches += some * patch_stride(g)) {
        ptrdiff_t row = q / g->out_size[1], x = q % g->out_size[1], y = row % g->out_size[0];
        const real *image = input + row / g->out_size[0] * g->channels * height * g->in_size[1];
        some = smaller(g->out_size[1] - x, start + count - q);
        for (ptrdiff_t r = 0; r < rows; r++) {
            ptrdiff_t in_row = y * g->stride[0] - g->padding[0] + r % g->filter[0];
            ptrdiff_t column = x * g->stride[1] - g->padding[1];
            const real *line = image + (r / g->filter[0] * height + in_row) * row_size;
            const int inside = in_row >= 0 && in_row < height;
            if (run <= LANES)
                pack_runs(g, 1, run, pixel, line, inside, end, column, some, patches + r * run);
            else
                pack_runs(g, 0, run, pixel, line, inside, end, column, some, patches + r * run);
        }
    }
}

/* Bytes for patch_tile() of so many pixels, or for weight_tile(): patches, and products or a panel of gradients. */
static ptrdiff_t scratch_size(const struct patches_geometry *g, ptrdiff_t pixels)
{
    ptrdiff_t products = g->channels_last ? 0 : pixels * partial_row(g);
    ptrdiff_t elements = larger(pixels, PATCHES) * patch_stride(g) + larger(PATCHES * COLUMN_TILE, products);
    return round_up(elements * (ptrdiff_t)sizeof(real), 64);
}

/* Pixels start .. + some of `count`, that are in one image, and where the first channel of the first of them stands in an array
 * with channels first. */
INLINE ptrdiff_t find_plane(const struct patches_geometry *g, ptrdiff_t start, ptrdiff_t count, ptrdiff_t *some)
{
    const ptrdiff_t plane = g->out_size[0] * g->out_size[1], image = start / plane;
    *some = smaller(count, (image + 1) * plane - start);
    return image * plane * g->out_channels + start % plane;
}

/* Stores products[pixel][partial_row()] with channels first, LANES channels at a time. */
static void store_first(const struct patches_geometry *g, const real *products, ptrdiff_t start, ptrdiff_t count,
                        const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output)
{
    const real *bias = epilogue->bias, *residual = epilogue->residual;
    const ptrdiff_t plane = g->out_size[0] * g->out_size[1], row = partial_row(g);
    for (ptrdiff_t k = 0; k < g->out_channels; k += LANES) {
        const ptrdiff_t channels = smaller(LANES, g->out_channels - k);
        const vec first = bias ? vec_load_rest(bias + k, channels) : (vec){0};
        struct channel_sums sums[LANES] = {0};
        for (ptrdiff_t q = 0, some; q < count; q += some) {
            const ptrdiff_t place = find_plane(g, start + q, smaller(LANES, count - q), &some) + k * plane;
            epilogue_store_turned(products + q * row + k, row, some, channels, first, plane,
                                  residual ? residual + place : NULL, (real)epilogue->slope, output + place, sums);
        }
        for (ptrdiff_t i = 0; i < (epilogue->sums ? channels : 0); i++)
            epilogue_store_sums(epilogue, unit, k + i, &sums[i]);
    }
}

/* The outputs of pixels start .. + count come from memory while their products are computed. */
static void send_for_first(const struct patches_geometry *g, ptrdiff_t start, ptrdiff_t count, const real *output)
{
    const ptrdiff_t plane = g->out_size[0] * g->out_size[1];
    for (ptrdiff_t q = 0, some; q < count; q += some) {
        const real *to = output + find_plane(g, start + q, count - q, &some);
        for (ptrdiff_t k = 0; k < g->out_channels; k++, to += plane)
            for (ptrdiff_t i = 0; i < some; i += LANES) __builtin_prefetch(to + i, 1);
    }
}

/* tile() of all output channels, by way of packed patches. */
static void patch_tile(const struct patches_geometry *g, const void *input, const void *packed, ptrdiff_t start,
                       ptrdiff_t count, const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output,
                       void *scratch)
{
    struct pixels_geometry rows = {depth_of(g), g->out_channels, start, count, 1, patch_stride(g), 0, 0};
    pack_patches(g, input, start, count, scratch);
    if (g->channels_last) {
        tile(&rows, scratch, packed, start, count, 0, g->out_channels, epilogue, unit, output);
        return;
    }
    const struct conv_epilogue none = {.slope = 1};
    real *products = (real *)scratch + larger(count, PATCHES) * patch_stride(g);
    rows.first = 0, rows.out_channels = partial_row(g);
    send_for_first(g, start, count, output);
    tile(&rows, scratch, packed, 0, count, 0, partial_row(g), &none, 0, products);
    store_first(g, products, start, count, epilogue, unit, output);
}

/* packed[q - start][COLUMN_TILE] = the gradients of `columns` output channels from k on */
static void pack_gradients(const struct patches_geometry *g, const real *grad, ptrdiff_t start, ptrdiff_t count,
                           ptrdiff_t k, ptrdiff_t columns, real *packed)
{
    const ptrdiff_t plane = g->out_size[0] * g->out_size[1];
    if (g->channels_last)
        pack_along_lines(grad + start * g->out_channels + k, g->out_channels, columns, count, COLUMN_TILE, packed);
    for (ptrdiff_t q = start, some; q < start + count && !g->channels_last; q += some) {
        const real *from = grad + find_plane(g, q, start + count - q, &some) + k * plane;
        pack_along_depth(from, plane, columns, some, COLUMN_TILE, packed + (q - start) * COLUMN_TILE);
    }
}

/* Bytes of weight_tile()'s sums. */
static ptrdiff_t partial_size(const struct patches_geometry *g)
{ return depth_of(g) * partial_row(g) * (ptrdiff_t)sizeof(real); }

/* partial[d][k], rows of whole vectors, = the sums over outputs start .. + count. */
static void weight_tile(const struct patches_geometry *g, const void *input, const void *grad_output, ptrdiff_t start,
                        ptrdiff_t count, void *partial, void *scratch)
{
    const ptrdiff_t depth = depth_of(g), stride = patch_stride(g), parts = (depth + ROW_TILE - 1) / ROW_TILE;
    real *patches = scratch, *packed = patches + PATCHES * stride;
    for (ptrdiff_t q = start; q < start + count; q += PATCHES) {
        const ptrdiff_t some = smaller(PATCHES, start + count - q);
        pack_patches(g, input, q, some, patches);
        for (ptrdiff_t k = 0; k < g->out_channels; k += COLUMN_TILE) {
            const ptrdiff_t columns = smaller(COLUMN_TILE, g->out_channels - k);
            pack_gradients(g, grad_output, q, some, k, columns, packed);
            for (ptrdiff_t part = 0; part < parts; part++) {
                const ptrdiff_t d = part * depth / parts, rows = (part + 1) * depth / parts - d;
                multiply_ragged_tile(rows, columns, some, patches + d, 1, stride, packed,
                                     (real *)partial + d * partial_row(g) + k, partial_row(g), q > start);
            }
        }
    }
}

const struct pixels_kernels FASTNN_TABLE(pixels) = {
    .tile = tile,
    .scratch_size = scratch_size,
    .patch_tile = patch_tile,
    .partial_size = partial_size,
    .weight_tile = weight_tile,
};

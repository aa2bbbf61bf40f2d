/* 1x1 convolution of arrays with channels last, (N, height, width, C), as the matrix product that it is:
 *
 *   out[q][k] = sum over c of in[q][c] * weight[k][c], through the epilogue
 *
 * A row of it is a pixel q, whose channels are read where they stand, a column is an output channel: nothing is transposed, and
 * of the image nothing is copied. The weights are packed beforehand, as gemm's B: [panel of K][C][COLUMN_TILE]. A panel of a
 * block of the depth, which stays in the first-level cache, meets all pixels of a task.
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"

/* Channels of a block, which sums are cut at: a panel of at most 24 KB. */
enum { DEPTH_BLOCK = 128 };

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

/* Output channels first .. + channels (from a multiple of COLUMN_TILE) of pixels start .. + count, which are `unit` to the
 * epilogue's sums; `packed` begins with the panel of the first one. */
static void tile(const struct pointwise_geometry *g, const void *input, const void *packed, ptrdiff_t start,
                 ptrdiff_t count, ptrdiff_t first, ptrdiff_t channels, const struct conv_epilogue *epilogue,
                 ptrdiff_t unit, void *output)
{
    const int plain = !epilogue->bias && !epilogue->residual && !epilogue->sums && epilogue->slope == 1;
    ptrdiff_t depth_start = 0;
    do { /* once even without any channel: the output is then the bias */
        const ptrdiff_t depth = smaller(DEPTH_BLOCK, g->channels - depth_start);
        const int last = depth_start + depth >= g->channels;
        for (ptrdiff_t k = 0; k < channels; k += COLUMN_TILE) {
            const real *panel = (const real *)packed + k * g->channels + depth_start * COLUMN_TILE;
            const ptrdiff_t columns = smaller(COLUMN_TILE, channels - k);
            struct channel_sums sums[COLUMN_VECTORS] = {0};
            for (ptrdiff_t q = start, pixels; q < start + count; q += pixels) {
                const ptrdiff_t row = q / g->row_pixels, x = q % g->row_pixels, at = q * g->out_channels;
                const real *pixel = (const real *)input + row / g->image_rows * g->in_image +
                                    row % g->image_rows * g->in_row + x * g->in_pixel + depth_start;
                real buffer[ROW_TILE * COLUMN_TILE], *to = (real *)output + at + first + k;
                pixels = smaller(smaller(ROW_TILE, g->row_pixels - x), start + count - q);
                if ((plain || !last) && columns == COLUMN_TILE) {
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
        depth_start += depth;
    } while (depth_start < g->channels);
}

const struct pointwise_kernels FASTNN_TABLE(pointwise) = {.tile = tile};

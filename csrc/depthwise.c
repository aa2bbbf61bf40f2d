/* Depthwise convolution of arrays with channels last, (N, height, width, C). The lanes of a vector are channels, so that each
 * tap of each output is a plain load:
 *
 *   forward           out[p,c] = sum over t of weight[t,c] * in[p * stride + tap(t), c], through the epilogue
 *   backward-data     the same for each phase of the stride, with the gradient as `in`
 *   backward-weights  dw[t,c] = sum over images, p of dout[p,c] * in[p * stride + tap(t), c]
 *
 * C channels, T filter positions (taps), weights [T][C]. Rows of outputs are counted through all images. Where all taps of
 * neighbouring outputs stand inside the image's row, some are computed together; at its edges one by one.
 */
#include "epilogue.h"
#include "kernels.h"

/* Outputs of a row that are computed together, and taps whose gradients are. */
enum { OUTPUTS = 8, GRADIENT_TAPS = 9 };
/* Sums over more rows than have so many pixels are cut. */
enum { SUM_PIXELS = 256 };

INLINE vec load_channels(const real *from, const int whole, ptrdiff_t count)
{ return whole ? vec_load(from) : vec_load_rest(from, count); }

/* Outputs first .. end - 1 of a row */
struct range {
    ptrdiff_t first, end;
};

/* Those under which all of some taps stand inside the image's row. */
static struct range inside_row(const struct depthwise_geometry *g, ptrdiff_t tap, ptrdiff_t taps)
{
    ptrdiff_t low = g->tap[tap].x, high = low, step = g->stride[1];
    for (ptrdiff_t t = tap; t < tap + taps; t++) low = smaller(low, g->tap[t].x), high = larger(high, g->tap[t].x);
    ptrdiff_t last = g->in_size[1] - 1 - high;
    struct range range = {low < 0 ? (-low + step - 1) / step : 0, last < 0 ? 0 : smaller(last / step + 1, g->grid[1])};
    range.first = smaller(range.first, range.end);
    return range;
}

INLINE int is_inside(ptrdiff_t position, ptrdiff_t size) { return position >= 0 && position < size; }

/* sum[i] += the taps of output (y, x + i). Of several outputs all taps are in the row; the taps of a single one are looked at. */
INLINE void add_taps(const struct depthwise_geometry *g, const int outputs, const int whole, const real *image,
                     const real *weight, ptrdiff_t y, ptrdiff_t x, ptrdiff_t count, vec sum[OUTPUTS])
{
    const ptrdiff_t step = g->stride[1] * g->channels;
    for (ptrdiff_t t = 0; t < g->taps; t++) {
        ptrdiff_t row = y * g->stride[0] + g->tap[t].y, column = x * g->stride[1] + g->tap[t].x;
        if (!is_inside(row, g->in_size[0]) || (outputs == 1 && !is_inside(column, g->in_size[1]))) continue;
        const real *from = image + (row * g->in_size[1] + column) * g->channels;
        vec value = load_channels(weight + g->tap[t].index * g->channels, whole, count);
#pragma GCC unroll 8
        for (int i = 0; i < outputs; i++) sum[i] += value * load_channels(from + i * step, whole, count);
    }
}

/* Some outputs of a row, of `count` channels, at most LANES; offsets are those of the first channel of the first output. */
INLINE void compute_outputs(const struct depthwise_geometry *g, const int outputs, const int whole, const real *image,
                            const real *weight, ptrdiff_t y, ptrdiff_t x, ptrdiff_t count, vec bias,
                            const struct conv_epilogue *epilogue, ptrdiff_t target, real *output,
                            struct channel_sums *sums)
{
    const real *residual = epilogue->residual;
    vec sum[OUTPUTS];
#pragma GCC unroll 8
    for (int i = 0; i < outputs; i++) sum[i] = bias;
    add_taps(g, outputs, whole, image, weight, y, x, count, sum);
#pragma GCC unroll 8
    for (int i = 0; i < outputs; i++, target += g->out_pixel)
        epilogue_store_pixel(sum[i], count, residual ? residual + target : NULL, (real)epilogue->slope, output + target,
                             sums);
}

/* One row of outputs, of `count` channels. */
INLINE void compute_row(const struct depthwise_geometry *g, const int whole, const real *image, const real *weight,
                        ptrdiff_t y, struct range inside, ptrdiff_t count, vec bias,
                        const struct conv_epilogue *epilogue, ptrdiff_t target, real *output, struct channel_sums *sums)
{
    struct channel_sums own = *sums; /* in registers */
    for (ptrdiff_t x = 0, some; x < g->grid[1]; x += some, target += some * g->out_pixel) {
        ptrdiff_t left = x < inside.first ? 0 : inside.end - x;
        some = left >= OUTPUTS ? OUTPUTS : left >= OUTPUTS / 2 ? OUTPUTS / 2 : 1;
        if (some == OUTPUTS)
            compute_outputs(g, OUTPUTS, whole, image, weight, y, x, count, bias, epilogue, target, output, &own);
        else if (some > 1)
            compute_outputs(g, OUTPUTS / 2, whole, image, weight, y, x, count, bias, epilogue, target, output, &own);
        else
            compute_outputs(g, 1, whole, image, weight, y, x, count, bias, epilogue, target, output, &own);
    }
    *sums = own;
}

/* Rows start .. + rows of outputs, which are `unit` to the epilogue's sums. */
static void tile(const struct depthwise_geometry *g, const void *input, const void *weight, ptrdiff_t start,
                 ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output)
{
    const struct range inside = inside_row(g, 0, g->taps);
    for (ptrdiff_t c = 0; c < g->channels; c += LANES) {
        const ptrdiff_t count = smaller(LANES, g->channels - c);
        const vec bias = epilogue->bias ? vec_load_rest((const real *)epilogue->bias + c, count) : (vec){0};
        struct channel_sums sums = {0};
        for (ptrdiff_t row = start; row < start + rows; row++) {
            ptrdiff_t n = row / g->grid[0], y = row % g->grid[0];
            ptrdiff_t target = g->target + n * g->out_image + y * g->out_row + c;
            const real *image = (const real *)input + n * g->in_size[0] * g->in_size[1] * g->channels + c;
            const real *own = (const real *)weight + c;
            if (count == LANES)
                compute_row(g, 1, image, own, y, inside, count, bias, epilogue, target, output, &sums);
            else
                compute_row(g, 0, image, own, y, inside, count, bias, epilogue, target, output, &sums);
        }
        if (epilogue->sums) epilogue_store_channels(epilogue, unit, c, count, &sums);
    }
}

/* sum[t] += gradient * image for `taps` taps from `tap` on and outputs x.first .. x.end - 1 of row y. Taps are looked at unless
 * all of them are inside. */
INLINE void add_gradients(const struct depthwise_geometry *g, const int taps, const int whole, const int all_inside,
                          const real *image, const real *grad, ptrdiff_t y, struct range x, ptrdiff_t tap,
                          ptrdiff_t count, vec sum[GRADIENT_TAPS])
{
    const ptrdiff_t step = g->stride[1] * g->channels;
    const real *from[GRADIENT_TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++)
        from[t] = image + ((y * g->stride[0] + g->tap[tap + t].y) * g->in_size[1] + g->tap[tap + t].x) * g->channels;
    for (ptrdiff_t i = x.first; i < x.end; i++) {
        vec value = load_channels(grad + i * g->out_pixel, whole, count);
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++)
            if (all_inside || (is_inside(y * g->stride[0] + g->tap[tap + t].y, g->in_size[0]) &&
                               is_inside(i * g->stride[1] + g->tap[tap + t].x, g->in_size[1])))
                sum[t] += value * load_channels(from[t] + i * step, whole, count);
    }
}

/* partial[t][c] = the sums over the rows, for `count` channels and `taps` taps, to which the arguments point. */
INLINE void sum_taps(const struct depthwise_geometry *g, const int taps, const int whole, const real *image,
                     const real *grad, ptrdiff_t start, ptrdiff_t rows, ptrdiff_t tap, ptrdiff_t count, real *partial)
{
    const ptrdiff_t image_size = g->in_size[0] * g->in_size[1] * g->channels;
    const ptrdiff_t together = larger(1, SUM_PIXELS / larger(1, g->grid[1])), end = start + rows;
    const struct range inside = inside_row(g, tap, taps);
    for (ptrdiff_t first = start; first < end; first += together) {
        vec sum[GRADIENT_TAPS];
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++) sum[t] = (vec){0};
        for (ptrdiff_t row = first; row < smaller(first + together, end); row++) {
            ptrdiff_t n = row / g->grid[0], y = row % g->grid[0], all = 1;
            const real *from = image + n * image_size, *by = grad + n * g->out_image + y * g->out_row;
            for (int t = 0; t < taps; t++) all &= is_inside(y * g->stride[0] + g->tap[tap + t].y, g->in_size[0]);
            const struct range edges[] = {{0, all ? inside.first : g->grid[1]}, {inside.end, all ? g->grid[1] : 0}};
            for (int i = 0; i < 2; i++) add_gradients(g, taps, whole, 0, from, by, y, edges[i], tap, count, sum);
            if (all) add_gradients(g, taps, whole, 1, from, by, y, inside, tap, count, sum);
        }
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++) {
            real *to = partial + t * g->channels;
            if (first > start) sum[t] += load_channels(to, whole, count);
            vec_store_rest(to, sum[t], count);
        }
    }
}

INLINE void sum_some_taps(const struct depthwise_geometry *g, const int whole, const real *image, const real *grad,
                          ptrdiff_t start, ptrdiff_t rows, ptrdiff_t count, real *partial)
{
    for (ptrdiff_t t = 0, taps; t < g->taps; t += taps, partial += taps * g->channels) {
        taps = g->taps - t >= GRADIENT_TAPS ? GRADIENT_TAPS : g->taps - t >= 4 ? 4 : 1;
        if (taps == GRADIENT_TAPS)
            sum_taps(g, GRADIENT_TAPS, whole, image, grad, start, rows, t, count, partial);
        else if (taps == 4)
            sum_taps(g, 4, whole, image, grad, start, rows, t, count, partial);
        else
            sum_taps(g, 1, whole, image, grad, start, rows, t, count, partial);
    }
}

/* partial[t][c] = sum over rows start .. + rows of outputs. */
static void weight_tile(const struct depthwise_geometry *g, const void *input, const void *grad_output, ptrdiff_t start,
                        ptrdiff_t rows, void *partial)
{
    for (ptrdiff_t c = 0; c < g->channels; c += LANES) {
        const ptrdiff_t count = smaller(LANES, g->channels - c);
        const real *image = (const real *)input + c, *grad = (const real *)grad_output + c;
        if (count == LANES)
            sum_some_taps(g, 1, image, grad, start, rows, count, (real *)partial + c);
        else
            sum_some_taps(g, 0, image, grad, start, rows, count, (real *)partial + c);
    }
}

const struct depthwise_kernels FASTNN_TABLE(depthwise) = {.tile = tile, .weight_tile = weight_tile};

/* Depthwise convolution. The lanes of a vector are channels, so that each tap of each output is a plain load:
 *
 *   forward           out[p,c] = sum over t of weight[t,c] * in[p * stride + tap(t), c], through the epilogue
 *   backward-data     the same for each phase of the stride, with the gradient as `in`
 *   backward-weights  dw[t,c] = sum over images, p of dout[p,c] * in[p * stride + tap(t), c]
 *
 * C channels, T filter positions (taps), weights [T][C]. Rows of outputs are counted through all images, and some neighbouring
 * outputs of a row are computed together. Arrays with channels last, (N, height, width, C), are used where they stand. Of those with
 * channels first, what a window of outputs sees of a vector of channels is copied, transposed and with zeros beside the image, to
 *
 *   copy[row][column][LANES]
 *
 * and the outputs are transposed again when they are stored. Backward-weights is of arrays with channels last.
 */
#include "epilogue.h"
#include "kernels.h"

/* Outputs of a row that are computed together, and taps whose gradients are. */
enum { OUTPUTS = 8, GRADIENT_TAPS = 9 };
/* Rows and columns of a window's outputs at most. */
enum { ROWS = 8, COLUMNS = 64 };
/* Sums over more rows than have so many pixels are cut. */
enum { SUM_PIXELS = 256 };

/* Where a vector of channels begins: the last one of arrays with channels last, of which there is at least one, begins earlier, and
 * some channels are computed twice. */
INLINE ptrdiff_t vector_start(const struct depthwise_geometry *g, ptrdiff_t c)
{ return smaller(c, g->channels - LANES); }

INLINE int is_inside(ptrdiff_t position, ptrdiff_t size) { return position >= 0 && position < size; }

/* first .. end - 1 of something */
struct range {
    ptrdiff_t first, end;
};

/* ---- Channels last ---- */

/* A tap that some neighbouring outputs see: where it stands under the first of them, its weights, and which of them (bits) see it
 * inside the image. */
struct seen_tap {
    const real *from, *weight;
    size_t outputs;
};
enum { ALL_OUTPUTS = (1 << OUTPUTS) - 1 };

/* Fills the taps that outputs x .. x + OUTPUTS - 1 of row y see, and returns their number. */
static ptrdiff_t find_taps(const struct depthwise_geometry *g, const real *image, const real *weight, ptrdiff_t y,
                           ptrdiff_t x, struct seen_tap *tap)
{
    ptrdiff_t taps = 0;
    for (ptrdiff_t t = 0; t < g->taps; t++) {
        const ptrdiff_t row = y * g->stride[0] + g->tap[t].y, column = x * g->stride[1] + g->tap[t].x;
        size_t outputs = 0;
        if (!is_inside(row, g->in_size[0])) continue;
        for (int i = 0; i < OUTPUTS; i++) outputs |= (size_t)is_inside(column + i * g->stride[1], g->in_size[1]) << i;
        if (outputs != 0)
            tap[taps++] = (struct seen_tap){image + (row * g->in_size[1] + column) * g->channels,
                                            weight + g->tap[t].index * g->channels, outputs};
    }
    return taps;
}

/* sum[i] += the taps of a vector of channels from c on, of outputs whose pixels are `step` elements apart. */
INLINE void add_seen(const struct seen_tap *tap, ptrdiff_t taps, ptrdiff_t c, ptrdiff_t step, vec sum[OUTPUTS])
{
    const real zeros[LANES] = {0};
    for (ptrdiff_t t = 0; t < taps; t++) {
        const vec value = vec_load(tap[t].weight + c);
        const real *from = tap[t].from + c;
        if (tap[t].outputs == ALL_OUTPUTS) {
#pragma GCC unroll 8
            for (int i = 0; i < OUTPUTS; i++) sum[i] += value * vec_load(from + i * step);
        } else {
#pragma GCC unroll 8
            for (int i = 0; i < OUTPUTS; i++)
                sum[i] += value * vec_load(tap[t].outputs >> i & 1 ? from + i * step : zeros);
        }
    }
}

/* `outputs` neighbours, of a vector of channels from c on; `place` is that of the first one's first channel. */
INLINE void compute_pixels(const struct depthwise_geometry *g, const struct seen_tap *tap, ptrdiff_t taps,
                           ptrdiff_t outputs, ptrdiff_t c, const struct conv_epilogue *epilogue, ptrdiff_t place,
                           real *output, struct channel_sums *sums)
{
    const real *residual = epilogue->residual;
    const vec bias = epilogue->bias ? vec_load((const real *)epilogue->bias + c) : (vec){0};
    vec sum[OUTPUTS], stored[OUTPUTS];
#pragma GCC unroll 8
    for (int i = 0; i < OUTPUTS; i++) sum[i] = bias;
    add_seen(tap, taps, c, g->stride[1] * g->channels, sum);
    /* an array that a variable counts is in memory: the sums, which are not, stay in registers */
#pragma GCC unroll 8
    for (int i = 0; i < OUTPUTS; i++) stored[i] = sum[i];
    for (ptrdiff_t i = 0; i < outputs; i++, place += g->out_pixel)
        epilogue_store_pixel(stored[i], LANES, residual ? residual + place + c : NULL, (real)epilogue->slope,
                             output + place + c, sums);
}

static ptrdiff_t tap_bytes(const struct depthwise_geometry *g)
{ return round_up(g->taps * (ptrdiff_t)sizeof(struct seen_tap), 64); }

/* Rows start .. + rows of outputs, which are `unit` to the epilogue's sums. */
static void tile_last(const struct depthwise_geometry *g, const real *input, const real *weight, ptrdiff_t start,
                      ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output, void *scratch)
{
    struct seen_tap *tap = scratch;
    struct channel_sums *sums = (void *)((char *)scratch + tap_bytes(g));
    for (ptrdiff_t c = 0; c < g->channels; c += LANES) sums[c / LANES] = (struct channel_sums){0};
    for (ptrdiff_t row = start; row < start + rows; row++) {
        const ptrdiff_t n = row / g->grid[0], y = row % g->grid[0];
        const real *image = input + n * g->in_size[0] * g->in_size[1] * g->channels;
        for (ptrdiff_t x = 0; x < g->grid[1]; x += OUTPUTS) {
            const ptrdiff_t taps = find_taps(g, image, weight, y, x, tap), outputs = smaller(OUTPUTS, g->grid[1] - x);
            const ptrdiff_t place = g->target + n * g->out_image + y * g->out_row + x * g->out_pixel;
            for (ptrdiff_t c = 0; c < g->channels; c += LANES)
                compute_pixels(g, tap, taps, outputs, vector_start(g, c), epilogue, place, output, &sums[c / LANES]);
        }
    }
    for (ptrdiff_t c = 0; c < (epilogue->sums ? g->channels : 0); c += LANES)
        epilogue_store_channels(epilogue, unit, vector_start(g, c), LANES, &sums[c / LANES]);
}

/* ---- Channels first ---- */

/* The positions that taps add to an output's, along one dimension; 0 without taps. */
static struct range reach_of(const struct depthwise_geometry *g, int dimension)
{
    struct range reach = {0, 1};
    for (ptrdiff_t t = 0; t < g->taps; t++) {
        const ptrdiff_t at = dimension == 0 ? g->tap[t].y : g->tap[t].x;
        reach.first = t == 0 ? at : smaller(reach.first, at);
        reach.end = t == 0 ? at + 1 : larger(reach.end, at + 1);
    }
    return reach;
}

/* A window's copy: rows and columns that it sees, elements from one row to the next. */
struct window {
    struct range reach[2];
    ptrdiff_t height, width, pitch;
};
static struct window window_of(const struct depthwise_geometry *g)
{
    struct window w = {{reach_of(g, 0), reach_of(g, 1)}, 0, 0, 0};
    const ptrdiff_t columns = smaller(COLUMNS, round_up(g->grid[1], OUTPUTS));
    w.height = (smaller(ROWS, g->grid[0]) - 1) * g->stride[0] + w.reach[0].end - w.reach[0].first;
    w.width = (columns - 1) * g->stride[1] + w.reach[1].end - w.reach[1].first;
    w.pitch = w.width * LANES;
    return w;
}

/* One row of the copy: columns seen.first .. seen.end - 1 are inside the image, the first of them at `from`. The rows that the next
 * window sees are sent for. */
static void copy_row(const struct depthwise_geometry *g, const real *from, struct range seen, ptrdiff_t width,
                     ptrdiff_t count, real *to)
{
    const ptrdiff_t plane = g->in_size[0] * g->in_size[1], next = ROWS * g->stride[0] * g->in_size[1];
    const ptrdiff_t columns = seen.end - seen.first, end = seen.end * LANES;
    memset(to, 0, (size_t)(seen.first * LANES) * sizeof(real));
    memset(to + end, 0, (size_t)(width * LANES - end) * sizeof(real));
    to += seen.first * LANES;
    for (ptrdiff_t i = 0; i < columns; i += LANES) {
        vec square[LANES];
        for (ptrdiff_t c = 0; c < LANES; c++)
            square[c] = c < count ? vec_load_rest(from + c * plane + i, columns - i) : (vec){0};
        for (ptrdiff_t c = 0; c < count; c++) __builtin_prefetch(from + c * plane + i + next);
        vec_transpose(square);
        for (ptrdiff_t j = 0; j < LANES; j++) vec_store(to + (i + j) * LANES, square[j]);
    }
}

/* What the outputs from (y, x) on see of `count` channels from those on that `image` points at. */
static void copy_window(const struct depthwise_geometry *g, const struct window *w, const real *image, ptrdiff_t y,
                        ptrdiff_t x, ptrdiff_t rows, ptrdiff_t count, real *copy)
{
    const ptrdiff_t height = (rows - 1) * g->stride[0] + w->reach[0].end - w->reach[0].first;
    const ptrdiff_t top = y * g->stride[0] + w->reach[0].first, left = x * g->stride[1] + w->reach[1].first;
    const ptrdiff_t first = smaller(larger(0, -left), w->width), end = smaller(w->width, g->in_size[1] - left);
    const struct range all = {first, larger(first, end)}, none = {w->width, w->width};
    for (ptrdiff_t row = 0; row < height; row++, copy += w->pitch) {
        const int inside = is_inside(top + row, g->in_size[0]);
        const real *from = inside ? image + (top + row) * g->in_size[1] + left + first : image;
        copy_row(g, from, inside ? all : none, w->width, count, copy);
    }
}

/* A window of outputs: products[row][column][LANES], and where the first goes in the array of outputs. */
struct outputs {
    ptrdiff_t rows, columns, count;
    vec bias;
    real *products;
    ptrdiff_t target;
};

/* The lines of a row of outputs come while it is computed. */
INLINE void send_for_row(const struct depthwise_geometry *g, const struct outputs *o, const real *output)
{
    for (ptrdiff_t c = 0; c < o->count; c++)
        for (ptrdiff_t i = 0; i < o->columns; i += LANES)
            __builtin_prefetch(output + c * g->grid[0] * g->grid[1] + i, 1);
}

/* sum[i] += the taps of the outputs whose windows begin at from, `step` elements apart. */
INLINE void add_taps(ptrdiff_t taps, const ptrdiff_t *offset, const real *weight, const real *from, ptrdiff_t step,
                     vec sum[OUTPUTS])
{
    for (ptrdiff_t t = 0; t < taps; t++) {
        const real *seen = from + offset[t];
        __asm__("" : "+r"(seen)); /* or GCC keeps an address per output, which costs an instruction each */
        const vec value = vec_load(weight + t * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < OUTPUTS; i++) sum[i] += value * vec_load(seen + i * step);
    }
}

/* Columns behind the last one are computed for nothing, and overwritten by the next row. */
INLINE void compute_window(const struct depthwise_geometry *g, const struct window *w, const struct outputs *o,
                           const ptrdiff_t *offset, const real *weight, const real *copy, ptrdiff_t step,
                           const real *output)
{
    for (ptrdiff_t row = 0; row < o->rows; row++) {
        send_for_row(g, o, output + o->target + row * g->out_row);
        for (ptrdiff_t x = 0; x < o->columns; x += OUTPUTS) {
            real *products = o->products + (row * o->columns + x) * LANES;
            vec sum[OUTPUTS];
#pragma GCC unroll 8
            for (int i = 0; i < OUTPUTS; i++) sum[i] = o->bias;
            add_taps(g->taps, offset, weight, copy + row * g->stride[0] * w->pitch + x * step, step, sum);
#pragma GCC unroll 8
            for (int i = 0; i < OUTPUTS; i++) vec_store(products + i * LANES, sum[i]);
        }
    }
}

/* Stores `pixels` neighbouring outputs. */
static void store_first(const struct depthwise_geometry *g, const real *products, ptrdiff_t pixels, ptrdiff_t count,
                        const struct conv_epilogue *epilogue, ptrdiff_t target, real *output,
                        struct channel_sums sums[LANES])
{
    const real *residual = epilogue->residual;
    const ptrdiff_t plane = g->grid[0] * g->grid[1];
    for (ptrdiff_t q = 0; q < pixels; q += LANES, target += LANES)
        epilogue_store_turned(products + q * LANES, LANES, smaller(LANES, pixels - q), count, (vec){0}, plane,
                              residual ? residual + target : NULL, (real)epilogue->slope, output + target, sums);
}

/* Rows start .. + rows of outputs, of `count` channels from c on. */
static void compute_channels(const struct depthwise_geometry *g, const struct window *w, const real *input,
                             const ptrdiff_t *offset, const real *weight, ptrdiff_t c, ptrdiff_t count, ptrdiff_t start,
                             ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output,
                             real *copy, real *products)
{
    const ptrdiff_t plane = g->in_size[0] * g->in_size[1], out_plane = g->grid[0] * g->grid[1];
    struct channel_sums sums[LANES] = {0};
    struct outputs o = {.count = count, .products = products};
    o.bias = epilogue->bias ? vec_load_rest((const real *)epilogue->bias + c, count) : (vec){0};
    for (ptrdiff_t row = start; row < start + rows; row += o.rows) {
        const ptrdiff_t n = row / g->grid[0], y = row % g->grid[0];
        o.rows = smaller(smaller(ROWS, g->grid[0] - y), start + rows - row);
        for (ptrdiff_t x = 0; x < g->grid[1]; x += COLUMNS) {
            o.columns = smaller(COLUMNS, g->grid[1] - x);
            o.target = g->target + n * g->out_image + y * g->out_row + x + c * out_plane;
            copy_window(g, w, input + (n * g->channels + c) * plane, y, x, o.rows, count, copy);
            if (g->stride[1] == 1)
                compute_window(g, w, &o, offset, weight, copy, LANES, output);
            else
                compute_window(g, w, &o, offset, weight, copy, g->stride[1] * LANES, output);
            const ptrdiff_t runs = o.columns == g->grid[1] ? 1 : o.rows, length = o.rows * o.columns / runs;
            for (ptrdiff_t i = 0; i < runs; i++)
                store_first(g, products + i * length * LANES, length, count, epilogue, o.target + i * g->out_row,
                            output, sums);
        }
    }
    for (ptrdiff_t i = 0; i < (epilogue->sums ? count : 0); i++) epilogue_store_sums(epilogue, unit, c + i, &sums[i]);
}

/* tile_last()'s or tile_first()'s: taps and sums; or the copy, and what the last square of pixels leaves behind it, a vector of
 * weights and an offset per tap, and outputs that wait for being transposed. */
static ptrdiff_t scratch_size(const struct depthwise_geometry *g)
{
    const ptrdiff_t groups = (g->channels + LANES - 1) / LANES;
    if (g->channels_last) return tap_bytes(g) + groups * (ptrdiff_t)sizeof(struct channel_sums);
    const struct window w = window_of(g);
    const ptrdiff_t vectors = w.height * w.width + LANES + g->taps + ROWS * COLUMNS + OUTPUTS;
    return round_up(vectors * VEC_BYTES + g->taps * (ptrdiff_t)sizeof(ptrdiff_t), 64);
}

static void tile_first(const struct depthwise_geometry *g, const real *input, const real *weight, ptrdiff_t start,
                       ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output,
                       void *scratch)
{
    const struct window w = window_of(g);
    real *copy = scratch, *own = copy + w.height * w.pitch + LANES * LANES, *products = own + g->taps * LANES;
    ptrdiff_t *offset = (ptrdiff_t *)(products + (ROWS * COLUMNS + OUTPUTS) * LANES);
    for (ptrdiff_t t = 0; t < g->taps; t++)
        offset[t] = (g->tap[t].y - w.reach[0].first) * w.pitch + (g->tap[t].x - w.reach[1].first) * LANES;
    for (ptrdiff_t c = 0; c < g->channels; c += LANES) {
        const ptrdiff_t count = smaller(LANES, g->channels - c);
        for (ptrdiff_t t = 0; t < g->taps; t++)
            vec_store(own + t * LANES, vec_load_rest(weight + g->tap[t].index * g->channels + c, count));
        compute_channels(g, &w, input, offset, own, c, count, start, rows, epilogue, unit, output, copy, products);
    }
}

/* Rows start .. + rows of outputs, which are `unit` to the epilogue's sums. */
static void tile(const struct depthwise_geometry *g, const void *input, const void *weight, ptrdiff_t start,
                 ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output, void *scratch)
{
    if (g->channels_last)
        tile_last(g, input, weight, start, rows, epilogue, unit, output, scratch);
    else
        tile_first(g, input, weight, start, rows, epilogue, unit, output, scratch);
}

/* ---- Backward-weights ---- */

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

/* sum[t] += gradient * image for `taps` taps from `tap` on and outputs x.first .. x.end - 1 of row y. Taps are looked at unless
 * all of them are inside. */
INLINE void add_gradients(const struct depthwise_geometry *g, const int taps, const int all_inside, const real *image,
                          const real *grad, ptrdiff_t y, struct range x, ptrdiff_t tap, vec sum[GRADIENT_TAPS])
{
    const ptrdiff_t step = g->stride[1] * g->channels;
    const real *from[GRADIENT_TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < taps; t++)
        from[t] = image + ((y * g->stride[0] + g->tap[tap + t].y) * g->in_size[1] + g->tap[tap + t].x) * g->channels;
    for (ptrdiff_t i = x.first; i < x.end; i++) {
        vec value = vec_load(grad + i * g->out_pixel);
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++)
            if (all_inside || (is_inside(y * g->stride[0] + g->tap[tap + t].y, g->in_size[0]) &&
                               is_inside(i * g->stride[1] + g->tap[tap + t].x, g->in_size[1])))
                sum[t] += value * vec_load(from[t] + i * step);
    }
}

/* partial[t][c] = the sums over the rows, for a vector of channels and `taps` taps, to which the arguments point. */
INLINE void sum_taps(const struct depthwise_geometry *g, const int taps, const real *image, const real *grad,
                     ptrdiff_t start, ptrdiff_t rows, ptrdiff_t tap, real *partial)
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
            for (int i = 0; i < 2; i++) add_gradients(g, taps, 0, from, by, y, edges[i], tap, sum);
            if (all) add_gradients(g, taps, 1, from, by, y, inside, tap, sum);
        }
#pragma GCC unroll 9
        for (int t = 0; t < taps; t++) {
            real *to = partial + t * g->channels;
            if (first > start) sum[t] += vec_load(to);
            vec_store(to, sum[t]);
        }
    }
}

INLINE void sum_some_taps(const struct depthwise_geometry *g, const real *image, const real *grad, ptrdiff_t start,
                          ptrdiff_t rows, real *partial)
{
    for (ptrdiff_t t = 0, taps; t < g->taps; t += taps, partial += taps * g->channels) {
        taps = g->taps - t >= GRADIENT_TAPS ? GRADIENT_TAPS : g->taps - t >= 4 ? 4 : 1;
        if (taps == GRADIENT_TAPS)
            sum_taps(g, GRADIENT_TAPS, image, grad, start, rows, t, partial);
        else if (taps == 4)
            sum_taps(g, 4, image, grad, start, rows, t, partial);
        else
            sum_taps(g, 1, image, grad, start, rows, t, partial);
    }
}

/* partial[t][c] = sum over rows start .. + rows of outputs. */
static void weight_tile(const struct depthwise_geometry *g, const void *input, const void *grad_output, ptrdiff_t start,
                        ptrdiff_t rows, void *partial)
{
    for (ptrdiff_t c = 0; c < g->channels; c += LANES) {
        const ptrdiff_t at = vector_start(g, c);
        sum_some_taps(g, (const real *)input + at, (const real *)grad_output + at, start, rows, (real *)partial + at);
    }
}

const struct depthwise_kernels FASTNN_TABLE(depthwise) = {
    .scratch_size = scratch_size,
    .tile = tile,
    .weight_tile = weight_tile,
};

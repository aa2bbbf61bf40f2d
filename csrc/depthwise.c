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
#include "runs.h"

/* Outputs of a row that are computed together, and runs of taps whose gradients are. */
enum { OUTPUTS = 8, GRADIENT_RUNS = VEC_BYTES == 64 ? 3 : 2 };
/* Rows and columns of a window's outputs at most. */
enum { ROWS = 8, COLUMNS = 64 };
/* Sums over more rows than have so many pixels are cut. */
enum { SUM_PIXELS = 256 };

/* Where a vector of channels begins: the last one of arrays with channels last, of which there is at least one, begins earlier, and
 * some channels are computed twice. */
INLINE ptrdiff_t vector_start(const struct group_geometry *g, ptrdiff_t c) { return smaller(c, g->groups - LANES); }

INLINE int is_inside(ptrdiff_t position, ptrdiff_t size) { return position >= 0 && position < size; }

/* ---- Channels last ---- */

/* A run of taps that some neighbouring outputs see: where it stands under the first of them, its weights, and which of the elements
 * that they see in a row (bits) are inside the image. */
struct seen_run {
    const real *from, *weight[RUN];
    ptrdiff_t taps;
    size_t inside;
};
enum { ALL_INSIDE = (1 << (OUTPUTS + RUN - 1)) - 1 };

/* Fills the runs that outputs x .. x + OUTPUTS - 1 of row y see, and returns their number. */
static ptrdiff_t find_runs(const struct group_geometry *g, const real *image, const real *weight, ptrdiff_t y,
                           ptrdiff_t x, struct seen_run *run)
{
    const struct seen_run *first = run;
    for (const struct group_tap *tap = g->tap; tap < g->tap + g->taps; tap += tap->run) {
        const ptrdiff_t row = y * g->stride[0] + tap->y, column = x * g->stride[1] + tap->x;
        size_t inside = 0;
        if (!is_inside(row, g->in_size[0])) continue;
        for (int i = 0; i < OUTPUTS + RUN - 1; i++)
            inside |= (size_t)(i >= OUTPUTS + tap->run - 1 || is_inside(column + i * g->stride[1], g->in_size[1])) << i;
        run->from = image + (row * g->in_size[1] + column) * g->groups;
        for (ptrdiff_t t = 0; t < tap->run; t++) run->weight[t] = weight + tap[t].index * g->groups;
        run->taps = tap->run, run->inside = inside;
        run++;
    }
    return run - first;
}

/* add_run() where some elements are beside the image: zeros. */
INLINE void add_edge(const int taps, const vec value[RUN], size_t inside, const real *from, ptrdiff_t step,
                     vec sum[OUTPUTS])
{
    const real zeros[LANES] = {0};
#pragma GCC unroll 18
    for (int i = 0; i < OUTPUTS + taps - 1; i++, from += step) {
        const vec seen = vec_load(inside >> i & 1 ? from : zeros);
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++)
            if (i >= t && i - t < OUTPUTS) sum[i - t] += value[t] * seen;
    }
}

/* sum[i] += a run of a vector of channels from c on, of outputs whose pixels are `step` elements apart. */
INLINE void add_seen(const struct seen_run *run, const int taps, ptrdiff_t c, ptrdiff_t step, vec sum[OUTPUTS])
{
    vec value[RUN];
#pragma GCC unroll 3
    for (int t = 0; t < taps; t++) value[t] = vec_load(run->weight[t] + c);
    if (run->inside == ALL_INSIDE)
        add_run(1, taps, OUTPUTS, value, run->from + c, step, sum);
    else
        add_edge(taps, value, run->inside, run->from + c, step, sum);
}

/* `outputs` neighbours, of a vector of channels from c on; `place` is that of the first one's first channel. */
INLINE void compute_pixels(const struct group_geometry *g, const struct seen_run *run, ptrdiff_t runs,
                           ptrdiff_t outputs, ptrdiff_t c, const struct conv_epilogue *epilogue, ptrdiff_t place,
                           real *output, struct channel_sums *sums)
{
    const real *residual = epilogue->residual;
    const vec bias = epilogue->bias ? vec_load((const real *)epilogue->bias + c) : (vec){0};
    vec sum[OUTPUTS], stored[OUTPUTS];
#pragma GCC unroll 8
    for (int i = 0; i < OUTPUTS; i++) sum[i] = bias;
    const ptrdiff_t step = g->stride[1] * g->groups;
    for (const struct seen_run *end = run + runs; run < end; run++)
        if (run->taps == 3)
            add_seen(run, 3, c, step, sum);
        else if (run->taps == 2)
            add_seen(run, 2, c, step, sum);
        else
            add_seen(run, 1, c, step, sum);
    /* an array that a variable counts is in memory: the sums, which are not, stay in registers */
#pragma GCC unroll 8
    for (int i = 0; i < OUTPUTS; i++) stored[i] = sum[i];
    for (ptrdiff_t i = 0; i < outputs; i++, place += g->out_pixel)
        epilogue_store_pixel(stored[i], LANES, residual ? residual + place + c : NULL, (real)epilogue->slope,
                             output + place + c, sums);
}

static ptrdiff_t run_bytes(const struct group_geometry *g)
{ return round_up(g->taps * (ptrdiff_t)sizeof(struct seen_run), 64); }

/* Rows start .. + rows of outputs, which are `unit` to the epilogue's sums. */
static void tile_last(const struct group_geometry *g, const real *input, const real *weight, ptrdiff_t start,
                      ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output, void *scratch)
{
    struct seen_run *run = scratch;
    struct channel_sums *sums = (void *)((char *)scratch + run_bytes(g));
    for (ptrdiff_t c = 0; c < g->groups; c += LANES) sums[c / LANES] = (struct channel_sums){0};
    for (ptrdiff_t row = start; row < start + rows; row++) {
        const ptrdiff_t n = row / g->grid[0], y = row % g->grid[0];
        const real *image = input + n * g->in_size[0] * g->in_size[1] * g->groups;
        for (ptrdiff_t x = 0; x < g->grid[1]; x += OUTPUTS) {
            const ptrdiff_t runs = find_runs(g, image, weight, y, x, run), outputs = smaller(OUTPUTS, g->grid[1] - x);
            const ptrdiff_t place = g->target + n * g->out_image + y * g->out_row + x * g->out_pixel;
            for (ptrdiff_t c = 0; c < g->groups; c += LANES)
                compute_pixels(g, run, runs, outputs, vector_start(g, c), epilogue, place, output, &sums[c / LANES]);
        }
    }
    for (ptrdiff_t c = 0; c < (epilogue->sums ? g->groups : 0); c += LANES)
        epilogue_store_channels(epilogue, unit, vector_start(g, c), LANES, &sums[c / LANES]);
}

/* ---- Channels first ---- */

/* A window's copy: rows and columns that it sees, elements from one row to the next. */
struct window {
    struct range reach[2];
    ptrdiff_t height, width, pitch;
};
static struct window window_of(const struct group_geometry *g)
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
static void copy_row(const struct group_geometry *g, const real *from, struct range seen, ptrdiff_t width,
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
static void copy_window(const struct group_geometry *g, const struct window *w, const real *image, ptrdiff_t y,
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
INLINE void send_for_row(const struct group_geometry *g, const struct outputs *o, const real *output)
{
    for (ptrdiff_t c = 0; c < o->count; c++)
        for (ptrdiff_t i = 0; i < o->columns; i += LANES)
            __builtin_prefetch(output + c * g->grid[0] * g->grid[1] + i, 1);
}

/* sum[i] += all taps of the outputs whose windows begin at from, `step` elements apart. */
INLINE void add_taps(const struct group_geometry *g, const ptrdiff_t *offset, const real *weight, const real *from,
                     ptrdiff_t step, vec sum[OUTPUTS])
{
    for (ptrdiff_t t = 0; t < g->taps; t += g->tap[t].run) {
        const vec *value = (const vec *)(weight + t * LANES);
        if (g->tap[t].run == 3)
            add_run(1, 3, OUTPUTS, value, from + offset[t], step, sum);
        else if (g->tap[t].run == 2)
            add_run(1, 2, OUTPUTS, value, from + offset[t], step, sum);
        else
            add_run(1, 1, OUTPUTS, value, from + offset[t], step, sum);
    }
}

/* Columns behind the last one are computed for nothing, and overwritten by the next row. */
INLINE void compute_window(const struct group_geometry *g, const struct window *w, const struct outputs *o,
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
            add_taps(g, offset, weight, copy + row * g->stride[0] * w->pitch + x * step, step, sum);
#pragma GCC unroll 8
            for (int i = 0; i < OUTPUTS; i++) vec_store(products + i * LANES, sum[i]);
        }
    }
}

/* Stores `pixels` neighbouring outputs. */
static void store_first(const struct group_geometry *g, const real *products, ptrdiff_t pixels, ptrdiff_t count,
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
static void compute_channels(const struct group_geometry *g, const struct window *w, const real *input,
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
            copy_window(g, w, input + (n * g->groups + c) * plane, y, x, o.rows, count, copy);
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
static ptrdiff_t scratch_size(const struct group_geometry *g)
{
    const ptrdiff_t groups = (g->groups + LANES - 1) / LANES;
    if (g->channels_last) return run_bytes(g) + groups * (ptrdiff_t)sizeof(struct channel_sums);
    const struct window w = window_of(g);
    const ptrdiff_t vectors = w.height * w.width + LANES + g->taps + ROWS * COLUMNS + OUTPUTS;
    return round_up(vectors * VEC_BYTES + g->taps * (ptrdiff_t)sizeof(ptrdiff_t), 64);
}

static void tile_first(const struct group_geometry *g, const real *input, const real *weight, ptrdiff_t start,
                       ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, real *output,
                       void *scratch)
{
    const struct window w = window_of(g);
    real *copy = scratch, *own = copy + w.height * w.pitch + LANES * LANES, *products = own + g->taps * LANES;
    ptrdiff_t *offset = (ptrdiff_t *)(products + (ROWS * COLUMNS + OUTPUTS) * LANES);
    for (ptrdiff_t t = 0; t < g->taps; t++)
        offset[t] = (g->tap[t].y - w.reach[0].first) * w.pitch + (g->tap[t].x - w.reach[1].first) * LANES;
    for (ptrdiff_t c = 0; c < g->groups; c += LANES) {
        const ptrdiff_t count = smaller(LANES, g->groups - c);
        for (ptrdiff_t t = 0; t < g->taps; t++)
            vec_store(own + t * LANES, vec_load_rest(weight + g->tap[t].index * g->groups + c, count));
        compute_channels(g, &w, input, offset, own, c, count, start, rows, epilogue, unit, output, copy, products);
    }
}

/* Rows start .. + rows of outputs, which are `unit` to the epilogue's sums. */
static void tile(const struct group_geometry *g, const void *input, const void *weight, ptrdiff_t start, ptrdiff_t rows,
                 const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output, void *scratch)
{
    if (g->channels_last)
        tile_last(g, input, weight, start, rows, epilogue, unit, output, scratch);
    else
        tile_first(g, input, weight, start, rows, epilogue, unit, output, scratch);
}

/* ---- Backward-weights ---- */

/* Those under which all of some taps stand inside the image's row. */
static struct range inside_row(const struct group_geometry *g, ptrdiff_t tap, ptrdiff_t taps)
{
    ptrdiff_t low = g->tap[tap].x, high = low, step = g->stride[1];
    for (ptrdiff_t t = tap; t < tap + taps; t++) low = smaller(low, g->tap[t].x), high = larger(high, g->tap[t].x);
    ptrdiff_t last = g->in_size[1] - 1 - high;
    struct range range = {low < 0 ? (-low + step - 1) / step : 0, last < 0 ? 0 : smaller(last / step + 1, g->grid[1])};
    range.first = smaller(range.first, range.end);
    return range;
}

/* sum[run][t] += gradient * image for so many taps each of so many runs from `tap` on, and outputs x.first .. x.end - 1 of row y, for
 * which all of them are inside the image. */
INLINE void add_gradients(const struct group_geometry *g, const int taps, const int runs, const real *image,
                          const real *grad, ptrdiff_t y, struct range x, const struct group_tap *tap,
                          vec sum[GRADIENT_RUNS][RUN])
{
    const ptrdiff_t step = g->stride[1] * g->groups;
    const real *from[GRADIENT_RUNS];
    vec seen[GRADIENT_RUNS][RUN];
#pragma GCC unroll 3
    for (int i = 0; i < runs; i++) {
        const struct group_tap *first = tap + i * taps;
        from[i] = image + ((y * g->stride[0] + first->y) * g->in_size[1] + first->x) * g->groups + x.first * step;
#pragma GCC unroll 3
        for (int t = 0; t < taps - 1; t++, from[i] += step) seen[i][t] = x.first < x.end ? vec_load(from[i]) : (vec){0};
    }
    for (ptrdiff_t i = x.first; i < x.end; i++) {
        const vec value = vec_load(grad + i * g->out_pixel);
#pragma GCC unroll 3
        for (int j = 0; j < runs; j++, from[j - 1] += step) {
            seen[j][taps - 1] = vec_load(from[j]);
#pragma GCC unroll 3
            for (int t = 0; t < taps; t++) sum[j][t] += value * seen[j][t];
#pragma GCC unroll 3
            for (int t = 0; t < taps - 1; t++) seen[j][t] = seen[j][t + 1];
        }
    }
}

/* The same where only some of them are. */
INLINE void add_edge_gradients(const struct group_geometry *g, const int taps, const int runs, const real *image,
                               const real *grad, ptrdiff_t y, struct range x, const struct group_tap *tap,
                               vec sum[GRADIENT_RUNS][RUN])
{
    for (ptrdiff_t i = x.first; i < x.end; i++) {
        const vec value = vec_load(grad + i * g->out_pixel);
#pragma GCC unroll 9
        for (int t = 0; t < taps * runs; t++) {
            const ptrdiff_t row = y * g->stride[0] + tap[t].y, column = i * g->stride[1] + tap[t].x;
            if (is_inside(row, g->in_size[0]) && is_inside(column, g->in_size[1]))
                sum[t / taps][t % taps] += value * vec_load(image + (row * g->in_size[1] + column) * g->groups);
        }
    }
}

/* partial[tap of the filter][c] = the sums over the rows, for a vector of channels, to which the arguments point, and some runs. */
INLINE void sum_runs(const struct group_geometry *g, const int taps, const int runs, const real *image,
                     const real *grad, ptrdiff_t start, ptrdiff_t rows, const struct group_tap *tap, real *partial)
{
    const ptrdiff_t image_size = g->in_size[0] * g->in_size[1] * g->groups;
    const ptrdiff_t together = larger(1, SUM_PIXELS / larger(1, g->grid[1])), end = start + rows;
    const struct range inside = inside_row(g, tap - g->tap, taps * runs);
    for (ptrdiff_t first = start; first < end; first += together) {
        vec sum[GRADIENT_RUNS][RUN];
#pragma GCC unroll 9
        for (int t = 0; t < taps * runs; t++) sum[t / taps][t % taps] = (vec){0};
        for (ptrdiff_t row = first; row < smaller(first + together, end); row++) {
            ptrdiff_t n = row / g->grid[0], y = row % g->grid[0], all = 1;
            const real *from = image + n * image_size, *by = grad + n * g->out_image + y * g->out_row;
            for (int t = 0; t < taps * runs; t++) all &= is_inside(y * g->stride[0] + tap[t].y, g->in_size[0]);
            const struct range edges[] = {{0, all ? inside.first : g->grid[1]}, {inside.end, all ? g->grid[1] : 0}};
            for (int i = 0; i < 2; i++) add_edge_gradients(g, taps, runs, from, by, y, edges[i], tap, sum);
            if (all) add_gradients(g, taps, runs, from, by, y, inside, tap, sum);
        }
#pragma GCC unroll 9
        for (int t = 0; t < taps * runs; t++) {
            real *to = partial + tap[t].index * g->groups;
            vec value = sum[t / taps][t % taps];
            if (first > start) value += vec_load(to);
            vec_store(to, value);
        }
    }
}

/* Of all taps. */
INLINE void sum_taps(const struct group_geometry *g, const real *image, const real *grad, ptrdiff_t start,
                     ptrdiff_t rows, real *partial)
{
    const struct group_tap *tap = g->tap, *end = tap + g->taps;
    for (ptrdiff_t runs; tap < end; tap += runs * tap->run) {
        const ptrdiff_t last = (GRADIENT_RUNS - 1) * tap->run;
        runs =
            end - tap > last && tap[last].run == tap->run ? GRADIENT_RUNS : 1; /* of a kind, see native/grouped.pyx */
#define SUM(taps, runs) sum_runs(g, taps, runs, image, grad, start, rows, tap, partial)
        if (runs == 1)
            tap->run == 3 ? SUM(3, 1) : tap->run == 2 ? SUM(2, 1) : SUM(1, 1);
        else if (tap->run == 3)
            SUM(3, GRADIENT_RUNS);
        else if (tap->run == 2)
            SUM(2, GRADIENT_RUNS);
        else
            SUM(1, GRADIENT_RUNS);
#undef SUM
    }
}

/* partial[tap of the filter][c] = the sums over rows start .. + rows of outputs. */
static void weight_tile(const struct group_geometry *g, const void *input, const void *grad_output, ptrdiff_t start,
                        ptrdiff_t rows, void *partial, void *scratch)
{
    (void)scratch;
    for (ptrdiff_t c = 0; c < g->groups; c += LANES) {
        const ptrdiff_t at = vector_start(g, c);
        sum_taps(g, (const real *)input + at, (const real *)grad_output + at, start, rows, (real *)partial + at);
    }
}

const struct group_kernels FASTNN_TABLE(depthwise) = {
    .scratch_size = scratch_size,
    .tile = tile,
    .weight_tile = weight_tile,
};

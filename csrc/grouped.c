/* Grouped convolution of arrays with channels last, (N, height, width, channels), where they stand. The lanes of a vector are output
 * channels:
 *
 *   forward           out[p,k] = sum over t, c of weight[t,c,k] * in[p * stride + tap(t), c], through the epilogue
 *   backward-data     the same for each phase of the stride, with the gradient as `in`
 *   backward-weights  dw[t,c,k] = sum over images, p of dout[p,k] * in[p * stride + tap(t), c]
 *
 * C channels and K output channels per group, T filter positions (taps); c is a channel of k's group. Outputs are computed one bundle
 * of output channels and one strip of columns at a time, row by row. The rows that an output row sees of the bundle's channels are
 * copied to a ring in the first-level cache, with zeros beside the image. A bundle is a vector of one group, at least half full, whose
 * outputs multiply the same elements,
 *
 *   ring[row][column][C]
 *
 * or as many whole groups as a vector has room for, whose channels are spread over the lanes of their outputs:
 *
 *   ring[row][column][C][LANES]
 *
 * Taps come in runs, see runs.h.
 */
#include "epilogue.h"
#include "kernels.h"
#include "runs.h"

/* Outputs of a row that are computed together, of a short rest half as many. */
enum { OUTPUTS = VEC_BYTES == 64 ? 16 : 8 };
/* Longer sums of outputs are taken in parts of about so many terms, which keeps their rounding errors small. */
enum { TERMS = 256 };
/* Channels whose gradients are summed up together. */
enum { GRADIENT_CHANNELS = VEC_BYTES == 64 ? 3 : 2 };
/* Columns of a strip at most, and bytes of its ring, if they are enough for OUTPUTS columns. */
enum { COLUMNS = 64, RING_BYTES = 32 << 10 };

/* ---- Strips and bundles ---- */

/* What all strips have in common. */
struct strip {
    ptrdiff_t columns;            /* outputs in a row at most */
    ptrdiff_t first[2], reach[2]; /* the first position that an output sees, and how many, with gaps */
    ptrdiff_t spread;             /* LANES, or 1: elements of the ring per element of the image */
    ptrdiff_t pixel, pitch;       /* elements of the ring from pixel to pixel and from row to row */
    ptrdiff_t group_bundles;      /* of one group, or 0: a bundle is of whole groups */
};

static struct strip strip_of(const struct group_geometry *g)
{
    const int whole_groups = 2 * g->out_channels <= LANES;
    struct strip s = {.columns = smaller(COLUMNS, round_up(g->grid[1], OUTPUTS)), .spread = whole_groups ? LANES : 1};
    for (int axis = 0; axis < 2; axis++) {
        const struct range reach = reach_of(g, axis);
        s.first[axis] = reach.first, s.reach[axis] = reach.end - reach.first;
    }
    s.pixel = g->channels * s.spread;
    s.group_bundles = whole_groups ? 0 : (g->out_channels + LANES - 1) / LANES;
    for (;; s.columns = round_up(s.columns / 2, OUTPUTS)) {
        s.pitch = ((s.columns - 1) * g->stride[1] + s.reach[1]) * s.pixel;
        if (s.columns == OUTPUTS || s.reach[0] * s.pitch * (ptrdiff_t)sizeof(real) <= RING_BYTES) return s;
    }
}

INLINE ptrdiff_t ring_size(const struct strip *s) { return round_up(s->reach[0] * s->pitch, LANES); }

/* Output channels first .. + count, and the image's channels from `channel` on that they see: of so many groups. */
struct bundle {
    ptrdiff_t first, count, channel, groups;
    ptrdiff_t at[LANES]; /* where the first element that a lane sees is among those channels */
    ivec lane;           /* the same, if they fit into a vector */
};

INLINE ptrdiff_t bundle_count(const struct group_geometry *g, const struct strip *s)
{
    const ptrdiff_t together = LANES / larger(1, g->out_channels);
    return s->group_bundles ? g->groups * s->group_bundles : (g->groups + together - 1) / together;
}

static struct bundle find_bundle(const struct group_geometry *g, const struct strip *s, ptrdiff_t i)
{
    if (s->group_bundles) {
        const ptrdiff_t group = i / s->group_bundles, k = i % s->group_bundles * LANES;
        const ptrdiff_t count = smaller(LANES, g->out_channels - k);
        return (struct bundle){group * g->out_channels + k, count, group * g->channels, 1, {0}, {0}};
    }
    const ptrdiff_t together = LANES / g->out_channels, group = i * together;
    const ptrdiff_t groups = smaller(together, g->groups - group);
    struct bundle b = {group * g->out_channels, groups * g->out_channels, group * g->channels, groups, {0}, {0}};
    for (ptrdiff_t lane = 0; lane < b.count; lane++) {
        b.at[lane] = lane / g->out_channels * g->channels;
        b.lane[lane] = (lane_int)smaller(b.at[lane], LANES);
    }
    return b;
}

/* Rows y .. + rows of outputs of image n, columns x .. + columns. */
struct outputs {
    ptrdiff_t n, y, rows, x, columns;
};

/* Where the first of them stands in the array of outputs. */
INLINE ptrdiff_t place_of(const struct group_geometry *g, const struct outputs *o)
{ return g->target + o->n * g->out_image + o->y * g->out_row + o->x * g->out_pixel; }

/* The part of rows start .. end - 1, counted through all images, that begins with `row` and is in one image. */
INLINE struct outputs rows_of_image(const struct group_geometry *g, ptrdiff_t row, ptrdiff_t end)
{
    const ptrdiff_t y = row % g->grid[0];
    return (struct outputs){row / g->grid[0], y, smaller(g->grid[0] - y, end - row), 0, 0};
}

/* ---- The ring ---- */

/* to[pixel][C][LANES] of `count` pixels. What stands in lanes without an output does not matter. */
INLINE void spread_pixels(const struct group_geometry *g, const struct bundle *b, const real *from, ptrdiff_t step,
                          ptrdiff_t count, ptrdiff_t ahead, real *to)
{
    const ptrdiff_t channels = b->groups * g->channels;
    for (ptrdiff_t i = 0; i < count; i++, from += step) {
        __builtin_prefetch(from + ahead);
        if (channels <= LANES) {
            const vec pixel = vec_load_rest(from, channels);
            ivec lane = b->lane;
            for (ptrdiff_t c = 0; c < g->channels; c++, to += LANES, lane += 1) vec_store(to, vec_permute(pixel, lane));
        } else {
            for (ptrdiff_t c = 0; c < g->channels; c++, to += LANES)
                for (int lane = 0; lane < LANES; lane++) to[lane] = from[b->at[lane] + c];
        }
    }
}

/* to[pixel][C] */
INLINE void copy_pixels(const struct group_geometry *g, const real *from, ptrdiff_t step, ptrdiff_t count,
                        ptrdiff_t ahead, real *to)
{
    for (ptrdiff_t i = 0; i < count; i++, from += step, to += g->channels)
        for (ptrdiff_t c = 0; c < g->channels; c += LANES) {
            __builtin_prefetch(from + c + ahead);
            vec_store_rest(to + c, vec_load_rest(from + c, g->channels - c), g->channels - c);
        }
}

/* What outputs from column x on see of row y of the image, inside of it or not. The row that takes the same place in the ring is sent
 * for. */
static void copy_row(const struct group_geometry *g, const struct strip *s, const struct bundle *b, const real *image,
                     ptrdiff_t y, ptrdiff_t x, real *to)
{
    const ptrdiff_t pixel = g->groups * g->channels, width = s->pitch / s->pixel,
                    ahead = s->reach[0] * g->in_size[1] * pixel;
    const ptrdiff_t left = x * g->stride[1] + s->first[1], inside = y >= 0 && y < g->in_size[0];
    const ptrdiff_t first = inside ? smaller(larger(0, -left), width) : width;
    const ptrdiff_t end = larger(first, smaller(width, g->in_size[1] - left));
    memset(to, 0, (size_t)(first * s->pixel) * sizeof(real));
    memset(to + end * s->pixel, 0, (size_t)((width - end) * s->pixel) * sizeof(real));
    if (end == first) return;
    const real *from = image + (y * g->in_size[1] + left + first) * pixel + b->channel;
    if (s->spread > 1)
        spread_pixels(g, b, from, pixel, end - first, ahead, to + first * s->pixel);
    else
        copy_pixels(g, from, pixel, end - first, ahead, to + first * s->pixel);
}

/* Copies those rows that row y of outputs sees and the ring, which began with row `begin`, does not have; `next` is the next one. */
static void fill_ring(const struct group_geometry *g, const struct strip *s, const struct bundle *b, const real *image,
                      ptrdiff_t begin, ptrdiff_t y, ptrdiff_t x, ptrdiff_t *next, real *ring)
{
    const ptrdiff_t top = y * g->stride[0] + s->first[0];
    for (*next = larger(*next, top); *next < top + s->reach[0]; ++*next)
        copy_row(g, s, b, image, *next, x, ring + (*next - begin) % s->reach[0] * s->pitch);
}

/* What the first output of a row sees under a tap, of its group's first channel; the first row that it sees is in place `slot`. */
INLINE const real *find_tap(const struct strip *s, const struct group_tap *tap, ptrdiff_t slot, const real *ring)
{
    ptrdiff_t row = slot + tap->y - s->first[0];
    row -= row >= s->reach[0] ? s->reach[0] : 0;
    return ring + row * s->pitch + (tap->x - s->first[1]) * s->pixel;
}

/* ---- Forward and backward-data ---- */

/* sum[i] += a run of taps, all channels, of `count` outputs, which see elements `step` apart. */
INLINE void add_channels(const int spread, const int taps, const int count, ptrdiff_t channels, const real *weight,
                         const real *from, ptrdiff_t step, vec sum[OUTPUTS])
{
    for (ptrdiff_t c = 0; c < channels; c++, from += spread ? LANES : 1, weight += taps * LANES) {
        vec value[RUN];
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++) value[t] = vec_load(weight + t * LANES);
        add_run(spread, taps, count, value, from, step, sum);
    }
}

/* One bundle of outputs. */
struct task {
    const struct group_geometry *g;
    const struct strip *s;
    const struct bundle *b;
    const real *weight, *ring; /* weight[run][C][tap of the run][LANES] */
    vec bias;
    const struct conv_epilogue *epilogue;
    int plain;      /* are sums stored as they are, in whole vectors? */
    ptrdiff_t part; /* taps that are summed up together */
    real *output;
};

/* `count` neighbouring outputs, of which `stored` are stored at `place`: `column` elements of the ring behind the first column's. */
INLINE void compute_outputs(const struct task *task, const int spread, const int count, ptrdiff_t stored,
                            ptrdiff_t slot, ptrdiff_t column, ptrdiff_t place, struct channel_sums *sums)
{
    const struct group_geometry *g = task->g;
    const ptrdiff_t step = g->stride[1] * task->s->pixel;
    const real *residual = task->epilogue->residual, *weight = task->weight;
    const struct group_tap *tap = g->tap, *end = g->tap + g->taps;
    vec sum[OUTPUTS], total[OUTPUTS], result[OUTPUTS];
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) sum[i] = task->bias;
    for (int part = 0; tap < end; part++) {
        const struct group_tap *stop = smaller(task->part, end - tap) + tap;
        for (; tap < stop; tap += tap->run) {
            const real *from = find_tap(task->s, tap, slot, task->ring) + column;
            if (tap->run == 3)
                add_channels(spread, 3, count, g->channels, weight, from, step, sum);
            else if (tap->run == 2)
                add_channels(spread, 2, count, g->channels, weight, from, step, sum);
            else
                add_channels(spread, 1, count, g->channels, weight, from, step, sum);
            weight += tap->run * g->channels * LANES;
        }
        if (part == 0 && tap == end) break;
#pragma GCC unroll 16
        for (int i = 0; i < count; i++) {
            total[i] = part > 0 ? total[i] + sum[i] : sum[i];
            sum[i] = tap < end ? (vec){0} : total[i];
        }
    }
    if (task->plain && stored == count) {
#pragma GCC unroll 16
        for (int i = 0; i < count; i++) vec_store(task->output + place + i * g->out_pixel, sum[i]);
        return;
    }
    /* an array that a variable counts is in memory: the sums, which are not, stay in registers */
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) result[i] = sum[i];
    for (ptrdiff_t i = 0; i < stored; i++, place += g->out_pixel)
        epilogue_store_pixel(result[i], task->b->count, residual ? residual + place : NULL, (real)task->epilogue->slope,
                             task->output + place, sums);
}

/* One row of a strip's outputs. */
INLINE void compute_row(const struct task *task, const int spread, ptrdiff_t columns, ptrdiff_t slot, ptrdiff_t place,
                        struct channel_sums *sums)
{
    const ptrdiff_t step = task->g->stride[1] * task->s->pixel;
    for (ptrdiff_t x = 0; x < columns; x += OUTPUTS, place += OUTPUTS * task->g->out_pixel) {
        const ptrdiff_t stored = smaller(OUTPUTS, columns - x);
        if (stored > OUTPUTS / 2)
            compute_outputs(task, spread, OUTPUTS, stored, slot, x * step, place, sums);
        else
            compute_outputs(task, spread, OUTPUTS / 2, stored, slot, x * step, place, sums);
    }
}

/* packed[run][C][tap of the run][LANES] from weight[tap of the filter][C][all output channels] */
static void pack_bundle(const struct group_geometry *g, const struct bundle *b, const real *weight, real *packed)
{
    const ptrdiff_t row = g->groups * g->out_channels;
    for (const struct group_tap *tap = g->tap; tap < g->tap + g->taps; tap += tap->run)
        for (ptrdiff_t c = 0; c < g->channels; c++)
            for (ptrdiff_t t = 0; t < tap->run; t++, packed += LANES)
                vec_store(packed, vec_load_rest(weight + (tap[t].index * g->channels + c) * row + b->first, b->count));
}

/* Of tile(), or of weight_tile(): sums of the outputs, the ring, and a bundle's weights, or their gradients. */
static ptrdiff_t scratch_size(const struct group_geometry *g)
{
    const struct strip s = strip_of(g);
    const ptrdiff_t elements = ring_size(&s) + g->taps * g->channels * LANES;
    const ptrdiff_t sums = bundle_count(g, &s) * (ptrdiff_t)sizeof(struct channel_sums);
    return round_up(sums + elements * (ptrdiff_t)sizeof(real), 64);
}

/* One bundle of some rows of an image. */
static void compute_bundle(struct task *task, struct outputs o, const real *image, real *ring,
                           struct channel_sums *sums)
{
    const struct group_geometry *g = task->g;
    const struct strip *s = task->s;
    const ptrdiff_t begin = o.y * g->stride[0] + s->first[0], end = o.y + o.rows;
    struct channel_sums own = *sums; /* in registers */
    for (o.x = 0; o.x < g->grid[1]; o.x += s->columns) {
        struct outputs row = o;
        ptrdiff_t next = begin;
        row.columns = smaller(s->columns, g->grid[1] - o.x);
        for (; row.y < end; row.y++) {
            const ptrdiff_t slot = (row.y - o.y) * g->stride[0] % s->reach[0],
                            place = place_of(g, &row) + task->b->first;
            fill_ring(g, s, task->b, image, begin, row.y, o.x, &next, ring);
            if (s->spread > 1)
                compute_row(task, 1, row.columns, slot, place, &own);
            else
                compute_row(task, 0, row.columns, slot, place, &own);
        }
    }
    *sums = own;
}

/* Rows start .. + rows of outputs, counted through all images, which are `unit` to the epilogue's sums. */
static void tile(const struct group_geometry *g, const void *input, const void *weight, ptrdiff_t start, ptrdiff_t rows,
                 const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output, void *scratch)
{
    const struct strip s = strip_of(g);
    const ptrdiff_t bundles = bundle_count(g, &s), image = g->in_size[0] * g->in_size[1] * g->groups * g->channels;
    const int plain = !epilogue->residual && !epilogue->sums && epilogue->slope == 1;
    struct channel_sums *sums = scratch;
    real *ring = (real *)(sums + bundles), *packed = ring + ring_size(&s);
    struct task task = {.g = g,
                        .s = &s,
                        .weight = packed,
                        .ring = ring,
                        .epilogue = epilogue,
                        .output = output,
                        .part = larger(1, TERMS / g->channels)};
    struct outputs o;
    for (ptrdiff_t i = 0; i < bundles; i++) sums[i] = (struct channel_sums){0};
    for (ptrdiff_t row = start; row < start + rows; row += o.rows) {
        o = rows_of_image(g, row, start + rows);
        for (ptrdiff_t i = 0; i < bundles; i++) {
            const struct bundle b = find_bundle(g, &s, i);
            pack_bundle(g, &b, weight, packed);
            task.b = &b;
            task.bias = epilogue->bias ? vec_load_rest((const real *)epilogue->bias + b.first, b.count) : (vec){0};
            task.plain = plain && b.count == LANES;
            compute_bundle(&task, o, (const real *)input + o.n * image, ring, &sums[i]);
        }
    }
    for (ptrdiff_t i = 0; i < (epilogue->sums ? bundles : 0); i++) {
        const struct bundle b = find_bundle(g, &s, i);
        epilogue_store_channels(epilogue, unit, b.first, b.count, &sums[i]);
    }
}

/* ---- Backward-weights ---- */

/* sums[c][tap of the run][LANES] += those over a row of outputs, for a run of taps and `channels` channels. `from` is what the first
 * output sees under the first tap, `grad` its gradient. */
INLINE void sum_run(const int spread, const int taps, const int channels, ptrdiff_t outputs, const real *from,
                    ptrdiff_t step, const real *grad, ptrdiff_t pixel, ptrdiff_t count, real *sums)
{
    vec sum[GRADIENT_CHANNELS][RUN], seen[GRADIENT_CHANNELS][RUN];
    const ptrdiff_t channel = spread ? LANES : 1;
#pragma GCC unroll 3
    for (int c = 0; c < channels; c++)
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++) {
            sum[c][t] = vec_load(sums + (c * taps + t) * LANES);
            if (t < taps - 1) seen[c][t] = load_operand(spread, from + c * channel + t * step);
        }
    from += (taps - 1) * step;
    for (ptrdiff_t x = 0; x < outputs; x++, grad += pixel, from += step) {
        const vec value = vec_load_rest(grad, count);
#pragma GCC unroll 3
        for (int c = 0; c < channels; c++) {
            seen[c][taps - 1] = load_operand(spread, from + c * channel);
#pragma GCC unroll 3
            for (int t = 0; t < taps; t++) sum[c][t] += value * seen[c][t];
#pragma GCC unroll 3
            for (int t = 0; t < taps - 1; t++) seen[c][t] = seen[c][t + 1];
        }
    }
#pragma GCC unroll 3
    for (int c = 0; c < channels; c++)
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++) vec_store(sums + (c * taps + t) * LANES, sum[c][t]);
}

/* sums[run][C][tap of the run][LANES] += those over a row of a strip's outputs. */
INLINE void sum_row(const struct group_geometry *g, const struct strip *s, const struct bundle *b, const int spread,
                    ptrdiff_t outputs, ptrdiff_t slot, const real *ring, const real *grad, real *sums)
{
    const ptrdiff_t step = g->stride[1] * s->pixel;
    for (const struct group_tap *tap = g->tap; tap < g->tap + g->taps; tap += tap->run) {
        const real *from = find_tap(s, tap, slot, ring);
        for (ptrdiff_t c = 0, channels; c < g->channels; c += channels, from += channels * s->spread) {
            channels = g->channels - c >= GRADIENT_CHANNELS ? GRADIENT_CHANNELS : 1;
#define SUM(taps, channels) sum_run(spread, taps, channels, outputs, from, step, grad, g->out_pixel, b->count, sums)
            if (channels == 1)
                tap->run == 3 ? SUM(3, 1) : tap->run == 2 ? SUM(2, 1) : SUM(1, 1);
            else if (tap->run == 3)
                SUM(3, GRADIENT_CHANNELS);
            else if (tap->run == 2)
                SUM(2, GRADIENT_CHANNELS);
            else
                SUM(1, GRADIENT_CHANNELS);
#undef SUM
            sums += tap->run * channels * LANES;
        }
    }
}

/* partial[tap of the filter][C][all output channels] (+)= sums[run][C][tap of the run][LANES] */
static void store_gradients(const struct group_geometry *g, const struct bundle *b, const real *sums, int accumulate,
                            real *partial)
{
    const ptrdiff_t row = g->groups * g->out_channels;
    for (const struct group_tap *tap = g->tap; tap < g->tap + g->taps; tap += tap->run)
        for (ptrdiff_t c = 0; c < g->channels; c++)
            for (ptrdiff_t t = 0; t < tap->run; t++, sums += LANES) {
                real *to = partial + (tap[t].index * g->channels + c) * row + b->first;
                vec_store_rest(to, vec_load(sums) + (accumulate ? vec_load_rest(to, b->count) : (vec){0}), b->count);
            }
}

/* partial[tap of the filter][C][all output channels] = the sums over rows start .. + rows of outputs. */
static void weight_tile(const struct group_geometry *g, const void *input, const void *grad_output, ptrdiff_t start,
                        ptrdiff_t rows, void *partial, void *scratch)
{
    const struct strip s = strip_of(g);
    const ptrdiff_t image = g->in_size[0] * g->in_size[1] * g->groups * g->channels;
    real *ring = scratch, *sums = ring + ring_size(&s);
    struct outputs o;
    for (ptrdiff_t row = start; row < start + rows; row += o.rows) {
        o = rows_of_image(g, row, start + rows);
        const ptrdiff_t begin = o.y * g->stride[0] + s.first[0];
        for (ptrdiff_t i = 0; i < bundle_count(g, &s); i++) {
            const struct bundle b = find_bundle(g, &s, i);
            memset(sums, 0, (size_t)(g->taps * g->channels * LANES) * sizeof(real));
            for (o.x = 0; o.x < g->grid[1]; o.x += s.columns) {
                struct outputs at = o;
                ptrdiff_t next = begin;
                at.columns = smaller(s.columns, g->grid[1] - o.x);
                for (; at.y < o.y + o.rows; at.y++) {
                    const ptrdiff_t slot = (at.y - o.y) * g->stride[0] % s.reach[0];
                    const real *grad = (const real *)grad_output + place_of(g, &at) + b.first;
                    fill_ring(g, &s, &b, (const real *)input + o.n * image, begin, at.y, o.x, &next, ring);
                    if (s.spread > 1)
                        sum_row(g, &s, &b, 1, at.columns, slot, ring, grad, sums);
                    else
                        sum_row(g, &s, &b, 0, at.columns, slot, ring, grad, sums);
                }
            }
            store_gradients(g, &b, sums, row > start, partial);
        }
    }
}

const struct group_kernels FASTNN_TABLE(grouped) = {
    .scratch_size = scratch_size,
    .tile = tile,
    .weight_tile = weight_tile,
};

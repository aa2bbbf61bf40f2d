/* Normalisation: batch, instance, group and layer norm, forward and backward.
 *
 *     xhat = (x - mean) / sqrt(variance + eps)        y = xhat * weight + bias, then perhaps max(0, y + residual)
 *     dbias = sum(dy)    dweight = sum(dy * xhat)
 *     dx = weight / deviation * (dy - mean(dy) - xhat * mean(dy * xhat))      (training: through mean and variance)
 *
 * One view serves all but layer norm: x is [images][channels][positions], and a channel has its own coefficients.
 *     batch norm      images = N, channels = C, statistics per channel
 *     instance norm   images = 1, channels = N * C, statistics per channel
 *     group norm      images = 1, channels = N * C, statistics per group of adjacent channels
 * "Elements" of a channel are its images * positions in this order. Where the channels of several images stand side by
 * side, channel c has weight c % weights.
 *
 * Two ways through a tile, chosen by shape (by_columns):
 *     planes   along the positions of one channel, for large planes
 *     columns  along adjacent channels and positions of one image, for (N, C) inputs and small planes
 *
 * Accuracy. Sums are taken in `real` over at most CHUNK elements (or ROW_CHUNK rows) and then in double. Variances
 * are shifted: sum((x - k)^2) with k near the mean. The first k is the mean of an eighth of a chunk, which bounds what
 * cancels to a factor of about 9 however the data lie; after that k is the mean of the chunk before, which bounds it
 * by the variance between chunks, a part of the result. Chunks are merged in order by the formula of Chan, Golub and
 * LeVeque (1979). A mean is used as the nearest `real` (center), subtracted first, and a remainder folded into the
 * coefficients, so that a mean far larger than the deviation costs nothing.
 */
#include <math.h>

#include "kernels.h"
#include "vec.h"

enum {
    ROW_CHUNK = 64, /* additions in `real` before a sum goes to double: rows, where sums run down columns */
    STREAMS = 4,    /* independent sums, to hide the latency of an addition */
    CHUNK = ROW_CHUNK * STREAMS * LANES /* elements of a plane, where every lane of every stream has its sum */
};

/* ---------------------------------------------------------------------------------------------------------------
 * Partial vectors. The last vector of n elements overlaps the one before it where n >= LANES; `taken_lanes`
 * are the new ones, which alone may enter a sum.
 * ------------------------------------------------------------------------------------------------------------- */

static const lane_int lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Where the vector for elements i and up starts: at i, or earlier for the last one. */
INLINE ptrdiff_t start_at(ptrdiff_t i, ptrdiff_t n) { return i + LANES <= n ? i : n >= LANES ? n - LANES : 0; }
/* Its lanes that stand for elements from i to n. */
INLINE ivec taken_lanes(ptrdiff_t i, ptrdiff_t n)
{
    ivec lane;
    memcpy(&lane, lane_numbers, sizeof lane);
    const ptrdiff_t start = start_at(i, n);
    return (lane >= (lane_int)(i - start)) & (lane < (lane_int)smaller(n - start, LANES));
}
INLINE vec load(const real *p, ptrdiff_t lanes) { return lanes >= LANES ? vec_load(p) : vec_load_tail(p, lanes); }
INLINE void store(real *p, vec v, ptrdiff_t lanes)
{
    if (lanes >= LANES)
        vec_store(p, v);
    else
        vec_store_tail(p, v, lanes);
}
INLINE vec only(ivec taken, vec v) { return vec_select(taken, v, (vec){0}); }

/* ---------------------------------------------------------------------------------------------------------------
 * The steps that planes, columns and rows have in common
 * ------------------------------------------------------------------------------------------------------------- */

/* y = (x - center) * scale + shift + residual (unless NULL), of which up to `lanes` lanes are there */
INLINE vec affine_step(vec x, vec center, vec scale, vec shift, const real *residual, ptrdiff_t lanes, int relu)
{
    vec y = (x - center) * scale + shift;
    if (residual) y += load(residual, lanes);
    return relu ? vec_max((vec){0}, y) : y;
}

/* The gradient that reaches the affine output: none where ReLU gave 0. */
INLINE vec gradient_step(vec dy, vec distance, vec scale, vec shift, int relu)
{ return relu ? only(distance * scale + shift > 0, dy) : dy; }

/* dx = slope * (dy - dy_center) + x_slope * (x - center) + constant; slope * dy alone where statistics are constants */
struct gradient {
    vec slope, dy_center, x_slope, constant;
};
INLINE vec backward_step(vec dy, vec distance, struct gradient g, int training)
{ return training ? g.slope * (dy - g.dy_center) + (g.x_slope * distance + g.constant) : g.slope * dy; }

/* Two sums, in several independent streams. */
struct sums {
    vec first[STREAMS], second[STREAMS];
};

INLINE double stream_sum(const vec *streams)
{
    double lanes[LANES] = {0};
    for (int s = 0; s < STREAMS; s++)
        for (int i = 0; i < LANES; i++) lanes[i] += (double)streams[s][i];
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

INLINE void drain(struct sums *sums, double *first, double *second)
{
    *first = stream_sum(sums->first);
    *second = stream_sum(sums->second);
    memset(sums, 0, sizeof *sums);
}

/* sum(x - k) and sum((x - k)^2) of a run of n elements */
INLINE void add_moments(const real *x, ptrdiff_t n, vec k, struct sums *sums)
{
    ptrdiff_t i = 0;
    for (; i + STREAMS * LANES <= n; i += STREAMS * LANES)
        for (int s = 0; s < STREAMS; s++) {
            vec distance = vec_load(x + i + s * LANES) - k;
            sums->first[s] += distance;
            sums->second[s] += distance * distance;
        }
    for (; i < n; i += LANES) {
        ptrdiff_t at = start_at(i, n);
        vec distance = only(taken_lanes(i, n), load(x + at, n - at) - k);
        sums->first[0] += distance;
        sums->second[0] += distance * distance;
    }
}

/* Merges (mean, m2 = sum of squared distances) of `count` elements into total's, which stands for `before` elements. */
INLINE void merge(double *total, double before, double count, double mean, double m2)
{
    double distance = mean - total[0];
    total[0] += distance * (count / (before + count));
    total[1] += m2 + distance * distance * (before * count / (before + count));
}

/* sum((x - mean)^2) from sums about k; rounding may not make it negative, NaN stays. */
INLINE double centered(double sum, double squares, double count)
{
    double m2 = squares - sum * sum / count;
    return m2 < 0 ? 0 : m2;
}

/* ---------------------------------------------------------------------------------------------------------------
 * Planes: a channel's elements are runs of contiguous memory, at most CHUNK long
 * ------------------------------------------------------------------------------------------------------------- */

struct runs {
    ptrdiff_t plane;        /* where the current plane starts */
    ptrdiff_t offset;       /* position in it: where the next run starts, or ends when going backwards */
    ptrdiff_t rest;         /* elements to come */
    ptrdiff_t image_stride; /* from a plane to the next of the same channel */
    ptrdiff_t positions;
    ptrdiff_t at, length; /* OUT: the run */
};

INLINE struct runs runs_of(const struct norm_shape *shape, ptrdiff_t channel, ptrdiff_t at, ptrdiff_t count)
{
    ptrdiff_t image = at / shape->positions, image_stride = shape->channels * shape->positions;
    return (struct runs){image * image_stride + channel * shape->positions,
                         at % shape->positions,
                         count,
                         image_stride,
                         shape->positions,
                         0,
                         0};
}

INLINE int next_run(struct runs *runs)
{
    if (runs->rest == 0) return 0;
    runs->length = smaller(smaller(runs->positions - runs->offset, runs->rest), CHUNK);
    runs->at = runs->plane + runs->offset;
    runs->offset += runs->length;
    runs->rest -= runs->length;
    if (runs->offset == runs->positions) {
        runs->offset = 0;
        runs->plane += runs->image_stride;
    }
    return 1;
}

/* Backwards, from runs_of(the end): the last elements that a pass has read are still in the cache for the next pass. */
INLINE int previous_run(struct runs *runs)
{
    if (runs->rest == 0) return 0;
    if (runs->offset == 0) {
        runs->offset = runs->positions;
        runs->plane -= runs->image_stride;
    }
    runs->length = smaller(smaller(runs->offset, runs->rest), CHUNK);
    runs->offset -= runs->length;
    runs->rest -= runs->length;
    runs->at = runs->plane + runs->offset;
    return 1;
}

INLINE void plane_moments(struct runs runs, const real *x, double *moments)
{
    struct sums sums = {0};
    double before = 0, count = 0, first, second;
    struct runs sample = runs;
    moments[0] = moments[1] = 0;
    if (!next_run(&sample)) return;
    ptrdiff_t sampled = smaller(sample.length, smaller(runs.rest, CHUNK) / 8 + LANES);
    add_moments(x + sample.at, sampled, (vec){0}, &sums);
    drain(&sums, &first, &second);
    real k = (real)(first / (double)sampled);
    while (next_run(&runs)) {
        add_moments(x + runs.at, runs.length, vec_set(k), &sums);
        count += (double)runs.length;
        if (count < CHUNK && runs.rest > 0) continue;
        drain(&sums, &first, &second);
        double mean = (double)k + first / count;
        merge(moments, before, count, mean, centered(first, second, count));
        before += count;
        count = 0;
        k = (real)mean;
    }
}

INLINE void plane_affine(struct runs runs, const real *x, vec center, vec scale, vec shift, const real *residual,
                         int relu, real *y)
{
    while (previous_run(&runs)) {
        const real *from = x + runs.at, *added = residual ? residual + runs.at : NULL;
        real *to = y + runs.at;
        ptrdiff_t n = runs.length, i = 0;
#pragma GCC unroll 4
        for (; i + LANES <= n; i += LANES)
            vec_store(to + i,
                      affine_step(vec_load(from + i), center, scale, shift, added ? added + i : NULL, LANES, relu));
        if (i == n) continue;
        i = start_at(i, n);
        store(to + i, affine_step(load(from + i, n - i), center, scale, shift, added ? added + i : NULL, n - i, relu),
              n - i);
    }
}

/* sum(dy) and sum(dy * (x - center)) */
INLINE void plane_sums(struct runs runs, const real *dy, const real *x, vec center, vec scale, vec shift, int relu,
                       double *total)
{
    struct sums sums = {0};
    ptrdiff_t count = 0;
    double first, second;
    total[0] = total[1] = 0;
    while (next_run(&runs)) {
        const real *gradients = dy + runs.at, *inputs = x + runs.at;
        ptrdiff_t n = runs.length, i = 0;
        for (; i + STREAMS * LANES <= n; i += STREAMS * LANES)
            for (int s = 0; s < STREAMS; s++) {
                vec distance = vec_load(inputs + i + s * LANES) - center;
                vec g = gradient_step(vec_load(gradients + i + s * LANES), distance, scale, shift, relu);
                sums.first[s] += g;
                sums.second[s] += g * distance;
            }
        for (; i < n; i += LANES) {
            const ivec taken = taken_lanes(i, n);
            ptrdiff_t at = start_at(i, n);
            vec distance = only(taken, load(inputs + at, n - at) - center);
            vec g = only(taken, gradient_step(load(gradients + at, n - at), distance, scale, shift, relu));
            sums.first[0] += g;
            sums.second[0] += g * distance;
        }
        count += n;
        if (count < CHUNK && runs.rest > 0) continue;
        drain(&sums, &first, &second);
        total[0] += first;
        total[1] += second;
        count = 0;
    }
}

INLINE void plane_backward(struct runs runs, const real *dy, const real *x, vec center, vec scale, vec shift,
                           struct gradient gradient, int relu, int training, real *dx)
{
    while (previous_run(&runs)) {
        const real *gradients = dy + runs.at, *inputs = x + runs.at;
        real *to = dx + runs.at;
        ptrdiff_t n = runs.length, i = 0;
#pragma GCC unroll 4
        for (; i + LANES <= n; i += LANES) {
            vec distance = vec_load(inputs + i) - center;
            vec g = gradient_step(vec_load(gradients + i), distance, scale, shift, relu);
            vec_store(to + i, backward_step(g, distance, gradient, training));
        }
        if (i == n) continue;
        i = start_at(i, n);
        vec distance = load(inputs + i, n - i) - center;
        vec g = gradient_step(load(gradients + i, n - i), distance, scale, shift, relu);
        store(to + i, backward_step(g, distance, gradient, training), n - i);
    }
}

/* ---------------------------------------------------------------------------------------------------------------
 * Columns: `columns` adjacent (channel, position) pairs, one row per image. Coefficients are repeated per position.
 * ------------------------------------------------------------------------------------------------------------- */

enum { PADDED_COLUMNS = NORM_COLUMNS + LANES };

/* Merging columns into channels costs per position, planes cost per image. */
static int by_columns(const struct norm_shape *shape)
{ return shape->positions < NORM_COLUMN_POSITIONS && shape->positions <= 4 * shape->images; }

INLINE ptrdiff_t padded(ptrdiff_t columns) { return (columns + LANES - 1) / LANES * LANES; }

static void expand(const real *coefficients, ptrdiff_t channels, ptrdiff_t positions, real *columns)
{
    ptrdiff_t column = 0;
    for (ptrdiff_t channel = 0; channel < channels; channel++)
        for (ptrdiff_t position = 0; position < positions; position++) columns[column++] = coefficients[channel];
    for (ptrdiff_t end = padded(column); column < end; column++) columns[column] = 0;
}

/* sum += x - k, squares += (x - k)^2 over `rows` rows */
static void add_rows(const real *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t columns, const real *k, real *sum,
                     real *squares)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t column = 0; column < columns; column += LANES) {
            vec distance = load(x + row * row_stride + column, columns - column) - vec_load(k + column);
            vec_store(sum + column, vec_load(sum + column) + distance);
            vec_store(squares + column, vec_load(squares + column) + distance * distance);
        }
}

/* Merges the columns' sums about k over `rows` rows into their channels' moments; k becomes the columns' means. */
static void merge_columns(ptrdiff_t channels, ptrdiff_t positions, double before_rows, double rows, const real *sum,
                          const real *squares, real *k, double *moments)
{
    for (ptrdiff_t channel = 0; channel < channels; channel++) {
        const ptrdiff_t start = channel * positions, end = start + positions;
        double mean = 0, m2 = 0;
        for (ptrdiff_t column = start; column < end; column++) mean += (double)k[column] + (double)sum[column] / rows;
        mean /= (double)positions;
        for (ptrdiff_t column = start; column < end; column++) {
            double column_mean = (double)k[column] + (double)sum[column] / rows, distance = column_mean - mean;
            m2 += centered((double)sum[column], (double)squares[column], rows) + rows * distance * distance;
            k[column] = (real)column_mean;
        }
        merge(moments + 2 * channel, before_rows * (double)positions, rows * (double)positions, mean, m2);
    }
}

static void column_moments(const real *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t positions,
                           double *moments)
{
    real sum[PADDED_COLUMNS], squares[PADDED_COLUMNS], k[PADDED_COLUMNS] = {0};
    const ptrdiff_t columns = channels * positions, sampled = smaller(rows, ROW_CHUNK / 8);
    const size_t bytes = (size_t)padded(columns) * sizeof(real);
    memset(sum, 0, bytes);
    memset(squares, 0, bytes);
    add_rows(x, row_stride, sampled, columns, k, sum, squares);
    for (ptrdiff_t column = 0; column < columns; column++) k[column] = sum[column] / (real)sampled;
    memset(moments, 0, (size_t)channels * 2 * sizeof(double));
    for (ptrdiff_t row = 0; row < rows; row += ROW_CHUNK) {
        ptrdiff_t count = smaller(ROW_CHUNK, rows - row);
        memset(sum, 0, bytes);
        memset(squares, 0, bytes);
        add_rows(x + row * row_stride, row_stride, count, columns, k, sum, squares);
        merge_columns(channels, positions, (double)row, (double)count, sum, squares, k, moments);
    }
}

INLINE void column_affine(const real *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t columns, const real *center,
                          const real *scale, const real *shift, const real *residual, int relu, real *y)
{
    for (ptrdiff_t row = rows - 1; row >= 0; row--)
        for (ptrdiff_t column = 0; column < columns; column += LANES) {
            ptrdiff_t at = row * row_stride + column, lanes = columns - column;
            vec result = affine_step(load(x + at, lanes), vec_load(center + column), vec_load(scale + column),
                                     vec_load(shift + column), residual ? residual + at : NULL, lanes, relu);
            store(y + at, result, lanes);
        }
}

INLINE void column_sums(const real *dy, const real *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t channels,
                        ptrdiff_t positions, const real *center, const real *scale, const real *shift, int relu,
                        double *total)
{
    real first[PADDED_COLUMNS], second[PADDED_COLUMNS];
    const ptrdiff_t columns = channels * positions;
    const size_t bytes = (size_t)padded(columns) * sizeof(real);
    memset(total, 0, (size_t)channels * 2 * sizeof(double));
    for (ptrdiff_t start = 0; start < rows; start += ROW_CHUNK) {
        memset(first, 0, bytes);
        memset(second, 0, bytes);
        for (ptrdiff_t row = start; row < smaller(rows, start + ROW_CHUNK); row++)
            for (ptrdiff_t column = 0; column < columns; column += LANES) {
                ptrdiff_t at = row * row_stride + column, lanes = columns - column;
                vec distance = load(x + at, lanes) - vec_load(center + column);
                vec g = gradient_step(load(dy + at, lanes), distance, vec_load(scale + column),
                                      vec_load(shift + column), relu);
                vec_store(first + column, vec_load(first + column) + g);
                vec_store(second + column, vec_load(second + column) + g * distance);
            }
        for (ptrdiff_t column = 0; column < columns; column++) {
            total[2 * (column / positions)] += (double)first[column];
            total[2 * (column / positions) + 1] += (double)second[column];
        }
    }
}

INLINE void column_backward(const real *dy, const real *x, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t columns,
                            const real *center, const real *scale, const real *shift,
                            const real (*gradient)[PADDED_COLUMNS], int relu, int training, real *dx)
{
    for (ptrdiff_t row = rows - 1; row >= 0; row--)
        for (ptrdiff_t column = 0; column < columns; column += LANES) {
            ptrdiff_t at = row * row_stride + column, lanes = columns - column;
            struct gradient g = {vec_load(gradient[0] + column), vec_load(gradient[1] + column),
                                 vec_load(gradient[2] + column), vec_load(gradient[3] + column)};
            vec distance = load(x + at, lanes) - vec_load(center + column);
            vec masked =
                gradient_step(load(dy + at, lanes), distance, vec_load(scale + column), vec_load(shift + column), relu);
            store(dx + at, backward_step(masked, distance, g, training), lanes);
        }
}

/* ---------------------------------------------------------------------------------------------------------------
 * The tiles: elements [start, start + count) of the channels [channel, channel + channels). By columns, start and
 * count are whole images. affine is [3][C]: center, scale, shift. gradient is [4][C]: slope, center of dy, slope of x,
 * constant.
 * ------------------------------------------------------------------------------------------------------------- */

/* Rows and columns of a tile, in blocks of at most NORM_COLUMNS columns. */
struct block {
    ptrdiff_t offset, row_stride, rows, channels, columns;
};
INLINE struct block block_of(const struct norm_shape *shape, const struct norm_tile *tile, ptrdiff_t channel)
{
    ptrdiff_t positions = shape->positions, row_stride = shape->channels * positions;
    ptrdiff_t channels = smaller(NORM_COLUMNS / positions, tile->channel + tile->channels - channel);
    return (struct block){tile->start / positions * row_stride + channel * positions, row_stride,
                          tile->count / positions, channels, channels * positions};
}
/* moments[c] = mean of the tile's elements of channel c, and the sum of their squared distances from it */
static void moments(const struct norm_shape *shape, const struct norm_tile *tile, const void *input, double *moments)
{
    const real *x = input;
    const ptrdiff_t end = tile->channel + tile->channels;
    if (by_columns(shape)) {
        for (ptrdiff_t channel = tile->channel; channel < end;) {
            struct block block = block_of(shape, tile, channel);
            column_moments(x + block.offset, block.row_stride, block.rows, block.channels, shape->positions,
                           moments + 2 * channel);
            channel += block.channels;
        }
        return;
    }
    for (ptrdiff_t channel = tile->channel; channel < end; channel++)
        plane_moments(runs_of(shape, channel, tile->start, tile->count), x, moments + 2 * channel);
}

INLINE void affine_tile(const struct norm_shape *shape, const struct norm_tile *tile, const real *x, const real *affine,
                        const real *residual, int relu, real *y)
{
    const ptrdiff_t end = tile->channel + tile->channels;
    const real *center = affine, *scale = affine + shape->channels, *shift = affine + 2 * shape->channels;
    if (by_columns(shape)) {
        real columns[3][PADDED_COLUMNS];
        for (ptrdiff_t channel = tile->channel; channel < end;) {
            struct block block = block_of(shape, tile, channel);
            for (int i = 0; i < 3; i++)
                expand(affine + i * shape->channels + channel, block.channels, shape->positions, columns[i]);
            column_affine(x + block.offset, block.row_stride, block.rows, block.columns, columns[0], columns[1],
                          columns[2], residual ? residual + block.offset : NULL, relu, y + block.offset);
            channel += block.channels;
        }
        return;
    }
    for (ptrdiff_t channel = end - 1; channel >= tile->channel; channel--) {
        struct runs runs = runs_of(shape, channel, tile->start + tile->count, tile->count);
        plane_affine(runs, x, vec_set(center[channel]), vec_set(scale[channel]), vec_set(shift[channel]), residual,
                     relu, y);
    }
}

/* y = (x - center) * scale + shift, then perhaps max(0, y), or max(0, y + residual) */
static void affine(const struct norm_shape *shape, const struct norm_tile *tile, const void *input,
                   const void *coefficients, const void *residual, int relu, void *output)
{
    if (residual)
        affine_tile(shape, tile, input, coefficients, residual, 1, output);
    else if (relu)
        affine_tile(shape, tile, input, coefficients, NULL, 1, output);
    else
        affine_tile(shape, tile, input, coefficients, NULL, 0, output);
}

INLINE void sums_tile(const struct norm_shape *shape, const struct norm_tile *tile, const real *dy, const real *x,
                      const real *affine, int relu, double *sums)
{
    const ptrdiff_t end = tile->channel + tile->channels;
    const real *center = affine, *scale = affine + shape->channels, *shift = affine + 2 * shape->channels;
    if (by_columns(shape)) {
        real columns[3][PADDED_COLUMNS];
        for (ptrdiff_t channel = tile->channel; channel < end;) {
            struct block block = block_of(shape, tile, channel);
            for (int i = 0; i < 3; i++)
                expand(affine + i * shape->channels + channel, block.channels, shape->positions, columns[i]);
            column_sums(dy + block.offset, x + block.offset, block.row_stride, block.rows, block.channels,
                        shape->positions, columns[0], columns[1], columns[2], relu, sums + 2 * channel);
            channel += block.channels;
        }
        return;
    }
    for (ptrdiff_t channel = tile->channel; channel < end; channel++)
        plane_sums(runs_of(shape, channel, tile->start, tile->count), dy, x, vec_set(center[channel]),
                   vec_set(scale[channel]), vec_set(shift[channel]), relu, sums + 2 * channel);
}

/* sums[c] = sum(dy) and sum(dy * (x - center)) over the tile's elements of channel c */
static void gradient_sums(const struct norm_shape *shape, const struct norm_tile *tile, const void *grad_output,
                          const void *input, const void *affine, int relu, double *sums)
{
    if (relu)
        sums_tile(shape, tile, grad_output, input, affine, 1, sums);
    else
        sums_tile(shape, tile, grad_output, input, affine, 0, sums);
}

INLINE void backward_tile(const struct norm_shape *shape, const struct norm_tile *tile, const real *dy, const real *x,
                          const real *affine, const real *gradient, int relu, int training, real *dx)
{
    const ptrdiff_t end = tile->channel + tile->channels, stride = shape->channels;
    if (by_columns(shape)) {
        real columns[3][PADDED_COLUMNS], gradients[4][PADDED_COLUMNS];
        for (ptrdiff_t channel = tile->channel; channel < end;) {
            struct block block = block_of(shape, tile, channel);
            for (int i = 0; i < 3; i++)
                expand(affine + i * stride + channel, block.channels, shape->positions, columns[i]);
            for (int i = 0; i < 4; i++)
                expand(gradient + i * stride + channel, block.channels, shape->positions, gradients[i]);
            column_backward(dy + block.offset, x + block.offset, block.row_stride, block.rows, block.columns,
                            columns[0], columns[1], columns[2], (const real(*)[PADDED_COLUMNS])gradients, relu,
                            training, dx + block.offset);
            channel += block.channels;
        }
        return;
    }
    for (ptrdiff_t channel = end - 1; channel >= tile->channel; channel--) {
        const real *a = affine + channel, *g = gradient + channel;
        plane_backward(
            runs_of(shape, channel, tile->start + tile->count, tile->count), dy, x, vec_set(a[0]), vec_set(a[stride]),
            vec_set(a[2 * stride]),
            (struct gradient){vec_set(g[0]), vec_set(g[stride]), vec_set(g[2 * stride]), vec_set(g[3 * stride])}, relu,
            training, dx);
    }
}

/* dx = slope * (dy - center of dy) + slope of x * (x - center) + constant; slope * dy where statistics are constants */
static void backward(const struct norm_shape *shape, const struct norm_tile *tile, const void *grad_output,
                     const void *input, const void *affine, const void *gradient, int relu, int training,
                     void *grad_input)
{
    if (relu && training)
        backward_tile(shape, tile, grad_output, input, affine, gradient, 1, 1, grad_input);
    else if (relu)
        backward_tile(shape, tile, grad_output, input, affine, gradient, 1, 0, grad_input);
    else if (training)
        backward_tile(shape, tile, grad_output, input, affine, gradient, 0, 1, grad_input);
    else
        backward_tile(shape, tile, grad_output, input, affine, gradient, 0, 0, grad_input);
}

/* ---------------------------------------------------------------------------------------------------------------
 * Statistics and coefficients, in double, for a range of statistics or channels
 * ------------------------------------------------------------------------------------------------------------- */

/* Merges each statistic's moments, [parts][all statistics][2] with part_count elements per part (the last: what is
 * left), into mean and inverse deviation; updates the running statistics where they are given: torch's formula, in
 * which the running variance takes the unbiased one. */
static void statistics(ptrdiff_t first, ptrdiff_t count, ptrdiff_t all, const double *moments, ptrdiff_t parts,
                       ptrdiff_t part_count, ptrdiff_t elements, double eps, double *mean, double *inverse_deviation,
                       void *running_mean, void *running_variance, double momentum)
{
    real *means = running_mean, *variances = running_variance;
    for (ptrdiff_t i = first; i < first + count; i++) {
        double total[2] = {moments[2 * i], moments[2 * i + 1]};
        for (ptrdiff_t part = 1; part < parts; part++) {
            const double *next = moments + 2 * (part * all + i);
            ptrdiff_t before = part * part_count;
            merge(total, (double)before, (double)smaller(part_count, elements - before), next[0], next[1]);
        }
        mean[i] = total[0];
        inverse_deviation[i] = 1 / sqrt(total[1] / (double)elements + eps);
        if (means == NULL) continue;
        means[i] = (real)(momentum * total[0] + (1 - momentum) * (double)means[i]);
        variances[i] = (real)(momentum * (total[1] / (double)(elements - 1)) + (1 - momentum) * (double)variances[i]);
    }
}

/* Inference: the running statistics are the statistics. */
static void fixed_statistics(ptrdiff_t count, const void *running_mean, const void *running_variance, double eps,
                             double *mean, double *inverse_deviation)
{
    const real *means = running_mean, *variances = running_variance;
    for (ptrdiff_t i = 0; i < count; i++) {
        mean[i] = (double)means[i];
        inverse_deviation[i] = 1 / sqrt((double)variances[i] + eps);
    }
}

/* The affine coefficients of channels [first, first + count); channel c has statistic c / group, weight c % weights. */
static void affine_coefficients(const struct norm_shape *shape, ptrdiff_t first, ptrdiff_t count, const double *mean,
                                const double *inverse_deviation, const void *weight, const void *bias,
                                void *coefficients)
{
    const real *w = weight, *b = bias;
    real *center = coefficients, *scale = center + shape->channels, *shift = scale + shape->channels;
    for (ptrdiff_t c = first; c < first + count; c++) {
        const ptrdiff_t statistic = c / shape->group, j = c % shape->weights;
        const double slope = inverse_deviation[statistic] * (w ? (double)w[j] : 1);
        center[c] = (real)mean[statistic];
        scale[c] = (real)slope;
        shift[c] = (real)((b ? (double)b[j] : 0) - (mean[statistic] - (double)center[c]) * slope);
    }
}

/* Adds the parts of the sums ([parts][C][2], as gradient_sums leaves them) in order into the first, where they become
 * sum(dy) and sum(dy * xhat), then the gradient's coefficients; for channels of statistics [first, first + count). */
static void gradient_coefficients(const struct norm_shape *shape, ptrdiff_t first, ptrdiff_t count, double *sums,
                                  ptrdiff_t parts, const double *mean, const double *inverse_deviation,
                                  const void *weight, void *coefficients)
{
    const real *w = weight;
    const ptrdiff_t channels = shape->channels;
    const double elements = (double)(shape->images * shape->positions); /* per channel */
    real *slope = coefficients, *dy_center = slope + channels, *x_slope = dy_center + channels,
         *constant = x_slope + channels;
    for (ptrdiff_t i = first; i < first + count; i++) {
        const double inverse = inverse_deviation[i], remainder = mean[i] - (double)(real)mean[i];
        const ptrdiff_t start = i * shape->group, end = start + shape->group;
        double mean_g = 0, mean_g_xhat = 0; /* of g = dy * weight, over the statistic's elements */
        for (ptrdiff_t c = start; c < end; c++) {
            const double scale = w ? (double)w[c % shape->weights] : 1;
            for (ptrdiff_t part = 1; part < parts; part++) {
                sums[2 * c] += sums[2 * (part * channels + c)];
                sums[2 * c + 1] += sums[2 * (part * channels + c) + 1];
            }
            sums[2 * c + 1] = (sums[2 * c + 1] - remainder * sums[2 * c]) * inverse;
            mean_g += scale * sums[2 * c];
            mean_g_xhat += scale * sums[2 * c + 1];
        }
        mean_g /= elements * (double)shape->group;
        mean_g_xhat /= elements * (double)shape->group;
        for (ptrdiff_t c = start; c < end; c++) {
            const double scale = w ? (double)w[c % shape->weights] : 1;
            slope[c] = (real)(scale * inverse);
            dy_center[c] = (real)(sums[2 * c] / elements);
            x_slope[c] = (real)(-inverse * inverse * mean_g_xhat);
            constant[c] = (real)(inverse * (scale * (double)dy_center[c] - mean_g + inverse * mean_g_xhat * remainder));
        }
    }
}

/* dweight[j], dbias[j] = the sums of the channels with weight j, in order; either may be NULL */
static void weight_gradients(const struct norm_shape *shape, const double *sums, void *grad_weight, void *grad_bias)
{
    real *dweight = grad_weight, *dbias = grad_bias;
    for (ptrdiff_t j = 0; j < shape->weights; j++) {
        double sum = 0, sum_xhat = 0;
        for (ptrdiff_t c = j; c < shape->channels; c += shape->weights) {
            sum += sums[2 * c];
            sum_xhat += sums[2 * c + 1];
        }
        if (dweight) dweight[j] = (real)sum_xhat;
        if (dbias) dbias[j] = (real)sum;
    }
}

/* ---------------------------------------------------------------------------------------------------------------
 * Layer norm: rows of `length` contiguous elements, statistics per row, weight and bias per element (NULL: 1 and 0)
 * ------------------------------------------------------------------------------------------------------------- */

struct row {
    double mean, inverse_deviation;
    vec center, scale, shift; /* xhat = (x - center) * scale + shift */
};

INLINE struct row measure_row(const real *x, ptrdiff_t length, double eps)
{
    double total[2];
    plane_moments((struct runs){.rest = length, .positions = length}, x, total);
    const double inverse = 1 / sqrt(total[1] / (double)length + eps);
    const real center = (real)total[0];
    return (struct row){total[0], inverse, vec_set(center), vec_set((real)inverse),
                        vec_set((real)(((double)center - total[0]) * inverse))};
}

static void layer(const void *input, const void *weight, const void *bias, ptrdiff_t rows, ptrdiff_t length, double eps,
                  void *output)
{
    const real *x = input, *w = weight, *b = bias;
    real *y = output;
    for (; rows > 0; rows--, x += length, y += length) {
        const struct row row = measure_row(x, length, eps);
        for (ptrdiff_t i = 0; i < length; i += LANES) {
            const ptrdiff_t at = start_at(i, length), lanes = length - at;
            vec result = affine_step(load(x + at, lanes), row.center, row.scale, row.shift, NULL, LANES, 0);
            if (w) result *= load(w + at, lanes);
            if (b) result += load(b + at, lanes);
            store(y + at, result, lanes);
        }
    }
}

/* One vector of a row: enters sum(g) and sum(g * xhat), where g = dy * weight, and adds dy * xhat to dweight and dy to
 * dbias. */
INLINE void layer_sums_step(const real *dy, const real *x, const real *w, const struct row *row, ptrdiff_t i,
                            ptrdiff_t length, vec *sum_g, vec *sum_g_xhat, real *dweight, real *dbias)
{
    const ptrdiff_t at = start_at(i, length), lanes = length - at;
    vec gradient = load(dy + at, lanes),
        xhat = affine_step(load(x + at, lanes), row->center, row->scale, row->shift, NULL, LANES, 0);
    if (lanes <= LANES) { /* the last vector */
        gradient = only(taken_lanes(i, length), gradient);
        xhat = only(taken_lanes(i, length), xhat);
    }
    store(dweight + at, load(dweight + at, lanes) + gradient * xhat, lanes);
    store(dbias + at, load(dbias + at, lanes) + gradient, lanes);
    if (w) gradient *= load(w + at, lanes);
    *sum_g += gradient;
    *sum_g_xhat += gradient * xhat;
}

static void layer_backward_row(const real *dy, const real *x, const real *w, ptrdiff_t length, double eps, real *dx,
                               real *dweight, real *dbias)
{
    const struct row row = measure_row(x, length, eps);
    double mean_g = 0, mean_g_xhat = 0, first, second;
    struct sums sums = {0};
    for (ptrdiff_t start = 0; start < length; start += CHUNK) {
        const ptrdiff_t end = smaller(length, start + CHUNK);
        ptrdiff_t i = start;
        for (; i + STREAMS * LANES <= end; i += STREAMS * LANES)
            for (int s = 0; s < STREAMS; s++)
                layer_sums_step(dy, x, w, &row, i + s * LANES, length, &sums.first[s], &sums.second[s], dweight, dbias);
        for (; i < end; i += LANES)
            layer_sums_step(dy, x, w, &row, i, length, &sums.first[0], &sums.second[0], dweight, dbias);
        drain(&sums, &first, &second);
        mean_g += first / (double)length;
        mean_g_xhat += second / (double)length;
    }
    const double inverse = row.inverse_deviation, center_g = (double)(real)mean_g,
                 remainder = row.mean - (double)(real)row.mean;
    const struct gradient gradient = {
        row.scale, vec_set((real)mean_g), vec_set((real)(-inverse * inverse * mean_g_xhat)),
        vec_set((real)(inverse * (center_g - mean_g + inverse * mean_g_xhat * remainder)))};
    for (ptrdiff_t i = 0; i < length; i += LANES) {
        const ptrdiff_t at = start_at(i, length), lanes = length - at;
        vec g = load(dy + at, lanes);
        if (w) g *= load(w + at, lanes);
        store(dx + at, backward_step(g, load(x + at, lanes) - row.center, gradient, 1), lanes);
    }
}

/* dx of the rows; sums, [2][length], are their sum(dy * xhat) and sum(dy) over the rows. accumulators: [2][length] of
 * scratch */
static void layer_backward(const void *grad_output, const void *input, const void *weight, ptrdiff_t rows,
                           ptrdiff_t length, double eps, void *grad_input, void *accumulators, double *sums)
{
    const real *dy = grad_output, *x = input;
    real *dx = grad_input, *accumulated = accumulators;
    memset(sums, 0, (size_t)length * 2 * sizeof(double));
    for (ptrdiff_t start = 0; start < rows; start += ROW_CHUNK) {
        memset(accumulated, 0, (size_t)length * 2 * sizeof(real));
        for (ptrdiff_t row = start; row < smaller(rows, start + ROW_CHUNK); row++)
            layer_backward_row(dy + row * length, x + row * length, weight, length, eps, dx + row * length, accumulated,
                               accumulated + length);
        for (ptrdiff_t i = 0; i < 2 * length; i++) sums[i] += (double)accumulated[i];
    }
}

/* dweight and dbias, the parts of the sums ([parts][2][length]) added in order; either may be NULL */
static void layer_weight_gradients(const double *sums, ptrdiff_t parts, ptrdiff_t length, void *grad_weight,
                                   void *grad_bias)
{
    real *gradients[2] = {grad_weight, grad_bias};
    for (int which = 0; which < 2; which++)
        for (ptrdiff_t i = 0; gradients[which] && i < length; i++) {
            double sum = 0;
            for (ptrdiff_t part = 0; part < parts; part++) sum += sums[(2 * part + which) * length + i];
            gradients[which][i] = (real)sum;
        }
}

const struct norm_kernels FASTNN_TABLE(norm) = {
    .by_columns = by_columns,
    .moments = moments,
    .statistics = statistics,
    .fixed_statistics = fixed_statistics,
    .affine_coefficients = affine_coefficients,
    .affine = affine,
    .gradient_sums = gradient_sums,
    .gradient_coefficients = gradient_coefficients,
    .backward = backward,
    .weight_gradients = weight_gradients,
    .layer = layer,
    .layer_backward = layer_backward,
    .layer_weight_gradients = layer_weight_gradients,
};

/* Softmax and its logarithm along one dimension, and their gradients.
 *
 *     S_i = e^(x_i - m) / sum_j e^(x_j - m),   log S_i = (x_i - m) - log sum_j e^(x_j - m),   m = max_j x_j
 *     dx_i = S_i (dy_i - sum_j dy_j S_j)       dx_i = dy_i - S_i sum_j dy_j             (O(n), without the Jacobian)
 *
 * An array is [outer][size][inner], with the softmax along `size`; a column is the `size` elements, `inner` apart, that
 * one softmax runs over. Every sum runs along a column in one order, whatever the tiles. Three ways to fill vectors:
 *     rows     inner = 1: a vector holds neighbours in a column
 *     blocks   a vector holds the same element of neighbouring columns
 *     packed   short columns with few neighbours: LANES columns are first interleaved in a buffer, then as a block
 * As with torch, a column of -inf alone, with +inf or with NaN in it, gives NaN.
 */
#include "kernels.h"
#include "vecmath.h"

enum {
    BLOCK = 8,             /* vectors of columns that are worked on together: 128 to 512 adjacent bytes per element */
    SHORT_ROW = 8 * LANES, /* rows up to this are packed: partial vectors and sums across lanes cost more */
    RUN = 64,              /* vectors per partial sum: float32 loses digits in long sums */
    PACKED = 256,          /* columns up to this are packed where neighbours are FEW; the buffer is on the stack */
    FEW = 4 * LANES,       /* fewer neighbours than this would leave much of their vectors partial */
};

static const real INFINITE = __builtin_inf();

/* Where a column begins. */
INLINE ptrdiff_t column_start(ptrdiff_t column, ptrdiff_t size, ptrdiff_t inner)
{ return column / inner * size * inner + column % inner; }

/* buffer[element][lane] = the LANES columns from `column` on, of `columns` in all; the last one fills missing lanes. */
static void pack(const real *x, ptrdiff_t column, ptrdiff_t columns, ptrdiff_t size, ptrdiff_t inner, real *buffer)
{
    for (ptrdiff_t lane = 0; lane < LANES; lane++) {
        const real *source = x + column_start(column + lane < columns ? column + lane : columns - 1, size, inner);
        for (ptrdiff_t i = 0; i < size; i++) buffer[i * LANES + lane] = source[i * inner];
    }
}

static void unpack(const real *buffer, ptrdiff_t column, ptrdiff_t columns, ptrdiff_t size, ptrdiff_t inner, real *y)
{
    for (ptrdiff_t lane = 0; lane < LANES && column + lane < columns; lane++) {
        real *target = y + column_start(column + lane, size, inner);
        for (ptrdiff_t i = 0; i < size; i++) target[i * inner] = buffer[i * LANES + lane];
    }
}

/* `width` <= BLOCK * LANES adjacent columns, their elements `stride` apart; y may be x. */
INLINE void block_forward(const real *x, ptrdiff_t size, ptrdiff_t stride, ptrdiff_t width, int logarithm, real *y)
{
    vec highest[BLOCK], sum[BLOCK];
    const ptrdiff_t vectors = (width + LANES - 1) / LANES;
    for (ptrdiff_t v = 0; v < vectors; v++) highest[v] = vec_set(-INFINITE), sum[v] = (vec){0};
    for (ptrdiff_t i = 0; i < size; i++)
        for (ptrdiff_t v = 0; v < vectors; v++)
            highest[v] = vec_max(vec_load_rest(x + i * stride + v * LANES, width - v * LANES), highest[v]);
    for (ptrdiff_t run = 0; run < size; run += RUN) {
        vec partial[BLOCK] = {{0}};
        for (ptrdiff_t i = run; i < smaller(size, run + RUN); i++)
            for (ptrdiff_t v = 0; v < vectors; v++) {
                const ptrdiff_t rest = width - v * LANES, at = i * stride + v * LANES;
                vec e = vec_exp(vec_load_rest(x + at, rest) - highest[v]);
                partial[v] += e;
                if (!logarithm) vec_store_rest(y + at, e, rest);
            }
        for (ptrdiff_t v = 0; v < vectors; v++) sum[v] += partial[v];
    }
    for (ptrdiff_t v = 0; v < vectors; v++) sum[v] = logarithm ? vec_log(sum[v]) : 1 / sum[v];
    for (ptrdiff_t i = 0; i < size; i++)
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const ptrdiff_t rest = width - v * LANES, at = i * stride + v * LANES;
            vec value =
                logarithm ? (vec_load_rest(x + at, rest) - highest[v]) - sum[v] : vec_load_rest(y + at, rest) * sum[v];
            vec_store_rest(y + at, value, rest);
        }
}

/* From the forward's result y; dx may be dy or y. */
INLINE void block_backward(const real *dy, const real *y, ptrdiff_t size, ptrdiff_t stride, ptrdiff_t width,
                           int logarithm, real *dx)
{
    vec sum[BLOCK];
    const ptrdiff_t vectors = (width + LANES - 1) / LANES;
    for (ptrdiff_t v = 0; v < vectors; v++) sum[v] = (vec){0};
    for (ptrdiff_t run = 0; run < size; run += RUN) {
        vec partial[BLOCK] = {{0}};
        for (ptrdiff_t i = run; i < smaller(size, run + RUN); i++)
            for (ptrdiff_t v = 0; v < vectors; v++) {
                const ptrdiff_t rest = width - v * LANES, at = i * stride + v * LANES;
                vec g = vec_load_rest(dy + at, rest);
                partial[v] += logarithm ? g : g * vec_load_rest(y + at, rest);
            }
        for (ptrdiff_t v = 0; v < vectors; v++) sum[v] += partial[v];
    }
    for (ptrdiff_t i = 0; i < size; i++)
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const ptrdiff_t rest = width - v * LANES, at = i * stride + v * LANES;
            vec g = vec_load_rest(dy + at, rest), s = vec_load_rest(y + at, rest);
            vec_store_rest(dx + at, logarithm ? g - vec_exp(s) * sum[v] : s * (g - sum[v]), rest);
        }
}

/* As vec_load_rest, but missing lanes are -inf, which changes neither a maximum nor a sum of exponentials. */
INLINE vec load_or_lowest(const real *p, ptrdiff_t rest)
{
    real lanes[LANES];
    if (rest >= LANES) return vec_load(p);
    for (ptrdiff_t i = 0; i < LANES; i++) lanes[i] = i < rest ? p[i] : -INFINITE;
    return vec_load(lanes);
}

INLINE real highest_lane(vec v)
{
    real lanes[LANES], highest = -INFINITE;
    vec_store(lanes, v);
    for (int i = 0; i < LANES; i++) highest = lanes[i] > highest ? lanes[i] : highest;
    return highest;
}

INLINE void row_forward(const real *x, ptrdiff_t size, int logarithm, real *y)
{
    vec highest = vec_set(-INFINITE), sum = {0};
    for (ptrdiff_t i = 0; i < size; i += LANES) highest = vec_max(load_or_lowest(x + i, size - i), highest);
    highest = vec_set(highest_lane(highest));
    for (ptrdiff_t run = 0; run < size; run += RUN * LANES) {
        vec partial = {0};
        for (ptrdiff_t i = run; i < smaller(size, run + RUN * LANES); i += LANES) {
            vec e = vec_exp(load_or_lowest(x + i, size - i) - highest);
            partial += e;
            if (!logarithm) vec_store_rest(y + i, e, size - i);
        }
        sum += partial;
    }
    sum = vec_set(vec_sum(sum));
    sum = logarithm ? vec_log(sum) : 1 / sum;
    for (ptrdiff_t i = 0; i < size; i += LANES) {
        const ptrdiff_t rest = size - i;
        vec value = logarithm ? (vec_load_rest(x + i, rest) - highest) - sum : vec_load_rest(y + i, rest) * sum;
        vec_store_rest(y + i, value, rest);
    }
}

INLINE void row_backward(const real *dy, const real *y, ptrdiff_t size, int logarithm, real *dx)
{
    vec sum = {0};
    for (ptrdiff_t run = 0; run < size; run += RUN * LANES) {
        vec partial = {0};
        for (ptrdiff_t i = run; i < smaller(size, run + RUN * LANES); i += LANES) {
            vec g = vec_load_rest(dy + i, size - i);
            partial += logarithm ? g : g * vec_load_rest(y + i, size - i);
        }
        sum += partial;
    }
    sum = vec_set(vec_sum(sum));
    for (ptrdiff_t i = 0; i < size; i += LANES) {
        const ptrdiff_t rest = size - i;
        vec g = vec_load_rest(dy + i, rest), s = vec_load_rest(y + i, rest);
        vec_store_rest(dx + i, logarithm ? g - vec_exp(s) * sum : s * (g - sum), rest);
    }
}

INLINE int is_packed(ptrdiff_t size, ptrdiff_t inner)
{ return inner < FEW && inner % LANES && size <= (inner == 1 ? SHORT_ROW : PACKED); }

/* The first `columns` of the `inner` columns in each of `outer` images; all of them where inner < FEW. */
INLINE void forward(const real *x, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner, ptrdiff_t columns, int logarithm,
                    real *y)
{
    if (is_packed(size, inner)) {
        real buffer[PACKED * LANES];
        for (ptrdiff_t column = 0; column < outer * inner; column += LANES) {
            pack(x, column, outer * inner, size, inner, buffer);
            block_forward(buffer, size, LANES, LANES, logarithm, buffer);
            unpack(buffer, column, outer * inner, size, inner, y);
        }
        return;
    }
    for (ptrdiff_t o = 0; o < outer; o++, x += size * inner, y += size * inner) {
        if (inner == 1) {
            row_forward(x, size, logarithm, y);
            continue;
        }
        for (ptrdiff_t i = 0; i < columns; i += BLOCK * LANES)
            block_forward(x + i, size, inner, smaller(columns - i, BLOCK * LANES), logarithm, y + i);
    }
}

INLINE void backward(const real *dy, const real *y, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner, ptrdiff_t columns,
                     int logarithm, real *dx)
{
    if (is_packed(size, inner)) {
        real buffer[2][PACKED * LANES];
        for (ptrdiff_t column = 0; column < outer * inner; column += LANES) {
            pack(dy, column, outer * inner, size, inner, buffer[0]);
            pack(y, column, outer * inner, size, inner, buffer[1]);
            block_backward(buffer[0], buffer[1], size, LANES, LANES, logarithm, buffer[0]);
            unpack(buffer[0], column, outer * inner, size, inner, dx);
        }
        return;
    }
    for (ptrdiff_t o = 0; o < outer; o++, dy += size * inner, y += size * inner, dx += size * inner) {
        if (inner == 1) {
            row_backward(dy, y, size, logarithm, dx);
            continue;
        }
        for (ptrdiff_t i = 0; i < columns; i += BLOCK * LANES)
            block_backward(dy + i, y + i, size, inner, smaller(columns - i, BLOCK * LANES), logarithm, dx + i);
    }
}

#define SOFTMAX(name, logarithm)                                                                                       \
    static void name(const void *input, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner, ptrdiff_t columns,           \
                     void *output)                                                                                     \
    { forward(input, outer, size, inner, columns, logarithm, output); }                                                \
    static void name##_backward(const void *grad_output, const void *output, ptrdiff_t outer, ptrdiff_t size,          \
                                ptrdiff_t inner, ptrdiff_t columns, void *grad_input)                                  \
    { backward(grad_output, output, outer, size, inner, columns, logarithm, grad_input); }
SOFTMAX(softmax, 0)
SOFTMAX(log_softmax, 1)

const struct softmax_kernels FASTNN_TABLE(softmax) = {
    .softmax = softmax,
    .softmax_backward = softmax_backward,
    .log_softmax = log_softmax,
    .log_softmax_backward = log_softmax_backward,
};

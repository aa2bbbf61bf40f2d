/* Losses and their gradients.
 *
 * Cross-entropy, fused with the softmax. For the scores a of one position, with m = max a, S = sum exp(a - m), class
 * weights w and target probabilities t (one-hot for a class index; smoothing makes t to hard * t + soft):
 *
 *     q_c = w_c t_c                      T = sum of q_c
 *     loss = T log S - sum of q_c (a_c - m)
 *     d loss / d a_c = T exp(a_c - m) / S - q_c
 *
 * The exponentials are kept where the gradient goes, so that loss and gradient need one of each.
 *
 *     N  outer extent     C  classes     I  inner extent (spatial positions); scores are (N, C, I), positions (N, I)
 *
 * I > 1: LANES positions side by side, from class to class.    [columns]
 * I = 1, C >= 2 LANES: along each row.                         [long_row]
 * I = 1, C <  2 LANES: LANES rows transposed in registers, then as columns: a row would not fill its vectors.
 *
 * Elementwise losses are one loop with a formula each. Sums are in double: a mean over millions keeps float's digits.
 */
#include "kernels.h"
#include "vecmath.h"

enum {
    SHORT_ROW = 2 * LANES, /* rows of fewer classes are transposed */
    SUM_RUN = 16 * LANES,  /* elements that are added up before they join a longer sum: less rounding */
};

/* All ones in the lanes from `first` on. */
INLINE ivec lanes_from(ptrdiff_t first)
{
    vec index;
    for (int lane = 0; lane < LANES; lane++) index[lane] = lane;
    return index >= (real)first;
}

INLINE real largest(vec v)
{
    real lanes[LANES];
    vec_store(lanes, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

/* ---- Cross-entropy: columns ---- */

/* Where fewer than LANES positions stand side by side in memory; out of line, because it is rare and long. */
static __attribute__((noinline)) vec load_some(const real *p, ptrdiff_t lanes) { return vec_load_tail(p, lanes); }
static __attribute__((noinline)) void store_some(real *p, vec v, ptrdiff_t lanes) { vec_store_tail(p, v, lanes); }

/* q of class c, t at the positions' probabilities of this class (or NULL). */
INLINE vec column_share(const struct cross_entropy *problem, const real *t, ptrdiff_t c, int partial, ptrdiff_t lanes)
{
    const real *weight = problem->weight;
    vec share = vec_set(problem->soft);
    if (t) share += (real)problem->hard * (partial ? load_some(t, lanes) : vec_load(t));
    return weight ? share * weight[c] : share;
}

/* `lanes` positions side by side, the first of them number `position`. The scores a, the probabilities t (NULL with
 * class indices) and the gradients da (NULL where not wanted) step by `stride` from class to class, in memory that
 * holds whole vectors unless `partial`. `soft`: every class has a share in the loss. Returns the sum of the losses. */
INLINE double columns(const struct cross_entropy *problem, int soft, int partial, ptrdiff_t position, ptrdiff_t lanes,
                      const real *a, const real *t, ptrdiff_t stride, real *da)
{
#define LOAD(p) (partial ? load_some(p, lanes) : vec_load(p))
#define STORE(p, v) (partial ? store_some(p, v, lanes) : vec_store(p, v))
    const ptrdiff_t classes = problem->classes;
    const real *weight = problem->weight, *grad_output = problem->grad_output;
    const int64_t *index = problem->index;

    /* pass 1: the largest score */
    vec max = LOAD(a);
    for (ptrdiff_t c = 1; c < classes; c++) max = vec_max(max, LOAD(a + c * stride));

    /* pass 2: exponentials, their sum, and the shares of all classes */
    vec sum = {0}, total = {0}, dot = {0};
    for (ptrdiff_t c = 0; c < classes; c++) {
        vec shifted = LOAD(a + c * stride) - max, e = vec_exp(shifted);
        sum += e;
        if (da) STORE(da + c * stride, e);
        if (soft) {
            vec share = column_share(problem, t ? t + c * stride : NULL, c, partial, lanes);
            total += share;
            dot += share * shifted;
        }
    }

    /* the share of the class that an index names, its score and exponential; nothing where it is ignored */
    real own[LANES] = {0}, all[LANES] = {0}, score[LANES] = {0}, chosen[LANES] = {0}, kept[LANES] = {0};
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        kept[lane] = 1;
        if (!index) continue;
        const int64_t y = index[position + lane];
        kept[lane] = y != problem->ignore_index;
        if (!kept[lane]) continue;
        const real w = weight ? weight[y] : 1;
        own[lane] = (real)problem->hard * w;
        all[lane] = own[lane] + (real)problem->soft * w;
        if (problem->hard > 0) score[lane] = a[y * stride + lane];
        if (da) chosen[lane] = da[y * stride + lane];
    }
    const ivec keep = vec_load(kept) > 0;
    if (index) {
        total += vec_load(own);
        if (problem->hard > 0) dot += vec_load(own) * (vec_load(score) - max);
    }

    /* pass 3: the gradient; that of an index's own class is made afresh, from the exponential */
    if (da) {
        vec scale = vec_set(problem->scale);
        if (grad_output)
            scale *= lanes == LANES ? vec_load(grad_output + position) : load_some(grad_output + position, lanes);
        scale = vec_select(keep, scale, (vec){0});
        const vec factor = total / sum, scaled = scale * factor;
        for (ptrdiff_t c = 0; c < classes; c++) {
            vec e = LOAD(da + c * stride);
            if (soft)
                e = scale * (factor * e - column_share(problem, t ? t + c * stride : NULL, c, partial, lanes));
            else
                e *= scaled;
            STORE(da + c * stride, e);
        }
        if (index) {
            vec_store(chosen, scale * (factor * vec_load(chosen) - vec_load(all)));
            for (ptrdiff_t lane = 0; lane < lanes; lane++)
                if (kept[lane]) da[index[position + lane] * stride + lane] = chosen[lane];
        }
    }

    real loss[LANES];
    double loss_sum = 0;
    vec_store(loss, vec_select(keep, total * vec_log(sum) - dot, (vec){0}));
    for (ptrdiff_t lane = 0; lane < lanes; lane++) loss_sum += loss[lane];
    if (problem->losses) memcpy((real *)problem->losses + position, loss, lanes * sizeof(real));
    return loss_sum;
#undef LOAD
#undef STORE
}

typedef double columns_function(const struct cross_entropy *problem, ptrdiff_t position, ptrdiff_t lanes, const real *a,
                                const real *t, ptrdiff_t stride, real *da);

static double columns_hard(const struct cross_entropy *problem, ptrdiff_t position, ptrdiff_t lanes, const real *a,
                           const real *t, ptrdiff_t stride, real *da)
{ return columns(problem, 0, 0, position, lanes, a, t, stride, da); }

static double columns_soft(const struct cross_entropy *problem, ptrdiff_t position, ptrdiff_t lanes, const real *a,
                           const real *t, ptrdiff_t stride, real *da)
{ return columns(problem, 1, 0, position, lanes, a, t, stride, da); }

INLINE int is_soft(const struct cross_entropy *problem) { return problem->probability || problem->soft > 0; }

static double columns_partial(const struct cross_entropy *problem, ptrdiff_t position, ptrdiff_t lanes, const real *a,
                              const real *t, ptrdiff_t stride, real *da)
{ return columns(problem, is_soft(problem), 1, position, lanes, a, t, stride, da); }

/* Positions first ... first + count - 1 of one image, (C, I) in memory. */
static double image_tile(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count)
{
    const ptrdiff_t inner = problem->inner, image = first / inner * problem->classes * inner + first % inner;
    const real *a = (const real *)problem->scores + image;
    const real *t = problem->probability ? (const real *)problem->probability + image : NULL;
    real *da = problem->grad_scores ? (real *)problem->grad_scores + image : NULL;
    columns_function *whole = is_soft(problem) ? columns_soft : columns_hard;
    double sum = 0;
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        const ptrdiff_t lanes = count - i < LANES ? count - i : LANES;
        sum += (lanes == LANES ? whole : columns_partial)(problem, first + i, lanes, a + i, t ? t + i : NULL, inner,
                                                          da ? da + i : NULL);
    }
    return sum;
}

/* ---- Cross-entropy: short rows ---- */

enum { ROW_BLOCKS = SHORT_ROW / LANES };

/* rows[LANES][classes] -> transposed[classes][LANES]; reads up to LANES elements past the last row. */
static void transpose_rows(const real *rows, ptrdiff_t classes, real *transposed)
{
    for (ptrdiff_t c = 0; c < classes; c += LANES) {
        vec block[LANES];
        for (int lane = 0; lane < LANES; lane++) block[lane] = vec_load(rows + lane * classes + c);
        vec_transpose(block);
        for (int lane = 0; lane < LANES; lane++) vec_store(transposed + (c + lane) * LANES, block[lane]);
    }
}

/* The way back. Each row's last store runs into the next row, which is stored after it, and past the last row. */
static void transpose_columns(const real *transposed, ptrdiff_t classes, real *rows)
{
    vec block[ROW_BLOCKS][LANES];
    for (ptrdiff_t b = 0; b * LANES < classes; b++) {
        for (int lane = 0; lane < LANES; lane++) block[b][lane] = vec_load(transposed + (b * LANES + lane) * LANES);
        vec_transpose(block[b]);
    }
    for (int lane = 0; lane < LANES; lane++)
        for (ptrdiff_t b = 0; b * LANES < classes; b++) vec_store(rows + lane * classes + b * LANES, block[b][lane]);
}

static double short_rows_tile(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count)
{
    const ptrdiff_t classes = problem->classes;
    real scores[SHORT_ROW * LANES], probability[SHORT_ROW * LANES], gradient[SHORT_ROW * LANES] = {0};
    real padded[LANES * SHORT_ROW + LANES] = {0};
    columns_function *whole = is_soft(problem) ? columns_soft : columns_hard;
    double sum = 0;
    for (ptrdiff_t row = 0; row < count; row += LANES) {
        const ptrdiff_t rows = count - row < LANES ? count - row : LANES, start = (first + row) * classes;
        const size_t bytes = rows * classes * sizeof(real);
        /* whole vectors may run past the last row of a block, but not past the tile: its last rows are copied */
        const int copied = (count - row - LANES) * classes < LANES;
        const real *a = (const real *)problem->scores + start, *t = NULL;
        transpose_rows(copied ? memcpy(padded, a, bytes) : a, classes, scores);
        if (problem->probability) {
            t = (const real *)problem->probability + start;
            transpose_rows(copied ? memcpy(padded, t, bytes) : t, classes, probability);
            t = probability;
        }
        sum += whole(problem, first + row, rows, scores, t, LANES, problem->grad_scores ? gradient : NULL);
        if (problem->grad_scores) {
            real *da = (real *)problem->grad_scores + start;
            transpose_columns(gradient, classes, copied ? padded : da);
            if (copied) memcpy(da, padded, bytes);
        }
    }
    return sum;
}

/* ---- Cross-entropy: long rows ---- */

/* A row's last, partial vector is loaded from the row's end: it overlaps the one before, and the lanes that both have
 * are masked where they would count twice. */
INLINE real row_maximum(const real *a, ptrdiff_t classes)
{
    vec max[2] = {vec_load(a), vec_load(a + classes - LANES)};
    ptrdiff_t c = LANES;
    for (; c + 2 * LANES <= classes; c += 2 * LANES)
        for (int i = 0; i < 2; i++) max[i] = vec_max(max[i], vec_load(a + c + i * LANES));
    if (c + LANES <= classes) max[0] = vec_max(max[0], vec_load(a + c));
    return largest(vec_max(max[0], max[1]));
}

INLINE vec row_share(const struct cross_entropy *problem, const real *t, ptrdiff_t c)
{
    vec share = vec_set(problem->soft);
    if (t) share += (real)problem->hard * vec_load(t + c);
    return problem->weight ? share * vec_load((const real *)problem->weight + c) : share;
}

struct row_sums {
    vec exponentials, shares, dot;
};

/* One vector of a row: its exponentials, added to the sums, where `fresh` is given only these lanes. */
INLINE void row_pass(const struct cross_entropy *problem, int soft, const real *a, const real *t, ptrdiff_t c, real max,
                     real *da, struct row_sums *sums, const ivec *fresh)
{
    const vec zero = {0}, shifted = vec_load(a + c) - max, e = vec_exp(shifted);
    if (da) vec_store(da + c, e);
    sums->exponentials += fresh ? vec_select(*fresh, e, zero) : e;
    if (!soft) return;
    const vec share = row_share(problem, t, c), product = share * shifted;
    sums->shares += fresh ? vec_select(*fresh, share, zero) : share;
    sums->dot += fresh ? vec_select(*fresh, product, zero) : product;
}

INLINE real long_row(const struct cross_entropy *problem, int soft, ptrdiff_t position)
{
    const ptrdiff_t classes = problem->classes, last = classes - LANES;
    const real *a = (const real *)problem->scores + position * classes, *weight = problem->weight;
    const real *t = problem->probability ? (const real *)problem->probability + position * classes : NULL;
    real *da = problem->grad_scores ? (real *)problem->grad_scores + position * classes : NULL;

    /* pass 1: the largest score */
    const real max = row_maximum(a, classes);

    /* pass 2: exponentials, their sum, and the shares of all classes */
    struct row_sums sums = {{0}, {0}, {0}};
    ptrdiff_t c = 0;
    while (c <= last) {
        const ptrdiff_t stop = last - c < SUM_RUN ? last : c + SUM_RUN - LANES;
        struct row_sums part = {{0}, {0}, {0}};
        for (; c <= stop; c += LANES) row_pass(problem, soft, a, t, c, max, da, &part, NULL);
        sums.exponentials += part.exponentials;
        sums.shares += part.shares;
        sums.dot += part.dot;
    }
    const ivec fresh = lanes_from(c - last);
    if (c < classes) row_pass(problem, soft, a, t, last, max, da, &sums, &fresh);
    const real sum = vec_sum(sums.exponentials);
    real total = soft ? vec_sum(sums.shares) : 0, dot = soft ? vec_sum(sums.dot) : 0;

    const int64_t y = problem->index ? ((const int64_t *)problem->index)[position] : 0;
    const int kept = !problem->index || y != problem->ignore_index;
    const real own_weight = problem->index && kept && weight ? weight[y] : 1;
    if (problem->index && kept && problem->hard > 0) {
        const real own = (real)problem->hard * own_weight;
        total += own;
        dot += own * (a[y] - max);
    }

    /* pass 3: the gradient; that of an index's own class is made afresh, from the exponential */
    if (da) {
        real scale = problem->scale;
        if (problem->grad_output) scale *= ((const real *)problem->grad_output)[position];
        if (!kept) scale = 0;
        const real factor = total / sum, chosen = problem->index && kept ? da[y] : 0;
        vec end = factor * vec_load(da + last);
        if (soft) end -= row_share(problem, t, last);
        for (c = 0; c < last; c += LANES) {
            vec gradient = factor * vec_load(da + c);
            if (soft) gradient -= row_share(problem, t, c);
            vec_store(da + c, scale * gradient);
        }
        vec_store(da + last, scale * end);
        if (problem->index && kept)
            da[y] = scale * (factor * chosen - ((real)problem->hard * own_weight + (real)problem->soft * own_weight));
    }

    const real loss = kept ? total * vec_log(vec_set(sum))[0] - dot : 0;
    if (problem->losses) ((real *)problem->losses)[position] = loss;
    return loss;
}

static double long_rows_tile(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count)
{
    double sum = 0;
    if (is_soft(problem))
        for (ptrdiff_t row = 0; row < count; row++) sum += long_row(problem, 1, first + row);
    else
        for (ptrdiff_t row = 0; row < count; row++) sum += long_row(problem, 0, first + row);
    return sum;
}

/* Losses and gradients of positions first ... first + count - 1, all of one image where I > 1; returns the sum of the
 * losses. */
static double cross_entropy(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count)
{
    if (problem->inner > 1) return image_tile(problem, first, count);
    return (problem->classes < SHORT_ROW ? short_rows_tile : long_rows_tile)(problem, first, count);
}

/* What the positions count in the mean: the sum of the weights of the targets that are not ignored. */
static double target_weight(const int64_t *index, ptrdiff_t count, const void *weight, int64_t ignore_index)
{
    const real *w = weight;
    double sum = 0;
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < count; i++) kept += index[i] != ignore_index;
    if (!w) return (double)kept;
    for (ptrdiff_t i = 0; i < count; i++)
        if (index[i] != ignore_index) sum += w[index[i]];
    return sum;
}

/* ---- Losses of class indices without a softmax ---- */

/* Negative log likelihood, loss = -w_y a_y, of positions first ... first + count - 1, all of one image where I > 1;
 * returns the sum of the losses. The gradient is 0 but at y. */
static double nll(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count)
{
    const ptrdiff_t classes = problem->classes, inner = problem->inner;
    const real *a = problem->scores, *weight = problem->weight, *dy = problem->grad_output;
    real *losses = problem->losses, *da = problem->grad_scores;
    double sum = 0;
    if (da && inner == 1) memset(da + first * classes, 0, count * classes * sizeof(real));
    for (ptrdiff_t c = 0; da && inner > 1 && c < classes; c++)
        memset(da + (first / inner * classes + c) * inner + first % inner, 0, count * sizeof(real));
    for (ptrdiff_t position = first; position < first + count; position++) {
        const int64_t y = problem->index[position];
        const int kept = y != problem->ignore_index;
        const ptrdiff_t at = kept ? (position / inner * classes + y) * inner + position % inner : 0;
        const real factor = kept ? -(weight ? weight[y] : 1) : 0, loss = kept ? factor * a[at] : 0;
        sum += loss;
        if (losses) losses[position] = loss;
        if (da && kept) da[at] = factor * (real)problem->scale * (dy ? dy[position] : 1);
    }
    return sum;
}

/* The margins v_j = max(0, limit + a_j) of one row, 0 for j = y: returns the sum of v_j^power and writes scale times
 * each slope to da (if not NULL), minus their sum for j = y. */
INLINE real margin_row(int power, const real *a, ptrdiff_t classes, ptrdiff_t y, real limit, real scale, real *da)
{
    vec sum = {0}, slopes = {0};
    for (ptrdiff_t j = 0; j < classes; j += LANES) {
        const ivec others = ~lanes_from(classes - j) & (~lanes_from(y - j) | lanes_from(y + 1 - j));
        const vec v = vec_select(others, vec_max((vec){0}, limit + vec_load_rest(a + j, classes - j)), (vec){0});
        sum += power == 1 ? v : v * v;
        if (!da) continue;
        const vec slope = scale * (power == 1 ? vec_select(v > 0, vec_set(1), v) : 2 * v);
        slopes += slope;
        vec_store_rest(da + j, slope, classes - j);
    }
    if (da) da[y] = -vec_sum(slopes);
    return vec_sum(sum);
}

/* Multiclass margin (SVM) loss of rows first ... first + count - 1: w_y / C sum over j != y of
 * max(0, margin - a_y + a_j)^power; returns the sum of the losses. */
static double multi_margin(const struct cross_entropy *problem, double margin, int power, ptrdiff_t first,
                           ptrdiff_t count)
{
    const ptrdiff_t classes = problem->classes;
    const real *weight = problem->weight, *dy = problem->grad_output;
    real *losses = problem->losses;
    double sum = 0;
    for (ptrdiff_t row = first; row < first + count; row++) {
        const real *a = (const real *)problem->scores + row * classes;
        real *da = problem->grad_scores ? (real *)problem->grad_scores + row * classes : NULL;
        const ptrdiff_t y = problem->index[row];
        const real factor = (weight ? weight[y] : 1) / (real)classes, limit = (real)margin - a[y];
        const real scale = factor * (real)problem->scale * (dy ? dy[row] : 1);
        const real loss = power == 1 ? margin_row(1, a, classes, y, limit, scale, da)
                                     : margin_row(2, a, classes, y, limit, scale, da);
        sum += factor * loss;
        if (losses) losses[row] = factor * loss;
    }
    return sum;
}

/* ---- Elementwise losses ---- */

/* log(1 + e^-|x|) */
INLINE vec softplus_tail(vec x) { return vec_log1p(vec_exp(-vec_abs(x))); }

/* 1, -1, or d itself where that is 0 or NaN */
INLINE vec sign_of(vec d) { return vec_select(d > 0, vec_set(1), vec_select(d < 0, vec_set(-1), d)); }

/* v is the factor of the positive part, width is beta or delta. */
INLINE vec value_of(int loss, vec x, vec t, vec v, real width)
{
    const vec d = x - t, size = vec_abs(d), zero = {0};
    switch (loss) {
    case FASTNN_MSE: return d * d;
    case FASTNN_L1: return size;
    case FASTNN_SMOOTH_L1: return vec_select(size < width, size * size * ((real)0.5 / width), size - (real)0.5 * width);
    case FASTNN_HUBER: return vec_select(size <= width, (real)0.5 * size * size, width * (size - (real)0.5 * width));
    case FASTNN_BCE: {
        const vec least = vec_set(-100);
        return -(t * vec_max(least, vec_log(x)) + (1 - t) * vec_max(least, vec_log1p(-x)));
    }
    case FASTNN_BCE_LOGITS: {
        const vec tail = softplus_tail(x);
        return (1 - t) * (vec_max(zero, x) + tail) + v * t * (vec_max(zero, -x) + tail);
    }
    case FASTNN_KL: return vec_select(t == 0, zero, t * vec_log(t)) - t * x;
    default: return vec_exp(t) * (t - x); /* FASTNN_KL_LOG */
    }
}

INLINE vec slope_of(int loss, vec x, vec t, vec v, real width)
{
    const vec d = x - t;
    switch (loss) {
    case FASTNN_MSE: return 2 * d;
    case FASTNN_L1: return sign_of(d);
    case FASTNN_SMOOTH_L1: return vec_select(vec_abs(d) < width, d * (1 / width), sign_of(d));
    case FASTNN_HUBER: return vec_max(vec_set(-width), vec_min(vec_set(width), d));
    case FASTNN_BCE: return d / vec_max(vec_set((real)1e-12), x * (1 - x));
    case FASTNN_BCE_LOGITS: { /* s(x) and s(-x) from one exponential */
        const vec e = vec_exp(-vec_abs(x)), large = 1 / (1 + e), small = e / (1 + e);
        return (1 - t) * vec_select(x < 0, small, large) - v * t * vec_select(x < 0, large, small);
    }
    case FASTNN_KL: return -t;
    default: return -vec_exp(t); /* FASTNN_KL_LOG */
    }
}

/* One run over whole vectors, losses or, backward, gradients; returns the sum of the losses. */
INLINE double run(int loss, int backward, const struct elementwise_loss *problem, ptrdiff_t count)
{
    const real *x = problem->input, *t = problem->target, *w = problem->weight, *v = problem->pos_weight;
    const real *dy = problem->grad_output, width = problem->width, scale = problem->scale;
    real *output = problem->output;
    double sum = 0;
    for (ptrdiff_t first = 0; first < count; first += SUM_RUN) {
        const ptrdiff_t stop = count - first < SUM_RUN ? count : first + SUM_RUN;
        vec part = {0};
        for (ptrdiff_t i = first; i < stop; i += LANES) {
            const vec positive = loss == FASTNN_BCE_LOGITS && v ? vec_load(v + i) : vec_set(1);
            vec result = (backward ? slope_of : value_of)(loss, vec_load(x + i), vec_load(t + i), positive, width);
            if ((loss == FASTNN_BCE || loss == FASTNN_BCE_LOGITS) && w) result *= vec_load(w + i);
            if (backward) result *= dy ? scale * vec_load(dy + i) : vec_set(scale);
            if (output) vec_store(output + i, result);
            if (!backward) part += result;
        }
        if (!backward) sum += vec_sum(part);
    }
    return sum;
}

#define RUNS(name, loss)                                                                                               \
    static double name(const struct elementwise_loss *p, ptrdiff_t count) { return run(loss, 0, p, count); }           \
    static double name##_backward(const struct elementwise_loss *p, ptrdiff_t count) { return run(loss, 1, p, count); }
RUNS(mse, FASTNN_MSE)
RUNS(l1, FASTNN_L1)
RUNS(smooth_l1, FASTNN_SMOOTH_L1)
RUNS(huber, FASTNN_HUBER)
RUNS(bce, FASTNN_BCE)
RUNS(bce_logits, FASTNN_BCE_LOGITS)
RUNS(kl, FASTNN_KL)
RUNS(kl_log, FASTNN_KL_LOG)

static double (*const runs[][2])(const struct elementwise_loss *problem, ptrdiff_t count) = {
    [FASTNN_MSE] = {mse, mse_backward},
    [FASTNN_L1] = {l1, l1_backward},
    [FASTNN_SMOOTH_L1] = {smooth_l1, smooth_l1_backward},
    [FASTNN_HUBER] = {huber, huber_backward},
    [FASTNN_BCE] = {bce, bce_backward},
    [FASTNN_BCE_LOGITS] = {bce_logits, bce_logits_backward},
    [FASTNN_KL] = {kl, kl_backward},
    [FASTNN_KL_LOG] = {kl_log, kl_log_backward},
};

/* From element `start` on; or the `count` elements there copied into one padded vector. */
INLINE const void *part_of(const void *array, ptrdiff_t start, ptrdiff_t count, real *padded)
{
    if (!array) return NULL;
    const real *part = (const real *)array + start;
    return padded ? memcpy(padded, part, count * sizeof(real)) : part;
}

/* Elements start ... start + count - 1: the losses and their sum, or (backward) the gradients. The last, partial vector
 * goes through the same run, padded. */
static double elementwise(int loss, int backward, const struct elementwise_loss *problem, ptrdiff_t start,
                          ptrdiff_t count)
{
    real padded[6][LANES] = {{0}};
    double sum = 0;
    for (int tail = 0; tail < 2; tail++) {
        const ptrdiff_t whole = count / LANES * LANES, from = start + (tail ? whole : 0), rest = count - whole;
        if (tail && !rest) break;
        struct elementwise_loss part = *problem;
        part.input = part_of(problem->input, from, rest, tail ? padded[0] : NULL);
        part.target = part_of(problem->target, from, rest, tail ? padded[1] : NULL);
        part.weight = part_of(problem->weight, from, rest, tail ? padded[2] : NULL);
        part.pos_weight = part_of(problem->pos_weight, from, rest, tail ? padded[3] : NULL);
        part.grad_output = part_of(problem->grad_output, from, rest, tail ? padded[4] : NULL);
        part.output = tail ? padded[5] : problem->output ? (real *)problem->output + from : NULL;
        const double part_sum = runs[loss][backward](&part, tail ? LANES : whole);
        if (!tail) sum += part_sum;
        if (tail && problem->output) memcpy((real *)problem->output + from, padded[5], rest * sizeof(real));
        for (ptrdiff_t i = 0; tail && i < rest; i++) sum += padded[5][i];
    }
    return sum;
}

const struct loss_kernels FASTNN_TABLE(loss) = {
    .cross_entropy = cross_entropy,
    .target_weight = target_weight,
    .nll = nll,
    .multi_margin = multi_margin,
    .elementwise = elementwise,
};

/* Optimiser updates: parameter, gradient and the rule's buffers in one pass, in place; sums and scaling for clipping.
 *
 * Every rule is   penalties on the gradient g -> buffers -> direction d -> p += rate * d -> constraints on p.
 * Five update loops serve nine optimisers, because the bias corrections are numbers that the caller folds into the rule:
 *   Adagrad is RMSprop whose second moment does not decay (decay = fresh = 1);
 *   NAdam is Adam with a share of the gradient itself in the direction (gradient_rate);
 *   RAdam is Adam with a rectified rate; while that is not defined it divides by root_scale * sqrt(v) + eps = 0 + 1.
 * All are limited by memory (Adam: 7 streams), so that square roots and divisions of whole vectors are hidden.
 * Formulas: torch.optim's documentation, which cites the papers.
 */
#include "kernels.h"
#include "vec.h"

enum rule_name {
    SGD,
    SGD_MOMENTUM,
    SGD_NESTEROV,
    RMSPROP,
    RMSPROP_MOMENTUM,
    RMSPROP_CENTERED,
    RMSPROP_CENTERED_MOMENTUM,
    ADAM,
    ADAM_AMSGRAD,
    ADADELTA,
    ADAMAX
};

/* struct optim_rule as reals */
struct scalars {
    real sign, weight_decay, l1_subgradient, keep, threshold, rate, gradient_rate, momentum, gain, average, decay,
        fresh, root_scale, eps;
};

/* One vector of a span: parameter, gradient and up to three buffers. */
struct element {
    vec p, g, a, b, c;
};

/* buffers: a = momentum buffer */
INLINE struct element sgd_step(struct element x, const struct scalars s, enum rule_name name)
{
    if (name == SGD) {
        x.p += s.rate * x.g;
        return x;
    }
    x.a = s.momentum * x.a + s.gain * x.g;
    x.p += s.rate * (name == SGD_NESTEROV ? s.gain * x.g + s.momentum * x.a : x.a);
    return x;
}

/* buffers: a = mean square; then, where the rule has them, mean gradient and momentum buffer */
INLINE struct element rmsprop_step(struct element x, const struct scalars s, enum rule_name name)
{
    int centered = name == RMSPROP_CENTERED || name == RMSPROP_CENTERED_MOMENTUM;
    x.a = s.decay * x.a + s.fresh * (x.g * x.g);
    vec variance = x.a;
    if (centered) {
        x.b += s.fresh * (x.g - x.b);
        /* The difference of two rounded squares: it may fall below 0 where the gradient hardly changes. */
        variance = vec_max((vec){0}, x.a - x.b * x.b);
    }
    vec direction = x.g / (vec_sqrt(variance) + s.eps);
    if (name == RMSPROP_MOMENTUM) direction = x.b = s.momentum * x.b + s.gain * direction;
    if (name == RMSPROP_CENTERED_MOMENTUM) direction = x.c = s.momentum * x.c + s.gain * direction;
    x.p += s.rate * direction;
    return x;
}

/* buffers: a, b = first and second moment; c = the largest second moment so far (amsgrad) */
INLINE struct element adam_step(struct element x, const struct scalars s, enum rule_name name)
{
    x.a += s.average * (x.g - x.a);
    x.b = s.decay * x.b + s.fresh * (x.g * x.g);
    vec second = x.b;
    if (name == ADAM_AMSGRAD) second = x.c = vec_max(x.c, x.b);
    x.p += (s.rate * x.a + s.gradient_rate * x.g) / (s.root_scale * vec_sqrt(second) + s.eps);
    return x;
}

/* buffers: a = mean square of the gradient, b = mean square of the steps */
INLINE struct element adadelta_step(struct element x, const struct scalars s)
{
    x.a = s.decay * x.a + s.fresh * (x.g * x.g);
    vec direction = x.g * (vec_sqrt(x.b + s.eps) / vec_sqrt(x.a + s.eps));
    x.b = s.decay * x.b + s.fresh * (direction * direction);
    x.p += s.rate * direction;
    return x;
}

/* buffers: a = first moment, b = decaying maximum of |gradient| */
INLINE struct element adamax_step(struct element x, const struct scalars s)
{
    x.a += s.average * (x.g - x.a);
    x.b = vec_max(s.decay * x.b, vec_max(x.g, -x.g) + s.eps);
    x.p += s.rate * (x.a / x.b);
    return x;
}

/* name is a constant wherever this is called: the switch is gone in the compiled loops. */
INLINE struct element step(struct element x, const struct scalars s, enum rule_name name)
{
    switch (name) {
    case SGD:
    case SGD_MOMENTUM:
    case SGD_NESTEROV: return sgd_step(x, s, name);
    case ADAM:
    case ADAM_AMSGRAD: return adam_step(x, s, name);
    case ADADELTA: return adadelta_step(x, s);
    case ADAMAX: return adamax_step(x, s);
    default: return rmsprop_step(x, s, name);
    }
}

INLINE struct element penalise(struct element x, const struct scalars s)
{
    const vec one = vec_set(1), zero = {0};
    if (s.l1_subgradient != 0)
        x.g += s.l1_subgradient * (vec_select(x.p > 0, one, zero) - vec_select(x.p < 0, one, zero));
    if (s.weight_decay != 0) x.g += s.weight_decay * x.p;
    if (s.keep != 1) x.p *= s.keep;
    return x;
}

/* p - clamp(p, -t, t): exactly 0 within the threshold; NaN stays NaN. */
INLINE vec soft_threshold(vec p, real threshold)
{ return p - vec_min(vec_set(threshold), vec_max(vec_set(-threshold), p)); }

typedef unsigned char lane_bytes __attribute__((vector_size(LANES)));

INLINE ivec load_mask(const unsigned char *mask, ptrdiff_t count)
{
    lane_bytes bytes = {0};
    memcpy(&bytes, mask, count);
    return __builtin_convertvector(bytes, ivec) != 0;
}

INLINE vec load(const real *p, ptrdiff_t count) { return count == LANES ? vec_load(p) : vec_load_tail(p, count); }

INLINE void store(real *p, vec v, ptrdiff_t count)
{
    if (count == LANES)
        vec_store(p, v);
    else
        vec_store_tail(p, v, count);
}

/* `count` elements (at most one vector) from `start`. A masked element sees no gradient and ends at zero. */
INLINE void update_vector(const struct optim_span span, const struct scalars s, enum rule_name name, int states,
                          int plain, ptrdiff_t start, ptrdiff_t count)
{
    real *p = (real *)span.param + start;
    real *a = states > 0 ? (real *)span.state[0] + start : p;
    real *b = states > 1 ? (real *)span.state[1] + start : p;
    real *c = states > 2 ? (real *)span.state[2] + start : p;
    struct element x = {.p = load(p, count), .g = s.sign * load((const real *)span.grad + start, count)};
    ivec alive = {0};
    if (states > 0) x.a = load(a, count);
    if (states > 1) x.b = load(b, count);
    if (states > 2) x.c = load(c, count);
    if (!plain) {
        if (span.mask) {
            alive = load_mask(span.mask + start, count);
            x.g = vec_select(alive, x.g, (vec){0});
            x.p = vec_select(alive, x.p, (vec){0});
        }
        x = penalise(x, s);
    }
    x = step(x, s, name);
    if (!plain) {
        if (s.threshold != 0) x.p = soft_threshold(x.p, s.threshold);
        if (span.mask) x.p = vec_select(alive, x.p, (vec){0});
    }
    store(p, x.p, count);
    if (states > 0) store(a, x.a, count);
    if (states > 1) store(b, x.b, count);
    if (states > 2) store(c, x.c, count);
}

INLINE void update_span(const struct optim_span span, const struct scalars s, enum rule_name name, int states,
                        int plain)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= span.count; i += LANES) update_vector(span, s, name, states, plain, i, LANES);
    if (i < span.count) update_vector(span, s, name, states, plain, i, span.count - i);
}

/* The loop without penalties and constraints is compiled on its own. */
INLINE void update(const struct optim_span *span, const struct optim_rule *rule, enum rule_name name, int states)
{
    const struct scalars s = {
        .sign = rule->sign,
        .weight_decay = rule->weight_decay,
        .l1_subgradient = rule->l1_subgradient,
        .keep = rule->keep,
        .threshold = rule->threshold,
        .rate = rule->rate,
        .gradient_rate = rule->gradient_rate,
        .momentum = rule->momentum,
        .gain = rule->gain,
        .average = rule->average,
        .decay = rule->decay,
        .fresh = rule->fresh,
        .root_scale = rule->root_scale,
        .eps = rule->eps,
    };
    int plain = !span->mask && s.weight_decay == 0 && s.l1_subgradient == 0 && s.keep == 1 && s.threshold == 0;
    if (plain)
        update_span(*span, s, name, states, 1);
    else
        update_span(*span, s, name, states, 0);
}

#define RULE(function, name, states)                                                                                   \
    static void function(const struct optim_span *span, const struct optim_rule *rule)                                 \
    { update(span, rule, name, states); }

RULE(sgd, SGD, 0)
RULE(sgd_momentum, SGD_MOMENTUM, 1)
RULE(sgd_nesterov, SGD_NESTEROV, 1)
RULE(rmsprop, RMSPROP, 1)
RULE(rmsprop_momentum, RMSPROP_MOMENTUM, 2)
RULE(rmsprop_centered, RMSPROP_CENTERED, 2)
RULE(rmsprop_centered_momentum, RMSPROP_CENTERED_MOMENTUM, 3)
RULE(adam, ADAM, 2)
RULE(adam_amsgrad, ADAM_AMSGRAD, 3)
RULE(adadelta, ADADELTA, 2)
RULE(adamax, ADAMAX, 2)

/* Sum in double also of floats: no overflow, and a rounding that does not grow with the number of parameters. */
enum { DOUBLES = VEC_BYTES / sizeof(double), SUMS = 4 };
typedef double double_vec __attribute__((vector_size(VEC_BYTES)));
typedef real narrow_vec __attribute__((vector_size(DOUBLES * sizeof(real))));

INLINE double_vec load_doubles(const real *p, ptrdiff_t count)
{
    narrow_vec lanes = {0};
    memcpy(&lanes, p, count * sizeof(real));
    return __builtin_convertvector(lanes, double_vec);
}

static double sum_of_squares(const void *array, ptrdiff_t count)
{
    const real *x = array;
    double_vec sums[SUMS] = {{0}};
    ptrdiff_t i = 0;
    for (; i + SUMS * DOUBLES <= count; i += SUMS * DOUBLES)
        for (int k = 0; k < SUMS; k++) {
            double_vec v = load_doubles(x + i + k * DOUBLES, DOUBLES);
            sums[k] += v * v;
        }
    for (; i < count; i += DOUBLES) {
        double_vec v = load_doubles(x + i, count - i < DOUBLES ? count - i : DOUBLES);
        sums[0] += v * v;
    }
    double_vec sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double total = 0;
    for (int lane = 0; lane < DOUBLES; lane++) total += sum[lane];
    return total;
}

static void scale(void *array, ptrdiff_t count, double factor)
{
    real *x = array, by = factor;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) vec_store(x + i, by * vec_load(x + i));
    vec_store_tail(x + i, by * vec_load_tail(x + i, count - i), count - i);
}

/* Into [-limit, limit]; NaN stays NaN. */
static void clamp(void *array, ptrdiff_t count, double limit)
{
    real *x = array;
    const vec high = vec_set(limit), low = vec_set(-limit);
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) vec_store(x + i, vec_min(high, vec_max(low, vec_load(x + i))));
    vec_store_tail(x + i, vec_min(high, vec_max(low, vec_load_tail(x + i, count - i))), count - i);
}

const struct optim_kernels FASTNN_TABLE(optim) = {
    .sgd = sgd,
    .sgd_momentum = sgd_momentum,
    .sgd_nesterov = sgd_nesterov,
    .rmsprop = rmsprop,
    .rmsprop_momentum = rmsprop_momentum,
    .rmsprop_centered = rmsprop_centered,
    .rmsprop_centered_momentum = rmsprop_centered_momentum,
    .adam = adam,
    .adam_amsgrad = adam_amsgrad,
    .adadelta = adadelta,
    .adamax = adamax,
    .sum_of_squares = sum_of_squares,
    .scale = scale,
    .clamp = clamp,
};

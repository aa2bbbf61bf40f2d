/* Elementwise activations and their gradients, over contiguous elements.
 *
 * Each activation is a function on one vector of inputs, x, with its gradient below it, which gives dL / dx from
 * dy = dL / dy and x. Both take the activation's parameters a and b, which most do not need. Two drivers, inlined into
 * a kernel per activation, run them over arrays. All formulas hold for every finite x: exp is only taken of numbers
 * from 0 down, or where its overflow gives the right limit. NaN stays NaN.
 *
 * Below them the sum of two arrays, which a residual block ends with, and PReLU, which has the slope of its negative side
 * in an array.
 */
#include "kernels.h"
#include "vecmath.h"

/* All activations share one list of arguments. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* max(0, x) */
INLINE vec relu(vec x, vec a, vec b) { return vec_max((vec){0}, x); }
INLINE vec relu_gradient(vec dy, vec x, vec a, vec b) { return vec_select(x <= 0, (vec){0}, dy); }

/* x for x > 0, else a x */
INLINE vec leaky_relu(vec x, vec a, vec b) { return vec_select(x > 0, x, a * x); }
INLINE vec leaky_relu_gradient(vec dy, vec x, vec a, vec b) { return vec_select(x > 0, dy, a * dy); }

/* x for x > 0, else a (e^x - 1) */
INLINE vec elu(vec x, vec a, vec b) { return vec_select(x > 0, x, a * vec_expm1(x)); }
INLINE vec elu_gradient(vec dy, vec x, vec a, vec b) { return vec_select(x > 0, dy, dy * (a * vec_exp(x))); }

/* 1 / (1 + e^-x) = s;  s' = s (1 - s), written without the difference, which loses the upper tail */
INLINE vec sigmoid(vec x, vec a, vec b) { return vec_sigmoid(x); }
INLINE vec sigmoid_slope(vec x)
{
    vec e = vec_exp(-vec_abs(x));
    return e / ((1 + e) * (1 + e));
}
INLINE vec sigmoid_gradient(vec dy, vec x, vec a, vec b) { return dy * sigmoid_slope(x); }

/* tanh(x) = 2 s(2x) - 1;  tanh'(x) = 4 s'(2x) = 1 - tanh(x)^2 */
INLINE vec tanh_(vec x, vec a, vec b) { return vec_tanh(x); }
INLINE vec tanh_gradient(vec dy, vec x, vec a, vec b) { return dy * (4 * sigmoid_slope(2 * x)); }

/* log(1 + e^x) */
INLINE vec log_one_plus_exp(vec x) { return vec_max((vec){0}, x) + vec_log1p(vec_exp(-vec_abs(x))); }

/* log(1 + e^(a x)) / a, and x where a x > b */
INLINE vec softplus(vec x, vec a, vec b) { return vec_select(a * x > b, x, log_one_plus_exp(a * x) / a); }
INLINE vec softplus_gradient(vec dy, vec x, vec a, vec b) { return vec_select(a * x > b, dy, dy * vec_sigmoid(a * x)); }

/* log(s(x)) = -log(1 + e^-x) */
INLINE vec log_sigmoid(vec x, vec a, vec b) { return -log_one_plus_exp(-x); }
INLINE vec log_sigmoid_gradient(vec dy, vec x, vec a, vec b) { return dy * vec_sigmoid(-x); }

/* x P(x), with the normal distribution function P(x) = erfc(-x / sqrt(2)) / 2, P'(x) = e^(-x^2 / 2) / sqrt(2 pi) */
INLINE vec normal_distribution(vec x, vec *density)
{
    vec z = vec_abs(x) * (real)0.70710678118654752440, e = vec_exp(-z * z);
    vec tail = (real)0.5 * e * vec_erfcx(z);
    *density = e * (real)0.39894228040143267794;
    return vec_select(x < 0, tail, 1 - tail);
}
INLINE vec gelu(vec x, vec a, vec b)
{
    vec density;
    return x * normal_distribution(x, &density);
}
INLINE vec gelu_gradient(vec dy, vec x, vec a, vec b)
{
    vec density, distribution = normal_distribution(x, &density);
    return dy * (distribution + x * density);
}

/* x (1 + tanh(u / 2)) / 2 = x s(u), with u = sqrt(8 / pi) (x + 0.044715 x^3) */
INLINE vec gelu_tanh_u(vec x, vec *slope)
{
    const real scale = 1.59576912160573071176, cubic = 0.044715;
    /* Beyond 1000, s(u) is 0 or 1 and s'(u) is 0; a larger square could overflow, and infinity times 0 is NaN. */
    vec square = vec_min(vec_set(1000), x * x);
    *slope = scale * (1 + 3 * cubic * square);
    return scale * x * (1 + cubic * square);
}
INLINE vec gelu_tanh(vec x, vec a, vec b)
{
    vec slope;
    return x * vec_sigmoid(gelu_tanh_u(x, &slope));
}
INLINE vec gelu_tanh_gradient(vec dy, vec x, vec a, vec b)
{
    vec slope, u = gelu_tanh_u(x, &slope);
    return dy * (vec_sigmoid(u) + x * sigmoid_slope(u) * slope);
}

/* x s(x) */
INLINE vec silu(vec x, vec a, vec b) { return x * vec_sigmoid(x); }
INLINE vec silu_gradient(vec dy, vec x, vec a, vec b) { return dy * (vec_sigmoid(x) + x * sigmoid_slope(x)); }

/* x between a and b, else the nearer of them */
INLINE vec hardtanh(vec x, vec a, vec b) { return vec_min(b, vec_max(a, x)); }
INLINE vec hardtanh_gradient(vec dy, vec x, vec a, vec b) { return vec_select((x <= a) | (x >= b), (vec){0}, dy); }

/* x (x + 3) / 6 between -3 and 3, 0 below, x above */
INLINE vec hardswish(vec x, vec a, vec b) { return x * (vec_min(vec_set(6), vec_max((vec){0}, x + 3)) / 6); }
INLINE vec hardswish_gradient(vec dy, vec x, vec a, vec b)
{
    vec inside = dy * (x / 3 + (real)0.5);
    return vec_select(x <= -3, (vec){0}, vec_select(x >= 3, dy, inside));
}

typedef vec value_function(vec x, vec a, vec b);
typedef vec gradient_function(vec dy, vec x, vec a, vec b);

INLINE void map(value_function *value, const real *x, ptrdiff_t count, vec a, vec b, real *y)
{
    for (ptrdiff_t i = 0; i < count; i += LANES)
        vec_store_rest(y + i, value(vec_load_rest(x + i, count - i), a, b), count - i);
}

INLINE void map_gradient(gradient_function *gradient, const real *dy, const real *x, ptrdiff_t count, vec a, vec b,
                         real *dx)
{
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        ptrdiff_t rest = count - i;
        vec_store_rest(dx + i, gradient(vec_load_rest(dy + i, rest), vec_load_rest(x + i, rest), a, b), rest);
    }
}

#define ACTIVATION(name, value, gradient)                                                                              \
    static void name##_forward(const void *input, ptrdiff_t count, double a, double b, void *output)                   \
    { map(value, input, count, vec_set(a), vec_set(b), output); }                                                      \
    static void name##_backward(const void *grad_output, const void *input, ptrdiff_t count, double a, double b,       \
                                void *grad_input)                                                                      \
    { map_gradient(gradient, grad_output, input, count, vec_set(a), vec_set(b), grad_input); }
ACTIVATION(RELU, relu, relu_gradient)
ACTIVATION(LEAKY_RELU, leaky_relu, leaky_relu_gradient)
ACTIVATION(ELU, elu, elu_gradient)
ACTIVATION(SIGMOID, sigmoid, sigmoid_gradient)
ACTIVATION(TANH, tanh_, tanh_gradient)
ACTIVATION(SOFTPLUS, softplus, softplus_gradient)
ACTIVATION(LOG_SIGMOID, log_sigmoid, log_sigmoid_gradient)
ACTIVATION(GELU, gelu, gelu_gradient)
ACTIVATION(GELU_TANH, gelu_tanh, gelu_tanh_gradient)
ACTIVATION(SILU, silu, silu_gradient)
ACTIVATION(HARDTANH, hardtanh, hardtanh_gradient)
ACTIVATION(HARDSWISH, hardswish, hardswish_gradient)

/* y = a + b, or its ReLU */
static void add(const void *a, const void *b, ptrdiff_t count, int relu, void *output)
{
    const real *first = a, *second = b;
    real *y = output;
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        ptrdiff_t rest = count - i;
        vec sum = vec_load_rest(first + i, rest) + vec_load_rest(second + i, rest);
        vec_store_rest(y + i, relu ? vec_max((vec){0}, sum) : sum, rest);
    }
}

/* PReLU: x for x > 0, else w x, with a slope w per channel. Works on `lines` lines of `count` elements that begin
 * `line_stride` apart. Either a line belongs to one channel, line i to channel (first_line + i) % channels, or
 * (per_element) it has one element of each channel. */
INLINE vec line_slope(const real *weight, ptrdiff_t i, ptrdiff_t count, int per_element)
{ return per_element ? vec_load_rest(weight + i, count - i) : vec_set(weight[0]); }

static void prelu(const void *input, const void *weight, ptrdiff_t first_line, ptrdiff_t lines, ptrdiff_t count,
                  ptrdiff_t line_stride, ptrdiff_t channels, int per_element, void *output)
{
    for (ptrdiff_t line = 0; line < lines; line++) {
        const real *x = (const real *)input + line * line_stride;
        const real *w = (const real *)weight + (per_element ? 0 : (first_line + line) % channels);
        real *y = (real *)output + line * line_stride;
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            vec slope = line_slope(w, i, count, per_element);
            vec_store_rest(y + i, leaky_relu(vec_load_rest(x + i, count - i), slope, slope), count - i);
        }
    }
}

/* Also sums of dL / dw = dy x where x <= 0: one per line, `partial_step` apart, or (per_element) `count` sums over the
 * lines. */
static void prelu_backward(const void *grad_output, const void *input, const void *weight, ptrdiff_t first_line,
                           ptrdiff_t lines, ptrdiff_t count, ptrdiff_t line_stride, ptrdiff_t channels, int per_element,
                           void *grad_input, void *partials, ptrdiff_t partial_step)
{
    real *sums = partials;
    if (per_element) memset(sums, 0, count * sizeof(real));
    for (ptrdiff_t line = 0; line < lines; line++) {
        const real *dy_line = (const real *)grad_output + line * line_stride;
        const real *x_line = (const real *)input + line * line_stride;
        const real *w = (const real *)weight + (per_element ? 0 : (first_line + line) % channels);
        real *dx_line = (real *)grad_input + line * line_stride;
        vec sum = {0};
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            ptrdiff_t rest = count - i;
            vec x = vec_load_rest(x_line + i, rest), dy = vec_load_rest(dy_line + i, rest);
            vec slope = line_slope(w, i, count, per_element), dw = vec_select(x > 0, (vec){0}, dy * x);
            vec_store_rest(dx_line + i, leaky_relu_gradient(dy, x, slope, slope), rest);
            if (per_element)
                vec_store_rest(sums + i, vec_load_rest(sums + i, rest) + dw, rest);
            else
                sum += dw;
        }
        if (!per_element) sums[line * partial_step] = vec_sum(sum);
    }
}

/* grad_weight[c] = the sum of partials[o][c][i] over o < outer and i < inner, in order */
static void prelu_reduce(const void *partials, ptrdiff_t outer, ptrdiff_t channels, ptrdiff_t inner, void *grad_weight)
{
    const real *p = partials;
    real *dw = grad_weight;
    for (ptrdiff_t c = 0; c < channels; c++) {
        double sum = 0;
        for (ptrdiff_t o = 0; o < outer; o++)
            for (ptrdiff_t i = 0; i < inner; i++) sum += p[(o * channels + c) * inner + i];
        dw[c] = sum;
    }
}

#define ENTRY(name) .forward[name] = name##_forward, .backward[name] = name##_backward
const struct activation_kernels FASTNN_TABLE(activation) = {
    ENTRY(RELU),
    ENTRY(LEAKY_RELU),
    ENTRY(ELU),
    ENTRY(SIGMOID),
    ENTRY(TANH),
    ENTRY(SOFTPLUS),
    ENTRY(LOG_SIGMOID),
    ENTRY(GELU),
    ENTRY(GELU_TANH),
    ENTRY(SILU),
    ENTRY(HARDTANH),
    ENTRY(HARDSWISH),
    .add = add,
    .prelu = prelu,
    .prelu_backward = prelu_backward,
    .prelu_reduce = prelu_reduce,
};

/* Elementwise activations and their gradients, over `count` contiguous elements.
 *
 * Every kernel is one loop over whole vectors; the last, partial vector goes through the same code by masked load and store.
 */
#include "kernels.h"
#include "vec.h"

/* relu(x) = max(0, x); NaN stays NaN. */
static void relu(const void *input, ptrdiff_t count, void *output)
{
    const real *x = input;
    real *y = output;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) vec_store(y + i, vec_max((vec){0}, vec_load(x + i)));
    vec_store_tail(y + i, vec_max((vec){0}, vec_load_tail(x + i, count - i)), count - i);
}

/* d relu / dx = 1 where x > 0, else 0 (0 at 0). */
static void relu_backward(const void *grad_output, const void *input, ptrdiff_t count, void *grad_input)
{
    const real *dy = grad_output, *x = input;
    real *dx = grad_input;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        vec_store(dx + i, vec_select(vec_load(x + i) > 0, vec_load(dy + i), (vec){0}));
    ptrdiff_t rest = count - i;
    vec_store_tail(dx + i, vec_select(vec_load_tail(x + i, rest) > 0, vec_load_tail(dy + i, rest), (vec){0}), rest);
}

const struct activation_kernels FASTNN_TABLE(activation) = {
    .relu = relu,
    .relu_backward = relu_backward,
};

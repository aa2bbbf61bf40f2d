/* What this machine can do at most: the yardsticks of the benchmarks. */
#include "kernels.h"
#include "vec.h"

enum { CHAINS = 12 }; /* independent sums: enough for two multiply-adds per cycle of latency 4 or 5 */

/* Multiplies and adds in registers, `repeats` times; returns how many floating-point operations that was. */
static double multiply_add(ptrdiff_t repeats, void *result)
{
    vec sum[CHAINS];
    vec factor = vec_set((real)0.999), term = vec_set((real)0.001);
    /* 1 would be its own successor, and its chain left out by the compiler. */
    for (int i = 0; i < CHAINS; i++) sum[i] = vec_set((real)(i + 2));
    for (ptrdiff_t repeat = 0; repeat < repeats; repeat++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * factor + term;
    for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];
    *(real *)result = vec_sum(sum[0]);
    return 2.0 * CHAINS * LANES * (double)repeats;
}

/* a = b + factor c (McCalpin's STREAM triad): 3 arrays are counted, the read of a before it is written is not. */
static void triad(void *a, const void *b, const void *c, double factor, ptrdiff_t count)
{
    real *target = a;
    const real *left = b, *right = c;
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES)
        vec_store(target + i, vec_load(left + i) + vec_set((real)factor) * vec_load(right + i));
    for (; i < count; i++) target[i] = left[i] + (real)factor * right[i];
}

const struct machine_kernels FASTNN_TABLE(machine) = {
    .multiply_add = multiply_add,
    .triad = triad,
};

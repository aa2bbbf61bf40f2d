/* What the kernels for groups have in common: where taps reach, and runs.
 *
 * Runs are up to three taps of a row of the filter, each a step of the outputs from the next: what the second one sees of an output,
 * the first one sees of the next output. An element that neighbouring outputs see is loaded once for all taps of a run, because a
 * core loads about half as many vectors as it can multiply and add (3x3, eight outputs, lanes that see elements of their own: 57 -> 109
 * GFLOP/s in the first-level cache).
 */
#ifndef FASTNN_RUNS_H
#define FASTNN_RUNS_H

#include "kernels.h"
#include "vec.h"

enum { RUN = 3 };

/* first .. end - 1 of something */
struct range {
    ptrdiff_t first, end;
};

/* The positions that taps add to an output's, along one dimension; 0 without taps. */
static struct range reach_of(const struct group_geometry *g, int dimension)
{
    struct range reach = {0, 1};
    for (ptrdiff_t t = 0; t < g->taps; t++) {
        const ptrdiff_t at = dimension == 0 ? g->tap[t].y : g->tap[t].x;
        reach.first = t == 0 ? at : smaller(reach.first, at);
        reach.end = t == 0 ? at + 1 : larger(reach.end, at + 1);
    }
    return reach;
}

/* A vector of elements, or one for all lanes. */
INLINE vec load_operand(const int vector, const real *from) { return vector ? vec_load(from) : vec_set(*from); }

/* sum[i] += value[t] * element i + t, of `count` neighbouring outputs, whose elements are `step` apart. */
INLINE void add_run(const int vector, const int taps, const int count, const vec value[RUN], const real *from,
                    ptrdiff_t step, vec *sum)
{
#pragma GCC unroll 18
    for (int i = 0; i < count + taps - 1; i++, from += step) {
        const vec seen = load_operand(vector, from);
#pragma GCC unroll 3
        for (int t = 0; t < taps; t++)
            if (i >= t && i - t < count) sum[i - t] += value[t] * seen;
    }
}

#endif

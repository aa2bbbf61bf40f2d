/* Tasks shared out among threads: a share of neighbouring ones to each, by its number, so that call after call, and layer
 * after layer, a thread finds much of its data in its own core's cache; who is done takes over what is left of the
 * others' shares.
 */
#ifndef FASTNN_SHARES_H
#define FASTNN_SHARES_H

#include <stddef.h>

struct share {
    ptrdiff_t next;                     /* of the share's tasks: the first one that nobody has taken */
    char apart[64 - sizeof(ptrdiff_t)]; /* a cache line for each thread's */
};

/* The next task, below `tasks`, for this thread; -1 where none is left. `shares` has one for each thread, zeros at first. */
static inline ptrdiff_t take_task(struct share *shares, ptrdiff_t thread, ptrdiff_t threads, ptrdiff_t tasks)
{
    ptrdiff_t each = (tasks + threads - 1) / threads;
    for (ptrdiff_t i = 0; i < threads; i++) {
        ptrdiff_t owner = (thread + i) % threads, end = tasks - owner * each < each ? tasks - owner * each : each;
        if (__atomic_load_n(&shares[owner].next, __ATOMIC_RELAXED) >= end) continue;
        ptrdiff_t taken = __atomic_fetch_add(&shares[owner].next, 1, __ATOMIC_RELAXED);
        if (taken < end) return owner * each + taken;
    }
    return -1;
}

#endif

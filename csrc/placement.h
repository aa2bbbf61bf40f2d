/* Keeps OpenMP's helpers off the CPU that the calling thread runs on.
 *
 * A helper that is woken may be put on its caller's CPU although others are idle: virtual machines do not tell idle CPUs
 * from busy ones. The caller then spins at the end of the region in wait of a thread that waits for its CPU: on two CPUs a
 * call of 30 microseconds took 0.5 to 8 milliseconds. So each helper may run on every CPU of the process but the one that
 * its caller was on when it last had to be looked after; the caller itself may run anywhere.
 */
#ifndef FASTNN_PLACEMENT_H
#define FASTNN_PLACEMENT_H

#if defined(__linux__) && defined(FASTNN_OPENMP) && FASTNN_OPENMP
#include <omp.h>
#include <sched.h>
#include <stdlib.h>

/* Of the calling thread, whose helpers are its own: where it was, and how many threads it had, when it was last here. */
static __thread int placed_cpu = -1, placed_threads = 0;

static int user_places_threads(void)
{
    static int known = -1;
    if (known < 0) known = getenv("OMP_PROC_BIND") || getenv("OMP_PLACES") || getenv("GOMP_CPU_AFFINITY");
    return known;
}

/* Before a region of so many threads. */
static void keep_helpers_apart(int threads)
{
    int cpu = sched_getcpu(), arrived = 0, grown = threads > placed_threads;
    placed_threads = threads; /* GNU OpenMP ends those that a smaller team does not need */
    if ((cpu == placed_cpu && !grown) || user_places_threads() || omp_in_parallel()) return;
    placed_cpu = cpu;
    cpu_set_t others;
    if (cpu < 0 || sched_getaffinity(0, sizeof others, &others))
        return; /* more than 1024 CPUs: there is always an idle one */
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) < threads - 1) return; /* there is no CPU for each of them anyway */
#pragma omp parallel num_threads(threads)
    {
        if (omp_get_thread_num() > 0) {
            sched_setaffinity(0, sizeof others, &others);
            __atomic_fetch_add(&arrived, 1, __ATOMIC_RELAXED);
        } else { /* a helper may need this CPU to come to the line above */
            while (__atomic_load_n(&arrived, __ATOMIC_RELAXED) < omp_get_num_threads() - 1) sched_yield();
        }
    }
}
#else
static void keep_helpers_apart(int threads) { (void)threads; }
#endif

#endif

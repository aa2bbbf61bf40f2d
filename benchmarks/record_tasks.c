/* Preloaded in front of GNU OpenMP: runs parallel regions on one thread and records their tasks, see conv_tasks.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <time.h>

enum { MOST_REGIONS = 1 << 16 };

struct region {
    long threads;          /* that were asked for */
    long tasks;            /* of its dynamic loops; 0: none, its iterations go evenly to the threads */
    double total, longest; /* microseconds: all of it, and its longest task */
} recorded_regions[MOST_REGIONS];
int recorded_count, recording;

static struct region now;
static double task_start;
static int depth; /* of parallel regions: those inside another one's tasks are parts of these */

static double microseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void *original(const char *name)
{
    static void *openmp;
    if (!openmp) openmp = dlopen("libgomp.so.1", RTLD_NOW);
    return dlsym(openmp, name);
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)
{
    void (*run)(void (*)(void *), void *, unsigned, unsigned) = original("GOMP_parallel");
    if (!recording) {
        run(body, data, threads, flags);
        return;
    }
    if (depth++ == 0) now = (struct region){.threads = threads};
    double start = microseconds();
    run(body, data, 1, flags);
    if (--depth > 0) return;
    now.total = microseconds() - start;
    if (recorded_count < MOST_REGIONS) recorded_regions[recorded_count++] = now;
}

bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long *from, long *to)
{
    bool (*run)(long, long, long, long, long *, long *) = original("GOMP_loop_nonmonotonic_dynamic_start");
    bool some = run(start, end, step, chunk, from, to);
    if (depth == 1) {
        now.tasks += (end - start) / step;
        task_start = microseconds();
    }
    return some;
}

bool GOMP_loop_nonmonotonic_dynamic_next(long *from, long *to)
{
    bool (*run)(long *, long *) = original("GOMP_loop_nonmonotonic_dynamic_next");
    double end = microseconds();
    bool some = run(from, to);
    if (depth == 1) {
        if (end - task_start > now.longest) now.longest = end - task_start;
        task_start = microseconds();
    }
    return some;
}

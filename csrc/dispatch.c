/* Compiled once: which instruction sets are built in, which of them this CPU runs, and their tables.
 *
 * The build defines FASTNN_HAVE_AVX2 and FASTNN_HAVE_AVX512 where the compiler could build these variants. "baseline" is
 * what every CPU of the architecture has: SSE2 on x86-64, NEON on arm64, plain C elsewhere.
 */
#include "kernels.h"

#define DECLARE(isa) extern const struct kernels kernels_f32_##isa, kernels_f64_##isa;
DECLARE(baseline)
#ifdef FASTNN_HAVE_AVX2
DECLARE(avx2)
#endif
#ifdef FASTNN_HAVE_AVX512
DECLARE(avx512)
#endif

static int runs_always(void) { return 1; }
#ifdef FASTNN_HAVE_AVX2
static int runs_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#ifdef FASTNN_HAVE_AVX512
static int runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const char *name;
    int (*runs)(void);
    const struct kernels *tables[2];
} instruction_sets[] = {
    {"baseline", runs_always, {&kernels_f32_baseline, &kernels_f64_baseline}},
#ifdef FASTNN_HAVE_AVX2
    {"avx2", runs_avx2, {&kernels_f32_avx2, &kernels_f64_avx2}},
#endif
#ifdef FASTNN_HAVE_AVX512
    {"avx512", runs_avx512, {&kernels_f32_avx512, &kernels_f64_avx512}},
#endif
};

int fastnn_isa_count(void) { return sizeof(instruction_sets) / sizeof(instruction_sets[0]); }
const char *fastnn_isa_name(int isa) { return instruction_sets[isa].name; }
int fastnn_isa_supported(int isa) { return instruction_sets[isa].runs(); }
const struct kernels *fastnn_kernels(int isa, int dtype) { return instruction_sets[isa].tables[dtype]; }

/* Counter-based random numbers, and the two kinds of dropout made from them.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) turns a counter of
 * four words and a key of two into four random words. The key is the 64-bit seed, the counter the 64-bit number of the
 * block: word p of the stream of a seed is word p % 4 of block p / 4. So a noise value is a function of (seed, position)
 * alone: the same bits on every instruction set, for every dtype and every split of the work, with nothing to store.
 */
#include "kernels.h"
#include "vec.h"
#include "vecmath.h"
#ifdef __SSE2__
#include <immintrin.h>
#endif

/* One 32-bit word per 64-bit lane: a product of two words fills its lane, and no words have to be moved between lanes.
 * The upper halves hold rubbish between the rounds; only the lower halves are ever read. */
typedef uint64_t wide __attribute__((vector_size(VEC_BYTES)));
typedef uint64_t wide_in_memory __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));

/* As many words as a vector has reals: to use them, and where they lie in memory */
typedef uint32_t word_vector __attribute__((vector_size(LANES * 4)));
typedef int32_t signed_words __attribute__((vector_size(LANES * 4)));
typedef uint32_t words_in_memory __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

enum {
    BLOCKS = VEC_BYTES / 8, /* blocks of four words computed at once, one per lane */
    STEP = 4 * BLOCKS,      /* words computed at once */
    GROUP = 32,             /* words that make normal numbers together: a whole number of vectors of any width */
    BATCH = 1024,           /* words drawn before they are used: they stay in the first-level cache */
};

/* The product of the lower half of each lane with a word; lanes 0, 2, 4, ... of a and b in turn; lanes 1, 3, 5, ....
 * Intrinsics, because from the portable forms GCC (12) makes full 64-bit multiplications, three times the work, and moves
 * lanes one by one. */
#if defined(__AVX512F__)
INLINE wide multiply_words(wide a, uint32_t b) { return (wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b)); }
INLINE wide even_lanes(wide a, wide b) { return (wide)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
INLINE wide odd_lanes(wide a, wide b) { return (wide)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
INLINE wide multiply_words(wide a, uint32_t b) { return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b)); }
INLINE wide even_lanes(wide a, wide b) { return (wide)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
INLINE wide odd_lanes(wide a, wide b) { return (wide)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
INLINE wide multiply_words(wide a, uint32_t b) { return (wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b)); }
INLINE wide even_lanes(wide a, wide b) { return (wide)_mm_unpacklo_epi64((__m128i)a, (__m128i)b); }
INLINE wide odd_lanes(wide a, wide b) { return (wide)_mm_unpackhi_epi64((__m128i)a, (__m128i)b); }
#else
INLINE wide multiply_words(wide a, uint32_t b) { return (a & 0xFFFFFFFF) * b; }
INLINE wide even_lanes(wide a, wide b) { return (wide){a[0], b[0]}; }
INLINE wide odd_lanes(wide a, wide b) { return (wide){a[1], b[1]}; }
#endif

/* Words 4 * block ... of the stream: `count` of them, rounded up to a whole number of steps. */
static void draw(uint64_t seed, uint64_t block, ptrdiff_t count, uint32_t *words)
{
    /* Lane 2i computes block i of the step, lane 2i + 1 block i + BLOCKS / 2: interleaving then gives memory order. */
    wide lane_block;
    for (int i = 0; i < BLOCKS; i++) lane_block[i] = block + i / 2 + (i % 2) * (BLOCKS / 2);
    for (ptrdiff_t start = 0; start < count; start += STEP, lane_block += BLOCKS) {
        wide c0 = lane_block, c1 = lane_block >> 32, c2 = {0}, c3 = {0};
        uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++) {
            wide product0 = multiply_words(c0, 0xD2511F53), product2 = multiply_words(c2, 0xCD9E8D57);
            c0 = product2 >> 32 ^ c1 ^ key0;
            c1 = product2;
            c2 = product0 >> 32 ^ c3 ^ key1;
            c3 = product0;
            key0 += 0x9E3779B9;
            key1 += 0xBB67AE85;
        }
        wide low = (c0 & 0xFFFFFFFF) | c1 << 32, high = (c2 & 0xFFFFFFFF) | c3 << 32;
        *(wide_in_memory *)(words + start) = even_lanes(low, high);
        *(wide_in_memory *)(words + start + STEP / 2) = odd_lanes(low, high);
    }
}

/* Words position ... position + count of the stream. */
static void philox(uint64_t seed, uint64_t position, ptrdiff_t count, uint32_t *words)
{
    uint32_t batch[BATCH + 4 + STEP];
    for (ptrdiff_t start = 0; start < count; start += BATCH) {
        ptrdiff_t size = count - start < BATCH ? count - start : BATCH;
        uint64_t first = position + start, skip = first % 4;
        draw(seed, first / 4, skip + size, batch);
        memcpy(words + start, batch + skip, size * sizeof(uint32_t));
    }
}

/* Factors for `count` elements, a multiple of GROUP, from as many words. */
typedef void make_noise(const uint32_t *words, ptrdiff_t count, double parameter, real *noise);

/* y = x noise. The gradient is the same function of the output's gradient. */
INLINE void multiply_by_noise(make_noise make, const real *x, ptrdiff_t count, uint64_t seed, uint64_t position,
                              double parameter, real *y)
{
    uint32_t words[BATCH + 4 + STEP];
    real noise[BATCH];
    for (ptrdiff_t start = 0; start < count; start += BATCH, x += BATCH, y += BATCH) {
        ptrdiff_t size = count - start < BATCH ? count - start : BATCH, i = 0;
        ptrdiff_t padded = (size + GROUP - 1) / GROUP * GROUP;
        uint64_t first = position + start, skip = first % 4;
        draw(seed, first / 4, skip + padded, words);
        make(words + skip, padded, parameter, noise);
        for (; i + LANES <= size; i += LANES) vec_store(y + i, vec_load(x + i) * vec_load(noise + i));
        if (i < size) vec_store_tail(y + i, vec_load_tail(x + i, size - i) * vec_load(noise + i), size - i);
    }
}

/* 1 / (1 - p) where word >= p 2^32, else 0. The limit is at most 2^32 - 1: with p = 1 nothing is kept as the scale is 0. */
INLINE void keep_or_drop(const uint32_t *words, ptrdiff_t count, double p, real *noise)
{
    double threshold = p * 4294967296.0;
    uvec limit = (uvec){0} + (lane_uint)(threshold < 4294967295.0 ? threshold : 4294967295.0);
    vec scale = vec_set((real)(p < 1 ? 1 / (1 - p) : 0));
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        uvec word = __builtin_convertvector((word_vector) * (const words_in_memory *)(words + i), uvec);
        vec_store(noise + i, vec_select((ivec)(word >= limit), scale, (vec){0}));
    }
}

/* cos(2 pi word / 2^32) and the sine. The word is split, exactly, into the nearest quarter turn and a rest of at most an
 * eighth of a turn, where Taylor's series are as exact as a real. */
INLINE void cosine_and_sine(word_vector word, vec *cosine, vec *sine)
{
    static const real COSINE[] = {
        1. / 24,        -1. / 720,         1. / 40320,          -1. / 3628800,
#ifdef FASTNN_F64
        1. / 479001600, -1. / 87178291200, 1. / 20922789888000,
#endif
    };
    static const real SINE[] = {
        -1. / 6,        1. / 120,        -1. / 5040,          1. / 362880,
#ifdef FASTNN_F64
        -1. / 39916800, 1. / 6227020800, -1. / 1307674368000, 1. / 355687428096000,
#endif
    };
    word_vector quarter = (word + (1u << 29)) >> 30;
    vec t =
        __builtin_convertvector((signed_words)(word - (quarter << 30)), vec) * (real)(6.283185307179586 / 4294967296);
    vec z = t * t;
    vec near_one = 1 - z / 2 + z * z * POLYNOMIAL(z, COSINE), near_zero = t + t * z * POLYNOMIAL(z, SINE);
    uvec turns = __builtin_convertvector(quarter, uvec);
    ivec odd = (ivec)((turns & 1) != 0);
    uvec sine_sign = (turns & 2) << (LANE_BITS - 2), cosine_sign = ((turns + 1) & 2) << (LANE_BITS - 2);
    *cosine = (vec)((uvec)vec_select(odd, near_zero, near_one) ^ cosine_sign);
    *sine = (vec)((uvec)vec_select(odd, near_one, near_zero) ^ sine_sign);
}

/* 1 + std z, with normal z by Box-Muller. In each group of words, the first half gives radii r = sqrt(-2 log u), from
 * u = (word / 2^8 + 1) / 2^24 which a float holds exactly, the second half angles a; z = r cos(a) and r sin(a). */
INLINE void normal_noise(const uint32_t *words, ptrdiff_t count, double std, real *noise)
{
    const ptrdiff_t half = GROUP / 2;
    for (ptrdiff_t group = 0; group < count; group += GROUP)
        for (ptrdiff_t i = group; i < group + half; i += LANES) {
            vec cosine, sine;
            ivec exponent;
            word_vector word = *(const words_in_memory *)(words + i);
            vec u = __builtin_convertvector((signed_words)((word >> 8) + 1), vec) * (real)0x1p-24;
            vec f = vec_log_reduced(u, &exponent);
            vec radius = vec_sqrt(-2 * vec_log_sum(f, vec_from_integer(exponent))) * (real)std;
            cosine_and_sine(*(const words_in_memory *)(words + i + half), &cosine, &sine);
            vec_store(noise + i, 1 + radius * cosine);
            vec_store(noise + i + half, 1 + radius * sine);
        }
}

static void dropout(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double p, void *output)
{ multiply_by_noise(keep_or_drop, input, count, seed, position, p, output); }

/* position is a multiple of GROUP. */
static void gaussian_dropout(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double std,
                             void *output)
{ multiply_by_noise(normal_noise, input, count, seed, position, std, output); }

const struct random_kernels FASTNN_TABLE(random) = {
    .philox = philox,
    .dropout = dropout,
    .gaussian_dropout = gaussian_dropout,
};

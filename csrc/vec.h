/* One vector type for the instruction set and the element type being compiled.
 *
 * Every kernel file is compiled once per (instruction set, dtype); the compiler flags decide the width:
 *   x86-64 baseline  SSE2      16 bytes      arm64 NEON  16 bytes      anything else  16 bytes, lowered to scalars
 *   x86-64 avx2      AVX2+FMA  32 bytes
 *   x86-64 avx512    AVX-512   64 bytes
 * FASTNN_F64 makes `real` a double, otherwise it is a float. GCC/Clang vector extensions only, no intrinsics,
 * except where a comment gives the reason. a * b + c contracts to one FMA (-ffp-contract=fast).
 */
#ifndef FASTNN_VEC_H
#define FASTNN_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef FASTNN_F64
typedef double real;
typedef int64_t lane_int; /* integer as wide as a real: comparison masks, exponents */
#else
typedef float real;
typedef int32_t lane_int;
#endif

#if defined(__AVX512F__)
#define VEC_BYTES 64
#elif defined(__AVX2__)
#define VEC_BYTES 32
#else
#define VEC_BYTES 16
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
INLINE ptrdiff_t round_up(ptrdiff_t value, ptrdiff_t multiple) { return (value + multiple - 1) / multiple * multiple; }

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef lane_int ivec __attribute__((vector_size(VEC_BYTES)));
typedef real vec_in_memory __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));

enum { LANES = VEC_BYTES / sizeof(real) };

INLINE vec vec_load(const real *p) { return *(const vec_in_memory *)p; }
INLINE void vec_store(real *p, vec v) { *(vec_in_memory *)p = v; }
INLINE vec vec_set(real value) { return value - (vec){0}; }

/* The first `count` lanes (0 <= count <= LANES) from memory, zeros behind them: never reads past the array. Masked loads
 * and stores have no portable form, and the loop over lanes costs ten times as much. AVX2 stores by halves: its masked store
 * takes six times as long on a Zen 4 core. */
#if defined(__AVX512F__)
#ifdef FASTNN_F64
#define VEC_MASK(count) ((__mmask8)((1u << (count)) - 1))
INLINE vec vec_load_tail(const real *p, ptrdiff_t count) { return (vec)_mm512_maskz_loadu_pd(VEC_MASK(count), p); }
INLINE void vec_store_tail(real *p, vec v, ptrdiff_t count) { _mm512_mask_storeu_pd(p, VEC_MASK(count), (__m512d)v); }
#else
#define VEC_MASK(count) ((__mmask16)((1u << (count)) - 1))
INLINE vec vec_load_tail(const real *p, ptrdiff_t count) { return (vec)_mm512_maskz_loadu_ps(VEC_MASK(count), p); }
INLINE void vec_store_tail(real *p, vec v, ptrdiff_t count) { _mm512_mask_storeu_ps(p, VEC_MASK(count), (__m512)v); }
#endif
#elif defined(__AVX2__)
#ifdef FASTNN_F64
#define VEC_MASK(count) ((__m256i)((ivec){0, 1, 2, 3} < (lane_int)(count)))
INLINE vec vec_load_tail(const real *p, ptrdiff_t count) { return (vec)_mm256_maskload_pd(p, VEC_MASK(count)); }
INLINE void vec_store_tail(real *p, vec v, ptrdiff_t count)
{
    __m128d rest = _mm256_castpd256_pd128((__m256d)v);
    if (count & 2) {
        _mm_storeu_pd(p, rest);
        p += 2, rest = _mm256_extractf128_pd((__m256d)v, 1);
    }
    if (count & 1) _mm_store_sd(p, rest);
    if (count & 4) vec_store(p, v);
}
#else
#define VEC_MASK(count) ((__m256i)((ivec){0, 1, 2, 3, 4, 5, 6, 7} < (lane_int)(count)))
INLINE vec vec_load_tail(const real *p, ptrdiff_t count) { return (vec)_mm256_maskload_ps(p, VEC_MASK(count)); }
INLINE void vec_store_tail(real *p, vec v, ptrdiff_t count)
{
    __m128 rest = _mm256_castps256_ps128((__m256)v);
    if (count & 4) {
        _mm_storeu_ps(p, rest);
        p += 4, rest = _mm256_extractf128_ps((__m256)v, 1);
    }
    if (count & 2) {
        _mm_storel_pi((__m64 *)p, rest);
        p += 2, rest = _mm_movehl_ps(rest, rest);
    }
    if (count & 1) _mm_store_ss(p, rest);
    if (count & 8) vec_store(p, v);
}
#endif
#else
INLINE vec vec_load_tail(const real *p, ptrdiff_t count)
{
    real lanes[LANES] = {0};
    for (ptrdiff_t i = 0; i < count; i++) lanes[i] = p[i];
    return vec_load(lanes);
}

INLINE void vec_store_tail(real *p, vec v, ptrdiff_t count)
{
    real lanes[LANES];
    vec_store(lanes, v);
    for (ptrdiff_t i = 0; i < count; i++) p[i] = lanes[i];
}
#endif

/* Lanes first ... end - 1 of the vector at p, zeros around them; nothing else is read. */
INLINE vec vec_load_lanes(const real *p, ptrdiff_t first, ptrdiff_t end)
{
#if defined(__AVX512F__) && defined(FASTNN_F64)
    return (vec)_mm512_maskz_loadu_pd((__mmask8)(VEC_MASK(end) & ~VEC_MASK(first)), p);
#elif defined(__AVX512F__)
    return (vec)_mm512_maskz_loadu_ps((__mmask16)(VEC_MASK(end) & ~VEC_MASK(first)), p);
#elif defined(__AVX2__) && defined(FASTNN_F64)
    return (vec)_mm256_maskload_pd(p, VEC_MASK(end) & ~VEC_MASK(first));
#elif defined(__AVX2__)
    return (vec)_mm256_maskload_ps(p, VEC_MASK(end) & ~VEC_MASK(first));
#else
    real lanes[LANES] = {0};
    for (ptrdiff_t i = first; i < end; i++) lanes[i] = p[i];
    return vec_load(lanes);
#endif
}

/* The vector at p, of which only elements first ... end - 1 are read; zeros stand for the others. */
INLINE vec vec_load_inside(const real *p, ptrdiff_t first, ptrdiff_t end)
{
    if (first <= 0 && end >= LANES) return vec_load(p);
    first = larger(first, 0), end = smaller(end, LANES);
    return first < end ? vec_load_lanes(p, first, end) : (vec){0};
}

/* The next vector of an array that has `rest` elements left: whole, or as much of it as there is. */
INLINE vec vec_load_rest(const real *p, ptrdiff_t rest) { return rest < LANES ? vec_load_tail(p, rest) : vec_load(p); }
INLINE void vec_store_rest(real *p, vec v, ptrdiff_t rest)
{
    if (rest < LANES)
        vec_store_tail(p, v, rest);
    else
        vec_store(p, v);
}

/* Lanes 4 and on alone; lane 0 belongs at p. */
INLINE void vec_store_from_lane_4(real *p, vec v)
{
#if defined(__AVX512F__) && defined(FASTNN_F64)
    _mm512_mask_storeu_pd(p, 0xF0, (__m512d)v);
#elif defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, 0xFFF0, (__m512)v);
#elif defined(__AVX2__) && !defined(FASTNN_F64)
    _mm_storeu_ps(p + 4, _mm256_extractf128_ps((__m256)v, 1));
#else
    for (ptrdiff_t i = 4; i < LANES; i++) p[i] = v[i];
#endif
}

/* Lanes of a then b by constant index, as __builtin_shufflevector; GCC before 12 spells it otherwise. */
#if defined(__clang__) || __GNUC__ >= 12
#define VEC_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define VEC_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* The lanes of v at these indices. */
INLINE vec vec_permute(vec v, ivec lane)
{
#ifdef __clang__
    vec result = {0};
    for (int i = 0; i < LANES; i++) result[i] = v[lane[i]];
    return result;
#else
    return __builtin_shuffle(v, lane);
#endif
}

/* VEC_ZIP_LOW and VEC_ZIP_HIGH: a0 b0 a1 b1 ... from the lower halves of a and b, and from their upper halves;
 * VEC_EVEN and VEC_ODD: every second lane of a, then of b. */
#if VEC_BYTES == 64 && !defined(FASTNN_F64)
#define VEC_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define VEC_ODD(a, b) VEC_SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define VEC_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define VEC_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VEC_BYTES == 64 || (VEC_BYTES == 32 && !defined(FASTNN_F64))
#define VEC_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define VEC_ODD(a, b) VEC_SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define VEC_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define VEC_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif VEC_BYTES == 32 || !defined(FASTNN_F64)
#define VEC_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 2, 4, 6)
#define VEC_ODD(a, b) VEC_SHUFFLE(a, b, 1, 3, 5, 7)
#define VEC_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 4, 1, 5)
#define VEC_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 2, 6, 3, 7)
#else
#define VEC_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 2)
#define VEC_ODD(a, b) VEC_SHUFFLE(a, b, 1, 3)
#define VEC_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 2)
#define VEC_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 1, 3)
#endif

/* The same zips, but of each block of 16 bytes by itself, which is one instruction where a zip of whole vectors is two or
 * more; and every second block of a, then of b. */
enum { VEC_BLOCKS = VEC_BYTES / 16, VEC_BLOCK_LANES = LANES / VEC_BLOCKS };
#if VEC_BYTES == 64 && !defined(FASTNN_F64)
#define VEC_BLOCK_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define VEC_BLOCK_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define VEC_BLOCK_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define VEC_BLOCK_ODD(a, b) VEC_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#elif VEC_BYTES == 64
#define VEC_BLOCK_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define VEC_BLOCK_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define VEC_BLOCK_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13)
#define VEC_BLOCK_ODD(a, b) VEC_SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15)
#elif VEC_BYTES == 32 && !defined(FASTNN_F64)
#define VEC_BLOCK_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define VEC_BLOCK_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define VEC_BLOCK_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define VEC_BLOCK_ODD(a, b) VEC_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#elif VEC_BYTES == 32
#define VEC_BLOCK_ZIP_LOW(a, b) VEC_SHUFFLE(a, b, 0, 4, 2, 6)
#define VEC_BLOCK_ZIP_HIGH(a, b) VEC_SHUFFLE(a, b, 1, 5, 3, 7)
#define VEC_BLOCK_EVEN(a, b) VEC_SHUFFLE(a, b, 0, 1, 4, 5)
#define VEC_BLOCK_ODD(a, b) VEC_SHUFFLE(a, b, 2, 3, 6, 7)
#else
#define VEC_BLOCK_ZIP_LOW VEC_ZIP_LOW
#define VEC_BLOCK_ZIP_HIGH VEC_ZIP_HIGH
#define VEC_BLOCK_EVEN(a, b) (a)
#define VEC_BLOCK_ODD(a, b) (b)
#endif

/* Transposes LANES x LANES elements in registers: first the squares within the blocks, by rounds of zipping row i with row
 * i + VEC_BLOCK_LANES / 2, then the blocks. */
INLINE void vec_transpose(vec rows[LANES])
{
    /* Without the pragmas GCC keeps the rows in memory in large functions. */
#pragma GCC unroll 2
    for (int width = 1; width < VEC_BLOCK_LANES; width *= 2) {
        vec zipped[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            int row = i / (VEC_BLOCK_LANES / 2) * VEC_BLOCK_LANES + i % (VEC_BLOCK_LANES / 2);
            int to = i / (VEC_BLOCK_LANES / 2) * VEC_BLOCK_LANES + i % (VEC_BLOCK_LANES / 2) * 2;
            zipped[to] = VEC_BLOCK_ZIP_LOW(rows[row], rows[row + VEC_BLOCK_LANES / 2]);
            zipped[to + 1] = VEC_BLOCK_ZIP_HIGH(rows[row], rows[row + VEC_BLOCK_LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = zipped[i];
    }
#pragma GCC unroll 2
    for (int count = 1; count < VEC_BLOCKS; count *= 2) { /* row i with the next one of its place in a block */
        vec taken[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            int row = i / VEC_BLOCK_LANES * 2 * VEC_BLOCK_LANES + i % VEC_BLOCK_LANES;
            taken[i] = VEC_BLOCK_EVEN(rows[row], rows[row + VEC_BLOCK_LANES]);
            taken[i + LANES / 2] = VEC_BLOCK_ODD(rows[row], rows[row + VEC_BLOCK_LANES]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = taken[i];
    }
}

/* mask lanes are all ones (take a) or all zeros (take b), as comparisons of vectors give them. */
INLINE vec vec_select(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* Three operations are one instruction that vector extensions cannot name: GCC makes it of a loop over lanes in small
 * functions, but takes the lanes apart one by one where the loop is inlined into a larger one (exp 4x slower). So on x86
 * they are intrinsics: VEC_X86(max)(a, b) is _mm256_max_ps(a, b) for floats under AVX2. */
#if defined(FASTNN_F64)
#define VEC_X86_SUFFIX(op) op##_pd
#else
#define VEC_X86_SUFFIX(op) op##_ps
#endif
#if VEC_BYTES == 64
#define VEC_X86(op) VEC_X86_SUFFIX(_mm512_##op)
#elif VEC_BYTES == 32
#define VEC_X86(op) VEC_X86_SUFFIX(_mm256_##op)
#else
#define VEC_X86(op) VEC_X86_SUFFIX(_mm_##op)
#endif

/* NaN in either argument: the second argument comes back. */
INLINE vec vec_max(vec a, vec b)
{
#if defined(__x86_64__)
    return VEC_X86(max)(a, b);
#else
    return vec_select(a > b, a, b);
#endif
}

INLINE vec vec_min(vec a, vec b)
{
#if defined(__x86_64__)
    return VEC_X86(min)(a, b);
#else
    return vec_select(a < b, a, b);
#endif
}

/* Correctly rounded; NaN for negative lanes. */
INLINE vec vec_sqrt(vec v)
{
#if defined(__x86_64__)
    return VEC_X86(sqrt)(v);
#else
    vec root = v;
    for (int i = 0; i < LANES; i++) root[i] = sizeof(real) == 4 ? __builtin_sqrtf(v[i]) : __builtin_sqrt(v[i]);
    return root;
#endif
}

INLINE real vec_sum(vec v)
{
    real lanes[LANES];
    vec_store(lanes, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

#endif

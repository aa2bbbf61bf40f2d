/* Elementary functions on one vector: exp, expm1, log, log1p, tanh, sigmoid, erfc.
 *
 * No libm and no branches, so they inline into any loop over vectors. float and double share the formulas; the
 * constants that depend on the format stand in front. The worst error is below 2 ulp (expm1 2.5, erfc see there),
 * denormal results are rounded, not flushed; NaN, infinities, signed zeros and overflow give what C's functions give.
 * tests/test_vecmath.py checks each function and each of these claims.
 *
 * The polynomials are minimax fits (Remez) in 60 digits, lowest power first; the figure by each is its relative error.
 */
#ifndef FASTNN_VECMATH_H
#define FASTNN_VECMATH_H

#include "vec.h"

#ifdef FASTNN_F64
typedef uint64_t lane_uint;
#else
typedef uint32_t lane_uint;
#endif
typedef lane_uint uvec __attribute__((vector_size(VEC_BYTES)));

enum {
#ifdef FASTNN_F64
    MANTISSA_BITS = 52,
    EXPONENT_BIAS = 1023,
#else
    MANTISSA_BITS = 23,
    EXPONENT_BIAS = 127,
#endif
    LANE_BITS = 8 * sizeof(real),
};

/* (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2 */
static const real EXP_POLYNOMIAL[] = {
#ifdef FASTNN_F64 /* 3.7e-18 */
    0.500000000000001082,   0.166666666666664078,    0.0416666666665281161,    0.0083333333334968979,
    0.00138888889442481333, 0.000198412695027508956, 0.0000248014923877349143, 2.75575884277002363e-6,
    2.76305240764726594e-7, 2.4999855182111953e-8,
#else /* 3.1e-9 */
    0.4999999337, 0.1666651952, 0.04166840101, 0.008368851348, 0.001381432528,
#endif
};

/* (log((1 + s) / (1 - s)) / s - 2) / s^2, in z = s^2 <= 0.0295 */
static const real LOG_POLYNOMIAL[] = {
#ifdef FASTNN_F64 /* 4.6e-18 */
    0.666666666666670998, 0.399999999995166269, 0.285714287300376694, 0.222221990105605621,
    0.181835758307327002, 0.153130525232309986, 0.148116542084152921,
#else /* 9.6e-12 */
    0.6666666564,
    0.4000033564,
    0.2853727693,
    0.2358279659,
#endif
};

/* (tanh(x) / x - 1) / x^2 = P(z) / Q(z), in z = x^2 <= 0.625^2 */
static const real TANH_NUMERATOR[] = {
#ifdef FASTNN_F64 /* 6.1e-19 */
    -0.333333333333333234,
    -0.0204967580628734407,
    -0.000199087668529921587,
#else /* 4.7e-9 */
    -0.3333330782,
    -0.001541493749,
#endif
};
static const real TANH_DENOMINATOR[] = {
#ifdef FASTNN_F64
    1,
    0.461490274188605049,
    0.0232886107765312404,
    0.000206436953128673396,
#else
    1,
    0.4046119941,
#endif
};

/* erfc(z) e^(z^2) (z + k), in t = (z - k) / (z + k), for z from 0 to where erfc(z) rounds to 0 */
static const real ERFC_POLYNOMIAL[] = {
#ifdef FASTNN_F64 /* 6.8e-18 */
    1.08705558926226008,      -0.937799724567111913,   0.694113646634645192,      -0.435256026716899192,
    0.225738621647370286,     -0.0923187066381873528,  0.0265186198825026355,     -0.0031770503465528921,
    -0.00130535470076746307,  0.000714531713184842071, -0.0000420621087369082582, -0.0000747772021557568918,
    0.0000186469732593767699, 7.24442394135042898e-6,  -3.39149969777053651e-6,   -7.96684313163897064e-7,
    5.49751276449640296e-7,   1.1622502353599306e-7,   -8.28753351720601875e-8,   -2.16187033892565404e-8,
    8.82152365838430731e-9,   3.20007426684064532e-9,
#else /* 8.1e-9 */
    1.05403182,     -0.8046517345,   0.4539141146,    -0.1712545652,   0.0283610491,
    0.008420953904, -0.004805592659, -0.000525432972, 0.0006313925329, 0.0001435418066,
#endif
};
#ifdef FASTNN_F64
static const real ERFC_K = 3.5;
static const real EXP_LARGEST = 710, EXP_SMALLEST = -746;                            /* beyond these: infinity and 0 */
static const real EXPM1_SMALLEST = -40;                                              /* below this: -1 */
static const real LN2_HIGH = 0.693145751953125, LN2_LOW = 1.42860682030941723212e-6; /* n * LN2_HIGH is exact */
static const real SMALLEST_NORMAL = 2.2250738585072014e-308;
#else
static const real ERFC_K = 2.5;
static const real EXP_LARGEST = 89, EXP_SMALLEST = -104;
static const real EXPM1_SMALLEST = -20;
static const real LN2_HIGH = 0.693359375, LN2_LOW = -2.12194440054690583e-4;
static const real SMALLEST_NORMAL = 1.17549435e-38;
#endif
static const real LOG2_E = 1.44269504088896340736;
/* Added to a real of magnitude below 2^(MANTISSA_BITS - 1), rounds it to an integer and shows that in the low bits. */
static const real ROUNDER = 1.5 * ((int64_t)1 << MANTISSA_BITS);

INLINE vec vec_polynomial(vec x, const real *coefficients, int count)
{
    vec sum = vec_set(coefficients[count - 1]);
#pragma GCC unroll 32
    for (int i = count - 2; i >= 0; i--) sum = sum * x + coefficients[i];
    return sum;
}
#define POLYNOMIAL(x, coefficients) vec_polynomial(x, coefficients, sizeof(coefficients) / sizeof(real))

INLINE ivec vec_sign_bit(vec x) { return (ivec)x & (ivec)vec_set((real)-0.0); }
INLINE vec vec_abs(vec x) { return (vec)((ivec)x & ~(ivec)vec_set((real)-0.0)); }

/* 2^n for EXPONENT_BIAS + n within the exponent field */
INLINE vec vec_power_of_two(ivec n) { return (vec)(((uvec)n + EXPONENT_BIAS) << MANTISSA_BITS); }
/* A small integer as a real: a conversion that every instruction set has. */
INLINE vec vec_from_integer(ivec n) { return (vec)(n + (ivec)vec_set(ROUNDER)) - ROUNDER; }

/* x = n ln 2 + r with |r| <= ln(2) / 2; returns e^r - 1 */
INLINE vec vec_exp_reduced(vec x, vec *n, ivec *integer_n)
{
    vec shifted = x * LOG2_E + ROUNDER;
    *integer_n = (ivec)((uvec)shifted - (uvec)vec_set(ROUNDER)); /* unsigned: a NaN's bits overflow */
    *n = shifted - ROUNDER;
    vec r = x - *n * LN2_HIGH - *n * LN2_LOW;
    return r + r * r * POLYNOMIAL(r, EXP_POLYNOMIAL);
}

INLINE vec vec_exp(vec x)
{
    vec n;
    ivec integer_n;
    /* clamped in the order of arguments that keeps NaN */
    x = vec_max(vec_set(EXP_SMALLEST), vec_min(vec_set(EXP_LARGEST), x));
    vec y = 1 + vec_exp_reduced(x, &n, &integer_n);
    /* 2^n in two factors: n may lie beyond the exponents of normal numbers, and the second product rounds denormals */
    ivec half = (ivec)(((uvec)integer_n + 4096) >> 1) - 2048;
    return y * vec_power_of_two(half) * vec_power_of_two((ivec)((uvec)integer_n - (uvec)half));
}

INLINE vec vec_expm1(vec x)
{
    vec n;
    ivec integer_n;
    vec clamped = vec_max(vec_set(EXPM1_SMALLEST), vec_min(vec_set(EXP_LARGEST), x));
    vec y = vec_exp_reduced(clamped, &n, &integer_n);
    vec half_power = vec_power_of_two((ivec)((uvec)integer_n - 1)); /* 2^n may overflow where the result does not */
    vec scaled = 2 * (half_power * y + (half_power - (real)0.5));
    return vec_select(x == 0, x, vec_select(n == 0, y, scaled));
}

/* x = 2^n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), for x > 0 and normal */
INLINE vec vec_log_reduced(vec x, ivec *n)
{
    const ivec one = (ivec)vec_set(1), root_half = (ivec)vec_set((real)0.70710678118654752440);
    ivec bits = (ivec)((uvec)x + (uvec)(one - root_half));
    *n = (ivec)((uvec)bits >> MANTISSA_BITS) - EXPONENT_BIAS;
    return (vec)((bits & (((lane_int)1 << MANTISSA_BITS) - 1)) + root_half) - 1;
}

/* n ln 2 + log(1 + f), with s = f / (2 + f), log(1 + f) = log((1 + s) / (1 - s)) = 2 s + s R: fdlibm's e_log.c */
INLINE vec vec_log_sum(vec f, vec n)
{
    vec s = f / (2 + f), z = s * s, half_square = (real)0.5 * f * f;
    vec remainder = z * POLYNOMIAL(z, LOG_POLYNOMIAL);
    return n * LN2_HIGH - ((half_square - (s * (half_square + remainder) + n * LN2_LOW)) - f);
}

/* The result where u is positive and finite; log's own for infinity and 0; NaN for a negative number or NaN */
INLINE vec vec_log_special(vec u, vec result)
{
    const vec infinity = vec_set(__builtin_inf()), nan = vec_set(__builtin_nan(""));
    result = vec_select(u > 0, result, vec_select(u == 0, -infinity, nan));
    return vec_select(u == infinity, infinity, result);
}

INLINE vec vec_log(vec x)
{
    const int scale_bits = MANTISSA_BITS + 1;
    ivec n, denormal = x < SMALLEST_NORMAL;
    vec normal = vec_select(denormal, x * (real)((int64_t)1 << scale_bits), x);
    vec f = vec_log_reduced(normal, &n);
    return vec_log_special(x, vec_log_sum(f, vec_from_integer(n - (denormal & scale_bits))));
}

INLINE vec vec_log1p(vec x)
{
    ivec n;
    vec u = 1 + x, f = vec_log_reduced(u, &n);
    /* f once more without the rounding of 1 + x: 2^-n x and 2^-n - 1 are exact, and only their sum rounds */
    ivec large = x > (real)((int64_t)1 << MANTISSA_BITS);
    vec power = vec_power_of_two(-(n & ~large));
    f = vec_select(large, f, x * power + (power - 1));
    vec result = vec_log_special(u, vec_log_sum(f, vec_from_integer(n)));
    return vec_select(x == 0, x, result);
}

/* x + x^3 P / Q for |x| < 0.625, else 1 - 2 / (e^2|x| + 1) with the sign of x: one division serves both */
INLINE vec vec_tanh(vec x)
{
    vec size = vec_abs(x), z = size * size;
    ivec small = size < (real)0.625;
    vec numerator = vec_select(small, size * z * POLYNOMIAL(z, TANH_NUMERATOR), vec_set(-2));
    vec denominator = vec_select(small, POLYNOMIAL(z, TANH_DENOMINATOR), 1 + vec_exp(2 * size));
    vec result = vec_select(small, size, vec_set(1)) + numerator / denominator;
    return (vec)((ivec)result | vec_sign_bit(x));
}

/* 1 / (1 + e^-x), in e^-|x| so that neither tail overflows */
INLINE vec vec_sigmoid(vec x)
{
    vec e = vec_exp(-vec_abs(x));
    return vec_select(x < 0, e, vec_set(1)) / (1 + e);
}

/* e^(z^2) (1 - erf(z)) for z >= 0; the form of Shepherd and Laframboise (Math. Comp. 36, 1981) */
INLINE vec vec_erfcx(vec z)
{
    vec inverse = 1 / (z + ERFC_K);
    return inverse * POLYNOMIAL(1 - 2 * ERFC_K * inverse, ERFC_POLYNOMIAL);
}

/* 1 - erf(x), within 10 ulp for x <= 1; about x^2 ulp more in the upper tail, which scales the square's rounding up */
INLINE vec vec_erfc(vec x)
{
    vec z = vec_abs(x), upper = vec_exp(-z * z) * vec_erfcx(z);
    return vec_select(x < 0, 2 - upper, upper);
}

#endif

/* The micro-kernel under every matrix product: C[rows][COLUMN_TILE] (+)= A B from packed panels.
 *
 *   packed A  [depth][ROW_TILE]     one panel: ROW_TILE rows of A, interleaved
 *   packed B  [depth][COLUMN_TILE]  one panel: COLUMN_TILE columns of B, interleaved
 *
 * The accumulators fill the registers: ROW_TILE x COLUMN_VECTORS vectors, plus the columns and one broadcast row value.
 * 6 x 2 of 16 registers reaches 94 to 99 % of the FMA peak on AVX2; AVX-512 has 32 registers. Fewer rows than ROW_TILE run a
 * kernel of exactly that many rows, so that 64 = 10 x 6 + 4 channels waste nothing.
 */
#ifndef FASTNN_GEMM_MICRO_H
#define FASTNN_GEMM_MICRO_H

#include "kernels.h"
#include "vec.h"

#if VEC_BYTES == 64
enum { ROW_TILE = 8, COLUMN_VECTORS = 3 };
#else
enum { ROW_TILE = 6, COLUMN_VECTORS = 2 };
#endif
enum { COLUMN_TILE = COLUMN_VECTORS * LANES };

/* ROWS(rows), a kernel of its own for each number of rows from 1 to ROW_TILE. */
/* clang-format off */
#if VEC_BYTES == 64
#define ROWS_FROM_6 case 6: ROWS(6); break; case 7: ROWS(7); break; default: ROWS(8);
#else
#define ROWS_FROM_6 default: ROWS(6);
#endif
#define SWITCH_ROWS(rows) \
    switch (rows) { \
    case 1: ROWS(1); break; \
    case 2: ROWS(2); break; \
    case 3: ROWS(3); break; \
    case 4: ROWS(4); break; \
    case 5: ROWS(5); break; \
    ROWS_FROM_6 \
    }
/* clang-format on */

/* Lines of memory that are sent for while something else is computed: runs of `lines` neighbours, next_run elements from the
 * end of one to the start of the next, `left` in the present one. None where `at` is NULL. */
struct ahead {
    const real *at;
    ptrdiff_t left, lines, next_run;
};

/* `a` steps by a_row from row to row and by a_depth along the sum; the other operand is a panel of so many vectors, rows
 * of which stand b_depth apart. In passing, they are packed unless `packed` is NULL, and as many lines ahead as there are
 * terms are brought into the second-level cache. */
INLINE void multiply_in_passing(const int rows, const int vectors, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                                ptrdiff_t a_depth, const real *b, const ptrdiff_t b_depth, real *packed,
                                struct ahead ahead, real *c, ptrdiff_t row_stride, int accumulate)
{
    vec sum[ROW_TILE][COLUMN_VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            sum[row][v] = (vec){0};
            __builtin_prefetch(c + row * row_stride + v * LANES, 1); /* comes while the sums are taken */
        }

    for (ptrdiff_t d = 0; d < depth; d++, a += a_depth, b += b_depth) {
        vec column[COLUMN_VECTORS];
        if (ahead.at) {
            __builtin_prefetch(ahead.at, 0, 2);
            int ends = --ahead.left == 0;
            ahead.at += ends ? ahead.next_run + LANES : LANES;
            ahead.left = ends ? ahead.lines : ahead.left;
        }
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            column[v] = vec_load(b + v * LANES);
            if (packed) vec_store(packed + d * vectors * LANES + v * LANES, column[v]);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            vec value = vec_set(a[row * a_row]);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sum[row][v] += value * column[v];
        }
    }

#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) {
            real *target = c + row * row_stride + v * LANES;
            vec_store(target, accumulate ? vec_load(target) + sum[row][v] : sum[row][v]);
        }
}

INLINE void multiply_rows(const int rows, const int vectors, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                          ptrdiff_t a_depth, const real *b, const ptrdiff_t b_depth, real *c, ptrdiff_t row_stride,
                          int accumulate)
{
    const struct ahead none = {0};
    multiply_in_passing(rows, vectors, depth, a, a_row, a_depth, b, b_depth, NULL, none, c, row_stride, accumulate);
}

/* 1 to ROW_TILE rows. */
INLINE void multiply_some_rows(ptrdiff_t rows, const int vectors, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                               ptrdiff_t a_depth, const real *b, const ptrdiff_t b_depth, real *c, ptrdiff_t row_stride,
                               int accumulate)
{
#define ROWS(count) multiply_rows(count, vectors, depth, a, a_row, a_depth, b, b_depth, c, row_stride, accumulate)
    SWITCH_ROWS(rows);
#undef ROWS
}

/* 1 to ROW_TILE rows. Of a last panel with few columns, the vectors that are all padding are left out; c has
 * room for whole vectors. Large, so that it is compiled once: in gemm.c. */
#define multiply_ragged_tile FASTNN_TABLE(multiply_ragged_tile)
void multiply_ragged_tile(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                          ptrdiff_t a_depth, const real *b, real *c, ptrdiff_t row_stride, int accumulate);

enum { DOT_ROWS = 2, DOT_LINES = 4 };

/* sum[row][l] += a[row] * line[l], a vector of each or the first `rest` lanes */
INLINE void dot_step(const int rows, const int whole, ptrdiff_t rest, ptrdiff_t d, const real *a, ptrdiff_t a_row,
                     const real *const *line, vec sum[DOT_ROWS][DOT_LINES])
{
    vec seen[DOT_LINES];
#pragma GCC unroll 4
    for (int l = 0; l < DOT_LINES; l++) seen[l] = whole ? vec_load(line[l] + d) : vec_load_tail(line[l] + d, rest);
#pragma GCC unroll 2
    for (int row = 0; row < rows; row++) {
        vec value = whole ? vec_load(a + row * a_row + d) : vec_load_tail(a + row * a_row + d, rest);
#pragma GCC unroll 4
        for (int l = 0; l < DOT_LINES; l++) sum[row][l] += value * seen[l];
    }
}

/* sums[row][l] = dot(row of A, line[l]), `rows` at most DOT_ROWS */
INLINE void dot_tile(const int rows, ptrdiff_t depth, const real *a, ptrdiff_t a_row, const real *const *line,
                     real *sums)
{
    vec sum[DOT_ROWS][DOT_LINES];
#pragma GCC unroll 2
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 4
        for (int l = 0; l < DOT_LINES; l++) sum[row][l] = (vec){0};
    ptrdiff_t d = 0;
    for (; d + LANES <= depth; d += LANES) dot_step(rows, 1, LANES, d, a, a_row, line, sum);
    if (d < depth) dot_step(rows, 0, depth - d, d, a, a_row, line, sum);
#pragma GCC unroll 2
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 4
        for (int l = 0; l < DOT_LINES; l++) sums[row * DOT_LINES + l] = vec_sum(sum[row][l]);
}

/* packed[d][tile] of one panel from lines that are contiguous along the depth: transposes squares in registers. The last
 * square of a panel of more lines than lanes overlaps the one before it. Fewer lines than lanes are written over the
 * next row, which follows. */
INLINE void pack_along_depth(const real *panel, ptrdiff_t line_stride, ptrdiff_t lines, ptrdiff_t depth,
                             const ptrdiff_t tile, real *packed)
{
    for (ptrdiff_t d = 0; d < depth; d += LANES)
        for (ptrdiff_t group = 0; group < tile; group += LANES) {
            ptrdiff_t first = tile < LANES ? 0 : smaller(group, tile - LANES), rest = smaller(LANES, depth - d);
            vec square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = (vec){0};
            for (ptrdiff_t i = 0; i < smaller(LANES, lines - first); i++) {
                square[i] = vec_load_rest(panel + (first + i) * line_stride + d, rest);
                __builtin_prefetch(panel + (tile + first + i) * line_stride + d);
            }
            vec_transpose(square);
            for (ptrdiff_t i = 0; i < rest; i++) {
                real *to = packed + (d + i) * tile + first;
                if (tile >= LANES || d + i + 1 < depth)
                    vec_store(to, square[i]);
                else
                    vec_store_tail(to, square[i], tile);
            }
        }
}

/* The same from neighbouring lines that are depth_stride apart along the depth: copies. */
INLINE void pack_along_lines(const real *panel, ptrdiff_t depth_stride, ptrdiff_t lines, ptrdiff_t depth,
                             const ptrdiff_t tile, real *packed)
{
    for (ptrdiff_t d = 0; d < depth; d++)
        for (ptrdiff_t first = 0; first < tile; first += LANES) {
            vec value = lines > first ? vec_load_rest(panel + d * depth_stride + first, lines - first) : (vec){0};
            real *to = packed + d * tile + first;
            if (tile - first >= LANES || d + 1 < depth)
                vec_store(to, value);
            else
                vec_store_tail(to, value, tile - first);
        }
}

/* packed[line / tile][depth][tile] from source[line * line_stride + d * depth_stride], where one of the strides is 1; lines
 * past the end are zeros. */
INLINE void pack_panels(const real *source, ptrdiff_t line_stride, ptrdiff_t depth_stride, ptrdiff_t lines,
                        ptrdiff_t depth, const ptrdiff_t tile, real *packed)
{
    for (ptrdiff_t start = 0; start < lines; start += tile, packed += tile * depth) {
        ptrdiff_t count = smaller(tile, lines - start);
        if (depth_stride == 1)
            pack_along_depth(source + start * line_stride, line_stride, count, depth, tile, packed);
        else
            pack_along_lines(source + start, depth_stride, count, depth, tile, packed);
    }
}

#endif

/* C[M,N] = A[M,K] B[K,N], in several ways.
 *
 * Many rows: native/linear.pyx packs blocks of both operands, which absorbs their strides, and hands tiles of C to tile().
 * Few rows use each element of B for a few multiplications only, so it comes straight from memory, once:
 * tile_of_lines() or, for very few, dot_rows() where B is the transpose of an array (its columns, called lines, are
 * contiguous); stream_rows() where its rows are.
 */
#include "gemm_micro.h"
#include "kernels.h"
#include <string.h>

/* Longer sums are taken in blocks of so many terms, which keeps their rounding errors small, and a packed panel of B
 * (16 to 48 columns, 16 to 48 KiB in float32) in or near the first-level cache. */
enum { DEPTH_BLOCK = 256 };
/* stream_rows() keeps so many sums in the first-level cache, and adds so many rows of B at once to so many rows of C. */
enum { STREAM_SUMS = 4096, STREAM_DEPTH = 4, STREAM_ROWS = VEC_BYTES == 64 ? 4 : 2 };

/* Packs `lines` rows of A (tile = row_tile) or columns of B (tile = column_tile). */
static void pack(const void *source, ptrdiff_t line_stride, ptrdiff_t depth_stride, ptrdiff_t lines, ptrdiff_t depth,
                 ptrdiff_t tile, void *packed)
{
    if (tile == ROW_TILE)
        pack_panels(source, line_stride, depth_stride, lines, depth, ROW_TILE, packed);
    else
        pack_panels(source, line_stride, depth_stride, lines, depth, COLUMN_TILE, packed);
}

INLINE void multiply_columns(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const real *a, ptrdiff_t a_row,
                             ptrdiff_t a_depth, const real *b, real *c, ptrdiff_t row_stride, int accumulate)
{
    if (columns <= LANES)
        multiply_some_rows(rows, 1, depth, a, a_row, a_depth, b, COLUMN_TILE, c, row_stride, accumulate);
    else if (columns <= 2 * LANES)
        multiply_some_rows(rows, 2, depth, a, a_row, a_depth, b, COLUMN_TILE, c, row_stride, accumulate);
    else
        multiply_some_rows(rows, COLUMN_VECTORS, depth, a, a_row, a_depth, b, COLUMN_TILE, c, row_stride, accumulate);
}

/* Rows side by side have addresses of their own: by others backward-data takes 5 % longer. */
__attribute__((noclone)) void multiply_ragged_tile(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const real *a,
                                                   ptrdiff_t a_row, ptrdiff_t a_depth, const real *b, real *c,
                                                   ptrdiff_t row_stride, int accumulate)
{
    if (a_row == 1)
        multiply_columns(rows, columns, depth, a, 1, a_depth, b, c, row_stride, accumulate);
    else
        multiply_columns(rows, columns, depth, a, a_row, a_depth, b, c, row_stride, accumulate);
}

/* target[rows][columns] = (target, or bias per column, or nothing) + tile */
INLINE void add_tile(const real *tile, ptrdiff_t rows, ptrdiff_t columns, const real *bias, real *target,
                     ptrdiff_t row_stride, int accumulate)
{
    for (ptrdiff_t row = 0; row < rows; row++, tile += COLUMN_TILE, target += row_stride)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            vec value = vec_load(tile + j);
            if (accumulate) value += vec_load_rest(target + j, columns - j);
            if (bias) value += vec_load_rest(bias + j, columns - j);
            vec_store_rest(target + j, value, columns - j);
        }
}

/* C[rows][columns] of one panel of up to COLUMN_TILE columns, unit stride along columns: written over, with a bias per
 * column where it is not NULL, or added to. */
static void tile(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *packed_a, const void *packed_b,
                 const void *bias, void *output, ptrdiff_t row_stride, int accumulate)
{
    real buffer[ROW_TILE * COLUMN_TILE];
    for (ptrdiff_t row = 0; row < rows; row += ROW_TILE)
        for (ptrdiff_t start = 0; start < depth; start += DEPTH_BLOCK) {
            ptrdiff_t count = smaller(ROW_TILE, rows - row), part = smaller(DEPTH_BLOCK, depth - start);
            const real *a = (const real *)packed_a + row * depth + start * ROW_TILE;
            const real *b = (const real *)packed_b + start * COLUMN_TILE;
            real *c = (real *)output + row * row_stride;
            const real *first_bias = start == 0 ? bias : NULL;
            if (columns == COLUMN_TILE && first_bias == NULL) {
                multiply_ragged_tile(count, COLUMN_TILE, part, a, 1, ROW_TILE, b, c, row_stride,
                                     accumulate || start > 0);
            } else {
                multiply_ragged_tile(count, columns, part, a, 1, ROW_TILE, b, buffer, COLUMN_TILE, 0);
                add_tile(buffer, count, columns, first_bias, c, row_stride, accumulate || start > 0);
            }
        }
}

/* C[j][line] = bias[line] + dot(row j of A, line of B) for packed rows of A, and lines of B where they lie: the product is
 * taken with B from the left, and stored transposed. */
static void tile_of_lines(ptrdiff_t lines, ptrdiff_t rows, ptrdiff_t depth, const void *b, const void *packed_a,
                          const void *bias, void *output, ptrdiff_t row_stride)
{
    real buffer[ROW_TILE * COLUMN_TILE];
    for (ptrdiff_t line = 0; line < lines; line += ROW_TILE)
        for (ptrdiff_t row = 0; row < rows; row += COLUMN_TILE) {
            ptrdiff_t line_count = smaller(ROW_TILE, lines - line), row_count = smaller(COLUMN_TILE, rows - row);
            for (ptrdiff_t start = 0; start < depth; start += DEPTH_BLOCK)
                multiply_ragged_tile(line_count, row_count, smaller(DEPTH_BLOCK, depth - start),
                                     (const real *)b + line * depth + start, depth, 1,
                                     (const real *)packed_a + row * depth + start * COLUMN_TILE, buffer, COLUMN_TILE,
                                     start > 0);
            real *target = (real *)output + row * row_stride + line;
            for (ptrdiff_t i = 0; i < row_count; i++, target += row_stride)
                for (ptrdiff_t l = 0; l < line_count; l++)
                    target[l] = buffer[l * COLUMN_TILE + i] + (bias ? ((const real *)bias)[line + l] : 0);
        }
}

/* C[i][j] = bias[j] + dot(row i of A, line j of B), both contiguous along the depth. */
static void dot_rows(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b, const void *bias,
                     void *output, ptrdiff_t row_stride)
{
    real sums[DOT_ROWS * DOT_LINES];
    for (ptrdiff_t j = 0; j < columns; j += DOT_LINES) {
        const real *line[DOT_LINES]; /* the last one again where there are no more */
        for (ptrdiff_t l = 0; l < DOT_LINES; l++) line[l] = (const real *)b + smaller(j + l, columns - 1) * depth;
        for (ptrdiff_t i = 0; i < rows; i += DOT_ROWS) {
            const real *from = (const real *)a + i * depth;
            ptrdiff_t count = smaller(DOT_ROWS, rows - i);
            if (count == DOT_ROWS)
                dot_tile(DOT_ROWS, depth, from, depth, line, sums);
            else
                dot_tile(1, depth, from, depth, line, sums);
            for (ptrdiff_t row = 0; row < count; row++)
                for (ptrdiff_t l = 0; l < smaller(DOT_LINES, columns - j); l++)
                    ((real *)output)[(i + row) * row_stride + j + l] =
                        sums[row * DOT_LINES + l] + (bias ? ((const real *)bias)[j + l] : 0);
        }
    }
}

/* sum[i][column] += sum over STREAM_DEPTH rows of B of a[i][d] * b[d][column], for some rows i, which share what is
 * loaded of B. */
INLINE void stream_some(const int rows, const real a[][STREAM_DEPTH], const real *b, ptrdiff_t b_row, ptrdiff_t columns,
                        real *sum, ptrdiff_t sum_row)
{
    vec factor[STREAM_ROWS][STREAM_DEPTH];
    for (int i = 0; i < rows; i++)
        for (int d = 0; d < STREAM_DEPTH; d++) factor[i][d] = vec_set(a[i][d]);
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        vec line[STREAM_DEPTH];
        for (int d = 0; d < STREAM_DEPTH; d++) line[d] = vec_load_rest(b + d * b_row + j, columns - j);
        for (int i = 0; i < rows; i++) {
            vec total = vec_load(sum + i * sum_row + j);
            for (int d = 0; d < STREAM_DEPTH; d++) total += factor[i][d] * line[d];
            vec_store(sum + i * sum_row + j, total);
        }
    }
}

/* C[i][j] = sum over d of A[i][d] B[d][j] for a few rows and columns, at most STREAM_SUMS of them with the columns
 * rounded up to whole vectors. A's rows are depth apart, B's b_row. Without A the rows of B are added up. */
static void stream_rows(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b,
                        ptrdiff_t b_row, void *output, ptrdiff_t row_stride)
{
    real sums[STREAM_SUMS], factor[STREAM_ROWS][STREAM_DEPTH];
    ptrdiff_t sum_row = (columns + LANES - 1) / LANES * LANES;
    for (ptrdiff_t start = 0; start < depth || start == 0; start += DEPTH_BLOCK) {
        ptrdiff_t end = smaller(start + DEPTH_BLOCK, depth);
        memset(sums, 0, (size_t)(rows * sum_row) * sizeof(real));
        for (ptrdiff_t d = start; d < end; d += STREAM_DEPTH) {
            const real *from = (const real *)b + d * b_row;
            ptrdiff_t count = smaller(STREAM_DEPTH, end - d);
            for (ptrdiff_t i = 0, some; i < rows; i += some) {
                real *sum = sums + i * sum_row;
                some = count < STREAM_DEPTH ? 1 : rows - i >= STREAM_ROWS ? STREAM_ROWS : smaller(2, rows - i);
                for (ptrdiff_t row = 0; row < some; row++)
                    for (ptrdiff_t k = 0; k < count; k++)
                        factor[row][k] = a ? ((const real *)a)[(i + row) * depth + d + k] : 1;
                if (count < STREAM_DEPTH)
                    for (ptrdiff_t k = 0; k < count; k++)
                        for (ptrdiff_t j = 0; j < columns; j++) sum[j] += factor[0][k] * from[k * b_row + j];
                else if (some == STREAM_ROWS)
                    stream_some(STREAM_ROWS, factor, from, b_row, columns, sum, sum_row);
                else if (some == 2)
                    stream_some(2, factor, from, b_row, columns, sum, sum_row);
                else
                    stream_some(1, factor, from, b_row, columns, sum, sum_row);
            }
        }
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t j = 0; j < columns; j++) {
                real *target = (real *)output + i * row_stride + j;
                *target = sums[i * sum_row + j] + (start > 0 ? *target : 0);
            }
    }
}

/* C[i][j] = max(0, C[i][j]), of a tile whose sums are complete and which is still in the cache. NaN stays NaN. */
static void rectify(ptrdiff_t rows, ptrdiff_t columns, void *output, ptrdiff_t row_stride)
{
    real *c = output;
    for (ptrdiff_t row = 0; row < rows; row++, c += row_stride)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            vec value = vec_load_rest(c + j, columns - j);
            vec_store_rest(c + j, vec_max((vec){0}, value), columns - j);
        }
}

const struct gemm_kernels FASTNN_TABLE(gemm) = {
    .row_tile = ROW_TILE,
    .column_tile = COLUMN_TILE,
    .depth_block = DEPTH_BLOCK,
    .stream_sums = STREAM_SUMS,
    .pack = pack,
    .tile = tile,
    .tile_of_lines = tile_of_lines,
    .dot_rows = dot_rows,
    .stream_rows = stream_rows,
    .rectify = rectify,
};

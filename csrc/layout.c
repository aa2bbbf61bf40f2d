/* Arrays of pixels with their channels first, [C][pixels], or last, [pixels][C]: the one from the other. */
#include "kernels.h"
#include "vec.h"

/* A whole square; its neighbours, columns further on, are sent for. */
INLINE void transpose_square(const real *from, ptrdiff_t source_stride, real *to, ptrdiff_t target_stride)
{
    vec square[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
        square[i] = vec_load(from + i * source_stride);
        __builtin_prefetch(from + i * source_stride + LANES);
        __builtin_prefetch(to + (i + LANES) * target_stride, 1);
    }
    vec_transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) vec_store(to + i * target_stride, square[i]);
}

/* One at the edges. */
static void transpose_rest(const real *from, ptrdiff_t source_stride, ptrdiff_t rows, ptrdiff_t columns, real *to,
                           ptrdiff_t target_stride)
{
    vec square[LANES];
    for (int i = 0; i < LANES; i++) square[i] = i < rows ? vec_load_rest(from + i * source_stride, columns) : (vec){0};
    vec_transpose(square);
    for (int i = 0; i < LANES; i++)
        if (i < columns) vec_store_rest(to + i * target_stride, square[i], rows);
}

/* to[column][row] = from[row][column], in squares transposed in registers; rows of both stand apart by their strides. */
static void transpose(const void *source, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t source_stride, void *target,
                      ptrdiff_t target_stride)
{
    for (ptrdiff_t column = 0; column < columns; column += LANES)
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            const real *from = (const real *)source + row * source_stride + column;
            real *to = (real *)target + column * target_stride + row;
            ptrdiff_t rest_rows = rows - row, rest_columns = columns - column;
            if (rest_rows >= LANES && rest_columns >= LANES)
                transpose_square(from, source_stride, to, target_stride);
            else
                transpose_rest(from, source_stride, rest_rows, rest_columns, to, target_stride);
        }
}

const struct layout_kernels FASTNN_TABLE(layout) = {.transpose = transpose};

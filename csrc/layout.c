/* Arrays of pixels with their channels first, [C][pixels], or last, [pixels][C]: the one from the other. */
#include "kernels.h"
#include "vec.h"

/* to[column][row] = from[row][column], in squares transposed in registers; rows of both stand apart by their strides. */
static void transpose(const void *source, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t source_stride, void *target,
                      ptrdiff_t target_stride)
{
    for (ptrdiff_t row = 0; row < rows; row += LANES)
        for (ptrdiff_t column = 0; column < columns; column += LANES) {
            const real *from = (const real *)source + row * source_stride + column;
            real *to = (real *)target + column * target_stride + row;
            ptrdiff_t rest_rows = rows - row, rest_columns = columns - column;
            vec square[LANES];
            for (int i = 0; i < LANES; i++)
                square[i] = i < rest_rows ? vec_load_rest(from + i * source_stride, rest_columns) : (vec){0};
            vec_transpose(square);
            for (int i = 0; i < LANES; i++)
                if (i < rest_columns) vec_store_rest(to + i * target_stride, square[i], rest_rows);
        }
}

const struct layout_kernels FASTNN_TABLE(layout) = {.transpose = transpose};

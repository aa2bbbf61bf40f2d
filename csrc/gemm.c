/* C[M,N] = A[M,K] B[K,N] from packed panels, for any strides of A and B: the packing absorbs them.
 *
 * native/gemm.pyx blocks the product (depth 256, so that a panel of B stays in the first-level cache), packs both operands
 * of a block and hands tiles of C to block().
 */
#include "gemm_micro.h"
#include "kernels.h"

/* Packs `lines` rows of A (tile = row_tile) or columns of B (tile = column_tile). */
static void pack(const void *source, ptrdiff_t line_stride, ptrdiff_t depth_stride, ptrdiff_t lines, ptrdiff_t depth,
                 ptrdiff_t tile, void *packed)
{
    if (tile == ROW_TILE)
        pack_panels(source, line_stride, depth_stride, lines, depth, ROW_TILE, packed);
    else
        pack_panels(source, line_stride, depth_stride, lines, depth, COLUMN_TILE, packed);
}

/* C[rows][columns], unit stride along columns, written over or added to. Tiles that hang over the edge go through a
 * buffer. */
static void block(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *packed_a, const void *packed_b,
                  void *output, ptrdiff_t row_stride, int accumulate)
{
    real buffer[ROW_TILE * COLUMN_TILE];
    for (ptrdiff_t column = 0; column < columns; column += COLUMN_TILE) {
        const real *b = (const real *)packed_b + column * depth;
        ptrdiff_t column_count = smaller(COLUMN_TILE, columns - column);
        for (ptrdiff_t row = 0; row < rows; row += ROW_TILE) {
            const real *a = (const real *)packed_a + row * depth;
            real *c = (real *)output + row * row_stride + column;
            ptrdiff_t row_count = smaller(ROW_TILE, rows - row);
            if (column_count == COLUMN_TILE) {
                multiply_tile(row_count, depth, a, b, c, row_stride, accumulate);
                continue;
            }
            multiply_tile(row_count, depth, a, b, buffer, COLUMN_TILE, 0);
            for (ptrdiff_t i = 0; i < row_count; i++)
                for (ptrdiff_t j = 0; j < column_count; j++) {
                    real *target = c + i * row_stride + j;
                    *target = buffer[i * COLUMN_TILE + j] + (accumulate ? *target : 0);
                }
        }
    }
}

const struct gemm_kernels FASTNN_TABLE(gemm) = {
    .row_tile = ROW_TILE,
    .column_tile = COLUMN_TILE,
    .pack = pack,
    .block = block,
};

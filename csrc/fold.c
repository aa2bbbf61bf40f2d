/* im2col (unfold) and col2im (fold), for one channel of one image.
 *
 * columns[i][j][y][x] = image[y stride + i dilation - padding][x stride + j dilation - padding], or 0 outside the image,
 * and the sum over all that unfold reads from one pixel, taps in order. Each is the other's gradient. A channel is one tile
 * of work, so that no two tiles add to one pixel.
 *
 * Legend: (i, j) a tap, of kernel[0] x kernel[1]; (y, x) a patch, of grid[0] x grid[1]. Index 0 is height, 1 is width.
 */
#include "kernels.h"
#include "vec.h"

/* The patches first <= position < end whose tap at this offset lies inside the image, along one dimension */
struct range {
    ptrdiff_t first, end;
};

static struct range inside(const struct fold_geometry *geometry, int dimension, ptrdiff_t offset)
{
    ptrdiff_t size = geometry->image[dimension], stride = geometry->stride[dimension], grid = geometry->grid[dimension];
    ptrdiff_t first = offset < 0 ? (-offset + stride - 1) / stride : 0;
    ptrdiff_t end = offset < size ? (size - 1 - offset) / stride + 1 : 0;
    if (end > grid) end = grid;
    return (struct range){first < end ? first : end, end};
}

static ptrdiff_t tap_offset(const struct fold_geometry *geometry, int dimension, ptrdiff_t tap)
{ return tap * geometry->dilation[dimension] - geometry->padding[dimension]; }

/* row[x] = line[x stride] inside the range, 0 outside it */
INLINE void read_line(const real *restrict line, ptrdiff_t stride, struct range range, ptrdiff_t count,
                      real *restrict row)
{
    for (ptrdiff_t x = 0; x < range.first; x++) row[x] = 0;
    for (ptrdiff_t x = range.first; x < range.end; x++) row[x] = line[x * stride];
    for (ptrdiff_t x = range.end; x < count; x++) row[x] = 0;
}

/* line[x stride] += row[x] inside the range */
INLINE void add_line(const real *restrict row, ptrdiff_t stride, struct range range, real *restrict line)
{
    for (ptrdiff_t x = range.first; x < range.end; x++) line[x * stride] += row[x];
}

static void unfold(const struct fold_geometry *geometry, const void *image, void *columns)
{
    const ptrdiff_t *grid = geometry->grid, stride = geometry->stride[1];
    real *row = columns;
    for (ptrdiff_t i = 0; i < geometry->kernel[0]; i++)
        for (ptrdiff_t j = 0; j < geometry->kernel[1]; j++) {
            ptrdiff_t down = tap_offset(geometry, 0, i), across = tap_offset(geometry, 1, j);
            struct range rows = inside(geometry, 0, down), within = inside(geometry, 1, across), nothing = {0, 0};
            for (ptrdiff_t y = 0; y < grid[0]; y++, row += grid[1]) {
                const real *line = (const real *)image + (y * geometry->stride[0] + down) * geometry->image[1] + across;
                struct range range = y >= rows.first && y < rows.end ? within : nothing;
                if (stride == 1)
                    read_line(line, 1, range, grid[1], row);
                else
                    read_line(line, stride, range, grid[1], row);
            }
        }
}

static void fold(const struct fold_geometry *geometry, const void *columns, void *image)
{
    const ptrdiff_t *grid = geometry->grid, stride = geometry->stride[1];
    const real *patch = columns;
    memset(image, 0, geometry->image[0] * geometry->image[1] * sizeof(real));
    for (ptrdiff_t i = 0; i < geometry->kernel[0]; i++)
        for (ptrdiff_t j = 0; j < geometry->kernel[1]; j++, patch += grid[0] * grid[1]) {
            ptrdiff_t down = tap_offset(geometry, 0, i), across = tap_offset(geometry, 1, j);
            struct range rows = inside(geometry, 0, down), within = inside(geometry, 1, across);
            for (ptrdiff_t y = rows.first; y < rows.end; y++) {
                real *line = (real *)image + (y * geometry->stride[0] + down) * geometry->image[1] + across;
                if (stride == 1)
                    add_line(patch + y * grid[1], 1, within, line);
                else
                    add_line(patch + y * grid[1], stride, within, line);
            }
        }
}

const struct fold_kernels FASTNN_TABLE(fold) = {
    .unfold = unfold,
    .fold = fold,
};

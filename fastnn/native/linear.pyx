"""The affine layer, and the blocked matrix product that it stands on."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport gemm_kernels
from fastnn.native.runtime cimport Block, contiguous, empty, kernels_for, scratch, threads_for

import numpy as np

np.import_array()

__all__ = ["linear", "linear_backward"]

# Depth of a block: a packed panel of B (16 to 48 columns) then takes 16 to 48 KiB. Rows and columns of a block: the
# packed operands take 1 MiB each in float32 and stay in the cache that the cores share.
cdef ptrdiff_t DEPTH_BLOCK = 256
cdef ptrdiff_t BLOCK = 960
cdef double FLOP_PER_NANOSECOND = 40.0

cdef struct operand:
    const char *data
    ptrdiff_t line_stride   # elements from one row of A (column of B) to the next
    ptrdiff_t depth_stride  # elements along the summed axis


cdef ptrdiff_t round_up(ptrdiff_t value, ptrdiff_t multiple) noexcept nogil:
    return (value + multiple - 1) // multiple * multiple


cdef void pack_panel(const gemm_kernels *kernel, const operand *x, ptrdiff_t line, ptrdiff_t end, ptrdiff_t depth_start,
                     ptrdiff_t depth, ptrdiff_t tile, ptrdiff_t itemsize, char *packed) noexcept nogil:
    """Packs lines line .. line + tile of x, those from `end` on as zeros."""
    kernel.pack(x.data + (line * x.line_stride + depth_start * x.depth_stride) * itemsize, x.line_stride,
                x.depth_stride, min(tile, end - line), depth, tile, packed)


cdef multiply(operand a, operand b, np.ndarray c, ptrdiff_t depth, bint accumulate):
    """c[M, N] (+)= A[M, depth] B[depth, N]; c is C-contiguous, A and B have any strides and c's dtype."""
    cdef const gemm_kernels *kernel = kernels_for(c).gemm
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(c), rows = np.PyArray_DIM(c, 0), columns = np.PyArray_DIM(c, 1)
    cdef ptrdiff_t row_tile = kernel.row_tile, column_tile = kernel.column_tile
    cdef ptrdiff_t row_block = min(round_up(rows, row_tile), BLOCK // row_tile * row_tile)
    cdef ptrdiff_t column_block = min(round_up(columns, column_tile), BLOCK // column_tile * column_tile)
    cdef ptrdiff_t depth_block = min(depth, DEPTH_BLOCK)
    cdef Block memory = scratch((row_block + column_block) * depth_block * itemsize)
    cdef char *packed_a = <char *> memory.data
    cdef char *packed_b = packed_a + row_block * depth_block * itemsize
    cdef char *target = np.PyArray_BYTES(c)
    cdef ptrdiff_t column_start, depth_start, row_start, block_rows, block_columns, block_depth
    cdef ptrdiff_t row_panels, column_panels, fresh, step, first, task, row_tasks, rows_each = 4 * row_tile
    cdef int pack_threads
    cdef int threads = threads_for(2.0 * rows * columns * depth / FLOP_PER_NANOSECOND + 0.5 * depth * (rows + columns))
    if rows == 0 or columns == 0:
        return
    if depth == 0:
        if not accumulate:
            np.PyArray_FILLWBYTE(c, 0)
        return
    with nogil:
        column_start = 0
        while column_start < columns:
            block_columns = min(column_block, columns - column_start)
            column_panels = (block_columns + column_tile - 1) // column_tile
            depth_start = 0
            while depth_start < depth:
                block_depth = min(depth_block, depth - depth_start)
                row_start = 0
                while row_start < rows:
                    block_rows = min(row_block, rows - row_start)
                    row_panels = (block_rows + row_tile - 1) // row_tile
                    # Panels of B are packed with the first block of rows, and used by the others too.
                    fresh = column_panels if row_start == 0 else 0
                    pack_threads = threads_for(0.5 * block_depth * (fresh * column_tile + row_panels * row_tile))
                    for step in prange(fresh + row_panels, num_threads=pack_threads, schedule="static"):
                        if step < fresh:
                            pack_panel(kernel, &b, column_start + step * column_tile, column_start + block_columns,
                                       depth_start, block_depth, column_tile, itemsize,
                                       packed_b + step * column_tile * block_depth * itemsize)
                        else:
                            pack_panel(kernel, &a, row_start + (step - fresh) * row_tile, row_start + block_rows,
                                       depth_start, block_depth, row_tile, itemsize,
                                       packed_a + (step - fresh) * row_tile * block_depth * itemsize)
                    # A task is one panel of columns by a few panels of rows.
                    row_tasks = (block_rows + rows_each - 1) // rows_each
                    for task in prange(column_panels * row_tasks, num_threads=threads, schedule="guided"):
                        step = task // row_tasks * column_tile
                        first = task % row_tasks * rows_each
                        kernel.block(
                            min(rows_each, block_rows - first), min(column_tile, block_columns - step), block_depth,
                            packed_a + first * block_depth * itemsize, packed_b + step * block_depth * itemsize,
                            target + ((row_start + first) * columns + column_start + step) * itemsize, columns,
                            accumulate or depth_start > 0)
                    row_start = row_start + block_rows
                depth_start = depth_start + block_depth
            column_start = column_start + block_columns


cdef operand rows_of(np.ndarray x):
    """The matrix x[line, depth]."""
    return operand(np.PyArray_BYTES(x), np.PyArray_DIM(x, 1), 1)


cdef operand columns_of(np.ndarray x):
    """The transpose of x: lines are x's columns."""
    return operand(np.PyArray_BYTES(x), 1, np.PyArray_DIM(x, 1))


def linear(np.ndarray x, np.ndarray weight, bias):
    """y[N, M] = x[N, D] weight[M, D]^T + bias[M]."""
    x = contiguous(x)
    weight = contiguous(weight)
    cdef np.npy_intp shape[2]
    shape[0], shape[1] = np.PyArray_DIM(x, 0), np.PyArray_DIM(weight, 0)
    cdef np.ndarray y = empty(2, shape, np.PyArray_TYPE(x))
    if bias is not None:
        y[...] = bias
    multiply(rows_of(x), rows_of(weight), y, np.PyArray_DIM(x, 1), bias is not None)
    return y


def linear_backward(np.ndarray grad_output, np.ndarray x, np.ndarray weight, needs):
    """dx = dy weight, dweight = dy^T x, dbias = 1^T dy; None where not needed."""
    grad_output = contiguous(grad_output)
    x = contiguous(x)
    weight = contiguous(weight)
    cdef int typenum = np.PyArray_TYPE(x)
    cdef ptrdiff_t batch = np.PyArray_DIM(x, 0)
    cdef np.npy_intp row[2]
    cdef np.ndarray grad_x = None, grad_weight = None, grad_bias = None, ones
    if needs[0]:
        grad_x = empty(2, np.PyArray_DIMS(x), typenum)
        multiply(rows_of(grad_output), columns_of(weight), grad_x, np.PyArray_DIM(weight, 0), False)
    if needs[1]:
        grad_weight = empty(2, np.PyArray_DIMS(weight), typenum)
        multiply(columns_of(grad_output), columns_of(x), grad_weight, batch, False)
    if needs[2]:
        # As a product, so that long batches are summed in blocks of the depth: less rounding than row after row.
        row[0], row[1] = 1, np.PyArray_DIM(weight, 0)
        grad_bias = empty(2, row, typenum)
        ones = np.ones((1, batch), x.dtype)
        multiply(rows_of(ones), columns_of(grad_output), grad_bias, batch, False)
        grad_bias = grad_bias[0]
    return grad_x, grad_weight, grad_bias

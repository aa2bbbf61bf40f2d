"""The affine layer, and the blocked matrix product that it stands on."""
cimport numpy as np
from cython.parallel cimport prange
from fastnn.native.kernels cimport gemm_kernels
from fastnn.native.runtime cimport Block, ceil_div, contiguous, empty, kernels_for, scratch, threads_for

import numpy as np

from fastnn.native.runtime import second_level_cache

np.import_array()

__all__ = ["linear", "linear_backward"]


# Packed rows are read again for every panel of columns: they take a quarter of a core's own cache. Packed columns come
# from the cache that the cores share. The sizes of blocks decide no result: sums are cut at fixed depths, of which a
# block has a whole number.
cdef ptrdiff_t ROW_BYTES = second_level_cache() // 4
cdef ptrdiff_t COLUMN_BYTES = 4 << 20
cdef ptrdiff_t MOST_ROWS = 512
# Tiles are made smaller until there are this many, so that small products occupy all threads too.
cdef ptrdiff_t ENOUGH_TASKS = 32
# So few rows leave the other matrix where it lies. Bytes of it in one task.
cdef ptrdiff_t FEW_ROWS = 64
cdef ptrdiff_t DOT_ROWS = 4
cdef ptrdiff_t STREAM_ROWS = 8
cdef ptrdiff_t TASK_BYTES = 64 << 10
# Results of so many bytes are written row by row, as memory takes them fastest, where sums are so short that the packed
# columns stay in half of a core's own cache.
cdef ptrdiff_t LARGE_BYTES = 4 << 20
cdef ptrdiff_t SHALLOW = 128
cdef double FLOP_PER_NANOSECOND = 80.0
cdef double BYTES_PER_NANOSECOND = 20.0

cdef struct operand:
    const char *data
    ptrdiff_t line_stride   # elements from one row of A (column of B) to the next
    ptrdiff_t depth_stride  # elements along the summed axis


cdef ptrdiff_t round_up(ptrdiff_t value, ptrdiff_t multiple) noexcept nogil:
    return ceil_div(value, multiple) * multiple


cdef ptrdiff_t even_block(ptrdiff_t total, ptrdiff_t most, ptrdiff_t tile) noexcept nogil:
    """The size of nearly equal blocks of whole tiles, of at most `most` lines or one tile."""
    return round_up(ceil_div(total, ceil_div(total, max(most // tile * tile, tile))), tile)


cdef void pack_panel(const gemm_kernels *kernel, const operand *x, ptrdiff_t line, ptrdiff_t end, ptrdiff_t depth_start,
                     ptrdiff_t depth, ptrdiff_t tile, ptrdiff_t itemsize, char *packed) noexcept nogil:
    """Packs lines line .. line + tile of x, those from `end` on as zeros."""
    kernel.pack(x.data + (line * x.line_stride + depth_start * x.depth_stride) * itemsize, x.line_stride,
                x.depth_stride, min(tile, end - line), depth, tile, packed)


cdef multiply(operand a, operand b, np.ndarray bias, bint relu, np.ndarray c, ptrdiff_t depth):
    """c[M, N] = A[M, depth] B[depth, N] + bias[N] (or None), or its ReLU; c is C-contiguous, A and B have c's dtype."""
    cdef const gemm_kernels *kernel = kernels_for(c).gemm
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(c), rows = np.PyArray_DIM(c, 0), columns = np.PyArray_DIM(c, 1)
    cdef ptrdiff_t row_tile = kernel.row_tile, column_tile = kernel.column_tile
    if rows == 0 or columns == 0:
        return
    if depth == 0:
        c[...] = 0
        return
    cdef bint by_rows = depth <= SHALLOW and rows * columns * itemsize >= LARGE_BYTES
    # A short matrix is packed at all its depth, so that a small product is packed and multiplied once.
    cdef ptrdiff_t deepest = ROW_BYTES // (min(round_up(rows, row_tile), MOST_ROWS) * itemsize)
    cdef ptrdiff_t depth_block = min(depth, max(deepest // kernel.depth_block, 1) * kernel.depth_block)
    cdef ptrdiff_t row_block = even_block(rows, ROW_BYTES // (depth_block * itemsize), row_tile)
    cdef ptrdiff_t column_bytes = 2 * ROW_BYTES if by_rows else COLUMN_BYTES
    cdef ptrdiff_t column_block = even_block(columns, column_bytes // (depth_block * itemsize), column_tile)
    cdef Block memory = scratch((row_block + column_block) * depth_block * itemsize)
    cdef char *packed_a = <char *> memory.data
    cdef char *packed_b = packed_a + row_block * depth_block * itemsize
    cdef char *target = np.PyArray_BYTES(c)
    cdef char *first_bias = NULL if bias is None else np.PyArray_BYTES(bias)
    cdef ptrdiff_t column_start, depth_start, row_start, block_rows, block_columns, block_depth
    cdef ptrdiff_t row_panels, column_panels, fresh, step, first, task, row_tasks, rows_each
    cdef int pack_threads
    cdef int threads = threads_for(2.0 * rows * columns * depth / FLOP_PER_NANOSECOND)
    with nogil:
        column_start = 0
        while column_start < columns:
            block_columns = min(column_block, columns - column_start)
            column_panels = ceil_div(block_columns, column_tile)
            depth_start = 0
            while depth_start < depth:
                block_depth = min(depth_block, depth - depth_start)
                row_start = 0
                while row_start < rows:
                    block_rows = min(row_block, rows - row_start)
                    row_panels = ceil_div(block_rows, row_tile)
                    # Panels of B are packed with the first block of rows, and used by the others too.
                    fresh = column_panels if row_start == 0 else 0
                    pack_threads = threads_for(0.2 * block_depth * (fresh * column_tile + row_panels * row_tile))
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
                    rows_each = row_tile if by_rows else 4 * row_tile
                    while rows_each > row_tile and column_panels * ceil_div(block_rows, rows_each) < ENOUGH_TASKS:
                        rows_each = rows_each // 2
                    row_tasks = ceil_div(block_rows, rows_each)
                    # Neighbours share the panel: a few of them in turn to each thread.
                    for task in prange(column_panels * row_tasks, num_threads=threads, schedule="dynamic",
                                       chunksize=column_panels if by_rows else 4):
                        if by_rows:
                            step = task % column_panels * column_tile
                            first = task // column_panels * rows_each
                        else:
                            step = task // row_tasks * column_tile
                            first = task % row_tasks * rows_each
                        kernel.tile(
                            min(rows_each, block_rows - first), min(column_tile, block_columns - step), block_depth,
                            packed_a + first * block_depth * itemsize, packed_b + step * block_depth * itemsize,
                            NULL if first_bias == NULL or depth_start > 0
                            else first_bias + (column_start + step) * itemsize,
                            target + ((row_start + first) * columns + column_start + step) * itemsize, columns,
                            depth_start > 0)
                        if relu and depth_start + block_depth == depth:
                            kernel.rectify(
                                min(rows_each, block_rows - first), min(column_tile, block_columns - step),
                                target + ((row_start + first) * columns + column_start + step) * itemsize, columns)
                    row_start = row_start + block_rows
                depth_start = depth_start + block_depth
            column_start = column_start + block_columns


cdef multiply_few_by_lines(np.ndarray a, np.ndarray b, np.ndarray bias, bint relu, np.ndarray c):
    """c[M, N] = a[M, K] b[N, K]^T + bias[N], or its ReLU: every line of b is read once, where it lies."""
    cdef const gemm_kernels *kernel = kernels_for(c).gemm
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(c), rows = np.PyArray_DIM(c, 0), columns = np.PyArray_DIM(c, 1)
    cdef ptrdiff_t depth = np.PyArray_DIM(a, 1), task, start
    cdef ptrdiff_t tile = kernel.row_tile, panel = kernel.column_tile
    cdef int threads = threads_for(max(<double> itemsize * columns * depth / BYTES_PER_NANOSECOND,
                                       2.0 * rows * columns * depth / FLOP_PER_NANOSECOND))
    cdef ptrdiff_t most = max(1, TASK_BYTES // (itemsize * max(1, depth) * tile)) * tile
    cdef ptrdiff_t each = min(most, round_up(ceil_div(columns, 4 * threads), tile))
    cdef const char *few = np.PyArray_BYTES(a)
    cdef const char *lines = np.PyArray_BYTES(b)
    cdef char *first_bias = NULL if bias is None else np.PyArray_BYTES(bias)
    cdef char *target = np.PyArray_BYTES(c)
    cdef Block memory = scratch(0 if rows <= DOT_ROWS else round_up(rows, panel) * depth * itemsize)
    cdef char *packed = <char *> memory.data
    if rows == 0 or columns == 0:
        return
    if rows > DOT_ROWS:
        kernel.pack(few, depth, 1, rows, depth, panel, packed)
    for task in prange(ceil_div(columns, each), nogil=True, num_threads=threads, schedule="static"):
        start = task * each
        if rows <= DOT_ROWS:
            kernel.dot_rows(rows, min(each, columns - start), depth, few, lines + start * depth * itemsize,
                            NULL if first_bias == NULL else first_bias + start * itemsize,
                            target + start * itemsize, columns)
        else:
            kernel.tile_of_lines(min(each, columns - start), rows, depth, lines + start * depth * itemsize, packed,
                                 NULL if first_bias == NULL else first_bias + start * itemsize,
                                 target + start * itemsize, columns)
        if relu:
            kernel.rectify(rows, min(each, columns - start), target + start * itemsize, columns)


cdef multiply_few_by_rows(np.ndarray a, np.ndarray b, np.ndarray c):
    """c[M, N] = a[M, K] b[K, N]: every row of b is read once. Without a, c[1, N] is the sum of b's rows."""
    cdef const gemm_kernels *kernel = kernels_for(c).gemm
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(c), rows = np.PyArray_DIM(c, 0), columns = np.PyArray_DIM(c, 1)
    cdef ptrdiff_t depth = np.PyArray_DIM(b, 0), task, start
    cdef const char *few = NULL if a is None else np.PyArray_BYTES(a)
    cdef const char *source = np.PyArray_BYTES(b)
    cdef char *target = np.PyArray_BYTES(c)
    cdef int threads = threads_for(<double> itemsize * columns * depth / BYTES_PER_NANOSECOND)
    # As many columns as possible at a time, for long reads; every column's sum is the same however they are split.
    cdef ptrdiff_t each = min(kernel.stream_sums // max(1, rows) // 16 * 16, round_up(ceil_div(columns, threads), 16))
    if rows == 0 or columns == 0:
        return
    for task in prange(ceil_div(columns, each), nogil=True, num_threads=threads, schedule="static"):
        start = task * each
        kernel.stream_rows(rows, min(each, columns - start), depth, few, source + start * itemsize, columns,
                           target + start * itemsize, columns)


cdef operand rows_of(np.ndarray x):
    """The matrix x[line, depth]."""
    return operand(np.PyArray_BYTES(x), np.PyArray_DIM(x, 1), 1)


cdef operand columns_of(np.ndarray x):
    """The transpose of x: lines are x's columns."""
    return operand(np.PyArray_BYTES(x), 1, np.PyArray_DIM(x, 1))


def linear(np.ndarray x, np.ndarray weight, bias, bint relu=False):
    """y[N, M] = x[N, D] weight[M, D]^T + bias[M], or its ReLU."""
    x = contiguous(x)
    weight = contiguous(weight)
    cdef np.ndarray bias_values = None if bias is None else contiguous(bias)
    cdef np.npy_intp shape[2]
    shape[0], shape[1] = np.PyArray_DIM(x, 0), np.PyArray_DIM(weight, 0)
    cdef np.ndarray y = empty(2, shape, np.PyArray_TYPE(x))
    if np.PyArray_DIM(x, 1) == 0:
        y[...] = 0 if bias is None else np.maximum(bias, 0) if relu else bias
    elif shape[0] <= FEW_ROWS:
        multiply_few_by_lines(x, weight, bias_values, relu, y)
    else:
        multiply(rows_of(x), rows_of(weight), bias_values, relu, y, np.PyArray_DIM(x, 1))
    return y


def linear_backward(np.ndarray grad_output, np.ndarray x, np.ndarray weight, needs, np.ndarray out):
    """dx = dy weight, dweight = dy^T x (in out, unless None), dbias = the sum of dy's rows; None where not needed."""
    grad_output = contiguous(grad_output)
    x = contiguous(x)
    weight = contiguous(weight)
    cdef int typenum = np.PyArray_TYPE(x)
    cdef ptrdiff_t batch = np.PyArray_DIM(x, 0)
    cdef np.npy_intp row[2]
    cdef np.ndarray grad_x = None, grad_weight = None, grad_bias = None
    if needs[0]:
        grad_x = empty(2, np.PyArray_DIMS(x), typenum)
        if batch <= STREAM_ROWS:
            multiply_few_by_rows(grad_output, weight, grad_x)
        else:
            multiply(rows_of(grad_output), columns_of(weight), None, False, grad_x, np.PyArray_DIM(weight, 0))
    if needs[1]:
        grad_weight = empty(2, np.PyArray_DIMS(weight), typenum) if out is None else out
        multiply(columns_of(grad_output), columns_of(x), None, False, grad_weight, batch)
    if needs[2]:
        row[0], row[1] = 1, np.PyArray_DIM(weight, 0)
        grad_bias = empty(2, row, typenum)
        multiply_few_by_rows(None, grad_output, grad_bias)
        grad_bias = grad_bias[0]
    return grad_x, grad_weight, grad_bias

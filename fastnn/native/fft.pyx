"""Convolutions by Fourier transforms of tiles: work split and scratch memory. conv.pyx decides when.

The arguments are those of conv.pyx's functions, for two dimensions, without those that have only one value here.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, fft_geometry, fft_kernels, tiled_block, tiled_sum, tiled_weight)
from fastnn.native.runtime cimport (
    Block, ceil_div, channels_last, contiguous, either_layout, empty_in_layout, empty_of_shape, is_channels_last,
    kernels_for, scratch, threads_for)

import numpy as np

np.import_array()

# Transformed weights that are larger than this are computed by chunks, for many tiles at a time: bytes of these tiles'
# transformed patches, and of a thread's chunk with its products.
cdef ptrdiff_t WEIGHT_BYTES = 4 << 20
cdef ptrdiff_t MANY_PATCH_BYTES = 12 << 20
cdef ptrdiff_t STATISTICS_BYTES = 2 << 20  # less of them, where outputs are summed up
cdef ptrdiff_t MANY_TILES = 192
cdef ptrdiff_t CHUNK_BYTES = 3584 << 10
# Else the patches of a block stay in the cache, some of them in each thread's.
cdef ptrdiff_t PATCH_BYTES = 512 << 10
# A panel of many channels is cut, for all scratch memory together is at most 16 MB a thread.
cdef ptrdiff_t PANEL_BYTES = 8 << 20
cdef ptrdiff_t TASKS_PER_THREAD = 2
cdef ptrdiff_t TASK_FILTERS = 64
# Backward-weights: output channels and bytes of the products that are summed up at a time, and of a round's operands.
cdef ptrdiff_t SUM_ROWS = 96
cdef ptrdiff_t PRODUCT_BYTES = 5 << 20
cdef ptrdiff_t ROUND_BYTES = 4 << 20
cdef ptrdiff_t TASK_CHANNELS = 8
# Where all products are at most this, parts of the tiles are tasks, with products and smaller rounds of their own, and
# no thread waits for others: 100 images of 3x32x32 by 7x7 to 32 channels take 11 -> 7 ms on one thread, 9 -> 3.7 on
# two. Such parts at most, tiles of each at least, and bytes of their sums.
cdef ptrdiff_t OWN_BYTES = 2 << 20
cdef ptrdiff_t OWN_ROUND_BYTES = 1 << 20
cdef ptrdiff_t PARTS = 64
cdef ptrdiff_t PARTIAL_TILES = 32
cdef ptrdiff_t PARTIAL_BYTES = 8 << 20
cdef double FLOP_PER_NANOSECOND = 40.0


cdef fft_geometry make_geometry(np.ndarray x, ptrdiff_t out_channels, out_size, kernel, ptrdiff_t stride, padding):
    cdef fft_geometry geometry
    geometry.chunk_rows = 0
    geometry.images, geometry.channels, geometry.out_channels = x.shape[0], x.shape[1], out_channels
    geometry.stride, geometry.channels_last = stride, is_channels_last(x)
    for i in range(2):
        geometry.phases[i] = min(stride, kernel[i])
        geometry.channels *= geometry.phases[i]
        geometry.filter[i] = kernel[i]
        geometry.in_size[i] = x.shape[2 + i]
        geometry.out_size[i] = out_size[i]
        geometry.tile_size[i] = 17 - ceil_div(kernel[i], stride)
        geometry.tiles[i] = ceil_div(out_size[i], geometry.tile_size[i])
        geometry.padding[i] = padding[i]
    return geometry


cdef struct work_split:
    # Where vectors of tiles go evenly into blocks for all threads, each block is a task. Else all threads share one
    # block after the other: its tasks are a number of output channels times a part of its tiles. Blocks differ by one
    # vector at most.
    ptrdiff_t blocks
    ptrdiff_t vectors
    ptrdiff_t tile_block  # of the largest
    bint shared
    ptrdiff_t tile_part
    ptrdiff_t row_block


cdef work_split split(fft_geometry *geometry, const fft_kernels *kernel, ptrdiff_t tiles, ptrdiff_t itemsize,
                      bint by_chunks, bint statistics, ptrdiff_t threads):
    """Sets the geometry's chunk_rows too. No sum depends on any of it."""
    cdef ptrdiff_t rows = geometry.out_channels, tasks = TASKS_PER_THREAD * threads if threads > 1 else 1
    cdef ptrdiff_t row_tile = kernel.last_row_tile if geometry.channels_last else kernel.row_tile
    cdef ptrdiff_t lanes = kernel.lanes, tile_bytes = 256 * geometry.channels * itemsize, row_bytes, parts
    cdef ptrdiff_t many = MANY_PATCH_BYTES - (STATISTICS_BYTES if statistics else 0)
    cdef ptrdiff_t most, fewest = lanes if by_chunks else min(kernel.panel_tiles, PANEL_BYTES // tile_bytes)
    cdef work_split work
    work.vectors = ceil_div(tiles, lanes)
    work.shared = by_chunks or threads * ceil_div(work.vectors, threads) > 1.1 * work.vectors
    most = PATCH_BYTES // tile_bytes
    if work.shared:
        most = min(many // tile_bytes, MANY_TILES) if by_chunks else threads * most
    work.blocks = ceil_div(work.vectors, max(1, max(fewest, most) // lanes))
    if not work.shared:
        work.blocks = min(ceil_div(work.blocks, threads) * threads, work.vectors)
    work.tile_block = ceil_div(work.vectors, work.blocks) * lanes
    work.tile_part, geometry.chunk_rows = work.tile_block, min(row_tile, rows)
    if by_chunks:
        row_bytes = (384 * geometry.channels + 256 * work.tile_block) * itemsize
        geometry.chunk_rows = max(1, min(min(row_tile, ceil_div(rows, tasks)), CHUNK_BYTES // row_bytes))
        work.row_block = geometry.chunk_rows
        return work
    work.tile_part = min(kernel.panel_tiles, work.tile_block)
    parts = ceil_div(work.tile_block, work.tile_part)
    work.row_block = ceil_div(ceil_div(rows, geometry.chunk_rows), ceil_div(tasks, parts)) * geometry.chunk_rows
    return work


cdef tiled_block block_of(const work_split *work, ptrdiff_t lanes, ptrdiff_t tiles, ptrdiff_t index) noexcept nogil:
    cdef ptrdiff_t start = index * work.vectors // work.blocks * lanes
    cdef ptrdiff_t end = min((index + 1) * work.vectors // work.blocks * lanes, tiles)
    return tiled_block(start, end - start)


cdef struct operands:
    const fft_geometry *geometry
    const fft_kernels *kernel
    const tiled_weight *weight
    const char *source
    const conv_epilogue *epilogue
    char *target


cdef void own_block(const operands *o, tiled_block block, ptrdiff_t tile_part, char *patches,
                    char *own_scratch) noexcept nogil:
    """All of a block of tiles, by one thread."""
    cdef ptrdiff_t part, tile
    o.kernel.transform_tiles(o.geometry, o.source, &block, 0, block.tiles, 0, o.geometry.channels, patches, own_scratch)
    for part in range(ceil_div(block.tiles, tile_part)):
        tile = part * tile_part
        o.kernel.multiply_tiles(o.geometry, o.weight, patches, &block, tile, min(tile_part, block.tiles - tile), 0,
                                o.geometry.out_channels, o.epilogue, o.target, own_scratch)


cdef void shared_block(const operands *o, tiled_block block, const work_split *work, int threads, char *patches,
                       char *own_scratch, ptrdiff_t scratch_bytes) noexcept nogil:
    """All of a block of tiles, by all threads: first its patches, then the products with them."""
    cdef ptrdiff_t channels = o.geometry.channels, rows = o.geometry.out_channels, lanes = o.kernel.lanes
    cdef ptrdiff_t vectors = ceil_div(block.tiles, lanes), task, tile, first
    cdef ptrdiff_t part = ceil_div(channels, ceil_div(4 * threads, vectors)), channel_parts = ceil_div(channels, part)
    cdef ptrdiff_t tile_parts = ceil_div(block.tiles, work.tile_part)
    for task in prange(channel_parts * vectors, num_threads=threads, schedule="dynamic"):
        tile = task % vectors * lanes
        first = task // vectors * part
        o.kernel.transform_tiles(o.geometry, o.source, &block, tile, min(lanes, block.tiles - tile), first,
                                 min(part, channels - first), patches, own_scratch + threadid() * scratch_bytes)
    for task in prange(ceil_div(rows, work.row_block) * tile_parts, num_threads=threads, schedule="dynamic"):
        tile = task % tile_parts * work.tile_part
        first = task // tile_parts * work.row_block
        o.kernel.multiply_tiles(o.geometry, o.weight, patches, &block, tile, min(work.tile_part, block.tiles - tile),
                                first, min(work.row_block, rows - first), o.epilogue, o.target,
                                own_scratch + threadid() * scratch_bytes)


cdef correlate(fft_geometry *geometry, np.ndarray source, tiled_weight weight, Epilogue epilogue, np.ndarray target):
    """Transforms the weights, then computes blocks of tiles."""
    cdef const fft_kernels *kernel = kernels_for(source).fft
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(source), channels = geometry.channels, rows = geometry.out_channels
    cdef ptrdiff_t tiles = geometry.images * geometry.tiles[0] * geometry.tiles[1], task
    if tiles * rows == 0:
        epilogue.over(0, target)
        return
    cdef int threads = threads_for(tiles * (764.0 * rows * channels / FLOP_PER_NANOSECOND + 45.0 * (rows + channels)))
    cdef bint by_chunks = 384 * rows * channels * itemsize > WEIGHT_BYTES
    cdef work_split work = split(geometry, kernel, tiles, itemsize, by_chunks, epilogue.statistics, threads)
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(geometry, work.tile_part, not by_chunks)
    cdef ptrdiff_t chunks = ceil_div(rows, geometry.chunk_rows)
    cdef ptrdiff_t parts = ceil_div(geometry.chunk_rows * channels, TASK_FILTERS)
    cdef ptrdiff_t weight_bytes = 0 if by_chunks else kernel.weight_size(geometry)
    cdef ptrdiff_t patch_bytes = kernel.patches_size(geometry, work.tile_block)
    cdef ptrdiff_t all_patch_bytes = patch_bytes if work.shared else threads * patch_bytes
    cdef Block memory = scratch(weight_bytes + all_patch_bytes + threads * scratch_bytes)  # each a multiple of 64
    cdef operands o = operands(geometry, kernel, &weight, np.PyArray_BYTES(source),
                               epilogue.over(ceil_div(tiles, kernel.lanes), target), np.PyArray_BYTES(target))
    cdef char *transformed = <char *> memory.data
    cdef char *patches = transformed + weight_bytes
    cdef char *thread_scratch = patches + all_patch_bytes
    with nogil:
        if not by_chunks:
            for task in prange(chunks * parts, num_threads=threads_for(50.0 * rows * channels), schedule="static"):
                kernel.transform_weight(geometry, &weight, task // parts * geometry.chunk_rows,
                                        task % parts * TASK_FILTERS, TASK_FILTERS, transformed)
            weight.transformed = transformed
        if work.shared:
            for task in range(work.blocks):
                shared_block(&o, block_of(&work, kernel.lanes, tiles, task), &work, threads, patches, thread_scratch,
                             scratch_bytes)
        else:
            for task in prange(work.blocks, num_threads=threads, schedule="static"):
                own_block(&o, block_of(&work, kernel.lanes, tiles, task), work.tile_part,
                          patches + threadid() * patch_bytes, thread_scratch + threadid() * scratch_bytes)


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, ptrdiff_t stride, padding):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C, R, S), through an epilogue."""
    weight = contiguous(weight)
    cdef ptrdiff_t taps = weight.shape[2] * weight.shape[3]
    cdef fft_geometry geometry = make_geometry(x, weight.shape[0], (<object> y).shape[2:], (<object> weight).shape[2:],
                                               stride, padding)
    correlate(&geometry, x, tiled_weight(np.PyArray_BYTES(weight), taps * weight.shape[1], taps, 0, NULL), epilogue, y)


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue, in_size, padding):
    """The gradient (N, C, *in_size) by the input: a convolution of `grad` with the turned, transposed weights."""
    grad, weight = either_layout(grad), contiguous(weight)
    cdef ptrdiff_t channels = weight.shape[1], taps = weight.shape[2] * weight.shape[3]
    cdef tuple kernel = (<object> weight).shape[2:]
    cdef np.ndarray result = empty_in_layout(grad, (grad.shape[0], channels, *in_size))
    cdef fft_geometry geometry = make_geometry(grad, channels, in_size, kernel, 1,
                                               [k - 1 - p for k, p in zip(kernel, padding, strict=True)])
    cdef tiled_weight view = tiled_weight(np.PyArray_BYTES(weight), taps, taps * channels, 1, NULL)
    correlate(&geometry, grad, view, epilogue, result)
    return result


cdef ptrdiff_t part_size(const fft_geometry *geometry, const fft_kernels *kernel, ptrdiff_t tiles, ptrdiff_t itemsize):
    """Tiles that are summed up by themselves, by the shape alone: all of them unless the products are small."""
    cdef ptrdiff_t rows = ceil_div(geometry.out_channels, kernel.lanes) * kernel.lanes
    cdef ptrdiff_t channels = geometry.channels // (geometry.phases[0] * geometry.phases[1])
    cdef ptrdiff_t weights = geometry.out_channels * channels * geometry.filter[0] * geometry.filter[1]
    cdef ptrdiff_t parts = min(min(PARTS, tiles // PARTIAL_TILES), 1 + PARTIAL_BYTES // (weights * itemsize))
    if geometry.out_channels > SUM_ROWS or 256 * rows * geometry.channels * itemsize > OWN_BYTES or parts <= 1:
        return tiles
    return ceil_div(ceil_div(tiles, parts), kernel.lanes) * kernel.lanes


cdef tiled_sum largest_sum(const fft_geometry *geometry, const fft_kernels *kernel, ptrdiff_t tiles,
                           ptrdiff_t round_bytes, ptrdiff_t itemsize):
    """What is summed up at a time, by the shape alone, for the order of the sums is that of the rounds."""
    cdef ptrdiff_t lanes = kernel.lanes, most
    cdef tiled_sum largest
    largest.row_start = largest.channel_start = largest.tile_start = 0
    largest.rows = min(geometry.out_channels, SUM_ROWS)
    most = PRODUCT_BYTES // (256 * itemsize * ceil_div(largest.rows, lanes) * lanes)
    largest.channels = min(geometry.channels, max(1, most // kernel.row_tile) * kernel.row_tile)
    most = round_bytes // ((384 * largest.channels + 256 * ceil_div(largest.rows, lanes) * lanes) * itemsize)
    largest.room = min(ceil_div(tiles, lanes), max(1, most // lanes)) * lanes
    largest.tiles = largest.room
    return largest


cdef struct sum_operands:
    const fft_geometry *geometry
    const fft_kernels *kernel
    const char *source
    const char *gradient
    char *patches
    char *gradients
    char *products
    double *bias_sums  # [vector of tiles of the round][K]
    ptrdiff_t vector_sums  # so many
    char *own_scratch
    ptrdiff_t sizes[4]


cdef void transform_round(const sum_operands *o, const tiled_sum *part, bint with_gradients,
                          int threads) noexcept nogil:
    cdef ptrdiff_t lanes = o.kernel.lanes, most = lanes if o.geometry.channels_last else TASK_CHANNELS
    cdef ptrdiff_t groups = ceil_div(part.channels, most), task, tile, group
    cdef ptrdiff_t all_groups = groups + (ceil_div(part.rows, lanes) if with_gradients else 0)
    for task in prange(part.room // lanes * all_groups, num_threads=threads, schedule="dynamic"):
        tile = task // all_groups * lanes
        group = task % all_groups
        if group < groups:
            o.kernel.transform_sum_patches(o.geometry, part, o.source, tile, group * most,
                                           min(most, part.channels - group * most), o.patches,
                                           o.own_scratch + threadid() * o.sizes[3])
        else:
            o.kernel.transform_sum_gradients(o.geometry, part, o.gradient, tile, (group - groups) * lanes, o.gradients,
                                             o.bias_sums, o.own_scratch + threadid() * o.sizes[3])


cdef void sum_tiles(const sum_operands *o, const tiled_sum *largest, ptrdiff_t start, ptrdiff_t end, int threads,
                    char *target, double *bias) noexcept nogil:
    """target (K, C, R, S) = the sums over tiles start .. end: block by block of the weights, each round by round; bias
    (K) = those of the gradient."""
    cdef ptrdiff_t rows = o.geometry.out_channels, channels = o.geometry.channels, row, channel, sum_round, task
    cdef ptrdiff_t vectors
    cdef ptrdiff_t rounds = ceil_div(end - start, largest.room)
    cdef tiled_sum part = largest[0]
    for row in range(ceil_div(rows, largest.rows)):
        for channel in range(ceil_div(channels, largest.channels)):
            part.row_start, part.channel_start = row * largest.rows, channel * largest.channels
            part.rows = min(largest.rows, rows - part.row_start)
            part.channels = min(largest.channels, channels - part.channel_start)
            for sum_round in range(rounds):
                part.tile_start = start + sum_round * largest.room
                part.tiles = min(largest.room, end - part.tile_start)
                # The gradients of a single round are still there from the channels before.
                transform_round(o, &part, rounds > 1 or channel == 0, threads)
                vectors = ceil_div(part.tiles, o.kernel.lanes) if channel == 0 else 0
                for task in range(vectors * part.rows):
                    bias[part.row_start + task % part.rows] += o.bias_sums[task]
                for task in prange(128, num_threads=threads, schedule="dynamic"):
                    o.kernel.multiply_sum(&part, task, o.gradients, o.patches, sum_round > 0, o.products)
            for task in prange(part.channels, num_threads=threads, schedule="dynamic"):
                o.kernel.store_sum(o.geometry, &part, task, o.products, target)


cdef void sum_part(sum_operands o, const tiled_sum *largest, ptrdiff_t start, ptrdiff_t end, ptrdiff_t thread,
                   char *target, double *bias) noexcept nogil:
    """One part by one thread, in memory of its own."""
    o.patches += thread * o.sizes[0]
    o.gradients += thread * o.sizes[1]
    o.products += thread * o.sizes[2]
    o.own_scratch += thread * o.sizes[3]
    o.bias_sums += thread * o.vector_sums
    sum_tiles(&o, largest, start, end, 1, target, bias)


def conv_weight_grad(np.ndarray grad, np.ndarray x, tuple kernel, ptrdiff_t stride, padding):
    """The gradient (K, C, R, S) by the weight, from the output's gradient and the input; and the sums of the output's
    gradient (parts, K)."""
    x = either_layout(x)
    grad = channels_last(grad) if is_channels_last(x) else contiguous(grad)
    cdef ptrdiff_t rows = grad.shape[1], itemsize = np.PyArray_ITEMSIZE(x)
    cdef fft_geometry geometry = make_geometry(x, rows, (<object> grad).shape[2:], kernel, stride, padding)
    cdef const fft_kernels *kernels = kernels_for(x).fft
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef ptrdiff_t tiles = geometry.images * geometry.tiles[0] * geometry.tiles[1], channels = geometry.channels
    cdef np.ndarray result = empty_of_shape((rows, x.shape[1], *kernel), np.PyArray_TYPE(x))
    if tiles == 0:
        result[...] = 0
        return result, np.zeros((1, rows))
    cdef ptrdiff_t part_tiles = part_size(&geometry, kernels, tiles, itemsize), parts = ceil_div(tiles, part_tiles)
    cdef ptrdiff_t weights = x.shape[1] * geometry.filter[0] * geometry.filter[1], part_bytes, task
    cdef np.ndarray bias_sums = np.zeros((parts, rows))
    cdef int threads = threads_for(tiles * (764.0 * rows * channels / FLOP_PER_NANOSECOND + 60.0 * (rows + channels)))
    cdef int places = 1 if parts == 1 else threads
    cdef tiled_sum largest = largest_sum(&geometry, kernels, part_tiles, ROUND_BYTES if parts == 1 else OWN_ROUND_BYTES,
                                         itemsize)
    cdef sum_operands o
    o.geometry, o.kernel = &geometry, kernels
    o.source, o.gradient = np.PyArray_BYTES(x), np.PyArray_BYTES(grad)
    kernels.sum_sizes(&geometry, &largest, o.sizes)
    o.vector_sums = largest.room // kernels.lanes * largest.rows
    part_bytes = rows * weights * itemsize
    cdef Block patches = scratch(places * o.sizes[0]), gradients = scratch(places * o.sizes[1])
    cdef Block products = scratch(places * o.sizes[2]), own_scratch = scratch(threads * o.sizes[3])
    cdef Block sums = scratch(places * o.vector_sums * sizeof(double))
    cdef Block partial_memory = scratch((parts - 1) * part_bytes)
    o.patches, o.gradients = <char *> patches.data, <char *> gradients.data
    o.products, o.own_scratch = <char *> products.data, <char *> own_scratch.data
    o.bias_sums = <double *> sums.data
    cdef char *target = np.PyArray_BYTES(result)
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    cdef double *bias = <double *> np.PyArray_DATA(bias_sums)
    with nogil:
        if parts == 1:
            sum_tiles(&o, &largest, 0, tiles, threads, target, bias)
        else:
            for task in prange(parts, num_threads=threads, schedule="dynamic"):
                sum_part(o, &largest, task * part_tiles, min((task + 1) * part_tiles, tiles), threadid(),
                         partials + (task - 1) * part_bytes if task > 0 else target, bias + task * rows)
            reduction.add_parts(partials, parts - 1, rows * weights, rows * weights, target)
    return result, bias_sums

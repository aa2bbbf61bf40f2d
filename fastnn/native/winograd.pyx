"""Convolutions by Winograd's algorithm: work split and scratch memory. conv.pyx decides when.

The arguments are those of conv.pyx's functions, for two dimensions, without those that have only one value here.
"""
cimport numpy as np
from cython.parallel cimport prange, threadid
from libc.string cimport memcmp
from fastnn.native.epilogue cimport Epilogue
from fastnn.native.kernels cimport (
    conv_backward_kernels, conv_epilogue, tiled_block, tiled_sum, tiled_weight, winograd_geometry, winograd_kernels,
    winograd_weight_kernels)
from fastnn.native.runtime cimport (
    Block, ceil_div, channels_last, contiguous, either_layout, empty_in_layout, empty_of_shape, is_channels_last,
    kernels_for, scratch, share, shares_for, take_task, threads_for)

import numpy as np

from fastnn.conv_algorithm import taps_per_phase, winograd_blocks
from fastnn.native.runtime import second_level_cache

np.import_array()

cdef ptrdiff_t OWN_CACHE = min(second_level_cache(), 4 << 20)
# Tiles of 4x4 outputs that a thread computes together: enough that reading the transformed weights does not weigh, as
# long as their transformed patches keep within this many bytes; half as many where their patches, products and a chunk
# of weights fit into the core's own cache then (64 channels at 56x56, one thread: 5.9 -> 5.4 ms).
cdef ptrdiff_t TILE_BLOCK = 96
cdef ptrdiff_t PATCH_BYTES = 6 << 20
# Transformed weights that are larger than this are computed by chunks that stay in the cache, which takes 512 x 512
# channels at 7x7 from 143 to 230 GFLOP/s; so that this happens only once or twice, all threads share such patches. A
# chunk reads all of them, from the cache that cores share: with 2 MB of a core's own, chunks of 1.2 in place of 0.6 MB
# are 5 to 20 % faster, but for few tiles, where they are 5 to 10 % slower.
cdef ptrdiff_t WEIGHT_BYTES = 4 << 20
cdef ptrdiff_t CHUNK_BYTES = OWN_CACHE * 3 // 5
cdef ptrdiff_t SHARED_PATCH_BYTES = 12 << 20
# Transformed weights that are kept from call to call, where somebody does, at most: larger ones are read back no faster
# than they are transformed.
cdef ptrdiff_t KEPT_BYTES = 4 << 20
# Tiles at most in calls that keep them: with more, transforming weights takes no time to speak of, and another layout.
cdef ptrdiff_t KEPT_TILES = 192
# Where tiles are fewer than a panel, bytes of a chunk; and where the lanes are channels, of a part of one.
cdef ptrdiff_t FEW_CHUNK_BYTES = 300 << 10
cdef ptrdiff_t PART_BYTES = min(CHUNK_BYTES, 900 << 10)
cdef ptrdiff_t PART_PRODUCT_BYTES = 2 << 20
cdef ptrdiff_t TASKS_PER_THREAD = 2
# Backward-weights: bytes of the products that are summed up at a time, output channels among them at least where there
# are as many, and bytes of the operands of a round. More products transform fewer operands again, but come from the
# cache that cores share, which is large where their own is: with 2 MB, 10 in place of 5 MB are up to 13 % faster.
# The order of the sums is that of the fewer, on every machine.
cdef ptrdiff_t FEWER_PRODUCT_BYTES = 5 << 20
cdef ptrdiff_t PRODUCT_BYTES = min(max(FEWER_PRODUCT_BYTES, 5 * OWN_CACHE), 10 << 20)
cdef ptrdiff_t SUM_ROWS = 256
cdef ptrdiff_t ROUND_BYTES = 2 << 20
# A round has at least one panel of tiles: bytes of its patches, and of its gradients.
cdef ptrdiff_t GROUP_BYTES = 3 << 20
cdef ptrdiff_t ROW_BYTES = 4 << 20
# Partial sums at most, tiles of each at least, and bytes of all but the first, which are the result, and of products.
cdef ptrdiff_t PARTS = 64
cdef ptrdiff_t PARTIAL_TILES = 192
cdef ptrdiff_t PARTIAL_BYTES = 7 << 20
# A part is computed by one thread, in memory of its own of so much at most unless there are many parts, or by all
# together, who then wait for each other twice a round: so many do the work of half as many.
cdef ptrdiff_t OWN_BYTES = 4 << 20
cdef double WAITING_THREADS = 16.0
cdef double FLOP_PER_NANOSECOND = 40.0


cdef ptrdiff_t tile_count(const winograd_geometry *geometry) noexcept nogil:
    return geometry.images * ceil_div(geometry.grid[0], 4) * ceil_div(geometry.grid[1], 4)


cdef ptrdiff_t positions_of(const winograd_geometry *geometry) noexcept nogil:
    return geometry.points * geometry.points


cdef winograd_geometry make_geometry(np.ndarray x, ptrdiff_t out_channels, out_size, kernel, ptrdiff_t stride,
                                     padding):
    cdef winograd_geometry geometry
    geometry.chunk_rows, geometry.part_channels, geometry.channels_last = 0, 0, is_channels_last(x)
    geometry.images, geometry.channels, geometry.out_channels = x.shape[0], x.shape[1], out_channels
    geometry.stride, geometry.phases = stride, 1
    most, blocks = winograd_blocks(tuple(kernel), (stride, stride))
    geometry.points = most + 3
    for i, cut in enumerate(blocks):
        geometry.blocks[i], geometry.whole[i] = len(cut), 1
        for block, (first, taps) in enumerate(cut):
            geometry.block[i][block], geometry.taps[i][block] = first, taps
            if taps == most:
                geometry.whole[i] = block + 1
        geometry.channels *= geometry.blocks[i]
        geometry.filter[i] = kernel[i]
        geometry.in_size[i] = x.shape[2 + i]
        geometry.out_size[i] = geometry.grid[i] = out_size[i]
        geometry.padding[i] = padding[i]
        geometry.lead[i] = geometry.lacking[i] = 0
    return geometry


cdef winograd_geometry make_phases(np.ndarray grad, ptrdiff_t channels, in_size, kernel, ptrdiff_t stride, padding):
    """Backward-data of a stride. As if the filter was filled up in front, with `missing` zeros, to whole taps of each
    phase: then pixel q of the gradient's grid, and `taps` - 1 before it, make stride * q - padding - missing and the
    next outputs."""
    cdef winograd_geometry geometry = make_geometry(grad, channels, in_size, (2, 2), 1, (0, 0))
    cdef ptrdiff_t taps = max(taps_per_phase(kernel, (stride, stride))), missing
    geometry.points, geometry.phases = taps + 3, stride
    for i in range(2):
        missing = taps * stride - kernel[i]
        geometry.filter[i], geometry.taps[i][0] = kernel[i], taps
        geometry.lacking[i] = min(stride, missing)
        geometry.padding[i] = taps - 1 - (padding[i] + missing) // stride
        geometry.lead[i] = (padding[i] + missing) % stride
        geometry.grid[i] = ceil_div(in_size[i] + geometry.lead[i], stride)
    return geometry


cdef struct work_split:
    # Where there are enough blocks of tiles, each is a task. Else all threads share one block after the other: its
    # tasks are a number of output channels times a part of its tiles. Blocks differ by one unit of tiles at most.
    ptrdiff_t blocks
    ptrdiff_t unit
    ptrdiff_t units
    ptrdiff_t tile_block  # of the largest
    bint shared
    bint by_chunks  # weights are transformed where they are used
    ptrdiff_t row_block
    ptrdiff_t tile_part


cdef bint lanes_are_channels(const winograd_geometry *geometry, ptrdiff_t lanes, ptrdiff_t itemsize, bint turned):
    """Whether the lanes of a vector are channels, not tiles: always with channels last. With channels first, patches
    and outputs are transposed then, which takes as long as 16 products of each. This saves the products of tiles that
    only fill up a vector, and on weights those of 8 tiles where they are large, of 12 in backward-data (`turned`)."""
    cdef ptrdiff_t tiles = tile_count(geometry), rows = geometry.phases * geometry.phases * geometry.out_channels
    cdef ptrdiff_t channels = geometry.channels, weights = rows * channels
    cdef ptrdiff_t saved = ceil_div(tiles, lanes) * lanes - tiles
    if turned:
        saved += 12
    elif positions_of(geometry) * weights * itemsize > WEIGHT_BYTES:
        saved += 8
    return geometry.channels_last or saved * weights > 16 * tiles * (channels + rows)


cdef ptrdiff_t chunk_of_tiles(const winograd_geometry *geometry, const winograd_kernels *kernel,
                              const work_split *work, ptrdiff_t row_bytes, ptrdiff_t threads):
    """Output channels that are computed together, where tiles are the lanes."""
    cdef ptrdiff_t phases = geometry.phases * geometry.phases, rows = phases * geometry.out_channels
    cdef ptrdiff_t row_tile = kernel.row_tile, chunk = kernel.chunk_tiles, chunk_bytes
    if work.shared:
        chunk = ceil_div(rows, row_tile * TASKS_PER_THREAD * threads)
    if work.by_chunks:
        chunk_bytes = CHUNK_BYTES if work.tile_block >= kernel.panel_tiles else FEW_CHUNK_BYTES
        chunk = min(chunk, chunk_bytes // (row_bytes * row_tile))
    chunk = max(1, min(kernel.chunk_tiles, min(chunk, ceil_div(rows, row_tile))))
    return ceil_div(chunk * row_tile, phases)


cdef ptrdiff_t chunk_of_channels(const winograd_geometry *geometry, const winograd_kernels *kernel,
                                 const work_split *work, ptrdiff_t vector_bytes, ptrdiff_t threads):
    """The same, where channels are the lanes: so many vectors that threads have the same to do. Vectors that do not
    fill a panel cost 5 % each, and reading all patches again for the next chunk 10 % of a vector."""
    cdef ptrdiff_t vectors = ceil_div(geometry.out_channels, kernel.lanes), most = kernel.chunk_tiles, best = 1, chunk
    cdef ptrdiff_t panel = kernel.panel_tiles // kernel.lanes, panels
    cdef ptrdiff_t parts = threads if work.shared else 1
    cdef double cost, least = 0
    if work.by_chunks:
        most = max(2, min(most, PART_BYTES // vector_bytes))
    for chunk in range(1, min(most, vectors) + 1):
        panels = ceil_div(chunk, panel)
        cost = 1 + 0.05 * (panel - <double> chunk / panels) + 0.1 / chunk
        cost *= ceil_div(ceil_div(vectors, chunk), parts) * chunk
        if chunk == 1 or cost < least:
            best, least = chunk, cost
    return best * kernel.lanes


cdef work_split split(winograd_geometry *geometry, const winograd_kernels *kernel, ptrdiff_t itemsize,
                      ptrdiff_t threads, bint statistics, bint keep):
    """Sets the geometry's chunk_rows and part_channels too. No sum depends on any of it. For statistics, blocks are
    panels. If `keep` is set, weights are transformed beforehand unless they are large."""
    cdef ptrdiff_t tiles = tile_count(geometry), channels = geometry.out_channels
    cdef ptrdiff_t rows = geometry.phases * geometry.phases * channels
    cdef ptrdiff_t tile_bytes = positions_of(geometry) * geometry.channels * itemsize
    cdef ptrdiff_t row_length = ceil_div(geometry.channels, kernel.lanes) * kernel.lanes
    cdef ptrdiff_t row_bytes = positions_of(geometry) * row_length * itemsize
    cdef ptrdiff_t tasks = TASKS_PER_THREAD * threads, tile_tasks = tasks
    cdef bint large = row_bytes * rows > WEIGHT_BYTES
    cdef bint by_channels = kernel.weight_rows > 1
    cdef ptrdiff_t blocks, chunk, vector_bytes, most_panels
    cdef work_split work
    work.unit = kernel.panel_tiles if statistics else kernel.tile_step
    work.units = ceil_div(tiles, work.unit)
    work.tile_block = max(kernel.tile_step, min(PATCH_BYTES // tile_bytes, TILE_BLOCK))
    chunk = min(rows, kernel.chunk_tiles * kernel.row_tile)
    if row_bytes * chunk + (tile_bytes + positions_of(geometry) * chunk * itemsize) * TILE_BLOCK // 2 <= OWN_CACHE:
        work.tile_block = min(work.tile_block, TILE_BLOCK // 2)
    blocks = ceil_div(tiles, work.tile_block)
    work.shared = large or blocks < threads
    if work.shared:
        blocks = ceil_div(work.units, max(1, SHARED_PATCH_BYTES // tile_bytes // work.unit))
    else:
        blocks = ceil_div(blocks, threads) * threads
    work.blocks = min(blocks, work.units)
    work.tile_block = ceil_div(work.units, work.blocks) * work.unit
    work.by_chunks = large or ((work.shared or tiles <= kernel.few_tiles) and work.blocks == 1 and not keep)

    if not by_channels:
        geometry.chunk_rows = chunk_of_tiles(geometry, kernel, &work, row_bytes, threads)
    else:
        geometry.part_channels = min(geometry.channels, kernel.depth_block) if work.by_chunks else geometry.channels
        vector_bytes = positions_of(geometry) * geometry.part_channels * (rows // channels) * kernel.lanes * itemsize
        geometry.chunk_rows = chunk_of_channels(geometry, kernel, &work, vector_bytes, threads)
    work.row_block, work.tile_part = channels, work.tile_block
    if work.shared:
        work.row_block = ceil_div(ceil_div(channels, geometry.chunk_rows), tasks) * geometry.chunk_rows
        tile_tasks = ceil_div(tasks, ceil_div(channels, work.row_block))
        work.tile_part = ceil_div(ceil_div(work.tile_block, tile_tasks), kernel.panel_tiles) * kernel.panel_tiles
        if work.by_chunks and by_channels:  # products of all of them are kept from part to part
            tile_bytes = positions_of(geometry) * (rows // channels) * geometry.chunk_rows * itemsize
            most_panels = max(1, PART_PRODUCT_BYTES // (tile_bytes * kernel.panel_tiles))
            work.tile_part = min(work.tile_part, most_panels * kernel.panel_tiles)
    return work


cdef tiled_block block_of(const work_split *work, ptrdiff_t tiles, ptrdiff_t index) noexcept nogil:
    cdef ptrdiff_t start = index * work.units // work.blocks * work.unit
    cdef ptrdiff_t end = min((index + 1) * work.units // work.blocks * work.unit, tiles)
    return tiled_block(start, end - start)


cdef struct operands:
    const winograd_geometry *geometry
    const winograd_kernels *kernel
    const tiled_weight *weight
    const char *source
    const conv_epilogue *epilogue
    char *target


cdef void own_block(const operands *o, tiled_block block, char *patches, char *own_scratch) noexcept nogil:
    """All of a block of tiles, by one thread."""
    o.kernel.transform_tiles(o.geometry, o.source, &block, 0, block.tiles, 0, o.geometry.channels, patches)
    o.kernel.multiply_tiles(o.geometry, o.weight, patches, &block, 0, block.tiles, 0, o.geometry.out_channels,
                            o.epilogue, o.target, own_scratch)


cdef void shared_block(const operands *o, tiled_block block, const work_split *work, int threads, char *patches,
                       char *own_scratch, ptrdiff_t scratch_bytes) noexcept nogil:
    """All of a block of tiles, by all threads: first its patches, then the products with them."""
    cdef ptrdiff_t channels = o.geometry.channels, rows = o.geometry.out_channels, task, tile, first
    cdef ptrdiff_t panel = o.kernel.panel_tiles, panels = ceil_div(block.tiles, panel)
    cdef ptrdiff_t lanes = o.kernel.lanes
    cdef ptrdiff_t part = ceil_div(ceil_div(channels, TASKS_PER_THREAD * threads), lanes) * lanes
    cdef ptrdiff_t channel_parts = ceil_div(channels, part)
    cdef ptrdiff_t tile_parts = ceil_div(block.tiles, work.tile_part)
    for task in prange(channel_parts * panels, num_threads=threads, schedule="dynamic"):
        tile = task % panels * panel
        first = task // panels * part
        o.kernel.transform_tiles(o.geometry, o.source, &block, tile, min(panel, block.tiles - tile), first,
                                 min(part, channels - first), patches)
    for task in prange(ceil_div(rows, work.row_block) * tile_parts, num_threads=threads, schedule="dynamic"):
        tile = task % tile_parts * work.tile_part
        first = task // tile_parts * work.row_block
        o.kernel.multiply_tiles(o.geometry, o.weight, patches, &block, tile, min(work.tile_part, block.tiles - tile),
                                first, min(work.row_block, rows - first), o.epilogue, o.target,
                                own_scratch + threadid() * scratch_bytes)


cdef np.ndarray recall(object kept, tuple layout, np.ndarray weight):
    """The transformed weights that are kept in this layout of this very weight, or None."""
    if kept.state is None:
        return None
    old_layout, old_weight, transformed = kept.state
    if layout != old_layout:
        return None
    cdef np.ndarray old = old_weight
    return transformed if memcmp(np.PyArray_DATA(old), np.PyArray_DATA(weight), weight.nbytes) == 0 else None


cdef correlate(winograd_geometry *geometry, np.ndarray source, tiled_weight weight, np.ndarray weights,
               Epilogue epilogue, np.ndarray target, kept=None):
    """Transforms the weights, unless they are kept, then computes blocks of tiles."""
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(source), channels = geometry.channels, rows = geometry.out_channels
    cdef ptrdiff_t tiles = tile_count(geometry), positions = positions_of(geometry), task
    if tiles == 0:
        epilogue.over(0, target)
        return
    cdef const winograd_kernels *kernel = kernels_for(source).winograd
    if lanes_are_channels(geometry, kernel.lanes, itemsize, weight.turned):
        kernel = kernels_for(source).winograd_channels
    cdef int phases = geometry.phases * geometry.phases
    cdef int threads = threads_for(2.0 * positions * phases * rows * channels * tiles / FLOP_PER_NANOSECOND)
    cdef bint keep = kept is not None and tiles <= KEPT_TILES
    cdef work_split work = split(geometry, kernel, itemsize, threads, epilogue.statistics, keep)
    cdef ptrdiff_t tile_block = min(work.tile_block, tiles)
    cdef ptrdiff_t patch_bytes = kernel.patches_size(geometry, tile_block)
    cdef ptrdiff_t scratch_bytes = kernel.scratch_size(geometry, min(work.tile_part, tile_block), not work.by_chunks)
    cdef ptrdiff_t weight_bytes = 0 if work.by_chunks else kernel.weight_size(geometry)
    cdef bint transforms = not work.by_chunks
    keep = keep and 0 < weight_bytes <= KEPT_BYTES
    cdef tuple layout
    cdef np.ndarray found
    cdef Block weight_memory
    cdef Block patch_memory = scratch(patch_bytes if work.shared else threads * patch_bytes)
    cdef Block thread_memory = scratch(threads * scratch_bytes)
    cdef operands o = operands(geometry, kernel, &weight, np.PyArray_BYTES(source),
                               epilogue.over(ceil_div(tiles, kernel.panel_tiles), target), np.PyArray_BYTES(target))
    if keep:
        layout = (<size_t> kernel, geometry.chunk_rows, geometry.stride, (<object> weights).shape)
        found = recall(kept, layout, weights)
        transforms = found is None
        if transforms:
            weights = weights.copy()  # another Python thread may write to them meanwhile
            weight.data = np.PyArray_DATA(weights)
            found = empty_of_shape((weight_bytes,), np.NPY_UINT8)
        weight.transformed = np.PyArray_DATA(found)
    elif transforms:
        weight_memory = scratch(weight_bytes)
        weight.transformed = weight_memory.data
    cdef char *patches = <char *> patch_memory.data
    cdef char *thread_scratch = <char *> thread_memory.data
    cdef Block shares = shares_for(threads)
    cdef ptrdiff_t thread
    with nogil:
        if transforms:
            for task in prange(ceil_div(rows, kernel.weight_rows), schedule="static",
                               num_threads=threads_for(10.0 * phases * rows * channels)):
                kernel.transform_weight(geometry, &weight, task * kernel.weight_rows, <void *> weight.transformed)
        if work.shared:
            for task in range(work.blocks):
                shared_block(&o, block_of(&work, tiles, task), &work, threads, patches, thread_scratch, scratch_bytes)
        else:
            for thread in prange(threads, num_threads=threads, schedule="static"):
                task = take_task(<share *> shares.data, thread, threads, work.blocks)
                while task >= 0:
                    own_block(&o, block_of(&work, tiles, task), patches + thread * patch_bytes,
                              thread_scratch + thread * scratch_bytes)
                    task = take_task(<share *> shares.data, thread, threads, work.blocks)
    if keep and transforms:
        kept.state = (layout, weights, found)


def conv(np.ndarray x, np.ndarray weight, Epilogue epilogue, np.ndarray y, ptrdiff_t stride, padding, kept):
    """Fills y (N, K, P, Q) from x (N, C, H, W) and weight (K, C, R, S). `kept` is None or KeptWeights."""
    weight = contiguous(weight)
    cdef ptrdiff_t taps = weight.shape[2] * weight.shape[3]
    cdef winograd_geometry geometry = make_geometry(x, weight.shape[0], (<object> y).shape[2:],
                                                    (<object> weight).shape[2:], stride, padding)
    cdef tiled_weight view = tiled_weight(np.PyArray_BYTES(weight), taps * weight.shape[1], taps, 0, NULL)
    correlate(&geometry, x, view, weight, epilogue, y, kept)


def conv_input_grad(np.ndarray grad, np.ndarray weight, Epilogue epilogue, in_size, ptrdiff_t stride, padding):
    """The gradient (N, C, *in_size) by the input, with channels last like `grad`: a convolution of `grad` with the
    turned, transposed weights."""
    weight = contiguous(weight)
    cdef ptrdiff_t channels = weight.shape[1], taps = weight.shape[2] * weight.shape[3]
    cdef tuple kernel = (<object> weight).shape[2:], shape = (grad.shape[0], channels, *in_size)
    grad, result = either_layout(grad), empty_in_layout(grad, shape)
    cdef winograd_geometry geometry
    if stride > 1:
        geometry = make_phases(grad, channels, in_size, kernel, stride, padding)
    else:
        before = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
        geometry = make_geometry(grad, channels, in_size, kernel, 1, before)
    cdef tiled_weight view = tiled_weight(np.PyArray_BYTES(weight), taps, taps * channels, 1, NULL)
    correlate(&geometry, grad, view, weight, epilogue, result)
    return result


cdef struct sum_split:
    # The order of the sums, which is that of parts and their rounds, depends on the shape alone. Parts are tasks where
    # there are enough of them; else all threads share one after the other.
    ptrdiff_t row_block
    ptrdiff_t channel_block
    ptrdiff_t part_tiles
    ptrdiff_t round_tiles


cdef void set_blocks(const winograd_geometry *geometry, ptrdiff_t panel, ptrdiff_t itemsize, ptrdiff_t product_bytes,
                     sum_split *work):
    """The weights whose products are summed up at a time."""
    cdef ptrdiff_t rows = geometry.out_channels, channels = geometry.channels
    cdef ptrdiff_t position_bytes = positions_of(geometry) * itemsize, most_products = product_bytes // position_bytes
    work.row_block = min(most_products // channels, ROW_BYTES // (position_bytes * panel))
    work.row_block = min(rows, max(SUM_ROWS * 4 // itemsize, work.row_block))
    work.channel_block = min(most_products // work.row_block, GROUP_BYTES // (position_bytes * panel))
    work.channel_block = min(channels, max(panel, work.channel_block // panel * panel))


cdef sum_split split_sum(const winograd_geometry *geometry, const winograd_weight_kernels *kernel, ptrdiff_t itemsize):
    cdef ptrdiff_t tiles = tile_count(geometry), rows = geometry.out_channels, channels = geometry.channels
    cdef ptrdiff_t panel = kernel.panel_tiles, position_bytes = positions_of(geometry) * itemsize
    cdef ptrdiff_t taps = (geometry.points - 3) * (geometry.points - 3)
    cdef ptrdiff_t products = min(FEWER_PRODUCT_BYTES, position_bytes * rows * channels)
    cdef ptrdiff_t parts = 1 + (PARTIAL_BYTES - products) // (taps * rows * channels * itemsize)
    cdef sum_split work
    parts = max(1, min(parts, min(PARTS, tiles // PARTIAL_TILES)))
    set_blocks(geometry, panel, itemsize, FEWER_PRODUCT_BYTES, &work)
    work.round_tiles = ROUND_BYTES // (position_bytes * (work.row_block + work.channel_block))
    work.round_tiles = min(tiles, max(panel, work.round_tiles // panel * panel))
    work.part_tiles = ceil_div(ceil_div(tiles, parts), work.round_tiles) * work.round_tiles
    set_blocks(geometry, panel, itemsize, PRODUCT_BYTES, &work)
    return work


cdef struct sum_operands:
    const winograd_geometry *geometry
    const winograd_weight_kernels *kernel
    const char *source
    const char *gradient
    char *patches
    char *gradients
    char *products
    double *bias_sums  # [panel of the round][K]
    ptrdiff_t panel_sums  # so many
    ptrdiff_t sizes[3]


cdef void transform_round(const sum_operands *o, const tiled_sum *part, bint with_gradients,
                          int threads) noexcept nogil:
    # Tasks: so many channels or output channels of a panel of tiles; with channels last neighbours in memory.
    cdef ptrdiff_t panel = o.kernel.panel_tiles, panels = ceil_div(part.tiles, panel), task, tile, first
    cdef ptrdiff_t some = panel if o.geometry.channels_last else o.kernel.lanes
    cdef ptrdiff_t channel_groups = ceil_div(part.channels, some), groups = channel_groups
    if with_gradients:
        groups += ceil_div(part.rows, some)
    for task in prange(panels * groups, num_threads=threads, schedule="dynamic"):
        tile = task // groups * panel
        first = task % groups * some
        if task % groups < channel_groups:
            o.kernel.transform_sum_patches(o.geometry, part, o.source, tile, first, min(some, part.channels - first),
                                           o.patches)
        else:
            first = (task % groups - channel_groups) * some
            o.kernel.transform_sum_gradients(o.geometry, part, o.gradient, tile, first, min(some, part.rows - first),
                                             o.gradients, o.bias_sums)


cdef void multiply_round(const sum_operands *o, const tiled_sum *part, bint first, int threads) noexcept nogil:
    cdef ptrdiff_t rows = 8 * o.kernel.row_tile, parts = ceil_div(part.rows, rows), task, row
    for task in prange(positions_of(o.geometry) * parts, num_threads=threads, schedule="dynamic"):
        row = task % parts * rows
        o.kernel.multiply_sum(o.geometry, part, task // parts, row, min(rows, part.rows - row), o.gradients, o.patches,
                              not first, o.products)


cdef void sum_tiles(const sum_operands *o, const sum_split *work, ptrdiff_t start, ptrdiff_t end, int threads,
                    char *target, double *bias) noexcept nogil:
    """target (K, C, R, S) = the sums over tiles start .. end: block by block of the weights, each round by round; bias
    (K) = those of the gradient."""
    cdef ptrdiff_t rows = o.geometry.out_channels, channels = o.geometry.channels, row, channel, sum_round, task
    cdef ptrdiff_t rounds = ceil_div(end - start, work.round_tiles), panels
    cdef tiled_sum part
    part.room = ceil_div(work.round_tiles, o.kernel.lanes) * o.kernel.lanes
    for row in range(ceil_div(rows, work.row_block)):
        for channel in range(ceil_div(channels, work.channel_block)):
            part.row_start, part.channel_start = row * work.row_block, channel * work.channel_block
            part.rows = min(work.row_block, rows - part.row_start)
            part.channels = min(work.channel_block, channels - part.channel_start)
            for sum_round in range(rounds):
                part.tile_start = start + sum_round * work.round_tiles
                part.tiles = min(work.round_tiles, end - part.tile_start)
                # The gradients of a single round are still there from the channels before.
                transform_round(o, &part, rounds > 1 or channel == 0, threads)
                panels = ceil_div(part.tiles, o.kernel.panel_tiles) if channel == 0 else 0
                for task in range(panels * part.rows):
                    bias[part.row_start + task % part.rows] += o.bias_sums[task]
                multiply_round(o, &part, sum_round == 0, threads)
            for task in prange(part.rows, num_threads=threads, schedule="static"):
                o.kernel.store_sum(o.geometry, &part, task, o.products, target)


cdef void sum_part(sum_operands o, const sum_split *work, ptrdiff_t part, ptrdiff_t tiles, ptrdiff_t thread,
                   char *target, double *bias) noexcept nogil:
    """One part by one thread, in memory of its own."""
    o.patches += thread * o.sizes[0]
    o.gradients += thread * o.sizes[1]
    o.products += thread * o.sizes[2]
    o.bias_sums += thread * o.panel_sums
    sum_tiles(&o, work, part * work.part_tiles, min((part + 1) * work.part_tiles, tiles), 1, target, bias)


cdef sum_few_tiles(winograd_geometry *geometry, const winograd_weight_kernels *kernel, np.ndarray x, np.ndarray grad,
                   np.ndarray result, double *bias):
    """The weights of at most a vector of tiles, straight from their transformed patches and gradients."""
    cdef ptrdiff_t tiles = tile_count(geometry), channels = geometry.channels, rows = geometry.out_channels
    cdef ptrdiff_t lanes = kernel.lanes, task
    cdef tiled_sum whole = tiled_sum(0, rows, 0, channels, 0, tiles, lanes)
    cdef tiled_block block = tiled_block(0, tiles)
    cdef ptrdiff_t sizes[3]
    cdef const winograd_kernels *forward = kernels_for(x).winograd_channels
    kernel.sum_sizes(geometry, &whole, sizes)
    cdef Block patches = scratch(forward.patches_size(geometry, tiles)), gradients = scratch(sizes[1])
    cdef int threads = threads_for(2.0 * positions_of(geometry) * rows * channels * tiles / FLOP_PER_NANOSECOND)
    # Tasks: groups of channels or output channels to transform; then of both to multiply.
    cdef ptrdiff_t groups = ceil_div(channels, lanes), row_groups = ceil_div(rows, lanes)
    cdef ptrdiff_t part = ceil_div(groups, TASKS_PER_THREAD * threads) * lanes, parts = ceil_div(channels, part)
    cdef ptrdiff_t row_part = ceil_div(row_groups, TASKS_PER_THREAD * threads) * lanes
    cdef ptrdiff_t row_parts = ceil_div(rows, row_part)
    with nogil:
        for task in prange(groups + row_groups, num_threads=threads, schedule="dynamic"):
            if task < groups:
                forward.transform_tiles(geometry, np.PyArray_DATA(x), &block, 0, tiles, task * lanes,
                                        min(lanes, channels - task * lanes), patches.data)
            else:
                kernel.transform_sum_gradients(geometry, &whole, np.PyArray_DATA(grad), 0, (task - groups) * lanes,
                                               min(lanes, rows - (task - groups) * lanes), gradients.data, bias)
        for task in prange(parts * row_parts, num_threads=threads, schedule="dynamic"):
            kernel.sum_few(geometry, &whole, task // parts * row_part, min(row_part, rows - task // parts * row_part),
                           task % parts * part, min(part, channels - task % parts * part), gradients.data,
                           patches.data, np.PyArray_DATA(result))


def conv_weight_grad(np.ndarray grad, np.ndarray x, tuple kernel, ptrdiff_t stride, padding):
    """The gradient (K, C, R, S) by the weight, from the output's gradient and the input; and the sums of the output's
    gradient (parts, K)."""
    x = either_layout(x)
    grad = channels_last(grad) if is_channels_last(x) else contiguous(grad)
    cdef ptrdiff_t rows = grad.shape[1], itemsize = np.PyArray_ITEMSIZE(x)
    cdef winograd_geometry geometry = make_geometry(x, rows, (<object> grad).shape[2:], kernel, stride, padding)
    cdef const winograd_weight_kernels *kernels = kernels_for(x).winograd_weight
    cdef const conv_backward_kernels *reduction = kernels_for(x).conv_backward
    cdef ptrdiff_t tiles = tile_count(&geometry), weights = x.shape[1] * geometry.filter[0] * geometry.filter[1]
    cdef np.ndarray result = empty_of_shape((rows, x.shape[1], *kernel), np.PyArray_TYPE(x))
    cdef np.ndarray bias_sums
    if tiles <= kernels.lanes:
        bias_sums = np.zeros((1, rows))
        if tiles == 0:
            result[...] = 0
        else:
            sum_few_tiles(&geometry, kernels, x, grad, result, <double *> np.PyArray_DATA(bias_sums))
        return result, bias_sums

    cdef sum_split work = split_sum(&geometry, kernels, itemsize)
    cdef ptrdiff_t parts = ceil_div(tiles, work.part_tiles)
    bias_sums = np.zeros((parts, rows))
    cdef double *bias = <double *> np.PyArray_DATA(bias_sums)

    cdef ptrdiff_t part_bytes = rows * weights * itemsize, task
    cdef double flop = 2.0 * positions_of(&geometry) * rows * geometry.channels * tiles
    cdef int threads = threads_for(flop / FLOP_PER_NANOSECOND)
    cdef sum_operands o
    cdef tiled_sum largest = tiled_sum(0, work.row_block, 0, work.channel_block, 0, work.round_tiles,
                                       ceil_div(work.round_tiles, kernels.lanes) * kernels.lanes)
    o.geometry, o.kernel = &geometry, kernels
    o.source, o.gradient = np.PyArray_BYTES(x), np.PyArray_BYTES(grad)
    kernels.sum_sizes(&geometry, &largest, o.sizes)
    cdef bint shared = parts < 4 * threads and (
        o.sizes[0] + o.sizes[1] + o.sizes[2] > OWN_BYTES
        or <double> parts / ceil_div(parts, threads) < threads / (1 + threads / WAITING_THREADS))
    cdef int places = 1 if shared else threads
    cdef Block patches = scratch(places * o.sizes[0]), gradients = scratch(places * o.sizes[1])
    cdef Block products = scratch(places * o.sizes[2])
    cdef Block partial_memory = scratch((parts - 1) * part_bytes)
    cdef char *target = np.PyArray_BYTES(result)
    cdef char *partials = <char *> partial_memory.data  # of all parts but the first
    o.panel_sums = ceil_div(work.round_tiles, kernels.panel_tiles) * work.row_block
    cdef Block panel_sums = scratch(places * o.panel_sums * sizeof(double))
    o.patches, o.gradients = <char *> patches.data, <char *> gradients.data
    o.products = <char *> products.data
    o.bias_sums = <double *> panel_sums.data
    with nogil:
        if shared:
            for task in range(parts):
                sum_tiles(&o, &work, task * work.part_tiles, min((task + 1) * work.part_tiles, tiles), threads,
                          partials + (task - 1) * part_bytes if task > 0 else target, bias + task * rows)
        else:
            for task in prange(parts, num_threads=threads, schedule="dynamic"):
                sum_part(o, &work, task, tiles, threadid(),
                         partials + (task - 1) * part_bytes if task > 0 else target, bias + task * rows)
        if parts > 1:
            for task in prange(rows, num_threads=min(threads, threads_for(0.1 * parts * rows * weights)),
                               schedule="static"):
                reduction.add_parts(partials + task * weights * itemsize, parts - 1, rows * weights, weights,
                                    target + task * weights * itemsize)
    return result, bias_sums

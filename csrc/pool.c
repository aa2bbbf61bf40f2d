/* Pooling: the maximum or the average of each window of a plane, and the gradients.
 *
 *   y[n,c,o] = max or mean over the taps k of x[n,c, o * stride - padding + k * dilation], taps in the padding left out
 *
 * A plane is one channel of one image: depth x height x width, of which 1-D and 2-D pooling leave out the first ones.
 * Both reductions are separable, so an output row is made in two passes over a row buffer that stays in the first-level
 * cache: pass 1 reduces the input rows under it to one row, pass 2 the columns of this row. Pass 1 is vectorised
 * along the width, whatever the windows are. Pass 2 is vectorised across outputs where their windows lie wholly inside
 * the plane at a column stride of 1 or 2 ("whole" outputs); the others (at the edges, at larger strides, adaptive) are
 * reduced one by one ("spans"). The gradient of the average is the mirror image: columns to a row, the row to all rows.
 *
 * Among equal maxima the first in the plane wins, among NaNs the last, as in PyTorch.
 *
 * Vectors may run past the end of a row into the next one, which is written later, but never past the tile.
 */
#include "kernels.h"
#include "vec.h"

enum operation { SUM, MAX };

/* Output columns per pass: the row buffer of a very wide plane stays at a few KiB. */
enum { BLOCK = 512 };

/* The row buffer has this many elements behind the last column, which vectors of whole outputs may touch. */
enum { SLACK = 4 * LANES };

/* ---- Geometry ------------------------------------------------------------------------------------------------- */

/* The window of one output along one dimension, without the taps in the padding. */
struct window {
    ptrdiff_t start, end; /* first position, one past the last */
    ptrdiff_t taps;
    ptrdiff_t count; /* what the average divides by, in this dimension */
};

static struct window window_at(const struct pool_geometry *geometry, int dimension, ptrdiff_t output)
{
    ptrdiff_t size = geometry->in_size[dimension], kernel = geometry->kernel[dimension];
    if (!kernel) {
        ptrdiff_t outputs = geometry->out_size[dimension];
        ptrdiff_t start = output * size / outputs, end = ((output + 1) * size + outputs - 1) / outputs;
        return (struct window){start, end, end - start, end - start};
    }
    ptrdiff_t padding = geometry->padding[dimension], step = geometry->dilation[dimension];
    ptrdiff_t start = output * geometry->stride[dimension] - padding, end = start + (kernel - 1) * step + 1;
    ptrdiff_t padded_count = (end < size + padding ? end : size + padding) - start;
    if (start < 0) start += (step - 1 - start) / step * step;
    if (end > size) end = size;
    ptrdiff_t taps = step == 1 ? end - start : (end - start + step - 1) / step;
    return (struct window){start, end, taps, geometry->count_include_pad ? padded_count : taps};
}

/* The input rows under an output row: depth x height of them. */
struct rows {
    ptrdiff_t offset; /* of the first one in the plane */
    ptrdiff_t depth, height;
    ptrdiff_t depth_step, height_step; /* elements from one to the next */
    ptrdiff_t last;                    /* offset of the last one */
    ptrdiff_t count;                   /* what the average divides by, in these dimensions */
};

static struct rows rows_at(const struct pool_geometry *geometry, ptrdiff_t output_depth, ptrdiff_t output_height)
{
    struct window depth = window_at(geometry, 0, output_depth), height = window_at(geometry, 1, output_height);
    ptrdiff_t row = geometry->in_size[2], slice = geometry->in_size[1] * row;
    struct rows rows = {
        .offset = depth.start * slice + height.start * row,
        .depth = depth.taps,
        .height = height.taps,
        .depth_step = geometry->dilation[0] * slice,
        .height_step = geometry->dilation[1] * row,
        .count = depth.count * height.count,
    };
    rows.last = rows.offset + (rows.depth - 1) * rows.depth_step + (rows.height - 1) * rows.height_step;
    return rows;
}

/* Neighbouring output columns that go through the row buffer together. */
struct block {
    ptrdiff_t first, last;             /* outputs [first, last) */
    ptrdiff_t whole_first, whole_last; /* those done by vectors; [last, last) if there are none */
    ptrdiff_t start, extent;           /* input columns under them: buffer[0] is column `start` */
    int fills_row;                     /* is it the only one? */
};

static struct block block_at(const struct pool_geometry *geometry, ptrdiff_t first)
{
    ptrdiff_t outputs = geometry->out_size[2], stride = geometry->stride[2], padding = geometry->padding[2];
    ptrdiff_t last = outputs - first < BLOCK ? outputs : first + BLOCK;
    ptrdiff_t start = geometry->kernel[2] ? first * stride - padding : window_at(geometry, 2, first).start;
    if (start < 0) start = 0;
    ptrdiff_t extent = window_at(geometry, 2, last - 1).end - start;
    struct block block = {first, last, last, last, start, extent, last - first == outputs};
    if (geometry->kernel[2] && stride <= 2) {
        ptrdiff_t behind = geometry->in_size[2] + padding - (geometry->kernel[2] - 1) * geometry->dilation[2] - 1;
        ptrdiff_t whole_first = (padding + stride - 1) / stride, whole_last = behind < 0 ? 0 : behind / stride + 1;
        if (whole_first < first) whole_first = first;
        if (whole_last > last) whole_last = last;
        if (whole_first < whole_last) block.whole_first = whole_first, block.whole_last = whole_last;
    }
    return block;
}

/* Input columns that a block needs at most. */
static ptrdiff_t block_extent(const struct pool_geometry *geometry)
{
    ptrdiff_t outputs = geometry->out_size[2] < BLOCK ? geometry->out_size[2] : BLOCK, width = geometry->in_size[2];
    if (!geometry->kernel[2]) return width;
    ptrdiff_t reach = (outputs - 1) * geometry->stride[2] + (geometry->kernel[2] - 1) * geometry->dilation[2] + 1;
    return reach < width ? reach : width;
}

static real divisor_of(const struct pool_geometry *geometry, const struct rows *rows, ptrdiff_t count)
{ return geometry->divisor ? geometry->divisor : rows->count * count; }

/* One call of a tile function: whole planes, with what it reads and writes. What a kernel does not use is NULL. */
struct tile {
    const struct pool_geometry *geometry;
    const real *input;
    ptrdiff_t input_room; /* elements of the whole array from here on: what may be read */
    const real *grad_output;
    ptrdiff_t grad_output_room;
    real *output;
    ptrdiff_t output_room; /* elements of the tile */
    int64_t *indices;
    real *grad_input;
    ptrdiff_t grad_input_room;
    real *buffer;           /* block_extent + SLACK elements */
    lane_int *buffer_index; /* as many: where each element of the buffer comes from in its plane */
    real *best;             /* BLOCK + LANES elements: maxima of a block of outputs */
    lane_int *winners;      /* as many: their indices */
};

static ptrdiff_t volume(const ptrdiff_t size[3]) { return size[0] * size[1] * size[2]; }

static ptrdiff_t scratch_size(const struct pool_geometry *geometry)
{ return 2 * (block_extent(geometry) + SLACK) + 2 * (BLOCK + LANES); }

static void place_scratch(struct tile *tile, void *scratch)
{
    ptrdiff_t extent = block_extent(tile->geometry) + SLACK;
    tile->buffer = scratch;
    tile->best = tile->buffer + extent;
    tile->buffer_index = (lane_int *)(tile->best + BLOCK + LANES);
    tile->winners = tile->buffer_index + extent;
}

/* Does one output row; `plane` and `output` are the offsets of the plane and of the row in the tile's arrays. */
typedef void row_function(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane,
                          ptrdiff_t output);

INLINE void for_each_row(const struct tile *tile, ptrdiff_t planes, row_function *do_row)
{
    const struct pool_geometry *geometry = tile->geometry;
    ptrdiff_t in_volume = volume(geometry->in_size), width = geometry->out_size[2];
    for (ptrdiff_t first = 0; first < width; first += BLOCK) {
        struct block block = block_at(geometry, first);
        ptrdiff_t output = 0;
        for (ptrdiff_t plane = 0; plane < planes * in_volume; plane += in_volume)
            for (ptrdiff_t depth = 0; depth < geometry->out_size[0]; depth++)
                for (ptrdiff_t height = 0; height < geometry->out_size[1]; height++, output += width) {
                    struct rows rows = rows_at(geometry, depth, height);
                    do_row(tile, &block, &rows, plane, output);
                }
    }
}

/* ---- Vectors and scalars -------------------------------------------------------------------------------------- */

/* `room` elements may be read; the lanes behind them are zeros. */
INLINE vec load_within(const real *x, ptrdiff_t room) { return room >= LANES ? vec_load(x) : vec_load_tail(x, room); }

INLINE void store_within(real *y, vec value, ptrdiff_t room)
{
    if (room >= LANES)
        vec_store(y, value);
    else
        vec_store_tail(y, value, room);
}

/* 0, 1, 2, ... */
INLINE ivec lane_numbers(void)
{
    ivec numbers;
    for (int i = 0; i < LANES; i++) numbers[i] = i;
    return numbers;
}

/* Indices are kept as the bits of a vec: they go through the same loads, stores and shuffles as the values. */
INLINE ivec select_index(ivec mask, ivec a, ivec b) { return (ivec)vec_select(mask, (vec)a, (vec)b); }

/* Every stride-th element; stride is 1 or 2. */
INLINE vec load_columns(const void *base, ptrdiff_t offset, ptrdiff_t stride)
{
    const real *x = (const real *)base + offset;
    return stride == 1 ? vec_load(x) : VEC_EVEN(vec_load(x), vec_load(x + LANES));
}

/* A NaN on either side gives NaN. */
INLINE vec combine(enum operation operation, vec a, vec b)
{ return operation == SUM ? a + b : (vec)((ivec)vec_max(a, b) | (a != a)); }

INLINE real combine_scalars(enum operation operation, real a, real b)
{ return operation == SUM ? a + b : a > b || a != a ? a : b; }

INLINE real combine_lanes(enum operation operation, vec v)
{
    real lanes[LANES];
    vec_store(lanes, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] = combine_scalars(operation, lanes[i], lanes[i + width]);
    return lanes[0];
}

/* Does value x at index i take the place of the maximum m at index j? For vectors and for scalars. */
#define BEATS(x, i, m, j) (((x) > (m)) | (((x) == (m)) & ((i) < (j))) | (((x) != (x)) & (((m) == (m)) | ((i) > (j)))))

/* ---- Forward: sum or maximum ---------------------------------------------------------------------------------- */

/* Pass 1 for a known number of rows; x is the first row at the block's first column. */
INLINE void reduce_rows_of(enum operation operation, ptrdiff_t depth, ptrdiff_t height, const struct rows *rows,
                           const real *x, ptrdiff_t extent, ptrdiff_t room, real *buffer)
{
    for (ptrdiff_t w = 0; w < extent; w += LANES) {
        vec total = load_within(x + w, room - w);
        for (ptrdiff_t d = 0; d < depth; d++)
            for (ptrdiff_t h = d == 0; h < height; h++) {
                const real *row = x + d * rows->depth_step + h * rows->height_step;
                total = combine(operation, total, load_within(row + w, room - w));
            }
        vec_store(buffer + w, total);
    }
}

/* Pass 1: buffer[w] = reduction of column w over the rows, for the block's columns. */
INLINE void reduce_rows(enum operation operation, const struct tile *tile, const struct block *block,
                        const struct rows *rows, ptrdiff_t plane)
{
    const real *x = tile->input + plane + rows->offset + block->start;
    ptrdiff_t extent = block->extent, room = tile->input_room - plane - rows->last - block->start;
    if (rows->depth == 1 && rows->height == 2)
        reduce_rows_of(operation, 1, 2, rows, x, extent, room, tile->buffer);
    else if (rows->depth == 1 && rows->height == 3)
        reduce_rows_of(operation, 1, 3, rows, x, extent, room, tile->buffer);
    else
        reduce_rows_of(operation, rows->depth, rows->height, rows, x, extent, room, tile->buffer);
}

/* Pass 2 for whole outputs: y[o] = reduction of x[o * stride + k * dilation] over k; a sum is divided. */
INLINE void reduce_columns(enum operation operation, ptrdiff_t stride, ptrdiff_t kernel, ptrdiff_t dilation,
                           const real *x, ptrdiff_t outputs, real divisor, real *y, ptrdiff_t room)
{
    for (ptrdiff_t o = 0; o < outputs; o += LANES) {
        vec total = load_columns(x, o * stride, stride);
        for (ptrdiff_t k = 1; k < kernel; k++)
            total = combine(operation, total, load_columns(x, o * stride + k * dilation, stride));
        store_within(y + o, operation == SUM ? total / divisor : total, room - o);
    }
}

/* Reduction of x[k * step] over k < taps. Four accumulators spare the latency and the rounding of one long chain. */
INLINE real reduce_span(enum operation operation, const real *x, ptrdiff_t taps, ptrdiff_t step)
{
    real total = x[0];
    ptrdiff_t k = 1;
    if (step == 1 && taps >= LANES) {
        vec identity = operation == SUM ? (vec){0} : vec_set(x[0]);
        vec totals[4] = {identity, identity, identity, identity};
        for (k = 0; k + 4 * LANES <= taps; k += 4 * LANES)
            for (int j = 0; j < 4; j++) totals[j] = combine(operation, totals[j], vec_load(x + k + j * LANES));
        for (; k + LANES <= taps; k += LANES) totals[0] = combine(operation, totals[0], vec_load(x + k));
        vec lower = combine(operation, totals[0], totals[1]), upper = combine(operation, totals[2], totals[3]);
        total = combine_lanes(operation, combine(operation, lower, upper));
    }
    for (; k < taps; k++) total = combine_scalars(operation, total, x[k * step]);
    return total;
}

/* Pass 2 for outputs [first, last) of a row, one by one; buffer[0] is the block's first input column. */
INLINE void reduce_spans(enum operation operation, const struct tile *tile, const struct block *block,
                         const struct rows *rows, ptrdiff_t first, ptrdiff_t last, const real *buffer, real *y)
{
    const struct pool_geometry *geometry = tile->geometry;
    for (ptrdiff_t o = first; o < last; o++) {
        struct window window = window_at(geometry, 2, o);
        real total = reduce_span(operation, buffer + window.start - block->start, window.taps, geometry->dilation[2]);
        y[o] = operation == SUM ? total / divisor_of(geometry, rows, window.count) : total;
    }
}

INLINE void reduce_row(enum operation operation, const struct tile *tile, const struct block *block,
                       const struct rows *rows, ptrdiff_t plane, ptrdiff_t output)
{
    const struct pool_geometry *geometry = tile->geometry;
    ptrdiff_t stride = geometry->stride[2], kernel = geometry->kernel[2], dilation = geometry->dilation[2];
    ptrdiff_t whole_first = block->whole_first, whole = block->whole_last - whole_first;
    const real *buffer = tile->buffer;
    real *y = tile->output + output;
    if (whole || rows->depth * rows->height > 1)
        reduce_rows(operation, tile, block, rows, plane);
    else
        buffer = tile->input + plane + rows->offset + block->start; /* a single row: nothing to reduce */
    if (whole) {
        const real *x = buffer + whole_first * stride - geometry->padding[2] - block->start;
        ptrdiff_t room = (block->fills_row ? tile->output_room - output : block->last) - whole_first;
        real divisor = divisor_of(geometry, rows, kernel);
        if (stride == 1)
            reduce_columns(operation, 1, kernel, dilation, x, whole, divisor, y + whole_first, room);
        else
            reduce_columns(operation, 2, kernel, dilation, x, whole, divisor, y + whole_first, room);
    }
    reduce_spans(operation, tile, block, rows, block->first, whole_first, buffer, y);
    reduce_spans(operation, tile, block, rows, block->whole_last, block->last, buffer, y);
}

/* One window over a plane of a single row: what global pooling is. */
static int is_global(const struct pool_geometry *geometry)
{ return volume(geometry->out_size) == 1 && window_at(geometry, 2, 0).taps == volume(geometry->in_size); }

INLINE void reduce_planes(enum operation operation, const struct tile *tile, ptrdiff_t planes)
{
    const struct pool_geometry *geometry = tile->geometry;
    ptrdiff_t elements = volume(geometry->in_size), count = 1;
    for (int i = 0; i < 3; i++) count *= window_at(geometry, i, 0).count;
    real divisor = geometry->divisor ? geometry->divisor : count;
    for (ptrdiff_t plane = 0; plane < planes; plane++) {
        real total = reduce_span(operation, tile->input + plane * elements, elements, 1);
        tile->output[plane] = operation == SUM ? total / divisor : total;
    }
}

static void average_row(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane,
                        ptrdiff_t output)
{ reduce_row(SUM, tile, block, rows, plane, output); }

static void max_row(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane,
                    ptrdiff_t output)
{ reduce_row(MAX, tile, block, rows, plane, output); }

/* ---- Forward: maximum and where it stands --------------------------------------------------------------------- */

/* Pass 1 for a known number of rows; `offset` is the first row's index at the block's first column. */
INLINE void find_rows_of(ptrdiff_t depth, ptrdiff_t height, const struct rows *rows, const real *x, ptrdiff_t offset,
                         ptrdiff_t extent, ptrdiff_t room, real *buffer, lane_int *buffer_index)
{
    for (ptrdiff_t w = 0; w < extent; w += LANES) {
        ivec first = lane_numbers() + (lane_int)(offset + w), index = first;
        vec best = load_within(x + w, room - w);
        for (ptrdiff_t d = 0; d < depth; d++)
            for (ptrdiff_t h = d == 0; h < height; h++) {
                ptrdiff_t row = d * rows->depth_step + h * rows->height_step;
                vec value = load_within(x + row + w, room - w);
                ivec better = (value > best) | (value != value); /* BEATS where indices ascend */
                best = vec_select(better, value, best);
                index = select_index(better, first + (lane_int)row, index);
            }
        vec_store(buffer + w, best);
        vec_store((real *)(buffer_index + w), (vec)index);
    }
}

/* Pass 1: buffer[w] = maximum of column w over the rows, buffer_index[w] = its index in the plane. */
static void find_rows(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane)
{
    ptrdiff_t offset = rows->offset + block->start, extent = block->extent;
    ptrdiff_t room = tile->input_room - plane - rows->last - block->start;
    const real *x = tile->input + plane + offset;
    if (rows->depth == 1 && rows->height == 2)
        find_rows_of(1, 2, rows, x, offset, extent, room, tile->buffer, tile->buffer_index);
    else if (rows->depth == 1 && rows->height == 3)
        find_rows_of(1, 3, rows, x, offset, extent, room, tile->buffer, tile->buffer_index);
    else
        find_rows_of(rows->depth, rows->height, rows, x, offset, extent, room, tile->buffer, tile->buffer_index);
}

/* Pass 2 for whole outputs, from x and indices to best and winners. */
INLINE void find_columns(ptrdiff_t stride, ptrdiff_t kernel, ptrdiff_t dilation, const real *x, const lane_int *indices,
                         ptrdiff_t outputs, real *best, lane_int *winners)
{
    for (ptrdiff_t o = 0; o < outputs; o += LANES) {
        vec maximum = load_columns(x, o * stride, stride);
        ivec winner = (ivec)load_columns(indices, o * stride, stride);
        for (ptrdiff_t k = 1; k < kernel; k++) {
            vec value = load_columns(x, o * stride + k * dilation, stride);
            ivec index = (ivec)load_columns(indices, o * stride + k * dilation, stride);
            ivec better = BEATS(value, index, maximum, winner);
            maximum = vec_select(better, value, maximum);
            winner = select_index(better, index, winner);
        }
        vec_store(best + o, maximum);
        vec_store((real *)(winners + o), (vec)winner);
    }
}

/* Pass 2 for outputs [first, last) of a row, one by one. */
static void find_spans(const struct tile *tile, const struct block *block, ptrdiff_t first, ptrdiff_t last)
{
    ptrdiff_t step = tile->geometry->dilation[2];
    for (ptrdiff_t o = first; o < last; o++) {
        struct window window = window_at(tile->geometry, 2, o);
        const real *x = tile->buffer + window.start - block->start;
        const lane_int *indices = tile->buffer_index + window.start - block->start;
        ptrdiff_t best = 0;
        for (ptrdiff_t k = step; k < window.end - window.start; k += step)
            if (BEATS(x[k], indices[k], x[best], indices[best])) best = k;
        tile->best[o - block->first] = x[best];
        tile->winners[o - block->first] = indices[best];
    }
}

/* The maxima of the block's outputs to tile->best, their indices in the plane to tile->winners. */
static void find_row(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane)
{
    const struct pool_geometry *geometry = tile->geometry;
    ptrdiff_t stride = geometry->stride[2], kernel = geometry->kernel[2], dilation = geometry->dilation[2];
    ptrdiff_t whole = block->whole_last - block->whole_first, ahead = block->whole_first - block->first;
    find_rows(tile, block, rows, plane);
    if (whole) {
        ptrdiff_t column = block->whole_first * stride - geometry->padding[2] - block->start;
        const real *x = tile->buffer + column;
        const lane_int *indices = tile->buffer_index + column;
        if (stride == 1)
            find_columns(1, kernel, dilation, x, indices, whole, tile->best + ahead, tile->winners + ahead);
        else
            find_columns(2, kernel, dilation, x, indices, whole, tile->best + ahead, tile->winners + ahead);
    }
    find_spans(tile, block, block->first, block->whole_first);
    find_spans(tile, block, block->whole_last, block->last);
}

static void max_row_with_indices(const struct tile *tile, const struct block *block, const struct rows *rows,
                                 ptrdiff_t plane, ptrdiff_t output)
{
    ptrdiff_t outputs = block->last - block->first;
    int64_t *indices = tile->indices + output + block->first;
    find_row(tile, block, rows, plane);
    memcpy(tile->output + output + block->first, tile->best, outputs * sizeof(real));
    for (ptrdiff_t o = 0; o < outputs; o++) indices[o] = tile->winners[o];
}

/* ---- Backward of the maximum ---------------------------------------------------------------------------------- */

/* The winners are found again, and the gradient goes to them. */
static void max_row_backward(const struct tile *tile, const struct block *block, const struct rows *rows,
                             ptrdiff_t plane, ptrdiff_t output)
{
    const real *dy = tile->grad_output + output + block->first;
    real *dx = tile->grad_input + plane;
    find_row(tile, block, rows, plane);
    for (ptrdiff_t o = 0; o < block->last - block->first; o++) dx[tile->winners[o]] += dy[o];
}

/* ---- Backward of the average: the forward's passes in reverse --------------------------------------------------- */

/* Pass 2 for whole outputs: x[o * stride + k * dilation] += dy[o] / divisor. */
INLINE void spread_columns(ptrdiff_t stride, ptrdiff_t kernel, ptrdiff_t dilation, const real *dy, ptrdiff_t room,
                           ptrdiff_t outputs, real divisor, real *x)
{
    for (ptrdiff_t o = 0; o < outputs; o += LANES) {
        vec share = load_within(dy + o, room - o) / divisor;
        share = vec_select(lane_numbers() < (lane_int)(outputs - o), share, (vec){0});
        for (ptrdiff_t k = 0; k < kernel; k++) {
            real *target = x + o * stride + k * dilation;
            if (stride == 1) {
                vec_store(target, vec_load(target) + share);
            } else {
                vec_store(target, vec_load(target) + VEC_ZIP_LOW(share, (vec){0}));
                vec_store(target + LANES, vec_load(target + LANES) + VEC_ZIP_HIGH(share, (vec){0}));
            }
        }
    }
}

/* Pass 2 for outputs [first, last) of a row, one by one. */
static void spread_spans(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t first,
                         ptrdiff_t last, const real *dy, real *buffer)
{
    for (ptrdiff_t o = first; o < last; o++) {
        struct window window = window_at(tile->geometry, 2, o);
        real share = dy[o] / divisor_of(tile->geometry, rows, window.count);
        real *x = buffer + window.start - block->start;
        for (ptrdiff_t k = 0; k < window.taps; k++) x[k] += share;
    }
}

/* Pass 1: the buffer, which has zeros behind the last column, is added to each row. */
static void spread_rows(const struct tile *tile, const struct block *block, const struct rows *rows, ptrdiff_t plane)
{
    for (ptrdiff_t d = 0; d < rows->depth; d++)
        for (ptrdiff_t h = 0; h < rows->height; h++) {
            ptrdiff_t offset = plane + rows->offset + d * rows->depth_step + h * rows->height_step + block->start;
            real *dx = tile->grad_input + offset;
            ptrdiff_t room = tile->grad_input_room - offset;
            for (ptrdiff_t w = 0; w < block->extent; w += LANES)
                store_within(dx + w, load_within(dx + w, room - w) + vec_load(tile->buffer + w), room - w);
        }
}

static void average_row_backward(const struct tile *tile, const struct block *block, const struct rows *rows,
                                 ptrdiff_t plane, ptrdiff_t output)
{
    const struct pool_geometry *geometry = tile->geometry;
    ptrdiff_t stride = geometry->stride[2], kernel = geometry->kernel[2], dilation = geometry->dilation[2];
    ptrdiff_t whole_first = block->whole_first, whole = block->whole_last - whole_first;
    int single = !whole && rows->depth * rows->height == 1;
    real *buffer = single ? tile->grad_input + plane + rows->offset + block->start : tile->buffer;
    const real *dy = tile->grad_output + output;
    if (!single) memset(buffer, 0, (block->extent + SLACK) * sizeof(real));
    if (whole) {
        real *x = buffer + whole_first * stride - geometry->padding[2] - block->start;
        ptrdiff_t room = tile->grad_output_room - output - whole_first;
        real divisor = divisor_of(geometry, rows, kernel);
        if (stride == 1)
            spread_columns(1, kernel, dilation, dy + whole_first, room, whole, divisor, x);
        else
            spread_columns(2, kernel, dilation, dy + whole_first, room, whole, divisor, x);
    }
    spread_spans(tile, block, rows, block->first, whole_first, dy, buffer);
    spread_spans(tile, block, rows, block->whole_last, block->last, dy, buffer);
    if (!single) spread_rows(tile, block, rows, plane);
}

/* ---- Tiles ---------------------------------------------------------------------------------------------------- */

/* indices (int64, in the plane) may be NULL: then they are not looked for. */
static void max_pool(const struct pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                     void *output, int64_t *indices, void *scratch)
{
    struct tile tile = {.geometry = geometry,
                        .input = input,
                        .input_room = input_room,
                        .output = output,
                        .output_room = planes * volume(geometry->out_size),
                        .indices = indices};
    place_scratch(&tile, scratch);
    if (indices)
        for_each_row(&tile, planes, max_row_with_indices);
    else if (is_global(geometry))
        reduce_planes(MAX, &tile, planes);
    else
        for_each_row(&tile, planes, max_row);
}

static void max_pool_backward(const struct pool_geometry *geometry, const void *grad_output, const void *input,
                              ptrdiff_t planes, ptrdiff_t input_room, void *grad_input, void *scratch)
{
    struct tile tile = {.geometry = geometry,
                        .grad_output = grad_output,
                        .input = input,
                        .input_room = input_room,
                        .grad_input = grad_input};
    place_scratch(&tile, scratch);
    memset(grad_input, 0, planes * volume(geometry->in_size) * sizeof(real));
    for_each_row(&tile, planes, max_row_backward);
}

/* The same with the forward's indices, `outputs` per plane of `inputs` elements. Returns how many are outside. */
static ptrdiff_t max_pool_route(const void *grad_output, const int64_t *indices, ptrdiff_t planes, ptrdiff_t outputs,
                                ptrdiff_t inputs, void *grad_input)
{
    const real *dy = grad_output;
    real *dx = grad_input;
    ptrdiff_t outside = 0;
    memset(dx, 0, planes * inputs * sizeof(real));
    for (ptrdiff_t plane = 0; plane < planes; plane++, dy += outputs, indices += outputs, dx += inputs)
        for (ptrdiff_t o = 0; o < outputs; o++) {
            if ((uint64_t)indices[o] < (uint64_t)inputs)
                dx[indices[o]] += dy[o];
            else
                outside++;
        }
    return outside;
}

static void avg_pool(const struct pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                     void *output, void *scratch)
{
    struct tile tile = {.geometry = geometry,
                        .input = input,
                        .input_room = input_room,
                        .output = output,
                        .output_room = planes * volume(geometry->out_size)};
    place_scratch(&tile, scratch);
    if (is_global(geometry))
        reduce_planes(SUM, &tile, planes);
    else
        for_each_row(&tile, planes, average_row);
}

static void avg_pool_backward(const struct pool_geometry *geometry, const void *grad_output, ptrdiff_t planes,
                              ptrdiff_t grad_output_room, void *grad_input, void *scratch)
{
    ptrdiff_t inputs = planes * volume(geometry->in_size);
    struct tile tile = {.geometry = geometry,
                        .grad_output = grad_output,
                        .grad_output_room = grad_output_room,
                        .grad_input = grad_input,
                        .grad_input_room = inputs};
    place_scratch(&tile, scratch);
    memset(grad_input, 0, inputs * sizeof(real));
    for_each_row(&tile, planes, average_row_backward);
}

const struct pool_kernels FASTNN_TABLE(pool) = {
    .scratch_size = scratch_size,
    .max_pool = max_pool,
    .max_pool_backward = max_pool_backward,
    .max_pool_route = max_pool_route,
    .avg_pool = avg_pool,
    .avg_pool_backward = avg_pool_backward,
};

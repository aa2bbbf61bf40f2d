/* Convolution of 1 to 3 spatial dimensions as an implicit matrix product (im2col inside the packing):
 *
 *   forward           out[n,k,p]   = bias[k] + sum over t, c of weight[k,c,t] * in[n,c, p * stride + tap(t)]
 *   backward-data     the same, phase by phase, with the gradient as `in` and the weights transposed
 *   backward-weights  dw[k,c,t]    = sum over n, p of dout[n,k,p] * in[n,c, p * stride + tap(t)]
 *
 * K output channels, C input channels (both per group), T filter positions (taps), N images, p an output position.
 * The depth of the product is d = t * C + c, so that the borders are worked out once per tap, not once per channel.
 * The columns are "pixels", q = n * positions + p: panels of COLUMN_TILE pixels run across rows and images, so that
 * narrow images fill the vectors too. The matrix of patches exists one panel block at a time, in the thread's scratch memory.
 *
 *   packed weights  [depth block][K / ROW_TILE][depth in block][ROW_TILE]
 *   packed pixels   [panel][depth in block][COLUMN_TILE]
 */
#include "gemm_micro.h"
#include "kernels.h"

/* Pixels that backward-weights reduces per pass over its packed operands: two vectors of 48 columns, or eight of 16. */
enum { REDUCE_PIXELS = 192 };

/* Neighbouring pixels of one output row. */
struct run {
    ptrdiff_t start, count; /* among the pixels of the panel */
    ptrdiff_t image;        /* offset of the input image */
    ptrdiff_t position[3];  /* input position of the first pixel, before the tap is added */
};

struct pixels {
    ptrdiff_t count, runs;
    int contiguous;                  /* targets follow one another */
    ptrdiff_t target[REDUCE_PIXELS]; /* offset of each pixel in one output channel */
    struct run run[REDUCE_PIXELS];
};

/* Splits pixels start .. start + count into runs and finds where they stand in the output. */
static void describe_pixels(const struct conv_geometry *g, ptrdiff_t start, ptrdiff_t count, struct pixels *pixels)
{
    ptrdiff_t plane = g->grid[1] * g->grid[2], positions = g->grid[0] * plane;
    pixels->count = count;
    pixels->runs = 0;
    for (ptrdiff_t done = 0; done < count;) {
        ptrdiff_t q = start + done, n = q / positions, p = q % positions;
        ptrdiff_t z = p / plane, y = p % plane / g->grid[2], x = p % g->grid[2];
        ptrdiff_t length = smaller(count - done, g->grid[2] - x);
        pixels->run[pixels->runs++] =
            (struct run){done, length, n * g->in_image_stride, {z * g->stride[0], y * g->stride[1], x * g->stride[2]}};
        ptrdiff_t target = n * g->out_image_stride + z * g->out_stride[0] + y * g->out_stride[1] + x * g->out_stride[2];
        for (ptrdiff_t i = 0; i < length; i++) pixels->target[done + i] = target + i * g->out_stride[2];
        done += length;
    }
    pixels->contiguous = 1;
    for (ptrdiff_t i = 1; i < count; i++) pixels->contiguous &= pixels->target[i] == pixels->target[i - 1] + 1;
}

/* The part of a run that one tap finds inside the image: `count` elements, `stride` apart, from `offset`. */
struct piece {
    ptrdiff_t start, count, offset;
};

static ptrdiff_t find_pieces(const struct conv_geometry *g, const struct pixels *pixels, const ptrdiff_t *tap,
                             struct piece *pieces)
{
    ptrdiff_t found = 0, stride = g->stride[2], width = g->in_size[2];
    for (ptrdiff_t i = 0; i < pixels->runs; i++) {
        const struct run *run = &pixels->run[i];
        ptrdiff_t z = run->position[0] + tap[0], y = run->position[1] + tap[1], x = run->position[2] + tap[2];
        if (z < 0 || z >= g->in_size[0] || y < 0 || y >= g->in_size[1]) continue;
        ptrdiff_t first = x >= 0 ? 0 : stride == 1 ? -x : (-x + stride - 1) / stride;
        ptrdiff_t end = x >= width ? 0 : stride == 1 ? width - x : (width - x + stride - 1) / stride;
        end = smaller(end, run->count);
        if (first >= end) continue;
        ptrdiff_t offset = run->image + (z * g->in_size[1] + y) * width + x + first * stride;
        pieces[found++] = (struct piece){run->start + first, end - first, offset};
    }
    return found;
}

/* The lanes of one vector of pixels that a piece fills: `offset` is where lane 0 would stand in the image. */
struct lanes {
    ptrdiff_t vector, first, end, offset;
};

enum { MOST_LANES = 2 * REDUCE_PIXELS }; /* a vector of its own for every pixel, and one more cut for every vector */

/* Cuts pieces at the ends of vectors. */
static ptrdiff_t cut_pieces(const struct piece *pieces, ptrdiff_t found, ptrdiff_t stride, struct lanes *parts)
{
    ptrdiff_t count = 0;
    for (const struct piece *piece = pieces; piece < pieces + found; piece++) {
        ptrdiff_t end = piece->start + piece->count;
        for (ptrdiff_t vector = piece->start / LANES; vector * LANES < end; vector++) {
            ptrdiff_t origin = vector * LANES;
            parts[count++] = (struct lanes){vector, larger(piece->start - origin, 0), smaller(end - origin, LANES),
                                            piece->offset + (origin - piece->start) * stride};
        }
    }
    return count;
}

/* The lanes of `part` from one channel's image, zeros in the others. */
INLINE vec load_part(const real *plane, const struct lanes *part, ptrdiff_t stride)
{
    const real *from = plane + part->offset;
    if (stride == 1)
        return part->end - part->first == LANES ? vec_load(from) : vec_load_lanes(from, part->first, part->end);
    real lanes[LANES] = {0};
    for (ptrdiff_t lane = part->first; lane < part->end; lane++) lanes[lane] = from[lane * stride];
    return vec_load(lanes);
}

/* rows[d][pixel] for depth_start <= d < depth_start + depth, `row_length` elements a row; zeros outside the image and
 * behind the last pixel. */
INLINE void gather_rows(const struct conv_geometry *g, const real *input, const struct pixels *pixels,
                        ptrdiff_t depth_start, ptrdiff_t depth, ptrdiff_t row_length, real *rows)
{
    struct piece pieces[REDUCE_PIXELS];
    struct lanes parts[MOST_LANES];
    ptrdiff_t tap = depth_start / g->channels, channel = depth_start % g->channels, stride = g->stride[2];
    for (ptrdiff_t done = 0; done < depth; tap++, channel = 0) {
        ptrdiff_t found = find_pieces(g, pixels, g->tap + 3 * tap, pieces);
        ptrdiff_t part_count = cut_pieces(pieces, found, stride, parts);
        ptrdiff_t count = smaller(g->channels - channel, depth - done);
        const real *plane = input + channel * g->in_channel_stride;
        for (ptrdiff_t c = 0; c < count; c++, plane += g->in_channel_stride, rows += row_length) {
            const struct lanes *part = parts, *end = parts + part_count;
            for (ptrdiff_t vector = 0; vector * LANES < row_length; vector++) {
                vec value = {0};
                for (; part < end && part->vector == vector; part++) value += load_part(plane, part, stride);
                vec_store(rows + vector * LANES, value);
            }
        }
        done += count;
    }
}

/* Packs the weights of one depth block for a group: row k, depth d = t * channels + c. */
static void pack_weight(const void *weight, ptrdiff_t out_stride, ptrdiff_t channel_stride, const ptrdiff_t *tap_index,
                        ptrdiff_t channels, ptrdiff_t out_channels, ptrdiff_t depth_start, ptrdiff_t depth,
                        void *packed)
{
    real *to = packed;
    for (ptrdiff_t k = 0; k < out_channels; k += ROW_TILE) {
        ptrdiff_t rows = smaller(ROW_TILE, out_channels - k);
        for (ptrdiff_t d = depth_start; d < depth_start + depth; d++, to += ROW_TILE) {
            const real *from =
                (const real *)weight + k * out_stride + d % channels * channel_stride + tap_index[d / channels];
            for (ptrdiff_t row = 0; row < ROW_TILE; row++) to[row] = row < rows ? from[row * out_stride] : 0;
        }
    }
}

/* Stores a buffered tile where its pixels stand. */
INLINE void scatter_tile(const real *buffer, const struct pixels *pixels, ptrdiff_t rows, const real *bias,
                         real *output, ptrdiff_t row_stride, int accumulate)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < pixels->count; j++) {
            real *target = output + row * row_stride + pixels->target[j];
            *target = buffer[row * COLUMN_TILE + j] + (accumulate ? *target : bias ? bias[row] : 0);
        }
}

/* Adds the bias to a tile just stored, still in the first-level cache. */
INLINE void add_bias(ptrdiff_t rows, const real *bias, real *output, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < COLUMN_TILE; j += LANES) {
            real *target = output + row * row_stride + j;
            vec_store(target, vec_load(target) + vec_set(bias[row]));
        }
}

/* Bytes of scratch memory for tile(): the packed pixels of one depth block behind their description. */
static ptrdiff_t scratch_size(ptrdiff_t depth_block, ptrdiff_t pixels)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    return panels * ((ptrdiff_t)sizeof(struct pixels) + depth_block * COLUMN_TILE * (ptrdiff_t)sizeof(real)) +
           VEC_BYTES;
}

/* Output channels channel_start .. + channel_count (a multiple of ROW_TILE from the start) of one group, for pixels
 * pixel_start .. + pixels: all of the depth. `output` and `bias` point at the group's first channel. */
static void tile(const struct conv_geometry *g, const void *input, const void *packed_weight, ptrdiff_t out_channels,
                 ptrdiff_t depth_block, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t channel_start,
                 ptrdiff_t channel_count, const void *bias, void *output, void *scratch)
{
    real buffer[ROW_TILE * COLUMN_TILE];
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE, depth_total = g->taps * g->channels;
    ptrdiff_t padded_channels = (out_channels + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    real *packed = scratch;
    struct pixels *panel = (struct pixels *)(packed + panels * depth_block * COLUMN_TILE);
    for (ptrdiff_t i = 0; i < panels; i++)
        describe_pixels(g, pixel_start + i * COLUMN_TILE, smaller(COLUMN_TILE, pixels - i * COLUMN_TILE), &panel[i]);

    ptrdiff_t depth_start = 0;
    do { /* once even without any tap: the output is then the bias */
        ptrdiff_t depth = smaller(depth_block, depth_total - depth_start);
        for (ptrdiff_t i = 0; i < panels; i++)
            gather_rows(g, input, &panel[i], depth_start, depth, COLUMN_TILE, packed + i * depth * COLUMN_TILE);
        const real *weights = (const real *)packed_weight + depth_start * padded_channels;
        for (ptrdiff_t k = channel_start; k < channel_start + channel_count; k += ROW_TILE) {
            ptrdiff_t rows = smaller(ROW_TILE, channel_start + channel_count - k);
            const real *row_bias = bias ? (const real *)bias + k : NULL;
            for (ptrdiff_t i = 0; i < panels; i++) {
                const real *a = weights + k * depth, *b = packed + i * depth * COLUMN_TILE;
                real *target = (real *)output + k * g->out_channel_stride;
                if (panel[i].contiguous && panel[i].count == COLUMN_TILE) {
                    target += panel[i].target[0];
                    multiply_tile(rows, depth, a, b, target, g->out_channel_stride, depth_start > 0);
                    if (row_bias && depth_start == 0) add_bias(rows, row_bias, target, g->out_channel_stride);
                    continue;
                }
                multiply_tile(rows, depth, a, b, buffer, COLUMN_TILE, 0);
                scatter_tile(buffer, &panel[i], rows, row_bias, target, g->out_channel_stride, depth_start > 0);
            }
        }
        depth_start += depth;
    } while (depth_start < depth_total);
}

/* packed[d / COLUMN_TILE][pixel][COLUMN_TILE]: the gathered rows of one panel, transposed. */
INLINE void pack_transposed(const real *rows, ptrdiff_t count, real *packed)
{ pack_panels(rows, REDUCE_PIXELS, 1, COLUMN_TILE, count, COLUMN_TILE, packed); }

/* packed[k / ROW_TILE][pixel][ROW_TILE] */
static void pack_gradient(const struct conv_geometry *g, const real *grad_output, ptrdiff_t out_channels,
                          const struct pixels *pixels, real *packed)
{
    for (ptrdiff_t k = 0; k < out_channels; k += ROW_TILE, packed += pixels->count * ROW_TILE)
        for (ptrdiff_t row = 0; row < ROW_TILE; row++) {
            const real *grad = grad_output + (k + row) * g->out_channel_stride;
            for (ptrdiff_t j = 0; j < pixels->count; j++)
                packed[j * ROW_TILE + row] = k + row < out_channels ? grad[pixels->target[j]] : 0;
        }
}

static ptrdiff_t weight_scratch_size(ptrdiff_t out_channels)
{
    ptrdiff_t padded_channels = (out_channels + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    ptrdiff_t elements = (padded_channels + 2 * COLUMN_TILE) * REDUCE_PIXELS;
    return elements * (ptrdiff_t)sizeof(real) + (ptrdiff_t)sizeof(struct pixels) + VEC_BYTES;
}

/* partial[k][d - depth_start] = sum over these pixels; rows start row_stride apart and hold depth_count rounded up to
 * COLUMN_TILE. `grad_output` points at the group's first channel. */
static void weight_tile(const struct conv_geometry *g, const void *input, const void *grad_output,
                        ptrdiff_t out_channels, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t depth_start,
                        ptrdiff_t depth_count, void *partial, ptrdiff_t row_stride, void *scratch)
{
    ptrdiff_t padded_channels = (out_channels + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    real *packed_grad = scratch, *packed_input = packed_grad + padded_channels * REDUCE_PIXELS;
    real *rows = packed_input + COLUMN_TILE * REDUCE_PIXELS;
    struct pixels *block = (struct pixels *)(rows + COLUMN_TILE * REDUCE_PIXELS);

    ptrdiff_t positions = g->grid[0] * g->grid[1] * g->grid[2], count;
    for (ptrdiff_t done = 0; done < pixels; done += count) {
        /* Within one image gradients are read where they lie; blocks of small images run across and are packed. */
        count = smaller(REDUCE_PIXELS, pixels - done);
        if (positions >= REDUCE_PIXELS / 2) count = smaller(count, positions - (pixel_start + done) % positions);
        describe_pixels(g, pixel_start + done, count, block);
        if (!block->contiguous) pack_gradient(g, grad_output, out_channels, block, packed_grad);
        for (ptrdiff_t d = 0; d < depth_count; d += COLUMN_TILE) {
            ptrdiff_t panel_depth = smaller(COLUMN_TILE, depth_count - d);
            gather_rows(g, input, block, depth_start + d, panel_depth, REDUCE_PIXELS, rows);
            memset(rows + panel_depth * REDUCE_PIXELS, 0,
                   (size_t)((COLUMN_TILE - panel_depth) * REDUCE_PIXELS) * sizeof(real));
            pack_transposed(rows, count, packed_input);
            for (ptrdiff_t k = 0; k < out_channels; k += ROW_TILE) {
                ptrdiff_t row_count = smaller(ROW_TILE, out_channels - k);
                real *target = (real *)partial + k * row_stride + d;
                if (block->contiguous)
                    multiply_tile_in_place(row_count, count,
                                           (const real *)grad_output + k * g->out_channel_stride + block->target[0],
                                           g->out_channel_stride, packed_input, target, row_stride, done > 0);
                else
                    multiply_tile(row_count, count, packed_grad + k * count, packed_input, target, row_stride,
                                  done > 0);
            }
        }
    }
}

/* weight_grad[c][t] of one output channel = sum over parts, in order, of partial[part][d = t * channels + c]. The sum is
 * left in the first part. One tap of all the depth: partial sums that are in the weights' order already. */
static void reduce_weight(void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t taps, ptrdiff_t channels,
                          void *weight_grad)
{
    real *sum = partials, *to = weight_grad;
    ptrdiff_t depth = taps * channels;
    for (ptrdiff_t part = 1; part < parts; part++) {
        const real *from = sum + part * part_stride;
        for (ptrdiff_t d = 0; d < depth; d++) sum[d] += from[d];
    }
    for (ptrdiff_t c = 0; c < channels; c++)
        for (ptrdiff_t t = 0; t < taps; t++) to[c * taps + t] = sum[t * channels + c];
}

/* Sum of one channel over all images and positions: vectors over up to 4096 positions, double across them. */
static void channel_sum(const void *x, ptrdiff_t images, ptrdiff_t image_stride, ptrdiff_t positions, void *sum)
{
    double total = 0;
    for (ptrdiff_t n = 0; n < images; n++)
        for (ptrdiff_t start = 0; start < positions; start += 4096) {
            const real *from = (const real *)x + n * image_stride + start;
            ptrdiff_t count = smaller(4096, positions - start), i = 0;
            vec first = {0}, second = {0};
            for (; i + 2 * LANES <= count; i += 2 * LANES) {
                first += vec_load(from + i);
                second += vec_load(from + i + LANES);
            }
            for (; i < count; i += LANES) first += vec_load_tail(from + i, smaller(LANES, count - i));
            total += (double)vec_sum(first + second);
        }
    *(real *)sum = (real)total;
}

const struct conv_kernels FASTNN_TABLE(conv) = {
    .pack_weight = pack_weight,
    .tile = tile,
    .weight_tile = weight_tile,
    .reduce_weight = reduce_weight,
    .channel_sum = channel_sum,
    .scratch_size = scratch_size,
    .weight_scratch_size = weight_scratch_size,
};

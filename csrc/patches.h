/* Pixels: the columns of a convolution as a matrix product. Where they stand in the output, where each filter position
 * (tap) of theirs stands in the image, and the way from the image to the matrix of patches and from products to outputs.
 *
 * Pixels are numbered across rows and images, q = n * positions + p, and come in panels of COLUMN_TILE. A row of the matrix of
 * patches is one channel under one tap; the parts of it that lie inside the image are found once for all channels.
 */
#ifndef FASTNN_PATCHES_H
#define FASTNN_PATCHES_H

#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"

/* Pixels that are described together at most: those that backward-weights reduces per pass over its operands. */
enum { REDUCE_PIXELS = 192 };

static inline ptrdiff_t padded_columns(ptrdiff_t columns)
{ return (columns + COLUMN_TILE - 1) / COLUMN_TILE * COLUMN_TILE; }

static inline ptrdiff_t count_pixels(const struct conv_geometry *g)
{ return g->images * g->grid[0] * g->grid[1] * g->grid[2]; }

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
static inline void describe_pixels(const struct conv_geometry *g, ptrdiff_t start, ptrdiff_t count,
                                   struct pixels *pixels)
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

/* The same for each panel of COLUMN_TILE pixels. */
static inline void describe_panels(const struct conv_geometry *g, ptrdiff_t start, ptrdiff_t count,
                                   struct pixels *panel)
{
    for (ptrdiff_t done = 0; done < count; done += COLUMN_TILE)
        describe_pixels(g, start + done, smaller(COLUMN_TILE, count - done), panel++);
}

/* The lanes of one vector of pixels that one tap finds inside the image: `stride` apart, `offset` is where lane 0 would
 * stand. */
struct lanes {
    ptrdiff_t offset;
    uint8_t vector, first, end;
};

/* Where the rows of the matrix of patches find their pixels, the same for every channel: the parts of panel i under tap t
 * are part[first[t * panels + i]] up to the next one's first. */
struct patches {
    ptrdiff_t panels;
    ptrdiff_t *first;
    struct lanes *part;
};

/* No more runs than pixels, nor than rows that they may touch; cut at the ends of vectors, of which some are part runs. */
static inline ptrdiff_t most_parts(const struct conv_geometry *g, ptrdiff_t pixels)
{ return smaller(pixels, pixels / larger(g->grid[2], 1) + 2) + (pixels + LANES - 1) / LANES; }

/* Bytes of the table of patches for panels of so many pixels. */
static inline ptrdiff_t patches_size(const struct conv_geometry *g, ptrdiff_t panels, ptrdiff_t pixels)
{
    ptrdiff_t rows = g->taps * panels;
    return (rows + 1) * (ptrdiff_t)sizeof(ptrdiff_t) + rows * most_parts(g, pixels) * (ptrdiff_t)sizeof(struct lanes);
}

/* Bytes of the descriptions of so many panels of COLUMN_TILE pixels, and of their table of patches. */
static inline ptrdiff_t description_size(const struct conv_geometry *g, ptrdiff_t panels)
{ return panels * (ptrdiff_t)sizeof(struct pixels) + patches_size(g, panels, COLUMN_TILE); }

/* Cuts `count` pixels from `start`, the first of which stands at `offset` in the image, at the ends of vectors. */
static inline struct lanes *cut_run(ptrdiff_t start, ptrdiff_t count, ptrdiff_t offset, ptrdiff_t stride,
                                    struct lanes *part)
{
    for (ptrdiff_t vector = start / LANES; vector * LANES < start + count; vector++) {
        ptrdiff_t origin = vector * LANES;
        *part++ = (struct lanes){offset + (origin - start) * stride, (uint8_t)vector,
                                 (uint8_t)larger(start - origin, 0), (uint8_t)smaller(start + count - origin, LANES)};
    }
    return part;
}

/* The parts of one panel that one tap finds inside the image. */
static inline struct lanes *find_parts(const struct conv_geometry *g, const struct pixels *pixels, const ptrdiff_t *tap,
                                       struct lanes *part)
{
    ptrdiff_t stride = g->stride[2], width = g->in_size[2], step = g->in_pixel_stride;
    for (const struct run *run = pixels->run; run < pixels->run + pixels->runs; run++) {
        ptrdiff_t z = run->position[0] + tap[0], y = run->position[1] + tap[1], x = run->position[2] + tap[2];
        if (z < 0 || z >= g->in_size[0] || y < 0 || y >= g->in_size[1]) continue;
        ptrdiff_t first = x >= 0 ? 0 : stride == 1 ? -x : (-x + stride - 1) / stride;
        ptrdiff_t end = x >= width ? 0 : stride == 1 ? width - x : (width - x + stride - 1) / stride;
        end = smaller(end, run->count);
        if (first >= end) continue;
        ptrdiff_t offset = run->image + ((z * g->in_size[1] + y) * width + x + first * stride) * step;
        part = cut_run(run->start + first, end - first, offset, stride * step, part);
    }
    return part;
}

static inline struct patches find_patches(const struct conv_geometry *g, const struct pixels *pixels, ptrdiff_t panels,
                                          void *memory)
{
    ptrdiff_t rows = g->taps * panels;
    struct patches patches = {panels, memory, (struct lanes *)((ptrdiff_t *)memory + rows + 1)};
    struct lanes *part = patches.part;
    for (ptrdiff_t row = 0; row < rows; row++) {
        patches.first[row] = part - patches.part;
        part = find_parts(g, &pixels[row % panels], g->tap + 3 * (row / panels), part);
    }
    patches.first[rows] = part - patches.part;
    return patches;
}

/* Every second element for lanes first ... end - 1, zeros in the others; nothing else is read. */
INLINE vec load_every_second(const real *from, ptrdiff_t first, ptrdiff_t end)
{
    if (end - first == LANES) return VEC_EVEN(vec_load(from), vec_load_tail(from + LANES, LANES - 1));
    ptrdiff_t begin = 2 * first, stop = 2 * end - 1;
    vec low = vec_load_lanes(from, smaller(begin, LANES), smaller(stop, LANES));
    vec high = vec_load_lanes(from + LANES, larger(begin - LANES, 0), larger(stop - LANES, 0));
    return VEC_EVEN(low, high);
}

/* Every fourth element for all lanes; nothing behind the last is read. */
INLINE vec load_every_fourth(const real *from)
{
    vec low = VEC_EVEN(vec_load(from), vec_load(from + LANES));
    vec high = VEC_EVEN(vec_load(from + 2 * LANES), vec_load_tail(from + 3 * LANES, LANES - 3));
    return VEC_EVEN(low, high);
}

/* The lanes of `part` from one channel's image, zeros in the others. */
INLINE vec load_part(const real *plane, const struct lanes *part, ptrdiff_t stride)
{
    const real *from = plane + part->offset;
    if (stride == 1)
        return part->end - part->first == LANES ? vec_load(from) : vec_load_lanes(from, part->first, part->end);
    if (stride == 2) return load_every_second(from, part->first, part->end);
    if (stride == 4 && part->end - part->first == LANES && LANES > 2) return load_every_fourth(from);
    real lanes[LANES] = {0};
    for (ptrdiff_t lane = part->first; lane < part->end; lane++) lanes[lane] = from[lane * stride];
    return vec_load(lanes);
}

/* Channels last: to[channel][pixel] of `channels` channels from `input` on, of the pixels of one vector, whose parts these
 * are. Squares of LANES pixels by LANES channels are transposed in registers. */
INLINE void gather_squares(const real *input, const struct lanes *part, const struct lanes *end, ptrdiff_t step,
                           ptrdiff_t channels, ptrdiff_t row_stride, real *to)
{
    const real *from[LANES] = {NULL};
    const int whole = end - part == 1 && part->first == 0 && part->end == LANES;
    const real *line = whole ? input + part->offset : NULL;
    for (; part < end; part++)
        for (ptrdiff_t lane = part->first; lane < part->end; lane++) from[lane] = input + part->offset + lane * step;
    for (ptrdiff_t c = 0; c < channels; c += LANES, to += LANES * row_stride) {
        ptrdiff_t rest = channels - c;
        vec square[LANES];
        if (whole && rest >= LANES)
            for (int i = 0; i < LANES; i++) {
                square[i] = vec_load(line + c + i * step);
                __builtin_prefetch(line + c + (i + LANES) * step); /* the next pixels, which are far apart */
            }
        else
            for (int i = 0; i < LANES; i++) square[i] = from[i] ? vec_load_rest(from[i] + c, rest) : (vec){0};
        vec_transpose(square);
        for (int i = 0; i < LANES; i++)
            if (i < rest) vec_store(to + i * row_stride, square[i]);
    }
}

/* Channels first: to[channel] (+)= the lanes of one part, of `channels` channels from `input` on. One part at a time for
 * all channels, so that its masks are made once. */
INLINE void gather_part(const real *input, ptrdiff_t channel_stride, const struct lanes *part, const ptrdiff_t stride,
                        ptrdiff_t channels, const int accumulate, ptrdiff_t row_stride, real *to)
{
    const struct lanes lanes = *part;
    for (ptrdiff_t c = 0; c < channels; c++, input += channel_stride, to += row_stride) {
        vec value = load_part(input, &lanes, stride);
        vec_store(to, accumulate ? vec_load(to) + value : value);
    }
}

/* The same for all parts of one vector of pixels. */
INLINE void gather_parts(const real *input, ptrdiff_t channel_stride, const struct lanes *part, const struct lanes *end,
                         const ptrdiff_t stride, ptrdiff_t channels, ptrdiff_t row_stride, real *to)
{
    if (part == end)
        for (ptrdiff_t c = 0; c < channels; c++) vec_store(to + c * row_stride, (vec){0});
    else
        gather_part(input, channel_stride, part, stride, channels, 0, row_stride, to);
    while (++part < end) gather_part(input, channel_stride, part, stride, channels, 1, row_stride, to);
}

/* to[channel][pixel] of `channels` channels from `input` on, of the pixels of one panel under one tap. */
static inline void gather_tap(const struct conv_geometry *g, const real *input, const struct patches *patches,
                              ptrdiff_t panel, ptrdiff_t tap, ptrdiff_t channels, ptrdiff_t row_length,
                              ptrdiff_t row_stride, real *to)
{
    const ptrdiff_t *first = patches->first + tap * patches->panels + panel, stride = g->stride[2];
    const struct lanes *part = patches->part + first[0], *end = patches->part + first[1], *stop;
    for (ptrdiff_t vector = 0; vector * LANES < row_length; vector++, part = stop, to += LANES) {
        for (stop = part; stop < end && stop->vector == vector;) stop++;
        if (g->in_pixel_stride > 1)
            gather_squares(input, part, stop, stride * g->in_pixel_stride, channels, row_stride, to);
        else if (stride == 1)
            gather_parts(input, g->in_channel_stride, part, stop, 1, channels, row_stride, to);
        else if (stride == 2)
            gather_parts(input, g->in_channel_stride, part, stop, 2, channels, row_stride, to);
        else
            gather_parts(input, g->in_channel_stride, part, stop, stride, channels, row_stride, to);
    }
}

/* Channels that are packed under all taps before the next ones. Planes of whole pages share the sets of the first-level
 * cache, which then holds few of them: 64 channels at 32x32 at once 84, by eights 96 GFLOP/s; at 56x56 105 and 98. */
INLINE ptrdiff_t channels_together(const struct conv_geometry *g)
{ return g->in_channel_stride * (ptrdiff_t)sizeof(real) % 4096 == 0 ? 8 : PTRDIFF_MAX / larger(g->taps, 1); }

/* packed[d][pixel] of panel i for depth_start <= d < depth_start + depth, `row_length` elements a row; zeros outside the
 * image and behind the last pixel. */
static inline void gather_panel(const struct conv_geometry *g, const real *input, const struct patches *patches,
                                ptrdiff_t i, ptrdiff_t depth_start, ptrdiff_t depth, ptrdiff_t row_length, real *packed)
{
    ptrdiff_t together = channels_together(g) * larger(g->taps, 1);
    for (ptrdiff_t start = 0; start < depth; start += together) {
        ptrdiff_t count = smaller(together, depth - start);
        for (ptrdiff_t row = 0; row < smaller(g->taps, count); row++) {
            ptrdiff_t d = depth_start + start + row, channels = (count - row + g->taps - 1) / g->taps;
            gather_tap(g, input + d / g->taps * g->in_channel_stride, patches, i, d % g->taps, channels, row_length,
                       g->taps * row_length, packed + (start + row) * row_length);
        }
    }
}

/* The same for all panels, one after the other. */
static inline void gather_panels(const struct conv_geometry *g, const real *input, const struct patches *patches,
                                 ptrdiff_t depth_start, ptrdiff_t depth, ptrdiff_t row_length, real *packed)
{
    for (ptrdiff_t i = 0; i < patches->panels; i++, packed += depth * row_length)
        gather_panel(g, input, patches, i, depth_start, depth, row_length, packed);
}

/* Whether the rows of the matrix of patches are the channels of the image as they lie. */
static inline int reads_in_place(const struct conv_geometry *g)
{
    int same = g->taps == 1 && g->in_pixel_stride == 1;
    for (int i = 0; same && i < 3; i++) same = g->tap[i] == 0 && g->stride[i] == 1 && g->grid[i] == g->in_size[i];
    return same;
}

/* Where COLUMN_TILE pixels from q on, which are those of such an image, stand in the first channel; NULL unless all of
 * them follow one another. */
static inline const real *find_in_place(const struct conv_geometry *g, const real *input, ptrdiff_t q)
{
    ptrdiff_t positions = g->in_channel_stride, image = q / positions, p = q % positions;
    return image < g->images && p + COLUMN_TILE <= positions ? input + image * g->in_image_stride + p : NULL;
}

/* Stores a buffered tile where its pixels stand. */
INLINE void scatter_tile(const real *buffer, const struct pixels *pixels, ptrdiff_t rows, const real *bias,
                         real *output, ptrdiff_t row_stride, int accumulate)
{
    for (ptrdiff_t row = 0; row < rows; row++, output += row_stride, buffer += COLUMN_TILE) {
        real first = bias ? bias[row] : 0;
        for (ptrdiff_t j = 0; j < pixels->count; j += pixels->contiguous ? LANES : 1) {
            real *target = output + pixels->target[j];
            if (pixels->contiguous) {
                ptrdiff_t rest = pixels->count - j;
                vec before = vec_set(first);
                if (accumulate) before += vec_load_rest(target, rest);
                vec_store_rest(target, vec_load(buffer + j) + before, rest);
            } else {
                *target = buffer[j] + (accumulate ? *target + first : first);
            }
        }
    }
}

/* Stores `count` channels, at most LANES, of pixels j .. j + LANES of a panel, channels last, from rows[channel][pixel].
 * `residual` and `output` point at the first channel. */
INLINE void store_square(const struct pixels *pixels, ptrdiff_t j, const real *rows, ptrdiff_t row_stride,
                         ptrdiff_t count, vec bias, const real *residual, real slope, real *output,
                         struct channel_sums *sums)
{
    struct channel_sums own = *sums; /* in registers */
    vec square[LANES];
    for (int c = 0; c < LANES; c++) square[c] = c < count ? vec_load(rows + c * row_stride + j) : (vec){0};
    vec_transpose(square);
    const ptrdiff_t *target = pixels->target + j;
    ptrdiff_t rest = pixels->count - j;
#pragma GCC unroll 16
    for (int x = 0; x < LANES; x++) {
        if (x >= rest) continue;
        if (x + LANES < rest) __builtin_prefetch(output + target[x + LANES], 1);
        epilogue_store_pixel(square[x] + bias, count, residual ? residual + target[x] : NULL, slope, output + target[x],
                             &own);
    }
    *sums = own;
}

#endif

/* Convolution of 1 to 3 spatial dimensions as an implicit matrix product (im2col inside the packing):
 *
 *   forward           out[n,k,p]   = bias[k] + sum over t, c of weight[k,c,t] * in[n,c, p * stride + tap(t)]
 *   backward-data     the same, phase by phase, with the gradient as `in` and the weights transposed; or, for strides and
 *                     for few pixels, product[c,t,p] = sum over k of weight[k,c,t] * dout[n,k,p], added up over t
 *   backward-weights  dw[k,c,t]    = sum over n, p of dout[n,k,p] * in[n,c, p * stride + tap(t)]
 *
 * K output channels, C input channels (both per group), T filter positions (taps), N images, p an output position.
 * The depth of the product is d = c * T + t, as the weights lie.
 * The columns are "pixels", q = n * positions + p: panels of COLUMN_TILE pixels run across rows and images, so that
 * narrow images fill the vectors too. The matrix of patches exists one panel block at a time, in the thread's scratch memory.
 *
 *   packed weights  [depth block][K / ROW_TILE][depth in block][ROW_TILE]
 *   packed pixels   [panel][depth in block][COLUMN_TILE]
 */
#include "epilogue.h"
#include "gemm_micro.h"
#include "kernels.h"

/* Pixels that backward-weights reduces per pass over its operands, and rows of them in its buffer: COLUMN_TILE or more,
 * squares of channels-last pixels and tiles of rows both fill it. */
enum { REDUCE_PIXELS = 192, BUFFER_ROWS = 3 * (int)LANES };
/* Panels of pixels in a tile: 4 to 32 are within 4 % of each other. */
enum { TILE_PANELS = 8 };

static ptrdiff_t padded_columns(ptrdiff_t columns) { return (columns + COLUMN_TILE - 1) / COLUMN_TILE * COLUMN_TILE; }

static ptrdiff_t count_pixels(const struct conv_geometry *g)
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

/* The same for each panel of COLUMN_TILE pixels. */
static void describe_panels(const struct conv_geometry *g, ptrdiff_t start, ptrdiff_t count, struct pixels *panel)
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
static ptrdiff_t most_parts(const struct conv_geometry *g, ptrdiff_t pixels)
{ return smaller(pixels, pixels / larger(g->grid[2], 1) + 2) + (pixels + LANES - 1) / LANES; }

/* Bytes of the table of patches for panels of so many pixels. */
static ptrdiff_t patches_size(const struct conv_geometry *g, ptrdiff_t panels, ptrdiff_t pixels)
{
    ptrdiff_t rows = g->taps * panels;
    return (rows + 1) * (ptrdiff_t)sizeof(ptrdiff_t) + rows * most_parts(g, pixels) * (ptrdiff_t)sizeof(struct lanes);
}

/* Cuts `count` pixels from `start`, the first of which stands at `offset` in the image, at the ends of vectors. */
static struct lanes *cut_run(ptrdiff_t start, ptrdiff_t count, ptrdiff_t offset, ptrdiff_t stride, struct lanes *part)
{
    for (ptrdiff_t vector = start / LANES; vector * LANES < start + count; vector++) {
        ptrdiff_t origin = vector * LANES;
        *part++ = (struct lanes){offset + (origin - start) * stride, (uint8_t)vector,
                                 (uint8_t)larger(start - origin, 0), (uint8_t)smaller(start + count - origin, LANES)};
    }
    return part;
}

/* The parts of one panel that one tap finds inside the image. */
static struct lanes *find_parts(const struct conv_geometry *g, const struct pixels *pixels, const ptrdiff_t *tap,
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

static struct patches find_patches(const struct conv_geometry *g, const struct pixels *pixels, ptrdiff_t panels,
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

/* The first channel whose depth under this tap is not before d. */
INLINE ptrdiff_t channel_from(const struct conv_geometry *g, ptrdiff_t d, ptrdiff_t tap)
{ return (d - tap + g->taps - 1) / g->taps; }

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
static void gather_tap(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t panel,
                       ptrdiff_t tap, ptrdiff_t channels, ptrdiff_t row_length, ptrdiff_t row_stride, real *to)
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

/* packed[d][pixel] of panel i for depth_start <= d < depth_start + depth, `row_length` elements a row; zeros outside the
 * image and behind the last pixel. */
static void gather_panel(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t i,
                         ptrdiff_t depth_start, ptrdiff_t depth, ptrdiff_t row_length, real *packed)
{
    for (ptrdiff_t tap = 0; tap < g->taps; tap++) {
        ptrdiff_t c = channel_from(g, depth_start, tap), end = channel_from(g, depth_start + depth, tap);
        gather_tap(g, input + c * g->in_channel_stride, patches, i, tap, end - c, row_length, g->taps * row_length,
                   packed + (c * g->taps + tap - depth_start) * row_length);
    }
}

/* The same for all panels, one after the other. */
static void gather_panels(const struct conv_geometry *g, const real *input, const struct patches *patches,
                          ptrdiff_t depth_start, ptrdiff_t depth, ptrdiff_t row_length, real *packed)
{
    for (ptrdiff_t i = 0; i < patches->panels; i++, packed += depth * row_length)
        gather_panel(g, input, patches, i, depth_start, depth, row_length, packed);
}

/* Whether the rows of the matrix of patches are the channels of the image as they lie. */
static int reads_in_place(const struct conv_geometry *g)
{
    int same = g->taps == 1 && g->in_pixel_stride == 1;
    for (int i = 0; i < 3; i++) same &= g->tap[i] == 0 && g->stride[i] == 1 && g->grid[i] == g->in_size[i];
    return same;
}

/* Where COLUMN_TILE pixels from q on, which are those of such an image, stand in the first channel; NULL unless all of
 * them follow one another. */
static const real *find_in_place(const struct conv_geometry *g, const real *input, ptrdiff_t q)
{
    ptrdiff_t positions = g->in_channel_stride, image = q / positions, p = q % positions;
    return image < g->images && p + COLUMN_TILE <= positions ? input + image * g->in_image_stride + p : NULL;
}

/* Squares of LANES that a tile of output channels takes. */
enum { ROW_SQUARES = ((int)ROW_TILE + (int)LANES - 1) / (int)LANES };

/* Where the weights of one tile of output channels go: [depth block][K / ROW_TILE][depth in block][ROW_TILE]. */
INLINE real *packed_place(real *packed, ptrdiff_t d, ptrdiff_t depth, ptrdiff_t depth_block, ptrdiff_t padded_rows,
                          ptrdiff_t row)
{
    ptrdiff_t start = d / depth_block * depth_block;
    return packed + start * padded_rows + row * smaller(depth_block, depth - start) + (d - start) * ROW_TILE;
}

/* Packs the weights of output channels row ... row + ROW_TILE of a group: of all filter positions the taps, whose number
 * in the depth is place[position], or -1. Where channels follow one another in memory, squares of output channels by
 * contiguous numbers are transposed in registers, and else of output channels by filter positions. */
static void pack_weight(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, const ptrdiff_t *place,
                        ptrdiff_t taps, ptrdiff_t filter, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t row,
                        ptrdiff_t depth_block, void *packed)
{
    ptrdiff_t count = smaller(ROW_TILE, rows - row), padded_rows = (rows + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    ptrdiff_t span = channel_stride == filter ? channels * filter : filter, depth = taps * channels;
    const real *lines = (const real *)weight + row * row_stride;
    ptrdiff_t channel = 0, position = 0;
    for (ptrdiff_t done = 0; done < channels * filter; done += span, lines += channel_stride)
        for (ptrdiff_t e = 0; e < span; e += LANES) {
            vec squares[ROW_SQUARES][LANES];
            for (int group = 0; group < ROW_SQUARES; group++) {
                for (int i = 0; i < LANES; i++) {
                    ptrdiff_t line = group * LANES + i;
                    squares[group][i] =
                        line < count ? vec_load_rest(lines + line * row_stride + e, span - e) : (vec){0};
                }
                vec_transpose(squares[group]);
            }
            for (ptrdiff_t i = 0; i < smaller(LANES, span - e); i++) {
                if (place[position] >= 0) {
                    ptrdiff_t d = channel * taps + place[position];
                    real *to = packed_place(packed, d, depth, depth_block, padded_rows, row);
                    for (int group = 0; group < ROW_SQUARES; group++)
                        vec_store_rest(to + group * LANES, squares[group][i], ROW_TILE - group * LANES);
                }
                if (++position == filter) {
                    position = 0;
                    channel++;
                }
            }
        }
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

/* Adds the bias to a tile just stored, still in the first-level cache. */
INLINE void add_bias(ptrdiff_t rows, const real *bias, real *output, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < COLUMN_TILE; j += LANES) {
            real *target = output + row * row_stride + j;
            vec_store(target, vec_load(target) + vec_set(bias[row]));
        }
}

/* Stores a buffered tile, whose depth is complete, through the epilogue: the output's own memory is touched once, and its
 * lines are waited for once. Adds to the sums of the tile's rows, if they are wanted; `residual` has the outputs' strides. */
static void finish_tile(const struct conv_epilogue *epilogue, real *buffer, const struct pixels *pixels, ptrdiff_t rows,
                        const real *bias, const real *residual, real *output, ptrdiff_t row_stride, int accumulate,
                        struct channel_sums *sums)
{
    const real slope = (real)epilogue->slope;
    const ptrdiff_t *target = pixels->target;
    for (ptrdiff_t row = 0; row < rows; row++, buffer += COLUMN_TILE, output += row_stride) {
        struct channel_sums *row_sums = epilogue->sums ? &sums[row] : NULL;
        const real *from = residual ? residual + row * row_stride : NULL, first = bias ? bias[row] : 0;
        if (pixels->contiguous) {
            for (ptrdiff_t j = 0; j < pixels->count; j += LANES) {
                vec v = vec_load(buffer + j) + vec_set(first);
                if (accumulate) v += vec_load_rest(output + target[0] + j, pixels->count - j);
                vec_store(buffer + j, v);
            }
            epilogue_store(buffer, pixels->count, from ? from + target[0] : NULL, slope, output + target[0], row_sums);
            continue;
        }
        for (ptrdiff_t j = 0; j < pixels->count; j++)
            buffer[j] += first + (accumulate ? output[target[j]] : 0) + (from ? from[target[j]] : 0);
        epilogue_store(buffer, pixels->count, NULL, slope, buffer, row_sums);
        for (ptrdiff_t j = 0; j < pixels->count; j++) output[target[j]] = buffer[j];
    }
}

/* Bytes of scratch memory for tile(): the packed pixels of one depth block, their description, and the table of patches. */
static ptrdiff_t scratch_size(const struct conv_geometry *g, ptrdiff_t depth_block, ptrdiff_t pixels)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    ptrdiff_t elements = depth_block * (panels * COLUMN_TILE + DOT_ROWS);
    return elements * (ptrdiff_t)sizeof(real) + panels * (ptrdiff_t)sizeof(struct pixels) +
           patches_size(g, panels, COLUMN_TILE) + VEC_BYTES;
}

/* One or two pixels do not fill a vector (7x7 is one more than a panel): over a long depth they have lanes along it. */
enum { DOT_DEPTH = 256 };
static ptrdiff_t count_dots(const struct pixels *panel, ptrdiff_t depth)
{ return panel->count <= DOT_ROWS && depth >= DOT_DEPTH ? panel->count : 0; }

/* lines[pixel][depth] of so few pixels, from their panel */
static void take_lines(const real *panel, ptrdiff_t pixels, ptrdiff_t depth, real *lines)
{
    for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
        for (ptrdiff_t d = 0; d < depth; d++) lines[pixel * depth + d] = panel[d * COLUMN_TILE + pixel];
}

/* tile[row][pixel] = dot(row of the weights, line), with lanes along the depth */
static void multiply_lines(ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t depth, const real *weight, ptrdiff_t weight_row,
                           const real *lines, real *tile)
{
    real sums[DOT_ROWS * DOT_LINES];
    for (ptrdiff_t row = 0; row < rows; row += DOT_LINES) {
        const real *line[DOT_LINES]; /* the last one again where there are no more */
        for (ptrdiff_t l = 0; l < DOT_LINES; l++) line[l] = weight + smaller(row + l, rows - 1) * weight_row;
        if (pixels == DOT_ROWS)
            dot_tile(DOT_ROWS, depth, lines, depth, line, sums);
        else
            dot_tile(1, depth, lines, depth, line, sums);
        for (ptrdiff_t pixel = 0; pixel < pixels; pixel++)
            for (ptrdiff_t l = 0; l < smaller(DOT_LINES, rows - row); l++)
                tile[(row + l) * COLUMN_TILE + pixel] = sums[pixel * DOT_LINES + l];
    }
}

/* The products of one tile of output channels with the panels of one depth block, added to earlier blocks' or not. */
struct products {
    ptrdiff_t rows, depth, a_row, a_depth, panels;
    ptrdiff_t dots; /* pixels of the last panel that are dot products with `lines`, or none */
    const real *a, *lines;
    real *packed;
    const struct pixels *panel;
    int accumulate;
    /* Panels that stand in the image, channels channel_stride apart, or NULL: those still to be packed, in passing, and
     * a vector of those of a tile of pixels to come, which are sent for. */
    const real *unpacked[TILE_PANELS], *ahead[TILE_PANELS];
    ptrdiff_t channel_stride;
};

/* Packs the panels of a depth block, or leaves it to the first products (1x1 filters, which use what they read so seldom
 * that memory must not be waited for). `next` is the first pixel of the tile that the thread is likely to compute next. */
static void pack_block(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t pixel,
                       ptrdiff_t next, ptrdiff_t depth_start, int in_passing, struct products *p)
{
    const real *first_channel = input + depth_start * g->in_channel_stride;
    p->channel_stride = g->in_channel_stride;
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const real *place = in_passing ? find_in_place(g, first_channel, pixel + i * COLUMN_TILE) : NULL;
        const real *to_come = in_passing ? find_in_place(g, first_channel, next + i * COLUMN_TILE) : NULL;
        p->unpacked[i] = place;
        p->ahead[i] = to_come ? to_come : place;
        if (!place)
            gather_panel(g, input, patches, i, depth_start, p->depth, COLUMN_TILE,
                         p->packed + i * p->depth * COLUMN_TILE);
    }
}

/* After the products of `tiles` tiles of output channels: panels are packed now, and another vector is sent for. */
static void pass_on(struct products *p, ptrdiff_t tiles)
{
    for (ptrdiff_t i = 0; i < TILE_PANELS; i++) {
        p->unpacked[i] = NULL;
        p->ahead[i] = p->ahead[i] && tiles < COLUMN_VECTORS ? p->ahead[i] + LANES : NULL;
    }
}

INLINE void multiply_whole_panel(const struct products *p, ptrdiff_t i, real *to, ptrdiff_t row_stride, int accumulate)
{
    real *packed = p->packed + i * p->depth * COLUMN_TILE;
    const real *unpacked = p->unpacked[i], *ahead = p->ahead[i];
    if (p->rows < ROW_TILE || !ahead)
        multiply_some_rows(p->rows, COLUMN_VECTORS, p->depth, p->a, p->a_row, p->a_depth, packed, COLUMN_TILE, to,
                           row_stride, accumulate);
    else if (unpacked)
        multiply_in_passing(ROW_TILE, COLUMN_VECTORS, p->depth, p->a, p->a_row, p->a_depth, unpacked, p->channel_stride,
                            packed, ahead, p->channel_stride, to, row_stride, accumulate);
    else
        multiply_in_passing(ROW_TILE, COLUMN_VECTORS, p->depth, p->a, p->a_row, p->a_depth, packed, COLUMN_TILE, NULL,
                            ahead, p->channel_stride, to, row_stride, accumulate);
}

INLINE void multiply_into_buffer(const struct products *p, ptrdiff_t i, real *buffer)
{
    if (p->dots && i == p->panels - 1)
        multiply_lines(p->rows, p->dots, p->depth, p->a, p->a_row, p->lines, buffer);
    else if (p->panel[i].count == COLUMN_TILE)
        multiply_whole_panel(p, i, buffer, COLUMN_TILE, 0);
    else
        multiply_ragged_tile(p->rows, p->panel[i].count, p->depth, p->a, p->a_row, p->a_depth,
                             p->packed + i * p->depth * COLUMN_TILE, buffer, COLUMN_TILE, 0);
}

/* Products that are not complete yet, or have no epilogue but a bias: whole panels are multiplied where they stand. */
INLINE void store_products(const struct products *p, const real *bias, real *output, ptrdiff_t row_stride)
{
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        const struct pixels *panel = &p->panel[i];
        if (panel->contiguous && panel->count == COLUMN_TILE) {
            real *target = output + panel->target[0];
            multiply_whole_panel(p, i, target, row_stride, p->accumulate);
            if (bias) add_bias(p->rows, bias, target, row_stride);
            continue;
        }
        real buffer[ROW_TILE * COLUMN_TILE];
        multiply_into_buffer(p, i, buffer);
        scatter_tile(buffer, panel, p->rows, bias, output, row_stride, p->accumulate);
    }
}

INLINE void prefetch_tile(const struct pixels *pixels, ptrdiff_t rows, const real *from, ptrdiff_t row_stride)
{
    for (ptrdiff_t row = 0; row < rows; row++, from += row_stride)
        for (ptrdiff_t j = 0; j < pixels->count; j += LANES) __builtin_prefetch(from + pixels->target[j], 1);
}

/* Complete products through the epilogue, from output channel `channel` on; `unit` is that of the first panel's sums.
 * In a function of its own, for inlined into tile() it costs the other products a tenth. */
static __attribute__((noinline)) void finish_products(const struct products *p, const struct conv_epilogue *epilogue,
                                                      ptrdiff_t channel, ptrdiff_t unit, ptrdiff_t unit_panels,
                                                      real *output, ptrdiff_t row_stride)
{
    const real *bias = epilogue->bias, *residual = epilogue->residual;
    if (bias) bias += channel;
    if (residual) residual += channel * row_stride;
    real *target = output + channel * row_stride, buffer[ROW_TILE * COLUMN_TILE];
    struct channel_sums sums[ROW_TILE];
    for (ptrdiff_t i = 0; i < p->panels; i++) {
        if (i % unit_panels == 0) memset(sums, 0, sizeof sums);
        if (residual) prefetch_tile(&p->panel[i], p->rows, residual, row_stride);
        prefetch_tile(&p->panel[i], p->rows, target, row_stride);
        multiply_into_buffer(p, i, buffer);
        finish_tile(epilogue, buffer, &p->panel[i], p->rows, bias, residual, target, row_stride, p->accumulate, sums);
        if (epilogue->sums && (i % unit_panels == unit_panels - 1 || i == p->panels - 1))
            for (ptrdiff_t row = 0; row < p->rows; row++)
                epilogue_store_sums(epilogue, unit + i / unit_panels, channel + row, &sums[row]);
    }
}

/* Products for outputs with their channels last: product[row][panel][COLUMN_TILE]. */
static __attribute__((noinline)) void add_products(const struct products *p, real *product)
{
    ptrdiff_t row_stride = p->panels * COLUMN_TILE;
    for (ptrdiff_t i = 0; i < p->panels; i++, product += COLUMN_TILE) {
        if (!p->dots || i < p->panels - 1) {
            multiply_ragged_tile(p->rows, p->panel[i].count, p->depth, p->a, p->a_row, p->a_depth,
                                 p->packed + i * p->depth * COLUMN_TILE, product, row_stride, p->accumulate);
            continue;
        }
        real buffer[ROW_TILE * COLUMN_TILE];
        multiply_into_buffer(p, i, buffer);
        for (ptrdiff_t row = 0; row < p->rows; row++)
            for (ptrdiff_t j = 0; j < p->dots; j++) {
                real *to = product + row * row_stride + j;
                *to = buffer[row * COLUMN_TILE + j] + (p->accumulate ? *to : 0);
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

/* Groups of LANES output channels that are stored together, pixel by pixel: one by one they write to lines far apart. */
enum { CHANNEL_GROUPS = 16 };

/* finish_products() for `count` output channels from `channel` on, at most CHANNEL_GROUPS * LANES, channels last. */
static void finish_last(const struct pixels *panel, ptrdiff_t panels, const real *product,
                        const struct conv_epilogue *epilogue, ptrdiff_t channel, ptrdiff_t count, ptrdiff_t unit,
                        ptrdiff_t unit_panels, real *output)
{
    const real *residual = epilogue->residual, *bias = epilogue->bias;
    ptrdiff_t row_stride = panels * COLUMN_TILE;
    struct channel_sums sums[CHANNEL_GROUPS];
    for (ptrdiff_t i = 0; i < panels; i++) {
        if (i % unit_panels == 0) memset(sums, 0, sizeof sums);
        for (ptrdiff_t j = 0; j < panel[i].count; j += LANES)
            for (ptrdiff_t c = 0; c < count; c += LANES) {
                ptrdiff_t k = channel + c, some = smaller(LANES, count - c);
                store_square(&panel[i], j, product + c * row_stride + i * COLUMN_TILE, row_stride, some,
                             bias ? vec_load_rest(bias + k, some) : (vec){0}, residual ? residual + k : NULL,
                             (real)epilogue->slope, output + k, &sums[c / LANES]);
            }
        if (!epilogue->sums || (i % unit_panels < unit_panels - 1 && i < panels - 1)) continue;
        for (ptrdiff_t c = 0; c < count; c += LANES)
            epilogue_store_channels(epilogue, unit + i / unit_panels, channel + c, smaller(LANES, count - c),
                                    &sums[c / LANES]);
    }
}

/* Output channels channel_start .. + channel_count (a multiple of ROW_TILE from the start) of one group, for pixels
 * pixel_start .. + pixels: all of the depth. `output` and `epilogue` are those of all groups. Weights that lie in
 * the order of the depth are read in place, with weight_row from one output channel to the next; packed ones have a
 * weight_row of 0. Pixels that pack_pixels() has packed, block of the depth by block, are not gathered again. The units of
 * the epilogue's sums are unit_panels panels, from the first pixel of all; pixel_start is that of a unit. Behind
 * the scratch memory is room for [channel_count][pixels rounded up to COLUMN_TILE] if outputs have their channels last. */
static void tile(const struct conv_geometry *g, const void *input, const void *weight, ptrdiff_t weight_row,
                 ptrdiff_t group, ptrdiff_t out_channels, ptrdiff_t depth_block, ptrdiff_t pixel_start,
                 ptrdiff_t pixels, ptrdiff_t pixels_ahead, const void *packed_pixels, ptrdiff_t channel_start,
                 ptrdiff_t channel_count, const struct conv_epilogue *epilogue, ptrdiff_t unit_panels, void *output,
                 void *scratch)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE, depth_total = g->taps * g->channels;
    ptrdiff_t padded_channels = (out_channels + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
    real *own = scratch, *lines = own + panels * depth_block * COLUMN_TILE;
    struct pixels *panel = (struct pixels *)(lines + DOT_ROWS * depth_block);
    describe_panels(g, pixel_start, pixels, panel);
    ptrdiff_t dots = weight_row > 0 ? count_dots(&panel[panels - 1], depth_total) : 0;
    struct patches patches = {0};
    if (!packed_pixels) patches = find_patches(g, panel, panels, panel + panels);
    const int only_bias = !epilogue->residual && epilogue->slope == 1 && !epilogue->sums;
    const int channels_last = g->out_channel_stride == 1;
    const int in_passing = !channels_last && channel_count >= ROW_TILE && reads_in_place(g);
    uintptr_t behind = (uintptr_t)scratch + (uintptr_t)scratch_size(g, depth_block, pixels);
    real *product = (real *)((behind + 63) & ~(uintptr_t)63);
    ptrdiff_t unit = pixel_start / COLUMN_TILE / unit_panels, row_length = panels * COLUMN_TILE;

    ptrdiff_t depth_start = 0;
    int last;
    do { /* once even without any tap: the output is then the bias */
        ptrdiff_t depth = smaller(depth_block, depth_total - depth_start);
        last = depth_start + depth >= depth_total;
        struct products p = {.depth = depth,
                             .a_row = weight_row > 0 ? weight_row : 1,
                             .a_depth = weight_row > 0 ? 1 : ROW_TILE,
                             .panels = panels,
                             .dots = dots,
                             .packed = packed_pixels ? (real *)packed_pixels + depth_start * panels * COLUMN_TILE : own,
                             .lines = lines,
                             .panel = panel,
                             .accumulate = depth_start > 0};
        if (!packed_pixels)
            pack_block(g, input, &patches, pixel_start, pixel_start + pixels_ahead, depth_start, in_passing, &p);
        if (dots) take_lines(p.packed + (panels - 1) * depth * COLUMN_TILE, dots, depth, lines);
        for (ptrdiff_t k = channel_start, tiles = 1; k < channel_start + channel_count; k += ROW_TILE, tiles++) {
            ptrdiff_t channel = group * out_channels + k;
            p.rows = smaller(ROW_TILE, channel_start + channel_count - k);
            p.a = weight;
            p.a += weight_row > 0 ? k * weight_row + depth_start : depth_start * padded_channels + k * depth;
            if (channels_last)
                add_products(&p, product + (k - channel_start) * row_length);
            else if (last && !only_bias)
                finish_products(&p, epilogue, channel, unit, unit_panels, output, g->out_channel_stride);
            else
                store_products(&p, last && epilogue->bias ? (const real *)epilogue->bias + channel : NULL,
                               (real *)output + channel * g->out_channel_stride, g->out_channel_stride);
            pass_on(&p, tiles);
        }
        depth_start += depth;
    } while (!last);
    const ptrdiff_t together = CHANNEL_GROUPS * LANES;
    for (ptrdiff_t k = 0; k < (channels_last ? channel_count : 0); k += together)
        finish_last(panel, panels, product + k * row_length, epilogue, group * out_channels + channel_start + k,
                    smaller(together, channel_count - k), unit, unit_panels, output);
}

/* packed[panel][d][COLUMN_TILE] of pixels 0 .. + pixels, for a part of the depth. */
static void pack_pixels(const struct conv_geometry *g, const void *input, ptrdiff_t pixels, ptrdiff_t depth_start,
                        ptrdiff_t depth, void *packed, void *scratch)
{
    ptrdiff_t panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    struct pixels *panel = scratch;
    describe_panels(g, 0, pixels, panel);
    struct patches patches = find_patches(g, panel, panels, panel + panels);
    gather_panels(g, input, &patches, depth_start, depth, COLUMN_TILE, packed);
}

static ptrdiff_t pack_scratch_size(const struct conv_geometry *g, ptrdiff_t pixels)
{ return scratch_size(g, 0, pixels); }

/* rows[pixel][COLUMN_TILE] = sum over k of grad[k][pixel] weight[k][e] for up to COLUMN_TILE neighbouring weights e, rows
 * of which are weight_row apart: each is brought into the cache once, and used for all pixels. */
static void multiply_weights(const real *packed_grad, ptrdiff_t pixels, ptrdiff_t out_channels, ptrdiff_t depth_block,
                             const real *weight, ptrdiff_t weight_row, ptrdiff_t count, real *panel, real *rows)
{
    for (ptrdiff_t start = 0; start < out_channels; start += depth_block) {
        ptrdiff_t depth = smaller(depth_block, out_channels - start);
        pack_panels(weight + start * weight_row, 1, weight_row, count, depth, COLUMN_TILE, panel);
        const real *grad = packed_grad + start * padded_columns(pixels);
        for (ptrdiff_t p = 0; p < pixels; p += COLUMN_TILE, grad += depth * COLUMN_TILE)
            for (ptrdiff_t q = 0, end = smaller(COLUMN_TILE, pixels - p); q < end; q += ROW_TILE)
                multiply_ragged_tile(smaller(ROW_TILE, end - q), count, depth, grad + q, 1, COLUMN_TILE, panel,
                                     rows + (p + q) * COLUMN_TILE, COLUMN_TILE, start > 0);
    }
}

/* to[e][line_length] from rows[pixel][COLUMN_TILE]; lines hold whole vectors. */
static void turn_rows(const real *rows, ptrdiff_t pixels, ptrdiff_t count, ptrdiff_t line_length, real *to)
{
    for (ptrdiff_t p = 0; p < pixels; p += LANES)
        for (ptrdiff_t e = 0; e < count; e += LANES) {
            vec square[LANES];
            for (ptrdiff_t i = 0; i < LANES; i++)
                square[i] = vec_load(rows + smaller(p + i, pixels - 1) * COLUMN_TILE + e);
            vec_transpose(square);
            for (ptrdiff_t i = 0; i < smaller(LANES, count - e); i++)
                vec_store(to + (e + i) * line_length + p, square[i]);
        }
}

/* sum[pixel] += product under each tap, of one panel and one input channel */
INLINE void add_taps(const struct conv_phase *phase, const struct patches *patches, ptrdiff_t panel,
                     const real *product, ptrdiff_t row_length, real *sum)
{
    for (ptrdiff_t t = 0; t < phase->geometry.taps; t++) {
        const struct lanes *part = patches->part + patches->first[t * patches->panels + panel];
        const struct lanes *end = patches->part + patches->first[t * patches->panels + panel + 1];
        const real *plane = product + phase->position[t] * row_length;
        for (; part < end; part++) {
            real *to = sum + part->vector * LANES;
            vec_store(to, vec_load(to) + load_part(plane, part, 1));
        }
    }
}

/* Stores the sums of one panel of the phase of even columns, and of that of odd ones, as whole rows. */
INLINE void store_pairs(const real *even, const real *odd, const struct pixels *pixels, real *output)
{
    for (const struct run *run = pixels->run; run < pixels->run + pixels->runs; run++)
        for (ptrdiff_t i = 0; i < run->count; i += LANES) {
            real *to = output + pixels->target[run->start] + 2 * i;
            ptrdiff_t rest = 2 * (run->count - i);
            vec a = vec_load(even + run->start + i), b = vec_load(odd + run->start + i);
            vec_store_rest(to, VEC_ZIP_LOW(a, b), rest);
            if (rest > LANES) vec_store_rest(to + LANES, VEC_ZIP_HIGH(a, b), rest - LANES);
        }
}

/* Whether a phase and the next one are the even and the odd columns of the same rows. */
static int are_pair(const struct conv_phase *phase, ptrdiff_t phases)
{
    return phases > 1 && phase->geometry.out_stride[2] == 2 && phase->column == 0 && phase[1].column == 1 &&
           phase[1].geometry.grid[2] == phase->geometry.grid[2];
}

/* One panel of LANES or fewer channels from their products, channels last. */
static void add_last_channels(const struct conv_phase *phase, const struct patches *patches, ptrdiff_t i,
                              const struct pixels *pixels, const real *product, ptrdiff_t channel_stride,
                              ptrdiff_t row_length, ptrdiff_t count, const real *bias, real *output)
{
    real sum[LANES][COLUMN_TILE + LANES];
    struct channel_sums ignored = {0};
    for (ptrdiff_t c = 0; c < count; c++) {
        for (int v = 0; v < COLUMN_VECTORS; v++) vec_store(sum[c] + v * LANES, vec_set(bias ? bias[c] : 0));
        add_taps(phase, patches, i, product + c * channel_stride, row_length, sum[c]);
    }
    for (ptrdiff_t j = 0; j < pixels->count; j += LANES)
        store_square(pixels, j, sum[0], COLUMN_TILE + LANES, count, (vec){0}, NULL, 1, output, &ignored);
}

/* The input's gradient at the positions of one phase, or of two that are a pair, from the products of all taps. */
static void add_phases(const struct conv_phase *phase, int pair, const real *product, ptrdiff_t filter,
                       ptrdiff_t row_length, ptrdiff_t channels, const real *bias, real *output, void *scratch)
{
    const struct conv_geometry *g = &phase->geometry;
    ptrdiff_t pixels = count_pixels(g), panels = (pixels + COLUMN_TILE - 1) / COLUMN_TILE;
    struct pixels *panel = scratch;
    struct patches patches[2];
    describe_panels(g, 0, pixels, panel);
    void *memory = panel + panels;
    for (int j = 0; j <= pair; j++) {
        patches[j] = find_patches(&phase[j].geometry, panel, panels, memory);
        memory = patches[j].part + patches[j].first[phase[j].geometry.taps * panels];
    }
    output += phase->target;
    if (g->out_channel_stride == 1) {
        for (ptrdiff_t c = 0; c < channels; c += LANES)
            for (ptrdiff_t i = 0; i < panels; i++)
                add_last_channels(phase, patches, i, &panel[i], product + c * filter * row_length, filter * row_length,
                                  row_length, smaller(LANES, channels - c), bias ? bias + c : NULL, output + c);
        return;
    }
    for (ptrdiff_t c = 0; c < channels; c++, product += filter * row_length, output += g->out_channel_stride)
        for (ptrdiff_t i = 0; i < panels; i++) {
            real sum[2][COLUMN_TILE + LANES];
            for (int j = 0; j <= pair; j++) {
                for (int v = 0; v < COLUMN_VECTORS; v++) vec_store(sum[j] + v * LANES, vec_set(bias ? bias[c] : 0));
                add_taps(&phase[j], &patches[j], i, product, row_length, sum[j]);
            }
            if (pair)
                store_pairs(sum[0], sum[1], &panel[i], output);
            else
                scatter_tile(sum[0], &panel[i], 1, NULL, output, 0, 0);
        }
}

static ptrdiff_t input_scratch_size(const struct conv_phase *phase, ptrdiff_t phases, ptrdiff_t pixels,
                                    ptrdiff_t depth_block, ptrdiff_t weights)
{
    ptrdiff_t described = 0, tables = 0;
    for (ptrdiff_t i = 0; i < phases; i++) {
        ptrdiff_t panels = (count_pixels(&phase[i].geometry) + COLUMN_TILE - 1) / COLUMN_TILE;
        described = larger(described, panels * (ptrdiff_t)sizeof(struct pixels));
        tables += patches_size(&phase[i].geometry, panels, COLUMN_TILE);
    }
    ptrdiff_t elements = padded_columns(pixels) * (weights + COLUMN_TILE) + depth_block * COLUMN_TILE;
    return elements * (ptrdiff_t)sizeof(real) + described + tables;
}

/* Backward-data for few pixels, which sees each weight once, where it lies: first the products of input channels
 * channel_start ... with all pixels of the gradient, tap by tap, then each position of the input adds up those of its taps.
 * `weight`, `bias` and `output` point at the group's first input channel. packed_grad[depth block][panel][k][COLUMN_TILE] */
static void input_tile(const struct conv_phase *phase, ptrdiff_t phases, const void *packed_grad, ptrdiff_t pixels,
                       ptrdiff_t out_channels, ptrdiff_t depth_block, const void *weight, ptrdiff_t weight_row,
                       ptrdiff_t filter, ptrdiff_t channel_start, ptrdiff_t channels, const void *bias, void *output,
                       void *scratch)
{
    ptrdiff_t row_length = padded_columns(pixels), count = channels * filter;
    real *product = scratch, *rows = product + row_length * count, *panel = rows + row_length * COLUMN_TILE;
    for (ptrdiff_t e = 0; e < count; e += COLUMN_TILE) {
        ptrdiff_t width = smaller(COLUMN_TILE, count - e);
        multiply_weights(packed_grad, pixels, out_channels, depth_block,
                         (const real *)weight + channel_start * filter + e, weight_row, width, panel, rows);
        turn_rows(rows, pixels, width, row_length, product + e * row_length);
    }
    for (ptrdiff_t i = 0, pair; i < phases; i += 1 + pair) {
        pair = are_pair(&phase[i], phases - i);
        add_phases(&phase[i], (int)pair, product, filter, row_length, channels,
                   bias ? (const real *)bias + channel_start : NULL,
                   (real *)output + channel_start * phase[i].geometry.out_channel_stride,
                   panel + depth_block * COLUMN_TILE);
    }
}

/* packed[pixel][COLUMN_TILE] of `lines` channels of the gradient, channels last. */
INLINE void pack_last_gradient(const real *grad, const struct pixels *pixels, ptrdiff_t lines, real *packed)
{
    for (ptrdiff_t p = 0; p < pixels->count; p++, packed += COLUMN_TILE)
        for (ptrdiff_t k = 0; k < COLUMN_TILE; k += LANES) {
            const real *from = grad + pixels->target[p] + k;
            vec_store(packed + k, k < lines ? vec_load_rest(from, lines - k) : (vec){0});
        }
}

/* packed[k / COLUMN_TILE][pixel][COLUMN_TILE]: the gradient of these pixels. Where they do not follow one another, they
 * are first brought together, in `rows` [COLUMN_TILE][REDUCE_PIXELS]. */
static void pack_gradient(const struct conv_geometry *g, const real *grad_output, ptrdiff_t out_channels,
                          const struct pixels *pixels, real *rows, real *packed)
{
    for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE, packed += pixels->count * COLUMN_TILE) {
        const real *grad = grad_output + k * g->out_channel_stride;
        ptrdiff_t lines = smaller(COLUMN_TILE, out_channels - k);
        if (g->out_channel_stride == 1) {
            pack_last_gradient(grad, pixels, lines, packed);
            continue;
        }
        if (pixels->contiguous) {
            pack_panels(grad + pixels->target[0], g->out_channel_stride, 1, lines, pixels->count, COLUMN_TILE, packed);
            continue;
        }
        for (ptrdiff_t line = 0; line < lines; line++, grad += g->out_channel_stride)
            for (const struct run *run = pixels->run; run < pixels->run + pixels->runs; run++)
                for (ptrdiff_t i = 0; i < run->count; i += LANES)
                    vec_store_rest(rows + line * REDUCE_PIXELS + run->start + i,
                                   vec_load_rest(grad + pixels->target[run->start] + i, run->count - i),
                                   run->count - i);
        pack_panels(rows, REDUCE_PIXELS, 1, lines, pixels->count, COLUMN_TILE, packed);
    }
}

static ptrdiff_t weight_scratch_size(const struct conv_geometry *g, ptrdiff_t out_channels)
{
    ptrdiff_t elements = (padded_columns(out_channels) + BUFFER_ROWS) * REDUCE_PIXELS;
    return elements * (ptrdiff_t)sizeof(real) + (ptrdiff_t)sizeof(struct pixels) + patches_size(g, 1, REDUCE_PIXELS) +
           VEC_BYTES;
}

/* weight_tile() of one block of pixels: some channels under one tap at a time. */
static void sum_patches(const struct conv_geometry *g, const real *input, const struct patches *patches,
                        ptrdiff_t pixels, ptrdiff_t depth_start, ptrdiff_t depth_count, const real *packed_grad,
                        ptrdiff_t out_channels, real *rows, real *partial, int accumulate)
{
    ptrdiff_t row_stride = padded_columns(out_channels);
    for (ptrdiff_t tap = 0; tap < g->taps; tap++) {
        ptrdiff_t c = channel_from(g, depth_start, tap), end = channel_from(g, depth_start + depth_count, tap);
        for (; c < end; c += BUFFER_ROWS) {
            ptrdiff_t count = smaller(BUFFER_ROWS, end - c);
            gather_tap(g, input + c * g->in_channel_stride, patches, 0, tap, count, pixels, REDUCE_PIXELS, rows);
            real *sums = partial + (c * g->taps + tap - depth_start) * row_stride;
            for (ptrdiff_t row = 0; row < count; row += ROW_TILE)
                for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE)
                    multiply_ragged_tile(smaller(ROW_TILE, count - row), out_channels - k, pixels,
                                         rows + row * REDUCE_PIXELS, REDUCE_PIXELS, 1, packed_grad + k * pixels,
                                         sums + row * g->taps * row_stride + k, g->taps * row_stride, accumulate);
        }
    }
}

/* partial[d - depth_start][k] = sum over these pixels, with out_channels rounded up to COLUMN_TILE. The gradient is packed;
 * the patches are gathered a few rows at a time and multiplied as they lie. `grad_output` points at the group's first
 * channel. */
static void weight_tile(const struct conv_geometry *g, const void *input, const void *grad_output,
                        ptrdiff_t out_channels, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t depth_start,
                        ptrdiff_t depth_count, void *partial, void *scratch)
{
    ptrdiff_t row_stride = padded_columns(out_channels);
    real *packed_grad = scratch, *rows = packed_grad + row_stride * REDUCE_PIXELS;
    struct pixels *block = (struct pixels *)(rows + BUFFER_ROWS * REDUCE_PIXELS);

    ptrdiff_t positions = g->grid[0] * g->grid[1] * g->grid[2], count;
    for (ptrdiff_t done = 0; done < pixels; done += count) {
        /* Within one image, gradients are read where they lie; blocks of small images run across. */
        count = smaller(REDUCE_PIXELS, pixels - done);
        if (positions >= REDUCE_PIXELS / 2) count = smaller(count, positions - (pixel_start + done) % positions);
        describe_pixels(g, pixel_start + done, count, block);
        pack_gradient(g, grad_output, out_channels, block, rows, packed_grad);
        int in_place = block->contiguous && reads_in_place(g);
        struct patches patches = find_patches(g, block, 1, block + 1);
        if (!in_place && g->channels >= ROW_TILE) {
            sum_patches(g, input, &patches, count, depth_start, depth_count, packed_grad, out_channels, rows, partial,
                        done > 0);
            continue;
        }
        for (ptrdiff_t d = 0; d < depth_count; d += ROW_TILE) {
            ptrdiff_t row_count = smaller(ROW_TILE, depth_count - d), a_row = REDUCE_PIXELS;
            const real *a = rows;
            if (in_place) {
                ptrdiff_t n = (pixel_start + done) / positions, p = (pixel_start + done) % positions;
                a_row = g->in_channel_stride;
                a = (const real *)input + n * g->in_image_stride + (depth_start + d) * a_row + p;
            } else {
                gather_panels(g, input, &patches, depth_start + d, row_count, REDUCE_PIXELS, rows);
            }
            for (ptrdiff_t k = 0; k < out_channels; k += COLUMN_TILE)
                multiply_ragged_tile(row_count, out_channels - k, count, a, a_row, 1, packed_grad + k * count,
                                     (real *)partial + d * row_stride + k, row_stride, done > 0);
        }
    }
}

static ptrdiff_t few_scratch_size(const struct conv_geometry *g)
{
    ptrdiff_t length = padded_columns(count_pixels(g));
    return 2 * length * COLUMN_TILE * (ptrdiff_t)sizeof(real) + scratch_size(g, 0, length);
}

/* packed[pixel][COLUMN_TILE] of rows d .. + width of the matrix of patches, by way of `rows` [panel][d][COLUMN_TILE]. */
static void pack_patches(const struct conv_geometry *g, const real *input, const struct patches *patches, ptrdiff_t d,
                         ptrdiff_t width, real *rows, real *packed)
{
    ptrdiff_t pixels = count_pixels(g);
    if (g->images == 1 && reads_in_place(g)) {
        pack_panels(input + d * g->in_channel_stride, g->in_channel_stride, 1, width, pixels, COLUMN_TILE, packed);
        return;
    }
    gather_panels(g, input, patches, d, width, COLUMN_TILE, rows);
    for (ptrdiff_t p = 0; p < pixels; p += COLUMN_TILE)
        pack_panels(rows + p * width, COLUMN_TILE, 1, width, smaller(COLUMN_TILE, pixels - p), COLUMN_TILE,
                    packed + p * COLUMN_TILE);
}

/* weight_grad[k][d] = sum over all pixels, which are few, for depth_start <= d < depth_start + depth_count. The gradient's
 * channels lie grad_row apart, in each the pixels of all images; the group's weights weight_row apart. */
static void few_weight_tile(const struct conv_geometry *g, const void *input, const void *grad, ptrdiff_t grad_row,
                            ptrdiff_t out_channels, ptrdiff_t depth_start, ptrdiff_t depth_count, void *weight_grad,
                            ptrdiff_t weight_row, void *scratch)
{
    ptrdiff_t pixels = count_pixels(g), length = padded_columns(pixels), panels = length / COLUMN_TILE;
    real *rows = scratch, *packed = rows + length * COLUMN_TILE, buffer[ROW_TILE * COLUMN_TILE];
    struct pixels *panel = (struct pixels *)(packed + length * COLUMN_TILE);
    describe_panels(g, 0, pixels, panel);
    struct patches patches = find_patches(g, panel, panels, panel + panels);
    for (ptrdiff_t d = depth_start, end = depth_start + depth_count; d < end; d += COLUMN_TILE) {
        ptrdiff_t width = smaller(COLUMN_TILE, end - d);
        pack_patches(g, input, &patches, d, width, rows, packed);
        for (ptrdiff_t k = 0; k < out_channels; k += ROW_TILE) {
            ptrdiff_t count = smaller(ROW_TILE, out_channels - k);
            const real *a = (const real *)grad + k * grad_row;
            real *target = (real *)weight_grad + k * weight_row + d;
            if (width == COLUMN_TILE) {
                multiply_some_rows(count, COLUMN_VECTORS, pixels, a, grad_row, 1, packed, COLUMN_TILE, target,
                                   weight_row, 0);
                continue;
            }
            multiply_ragged_tile(count, width, pixels, a, grad_row, 1, packed, buffer, COLUMN_TILE, 0);
            for (ptrdiff_t row = 0; row < count; row++, target += weight_row)
                for (ptrdiff_t j = 0; j < width; j += LANES)
                    vec_store_rest(target + j, vec_load(buffer + row * COLUMN_TILE + j), width - j);
        }
    }
}

/* weight_grad[k][d] = sum over parts, in order, of partial[part][d][k] for up to LANES output channels: `partials` points at the first, rows are row_stride apart. */
static void reduce_columns(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t row_stride,
                           ptrdiff_t depth, ptrdiff_t out_channels, void *weight_grad)
{
    for (ptrdiff_t e = 0; e < depth; e += LANES) {
        vec square[LANES];
        for (ptrdiff_t i = 0; i < LANES; i++) {
            square[i] = (vec){0};
            const real *from = (const real *)partials + (e + i) * row_stride;
            for (ptrdiff_t part = 0; part < parts && e + i < depth; part++)
                square[i] += vec_load(from + part * part_stride);
        }
        vec_transpose(square);
        for (ptrdiff_t i = 0; i < out_channels; i++)
            vec_store_rest((real *)weight_grad + i * depth + e, square[i], depth - e);
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

/* sums[c] = the sum over pixels of x[pixel][c] */
static void pixel_sum(const void *x, ptrdiff_t pixels, ptrdiff_t channels, void *sums)
{
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        ptrdiff_t rest = channels - c;
        const real *from = (const real *)x + c;
        vec sum = {0};
        for (ptrdiff_t i = 0; i < pixels; i++, from += channels) sum += vec_load_rest(from, rest);
        vec_store_rest((real *)sums + c, sum, rest);
    }
}

/* sums[i] = the sum over units of partials[unit][i] */
static void add_units(const void *partials, ptrdiff_t units, ptrdiff_t count, double *sums)
{
    const real *from = partials;
    for (ptrdiff_t i = 0; i < count; i++) sums[i] = 0;
    for (ptrdiff_t unit = 0; unit < units; unit++, from += count)
        for (ptrdiff_t i = 0; i < count; i++) sums[i] += (double)from[i];
}

const struct conv_kernels FASTNN_TABLE(conv) = {
    .lanes = LANES,
    .tile_panels = TILE_PANELS,
    .pack_weight = pack_weight,
    .tile = tile,
    .pack_pixels = pack_pixels,
    .pack_scratch_size = pack_scratch_size,
    .input_tile = input_tile,
    .input_scratch_size = input_scratch_size,
    .weight_tile = weight_tile,
    .few_scratch_size = few_scratch_size,
    .few_weight_tile = few_weight_tile,
    .reduce_columns = reduce_columns,
    .pixel_sum = pixel_sum,
    .add_units = add_units,
    .reduce_weight = reduce_weight,
    .channel_sum = channel_sum,
    .scratch_size = scratch_size,
    .weight_scratch_size = weight_scratch_size,
};

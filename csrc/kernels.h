/* The table of kernels: one instance per (instruction set, dtype), all of this one type.
 *
 * Arrays are `void *` here, because the table is the same for float and double; scalars are double. Each kernel
 * does ONE TILE of work on raw pointers, without threads, allocation or Python; sizes and strides are ptrdiff_t and count
 * elements. Arguments: inputs are const, outputs are not. What a kernel computes stands above it in csrc/FAMILY.c.
 */
#ifndef FASTNN_KERNELS_H
#define FASTNN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* csrc/gemm.c: C[M,N] = A[M,K] B[K,N], in tiles from packed operands, or a few rows straight from memory */
struct gemm_kernels {
    ptrdiff_t row_tile;    /* rows of C per micro-kernel call: packed A is [M / row_tile][K][row_tile] */
    ptrdiff_t column_tile; /* columns of C per micro-kernel call: packed B is [N / column_tile][K][column_tile] */
    ptrdiff_t depth_block; /* terms after which a sum is cut: tile() takes a whole number of them, but at the end */
    void (*pack)(const void *source, ptrdiff_t line_stride, ptrdiff_t depth_stride, ptrdiff_t lines, ptrdiff_t depth,
                 ptrdiff_t tile, void *packed);
    void (*tile)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *packed_a, const void *packed_b,
                 const void *bias, void *c, ptrdiff_t row_stride, int accumulate);
    ptrdiff_t stream_sums; /* rows times columns, these rounded up to 16, that stream_rows() takes at most */
    void (*tile_of_lines)(ptrdiff_t lines, ptrdiff_t rows, ptrdiff_t depth, const void *b, const void *packed_a,
                          const void *bias, void *c, ptrdiff_t row_stride);
    void (*dot_rows)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b, const void *bias,
                     void *c, ptrdiff_t row_stride);
    void (*stream_rows)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b,
                        ptrdiff_t b_row, void *c, ptrdiff_t row_stride);
    void (*rectify)(ptrdiff_t rows, ptrdiff_t columns, void *c, ptrdiff_t row_stride);
};

/* What a convolution does to its outputs when it stores them: csrc/epilogue.h. */
struct conv_epilogue {
    const void *bias;     /* one per output channel, or NULL */
    const void *residual; /* an array of the output's shape that is added, or NULL */
    double slope;         /* of negative outputs: 1 leaves them as they are, 0 is ReLU */
    void *sums;           /* [unit][2][channels], or NULL */
    ptrdiff_t channels;   /* K, of all groups */
};

/* csrc/conv.c: implicit GEMM. One geometry describes a convolution of 1 to 3 spatial dimensions (missing ones are 1),
 * or one phase of its transpose. */
struct conv_geometry {
    ptrdiff_t channels;          /* input channels per group, C */
    ptrdiff_t in_size[3];        /* depth, height, width of the input image */
    ptrdiff_t in_image_stride;   /* elements from one image to the next */
    ptrdiff_t in_channel_stride; /* elements from one input channel to the next */
    ptrdiff_t in_pixel_stride;   /* elements from one pixel of a row to the next: 1, or more if channels are last */
    ptrdiff_t images;            /* N */
    ptrdiff_t grid[3];           /* output positions computed: depth, height, width */
    ptrdiff_t stride[3];         /* input position = grid position * stride + tap */
    ptrdiff_t out_image_stride, out_channel_stride;
    ptrdiff_t out_stride[3]; /* elements of the output per step of the grid */
    ptrdiff_t taps;          /* filter positions, T */
    const ptrdiff_t *tap;    /* [T][3]: offset of each filter position in the input */
};

/* Input positions that see the same taps: one remainder of their position by the stride */
struct conv_phase {
    struct conv_geometry geometry; /* of the convolution of the gradient, whose channels are one image after another */
    ptrdiff_t target;              /* offset of the first position in an input plane */
    ptrdiff_t column;              /* that position's column */
    const ptrdiff_t *position;     /* [T]: where each tap stands in the filter */
};

struct conv_kernels {
    ptrdiff_t lanes;       /* elements of a vector */
    ptrdiff_t tile_panels; /* panels of pixels that tile() takes at most */
    ptrdiff_t (*scratch_size)(const struct conv_geometry *geometry, ptrdiff_t depth_block,
                              ptrdiff_t pixels); /* bytes for tile() */
    void (*pack_weight)(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, const ptrdiff_t *place,
                        ptrdiff_t taps, ptrdiff_t filter, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t row,
                        ptrdiff_t depth_block, void *packed);
    void (*tile)(const struct conv_geometry *geometry, const void *input, const void *weight, ptrdiff_t weight_row,
                 ptrdiff_t group, ptrdiff_t out_channels, ptrdiff_t depth_block, ptrdiff_t pixel_start,
                 ptrdiff_t pixels, ptrdiff_t pixels_ahead, const void *packed_pixels, ptrdiff_t channel_start,
                 ptrdiff_t channel_count, const struct conv_epilogue *epilogue, ptrdiff_t unit_panels, void *output,
                 void *scratch);
    ptrdiff_t (*pack_scratch_size)(const struct conv_geometry *geometry); /* bytes for pack_panel() */
    void (*pack_panel)(const struct conv_geometry *geometry, const void *input, ptrdiff_t start, ptrdiff_t count,
                       ptrdiff_t depth_start, ptrdiff_t depth, void *packed, void *scratch);
    void (*add_units)(const void *partials, ptrdiff_t units, ptrdiff_t count, double *sums);
};

/* csrc/conv_backward.c */
struct conv_backward_kernels {
    ptrdiff_t (*input_scratch_size)(const struct conv_phase *phase, ptrdiff_t phases, ptrdiff_t pixels,
                                    ptrdiff_t depth_block, ptrdiff_t weights); /* bytes for input_tile() */
    void (*input_tile)(const struct conv_phase *phase, ptrdiff_t phases, const void *packed_grad, ptrdiff_t pixels,
                       ptrdiff_t out_channels, ptrdiff_t depth_block, const void *weight, ptrdiff_t weight_row,
                       ptrdiff_t filter, ptrdiff_t channel_start, ptrdiff_t channels, const void *bias, void *output,
                       void *scratch);
    ptrdiff_t (*weight_scratch_size)(const struct conv_geometry *geometry,
                                     ptrdiff_t out_channels); /* bytes for weight_tile() */
    void (*weight_tile)(const struct conv_geometry *geometry, const void *input, const void *grad_output,
                        ptrdiff_t out_channels, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t depth_start,
                        ptrdiff_t depth_count, void *partial, double *bias_sums, void *scratch);
    ptrdiff_t (*few_scratch_size)(const struct conv_geometry *geometry); /* bytes for few_weight_tile() */
    void (*few_weight_tile)(const struct conv_geometry *geometry, const void *input, const void *grad,
                            ptrdiff_t grad_row, ptrdiff_t out_channels, ptrdiff_t depth_start, ptrdiff_t depth_count,
                            void *weight_grad, ptrdiff_t weight_row, double *bias_sums, void *scratch);
    void (*reduce_columns)(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t row_stride,
                           ptrdiff_t depth, ptrdiff_t out_channels, /* as many as a vector has */
                           void *weight_grad, ptrdiff_t weight_row);
    void (*pixel_sum)(const void *x, ptrdiff_t pixels, ptrdiff_t channels, void *sums);
    void (*add_parts)(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t count, void *weight_grad);
    void (*channel_sum)(const void *x, ptrdiff_t images, ptrdiff_t image_stride, ptrdiff_t positions, void *sum);
};

/* What csrc/winograd.c and csrc/fft.c share: both transform tiles of images, and the weights. */
struct tiled_weight {
    const void *data; /* neighbouring taps of a filter per row (output channel) and input channel */
    ptrdiff_t row_stride, channel_stride;
    ptrdiff_t turned;        /* are the taps in reverse order? */
    const void *transformed; /* by transform_weight(); NULL: multiply_tiles() transforms what it needs */
};

/* Tiles whose transformed patches stand together. */
struct tiled_block {
    ptrdiff_t start, tiles;
};

/* Backward-weights: the weights of some output channels and some input channels, and one round of the tiles that they are
 * the sums over. The arrays have room for `room` tiles, whole vectors. */
struct tiled_sum {
    ptrdiff_t row_start, rows, channel_start, channels;
    ptrdiff_t tile_start, tiles, room;
};

/* csrc/winograd.c: convolutions with stride 1, 2 or 4; tiles of 4x4 outputs, N * ceil(height / 4) * ceil(width / 4). */
enum { WINOGRAD_BLOCKS = 4 }; /* of 3x3 or 2x2 taps that a filter is cut into, per dimension, at most */

struct winograd_geometry {
    ptrdiff_t images, channels, out_channels; /* N, C times the filter's blocks, K */
    ptrdiff_t filter[2], stride;              /* height, width; stride of both dimensions */
    ptrdiff_t points;                         /* per dimension: 6 for blocks of 3x3 taps, 5 for blocks of 2x2 */
    ptrdiff_t blocks[2];                      /* how many in each dimension, and the first of their taps */
    ptrdiff_t block[2][WINOGRAD_BLOCKS];      /* the others are `stride` apart */
    ptrdiff_t taps[2][WINOGRAD_BLOCKS];       /* how many: points - 3, or less */
    ptrdiff_t whole[2];                       /* so many blocks come first, with all their taps, or one */
    ptrdiff_t in_size[2], out_size[2];
    ptrdiff_t padding[2]; /* zeros above and left of the input; negative: that much is left out */
    /* Backward-data of a stride: each pixel q of a grid has phases x phases outputs, from phases * q - lead on. Taps
     * of a phase are `phases` apart; the first `lacking` phases lack the last. Without a stride the grid is the output. */
    ptrdiff_t phases, grid[2], lead[2], lacking[2];
    ptrdiff_t chunk_rows;    /* output channels that are computed together: all phases of them go well in row_tiles */
    ptrdiff_t channels_last; /* are the arrays (N, height, width, channels)? */
    ptrdiff_t part_channels; /* with channels in the lanes: so many are multiplied together, C or depth_block */
};

/* One table with tiles in the lanes, winograd.c, and one with channels in them, winograd_channels.h. */
struct winograd_kernels {
    ptrdiff_t weight_rows;            /* output channels per transform_weight() */
    ptrdiff_t row_tile, chunk_tiles;  /* output channels go well in multiples of row_tile, at most so many in a chunk */
    ptrdiff_t panel_tiles, tile_step; /* tiles, in multiples of these */
    ptrdiff_t depth_block;            /* with channels in the lanes: sums are cut at multiples of so many channels */
    ptrdiff_t lanes, few_tiles;       /* so many tiles or less are multiplied as weights are transformed */
    ptrdiff_t (*weight_size)(const struct winograd_geometry *geometry); /* bytes of the transformed weights */
    void (*transform_weight)(const struct winograd_geometry *geometry, const struct tiled_weight *weight, ptrdiff_t k,
                             void *transformed);
    ptrdiff_t (*patches_size)(const struct winograd_geometry *geometry, ptrdiff_t tiles); /* bytes of a block's */
    void (*transform_tiles)(const struct winograd_geometry *geometry, const void *input,
                            const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles,
                            ptrdiff_t channel_start, ptrdiff_t channels, void *patches);
    /* bytes for multiply_tiles() */
    ptrdiff_t (*scratch_size)(const struct winograd_geometry *geometry, ptrdiff_t tiles, int transformed);
    void (*multiply_tiles)(const struct winograd_geometry *geometry, const struct tiled_weight *weight,
                           const void *patches, const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles,
                           ptrdiff_t row_start, ptrdiff_t row_count, const struct conv_epilogue *epilogue, void *output,
                           void *scratch);
};

/* csrc/winograd_weight.h: the same convolution's gradient by its weights. */
struct winograd_weight_kernels {
    ptrdiff_t row_tile, panel_tiles, lanes;
    void (*sum_sizes)(const struct winograd_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t sizes[3]);
    void (*transform_sum_patches)(const struct winograd_geometry *geometry, const struct tiled_sum *sum,
                                  const void *input, ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels,
                                  void *patches);
    void (*transform_sum_gradients)(const struct winograd_geometry *geometry, const struct tiled_sum *sum,
                                    const void *grad_output, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t rows,
                                    void *gradients, double *bias_sums);
    void (*multiply_sum)(const struct winograd_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t position,
                         ptrdiff_t row, ptrdiff_t rows, const void *gradients, const void *patches, int accumulate,
                         void *products);
    void (*store_sum)(const struct winograd_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t row,
                      const void *products, void *grad_weight);
    /* of at most a vector of tiles, patches by winograd_channels' transform_tiles() */
    void (*sum_few)(const struct winograd_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t row,
                    ptrdiff_t rows, ptrdiff_t channel, ptrdiff_t channels, const void *gradients, const void *patches,
                    void *grad_weight);
};

/* csrc/fft.c: convolutions with stride 1, 2 or 4, whose filters have at most FFT_TAPS taps per dimension and phase of the
 * stride; N * tiles[0] * tiles[1] tiles of tile_size outputs. */
enum { FFT_TAPS = 9 };

struct fft_geometry {
    ptrdiff_t images, channels, out_channels; /* N, C times the stride's phases, K */
    ptrdiff_t filter[2], stride;              /* height, width; stride of both dimensions */
    ptrdiff_t phases[2];                      /* of the stride, that have taps */
    ptrdiff_t in_size[2], out_size[2];
    ptrdiff_t tile_size[2], tiles[2];
    ptrdiff_t padding[2];    /* zeros above and left of the input; negative: that much is left out */
    ptrdiff_t chunk_rows;    /* output channels that are computed together */
    ptrdiff_t channels_last; /* are the arrays (N, height, width, channels)? */
};

struct fft_kernels {
    /* Output channels, those with channels last, and tiles go well in multiples of these. */
    ptrdiff_t row_tile, last_row_tile, panel_tiles, lanes;
    ptrdiff_t (*weight_size)(const struct fft_geometry *geometry); /* bytes of the transformed weights */
    void (*transform_weight)(const struct fft_geometry *geometry, const struct tiled_weight *weight, ptrdiff_t k,
                             ptrdiff_t first, ptrdiff_t count, void *transformed);
    ptrdiff_t (*patches_size)(const struct fft_geometry *geometry, ptrdiff_t tiles); /* bytes of a block's */
    void (*transform_tiles)(const struct fft_geometry *geometry, const void *input, const struct tiled_block *block,
                            ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                            void *patches, void *scratch);
    /* bytes for transform_tiles() and multiply_tiles() */
    ptrdiff_t (*scratch_size)(const struct fft_geometry *geometry, ptrdiff_t tiles, int transformed);
    void (*multiply_tiles)(const struct fft_geometry *geometry, const struct tiled_weight *weight, const void *patches,
                           const struct tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t row_start,
                           ptrdiff_t row_count, const struct conv_epilogue *epilogue, void *output, void *scratch);
    void (*sum_sizes)(const struct fft_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t sizes[4]);
    void (*transform_sum_patches)(const struct fft_geometry *geometry, const struct tiled_sum *sum, const void *input,
                                  ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels, void *patches, void *scratch);
    void (*transform_sum_gradients)(const struct fft_geometry *geometry, const struct tiled_sum *sum,
                                    const void *grad_output, ptrdiff_t tile, ptrdiff_t row, void *gradients,
                                    double *bias_sums, void *scratch);
    void (*multiply_sum)(const struct tiled_sum *sum, ptrdiff_t q, const void *gradients, const void *patches,
                         int accumulate, void *products);
    void (*store_sum)(const struct fft_geometry *geometry, const struct tiled_sum *sum, ptrdiff_t channel,
                      const void *products, void *grad_weight);
};

/* csrc/direct.c: convolution of 1 or 2 dimensions (height 1) from a copy of the image, band by band of output rows. */
struct direct_geometry {
    ptrdiff_t channels;           /* channels of the image, per group */
    ptrdiff_t images, interleave; /* N; neighbouring images in the lanes of a vector: `lanes`, or 1 for none */
    ptrdiff_t channels_last;      /* of images and outputs? Then there is one group */
    ptrdiff_t in_size[2];         /* height, width of the image */
    ptrdiff_t in_image_stride, in_channel_stride;
    ptrdiff_t in_stride[2]; /* elements from one row, and one column, of the image to the next */
    ptrdiff_t grid[2];      /* output positions: of the largest phase */
    ptrdiff_t stride[2];    /* image position = grid position * stride + first + tap */
    ptrdiff_t first[2];     /* image position under the first tap of the first output; negative: padding */
    ptrdiff_t reach[2];     /* the largest tap */
    ptrdiff_t out_image_stride, out_channel_stride;
    ptrdiff_t out_stride[2]; /* elements of the output per step of the grid */
    ptrdiff_t band;          /* output rows computed from one copy */
};

/* Outputs that see the same taps: all of them, or in backward-data one remainder of their position by the stride */
struct direct_taps {
    ptrdiff_t count;
    const ptrdiff_t *position; /* in the image, behind `first` */
    const ptrdiff_t *index;    /* in the filter */
};

struct direct_phase {
    ptrdiff_t grid[2];          /* output positions: height, width */
    ptrdiff_t target;           /* offset of the first one in an output plane */
    struct direct_taps taps[2]; /* rows and columns of the T taps */
    const ptrdiff_t *offset;    /* [d]: where the copy has each tap of each channel */
    const ptrdiff_t *order;     /* [channels * T]: the depth d of each channel and tap, for weight_tile() */
};

struct direct_kernels {
    ptrdiff_t lanes;              /* images that are interleaved */
    ptrdiff_t row_tile;           /* output channels in packed weights come in these */
    ptrdiff_t gradient_positions; /* a band for weight_tile() goes well with so many */
    ptrdiff_t spare_offsets;      /* entries that weight_tile() may read behind the table of offsets */
    ptrdiff_t (*scratch_size)(const struct direct_geometry *geometry); /* bytes for tile() and weight_tile() */
    void (*fill_offsets)(const struct direct_geometry *geometry, const struct direct_phase *phase, ptrdiff_t *offset);
    void (*pack_weight)(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, ptrdiff_t filter_width,
                        const struct direct_phase *phase, ptrdiff_t channels, ptrdiff_t rows, void *packed);
    void (*tile)(const struct direct_geometry *geometry, const struct direct_phase *phase, ptrdiff_t phases,
                 const void *input, const void *packed_weight, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t image,
                 ptrdiff_t band_start, const struct conv_epilogue *epilogue, void *output, void *scratch);
    ptrdiff_t (*weight_scratch_size)(const struct direct_geometry *geometry, ptrdiff_t depth, ptrdiff_t rows);
    void (*weight_tile)(const struct direct_geometry *geometry, const struct direct_phase *phase, const void *input,
                        const void *grad_output, ptrdiff_t rows, ptrdiff_t unit, ptrdiff_t units, void *partial,
                        double *bias_sums, void *scratch);
};

/* csrc/fold.c: im2col (unfold) and col2im (fold), one channel of one image at a time. Of each pair, height comes first. */
struct fold_geometry {
    ptrdiff_t image[2];  /* size of the image */
    ptrdiff_t kernel[2]; /* size of a patch */
    ptrdiff_t grid[2];   /* patches down and across */
    ptrdiff_t dilation[2], padding[2], stride[2];
};

struct fold_kernels {
    void (*unfold)(const struct fold_geometry *geometry, const void *image, void *columns);
    void (*fold)(const struct fold_geometry *geometry, const void *columns, void *image);
};

/* csrc/pool.c: one geometry describes max and average pooling of 1 to 3 spatial dimensions (missing ones are 1) */
struct pool_geometry {
    ptrdiff_t in_size[3], out_size[3]; /* depth, height, width of a plane */
    ptrdiff_t kernel[3];               /* 0: adaptive, output o of n from floor(o * in / n) to ceil((o + 1) * in / n) */
    ptrdiff_t stride[3], padding[3], dilation[3];
    ptrdiff_t count_include_pad; /* does an average also count the padding? */
    ptrdiff_t divisor;           /* of every average; 0: the number of elements of its window */
};

struct pool_kernels {
    ptrdiff_t (*scratch_size)(const struct pool_geometry *geometry); /* elements of scratch memory for one tile */
    void (*max_pool)(const struct pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                     void *output, int64_t *indices, void *scratch);
    void (*max_pool_backward)(const struct pool_geometry *geometry, const void *grad_output, const void *input,
                              ptrdiff_t planes, ptrdiff_t input_room, void *grad_input, void *scratch);
    ptrdiff_t (*max_pool_route)(const void *grad_output, const int64_t *indices, ptrdiff_t planes, ptrdiff_t outputs,
                                ptrdiff_t inputs, void *grad_input);
    void (*avg_pool)(const struct pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                     void *output, void *scratch);
    void (*avg_pool_backward)(const struct pool_geometry *geometry, const void *grad_output, ptrdiff_t planes,
                              ptrdiff_t grad_output_room, void *grad_input, void *scratch);
};

/* csrc/norm.c: x is [images][channels][positions]; batch norm has a statistic per channel; instance and group norm put
 * all channels of a batch side by side (images = 1), with a statistic per `group` adjacent ones. */
enum {
    NORM_COLUMNS = 512,        /* columns that one tile takes side by side, where it goes by columns */
    NORM_COLUMN_POSITIONS = 64 /* larger planes are taken one by one */
};

struct norm_shape {
    ptrdiff_t images, channels, positions;
    ptrdiff_t group;   /* channels per statistic; more than 1 only where images = 1 */
    ptrdiff_t weights; /* channel c has weight and bias c % weights */
};

/* Of the channels [channel, channel + channels): elements [start, start + count) of their images * positions */
struct norm_tile {
    ptrdiff_t channel, channels, start, count;
};

struct norm_kernels {
    int (*by_columns)(const struct norm_shape *shape); /* start and count must then be whole images */
    void (*moments)(const struct norm_shape *shape, const struct norm_tile *tile, const void *input, double *moments);
    void (*statistics)(ptrdiff_t first, ptrdiff_t count, ptrdiff_t all, const double *moments, ptrdiff_t parts,
                       ptrdiff_t part_count, ptrdiff_t elements, double eps, double *mean, double *inverse_deviation,
                       void *running_mean, void *running_variance, double momentum);
    void (*fixed_statistics)(ptrdiff_t count, const void *running_mean, const void *running_variance, double eps,
                             double *mean, double *inverse_deviation);
    void (*affine_coefficients)(const struct norm_shape *shape, ptrdiff_t first, ptrdiff_t count, const double *mean,
                                const double *inverse_deviation, const void *weight, const void *bias,
                                void *coefficients);
    void (*affine)(const struct norm_shape *shape, const struct norm_tile *tile, const void *input,
                   const void *coefficients, const void *residual, int relu, void *output);
    void (*gradient_sums)(const struct norm_shape *shape, const struct norm_tile *tile, const void *grad_output,
                          const void *input, const void *affine, int relu, double *sums);
    void (*gradient_coefficients)(const struct norm_shape *shape, ptrdiff_t first, ptrdiff_t count, double *sums,
                                  ptrdiff_t parts, const double *mean, const double *inverse_deviation,
                                  const void *weight, void *coefficients);
    void (*backward)(const struct norm_shape *shape, const struct norm_tile *tile, const void *grad_output,
                     const void *input, const void *affine, const void *gradient, int relu, int training,
                     void *grad_input);
    void (*weight_gradients)(const struct norm_shape *shape, const double *sums, void *grad_weight, void *grad_bias);
    void (*layer)(const void *input, const void *weight, const void *bias, ptrdiff_t rows, ptrdiff_t length, double eps,
                  void *output);
    void (*layer_backward)(const void *grad_output, const void *input, const void *weight, ptrdiff_t rows,
                           ptrdiff_t length, double eps, void *grad_input, void *accumulators, double *sums);
    void (*layer_weight_gradients)(const double *sums, ptrdiff_t parts, ptrdiff_t length, void *grad_weight,
                                   void *grad_bias);
};

/* csrc/activation.c: a and b are an activation's parameters, in the order of its arguments */
enum activation {
    RELU,
    LEAKY_RELU, /* a = slope */
    ELU,        /* a = alpha */
    SIGMOID,
    TANH,
    SOFTPLUS, /* a = beta, b = threshold */
    LOG_SIGMOID,
    GELU,
    GELU_TANH,
    SILU,
    HARDTANH, /* a = lowest, b = highest value */
    HARDSWISH,
    ACTIVATIONS
};

struct activation_kernels {
    void (*forward[ACTIVATIONS])(const void *input, ptrdiff_t count, double a, double b, void *output);
    void (*backward[ACTIVATIONS])(const void *grad_output, const void *input, ptrdiff_t count, double a, double b,
                                  void *grad_input);
    void (*add)(const void *a, const void *b, ptrdiff_t count, int relu, void *output);
    void (*prelu)(const void *input, const void *weight, ptrdiff_t first_line, ptrdiff_t lines, ptrdiff_t count,
                  ptrdiff_t line_stride, ptrdiff_t channels, int per_element, void *output);
    void (*prelu_backward)(const void *grad_output, const void *input, const void *weight, ptrdiff_t first_line,
                           ptrdiff_t lines, ptrdiff_t count, ptrdiff_t line_stride, ptrdiff_t channels, int per_element,
                           void *grad_input, void *partials, ptrdiff_t partial_step);
    void (*prelu_reduce)(const void *partials, ptrdiff_t outer, ptrdiff_t channels, ptrdiff_t inner, void *grad_weight);
};

/* csrc/softmax.c: along `size` in arrays [outer][size][inner]; a tile has the first `columns` of inner */
typedef void (*softmax_forward)(const void *input, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner, ptrdiff_t columns,
                                void *output);
typedef void (*softmax_gradient)(const void *grad_output, const void *output, ptrdiff_t outer, ptrdiff_t size,
                                 ptrdiff_t inner, ptrdiff_t columns, void *grad_input);
struct softmax_kernels {
    softmax_forward softmax;
    softmax_gradient softmax_backward;
    softmax_forward log_softmax;
    softmax_gradient log_softmax_backward;
};

/* csrc/loss.c */
struct cross_entropy {        /* nll and multi_margin take one too, with class indices and without hard and soft */
    ptrdiff_t classes, inner; /* scores are (N, C, I), positions (N, I) */
    const void *scores;
    const int64_t *index;    /* (N, I) class of each position, or NULL */
    const void *probability; /* (N, C, I), or NULL */
    const void *weight;      /* (C), or NULL: 1 */
    int64_t ignore_index;    /* positions of this class have no loss and no gradient */
    double hard, soft;       /* the target t becomes hard * t + soft */
    double scale;            /* factor of every gradient */
    const void *grad_output; /* (N, I) further factors, or NULL */
    void *losses;            /* (N, I), or NULL where only the sum is wanted */
    void *grad_scores;       /* (N, C, I), or NULL */
};

enum { FASTNN_MSE, FASTNN_L1, FASTNN_SMOOTH_L1, FASTNN_HUBER, FASTNN_BCE, FASTNN_BCE_LOGITS, FASTNN_KL, FASTNN_KL_LOG };

struct elementwise_loss {
    const void *input, *target;
    const void *weight, *pos_weight; /* like input, or NULL: 1 */
    double width;                    /* beta of the smooth L1 loss, delta of Huber's */
    double scale;                    /* factor of every gradient */
    const void *grad_output;         /* further factors like input, or NULL */
    void *output;                    /* losses (or NULL), backward gradients */
};

struct loss_kernels {
    double (*cross_entropy)(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count);
    double (*target_weight)(const int64_t *index, ptrdiff_t count, const void *weight, int64_t ignore_index);
    double (*nll)(const struct cross_entropy *problem, ptrdiff_t first, ptrdiff_t count);
    double (*multi_margin)(const struct cross_entropy *problem, double margin, int power, ptrdiff_t first,
                           ptrdiff_t count);
    double (*elementwise)(int loss, int backward, const struct elementwise_loss *problem, ptrdiff_t start,
                          ptrdiff_t count);
};

/* csrc/random.c: counter-based random numbers, dropout */
struct random_kernels {
    void (*philox)(uint64_t seed, uint64_t position, ptrdiff_t count, uint32_t *words);
    void (*dropout)(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double p, void *output);
    void (*gaussian_dropout)(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double std,
                             void *output);
};

/* csrc/optim.c: optimiser updates in place, and what clips gradients */
struct optim_span { /* elements that are adjacent in every array */
    ptrdiff_t count;
    void *param;
    const void *grad;
    void *state[3];            /* the rule's buffers, in the order that stands above its kernel */
    const unsigned char *mask; /* bytes, 0 where the parameter is held at zero; NULL for no mask */
};

struct optim_rule {
    double sign;           /* of the gradient: -1 where the objective is maximised */
    double weight_decay;   /* gradient += weight_decay * parameter */
    double l1_subgradient; /* gradient += l1_subgradient * sign(parameter) */
    double keep;           /* parameter *= keep, before the update: decoupled decay */
    double threshold;      /* soft threshold of the parameter after the update: proximal L1 */
    double rate;           /* parameter += rate * direction */
    double gradient_rate;  /* NAdam: the gradient's own share of the step */
    double momentum, gain; /* buffer = momentum * buffer + gain * gradient */
    double average;        /* first moment += average * (gradient - first moment) */
    double decay, fresh;   /* second moment = decay * second moment + fresh * gradient^2 */
    double root_scale;     /* denominator = root_scale * sqrt(second moment) + eps */
    double eps;
};

struct optim_kernels {
    void (*sgd)(const struct optim_span *span, const struct optim_rule *rule);
    void (*sgd_momentum)(const struct optim_span *span, const struct optim_rule *rule);
    void (*sgd_nesterov)(const struct optim_span *span, const struct optim_rule *rule);
    void (*rmsprop)(const struct optim_span *span, const struct optim_rule *rule);
    void (*rmsprop_momentum)(const struct optim_span *span, const struct optim_rule *rule);
    void (*rmsprop_centered)(const struct optim_span *span, const struct optim_rule *rule);
    void (*rmsprop_centered_momentum)(const struct optim_span *span, const struct optim_rule *rule);
    void (*adam)(const struct optim_span *span, const struct optim_rule *rule);
    void (*adam_amsgrad)(const struct optim_span *span, const struct optim_rule *rule);
    void (*adadelta)(const struct optim_span *span, const struct optim_rule *rule);
    void (*adamax)(const struct optim_span *span, const struct optim_rule *rule);
    double (*sum_of_squares)(const void *x, ptrdiff_t count);
    void (*scale)(void *x, ptrdiff_t count, double factor);
    void (*clamp)(void *x, ptrdiff_t count, double limit);
};

/* csrc/pixels.c */
struct pixels_geometry {
    ptrdiff_t channels, out_channels;
    ptrdiff_t first;                      /* output that the input begins with */
    ptrdiff_t row_pixels, image_rows;     /* outputs in a row, and rows of an image */
    ptrdiff_t in_pixel, in_row, in_image; /* elements of the input from one of these to the next */
};
struct patches_geometry {
    ptrdiff_t images, channels, out_channels, channels_last;
    ptrdiff_t in_size[2], out_size[2], filter[2], stride[2], padding[2]; /* height, width */
};
struct pixels_kernels {
    void (*tile)(const struct pixels_geometry *geometry, const void *input, const void *packed, ptrdiff_t start,
                 ptrdiff_t count, ptrdiff_t first, ptrdiff_t channels, const struct conv_epilogue *epilogue,
                 ptrdiff_t unit, void *output);
    ptrdiff_t (*scratch_size)(const struct patches_geometry *geometry, ptrdiff_t pixels);
    void (*patch_tile)(const struct patches_geometry *geometry, const void *input, const void *packed, ptrdiff_t start,
                       ptrdiff_t count, const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output,
                       void *scratch);
    ptrdiff_t (*partial_size)(const struct patches_geometry *geometry);
    void (*weight_tile)(const struct patches_geometry *geometry, const void *input, const void *grad_output,
                        ptrdiff_t start, ptrdiff_t count, void *partial, void *scratch);
};

/* csrc/grouped.c, and csrc/depthwise.c for groups of one channel and one output channel */
struct group_tap {
    ptrdiff_t y, x, index; /* position in the image under the first output, and number in the filter */
    ptrdiff_t
        run; /* this tap and so many - 1 behind it, at most 3, are a step of the outputs apart; 0 inside of a run */
};
struct group_geometry {
    ptrdiff_t groups, channels, out_channels; /* the last two per group */
    ptrdiff_t channels_last; /* only depthwise: with channels first, outputs are neighbours, out_pixel is 1 */
    ptrdiff_t in_size[2], grid[2], stride[2]; /* height, width: of the image, of the outputs that are computed */
    ptrdiff_t target;                         /* of the first of them in the array of outputs */
    ptrdiff_t out_image, out_row, out_pixel;  /* elements from one of these to the next */
    ptrdiff_t taps;
    const struct group_tap *tap;
};
/* Weights, and sums of their gradients, are [tap of the filter][channel of a group][all output channels]; rows of outputs are
 * counted through all images. */
struct group_kernels {
    ptrdiff_t (*scratch_size)(const struct group_geometry *geometry);
    void (*tile)(const struct group_geometry *geometry, const void *input, const void *weight, ptrdiff_t start,
                 ptrdiff_t rows, const struct conv_epilogue *epilogue, ptrdiff_t unit, void *output, void *scratch);
    void (*weight_tile)(const struct group_geometry *geometry, const void *input, const void *grad_output,
                        ptrdiff_t start, ptrdiff_t rows, void *partial, void *scratch);
};

/* csrc/layout.c */
struct layout_kernels {
    void (*transpose)(const void *source, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t source_stride, void *target,
                      ptrdiff_t target_stride);
};

/* csrc/machine.c: the yardsticks of the benchmarks */
struct machine_kernels {
    double (*multiply_add)(ptrdiff_t repeats, void *result);
    void (*triad)(void *a, const void *b, const void *c, double factor, ptrdiff_t count);
};

struct kernels {
    const struct gemm_kernels *gemm;
    const struct conv_kernels *conv;
    const struct conv_backward_kernels *conv_backward;
    const struct winograd_kernels *winograd, *winograd_channels;
    const struct winograd_weight_kernels *winograd_weight;
    const struct fft_kernels *fft;
    const struct direct_kernels *direct;
    const struct pixels_kernels *pixels;
    const struct group_kernels *depthwise, *grouped;
    const struct fold_kernels *fold;
    const struct pool_kernels *pool;
    const struct norm_kernels *norm;
    const struct activation_kernels *activation;
    const struct softmax_kernels *softmax;
    const struct loss_kernels *loss;
    const struct random_kernels *random;
    const struct optim_kernels *optim;
    const struct layout_kernels *layout;
    const struct machine_kernels *machine;
};

/* csrc/dispatch.c */
enum { FASTNN_FLOAT32 = 0, FASTNN_FLOAT64 = 1 };
int fastnn_isa_count(void);           /* instruction sets built in, from the plainest to the widest */
const char *fastnn_isa_name(int isa); /* "baseline", "avx2", "avx512" */
int fastnn_isa_supported(int isa);    /* can this CPU run it? */
const struct kernels *fastnn_kernels(int isa, int dtype);

/* Names of what each (instruction set, dtype) compilation exports: FASTNN_TABLE(pool) is pool_f32_avx2, ... */
#define FASTNN_JOIN_(a, b) a##_##b
#define FASTNN_JOIN(a, b) FASTNN_JOIN_(a, b)
#define FASTNN_TABLE(family) FASTNN_JOIN(family, FASTNN_VARIANT)

#endif

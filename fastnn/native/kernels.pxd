# Mirrors csrc/kernels.h: the table of kernels of one instruction set and dtype.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "kernels.h" nogil:
    struct gemm_kernels:
        ptrdiff_t row_tile
        ptrdiff_t column_tile
        ptrdiff_t depth_block
        void (*pack)(const void *source, ptrdiff_t line_stride, ptrdiff_t depth_stride, ptrdiff_t lines,
                     ptrdiff_t depth, ptrdiff_t tile, void *packed) noexcept nogil
        void (*tile)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *packed_a, const void *packed_b,
                     const void *bias, void *c, ptrdiff_t row_stride, int accumulate) noexcept nogil
        ptrdiff_t stream_sums
        void (*tile_of_lines)(ptrdiff_t lines, ptrdiff_t rows, ptrdiff_t depth, const void *b, const void *packed_a,
                              const void *bias, void *c, ptrdiff_t row_stride) noexcept nogil
        void (*dot_rows)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b,
                         const void *bias, void *c, ptrdiff_t row_stride) noexcept nogil
        void (*stream_rows)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const void *a, const void *b,
                            ptrdiff_t b_row, void *c, ptrdiff_t row_stride) noexcept nogil
        void (*rectify)(ptrdiff_t rows, ptrdiff_t columns, void *c, ptrdiff_t row_stride) noexcept nogil

    struct conv_epilogue:
        const void *bias
        const void *residual
        double slope
        void *sums
        ptrdiff_t channels

    struct conv_geometry:
        ptrdiff_t channels
        ptrdiff_t in_size[3]
        ptrdiff_t in_image_stride
        ptrdiff_t in_channel_stride
        ptrdiff_t in_pixel_stride
        ptrdiff_t images
        ptrdiff_t grid[3]
        ptrdiff_t stride[3]
        ptrdiff_t out_image_stride
        ptrdiff_t out_channel_stride
        ptrdiff_t out_stride[3]
        ptrdiff_t taps
        const ptrdiff_t *tap

    struct conv_phase:
        conv_geometry geometry
        ptrdiff_t target
        ptrdiff_t column
        const ptrdiff_t *position

    struct conv_kernels:
        ptrdiff_t lanes
        ptrdiff_t tile_panels
        ptrdiff_t (*scratch_size)(const conv_geometry *geometry, ptrdiff_t depth_block,
                                  ptrdiff_t pixels) noexcept nogil
        void (*pack_weight)(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, const ptrdiff_t *place,
                            ptrdiff_t taps, ptrdiff_t filter, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t row,
                            ptrdiff_t depth_block, void *packed) noexcept nogil
        void (*tile)(const conv_geometry *geometry, const void *input, const void *weight, ptrdiff_t weight_row,
                     ptrdiff_t group, ptrdiff_t out_channels, ptrdiff_t depth_block, ptrdiff_t pixel_start,
                     ptrdiff_t pixels, ptrdiff_t pixels_ahead, const void *packed_pixels, ptrdiff_t channel_start,
                     ptrdiff_t channel_count, const conv_epilogue *epilogue, ptrdiff_t unit_panels, void *output,
                     void *scratch) noexcept nogil
        ptrdiff_t (*pack_scratch_size)(const conv_geometry *geometry) noexcept nogil
        void (*pack_panel)(const conv_geometry *geometry, const void *input, ptrdiff_t start, ptrdiff_t count,
                           ptrdiff_t depth_start, ptrdiff_t depth, void *packed, void *scratch) noexcept nogil
        void (*add_units)(const void *partials, ptrdiff_t units, ptrdiff_t count, double *sums) noexcept nogil

    struct conv_backward_kernels:
        ptrdiff_t (*input_scratch_size)(const conv_phase *phase, ptrdiff_t phases, ptrdiff_t pixels,
                                        ptrdiff_t depth_block, ptrdiff_t weights) noexcept nogil
        void (*input_tile)(const conv_phase *phase, ptrdiff_t phases, const void *packed_grad, ptrdiff_t pixels,
                           ptrdiff_t out_channels, ptrdiff_t depth_block, const void *weight, ptrdiff_t weight_row,
                           ptrdiff_t filter, ptrdiff_t channel_start, ptrdiff_t channels, const void *bias,
                           void *output, void *scratch) noexcept nogil
        ptrdiff_t (*weight_scratch_size)(const conv_geometry *geometry, ptrdiff_t out_channels) noexcept nogil
        void (*weight_tile)(const conv_geometry *geometry, const void *input, const void *grad_output,
                            ptrdiff_t out_channels, ptrdiff_t pixel_start, ptrdiff_t pixels, ptrdiff_t depth_start,
                            ptrdiff_t depth_count, void *partial, double *bias_sums, void *scratch) noexcept nogil
        ptrdiff_t (*few_scratch_size)(const conv_geometry *geometry) noexcept nogil
        void (*few_weight_tile)(const conv_geometry *geometry, const void *input, const void *grad, ptrdiff_t grad_row,
                                ptrdiff_t out_channels, ptrdiff_t depth_start, ptrdiff_t depth_count,
                                void *weight_grad, ptrdiff_t weight_row, double *bias_sums,
                                void *scratch) noexcept nogil
        void (*reduce_columns)(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t row_stride,
                               ptrdiff_t depth, ptrdiff_t out_channels, void *weight_grad,
                               ptrdiff_t weight_row) noexcept nogil
        void (*pixel_sum)(const void *x, ptrdiff_t pixels, ptrdiff_t channels, void *sums) noexcept nogil
        void (*add_parts)(const void *partials, ptrdiff_t parts, ptrdiff_t part_stride, ptrdiff_t count,
                          void *weight_grad) noexcept nogil
        void (*channel_sum)(const void *x, ptrdiff_t images, ptrdiff_t image_stride, ptrdiff_t positions,
                            void *sum) noexcept nogil

    struct tiled_weight:
        const void *data
        ptrdiff_t row_stride
        ptrdiff_t channel_stride
        ptrdiff_t turned
        const void *transformed

    struct tiled_block:
        ptrdiff_t start
        ptrdiff_t tiles

    struct tiled_sum:
        ptrdiff_t row_start
        ptrdiff_t rows
        ptrdiff_t channel_start
        ptrdiff_t channels
        ptrdiff_t tile_start
        ptrdiff_t tiles
        ptrdiff_t room

    struct winograd_geometry:
        ptrdiff_t images
        ptrdiff_t channels
        ptrdiff_t out_channels
        ptrdiff_t filter[2]
        ptrdiff_t stride
        ptrdiff_t points
        ptrdiff_t blocks[2]
        ptrdiff_t block[2][4]
        ptrdiff_t taps[2][4]
        ptrdiff_t whole[2]
        ptrdiff_t in_size[2]
        ptrdiff_t out_size[2]
        ptrdiff_t padding[2]
        ptrdiff_t phases
        ptrdiff_t grid[2]
        ptrdiff_t lead[2]
        ptrdiff_t lacking[2]
        ptrdiff_t chunk_rows
        ptrdiff_t channels_last
        ptrdiff_t part_channels

    struct winograd_kernels:
        ptrdiff_t weight_rows
        ptrdiff_t row_tile
        ptrdiff_t chunk_tiles
        ptrdiff_t panel_tiles
        ptrdiff_t tile_step
        ptrdiff_t depth_block
        ptrdiff_t lanes
        ptrdiff_t few_tiles
        ptrdiff_t (*weight_size)(const winograd_geometry *geometry) noexcept nogil
        void (*transform_weight)(const winograd_geometry *geometry, const tiled_weight *weight, ptrdiff_t k,
                                 void *transformed) noexcept nogil
        ptrdiff_t (*patches_size)(const winograd_geometry *geometry, ptrdiff_t tiles) noexcept nogil
        void (*transform_tiles)(const winograd_geometry *geometry, const void *input, const tiled_block *block,
                                ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                                void *patches) noexcept nogil
        ptrdiff_t (*scratch_size)(const winograd_geometry *geometry, ptrdiff_t tiles, int transformed) noexcept nogil
        void (*multiply_tiles)(const winograd_geometry *geometry, const tiled_weight *weight, const void *patches,
                               const tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles,
                               ptrdiff_t row_start, ptrdiff_t row_count, const conv_epilogue *epilogue, void *output,
                               void *scratch) noexcept nogil

    struct winograd_weight_kernels:
        ptrdiff_t row_tile
        ptrdiff_t panel_tiles
        ptrdiff_t lanes
        void (*sum_sizes)(const winograd_geometry *geometry, const tiled_sum *sum, ptrdiff_t *sizes) noexcept nogil
        void (*transform_sum_patches)(const winograd_geometry *geometry, const tiled_sum *sum, const void *input,
                                      ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels,
                                      void *patches) noexcept nogil
        void (*transform_sum_gradients)(const winograd_geometry *geometry, const tiled_sum *sum,
                                        const void *grad_output, ptrdiff_t tile, ptrdiff_t row, ptrdiff_t rows,
                                        void *gradients, double *bias_sums) noexcept nogil
        void (*multiply_sum)(const winograd_geometry *geometry, const tiled_sum *sum, ptrdiff_t position,
                             ptrdiff_t row, ptrdiff_t rows, const void *gradients, const void *patches, int accumulate,
                             void *products) noexcept nogil
        void (*store_sum)(const winograd_geometry *geometry, const tiled_sum *sum, ptrdiff_t row,
                          const void *products, void *grad_weight) noexcept nogil
        void (*sum_few)(const winograd_geometry *geometry, const tiled_sum *sum, ptrdiff_t row, ptrdiff_t rows,
                        ptrdiff_t channel, ptrdiff_t channels, const void *gradients, const void *patches,
                        void *grad_weight) noexcept nogil

    struct fft_geometry:
        ptrdiff_t images
        ptrdiff_t channels
        ptrdiff_t out_channels
        ptrdiff_t filter[2]
        ptrdiff_t stride
        ptrdiff_t phases[2]
        ptrdiff_t in_size[2]
        ptrdiff_t out_size[2]
        ptrdiff_t tile_size[2]
        ptrdiff_t tiles[2]
        ptrdiff_t padding[2]
        ptrdiff_t chunk_rows
        ptrdiff_t channels_last

    struct fft_kernels:
        ptrdiff_t row_tile
        ptrdiff_t last_row_tile
        ptrdiff_t panel_tiles
        ptrdiff_t lanes
        ptrdiff_t (*weight_size)(const fft_geometry *geometry) noexcept nogil
        void (*transform_weight)(const fft_geometry *geometry, const tiled_weight *weight, ptrdiff_t k,
                                 ptrdiff_t first, ptrdiff_t count, void *transformed) noexcept nogil
        ptrdiff_t (*patches_size)(const fft_geometry *geometry, ptrdiff_t tiles) noexcept nogil
        void (*transform_tiles)(const fft_geometry *geometry, const void *input, const tiled_block *block,
                                ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t channel_start, ptrdiff_t channels,
                                void *patches, void *scratch) noexcept nogil
        ptrdiff_t (*scratch_size)(const fft_geometry *geometry, ptrdiff_t tiles, int transformed) noexcept nogil
        void (*multiply_tiles)(const fft_geometry *geometry, const tiled_weight *weight, const void *patches,
                               const tiled_block *block, ptrdiff_t tile_start, ptrdiff_t tiles, ptrdiff_t row_start,
                               ptrdiff_t row_count, const conv_epilogue *epilogue, void *output,
                               void *scratch) noexcept nogil
        void (*sum_sizes)(const fft_geometry *geometry, const tiled_sum *sum, ptrdiff_t *sizes) noexcept nogil
        void (*transform_sum_patches)(const fft_geometry *geometry, const tiled_sum *sum, const void *input,
                                      ptrdiff_t tile, ptrdiff_t channel, ptrdiff_t channels,
                                      void *patches, void *scratch) noexcept nogil
        void (*transform_sum_gradients)(const fft_geometry *geometry, const tiled_sum *sum, const void *grad_output,
                                        ptrdiff_t tile, ptrdiff_t row, void *gradients, double *bias_sums,
                                        void *scratch) noexcept nogil
        void (*multiply_sum)(const tiled_sum *sum, ptrdiff_t q, const void *gradients, const void *patches,
                             int accumulate, void *products) noexcept nogil
        void (*store_sum)(const fft_geometry *geometry, const tiled_sum *sum, ptrdiff_t channel, const void *products,
                          void *grad_weight) noexcept nogil

    struct direct_geometry:
        ptrdiff_t channels
        ptrdiff_t images
        ptrdiff_t interleave
        ptrdiff_t channels_last
        ptrdiff_t in_size[2]
        ptrdiff_t in_image_stride
        ptrdiff_t in_channel_stride
        ptrdiff_t in_stride[2]
        ptrdiff_t grid[2]
        ptrdiff_t stride[2]
        ptrdiff_t first[2]
        ptrdiff_t reach[2]
        ptrdiff_t out_image_stride
        ptrdiff_t out_channel_stride
        ptrdiff_t out_stride[2]
        ptrdiff_t band

    struct direct_taps:
        ptrdiff_t count
        const ptrdiff_t *position
        const ptrdiff_t *index

    struct direct_phase:
        ptrdiff_t grid[2]
        ptrdiff_t target
        direct_taps taps[2]
        const ptrdiff_t *offset
        const ptrdiff_t *order

    struct direct_kernels:
        ptrdiff_t lanes
        ptrdiff_t row_tile
        ptrdiff_t gradient_positions
        ptrdiff_t spare_offsets
        ptrdiff_t (*scratch_size)(const direct_geometry *geometry) noexcept nogil
        void (*fill_offsets)(const direct_geometry *geometry, const direct_phase *phase,
                             ptrdiff_t *offset) noexcept nogil
        void (*pack_weight)(const void *weight, ptrdiff_t row_stride, ptrdiff_t channel_stride, ptrdiff_t filter_width,
                            const direct_phase *phase, ptrdiff_t channels, ptrdiff_t rows, void *packed) noexcept nogil
        void (*tile)(const direct_geometry *geometry, const direct_phase *phase, ptrdiff_t phases, const void *input,
                     const void *packed_weight, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t image,
                     ptrdiff_t band_start, const conv_epilogue *epilogue, void *output, void *scratch) noexcept nogil
        ptrdiff_t (*weight_scratch_size)(const direct_geometry *geometry, ptrdiff_t depth,
                                         ptrdiff_t rows) noexcept nogil
        void (*weight_tile)(const direct_geometry *geometry, const direct_phase *phase, const void *input,
                            const void *grad_output, ptrdiff_t rows, ptrdiff_t unit, ptrdiff_t units, void *partial,
                            double *bias_sums, void *scratch) noexcept nogil

    struct fold_geometry:
        ptrdiff_t image[2]
        ptrdiff_t kernel[2]
        ptrdiff_t grid[2]
        ptrdiff_t dilation[2]
        ptrdiff_t padding[2]
        ptrdiff_t stride[2]

    struct fold_kernels:
        void (*unfold)(const fold_geometry *geometry, const void *image, void *columns) noexcept nogil
        void (*fold)(const fold_geometry *geometry, const void *columns, void *image) noexcept nogil

    struct pool_geometry:
        ptrdiff_t in_size[3]
        ptrdiff_t out_size[3]
        ptrdiff_t kernel[3]
        ptrdiff_t stride[3]
        ptrdiff_t padding[3]
        ptrdiff_t dilation[3]
        ptrdiff_t count_include_pad
        ptrdiff_t divisor

    struct pool_kernels:
        ptrdiff_t (*scratch_size)(const pool_geometry *geometry) noexcept nogil
        void (*max_pool)(const pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                         void *output, int64_t *indices, void *scratch) noexcept nogil
        void (*max_pool_backward)(const pool_geometry *geometry, const void *grad_output, const void *input,
                                  ptrdiff_t planes, ptrdiff_t input_room, void *grad_input,
                                  void *scratch) noexcept nogil
        ptrdiff_t (*max_pool_route)(const void *grad_output, const int64_t *indices, ptrdiff_t planes,
                                    ptrdiff_t outputs, ptrdiff_t inputs, void *grad_input) noexcept nogil
        void (*avg_pool)(const pool_geometry *geometry, const void *input, ptrdiff_t planes, ptrdiff_t input_room,
                         void *output, void *scratch) noexcept nogil
        void (*avg_pool_backward)(const pool_geometry *geometry, const void *grad_output, ptrdiff_t planes,
                                  ptrdiff_t grad_output_room, void *grad_input, void *scratch) noexcept nogil

    enum:
        NORM_COLUMNS

    struct norm_shape:
        ptrdiff_t images
        ptrdiff_t channels
        ptrdiff_t positions
        ptrdiff_t group
        ptrdiff_t weights

    struct norm_tile:
        ptrdiff_t channel
        ptrdiff_t channels
        ptrdiff_t start
        ptrdiff_t count

    struct norm_kernels:
        int (*by_columns)(const norm_shape *shape) noexcept nogil
        void (*moments)(const norm_shape *shape, const norm_tile *tile, const void *input,
                        double *moments) noexcept nogil
        void (*statistics)(ptrdiff_t first, ptrdiff_t count, ptrdiff_t all, const double *moments, ptrdiff_t parts,
                           ptrdiff_t part_count, ptrdiff_t elements, double eps, double *mean,
                           double *inverse_deviation, void *running_mean, void *running_variance,
                           double momentum) noexcept nogil
        void (*fixed_statistics)(ptrdiff_t count, const void *running_mean, const void *running_variance, double eps,
                                 double *mean, double *inverse_deviation) noexcept nogil
        void (*affine_coefficients)(const norm_shape *shape, ptrdiff_t first, ptrdiff_t count, const double *mean,
                                    const double *inverse_deviation, const void *weight, const void *bias,
                                    void *coefficients) noexcept nogil
        void (*affine)(const norm_shape *shape, const norm_tile *tile, const void *input, const void *coefficients,
                       const void *residual, int relu, void *output) noexcept nogil
        void (*gradient_sums)(const norm_shape *shape, const norm_tile *tile, const void *grad_output,
                              const void *input, const void *affine, int relu, double *sums) noexcept nogil
        void (*gradient_coefficients)(const norm_shape *shape, ptrdiff_t first, ptrdiff_t count, double *sums,
                                      ptrdiff_t parts, const double *mean, const double *inverse_deviation,
                                      const void *weight, void *coefficients) noexcept nogil
        void (*backward)(const norm_shape *shape, const norm_tile *tile, const void *grad_output, const void *input,
                         const void *affine, const void *gradient, int relu, int training,
                         void *grad_input) noexcept nogil
        void (*weight_gradients)(const norm_shape *shape, const double *sums, void *grad_weight,
                                 void *grad_bias) noexcept nogil
        void (*layer)(const void *input, const void *weight, const void *bias, ptrdiff_t rows, ptrdiff_t length,
                      double eps, void *output) noexcept nogil
        void (*layer_backward)(const void *grad_output, const void *input, const void *weight, ptrdiff_t rows,
                               ptrdiff_t length, double eps, void *grad_input, void *accumulators,
                               double *sums) noexcept nogil
        void (*layer_weight_gradients)(const double *sums, ptrdiff_t parts, ptrdiff_t length, void *grad_weight,
                                       void *grad_bias) noexcept nogil

    enum activation:
        RELU
        LEAKY_RELU
        ELU
        SIGMOID
        TANH
        SOFTPLUS
        LOG_SIGMOID
        GELU
        GELU_TANH
        SILU
        HARDTANH
        HARDSWISH
        ACTIVATIONS

    struct activation_kernels:
        void (*forward[ACTIVATIONS])(const void *input, ptrdiff_t count, double a, double b,
                                     void *output) noexcept nogil
        void (*backward[ACTIVATIONS])(const void *grad_output, const void *input, ptrdiff_t count, double a, double b,
                                      void *grad_input) noexcept nogil
        void (*add)(const void *a, const void *b, ptrdiff_t count, int relu, void *output) noexcept nogil
        void (*prelu)(const void *input, const void *weight, ptrdiff_t first_line, ptrdiff_t lines, ptrdiff_t count,
                      ptrdiff_t line_stride, ptrdiff_t channels, int per_element, void *output) noexcept nogil
        void (*prelu_backward)(const void *grad_output, const void *input, const void *weight, ptrdiff_t first_line,
                               ptrdiff_t lines, ptrdiff_t count, ptrdiff_t line_stride, ptrdiff_t channels,
                               int per_element, void *grad_input, void *partials,
                               ptrdiff_t partial_step) noexcept nogil
        void (*prelu_reduce)(const void *partials, ptrdiff_t outer, ptrdiff_t channels, ptrdiff_t inner,
                             void *grad_weight) noexcept nogil

    ctypedef void (*softmax_forward)(const void *input, ptrdiff_t outer, ptrdiff_t size, ptrdiff_t inner,
                                     ptrdiff_t columns, void *output) noexcept nogil
    ctypedef void (*softmax_gradient)(const void *grad_output, const void *output, ptrdiff_t outer, ptrdiff_t size,
                                      ptrdiff_t inner, ptrdiff_t columns, void *grad_input) noexcept nogil

    struct softmax_kernels:
        softmax_forward softmax
        softmax_gradient softmax_backward
        softmax_forward log_softmax
        softmax_gradient log_softmax_backward

    struct cross_entropy:
        ptrdiff_t classes
        ptrdiff_t inner
        const void *scores
        const int64_t *index
        const void *probability
        const void *weight
        int64_t ignore_index
        double hard
        double soft
        double scale
        const void *grad_output
        void *losses
        void *grad_scores

    enum:
        FASTNN_MSE
        FASTNN_L1
        FASTNN_SMOOTH_L1
        FASTNN_HUBER
        FASTNN_BCE
        FASTNN_BCE_LOGITS
        FASTNN_KL
        FASTNN_KL_LOG

    struct elementwise_loss:
        const void *input
        const void *target
        const void *weight
        const void *pos_weight
        double width
        double scale
        const void *grad_output
        void *output

    struct loss_kernels:
        double (*cross_entropy)(const cross_entropy *problem, ptrdiff_t first, ptrdiff_t count) noexcept nogil
        double (*target_weight)(const int64_t *index, ptrdiff_t count, const void *weight,
                                int64_t ignore_index) noexcept nogil
        double (*nll)(const cross_entropy *problem, ptrdiff_t first, ptrdiff_t count) noexcept nogil
        double (*multi_margin)(const cross_entropy *problem, double margin, int power, ptrdiff_t first,
                               ptrdiff_t count) noexcept nogil
        double (*elementwise)(int loss, int backward, const elementwise_loss *problem, ptrdiff_t start,
                              ptrdiff_t count) noexcept nogil

    struct random_kernels:
        void (*philox)(uint64_t seed, uint64_t position, ptrdiff_t count, uint32_t *words) noexcept nogil
        void (*dropout)(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double p,
                        void *output) noexcept nogil
        void (*gaussian_dropout)(const void *input, ptrdiff_t count, uint64_t seed, uint64_t position, double std,
                                 void *output) noexcept nogil

    struct optim_span:
        ptrdiff_t count
        void *param
        const void *grad
        void *state[3]
        const unsigned char *mask

    struct optim_rule:
        double sign
        double weight_decay
        double l1_subgradient
        double keep
        double threshold
        double rate
        double gradient_rate
        double momentum
        double gain
        double average
        double decay
        double fresh
        double root_scale
        double eps

    struct optim_kernels:
        void (*sgd)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*sgd_momentum)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*sgd_nesterov)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*rmsprop)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*rmsprop_momentum)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*rmsprop_centered)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*rmsprop_centered_momentum)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*adam)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*adam_amsgrad)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*adadelta)(const optim_span *span, const optim_rule *rule) noexcept nogil
        void (*adamax)(const optim_span *span, const optim_rule *rule) noexcept nogil
        double (*sum_of_squares)(const void *x, ptrdiff_t count) noexcept nogil
        void (*scale)(void *x, ptrdiff_t count, double factor) noexcept nogil
        void (*clamp)(void *x, ptrdiff_t count, double limit) noexcept nogil

    struct pixels_geometry:
        ptrdiff_t channels
        ptrdiff_t out_channels
        ptrdiff_t first
        ptrdiff_t row_pixels
        ptrdiff_t image_rows
        ptrdiff_t in_pixel
        ptrdiff_t in_row
        ptrdiff_t in_image

    struct patches_geometry:
        ptrdiff_t images
        ptrdiff_t channels
        ptrdiff_t out_channels
        ptrdiff_t channels_last
        ptrdiff_t in_size[2]
        ptrdiff_t out_size[2]
        ptrdiff_t filter[2]
        ptrdiff_t stride[2]
        ptrdiff_t padding[2]

    struct pixels_kernels:
        void (*tile)(const pixels_geometry *geometry, const void *input, const void *packed, ptrdiff_t start,
                     ptrdiff_t count, ptrdiff_t first, ptrdiff_t channels, const conv_epilogue *epilogue,
                     ptrdiff_t unit, void *output) noexcept nogil
        ptrdiff_t (*scratch_size)(const patches_geometry *geometry, ptrdiff_t pixels) noexcept nogil
        void (*patch_tile)(const patches_geometry *geometry, const void *input, const void *packed, ptrdiff_t start,
                           ptrdiff_t count, const conv_epilogue *epilogue, ptrdiff_t unit, void *output,
                           void *scratch) noexcept nogil
        ptrdiff_t (*partial_size)(const patches_geometry *geometry) noexcept nogil
        void (*weight_tile)(const patches_geometry *geometry, const void *input, const void *grad_output,
                            ptrdiff_t start, ptrdiff_t count, void *partial, void *scratch) noexcept nogil

    struct group_tap:
        ptrdiff_t y
        ptrdiff_t x
        ptrdiff_t index
        ptrdiff_t run

    struct group_geometry:
        ptrdiff_t groups
        ptrdiff_t channels
        ptrdiff_t out_channels
        ptrdiff_t channels_last
        ptrdiff_t in_size[2]
        ptrdiff_t grid[2]
        ptrdiff_t stride[2]
        ptrdiff_t target
        ptrdiff_t out_image
        ptrdiff_t out_row
        ptrdiff_t out_pixel
        ptrdiff_t taps
        const group_tap *tap

    struct group_kernels:
        ptrdiff_t (*scratch_size)(const group_geometry *geometry) noexcept nogil
        void (*tile)(const group_geometry *geometry, const void *input, const void *weight, ptrdiff_t start,
                     ptrdiff_t rows, const conv_epilogue *epilogue, ptrdiff_t unit, void *output,
                     void *scratch) noexcept nogil
        void (*weight_tile)(const group_geometry *geometry, const void *input, const void *grad_output,
                            ptrdiff_t start, ptrdiff_t rows, void *partial, void *scratch) noexcept nogil

    struct layout_kernels:
        void (*transpose)(const void *source, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t source_stride, void *target,
                          ptrdiff_t target_stride) noexcept nogil

    struct machine_kernels:
        double (*multiply_add)(ptrdiff_t repeats, void *result) noexcept nogil
        void (*triad)(void *a, const void *b, const void *c, double factor, ptrdiff_t count) noexcept nogil

    struct kernels:
        const gemm_kernels *gemm
        const conv_kernels *conv
        const conv_backward_kernels *conv_backward
        const winograd_kernels *winograd
        const winograd_kernels *winograd_channels
        const winograd_weight_kernels *winograd_weight
        const fft_kernels *fft
        const direct_kernels *direct
        const fold_kernels *fold
        const pool_kernels *pool
        const norm_kernels *norm
        const activation_kernels *activation
        const softmax_kernels *softmax
        const loss_kernels *loss
        const random_kernels *random
        const optim_kernels *optim
        const layout_kernels *layout
        const pixels_kernels *pixels
        const group_kernels *depthwise
        const group_kernels *grouped
        const machine_kernels *machine

    enum:
        FASTNN_FLOAT32
        FASTNN_FLOAT64
    int fastnn_isa_count()
    const char *fastnn_isa_name(int isa)
    int fastnn_isa_supported(int isa)
    const kernels *fastnn_kernels(int isa, int dtype)

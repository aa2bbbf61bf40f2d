/* Compiled once per (instruction set, dtype): gathers the families' tables of this variant. */
#include "kernels.h"

extern const struct gemm_kernels FASTNN_TABLE(gemm);
extern const struct conv_kernels FASTNN_TABLE(conv);
extern const struct conv_backward_kernels FASTNN_TABLE(conv_backward);
extern const struct winograd_kernels FASTNN_TABLE(winograd), FASTNN_TABLE(winograd_channels);
extern const struct winograd_weight_kernels FASTNN_TABLE(winograd_weight);
extern const struct fft_kernels FASTNN_TABLE(fft);
extern const struct direct_kernels FASTNN_TABLE(direct);
extern const struct fold_kernels FASTNN_TABLE(fold);
extern const struct pool_kernels FASTNN_TABLE(pool);
extern const struct norm_kernels FASTNN_TABLE(norm);
extern const struct activation_kernels FASTNN_TABLE(activation);
extern const struct softmax_kernels FASTNN_TABLE(softmax);
extern const struct loss_kernels FASTNN_TABLE(loss);
extern const struct random_kernels FASTNN_TABLE(random);
extern const struct optim_kernels FASTNN_TABLE(optim);
extern const struct layout_kernels FASTNN_TABLE(layout);
extern const struct pixels_kernels FASTNN_TABLE(pixels);
extern const struct group_kernels FASTNN_TABLE(depthwise), FASTNN_TABLE(grouped);
extern const struct machine_kernels FASTNN_TABLE(machine);

const struct kernels FASTNN_TABLE(kernels) = {
    .gemm = &FASTNN_TABLE(gemm),
    .conv = &FASTNN_TABLE(conv),
    .conv_backward = &FASTNN_TABLE(conv_backward),
    .winograd = &FASTNN_TABLE(winograd),
    .winograd_channels = &FASTNN_TABLE(winograd_channels),
    .winograd_weight = &FASTNN_TABLE(winograd_weight),
    .fft = &FASTNN_TABLE(fft),
    .direct = &FASTNN_TABLE(direct),
    .fold = &FASTNN_TABLE(fold),
    .pool = &FASTNN_TABLE(pool),
    .norm = &FASTNN_TABLE(norm),
    .activation = &FASTNN_TABLE(activation),
    .softmax = &FASTNN_TABLE(softmax),
    .loss = &FASTNN_TABLE(loss),
    .random = &FASTNN_TABLE(random),
    .optim = &FASTNN_TABLE(optim),
    .layout = &FASTNN_TABLE(layout),
    .pixels = &FASTNN_TABLE(pixels),
    .depthwise = &FASTNN_TABLE(depthwise),
    .grouped = &FASTNN_TABLE(grouped),
    .machine = &FASTNN_TABLE(machine),
};

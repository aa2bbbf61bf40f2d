#include "kernels.h"
#include "vec.h"

const struct softmax_kernels FASTNN_TABLE(softmax) = {0};

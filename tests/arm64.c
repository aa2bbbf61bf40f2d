/* Runs kernels of the plainest table on odd shapes and compares them with loops in double; prints the errors, each the
 * largest over the RMS of what is expected, and fails above a bound. tests/test_arm64.py builds it with the core for
 * arm64 and runs it in an emulator. */
#include "kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef FASTNN_F64
typedef double real;
enum { DTYPE = FASTNN_FLOAT64 };
#define SCALE 0x1p-27
#else
typedef float real;
enum { DTYPE = FASTNN_FLOAT32 };
#define SCALE 1.0
#endif

enum { N = 2, C = 5, K = 7, H = 9, W = 11, TAPS = 9, PLANE = H * W, DEPTH = C * TAPS };

static int failures;

static void *memory(ptrdiff_t bytes) { return aligned_alloc(64, ((size_t)bytes + 127) / 64 * 64); }

static real *numbers(ptrdiff_t count)
{
    static unsigned state = 1;
    real *x = memory(count * (ptrdiff_t)sizeof(real));
    for (ptrdiff_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (real)((state >> 8) / 8388608.0 - 1);
    }
    return x;
}

static void compare(const char *name, const real *actual, const double *expected, ptrdiff_t count, double bound)
{
    double worst = 0, squares = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        double difference = fabs(actual[i] - expected[i]);
        worst = difference <= worst ? worst : difference; /* NaN is worse than everything */
        squares += expected[i] * expected[i];
    }
    worst /= sqrt(squares / (double)count);
    int right = worst <= bound * SCALE;
    printf("%-10s %8.2g %s\n", name, worst, right ? "" : "FAILED");
    failures += !right;
}

/* A B + bias by all the ways of csrc/gemm.c, and once more added to itself */
static void check_gemm(const struct gemm_kernels *kernel)
{
    enum { ROWS = 13, COLUMNS = 37, SUM = 290, FEW = 3 };
    ptrdiff_t row_tile = kernel->row_tile, column_tile = kernel->column_tile;
    ptrdiff_t most = (ROWS + COLUMNS + row_tile + column_tile) * SUM;
    real *a = numbers(ROWS * SUM), *b = numbers(SUM * COLUMNS), *bias = numbers(COLUMNS);
    real *lines = numbers(COLUMNS * SUM), *c = numbers(ROWS * COLUMNS), *packed_a = numbers(most);
    real *packed_b = numbers(most);
    static double product[ROWS * COLUMNS], with_bias[ROWS * COLUMNS], twice[ROWS * COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k < SUM; k++) sum += (double)a[i * SUM + k] * b[k * COLUMNS + j];
            product[i * COLUMNS + j] = sum;
            with_bias[i * COLUMNS + j] = sum + bias[j];
            twice[i * COLUMNS + j] = 2 * sum + bias[j];
        }
    for (int j = 0; j < COLUMNS; j++)
        for (int k = 0; k < SUM; k++) lines[j * SUM + k] = b[k * COLUMNS + j];

    kernel->pack(a, SUM, 1, ROWS, SUM, row_tile, packed_a);
    kernel->pack(b, 1, COLUMNS, COLUMNS, SUM, column_tile, packed_b);
    for (int again = 0; again < 2; again++) {
        for (ptrdiff_t j = 0; j < COLUMNS; j += column_tile)
            kernel->tile(ROWS, j + column_tile < COLUMNS ? column_tile : COLUMNS - j, SUM, packed_a, packed_b + j * SUM,
                         again ? NULL : bias + j, c + j, COLUMNS, again);
        compare("gemm", c, again ? twice : with_bias, ROWS * COLUMNS, 5e-6);
    }
    kernel->pack(a, SUM, 1, ROWS, SUM, column_tile, packed_a);
    kernel->tile_of_lines(COLUMNS, ROWS, SUM, lines, packed_a, bias, c, COLUMNS);
    compare("lines", c, with_bias, ROWS * COLUMNS, 5e-6);
    kernel->dot_rows(FEW, COLUMNS, SUM, a, lines, bias, c, COLUMNS);
    compare("dot rows", c, with_bias, FEW * COLUMNS, 5e-6);
    kernel->stream_rows(FEW, COLUMNS, SUM, a, b, COLUMNS, c, COLUMNS);
    compare("stream", c, product, FEW * COLUMNS, 5e-6);
}

static void check_winograd(const char *name, const struct winograd_kernels *kernel, struct winograd_geometry geometry,
                           const real *x, const real *weight, const struct conv_epilogue *epilogue,
                           const double *expected)
{
    struct tiled_weight filters = {.data = weight, .row_stride = DEPTH, .channel_stride = TAPS};
    struct tiled_block all = {0, geometry.images * ((geometry.grid[0] + 3) / 4) * ((geometry.grid[1] + 3) / 4)};
    void *transformed = memory(kernel->weight_size(&geometry));
    void *patches = memory(kernel->patches_size(&geometry, all.tiles));
    void *scratch = memory(kernel->scratch_size(&geometry, all.tiles, 1));
    ptrdiff_t count = geometry.images * K * geometry.out_size[0] * geometry.out_size[1];
    real *y = numbers(count);
    for (int k = 0; k < K; k += (int)kernel->weight_rows) kernel->transform_weight(&geometry, &filters, k, transformed);
    filters.transformed = transformed;
    kernel->transform_tiles(&geometry, x, &all, 0, all.tiles, 0, geometry.channels, patches);
    kernel->multiply_tiles(&geometry, &filters, patches, &all, 0, all.tiles, 0, K, epilogue, y, scratch);
    compare(name, y, expected, count, 2e-5);
}

static void check_fft(const char *name, const struct fft_kernels *kernel, struct fft_geometry geometry, const real *x,
                      const real *weight, const struct conv_epilogue *epilogue, const double *expected)
{
    struct tiled_weight filters = {.data = weight, .row_stride = DEPTH, .channel_stride = TAPS};
    struct tiled_block all = {0, N * geometry.tiles[0] * geometry.tiles[1]};
    void *patches = memory(kernel->patches_size(&geometry, all.tiles));
    void *scratch = memory(kernel->scratch_size(&geometry, all.tiles, 0));
    real *y = numbers(N * K * PLANE);
    kernel->transform_tiles(&geometry, x, &all, 0, all.tiles, 0, C, patches, scratch);
    kernel->multiply_tiles(&geometry, &filters, patches, &all, 0, all.tiles, 0, K, epilogue, y, scratch);
    compare(name, y, expected, N * K * PLANE, 5e-6);
}

/* 1x1 of pixels with channels last, by the first C weights of each output channel */
static void check_pixels(const struct kernels *table, const real *x, const real *weight,
                         const struct conv_epilogue *epilogue)
{
    static double expected[N * PLANE * K];
    struct pixels_geometry geometry = {C, K, 0, N * PLANE, 1, C, 0, 0};
    ptrdiff_t tile = table->gemm->column_tile;
    real *packed = numbers((K + tile) * C), *y = numbers(N * PLANE * K);
    for (int q = 0; q < N * PLANE; q++)
        for (int k = 0; k < K; k++) {
            expected[q * K + k] = ((const real *)epilogue->bias)[k];
            for (int c = 0; c < C; c++) expected[q * K + k] += (double)x[q * C + c] * weight[k * DEPTH + c];
        }
    table->gemm->pack(weight, DEPTH, 1, K, C, tile, packed);
    table->pixels->tile(&geometry, x, packed, 0, N * PLANE, 0, K, epilogue, 0, y);
    compare("pixels", y, expected, N * PLANE * K, 5e-6);
}

/* 3x3 by packed patches */
static void check_patches(const char *name, int channels_last, const struct kernels *table, const real *x,
                          const real *weight, const struct conv_epilogue *epilogue, const double *expected)
{
    struct patches_geometry geometry = {N, C, K, channels_last, {H, W}, {H, W}, {3, 3}, {1, 1}, {1, 1}};
    ptrdiff_t tile = table->gemm->column_tile;
    real *rows = numbers(K * DEPTH), *packed = numbers((K + tile) * DEPTH), *y = numbers(N * PLANE * K);
    for (int i = 0; i < K * DEPTH; i++)
        rows[channels_last ? i / DEPTH * DEPTH + i % TAPS * C + i / TAPS % C : i] = weight[i];
    for (ptrdiff_t k = 0; k < K; k += tile)
        table->gemm->pack(rows + k * DEPTH, DEPTH, 1, k + tile < K ? tile : K - k, DEPTH, tile, packed + k * DEPTH);
    table->pixels->patch_tile(&geometry, x, packed, 0, N * PLANE, epilogue, 0, y,
                              memory(table->pixels->scratch_size(&geometry, N * PLANE)));
    compare(name, y, expected, N * PLANE * K, 5e-6);
}

/* 3x3, stride 1, padding 1: runs of three taps */
static struct group_geometry grouped(ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t out_channels, int channels_last)
{
    static struct group_tap tap[TAPS];
    for (int t = 0; t < TAPS; t++) tap[t] = (struct group_tap){t / 3 - 1, t % 3 - 1, t, t % 3 == 0 ? 3 : 0};
    const ptrdiff_t outputs = groups * out_channels, pixel = channels_last ? outputs : 1;
    return (struct group_geometry){groups, channels,        out_channels, channels_last, {H, W}, {H, W}, {1, 1},
                                   0,      PLANE * outputs, W * pixel,    pixel,         TAPS,   tap};
}

/* One group */
static void check_grouped(const struct group_kernels *kernel, const real *last, const real *weight,
                          const struct conv_epilogue *epilogue, const double *expected)
{
    const struct group_geometry geometry = grouped(1, C, K, 1);
    real *by_taps = numbers(TAPS * C * K), *y = numbers(N * PLANE * K);
    for (int i = 0; i < K * DEPTH; i++) by_taps[(i % TAPS * C + i / TAPS % C) * K + i / DEPTH] = weight[i];
    kernel->tile(&geometry, last, by_taps, 0, N * H, epilogue, 0, y, memory(kernel->scratch_size(&geometry)));
    compare("grouped", y, expected, N * PLANE * K, 5e-6);
}

/* Depthwise, by the first weights of the first output channel's filters */
static void check_depthwise(const struct kernels *table, const real *x, const real *last, const real *weight)
{
    const struct group_kernels *kernel = table->depthwise;
    struct group_geometry geometry = grouped(C, 1, 1, 1);
    static double expected[N * PLANE * C];
    static real by_pixel[N * PLANE * C];
    real *by_taps = numbers(TAPS * C), *y = numbers(N * PLANE * C);
    for (int i = 0; i < TAPS * C; i++) by_taps[i] = weight[i % C * TAPS + i / C];
    for (int i = 0; i < N * PLANE * C; i++) {
        int n = i / (PLANE * C), p = i / C % PLANE, c = i % C;
        expected[i] = 0;
        for (int t = 0; t < TAPS; t++) {
            ptrdiff_t row = p / W + t / 3 - 1, column = p % W + t % 3 - 1;
            if (row >= 0 && row < H && column >= 0 && column < W)
                expected[i] += (double)weight[c * TAPS + t] * last[(n * PLANE + row * W + column) * C + c];
        }
    }
    const struct conv_epilogue epilogue = {.slope = 1, .channels = C};
    kernel->tile(&geometry, last, by_taps, 0, N * H, &epilogue, 0, y, memory(kernel->scratch_size(&geometry)));
    compare("depthwise, channels last", y, expected, N * PLANE * C, 5e-6);
    table->grouped->tile(&geometry, last, by_taps, 0, N * H, &epilogue, 0, y,
                         memory(table->grouped->scratch_size(&geometry)));
    compare("depthwise, as any groups", y, expected, N * PLANE * C, 5e-6);
    geometry = grouped(C, 1, 1, 0);
    kernel->tile(&geometry, x, by_taps, 0, N * H, &epilogue, 0, y, memory(kernel->scratch_size(&geometry)));
    for (int i = 0; i < N * PLANE * C; i++) { /* compared in the order of channels last */
        int n = i / (PLANE * C), p = i / C % PLANE, c = i % C;
        by_pixel[i] = y[(n * C + c) * PLANE + p];
    }
    compare("depthwise, channels first", by_pixel, expected, N * PLANE * C, 5e-6);
}

/* 3x3, stride 1, padding 1, by every algorithm */
static void check_convolutions(const struct kernels *table)
{
    real *x = numbers(N * C * PLANE), *weight = numbers(K * DEPTH), *bias = numbers(K), *y = numbers(N * K * PLANE);
    static double expected[N * K * PLANE];
    ptrdiff_t tap[TAPS][3], index[TAPS];
    for (int t = 0; t < TAPS; t++) {
        index[t] = t;
        tap[t][0] = 0, tap[t][1] = t / 3 - 1, tap[t][2] = t % 3 - 1;
    }
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++)
            for (int p = 0; p < PLANE; p++) {
                double sum = bias[k];
                for (int c = 0; c < C; c++)
                    for (int t = 0; t < TAPS; t++) {
                        ptrdiff_t row = p / W + tap[t][1], column = p % W + tap[t][2];
                        if (row >= 0 && row < H && column >= 0 && column < W)
                            sum += (double)weight[k * DEPTH + c * TAPS + t] * x[(n * C + c) * PLANE + row * W + column];
                    }
                expected[(n * K + k) * PLANE + p] = sum;
            }

    ptrdiff_t row_tile = table->gemm->row_tile, most = table->conv->tile_panels * table->gemm->column_tile;
    struct conv_geometry geometry = {
        .channels = C,
        .in_size = {1, H, W},
        .in_image_stride = C * PLANE,
        .in_channel_stride = PLANE,
        .in_pixel_stride = 1,
        .images = N,
        .grid = {1, H, W},
        .stride = {1, 1, 1},
        .out_image_stride = K * PLANE,
        .out_channel_stride = PLANE,
        .out_stride = {PLANE, W, 1},
        .taps = TAPS,
        .tap = tap[0],
    };
    real *packed = numbers((K + row_tile) * DEPTH);
    void *scratch = memory(table->conv->scratch_size(&geometry, DEPTH, most));
    for (ptrdiff_t k = 0; k < K; k += row_tile)
        table->conv->pack_weight(weight, DEPTH, TAPS, index, TAPS, TAPS, C, K, k, DEPTH, packed);
    for (ptrdiff_t pixel = 0; pixel < N * PLANE; pixel += most)
        table->conv->tile(&geometry, x, packed, 0, 0, K, DEPTH, pixel,
                          pixel + most < N * PLANE ? most : N * PLANE - pixel, most, NULL, 0, K,
                          &(struct conv_epilogue){.bias = bias, .slope = 1, .channels = K}, 1, y, scratch);
    compare("conv", y, expected, N * K * PLANE, 5e-6);

    const struct direct_kernels *direct = table->direct;
    struct direct_geometry band = {
        .channels = C,
        .images = N,
        .interleave = 1,
        .in_size = {H, W},
        .in_image_stride = C * PLANE,
        .in_channel_stride = PLANE,
        .in_stride = {W, 1},
        .grid = {H, W},
        .stride = {1, 1},
        .first = {-1, -1},
        .reach = {2, 2},
        .out_image_stride = K * PLANE,
        .out_channel_stride = PLANE,
        .out_stride = {W, 1},
        .band = 4,
    };
    ptrdiff_t offset[DEPTH + 64] = {0};
    struct direct_taps three = {3, index, index};
    struct direct_phase phase = {.grid = {H, W}, .taps = {three, three}, .offset = offset};
    struct conv_epilogue with_bias = {.bias = bias, .slope = 1, .channels = K};
    direct->fill_offsets(&band, &phase, offset);
    packed = numbers((K + direct->row_tile) * DEPTH);
    direct->pack_weight(weight, DEPTH, TAPS, 3, &phase, C, K, packed);
    scratch = memory(direct->scratch_size(&band));
    y = numbers(N * K * PLANE);
    for (int n = 0; n < N; n++)
        for (int start = 0; start < H; start += 4)
            direct->tile(&band, &phase, 1, x, packed, K, 0, n, start, &with_bias, y, scratch);
    compare("direct", y, expected, N * K * PLANE, 5e-6);

    struct winograd_geometry tiling = {
        .images = N,
        .channels = C,
        .out_channels = K,
        .filter = {3, 3},
        .stride = 1,
        .points = 6,
        .blocks = {1, 1},
        .taps = {{3}, {3}},
        .whole = {1, 1},
        .in_size = {H, W},
        .out_size = {H, W},
        .padding = {1, 1},
        .phases = 1,
        .grid = {H, W},
        .chunk_rows = 8 * table->winograd->row_tile,
        .part_channels = C,
    };
    check_winograd("winograd", table->winograd, tiling, x, weight, &with_bias, expected);
    struct winograd_geometry cut = tiling; /* into four blocks of at most 2x2 taps */
    cut.points = 5, cut.channels = 4 * C;
    for (int i = 0; i < 2; i++) {
        cut.blocks[i] = 2;
        cut.block[i][1] = 2;
        cut.taps[i][0] = 2, cut.taps[i][1] = 1;
    }
    check_winograd("2x2 blocks", table->winograd, cut, x, weight, &with_bias, expected);
    const struct winograd_kernels *channels = table->winograd_channels;
    tiling.chunk_rows = cut.chunk_rows = channels->lanes;
    check_winograd("channels in lanes", channels, tiling, x, weight, &with_bias, expected);
    cut.part_channels = 4 * C;
    check_winograd("2x2 blocks, channels in lanes", channels, cut, x, weight, &with_bias, expected);
    real *last = numbers(N * C * PLANE);
    static double expected_last[N * K * PLANE];
    for (int i = 0; i < N * C * PLANE; i++) last[(i / (C * PLANE) * PLANE + i % PLANE) * C + i / PLANE % C] = x[i];
    for (int i = 0; i < N * K * PLANE; i++)
        expected_last[(i / (K * PLANE) * PLANE + i % PLANE) * K + i / PLANE % K] = expected[i];
    tiling.channels_last = 1;
    check_winograd("channels last", channels, tiling, last, weight, &with_bias, expected_last);

    const struct fft_kernels *fft = table->fft;
    struct fft_geometry squares = {.images = N,
                                   .channels = C,
                                   .out_channels = K,
                                   .filter = {3, 3},
                                   .stride = 1,
                                   .phases = {1, 1},
                                   .in_size = {H, W},
                                   .out_size = {H, W},
                                   .tile_size = {14, 14},
                                   .tiles = {(H + 13) / 14, (W + 13) / 14},
                                   .padding = {1, 1},
                                   .chunk_rows = fft->row_tile};
    check_fft("fft", fft, squares, x, weight, &with_bias, expected);
    squares.channels_last = 1, squares.chunk_rows = fft->last_row_tile;
    check_fft("fft, channels last", fft, squares, last, weight, &with_bias, expected_last);
    check_pixels(table, last, weight, &with_bias);
    check_patches("patches", 0, table, x, weight, &with_bias, expected);
    check_patches("patches, channels last", 1, table, last, weight, &with_bias, expected_last);
    check_grouped(table->grouped, last, weight, &with_bias, expected_last);
    check_depthwise(table, x, last, weight);
}

static void check_rows(const struct kernels *table)
{
    enum { ROWS = 3, LENGTH = 53, COUNT = ROWS * LENGTH };
    real *x = numbers(COUNT), *y = numbers(COUNT);
    double expected[COUNT];
    for (int i = 0; i < COUNT; i++) expected[i] = 0.5 * x[i] * erfc(-x[i] * sqrt(0.5));
    table->activation->forward[GELU](x, COUNT, 0, 0, y);
    compare("gelu", y, expected, COUNT, 2e-6);
    for (int i = 0; i < COUNT; i++) expected[i] = tanh(x[i]);
    table->activation->forward[TANH](x, COUNT, 0, 0, y);
    compare("tanh", y, expected, COUNT, 2e-6);
    for (int row = 0; row < ROWS; row++) {
        double sum = 0;
        for (int i = 0; i < LENGTH; i++) sum += exp(x[row * LENGTH + i]);
        for (int i = 0; i < LENGTH; i++) expected[row * LENGTH + i] = exp(x[row * LENGTH + i]) / sum;
    }
    table->softmax->softmax(x, ROWS, LENGTH, 1, 1, y);
    compare("softmax", y, expected, COUNT, 2e-6);
    for (int row = 0; row < ROWS; row++) {
        double mean = 0, variance = 0;
        for (int i = 0; i < LENGTH; i++) mean += x[row * LENGTH + i] / LENGTH;
        for (int i = 0; i < LENGTH; i++)
            variance += (x[row * LENGTH + i] - mean) * (x[row * LENGTH + i] - mean) / LENGTH;
        for (int i = 0; i < LENGTH; i++)
            expected[row * LENGTH + i] = (x[row * LENGTH + i] - mean) / sqrt(variance + 1e-5);
    }
    table->norm->layer(x, NULL, NULL, ROWS, LENGTH, 1e-5, y);
    compare("layer_norm", y, expected, COUNT, 2e-6);
}

int main(void)
{
    const struct kernels *table = fastnn_kernels(0, DTYPE);
    check_gemm(table->gemm);
    check_convolutions(table);
    check_rows(table);
    return failures > 0;
}

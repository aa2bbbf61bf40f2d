"""Sizes chosen to hurt, shared by the tests."""

# Element counts: empty, one, around one vector of every width, primes, one past a chunk of the elementwise driver.
COUNTS = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 1009, 16385]

# Convolutions as (N, C, K, size, kernel, stride, padding, dilation, groups).
CONVOLUTIONS = [
    (1, 1, 1, (1, 1), (1, 1), 1, 0, 1, 1),  # ones everywhere
    (2, 3, 5, (7, 11), (3, 3), 1, 1, 1, 1),  # primes
    (0, 3, 4, (5, 5), (3, 3), 1, 1, 1, 1),  # empty batch
    (3, 4, 6, (5, 7), (5, 7), 1, 0, 1, 1),  # kernel = input
    (2, 3, 7, (9, 8), (2, 3), (4, 5), (0, 1), 1, 1),  # stride > kernel
    (2, 2, 3, (13, 12), (3, 2), (1, 2), (2, 3), (3, 2), 1),  # dilation, padding larger than the kernel's half
    (2, 6, 9, (8, 9), (3, 3), (2, 1), 1, 1, 3),  # groups
    (2, 13, 13, (6, 7), (3, 3), 1, 1, 1, 13),  # depthwise
    (2, 4, 8, (6, 5), (3, 1), 2, 1, 1, 4),  # depthwise with a multiplier, 3 x 1
    (1, 17, 19, (1, 49), (1, 1), 1, 0, 1, 1),  # pointwise, one past a panel of pixels
    (3, 8, 25, (6, 6), (1, 1), 2, 0, 1, 1),  # strided pointwise: most inputs have a zero gradient
    (2, 1, 6, (32, 32), (5, 5), 1, 0, 1, 1),  # LeNet's first layer
    (1, 3, 8, (33, 31), (7, 7), 2, 3, 1, 1),  # ResNet's first layer, smaller
    (1, 65, 49, (5, 7), (3, 3), 1, 1, 1, 1),  # one past several tiles
    (1, 300, 7, (4, 3), (3, 3), 1, 1, 1, 1),  # depth of several blocks
    (5, 2, 3, (3, 3), (3, 3), 1, 5, 2, 1),  # taps that never meet the input
    (1, 2, 2, (4, 40), (1, 9), 1, (0, 4), 1, 1),  # one row of a kernel
    (2, 2, 16, (3, 1), (3, 3), 2, (0, 1), 1, 1),  # one column: of the stride's phases none is beside another
]
CONVOLUTIONS_OTHER_DIMENSIONS = [
    (2, 3, 4, (17,), (5,), 2, 2, 1, 1),
    (1, 4, 6, (9,), (3,), 1, 3, 4, 2),
    (0, 2, 2, (5,), (2,), 1, 0, 1, 1),
    (2, 2, 3, (5, 4, 7), (3, 2, 3), (1, 2, 3), (1, 0, 2), (1, 1, 2), 1),
    (1, 4, 4, (3, 3, 3), (3, 3, 3), 1, 1, 1, 2),
]
# The worst is 512 channels x 3 x 3: the longest reduction for which an error is promised.
CONVOLUTIONS_LARGE = [
    (8, 20, 1, (10, 9), (1, 1), 1, 0, 1, 1),  # outputs of small images follow one another, their inputs do not
    (1, 512, 24, (7, 7), (3, 3), 1, 1, 1, 1),
    (4, 64, 64, (16, 16), (3, 3), 1, 1, 1, 1),
    (8, 3, 32, (32, 32), (3, 3), 1, 1, 1, 1),
    (2, 64, 128, (15, 15), (3, 3), 2, 1, 1, 1),
    (2, 128, 32, (14, 14), (1, 1), 1, 0, 1, 1),
]
# Few pixels, whose backward-data meets every weight once: depth of several blocks, ragged panels of weights and pixels.
CONVOLUTIONS_FEW = [
    (2, 40, 25, (5, 5), (3, 3), 1, 1, 1, 1),  # two pixels past panels of float32
    (1, 300, 13, (1, 25), (1, 1), 1, 0, 1, 1),  # one past panels of float64
    (1, 21, 150, (7, 7), (3, 3), 1, 1, 1, 1),
    (3, 50, 130, (5, 4), (1, 1), 1, 0, 1, 1),  # images share a panel
    (2, 36, 270, (6, 5), (3, 3), 1, 1, 1, 2),  # groups
    (3, 17, 20, (40, 42), (3, 3), 2, 1, 1, 1),  # pairs of phases, a block of images at a time
    (2, 9, 34, (13, 15), (4, 3), (2, 3), 1, 1, 1),  # no pairs
    (2, 5, 16, (12, 10), (2, 1), 2, 0, 1, 1),  # a pair of which one phase sees no tap
    (1, 4, 18, (5, 6, 8), (3, 3, 3), 2, 1, 1, 1),
    (5, 9, 13, (10, 9), (3, 3), 1, 1, 1, 1),  # too many: blocks of pixels run across small images
    (2, 3, 33, (12, 40), (3, 9), 1, (1, 0), (1, 4), 1),  # more results than three for a gradient: most see padding
]
# What Winograd's algorithm computes, in tiles of 4x4 outputs.
CONVOLUTIONS_WINOGRAD = [
    (1, 1, 1, (1, 1), (3, 3), 1, 1, 1, 1),  # ones everywhere
    (2, 1, 1, (3, 9), (3, 3), 1, 0, 1, 1),  # a single row of outputs
    (0, 3, 4, (5, 5), (3, 3), 1, 1, 1, 1),  # empty batch
    (2, 3, 5, (5, 13), (3, 3), 1, 1, 1, 1),  # one past a tile both ways, primes
    (3, 2, 3, (4, 6), (3, 3), 1, (0, 5), 1, 1),  # padding beyond the kernel; backward-data leaves outputs out
    (1, 2, 7, (28, 28), (3, 3), 1, 1, 1, 1),  # 49 tiles: one past a panel of AVX-512
    (7, 17, 9, (8, 7), (3, 3), 1, 1, 1, 1),  # panels across images, channels one past a vector
    (1, 129, 65, (6, 5), (3, 3), 1, 1, 1, 1),  # one past a block of the depth, and of the output channels
    (1, 5, 49, (9, 70), (3, 3), 1, 2, 1, 1),  # long rows
    (2, 3, 5, (9, 13), (5, 5), 1, 2, 1, 1),  # blocks of 3x3, the last ones smaller
    (1, 17, 4, (5, 4), (5, 4), 1, 0, 1, 1),  # filter = input
    (2, 2, 3, (8, 12), (7, 3), 1, (3, 1), 1, 1),  # three blocks one way, one the other
    (3, 5, 2, (10, 6), (4, 6), 1, (0, 5), 1, 1),
    (2, 3, 5, (39, 41), (7, 7), 2, 3, 1, 1),  # strides: blocks of every second tap, and of every fourth
    (1, 2, 4, (71, 70), (11, 11), 4, (2, 0), 1, 1),
    (3, 2, 5, (16, 15), (12, 5), 4, (6, 2), 1, 1),  # nothing but whole blocks one way, less than a stride the other
    (2, 3, 3, (11, 9), (3, 4), 2, (4, 0), 1, 1),  # patches that lie in the padding
    (2, 3, 5, (6, 11), (2, 2), 1, 1, 1, 1),  # blocks of 2x2
    (7, 17, 9, (10, 9), (4, 4), 1, 0, 1, 1),  # panels across images, channels one past a vector
    (3, 2, 7, (27, 39), (3, 3), 2, 1, 1, 1),  # blocks smaller than 2x2
    (1, 9, 4, (40, 41), (7, 8), 4, (2, 3), 1, 1),
    (0, 3, 5, (17, 18), (3, 3), 1, 2, 2, 1),
    (2, 3, 5, (17, 18), (3, 3), 1, 2, 2, 1),  # dilation: phases, all of a size and some one smaller
    (1, 2, 3, (13, 23), (5, 2), 1, (3, 1), (2, 3), 1),  # ... that begin before the image
    (2, 5, 4, (5, 6), (2, 3), 1, (4, 2), (4, 1), 1),  # ... without an element
]
CONVOLUTIONS_WINOGRAD_LARGE = [
    (1, 512, 24, (14, 14), (3, 3), 1, 1, 1, 1),  # the most channels for which an error is promised: forward
    (1, 24, 512, (14, 14), (3, 3), 1, 1, 1, 1),  # ... and backward-data
    (2, 40, 140, (30, 31), (3, 3), 1, 0, 1, 1),  # several tasks in all three passes
    (2, 96, 130, (14, 15), (5, 5), 1, 2, 1, 1),
    (2, 96, 130, (29, 30), (3, 3), 2, 1, 1, 1),
    (1, 512, 24, (14, 14), (2, 2), 1, 0, 1, 1),
    (3, 130, 41, (8, 7), (3, 3), 1, 1, 1, 1),  # few tiles, whose vectors are of channels: ragged ones
    (1, 41, 150, (9, 10), (5, 4), 1, 2, 1, 1),  # ... in blocks
    (1, 300, 260, (13, 11), (3, 3), 1, 1, 1, 1),  # ... large weights: chunks of them, and parts of their channels
    (1, 70, 260, (14, 9), (5, 5), 1, 2, 1, 1),  # ... in blocks, whose channels are not those of the parts
    (1, 140, 150, (15, 14), (3, 3), 2, 1, 1, 1),  # ... in phases
    (1, 70, 40, (8, 5), (5, 5), 1, 2, 1, 1),  # very few tiles, whose weights are used as they are transformed
    (5, 60, 70, (43, 45), (3, 3), 1, 4, 4, 1),  # phases of a dilation, several times
]
# What Fourier transforms compute, in patches of 16x16 pixels.
CONVOLUTIONS_FFT = [
    (1, 1, 1, (1, 1), (1, 1), 1, 0, 1, 1),  # ones everywhere: tiles of 16x16 outputs
    (2, 1, 1, (3, 19), (3, 3), 1, 0, 1, 1),  # a single row of outputs, one tile and three columns
    (0, 3, 4, (5, 5), (5, 5), 1, 2, 1, 1),  # empty batch
    (2, 3, 5, (13, 25), (5, 5), 1, 2, 1, 1),  # one past a tile both ways
    (3, 2, 3, (4, 6), (3, 5), 1, (0, 7), 1, 1),  # padding beyond the kernel; backward-data leaves outputs out
    (1, 2, 7, (75, 74), (7, 7), 1, 3, 1, 1),  # 64 tiles: past a panel of AVX-512
    (7, 17, 9, (18, 17), (5, 5), 1, 2, 1, 1),  # panels across images, channels one past a vector
    (1, 5, 4, (9, 9), (9, 9), 1, 0, 1, 1),  # filter = input, the largest
    (2, 2, 3, (8, 22), (9, 2), 1, (4, 1), 1, 1),  # tiles of 8x15
    (1, 3, 4, (21, 20), (8, 6), 1, (1, 9), 1, 1),  # tiles that lie in the padding
    (2, 3, 5, (39, 41), (7, 7), 2, 3, 1, 1),  # strides: phases of every second tap, and of every fourth
    (1, 2, 4, (71, 70), (11, 11), 4, (2, 0), 1, 1),
    (3, 2, 5, (36, 15), (36, 3), 4, (6, 2), 1, 1),  # the most taps, and less than a stride the other way
    (2, 3, 3, (11, 9), (3, 1), 2, (4, 0), 1, 1),  # a phase without taps
    (2, 3, 5, (17, 18), (5, 1), 1, (5, 0), (3, 2), 1),  # phases of a dilation
]
CONVOLUTIONS_FFT_LARGE = [
    (1, 512, 24, (14, 14), (3, 3), 1, 1, 1, 1),  # the most channels: forward
    (1, 24, 512, (14, 14), (3, 3), 1, 1, 1, 1),  # ... and backward-data
    (14, 96, 130, (14, 15), (5, 5), 1, 2, 1, 1),  # weights in chunks, the last one ragged; several rounds of tiles
    (2, 20, 30, (90, 91), (5, 5), 1, 2, 1, 1),  # several blocks of tiles
]
# Where the direct kernels' vectors, bands and phases end.
CONVOLUTIONS_STRAIGHT = [
    (2, 3, 9, (50, 51), (7, 7), 2, 3, 1, 1),  # several bands, both phases of the stride
    (1, 3, 20, (67, 63), (11, 11), 4, 0, 1, 1),  # four phases
    (9, 2, 10, (14, 14), (5, 5), 1, 0, 1, 1),  # rows shorter than a vector, several images together
    (2, 1, 11, (9, 65), (3, 2), (3, 5), (2, 1), (2, 1), 1),  # a stride without a fast path, one past a vector
    (2, 8, 8, (20, 21), (3, 3), 2, 1, 1, 8),  # depthwise
    (1, 40, 3, (70, 66), (5, 5), 1, 2, 1, 1),  # an image larger than a band, depth of several blocks
    # small outputs: images in the lanes of vectors, of which the last group has some only
    (19, 3, 9, (10, 9), (5, 5), 1, (0, 1), 1, 1),
    (18, 24, 11, (9, 11), (5, 5), 1, 2, 1, 1),  # depth of several blocks, several transposed squares
    (21, 4, 6, (13, 11), (3, 3), 2, 1, 1, 1),  # phases of the stride
    (33, 6, 6, (7, 7), (3, 3), 1, 1, 1, 6),  # depthwise
    (17, 2, 5, (3, 5), (3, 3), 1, 4, 2, 1),  # outputs that see no row of the image
]
# Strides so large that patches hardly overlap: packed, with pixels as rows of the product.
CONVOLUTIONS_PATCHES = [
    (3, 3, 7, (37, 41), (5, 5), 5, 0, 1, 1),  # blocks of pixels run across small images
    (2, 3, 33, (48, 49), (16, 16), 16, 0, 1, 1),  # rows of a patch of a vector, two blocks of the depth
    (1, 2, 50, (60, 66), (7, 6), (5, 6), (3, 2), 1, 1),  # padding, one past a panel
    (2, 5, 16, (20, 19), (3, 2), (6, 7), (2, 1), 1, 1),  # stride > kernel, patches that lie in the padding
    (1, 1, 3, (110, 115), (21, 3), (5, 8), (1, 0), 1, 1),
    (4, 3, 20, (4, 3), (5, 5), 5, 1, 1, 1),  # one pixel an image
]
# Depthwise, by windows of outputs: lanes are channels.
CONVOLUTIONS_DEPTHWISE = [
    (2, 17, 17, (19, 131), (5, 3), 1, (2, 1), 1, 17),  # rows and columns past two windows, channels one past a vector
    (1, 9, 9, (21, 140), (3, 4), 2, (2, 0), (1, 2), 9),
    (3, 16, 16, (5, 5), (5, 5), 1, 2, 1, 16),  # windows that are mostly padding
    (2, 40, 40, (9, 7), (2, 6), (3, 1), (0, 5), 1, 40),  # rows between the steps
    (1, 16, 16, (70, 66), (3, 3), 1, 30, 30, 16),  # reaches too far for a window
    (0, 16, 16, (5, 6), (3, 3), 1, 1, 1, 16),
]
# Groups of arrays with channels last: a bundle of output channels is a vector of one group or some whole groups.
CONVOLUTIONS_GROUPED = [
    (2, 36, 36, (9, 17), (3, 3), 1, 1, 1, 9),  # four channels a group: bundles of whole groups, the last one not full
    (1, 24, 24, (11, 33), (3, 3), 1, 1, 1, 3),  # eight
    (
        2,
        34,
        66,
        (7, 9),
        (3, 3),
        1,
        1,
        1,
        2,
    ),  # of one group each, one past vectors; half as many outputs as are computed together
    (1, 66, 34, (12, 70), (3, 2), 1, (1, 0), 1, 2),  # strips of columns
    (3, 4, 20, (13, 18), (5, 4), (2, 1), (2, 3), 1, 4),  # multipliers, runs of three taps and two
    (2, 63, 6, (8, 19), (7, 7), 1, 3, 1, 3),  # more channels than a vector has; runs of three, three and one
    (2, 30, 15, (19, 14), (3, 5), (1, 2), (0, 4), (1, 2), 5),  # runs across a stride and a dilation alike
    (1, 16, 16, (20, 21), (3, 3), (4, 3), 1, (1, 3), 2),  # no rows, or taps, in common
    (2, 6, 6, (1, 40), (3, 3), 1, 1, 1, 3),  # one row of images
    (1, 10, 30, (9, 8), (3, 3), 1, (30, 1), (30, 1), 5),  # taps that see no row of the image
    (3, 9, 9, (5, 6), (1, 1), 1, 0, 1, 3),
    (1, 6, 8, (5, 6), (5, 6), 1, 0, 1, 2),  # kernel = input
    (0, 6, 8, (5, 6), (3, 3), 1, 1, 1, 2),
    (1, 2, 2, (9, 9), (3, 3), 1, 1, 1, 2),  # depthwise of less than a vector
]

"""What a convolution does to its outputs as it stores them (csrc/epilogue.h): operands, and memory for the sums."""
cimport numpy as np
from fastnn.native.runtime cimport channels_last, contiguous, empty_of_shape, is_channels_last, kernels_for, scratch

np.import_array()


cdef class Epilogue:
    """y = leaky ReLU(convolution + bias + residual), a slope of 1 being none; with `statistics` also the sums over
    images and positions of y and y^2."""

    def __init__(self, bias, residual, double slope, bint statistics, ptrdiff_t channels):
        if bias is not None:
            self.bias = contiguous(bias)
            self.values.bias = np.PyArray_DATA(self.bias)
        self.residual = residual
        self.values.slope, self.values.channels, self.statistics = slope, channels, statistics

    cdef const conv_epilogue *over(self, ptrdiff_t units, np.ndarray like):
        """What the kernels take that write outputs like this array, and sum up so many parts of them, each of all
        channels, by themselves."""
        self.units = units
        if self.residual is not None:
            self.residual = channels_last(self.residual) if is_channels_last(like) else contiguous(self.residual)
            self.values.residual = np.PyArray_DATA(self.residual)
        if self.statistics:
            self.partials = scratch(2 * units * self.values.channels * np.PyArray_ITEMSIZE(like))
            self.values.sums = self.partials.data
        return &self.values

    cdef result(self, np.ndarray y):
        """y, or with statistics (y, its sums, the sums of its squares), in float64."""
        cdef np.ndarray sums
        if not self.statistics:
            return y
        sums = empty_of_shape((2, self.values.channels), np.NPY_FLOAT64)
        kernels_for(y).conv.add_units(self.values.sums, self.units, 2 * self.values.channels,
                                      <double *> np.PyArray_DATA(sums))
        return y, sums[0], sums[1]

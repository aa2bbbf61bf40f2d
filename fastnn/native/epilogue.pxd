cimport numpy as np
from fastnn.native.kernels cimport conv_epilogue
from fastnn.native.runtime cimport Block


cdef class Epilogue:
    cdef conv_epilogue values
    cdef np.ndarray bias
    cdef np.ndarray residual
    cdef bint statistics
    cdef ptrdiff_t units
    cdef Block partials
    cdef const conv_epilogue *over(self, ptrdiff_t units, np.ndarray like)
    cdef result(self, np.ndarray y)

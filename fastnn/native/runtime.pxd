cimport numpy as np
from fastnn.native.kernels cimport kernels

cdef class Block:
    cdef void *data
    cdef size_t size

cdef inline ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) noexcept nogil:
    """How many parts of at most b make up a."""
    return (a + b - 1) // b

cdef extern from "shares.h" nogil:
    struct share:
        ptrdiff_t next
    ptrdiff_t take_task(share *shares, ptrdiff_t thread, ptrdiff_t threads, ptrdiff_t tasks)

cdef Block shares_for(int threads)
cdef const kernels *kernels_for(np.ndarray x)
cdef int threads_for(double nanoseconds) noexcept nogil
cdef Block scratch(size_t size)
cdef np.ndarray empty(int ndim, const np.npy_intp *shape, int typenum)
cdef np.ndarray empty_of_shape(tuple shape, int typenum)
cdef np.ndarray empty_like(np.ndarray x)
cdef np.ndarray contiguous(np.ndarray x)
cdef bint is_channels_last(np.ndarray x)
cdef np.ndarray channels_last(np.ndarray x)
cdef copy_pixels(np.ndarray x, np.ndarray copy, bint from_last)
cdef bint stands(np.ndarray x)
cdef np.ndarray either_layout(np.ndarray x)
cpdef np.ndarray empty_in_layout(np.ndarray x, tuple shape)
cdef np.ndarray empty_channels_last(tuple shape, int typenum)

"""What every native family stands on: the chosen kernel tables, threads, and the caching output allocator.

The C core is linked into this extension alone; the other extensions cimport from here. All functions run with the
GIL held (they allocate, choose and count; the kernels run outside), so the free lists need no lock of their own.
"""
cimport numpy as np
from libc.stdlib cimport free, qsort
from libc.string cimport memset
from cython.parallel cimport prange
from fastnn.native.kernels cimport (
    FASTNN_FLOAT32, FASTNN_FLOAT64, fastnn_isa_count, fastnn_isa_name, fastnn_isa_supported, fastnn_kernels, kernels,
    layout_kernels)

import os

import numpy as np

np.import_array()

cdef extern from *:
    """
    #if !defined(_GNU_SOURCE)
    #define _GNU_SOURCE /* for placement.h */
    #endif
    #include <stdlib.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #define HUGE_PAGE ((size_t)2 << 20)
    /* Blocks of 2 MiB and more are aligned to huge pages and advised huge: their first touch costs a sixth. */
    static void *fastnn_allocate(size_t size)
    {
        void *block = NULL;
        if (posix_memalign(&block, size >= HUGE_PAGE ? HUGE_PAGE : 64, size)) return NULL;
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (size >= HUGE_PAGE) madvise(block, size, MADV_HUGEPAGE);
    #endif
        return block;
    }
    /* Which os.sysconf() does not know. */
    #if defined(__unix__)
    #include <unistd.h>
    #endif
    static long fastnn_second_level_cache(void)
    {
    #if defined(_SC_LEVEL2_CACHE_SIZE)
        return sysconf(_SC_LEVEL2_CACHE_SIZE);
    #else
        return 0;
    #endif
    }
    /* Under AddressSanitizer the part of a block behind what was asked for is out of bounds too. */
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define fastnn_guard(data, used, size) \
        (ASAN_UNPOISON_MEMORY_REGION(data, used), ASAN_POISON_MEMORY_REGION((char *)(data) + (used), (size) - (used)))
    #else
    #define fastnn_guard(data, used, size) ((void)0)
    #endif
    #ifndef FASTNN_OPENMP
    #define FASTNN_OPENMP 0
    #endif
    """
    void *fastnn_allocate(size_t size) nogil
    void fastnn_guard(void *data, size_t used, size_t size) nogil
    long fastnn_second_level_cache() nogil
    const int FASTNN_OPENMP

cdef extern from "placement.h" nogil:
    void keep_helpers_apart(int threads)


# ---------------------------------------------------------------------------------------------------------------------
# Kernel tables
# ---------------------------------------------------------------------------------------------------------------------

cdef const kernels *chosen_tables[2]
cdef int chosen_isa = -1


def available_isas():
    """Names of the instruction sets that are built in and that this CPU runs, the widest last."""
    return [fastnn_isa_name(i).decode() for i in range(fastnn_isa_count()) if fastnn_isa_supported(i)]


def select_isa(name):
    """Use the tables of this instruction set; None means the widest that the CPU runs."""
    global chosen_isa
    built = [fastnn_isa_name(i).decode() for i in range(fastnn_isa_count())]
    available = available_isas()
    if name is None:
        name = available[-1]
    if name not in built:
        raise ValueError(f"FASTNN_ISA: expected one of {', '.join(built)}, got {name!r}")
    if name not in available:
        raise ValueError(f"FASTNN_ISA: this CPU does not run {name!r}; it runs {', '.join(available)}")
    chosen_isa = built.index(name)
    chosen_tables[FASTNN_FLOAT32] = fastnn_kernels(chosen_isa, FASTNN_FLOAT32)
    chosen_tables[FASTNN_FLOAT64] = fastnn_kernels(chosen_isa, FASTNN_FLOAT64)


def isa():
    """Name of the instruction set in use."""
    return fastnn_isa_name(chosen_isa).decode()


def lanes(dtype):
    """How many elements of this dtype a vector of the instruction set in use has."""
    return chosen_tables[FASTNN_FLOAT64 if np.dtype(dtype) == np.float64 else FASTNN_FLOAT32].conv.lanes


def second_level_cache():
    """Bytes of a core's own cache, or what small machines have where the system does not say."""
    cdef long size = fastnn_second_level_cache()
    return size if size > 0 else 512 << 10


cdef const kernels *kernels_for(np.ndarray x):
    """The table for x's dtype; functional has checked that it is float32 or float64."""
    return chosen_tables[FASTNN_FLOAT64 if np.PyArray_TYPE(x) == np.NPY_FLOAT64 else FASTNN_FLOAT32]


select_isa(os.environ.get("FASTNN_ISA") or None)


# ---------------------------------------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------------------------------------

# A thread must have this much work before it is worth waking: a parallel region costs 2 to 5 microseconds on two
# cores when the team is awake, ten times that when it sleeps.
cdef double NANOSECONDS_PER_THREAD = 10_000.0

cdef int num_threads = 1
cdef bint forked = False


def openmp():
    """Whether the extensions were compiled with OpenMP."""
    return bool(FASTNN_OPENMP)


def get_num_threads():
    return num_threads if FASTNN_OPENMP and not forked else 1


def set_num_threads(int count):
    global num_threads
    num_threads = count


cdef int threads_for(double nanoseconds) noexcept nogil:
    """How many threads to use for work that one thread would do in about this many nanoseconds.

    The one place where threading is decided. Never part of a result: work is split by its shape alone.
    """
    if not FASTNN_OPENMP or forked or num_threads == 1 or nanoseconds < 2 * NANOSECONDS_PER_THREAD:
        return 1
    cdef int threads = <int> min(<double> num_threads, nanoseconds / NANOSECONDS_PER_THREAD)
    keep_helpers_apart(threads)
    return threads


def _after_fork_in_child():
    # GNU OpenMP's team does not survive a fork: a parallel region in the child would wait for it forever.
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ---------------------------------------------------------------------------------------------------------------------
# The caching allocator
# ---------------------------------------------------------------------------------------------------------------------

# Size classes: four per power of two, from 64 bytes, so that at most a fifth of a block is unused. A freed block
# goes to the free list of its class (the list's links stand in the blocks) and is the first to be used again.
cdef enum:
    CLASSES = 4 * 58

cdef void *free_blocks[CLASSES]
cdef size_t CACHE_LIMIT = <size_t> 2 << 30
cdef size_t cached_bytes = 0
cdef size_t used_bytes = 0
cdef size_t peak_bytes = 0
cdef size_t request_count = 0
cdef size_t reuse_count = 0


cdef inline int size_class(size_t size, size_t *rounded) noexcept:
    """The smallest class that holds this many bytes; its block size in rounded[0]."""
    cdef int power = 6
    cdef size_t base = 64
    cdef size_t quarter
    while base * 2 <= size:
        base *= 2
        power += 1
    if size <= 64:
        rounded[0] = 64
        return 0
    quarter = base // 4
    steps = (size - base + quarter - 1) // quarter
    rounded[0] = (base + steps * quarter + 63) & ~<size_t> 63
    return <int> (4 * (power - 6) + steps)


cdef class Block:
    """A block of memory, 64-byte aligned, that goes back to the cache when the last array on it is gone."""

    def __dealloc__(self):
        global cached_bytes, used_bytes
        cdef size_t rounded
        cdef int index
        if self.data == NULL:
            return
        used_bytes -= self.size
        fastnn_guard(self.data, self.size, self.size)
        if cached_bytes + self.size > CACHE_LIMIT:
            free(self.data)
            return
        index = size_class(self.size, &rounded)
        (<void **> self.data)[0] = free_blocks[index]
        free_blocks[index] = self.data
        cached_bytes += self.size


cdef Block scratch(size_t size):
    """A block of at least `size` bytes, contents undefined."""
    global cached_bytes, used_bytes, peak_bytes, request_count, reuse_count
    cdef Block block = Block.__new__(Block)
    cdef size_t rounded
    cdef int index
    if size > <size_t> 1 << 62:
        raise MemoryError(f"fastnn: an array of {size} bytes is too large")
    index = size_class(size, &rounded)
    if free_blocks[index] != NULL:
        block.data = free_blocks[index]
        free_blocks[index] = (<void **> block.data)[0]
        cached_bytes -= rounded
        reuse_count += 1
    else:
        block.data = fastnn_allocate(rounded)
        if block.data == NULL:
            raise MemoryError(f"fastnn: no memory for an array of {size} bytes")
    block.size = rounded
    fastnn_guard(block.data, size, rounded)
    request_count += 1
    used_bytes += rounded
    peak_bytes = max(peak_bytes, used_bytes)
    return block


cdef Block shares_for(int threads):
    """For take_task(): a share for each thread, of which nothing is taken."""
    cdef Block shares = scratch(threads * sizeof(share))
    memset(shares.data, 0, threads * sizeof(share))
    return shares


cdef np.ndarray empty(int ndim, const np.npy_intp *shape, int typenum):
    """A C-contiguous array on a cached block, contents undefined."""
    cdef size_t size = 4 if typenum == np.NPY_FLOAT32 else 8
    cdef Block block
    cdef np.ndarray array
    if typenum == np.NPY_UINT8 or typenum == np.NPY_BOOL:
        size = 1
    for i in range(ndim):
        if shape[i] and size > (<size_t> 1 << 62) // <size_t> shape[i]:
            raise MemoryError(f"fastnn: an array of shape {tuple([shape[j] for j in range(ndim)])} is too large")
        size *= <size_t> shape[i]
    block = scratch(size)
    array = np.PyArray_SimpleNewFromData(ndim, <np.npy_intp *> shape, typenum, block.data)
    np.set_array_base(array, block)
    return array


cdef np.ndarray empty_of_shape(tuple shape, int typenum):
    cdef np.npy_intp dims[64]
    if len(shape) > 64:  # NumPy's own limit
        raise ValueError(f"fastnn: an array has at most 64 dimensions, got {len(shape)}")
    for i, extent in enumerate(shape):
        dims[i] = extent
    return empty(<int> len(shape), dims, typenum)


cdef np.ndarray empty_like(np.ndarray x):
    return empty(np.PyArray_NDIM(x), np.PyArray_DIMS(x), np.PyArray_TYPE(x))


cdef np.ndarray contiguous(np.ndarray x):
    """x itself where it is C-contiguous and aligned, else a copy that is: kernels see no other strides."""
    cdef np.ndarray copy
    if np.PyArray_IS_C_CONTIGUOUS(x) and np.PyArray_ISALIGNED(x):
        return x
    copy = empty_like(x)
    if is_channels_last(x):
        copy_pixels(x, copy, True)
    else:
        np.PyArray_CopyInto(copy, x)
    return copy


# Pixels that one task copies.
cdef ptrdiff_t COPY_PIXELS = 1024


cdef copy_pixels(np.ndarray x, np.ndarray copy, bint from_last):
    """Copies (N, C, H, W) between channels last and channels first: images of pixels x channels are transposed, several
    times as fast as NumPy copies them."""
    cdef ptrdiff_t images = x.shape[0], channels = x.shape[1], pixels = x.shape[2] * x.shape[3], task, first, count
    cdef ptrdiff_t itemsize = np.PyArray_ITEMSIZE(x), parts = ceil_div(pixels, COPY_PIXELS)
    cdef char *source = np.PyArray_BYTES(x)
    cdef char *target = np.PyArray_BYTES(copy)
    if np.PyArray_TYPE(x) != np.NPY_FLOAT32 and np.PyArray_TYPE(x) != np.NPY_FLOAT64:
        np.PyArray_CopyInto(copy, x)
        return
    cdef const layout_kernels *kernel = kernels_for(x).layout
    for task in prange(images * parts, nogil=True, num_threads=threads_for(0.1 * itemsize * images * channels * pixels),
                       schedule="static"):
        first = task % parts * COPY_PIXELS
        count = min(COPY_PIXELS, pixels - first)
        if from_last:
            kernel.transpose(source + (task // parts * pixels + first) * channels * itemsize, count, channels, channels,
                             target + (task // parts * channels * pixels + first) * itemsize, pixels)
        else:
            kernel.transpose(source + (task // parts * channels * pixels + first) * itemsize, channels, count, pixels,
                             target + (task // parts * pixels + first) * channels * itemsize, channels)


cdef bint is_channels_last(np.ndarray x):
    """Whether x of shape (N, C, H, W) stands in memory as (N, H, W, C) without gaps, and not as (N, C, H, W) too."""
    if np.PyArray_NDIM(x) != 4 or np.PyArray_IS_C_CONTIGUOUS(x) or not np.PyArray_ISALIGNED(x):
        return False
    return (<object> x).transpose(0, 2, 3, 1).flags.c_contiguous


cdef np.ndarray channels_last(np.ndarray x):
    """x itself where it has its channels last, else a copy that has."""
    cdef np.ndarray copy
    if is_channels_last(x):
        return x
    copy = empty_channels_last((<object> x).shape, np.PyArray_TYPE(x))
    if np.PyArray_IS_C_CONTIGUOUS(x) and np.PyArray_ISALIGNED(x):
        copy_pixels(x, copy, False)
    else:
        np.PyArray_CopyInto(copy, x)
    return copy


cdef bint stands(np.ndarray x):
    """Whether x stands in memory without gaps, with its channels first or last, and kernels take it as it is."""
    return np.PyArray_IS_C_CONTIGUOUS(x) and np.PyArray_ISALIGNED(x) or is_channels_last(x)


cdef np.ndarray either_layout(np.ndarray x):
    """x itself where its channels are first or last in memory, else a copy that has them first."""
    return x if is_channels_last(x) else contiguous(x)


cpdef np.ndarray empty_in_layout(np.ndarray x, tuple shape):
    """An array for a result that has its channels where x has them, contents undefined."""
    if is_channels_last(x):
        return empty_channels_last(shape, np.PyArray_TYPE(x))
    return empty_of_shape(shape, np.PyArray_TYPE(x))


cdef np.ndarray empty_channels_last(tuple shape, int typenum):
    """An array of shape (N, C, H, W) that stands in memory as (N, H, W, C), contents undefined."""
    n, c, h, w = shape
    return (<object> empty_of_shape((n, h, w, c), typenum)).transpose(0, 3, 1, 2)


def allocate(tuple shape, dtype):
    """A C-contiguous float32 or float64 array on a cached block, contents undefined."""
    return empty_of_shape(shape, np.dtype(dtype).num)


def empty_cache():
    """Gives the cached blocks back to the system."""
    global cached_bytes
    cdef void *block
    for index in range(CLASSES):
        while free_blocks[index] != NULL:
            block = free_blocks[index]
            free_blocks[index] = (<void **> block)[0]
            free(block)
    cached_bytes = 0


def memory_stats():
    """Bytes in use and cached, the peak in use, and how many requests were met from the cache."""
    return {
        "used_bytes": used_bytes,
        "cached_bytes": cached_bytes,
        "peak_bytes": peak_bytes,
        "limit_bytes": CACHE_LIMIT,
        "requests": request_count,
        "reused": reuse_count,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Arrays that share memory
# ---------------------------------------------------------------------------------------------------------------------

cdef struct address_range:
    size_t begin
    size_t end
    Py_ssize_t index


cdef int by_begin(const void *a, const void *b) noexcept nogil:
    cdef size_t first = (<const address_range *> a).begin, second = (<const address_range *> b).begin
    return (first > second) - (first < second)


def overlapping(list arrays):
    """Pairs of indices of arrays whose ranges of addresses overlap: those that may share memory."""
    cdef Block memory = scratch(max(len(arrays), 1) * sizeof(address_range))
    cdef address_range *ranges = <address_range *> memory.data
    cdef Py_ssize_t count = 0, i, j
    cdef ptrdiff_t reach
    cdef size_t furthest = 0
    cdef np.ndarray array
    pairs = []
    for i in range(len(arrays)):
        array = arrays[i]
        if np.PyArray_SIZE(array) == 0:
            continue
        ranges[count].begin = ranges[count].end = <size_t> np.PyArray_DATA(array)
        ranges[count].end += np.PyArray_ITEMSIZE(array)
        for j in range(np.PyArray_NDIM(array)):
            reach = (np.PyArray_DIM(array, j) - 1) * np.PyArray_STRIDE(array, j)
            if reach < 0:
                ranges[count].begin += <size_t> reach
            else:
                ranges[count].end += <size_t> reach
        ranges[count].index = i
        count += 1
    qsort(ranges, count, sizeof(address_range), by_begin)
    for i in range(count):
        if ranges[i].begin < furthest:
            pairs += [
                tuple(sorted((ranges[j].index, ranges[i].index))) for j in range(i) if ranges[j].end > ranges[i].begin
            ]
        furthest = max(furthest, ranges[i].end)
    return pairs

"""im2col and col2im: checked arguments, then the active backend."""

from fastnn.backend import implementation
from fastnn.functional.checks import (
    check_elements,
    check_float_array,
    check_grad_output,
    check_integers,
    check_ndim,
)

__all__ = ["fold", "fold_backward", "unfold", "unfold_backward"]


def unfold(input, kernel_size, dilation=1, padding=0, stride=1):
    """im2col: the patches under a sliding kernel, as the columns of a matrix per image.

    Parameters
    ----------
    input : ndarray of float32 or float64, (N, C, H, W)
        Images.
    kernel_size, dilation, padding, stride : int or (int, int)
        Patch size; distance between the elements of a patch; zeros on each side; distance between patches. Height
        comes first.

    Returns
    -------
    ndarray, (N, C * kernel height * kernel width, L)
        Row (c, i, j) of column l is element (i, j) of channel c of patch l. There are L = rows * columns patches,
        with (H + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1 rows, and columns likewise.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value, or the kernel is larger than the padded image.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.unfold(np.arange(9.0).reshape(1, 1, 3, 3), kernel_size=2)
    array([[[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]]])
    """
    kernel, dilation, padding, stride, _ = check_unfold("unfold", input, kernel_size, dilation, padding, stride)
    return implementation("unfold")(input, kernel, dilation, padding, stride)


def unfold_backward(grad_output, input, kernel_size, dilation=1, padding=0, stride=1):
    """Gradient of :func:`unfold`: :func:`fold` of ``grad_output`` to the size of ``input``.

    Parameters
    ----------
    grad_output : ndarray, (N, C * kernel height * kernel width, L)
        Gradient of the output.
    input, kernel_size, dilation, padding, stride
        The forward's arguments.

    Returns
    -------
    ndarray, (N, C, H, W)
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.unfold_backward(np.ones((1, 4, 4)), np.zeros((1, 1, 3, 3)), kernel_size=2)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    function = "unfold_backward"
    kernel, dilation, padding, stride, shape = check_unfold(function, input, kernel_size, dilation, padding, stride)
    check_grad_output(function, grad_output, input, shape)
    return implementation("unfold_backward")(grad_output, input, kernel, dilation, padding, stride)


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """col2im: adds patches, given as columns, up into images. The transpose (the gradient) of :func:`unfold`.

    Elements of overlapping patches are added, and what falls on the padding is dropped; so ``fold(unfold(x))`` is
    ``x`` times the number of patches that each pixel is in.

    Parameters
    ----------
    input : ndarray of float32 or float64, (N, C * kernel height * kernel width, L)
        Patches in columns, as :func:`unfold` makes them.
    output_size : int or (int, int)
        Height and width of the images.
    kernel_size, dilation, padding, stride : int or (int, int)
        As for :func:`unfold` of such images; they determine L.

    Returns
    -------
    ndarray, (N, C, output height, output width)
        The images.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> F.fold(np.ones((1, 4, 4)), output_size=3, kernel_size=2)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    arguments, _ = check_fold("fold", input, output_size, kernel_size, dilation, padding, stride)
    return implementation("fold")(input, *arguments)


def fold_backward(grad_output, input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Gradient of :func:`fold`: :func:`unfold` of ``grad_output``.

    Parameters
    ----------
    grad_output : ndarray, (N, C, output height, output width)
        Gradient of the output.
    input, output_size, kernel_size, dilation, padding, stride
        The forward's arguments.

    Returns
    -------
    ndarray, (N, C * kernel height * kernel width, L)
        Gradient of ``input``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn.functional as F
    >>> float(F.fold_backward(np.ones((1, 1, 3, 3)), np.zeros((1, 4, 4)), output_size=3, kernel_size=2).sum())
    16.0
    """
    function = "fold_backward"
    arguments, shape = check_fold(function, input, output_size, kernel_size, dilation, padding, stride)
    check_grad_output(function, grad_output, input, shape)
    return implementation("fold_backward")(grad_output, input, *arguments)


def check_unfold(function, input, kernel_size, dilation, padding, stride):
    """The kernel, dilation, padding and stride as pairs, and the output's shape."""
    check_float_array(function, "input", input)
    check_ndim(function, "input", input, 4, "(N, C, H, W)")
    sliding = check_sliding(function, kernel_size, dilation, padding, stride)
    rows, columns = patch_grid(function, input.shape[2:], *sliding)
    kernel = sliding[0]
    shape = (input.shape[0], input.shape[1] * kernel[0] * kernel[1], rows * columns)
    check_elements(function, shape, "input with this padding")
    return *sliding, shape


def check_fold(function, input, output_size, kernel_size, dilation, padding, stride):
    """The backends' arguments after the array, and the output's shape."""
    check_float_array(function, "input", input)
    check_ndim(function, "input", input, 3, "(N, C * kernel height * kernel width, L)")
    size = check_integers(function, "output_size", output_size, 2, 1)
    check_elements(function, (*input.shape[:2], *size), "output_size")
    sliding = check_sliding(function, kernel_size, dilation, padding, stride)
    rows, columns = patch_grid(function, size, *sliding)
    kernel = sliding[0]
    if input.shape[1] % (kernel[0] * kernel[1]):
        raise ValueError(
            f"{function}: input's second dimension must be a multiple of the kernel's {kernel[0]} x {kernel[1]} "
            f"elements, got shape {input.shape}"
        )
    if input.shape[2] != rows * columns:
        raise ValueError(
            f"{function}: input's last dimension must be {rows} x {columns} = {rows * columns} patches for "
            f"output_size {size} and this kernel, got shape {input.shape}"
        )
    return (size, *sliding), (input.shape[0], input.shape[1] // (kernel[0] * kernel[1]), *size)


def check_sliding(function, kernel_size, dilation, padding, stride):
    """The arguments of a sliding kernel as pairs."""
    return (
        check_integers(function, "kernel_size", kernel_size, 2, 1),
        check_integers(function, "dilation", dilation, 2, 1),
        check_integers(function, "padding", padding, 2, 0),
        check_integers(function, "stride", stride, 2, 1),
    )


def patch_grid(function, size, kernel, dilation, padding, stride):
    """How many patches there are down and across."""
    padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    if any(r > n for r, n in zip(reach, padded, strict=True)):
        raise ValueError(
            f"{function}: the kernel reaches over {reach} elements (size {kernel}, dilation {dilation}), more than the "
            f"padded image's {padded}; use a larger image, more padding or a smaller kernel"
        )
    return tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, stride, strict=True))

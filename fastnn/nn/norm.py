"""Normalisation layers: over the batch, a layer, groups of channels, one image, or neighbouring channels."""

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_integer
from fastnn.nn.module import Module, Parameter, Transform, accumulate, check_input

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
]


class Norm(Module):
    """What the normalisations share: a scale and a shift per channel or element, both optional."""

    weight: Parameter | None
    bias: Parameter | None

    def make_affine(self, shape, weight=True, bias=True):
        """Set weight and bias, to None where there are none."""
        self.weight = Parameter(np.ones(shape, np.float32)) if weight else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if bias else None

    def affine_data(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The arrays of weight and bias, None where there are none."""
        weight, bias = self.weight, self.bias
        return None if weight is None else weight.data, None if bias is None else bias.data

    def take_gradients(self, gradients, needs_input_grad):
        """Add to the gradients of weight and bias, and return the input's."""
        dx, dweight, dbias = gradients
        accumulate(self.weight, dweight)
        accumulate(self.bias, dbias)
        return dx if needs_input_grad else None

    def frozen(self):
        """Whether neither weight nor bias is trained."""
        return all(parameter is None or not parameter.requires_grad for parameter in (self.weight, self.bias))

    def reset_parameters(self):
        """Scale 1, shift 0."""
        if self.weight is not None:
            self.weight.data.fill(1)
        if self.bias is not None:
            self.bias.data.fill(0)


class StatisticsNorm(Norm):
    """What batch and instance normalisation share: constructor, running statistics, the check of dimensions."""

    running_mean: np.ndarray | None
    running_var: np.ndarray | None
    num_batches_tracked: np.ndarray | None
    dimensions: tuple[int, ...] = ()  # numbers of dimensions that the input may have

    def __init__(self, num_features, eps, momentum, affine, track_running_stats):
        self.num_features = check_integer(type(self).__name__, "num_features", num_features, 1)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.make_affine(self.num_features, affine, affine)
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(self.num_features, np.float32) if track else None)
        self.register_buffer("running_var", np.ones(self.num_features, np.float32) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def check(self, input):
        """Raise where the input is not what this layer was made for."""
        arrays = [array for array in (*self.affine_data(), self.running_mean) if array is not None]
        check_input(self, input, arrays[0] if arrays else None)
        if input.ndim not in self.dimensions:
            expected = " or ".join(map(str, self.dimensions))
            raise ValueError(
                f"{type(self).__name__}: input must have {expected} dimensions (N, C, ...), got shape {input.shape}"
            )
        if arrays:
            check_input(self, input, arrays[0], self.num_features, "channels")

    def reset_running_stats(self):
        """Mean 0, variance 1, no batch seen."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.fill(value)

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm(StatisticsNorm):
    """Batch normalisation (Ioffe and Szegedy 2015); the subclasses differ in the dimensions that they take.

    ``relu=True`` has a ReLU follow in the same pass: a Sequential that holds the two asks for it. A Residual followed
    by a ReLU has the batch norm at its end add the shortcut before it: that ReLU's backward is then the Residual's.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input, relu=False, residual=None):
        self.check(input)
        function, options = (F.batch_norm_relu, {"residual": residual}) if relu else (F.batch_norm, {})
        by_batch = self.training or self.running_mean is None
        batches = self.num_batches_tracked if self.training else None
        momentum = self.momentum
        if momentum is None:  # the cumulative average over all batches so far
            momentum = 0.0 if batches is None else 1 / (int(batches) + 1)
        arguments = (self.running_mean, self.running_var, *self.affine_data(), by_batch, momentum, self.eps)
        if self.recording:
            output, saved = function(input, *arguments, return_saved=True, **options)
            self.save_for_backward(input, by_batch, saved)
        else:
            output = function(input, *arguments, **options)
        if batches is not None:
            batches += 1
        return output

    def backward(self, grad_output, needs_input_grad=True, relu=False):
        input, by_batch, saved = self.pop_saved()
        if not needs_input_grad and self.frozen():
            return None
        arguments = (self.running_mean, self.running_var, *self.affine_data(), by_batch, 0.0, self.eps)
        function = F.batch_norm_relu_backward if relu else F.batch_norm_backward
        return self.take_gradients(function(grad_output, input, *arguments, saved=saved), needs_input_grad)


class BatchNorm1d(BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); arguments as of :class:`BatchNorm2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BatchNorm1d(2)(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)).round(2)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    dimensions = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of (N, C, H, W): ``(x - mean) / sqrt(var + eps) * weight + bias`` per channel.

    In training the mean and the (biased) variance are those of the batch, and the running averages move towards them
    (towards the unbiased variance); in evaluation they are the running averages.

    Parameters
    ----------
    num_features : int
        Channels, C.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the new batch in the running averages; ``None`` averages over all batches alike.
    affine : bool
        Whether there are a weight and a bias.
    track_running_stats : bool
        Whether there are running averages; without them the batch's own statistics serve in evaluation too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> y = nn.BatchNorm2d(3)(np.random.default_rng(0).random((8, 3, 5, 5), np.float32))
    >>> bool(abs(y.mean()) < 1e-6), round(float(y.std()), 2)
    (True, 1.0)
    """

    dimensions = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalisation of (N, C, D, H, W); arguments as of :class:`BatchNorm2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BatchNorm3d(2)(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    dimensions = (5,)


class InstanceNorm(StatisticsNorm):
    """Instance normalisation (Ulyanov et al. 2016); the subclasses differ in the dimensions that they take."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input):
        self.check(input)
        by_input = self.training or not self.track_running_stats
        running = self.running_mean, self.running_var
        output = F.instance_norm(input, *running, *self.affine_data(), by_input, self.momentum, self.eps)
        self.save_for_backward(input, by_input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        input, by_input = self.pop_saved()
        if not needs_input_grad and self.frozen():
            return None
        arguments = (self.running_mean, self.running_var, *self.affine_data(), by_input, self.momentum, self.eps)
        return self.take_gradients(F.instance_norm_backward(grad_output, input, *arguments), needs_input_grad)


class InstanceNorm1d(InstanceNorm):
    """Instance normalisation of (N, C, L); arguments as of :class:`InstanceNorm2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.InstanceNorm1d(1)(np.array([[[1.0, 3.0]]], np.float32)).round(2)
    array([[[-1.,  1.]]], dtype=float32)
    """

    dimensions = (3,)


class InstanceNorm2d(InstanceNorm):
    """Normalises each channel of each image of (N, C, H, W) to mean 0 and variance 1.

    Parameters
    ----------
    num_features : int
        Channels, C.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the new batch in the running averages.
    affine : bool
        Whether there are a weight and a bias per channel.
    track_running_stats : bool
        Whether running averages are kept, and used in evaluation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> y = nn.InstanceNorm2d(3)(np.random.default_rng(0).random((2, 3, 5, 5), np.float32))
    >>> bool(np.all(abs(y.mean((2, 3))) < 1e-6))
    True
    """

    dimensions = (4,)


class InstanceNorm3d(InstanceNorm):
    """Instance normalisation of (N, C, D, H, W); arguments as of :class:`InstanceNorm2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.InstanceNorm3d(2)(np.zeros((1, 2, 3, 4, 5), np.float32)).shape
    (1, 2, 3, 4, 5)
    """

    dimensions = (5,)


class LayerNorm(Norm):
    """Normalises over the last dimensions, ``normalized_shape`` (Ba et al. 2016).

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Sizes of these dimensions; the shape of weight and bias.
    eps : float
        Added to the variance.
    elementwise_affine, bias : bool
        Whether there are a weight and a bias at all, and a bias.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).round(2)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        shape = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(check_integer("LayerNorm", "normalized_shape", size, 1) for size in shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.make_affine(self.normalized_shape, elementwise_affine, elementwise_affine and bias)

    def forward(self, input):
        check_input(self, input, self.affine_data()[0])
        output = F.layer_norm(input, self.normalized_shape, *self.affine_data(), self.eps)
        self.save_for_backward(input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        (input,) = self.pop_saved()
        if not needs_input_grad and self.frozen():
            return None
        gradients = F.layer_norm_backward(grad_output, input, self.normalized_shape, *self.affine_data(), self.eps)
        return self.take_gradients(gradients, needs_input_grad)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Norm):
    """Normalises each of ``num_groups`` groups of channels of (N, C, ...) per example (Wu and He 2018).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GroupNorm(2, 4)(np.zeros((1, 4, 5, 5), np.float32)).shape
    (1, 4, 5, 5)
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True):
        self.num_groups = check_integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = check_integer("GroupNorm", "num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"GroupNorm: num_channels={num_channels} must be a multiple of num_groups={num_groups}")
        self.eps, self.affine = eps, affine
        self.make_affine(self.num_channels, affine, affine)

    def forward(self, input):
        check_input(self, input, self.affine_data()[0])
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: input must have {self.num_channels} channels (N, C, ...), got {input.shape}")
        output = F.group_norm(input, self.num_groups, *self.affine_data(), self.eps)
        self.save_for_backward(input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        (input,) = self.pop_saved()
        if not needs_input_grad and self.frozen():
            return None
        gradients = F.group_norm_backward(grad_output, input, self.num_groups, *self.affine_data(), self.eps)
        return self.take_gradients(gradients, needs_input_grad)

    def extra_repr(self):
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Transform):
    """``x / (k + alpha * mean of x^2 over size neighbouring channels)^beta`` (Krizhevsky et al. 2012).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.LocalResponseNorm(1, alpha=1.0, beta=1.0)(np.ones((1, 1, 1, 1)))
    array([[[[0.5]]]])
    """

    function = staticmethod(F.local_response_norm)
    gradient = staticmethod(F.local_response_norm_backward)

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def arguments(self):
        return self.size, self.alpha, self.beta, self.k

    def extra_repr(self):
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

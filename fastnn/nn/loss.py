"""Losses as modules: ``loss = criterion(output, target)`` is a number, ``criterion.backward()`` the output's gradient.

A criterion remembers its last call only, so that computing a validation loss in passing costs no memory; a model with
several losses has a criterion for each.
"""

from collections.abc import Callable

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_number
from fastnn.functional.class_loss import loss_and_gradient
from fastnn.nn.module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "SmoothL1Loss",
]


class Loss(Module):
    """What the losses share; a subclass gives ``function`` and ``gradient``, and ``arguments()`` where they have more
    than the reduction."""

    function: Callable
    gradient: Callable

    def __init__(self, reduction="mean"):
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction

    def arguments(self):
        """What the function takes after the target."""
        return (self.reduction,)

    def forward(self, input, target):
        """The loss: a float, or an array with ``reduction="none"``; its gradient comes from ``backward()``."""
        loss = self.function(input, target, *self.arguments())
        self.save_for_backward(input, target)
        return loss

    def backward(self, grad_output=1.0, needs_input_grad=True):
        """Gradient of the last call's input.

        Parameters
        ----------
        grad_output : float or ndarray
            Gradient of the loss: the weight of this loss in a sum of several, or an array with ``reduction="none"``.
        needs_input_grad : bool
            False only forgets the call, and returns None.
        """
        saved = self.pop_saved()
        return self.gradient(grad_output, *saved, *self.arguments()) if needs_input_grad else None

    def save_for_backward(self, *values):
        if self.recording:
            self._saved = [values]

    def pop_saved(self):
        if not self._saved:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no call to go back through; a criterion in training mode "
                "remembers its last one, for one backward"
            )
        return self._saved.pop()


class CrossEntropyLoss(Loss):
    """Softmax and the negative log-likelihood of the target in one: ``logsumexp(x) - x[target]``.

    In training loss and gradient are computed in one pass.

    Parameters
    ----------
    weight : ndarray (C,)
        Weight of each class.
    ignore_index : int
        A target that counts for nothing.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        From 0 to 1: this part of the target is spread evenly over all classes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> criterion = nn.CrossEntropyLoss()
    >>> round(criterion(np.zeros((1, 2)), np.array([0])), 4)
    0.6931
    >>> criterion.backward()
    array([[-0.5,  0.5]])
    """

    weight: np.ndarray | None

    def __init__(self, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def arguments(self):
        return self.weight, self.ignore_index, self.reduction, self.label_smoothing

    def forward(self, input, target):
        if self.reduction == "none" or not self.recording:
            loss = F.cross_entropy(input, target, *self.arguments())
            self.save_for_backward(input, target)
        else:
            loss, gradient = loss_and_gradient("cross_entropy", input, target, *self.arguments())
            self.save_for_backward(gradient)
        return loss

    def backward(self, grad_output=1.0, needs_input_grad=True):
        """Gradient of the last call's input."""
        saved = self.pop_saved()
        if not needs_input_grad:
            return None
        if len(saved) == 2:
            return F.cross_entropy_backward(grad_output, *saved, *self.arguments())
        (gradient,) = saved
        scale = check_number("CrossEntropyLoss.backward", "grad_output", grad_output)
        if scale != 1:
            gradient *= scale
        return gradient


class NLLLoss(Loss):
    """Negative log-likelihood of the target class, from log-probabilities (:class:`LogSoftmax`).

    Arguments as of :class:`CrossEntropyLoss`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.NLLLoss()(np.array([[-0.5, -1.0]]), np.array([1]))
    1.0
    """

    function = staticmethod(F.nll_loss)
    gradient = staticmethod(F.nll_loss_backward)
    weight: np.ndarray | None

    def __init__(self, weight=None, ignore_index=-100, reduction="mean"):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def arguments(self):
        return self.weight, self.ignore_index, self.reduction


class MSELoss(Loss):
    """``(input - target)^2``, averaged over all elements.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> criterion = nn.MSELoss()
    >>> criterion(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    2.0
    >>> criterion.backward()
    array([2., 0.])
    """

    function = staticmethod(F.mse_loss)
    gradient = staticmethod(F.mse_loss_backward)


class L1Loss(Loss):
    """``|input - target|``, averaged over all elements.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.L1Loss()(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    1.0
    """

    function = staticmethod(F.l1_loss)
    gradient = staticmethod(F.l1_loss_backward)


class SmoothL1Loss(Loss):
    """``d^2 / (2 beta)`` where ``d = |input - target| < beta``, else ``d - beta / 2``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.SmoothL1Loss()(np.array([3.0, 0.0]), np.array([1.0, 0.0]))
    0.75
    """

    function = staticmethod(F.smooth_l1_loss)
    gradient = staticmethod(F.smooth_l1_loss_backward)

    def __init__(self, reduction="mean", beta=1.0):
        super().__init__(reduction)
        self.beta = beta

    def arguments(self):
        return self.reduction, self.beta


class HuberLoss(Loss):
    """``d^2 / 2`` where ``d = |input - target| <= delta``, else ``delta * (d - delta / 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.HuberLoss(delta=2.0)(np.array([4.0, 0.0]), np.array([1.0, 0.0]))
    2.0
    """

    function = staticmethod(F.huber_loss)
    gradient = staticmethod(F.huber_loss_backward)

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction)
        self.delta = delta

    def arguments(self):
        return self.reduction, self.delta


class BCELoss(Loss):
    """Binary cross-entropy of probabilities: ``-(t log(p) + (1 - t) log(1 - p))``, each logarithm at least -100.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> round(nn.BCELoss()(np.array([0.5]), np.array([1.0])), 4)
    0.6931
    """

    function = staticmethod(F.binary_cross_entropy)
    gradient = staticmethod(F.binary_cross_entropy_backward)
    weight: np.ndarray | None

    def __init__(self, weight=None, reduction="mean"):
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def arguments(self):
        return self.weight, self.reduction


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of ``sigmoid(input)``, stable for inputs of any size.

    Parameters
    ----------
    weight, pos_weight : ndarray
        Weight of each element, and of the positive examples per class (broadcast).
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BCEWithLogitsLoss()(np.array([-1000.0]), np.array([1.0]))
    1000.0
    """

    function = staticmethod(F.binary_cross_entropy_with_logits)
    gradient = staticmethod(F.binary_cross_entropy_with_logits_backward)
    weight: np.ndarray | None
    pos_weight: np.ndarray | None

    def __init__(self, weight=None, reduction="mean", pos_weight=None):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def arguments(self):
        return self.weight, self.reduction, self.pos_weight


class MultiMarginLoss(Loss):
    """The multi-class SVM loss: the sum over wrong classes j of ``max(0, margin - x[y] + x[j])^p / C``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MultiMarginLoss()(np.array([[0.0, 1.0]]), np.array([0]))
    1.0
    """

    function = staticmethod(F.multi_margin_loss)
    gradient = staticmethod(F.multi_margin_loss_backward)
    weight: np.ndarray | None

    def __init__(self, p=1, margin=1.0, weight=None, reduction="mean"):
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.p, self.margin = p, margin

    def arguments(self):
        return self.p, self.margin, self.weight, self.reduction


class KLDivLoss(Loss):
    """``t * (log(t) - x)``: divergence of log-probabilities ``x`` from probabilities ``t`` (or their logarithms).

    Parameters
    ----------
    reduction : {"mean", "batchmean", "sum", "none"}
        "batchmean", the sum over the number of examples, is the mathematical definition; "mean" divides by all.
    log_target : bool
        Whether targets are logarithms too.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.KLDivLoss("sum")(np.log([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
    0.0
    """

    function = staticmethod(F.kl_div)
    gradient = staticmethod(F.kl_div_backward)

    def __init__(self, reduction="mean", log_target=False):
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = log_target

    def arguments(self):
        return self.reduction, self.log_target

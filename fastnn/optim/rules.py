"""The optimisers: arguments and defaults of ``torch.optim``, one kernel call each."""

from contextlib import contextmanager
from typing import ClassVar

import numpy as np

import fastnn.functional as F
from fastnn.optim.optimizer import Optimizer

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; formulas at :func:`fastnn.functional.sgd_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, momentum, dampening, weight_decay, nesterov, maximize, lr_in_momentum, l1, l1_subgradient
        As in :func:`fastnn.functional.sgd_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.SGD([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p
    array([0.8, 1.6])
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        *,
        maximize=False,
        lr_in_momentum=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            lr_in_momentum=lr_in_momentum,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["momentum_buffer"] if group["momentum"] else []

    def update(self, params, grads, buffers, values, masks, scalars):
        F.sgd_(
            params,
            grads,
            buffers.get("momentum_buffer"),
            first_step=scalars["step"] == 1,
            masks=masks,
            **values,
        )

    @contextmanager
    def lookahead(self):
        """Inside the ``with`` block the parameters stand where momentum will carry them: Nesterov's first form.

        Compute the gradient there; leaving the block restores the parameters, and ``step()`` (with
        ``nesterov=False``) then updates as usual: ``v = momentum * v - lr * g(p + momentum * v)``, ``p += v``.

        Examples
        --------
        >>> import numpy as np
        >>> from fastnn import optim
        >>> p = np.array([1.0])
        >>> optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
        >>> for _ in range(2):
        ...     with optimizer.lookahead():
        ...         gradient = 2 * p
        ...     optimizer.step([gradient])
        >>> p.round(6)
        array([0.496])
        """
        moved = []
        try:
            for group in self.param_groups:
                self._make_state(group)
                scale = group["momentum"] * (1.0 if group["lr_in_momentum"] else -group["lr"])
                for p in group["params"]:
                    if group["momentum"]:
                        moved.append((p.data, p.data.copy()))
                        p.data += scale * self.state[p]["momentum_buffer"]
            yield
        finally:
            for data, before in moved:
                np.copyto(data, before)


class Adam(Optimizer):
    """Adam (Kingma and Ba); formulas at :func:`fastnn.functional.adam_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay, bias_correction, l1, l1_subgradient
        As in :func:`fastnn.functional.adam_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.Adam([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p.round(6)
    array([0.9, 1.9])
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        *,
        maximize=False,
        decoupled_weight_decay=False,
        bias_correction=True,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
            bias_correction=bias_correction,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"][: 3 if group["amsgrad"] else 2]

    def update(self, params, grads, buffers, values, masks, scalars):
        F.adam_(params, grads, *buffers.values(), step=scalars["step"], masks=masks, **values)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter); formulas at :func:`fastnn.functional.adam_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, betas, eps, weight_decay, amsgrad, maximize, bias_correction, l1, l1_subgradient
        As in :func:`fastnn.functional.adam_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> optimizer.step([2 * p])
    >>> p.round(6)
    array([0.85, 1.8 ])
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        *,
        maximize=False,
        bias_correction=True,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
            bias_correction=bias_correction,
            l1=l1,
            l1_subgradient=l1_subgradient,
            masks=masks,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi et al.); formulas at :func:`fastnn.functional.adagrad_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, lr_decay, weight_decay, eps, maximize, l1, l1_subgradient
        As in :func:`fastnn.functional.adagrad_`.
    initial_accumulator_value : float
        What the sum of squares starts from.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.Adagrad([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p.round(6)
    array([0.9, 1.9])
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.0,
        eps=1e-10,
        *,
        maximize=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["sum"]

    def initial_value(self, group):
        return group["initial_accumulator_value"]

    def update(self, params, grads, buffers, values, masks, scalars):
        del values["initial_accumulator_value"]
        F.adagrad_(params, grads, buffers["sum"], step=scalars["step"], masks=masks, **values)


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture); formulas at :func:`fastnn.functional.rmsprop_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, alpha, eps, weight_decay, momentum, centered, maximize, lr_in_momentum, l1, l1_subgradient
        As in :func:`fastnn.functional.rmsprop_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.RMSprop([p], lr=0.01, alpha=0.75)
    >>> optimizer.step([2 * p])
    >>> p.round(6)
    array([0.98, 1.98])
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        *,
        maximize=False,
        lr_in_momentum=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
            lr_in_momentum=lr_in_momentum,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["square_avg", *["grad_avg"] * group["centered"], *["momentum_buffer"] * (group["momentum"] > 0)]

    def update(self, params, grads, buffers, values, masks, scalars):
        F.rmsprop_(
            params,
            grads,
            buffers["square_avg"],
            buffers.get("grad_avg"),
            buffers.get("momentum_buffer"),
            masks=masks,
            **values,
        )


class Adadelta(Optimizer):
    """Adadelta (Zeiler); formulas at :func:`fastnn.functional.adadelta_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, rho, eps, weight_decay, maximize, l1, l1_subgradient
        As in :func:`fastnn.functional.adadelta_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.Adadelta([p])
    >>> optimizer.step([2 * p])
    >>> p.round(4)
    array([0.9968, 1.9968])
    """

    def __init__(
        self,
        params,
        lr=1.0,
        rho=0.9,
        eps=1e-6,
        weight_decay=0.0,
        *,
        maximize=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            rho=rho,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["square_avg", "acc_delta"]

    def update(self, params, grads, buffers, values, masks, scalars):
        F.adadelta_(params, grads, *buffers.values(), masks=masks, **values)


class Adamax(Optimizer):
    """Adamax (Kingma and Ba); formulas at :func:`fastnn.functional.adamax_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, betas, eps, weight_decay, maximize, l1, l1_subgradient
        As in :func:`fastnn.functional.adamax_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.Adamax([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p.round(6)
    array([0.9, 1.9])
    """

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        *,
        maximize=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["exp_avg", "exp_inf"]

    def update(self, params, grads, buffers, values, masks, scalars):
        F.adamax_(params, grads, *buffers.values(), step=scalars["step"], masks=masks, **values)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat); formulas at :func:`fastnn.functional.nadam_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay, maximize, l1, l1_subgradient
        As in :func:`fastnn.functional.nadam_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.NAdam([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p.round(4)
    array([0.8944, 1.8944])
    """

    scalars: ClassVar[dict] = {"step": 0, "mu_product": 1.0}

    def __init__(
        self,
        params,
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        momentum_decay=4e-3,
        decoupled_weight_decay=False,
        *,
        maximize=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["exp_avg", "exp_avg_sq"]

    def update(self, params, grads, buffers, values, masks, scalars):
        mu_product = F.nadam_(
            params,
            grads,
            *buffers.values(),
            step=scalars["step"],
            mu_product=scalars["mu_product"],
            masks=masks,
            **values,
        )
        return {"mu_product": mu_product}


class RAdam(Optimizer):
    """Rectified Adam (Liu et al.); formulas at :func:`fastnn.functional.radam_`.

    Parameters
    ----------
    params, masks
        As in :class:`Optimizer`.
    lr, betas, eps, weight_decay, decoupled_weight_decay, maximize, l1, l1_subgradient
        As in :func:`fastnn.functional.radam_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> p = np.array([1.0, 2.0])
    >>> optimizer = optim.RAdam([p], lr=0.1)
    >>> optimizer.step([2 * p])
    >>> p
    array([0.8, 1.6])
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        decoupled_weight_decay=False,
        *,
        maximize=False,
        l1=0.0,
        l1_subgradient=0.0,
        masks=None,
    ):
        super().__init__(
            params,
            masks,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
            l1=l1,
            l1_subgradient=l1_subgradient,
        )

    def buffer_names(self, group):
        return ["exp_avg", "exp_avg_sq"]

    def update(self, params, grads, buffers, values, masks, scalars):
        F.radam_(params, grads, *buffers.values(), step=scalars["step"], masks=masks, **values)

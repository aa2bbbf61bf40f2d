"""Learning-rate schedules with the names and formulas of ``torch.optim.lr_scheduler``.

A schedule is a function of the epoch: it sets ``group["lr"]`` from ``group["initial_lr"]`` (the rate that the group had
when its first schedule was made), so that resuming needs no more than the epoch. Schedules do not multiply onto each
other: combine them with SequentialLR.
"""

import math
from bisect import bisect_right

from fastnn.functional.checks import check_choice, check_integer, check_number
from fastnn.optim.optimizer import Optimizer

__all__ = [
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


def check_optimizer(function, optimizer):
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{function}: optimizer must be a fastnn optimiser, got {type(optimizer).__name__}")
    return optimizer


class LRScheduler:
    """Base of the schedules that depend on the epoch alone; sets the rate for epoch 0 when it is made.

    Parameters
    ----------
    optimizer : Optimizer
    last_epoch : int
        The epoch that was finished last, to resume; -1 to start. To resume, ``param_groups`` must have
        ``"initial_lr"``, which the optimiser's ``state_dict`` keeps.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> class Halving(optim.lr_scheduler.LRScheduler):
    ...     def rate(self, base_lr, epoch):
    ...         return base_lr / 2**epoch
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = Halving(optimizer)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer = check_optimizer(self.name, optimizer)
        self.last_epoch = check_integer(self.name, "last_epoch", last_epoch, minimum=-1)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch >= 0 and "initial_lr" not in group:
                raise ValueError(
                    f'{self.name}: param_groups[{i}] needs "initial_lr" to resume after epoch {last_epoch}; '
                    "load the optimiser's state_dict first"
                )
        self.step()

    @property
    def name(self):
        return type(self).__name__

    @property
    def base_lrs(self):
        """The groups' rates before any schedule."""
        return [group.setdefault("initial_lr", group["lr"]) for group in self.optimizer.param_groups]

    def step(self, epoch=None):
        """Goes on to the next epoch, or to this one, and sets the rates for it.

        Parameters
        ----------
        epoch : int or float, optional
            Not negative; may lie between whole numbers for schedules that follow a curve.
        """
        if epoch is not None:
            check_number(f"{self.name}.step", "epoch", epoch, minimum=0)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = rate

    def rates(self):
        """The rate of each group for the epoch that has come."""
        return [self.rate(base_lr, self.last_epoch) for base_lr in self.base_lrs]

    def rate(self, base_lr, epoch):
        """The rate for an epoch."""
        raise NotImplementedError

    def get_last_lr(self):
        """The rates in use, one per parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """A dictionary of numbers. The rates are part of the optimiser's own."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict):
        """Takes over what :meth:`state_dict` returned, and sets the rates of that epoch."""
        self.step(state_dict["last_epoch"])


class StepLR(LRScheduler):
    """``lr = initial_lr * gamma ** (epoch // step_size)``

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    step_size : int
        Epochs between two steps.
    gamma : float
        Factor at each step.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for _ in range(4):
    ...     schedule.step()
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        self.step_size = check_integer("StepLR", "step_size", step_size, minimum=1)
        self.gamma = check_number("StepLR", "gamma", gamma, minimum=0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """``lr`` is multiplied by gamma at each of the milestones.

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    milestones : list of int
        Epochs, in any order; one that stands twice counts twice.
    gamma : float
        Factor at each milestone.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        self.milestones = check_milestones("MultiStepLR", milestones)
        self.gamma = check_number("MultiStepLR", "gamma", gamma, minimum=0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """``lr = initial_lr * gamma ** epoch``

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    gamma : float
        Factor of each epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma = check_number("ExponentialLR", "gamma", gamma, minimum=0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        return base_lr * self.gamma**epoch


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate at epoch 0 to ``eta_min`` at ``T_max``, and back (Loshchilov and Hutter).

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    T_max : int
        Epochs from the highest rate to the lowest.
    eta_min : float
        The lowest rate.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        self.T_max = check_integer("CosineAnnealingLR", "T_max", T_max, minimum=1)
        self.eta_min = check_number("CosineAnnealingLR", "eta_min", eta_min, minimum=0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        return cosine(base_lr, self.eta_min, epoch / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosines from the initial rate to ``eta_min``, again and again (Loshchilov and Hutter, SGDR).

    The first takes ``T_0`` epochs, each one ``T_mult`` times as long as the one before. The rate is lowest just before
    a restart: the place for snapshots. ``step(epoch + batch / batches)`` follows the curve within an epoch.

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    T_0, T_mult : int
        Epochs of the first cosine, and the factor from one to the next.
    eta_min : float
        The lowest rate.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    def __init__(self, optimizer, T_0, T_mult=1, eta_min=0.0, last_epoch=-1):
        self.T_0 = check_integer("CosineAnnealingWarmRestarts", "T_0", T_0, minimum=1)
        self.T_mult = check_integer("CosineAnnealingWarmRestarts", "T_mult", T_mult, minimum=1)
        self.eta_min = check_number("CosineAnnealingWarmRestarts", "eta_min", eta_min, minimum=0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        length = self.T_0
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return cosine(base_lr, self.eta_min, epoch / length)


class LinearLR(LRScheduler):
    """Warm-up: a line from ``start_factor`` to ``end_factor`` times the initial rate over ``total_iters`` epochs.

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    start_factor, end_factor : float
        From 0 to 1.
    total_iters : int
        Epochs until ``end_factor`` is reached.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5, last_epoch=-1):
        self.start_factor = check_number("LinearLR", "start_factor", start_factor, minimum=0, maximum=1)
        self.end_factor = check_number("LinearLR", "end_factor", end_factor, minimum=0, maximum=1)
        self.total_iters = check_integer("LinearLR", "total_iters", total_iters, minimum=1)
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr, epoch):
        share = min(epoch, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * share)


class LambdaLR(LRScheduler):
    """``lr = initial_lr * lr_lambda(epoch)``

    Parameters
    ----------
    optimizer, last_epoch
        As in :class:`LRScheduler`.
    lr_lambda : function, or list of functions
        From the epoch to a factor; one for all parameter groups, or one for each.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.5, 0.333, 0.25]
    """

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        groups = len(check_optimizer("LambdaLR", optimizer).param_groups)
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: lr_lambda must have {groups} functions, got {len(self.lr_lambdas)}")
        if not all(callable(function) for function in self.lr_lambdas):
            raise TypeError(f"LambdaLR: lr_lambda must be a function of the epoch, got {lr_lambda!r}")
        super().__init__(optimizer, last_epoch)

    def rates(self):
        return [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class SequentialLR(LRScheduler):
    """One schedule after another: the next one starts, at its epoch 0, at each milestone.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of LRScheduler
        All of this optimiser.
    milestones : list of int
        One fewer than schedulers, increasing.
    last_epoch : int
        As in :class:`LRScheduler`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> from fastnn.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> warm_up = LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> schedule = SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, T_max=4)], milestones=[2])
    >>> rates = []
    >>> for _ in range(7):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    """

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        self.schedulers = list(schedulers)
        self.milestones = check_milestones("SequentialLR", milestones)
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(self.schedulers)} schedulers need {len(self.schedulers) - 1} milestones, "
                f"got {len(self.milestones)}"
            )
        for i, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"SequentialLR: schedulers[{i}] must depend on the epoch alone, got {type(scheduler).__name__}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: schedulers[{i}] belongs to another optimiser")
        super().__init__(optimizer, last_epoch)

    def rates(self):
        index = bisect_right(self.milestones, self.last_epoch)
        start = self.milestones[index - 1] if index else 0
        self.schedulers[index].step(self.last_epoch - start)
        return self.schedulers[index].get_last_lr()


class ReduceLROnPlateau:
    """Multiplies the rates by ``factor`` when a metric has not improved for more than ``patience`` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether the metric should fall or rise.
    factor : float
        From 0 to below 1.
    patience, cooldown : int
        Epochs without improvement that are tolerated; epochs after a reduction in which none is counted.
    threshold : float
    threshold_mode : {"rel", "abs"}
        An improvement must exceed ``threshold`` times the best value, or ``threshold`` itself.
    min_lr : float or list of float
        Lower bound, of all groups or of each.
    eps : float
        Smaller changes of the rate are not made.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> optimizer = optim.SGD([np.zeros(1)], lr=1.0)
    >>> schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in [1.0, 0.9, 0.9, 0.9]:
    ...     schedule.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """

    def __init__(
        self,
        optimizer,
        mode="min",
        factor=0.1,
        patience=10,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_lr=0.0,
        eps=1e-8,
    ):
        name = "ReduceLROnPlateau"
        self.optimizer = check_optimizer(name, optimizer)
        self.mode = check_choice(name, "mode", mode, ("min", "max"))
        self.threshold_mode = check_choice(name, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.factor = check_number(name, "factor", factor, minimum=0)
        if self.factor >= 1:
            raise ValueError(f"{name}: factor must be below 1, got {factor}")
        self.patience = check_integer(name, "patience", patience, minimum=0)
        self.cooldown = check_integer(name, "cooldown", cooldown, minimum=0)
        self.threshold = check_number(name, "threshold", threshold, minimum=0)
        self.eps = check_number(name, "eps", eps, minimum=0)
        groups = len(optimizer.param_groups)
        min_lr = min_lr if isinstance(min_lr, (list, tuple)) else [min_lr] * groups
        if len(min_lr) != groups:
            raise ValueError(f"{name}: min_lr must be a number or {groups} of them, got {min_lr!r}")
        self.min_lrs = [check_number(name, "min_lr", rate, minimum=0) for rate in min_lr]
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_epochs = 0
        self.cooldown_left = 0

    def step(self, metrics):
        """Takes this epoch's metric, and reduces the rates if it is time."""
        self.last_epoch += 1
        if self.improves(float(metrics)):
            self.best = float(metrics)
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self.reduce()
            self.cooldown_left = self.cooldown
            self.bad_epochs = 0

    def improves(self, value):
        """Whether this metric is better than the best so far, by more than the threshold."""
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        if math.isinf(self.best):
            margin = 0.0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def reduce(self):
        """Multiply the rates by the factor, down to their minimum."""
        for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            rate = max(group["lr"] * self.factor, min_lr)
            if group["lr"] - rate > self.eps:
                group["lr"] = rate

    def get_last_lr(self):
        """The rates in use, one per parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """A dictionary of numbers. The rates are part of the optimiser's own."""
        return {name: getattr(self, name) for name in ("last_epoch", "best", "bad_epochs", "cooldown_left")}

    def load_state_dict(self, state_dict):
        """Takes over what :meth:`state_dict` returned."""
        for name in self.state_dict():
            setattr(self, name, state_dict[name])


def check_milestones(function, milestones):
    if not isinstance(milestones, (list, tuple)):
        raise TypeError(f"{function}: milestones must be a list of epochs, got {type(milestones).__name__}")
    return sorted(check_integer(function, "milestones", epoch, minimum=0) for epoch in milestones)


def cosine(high, low, share):
    """From high at 0 to low at 1."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2

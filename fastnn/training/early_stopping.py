"""Stop when a figure no longer improves, and go back to the best weights."""

import math

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Callback for :func:`fit`: ends training when a figure has not improved for ``patience`` epochs.

    However training ends, the model then has the weights of its best epoch.

    Parameters
    ----------
    metric : str
        A column of the history. Losses are to fall, every other figure is to rise.
    patience : int
        Epochs without improvement before the end.
    min_delta : float
        What counts as improvement is more than this.

    Attributes
    ----------
    best : float
        The best value so far.
    best_epoch : int

    Examples
    --------
    >>> from fastnn.training import EarlyStopping
    >>> stop = EarlyStopping("validation_accuracy", patience=3)
    >>> stop.patience
    3
    """

    def __init__(self, metric="validation_loss", patience=5, min_delta=0.0):
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.sign = -1 if metric.endswith("loss") else 1
        self.best = -self.sign * math.inf
        self.best_epoch = 0
        self.best_weights = None

    def __call__(self, run):
        """Look at the epoch that just ended; True ends training."""
        if self.metric not in run.history.rows[-1]:
            raise ValueError(
                f"EarlyStopping: the history has no {self.metric!r}, only {', '.join(run.history.rows[-1])}; "
                "give fit(validation=...) or another metric"
            )
        value = run.history.rows[-1][self.metric]
        if self.sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch = value, run.epoch
            self.best_weights = {name: array.copy() for name, array in run.model.state_dict().items()}
        stop = run.epoch - self.best_epoch >= self.patience
        if (stop or run.epoch == run.epochs) and self.best_weights is not None:
            run.model.load_state_dict(self.best_weights)
        return stop

    def state_dict(self):
        """What a checkpoint keeps."""
        return {"best": self.best, "best_epoch": self.best_epoch, "best_weights": self.best_weights}

    def load_state_dict(self, state):
        """Take over what :meth:`state_dict` gave."""
        self.best, self.best_epoch, self.best_weights = state["best"], state["best_epoch"], state["best_weights"]

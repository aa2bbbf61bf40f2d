"""What happened in each epoch."""

__all__ = ["History"]


class History:
    """One row of figures per epoch of training.

    ``history["loss"]`` is the list of a figure over the epochs; ``history.rows`` the list of rows, each a dictionary
    with ``epoch``, ``loss``, ``accuracy``, ``validation_loss``, ``validation_accuracy``, ``test_loss``,
    ``test_accuracy`` (each where it was measured), ``learning_rate`` and ``seconds``. Losses are means per example;
    accuracies are from 0 to 1. Those of the training set are measured while the weights change, before each step.

    Examples
    --------
    >>> from fastnn.training import History
    >>> history = History()
    >>> history.append(epoch=1, loss=0.9)
    >>> history.append(epoch=2, loss=0.5)
    >>> history["loss"]
    [0.9, 0.5]
    """

    def __init__(self, rows=()):
        self.rows = list(rows)

    def append(self, **figures):
        """Add the figures of one more epoch."""
        self.rows.append(figures)

    def __len__(self):
        return len(self.rows)

    def __contains__(self, name):
        return any(name in row for row in self.rows)

    def __getitem__(self, name):
        if name not in self:
            names = ", ".join(dict.fromkeys(key for row in self.rows for key in row)) or "nothing yet"
            raise KeyError(f"the history has no {name!r}; it has {names}")
        return [row[name] for row in self.rows if name in row]

    def __repr__(self):
        return f"History({self.rows!r})"

    def plot(self, path):
        """Draw loss and accuracy over the epochs into an image file; needs matplotlib."""
        from fastnn.training import plots

        plots.save_history(self, path)

"""The training loop."""

import contextlib
import math
import signal
import threading
import time
from pathlib import Path

import numpy as np

from fastnn.data import batches
from fastnn.seed import generator
from fastnn.training import progress as display
from fastnn.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fastnn.training.history import History

__all__ = ["Interrupted", "evaluate", "fit", "predict"]


class Interrupted(KeyboardInterrupt):
    """Training was stopped with Ctrl-C, between two steps; the checkpoint, if one was asked for, is written.

    Examples
    --------
    >>> import signal
    >>> import numpy as np
    >>> from fastnn import nn, optim
    >>> from fastnn.training import Interrupted, fit
    >>> def press_ctrl_c(x, rng):
    ...     signal.raise_signal(signal.SIGINT)
    ...     return x
    >>> model, x = nn.Linear(1, 1), np.ones((4, 1), np.float32)
    >>> try:
    ...     fit(model, optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(), (x, x), 9, augment=press_ctrl_c)
    ... except Interrupted as interrupt:
    ...     print(interrupt)
    interrupted in epoch 1 of 9; nothing was saved, because no checkpoint was asked for
    """


def fit(
    model,
    optimizer,
    criterion,
    data,
    epochs,
    *,
    batch_size=64,
    validation=None,
    test=None,
    scheduler=None,
    augment=None,
    seed=0,
    callbacks=(),
    checkpoint=None,
    resume=None,
    progress=True,
):
    """Train a model, and return the history of its epochs.

    Parameters
    ----------
    model : fastnn.nn.Module
    optimizer : fastnn.optim.Optimizer
        Over the model's parameters.
    criterion : fastnn.nn.Module
        A loss that averages over the batch.
    data : tuple of ndarray
        Inputs and targets, with the examples along the first axis. For integer targets (N,) the accuracy of the
        largest output is measured too.
    epochs : int
        Passes over the data, counting those before a ``resume``.
    batch_size : int
    validation : tuple of ndarray, optional
        Inputs and targets that the model is measured on, in evaluation mode, after each epoch: those that decide on
        hyper-parameters or on the end of training. The history has ``validation_loss`` and ``validation_accuracy``.
    test : tuple of ndarray, optional
        The same with a set that decides nothing: ``test_loss`` and ``test_accuracy``.
    scheduler : optional
        Its ``step()`` is called after each epoch.
    augment : callable, optional
        ``augment(x, rng)`` returns the inputs to train with in place of a batch ``x``.
    seed : int
        Decides the order of the examples and the augmentation, epoch by epoch and batch by batch. (Dropout and initial
        weights follow :func:`fastnn.manual_seed`.)
    callbacks : sequence of callable
        Each is called as ``callback(run)`` after each epoch, with ``run.model``, ``run.history``, ``run.epoch`` and
        ``run.epochs``; True ends training.
    checkpoint : str or path, optional
        File that the whole state is written to after each epoch and at Ctrl-C.
    resume : str or path, optional
        Such a file, to go on exactly where it was written, even in the middle of an epoch.
    progress : bool
        Print a line per epoch, and on terminals the progress within it.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        If there are no examples.
    Interrupted
        After Ctrl-C (it is a KeyboardInterrupt), once the step at hand is complete. A second Ctrl-C stops at once.
    FloatingPointError
        If the loss is not finite; the weights are then still those of the step before.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn, optim
    >>> from fastnn.training import fit
    >>> x = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
    >>> model = nn.Linear(1, 1)
    >>> history = fit(model, optim.SGD(model.parameters(), lr=0.5), nn.MSELoss(), (x, 2 * x), 20, progress=False)
    >>> history["loss"][-1] < 0.01
    True
    """
    if not len(data[0]):
        raise ValueError("fit: data must hold at least one example, got none")
    if checkpoint is not None:  # a folder that cannot be made is better known before the first epoch than after it
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
    run = Run(model, optimizer, criterion, epochs, batch_size, scheduler, seed, callbacks)
    if resume is not None:
        run.load(resume)
    with deferred_interrupt() as interrupted:
        while run.epoch < epochs:
            run.train_epoch(data, augment, progress, interrupted)
            if interrupted:
                raise stop(run, checkpoint)
            stopping = run.finish_epoch({"validation": validation, "test": test}, progress)
            if checkpoint is not None:
                save_checkpoint(checkpoint, run.state_dict())
            if stopping:
                break
    return run.history


def evaluate(model, criterion, data, batch_size=256):
    """Loss and accuracy of a model in evaluation mode.

    Parameters
    ----------
    model, criterion : fastnn.nn.Module
    data : tuple of ndarray
        Inputs and targets.
    batch_size : int

    Returns
    -------
    dict
        ``loss``, the mean per example, and for integer targets (N,) ``accuracy``, from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> from fastnn.training import evaluate
    >>> evaluate(nn.Identity(), nn.MSELoss(), (np.ones((4, 3)), np.zeros((4, 3))))
    {'loss': 1.0}
    """
    totals = Totals()
    with evaluation(model):
        for x, y in batches(data[0], data[1], batch_size):
            output = model(x)
            totals.add(criterion(output, y), output, y)
    return totals.means()


def predict(model, x, batch_size=256):
    """Outputs of a model in evaluation mode, computed batch by batch.

    Parameters
    ----------
    model : fastnn.nn.Module
    x : ndarray
        Inputs, with the examples along the first axis.
    batch_size : int

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> from fastnn.training import predict
    >>> predict(nn.Linear(3, 2), np.ones((5, 3), np.float32)).shape
    (5, 2)
    """
    with evaluation(model):
        return np.concatenate([model(x[start : start + batch_size]) for start in range(0, max(len(x), 1), batch_size)])


class Run:
    """The state of one training run: what a checkpoint holds, and what callbacks see."""

    def __init__(self, model, optimizer, criterion, epochs, batch_size, scheduler, seed, callbacks):
        self.model, self.optimizer, self.criterion, self.scheduler = model, optimizer, criterion, scheduler
        self.epochs, self.batch_size, self.seed, self.callbacks = epochs, batch_size, seed, list(callbacks)
        self.history = History()
        self.epoch = 0  # epochs completed
        self.batch = 0  # batches completed of the epoch at hand
        self.totals = Totals()
        self.seconds = 0.0
        self.has_header = False  # whether the table's header is printed

    def train_epoch(self, data, augment, progress, interrupted):
        """Train on every batch of the epoch that is not done yet, until there is none or Ctrl-C is pressed.

        The order depends on (seed, epoch) and the augmentation on (seed, epoch, batch) alone, so that an epoch can be
        continued in the middle.
        """
        started = time.perf_counter() - self.seconds
        count = -(-len(data[0]) // self.batch_size)
        display_bar = display.bar(count, f"epoch {self.epoch + 1}/{self.epochs}", progress)
        display_bar.update(self.batch)
        self.model.train()
        order = np.random.default_rng([self.seed, self.epoch])
        for index, (x, y) in enumerate(batches(data[0], data[1], self.batch_size, rng=order)):
            if interrupted:
                break
            if index < self.batch:
                continue
            if augment is not None:
                x = augment(x, np.random.default_rng([self.seed, self.epoch, index]))
            self.train_batch(x, y)
            display_bar.set_postfix_str(self.totals.text(), refresh=False)
            display_bar.update()
        display_bar.close()
        self.seconds = time.perf_counter() - started

    def train_batch(self, x, y):
        output = self.model(x)
        loss = self.criterion(output, y)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"fit: the loss is {loss} in epoch {self.epoch + 1}, batch {self.batch + 1}; "
                "use a smaller learning rate, or clip the gradients, and check that the inputs are finite"
            )
        self.totals.add(loss, output, y)
        self.model.backward(self.criterion.backward(), needs_input_grad=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.batch += 1

    def finish_epoch(self, sets, progress):
        """Measure on each set by its name, write the history's row, call everybody; True ends training."""
        row = {"epoch": self.epoch + 1, **self.totals.means()}
        for prefix, data in sets.items():
            if data is not None:
                measured = evaluate(self.model, self.criterion, data)
                row.update({f"{prefix}_{name}": value for name, value in measured.items()})
        row.update(learning_rate=self.optimizer.param_groups[0]["lr"], seconds=self.seconds)
        self.history.append(**row)
        if progress:
            if not self.has_header:
                print(display.table_header(row))
                self.has_header = True
            print(display.table_row(row, self.epochs), flush=True)
            infinite = [
                name.replace("_", " ") for name in row if name.endswith("loss") and not math.isfinite(row[name])
            ]
            if infinite:
                print(f"the {' and the '.join(infinite)} is not finite; a smaller learning rate may help", flush=True)
        if self.scheduler is not None:
            self.scheduler.step()
        self.epoch, self.batch, self.totals, self.seconds = self.epoch + 1, 0, Totals(), 0.0
        stopping = [callback(self) for callback in self.callbacks]
        return any(stopping)

    def stateful_callbacks(self):
        return [callback for callback in self.callbacks if hasattr(callback, "state_dict")]

    def state_dict(self):
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "callbacks": [callback.state_dict() for callback in self.stateful_callbacks()],
            "history": self.history.rows,
            "epoch": self.epoch,
            "batch": self.batch,
            "totals": vars(self.totals),
            "seconds": self.seconds,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "generator": generator().bit_generator.state,
        }

    def load(self, path):
        """Take over the state in a checkpoint."""
        state = read_state(path, self.model, self.epochs, self.batch_size, self.seed)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: does not fit this model and optimizer: {error}") from error
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for callback, saved in zip(self.stateful_callbacks(), state["callbacks"], strict=False):
            callback.load_state_dict(saved)
        self.history = History(state["history"])
        self.epoch, self.batch, self.seconds = state["epoch"], state["batch"], state["seconds"]
        self.totals = Totals(**state["totals"])
        generator().bit_generator.state = state["generator"]


def read_state(path, model, epochs, batch_size, seed):
    """The state in a checkpoint, once it is known to fit a run with this model and these settings."""
    state = load_checkpoint(path)
    if not isinstance(state, dict) or "optimizer" not in state or not isinstance(state.get("model"), dict):
        raise CheckpointError(f"{path}: is not a checkpoint of a training run")
    own = {name: array.shape for name, array in model.named_arrays()}
    saved = {name: np.shape(array) for name, array in state["model"].items()}
    different = [name for name in {**saved, **own} if own.get(name) != saved.get(name)]
    if different:
        name = different[0]
        shapes = [f"of shape {shapes[name]}" if name in shapes else "missing" for shapes in (saved, own)]
        raise CheckpointError(
            f"{path}: is the checkpoint of another model: {name} is {shapes[0]} in it, and {shapes[1]} in this model"
        )
    for name, value in (("batch_size", batch_size), ("seed", seed)):
        if state[name] != value:
            raise CheckpointError(f"{path}: was written with {name}={state[name]}; use the same to go on, not {value}")
    if state["epoch"] > epochs:
        raise CheckpointError(
            f"{path}: is already finished after {state['epoch']} epochs; give more epochs than that, not {epochs}"
        )
    return state


class Totals:
    """Sums over the examples seen so far."""

    def __init__(self, examples=0, loss=0.0, classified=0, correct=0):
        self.examples, self.loss, self.classified, self.correct = examples, loss, classified, correct

    def add(self, loss, output, y):
        self.examples += len(y)
        self.loss += loss * len(y)
        if y.dtype.kind in "iu" and y.ndim == 1 and output.ndim == 2:
            self.classified += len(y)
            self.correct += int(np.count_nonzero(output.argmax(1) == y))

    def means(self):
        """Figures of the history, the accuracy only where there are classes."""
        figures = {"loss": self.loss / max(self.examples, 1)}
        if self.classified:
            figures["accuracy"] = self.correct / self.classified
        return figures

    def text(self):
        figures = self.means()
        accuracy = f", accuracy {100 * figures['accuracy']:.1f} %" if "accuracy" in figures else ""
        return f"loss {figures['loss']:.4f}{accuracy}"


@contextlib.contextmanager
def evaluation(model):
    """The model in evaluation mode, and back in the mode it was in."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


@contextlib.contextmanager
def deferred_interrupt():
    """A list that is empty until Ctrl-C is pressed, so that a step is never cut in two; the second stops at once.

    Only the main thread can have a handler; elsewhere the list stays empty.
    """
    pressed: list = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def handler(number, frame):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def stop(run, checkpoint):
    """The exception that ends an interrupted run, after its state is saved."""
    where = f"interrupted in epoch {run.epoch + 1} of {run.epochs}"
    if checkpoint is None:
        return Interrupted(f"{where}; nothing was saved, because no checkpoint was asked for")
    save_checkpoint(checkpoint, run.state_dict())
    return Interrupted(f"{where}; everything up to here is saved in {checkpoint}")

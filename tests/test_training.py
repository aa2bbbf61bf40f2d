"""The training loop: it learns, repeats, stops, saves, and goes on exactly where it was."""

import builtins
import os
import signal
import sys

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn, optim
from fastnn.data import add_noise
from fastnn.training import (
    CheckpointError,
    EarlyStopping,
    History,
    Interrupted,
    evaluate,
    fit,
    load_checkpoint,
    load_weights,
    predict,
    progress,
    save_checkpoint,
    save_weights,
)

CLASSES = 3


@pytest.fixture
def blobs():
    """Three Gaussian clouds in four dimensions: training and validation set."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((CLASSES, 4))
    y = rng.integers(0, CLASSES, 120)
    x = (centres[y] + rng.standard_normal((120, 4))).astype(np.float32)
    return (x[:90], y[:90]), (x[90:], y[90:])


def network(dropout=0.0):
    fastnn.manual_seed(0)
    layers = [nn.Linear(4, 8), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(8, CLASSES)]
    return nn.Sequential(*layers)


def start(dropout=0.0, lr=0.01):
    model = network(dropout)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    return model, optimizer, nn.CrossEntropyLoss()


def noisy(x, rng):
    return add_noise(x, 0.1, rng)


def press_ctrl_c_at(batch):
    """An augmentation that presses Ctrl-C in its n-th call."""
    calls = []

    def augment(x, rng):
        calls.append(1)
        if len(calls) == batch:
            os.kill(os.getpid(), signal.SIGINT)
        return noisy(x, rng)

    return augment


def assert_same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# The loop


def test_fit_learns_and_writes_one_row_per_epoch(blobs):
    train, validation = blobs
    history = fit(*start(), train, 15, batch_size=16, validation=validation, progress=False)
    assert len(history) == 15
    assert history["epoch"] == list(range(1, 16))
    assert history["loss"][-1] < 0.3 < history["loss"][0]
    assert history["validation_accuracy"][-1] > 0.9
    assert set(history.rows[0]) == {
        "epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate", "seconds"
    }  # fmt: skip


def test_fit_repeats_with_the_same_seed_and_differs_with_another(blobs):
    models = []
    for seed in (0, 0, 1):
        model, optimizer, criterion = start(dropout=0.3)
        fit(model, optimizer, criterion, blobs[0], 3, seed=seed, augment=noisy, batch_size=20, progress=False)
        models.append(model)
    assert_same_weights(models[0], models[1])
    with pytest.raises(AssertionError):
        assert_same_weights(models[0], models[2])


def test_fit_does_the_steps_that_the_documentation_shows(blobs):
    from fastnn.data import batches

    (x, y), _ = blobs
    expected, optimizer, criterion = start()
    for epoch in range(2):
        for inputs, targets in batches(x, y, 32, rng=[7, epoch]):
            criterion(expected(inputs), targets)
            expected.backward(criterion.backward())
            optimizer.step()
            optimizer.zero_grad()
    model, optimizer, criterion = start()
    fit(model, optimizer, criterion, (x, y), 2, batch_size=32, seed=7, progress=False)
    assert_same_weights(model, expected)


def test_fit_measures_no_accuracy_of_a_regression():
    x = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    model = nn.Linear(1, 1)
    history = fit(model, optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(), (x, 3 * x), 3, progress=False)
    assert "accuracy" not in history


def test_fit_steps_the_scheduler_once_per_epoch(blobs):
    model, optimizer, criterion = start(lr=0.1)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    history = fit(model, optimizer, criterion, blobs[0], 3, scheduler=scheduler, progress=False)
    assert history["learning_rate"] == [0.1, 0.05, 0.025]


def test_fit_stops_before_the_step_when_the_loss_is_not_finite(blobs):
    model, optimizer, criterion = start()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    x = blobs[0][0].copy()
    x[:] = np.nan
    with pytest.raises(FloatingPointError, match=r"fit: the loss is nan in epoch 1, batch 1; use a smaller learning"):
        fit(model, optimizer, criterion, (x, blobs[0][1]), 1, progress=False)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_evaluate_and_predict_agree_for_every_batch_size_and_keep_the_mode(blobs):
    model, _, criterion = start(dropout=0.5)
    _, (x, y) = blobs
    model.eval()
    output = model(x)
    model.train()
    for size in (1, 7, 30, 100):
        np.testing.assert_allclose(predict(model, x, size), output, rtol=1e-5, atol=1e-6)
        figures = evaluate(model, criterion, (x, y), size)
        assert figures["loss"] == pytest.approx(criterion(output, y), rel=1e-5)
        assert figures["accuracy"] == np.mean(output.argmax(1) == y)
    assert model.training


def test_predict_of_nothing_has_the_right_shape():
    assert predict(network(), np.zeros((0, 4), np.float32)).shape == (0, CLASSES)


# Early stopping


class Figures:
    """A run whose metric takes given values; the weight is the epoch, so that one can see which was kept."""

    def __init__(self, values, metric):
        self.epochs, self.epoch, self.history, self.model = len(values), 0, History(), self
        self.values, self.metric = values, metric

    def state_dict(self):
        return {"epoch": np.array(self.epoch)}

    def load_state_dict(self, state):
        self.restored = int(state["epoch"])

    def run(self, callback):
        for value in self.values:
            self.epoch += 1
            self.history.append(**{self.metric: value})
            if callback(self):
                break
        return self.epoch, self.restored


@pytest.mark.parametrize(
    ("metric", "values", "stopped", "restored"),
    [
        ("validation_loss", [3, 2, 1, 2, 3, 0, 0], 5, 3),
        ("validation_accuracy", [0.5, 0.7, 0.6, 0.7, 0.9], 4, 2),
        ("validation_loss", [3, 2, 1], 3, 3),
        ("validation_loss", [3, 1, 2], 3, 2),
        ("loss", [3, 2.95, 2.92, 1], 3, 1),
    ],
)
def test_early_stopping_waits_and_restores_the_best_weights(metric, values, stopped, restored):
    callback = EarlyStopping(metric, patience=2, min_delta=0.1 if metric == "loss" else 0)
    assert Figures(values, metric).run(callback) == (stopped, restored)


def test_early_stopping_ends_fit(blobs):
    train, validation = blobs
    callback = EarlyStopping("validation_loss", patience=2)
    model, optimizer, criterion = start(lr=0.5)
    history = fit(model, optimizer, criterion, train, 100, validation=validation, callbacks=[callback], progress=False)
    assert len(history) < 100
    assert callback.best == min(history["validation_loss"])
    assert evaluate(model, criterion, validation)["loss"] == pytest.approx(callback.best)


def test_cross_validation_in_five_folds_chooses_the_rate_that_learns(blobs, rng):
    (x, y), _ = blobs
    folds = np.array_split(rng.permutation(len(x)), 5)

    def mean_accuracy(lr):
        accuracies = []
        for fold in folds:
            rest = np.setdiff1d(np.arange(len(x)), fold)
            model, optimizer, criterion = start(lr=lr)
            fit(model, optimizer, criterion, (x[rest], y[rest]), 10, batch_size=16, progress=False)
            accuracies.append(evaluate(model, criterion, (x[fold], y[fold]))["accuracy"])
        return np.mean(accuracies)

    assert max([1e-6, 0.03], key=mean_accuracy) == 0.03


def probabilities(model, x):
    return F.softmax(predict(model, x))


def assert_average_is_no_worse_than_its_members(members, y):
    """-log is convex: the loss of the mean probability is at most the mean of the losses."""

    def loss(probability):
        return F.nll_loss(np.log(probability), y)

    assert len({member.tobytes() for member in members}) == len(members)
    assert loss(np.mean(members, axis=0)) <= np.mean([loss(member) for member in members])


def test_snapshots_at_the_ends_of_cosines_make_an_ensemble(blobs):
    train, (x, y) = blobs
    model, optimizer, criterion = start(lr=0.05)
    scheduler = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=5)
    snapshots = []

    def keep(run):
        if run.epoch % 5 == 0:
            snapshots.append(probabilities(run.model, x))

    fit(model, optimizer, criterion, train, 15, batch_size=16, scheduler=scheduler, callbacks=[keep], progress=False)
    assert len(snapshots) == 3
    assert_average_is_no_worse_than_its_members(snapshots, y)


def test_bagging_averages_models_of_bootstrap_samples(blobs, rng):
    train, (x, y) = blobs
    members = []
    for _ in range(3):
        rows = rng.integers(0, len(train[0]), len(train[0]))
        model, optimizer, criterion = start()
        fit(model, optimizer, criterion, (train[0][rows], train[1][rows]), 10, batch_size=16, progress=False)
        members.append(probabilities(model, x))
    assert_average_is_no_worse_than_its_members(members, y)


def test_early_stopping_names_a_missing_metric(blobs):
    with pytest.raises(ValueError, match=r"EarlyStopping: the history has no 'validation_loss', only epoch, loss"):
        fit(*start(), blobs[0], 1, callbacks=[EarlyStopping()], progress=False)


def test_every_callback_sees_every_epoch(blobs):
    seen = []
    callbacks = [lambda run: run.epoch == 2, lambda run: seen.append((run.epoch, run.epochs))]
    fit(*start(), blobs[0], 5, callbacks=callbacks, progress=False)
    assert seen == [(1, 5), (2, 5)]


# Interrupting and resuming


@pytest.mark.parametrize("batch", [1, 3, 5, 6, 11])  # in the middle, at the end and at the start of an epoch of five
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_run_that_is_interrupted_and_resumed_ends_like_one_that_is_not(tmp_path, blobs, batch, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    train, validation = blobs
    options = {"batch_size": 20, "validation": validation, "seed": 3, "progress": False}
    expected, optimizer, criterion = start(dropout=0.2)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    complete = fit(expected, optimizer, criterion, train, 4, augment=noisy, scheduler=scheduler, **options)

    path = tmp_path / f"checkpoint.{suffix}"
    model, optimizer, criterion = start(dropout=0.2)
    options["scheduler"] = optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"interrupted in epoch \d of 4; everything up to here is saved in .*check"):
        fit(model, optimizer, criterion, train, 4, augment=press_ctrl_c_at(batch), checkpoint=path, **options)
    assert signal.getsignal(signal.SIGINT) is handler

    model, optimizer, criterion = start(dropout=0.2)
    fastnn.manual_seed(99)
    options["scheduler"] = optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    resumed = fit(model, optimizer, criterion, train, 4, augment=noisy, resume=path, **options)
    assert_same_weights(model, expected)
    for name in ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate"):
        assert resumed[name] == complete[name]


def test_an_interrupt_without_a_checkpoint_says_that_nothing_is_saved(blobs):
    with pytest.raises(Interrupted, match=r"interrupted in epoch 1 of 3; nothing was saved, because no checkpoint"):
        fit(*start(), blobs[0], 3, augment=press_ctrl_c_at(1), progress=False)


def test_a_second_ctrl_c_stops_at_once(blobs):
    def augment(x, rng):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*start(), blobs[0], 3, augment=augment, progress=False)
    assert not isinstance(caught.value, Interrupted)


def test_fit_runs_in_other_threads(blobs):
    import threading

    histories = []
    thread = threading.Thread(target=lambda: histories.append(fit(*start(), blobs[0], 1, progress=False)))
    thread.start()
    thread.join()
    assert len(histories[0]) == 1


def test_resuming_keeps_early_stopping_and_a_finished_run_changes_nothing(tmp_path, blobs):
    train, validation = blobs
    path = tmp_path / "checkpoint.npz"
    callback = EarlyStopping("validation_loss", patience=50)
    model, optimizer, criterion = start()
    fit(
        model, optimizer, criterion, train, 3, validation=validation, callbacks=[callback], checkpoint=path,
        progress=False,
    )  # fmt: skip
    again = EarlyStopping("validation_loss", patience=50)
    copy, optimizer, criterion = start()
    history = fit(copy, optimizer, criterion, train, 3, callbacks=[again], resume=path, progress=False)
    assert len(history) == 3
    assert (again.best, again.best_epoch) == (callback.best, callback.best_epoch)
    assert_same_weights(copy, model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10}, r"checkpoint\.npz: was written with batch_size=64; use the same to go on, not 10"),
        ({"seed": 5}, r"checkpoint\.npz: was written with seed=0; use the same to go on, not 5"),
    ],
)
def test_resume_refuses_other_settings(tmp_path, blobs, options, message):
    path = tmp_path / "checkpoint.npz"
    fit(*start(), blobs[0], 1, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match=message):
        fit(*start(), blobs[0], 2, resume=path, progress=False, **options)


def test_resume_refuses_another_model(tmp_path, blobs):
    path = tmp_path / "checkpoint.npz"
    fit(*start(), blobs[0], 1, checkpoint=path, progress=False)
    model = nn.Linear(4, CLASSES)
    message = r"checkpoint\.npz: is the checkpoint of another model: 0\.weight is of shape \(8, 4\) in it"
    with pytest.raises(CheckpointError, match=message):  # and not that the batch size is another
        fit(model, optim.Adam(model.parameters()), nn.CrossEntropyLoss(), blobs[0], 2, batch_size=9, resume=path)
    model, _, criterion = start()
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz: does not fit this model and optimizer"):
        fit(model, optim.SGD(list(model.parameters())[:1]), criterion, blobs[0], 2, resume=path, progress=False)


def test_resume_refuses_fewer_epochs_than_were_trained(tmp_path, blobs):
    path = tmp_path / "checkpoint.npz"
    fit(*start(), blobs[0], 2, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="is already finished after 2 epochs; give more epochs than that, not 1"):
        fit(*start(), blobs[0], 1, resume=path)


# Checkpoints


TREE = {
    "numbers": [1, 2.5, True, None, float("inf"), 2**80],
    "names": {"a": "text", 3: (1, [2])},
    "arrays": [np.arange(6.0).reshape(2, 3), np.array(4, np.int64), np.zeros((0, 2), np.float32)],
    "strided": np.arange(10)[::-2],
    "scalar": np.float32(0.5),
}


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_checkpoint_comes_back_as_it_was(tmp_path, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / "new" / "folder" / f"state.{suffix}"
    save_checkpoint(path, TREE)
    state = load_checkpoint(path)
    assert state["numbers"] == TREE["numbers"]
    assert state["names"] == TREE["names"]
    assert state["scalar"] == 0.5
    for actual, expected in zip([*state["arrays"], state["strided"]], [*TREE["arrays"], TREE["strided"]], strict=True):
        np.testing.assert_array_equal(actual, expected)
        assert actual.dtype == expected.dtype
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    save_checkpoint(path, {"epoch": 1})

    def full_disk(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_hold_no_pickles(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        save_checkpoint(tmp_path / "state.npz", {"objects": np.array([{}], object)})
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(CheckpointError, match=r"objects\.npz: is damaged or not a checkpoint$"):
        load_checkpoint(tmp_path / "objects.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_a_damaged_checkpoint_is_named(tmp_path, suffix, content):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"state.{suffix}"
    save_checkpoint(path, {"weights": np.arange(1000.0)})
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CheckpointError, match=rf"state\.{suffix}: is damaged or not a checkpoint"):
        load_checkpoint(path)


def test_checkpoint_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz: no such file"):
        load_checkpoint(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"state\.pt: the name of a checkpoint must end in \.npz or \.safetensors"):
        save_checkpoint(tmp_path / "state.pt", {})
    with pytest.raises(TypeError, match=r"save_checkpoint: a/b must be made of .*, got set"):
        save_checkpoint(tmp_path / "state.npz", {"a": {"b": set()}})


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_weights_alone_and_in_checkpoints_load_into_a_model(tmp_path, blobs, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    model, optimizer, criterion = start()
    checkpoint, weights = tmp_path / f"checkpoint.{suffix}", tmp_path / f"weights.{suffix}"
    fit(model, optimizer, criterion, blobs[0], 1, checkpoint=checkpoint, progress=False)
    save_weights(weights, model)
    for path in (checkpoint, weights):
        copy = network()
        load_weights(path, copy)
        assert_same_weights(copy, model)
    with pytest.raises(CheckpointError, match=r"holds weights only, not a checkpoint"):
        load_checkpoint(weights)
    with pytest.raises(CheckpointError, match=r"weights.*: does not fit this model"):
        load_weights(weights, nn.Linear(2, 2))


def test_weights_want_the_path_first(tmp_path):
    with pytest.raises(
        TypeError, match="save_weights: path must be a string or a path, got Sequential; it comes before"
    ):
        save_weights(network(), tmp_path / "a.npz")
    with pytest.raises(TypeError, match="load_weights: model must be a Module, got str; the path comes first"):
        load_weights(tmp_path / "a.npz", "b.npz")


def test_weights_in_safetensors_need_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(
        ImportError, match="writing it needs safetensors; run pip install safetensors, or choose a name"
    ):
        save_weights(tmp_path / "a.safetensors", network())
    assert not list(tmp_path.iterdir())


def test_saved_weights_are_a_state_dict_for_torch(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    model = network()
    save_weights(tmp_path / "weights.safetensors", model)
    twin = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES))
    twin.load_state_dict(safetensors_torch.load_file(tmp_path / "weights.safetensors"))
    x = np.ones((2, 4), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(predict(model, x), twin(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_safetensors_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    save_weights(tmp_path / "weights.npz", network())
    with pytest.raises(ImportError):
        save_weights(tmp_path / "weights.safetensors", network())
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(ImportError, match=r"reading it needs safetensors; run pip install safetensors"):
        load_weights(tmp_path / "weights.safetensors", network())


# History, progress, plots


def test_history_names_what_it_has():
    history = History([{"epoch": 1, "loss": 2.0}])
    with pytest.raises(KeyError, match=r"the history has no 'accuracy'; it has epoch, loss"):
        history["accuracy"]


def test_fit_prints_a_header_and_a_line_per_epoch(blobs, capsys):
    fit(*start(), blobs[0], 2, validation=blobs[1])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert " ".join(lines[0].split()) == "epoch loss accuracy validation loss accuracy learning rate time"
    assert lines[1].startswith("  1/2")
    assert len(lines[0]) == len(lines[1])


def test_a_resumed_run_prints_the_header_again(tmp_path, blobs, capsys):
    path = tmp_path / "checkpoint.npz"
    fit(*start(), blobs[0], 1, checkpoint=path, progress=False)
    fit(*start(), blobs[0], 3, resume=path)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["epoch", "2/3", "3/3"]


@pytest.mark.parametrize("loss", [0.5, 123.45678, 54321.0, 1.23456e10, 9.9e300, np.inf, np.nan])
def test_losses_of_any_size_stay_in_their_columns(loss):
    row = {"epoch": 1, "loss": loss, "test_loss": loss, "learning_rate": 0.1, "seconds": 1.0}
    text = progress.table_row(row, 9)
    assert len(text) == len(progress.table_header(row))
    assert float(text.split()[1]) == pytest.approx(loss, rel=0.05, nan_ok=True)


def test_fit_warns_of_a_loss_that_is_not_finite(blobs, capsys):
    train, (x, y) = blobs
    fit(*start(), train, 1, test=(x * np.float32(np.nan), y))
    assert capsys.readouterr().out.endswith("\nthe test loss is not finite; a smaller learning rate may help\n")


def test_fit_measures_validation_and_test_set_under_their_own_names(blobs, capsys):
    train, (x, y) = blobs
    history = fit(*start(), train, 2, validation=(x, y), test=(x[:20], y[:20]))
    lines = capsys.readouterr().out.splitlines()
    titles = "epoch loss accuracy validation loss accuracy test loss accuracy learning rate time"
    assert " ".join(lines[0].split()) == titles
    assert len(lines[0]) == len(lines[1])
    assert len(history["test_loss"]) == len(history["validation_loss"]) == 2
    assert history["test_accuracy"][-1] * 20 == pytest.approx(round(history["test_accuracy"][-1] * 20))
    assert history["test_loss"] != history["validation_loss"]


@pytest.mark.parametrize(
    "sets", [("training",), ("training", "validation"), ("training", "test"), ("training", "validation", "test")]
)
def test_the_legend_names_the_sets_that_were_measured(sets):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from fastnn.training.plots import plot_history

    row = {"epoch": 1}
    for label in sets:
        prefix = "" if label == "training" else f"{label}_"
        row |= {f"{prefix}loss": 1.0, f"{prefix}accuracy": 0.5}
    axes = Figure().subplots(1, 2)
    plot_history(History([row]), *axes)
    for panel in axes:
        assert [text.get_text() for text in panel.get_legend().get_texts()] == list(sets)


def test_plain_bar_writes_over_one_line(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0)
    bar = progress.PlainBar(2, "epoch 1/3", enabled=True)
    bar.set_postfix_str("loss 1.0")
    bar.update()
    bar.update()
    bar.close()
    out = capsys.readouterr().out
    assert "\repoch 1/3: 1/2  loss 1.0\repoch 1/3: 2/2  loss 1.0" in out
    assert out.endswith("\r")
    assert "\n" not in out


def test_bar_is_plain_without_tqdm(monkeypatch):
    monkeypatch.setattr(progress, "tqdm", None)
    assert isinstance(progress.bar(3, "epoch"), progress.PlainBar)


def test_training_needs_no_optional_package(monkeypatch, blobs):
    real = builtins.__import__

    def numpy_only(name, *arguments, **keywords):
        if name.partition(".")[0] in {"matplotlib", "tqdm", "safetensors", "torch", "scipy"}:
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", numpy_only)
    for module in [name for name in sys.modules if name.startswith("fastnn.training")]:
        monkeypatch.delitem(sys.modules, module)
    from fastnn import training

    training.fit(*start(), blobs[0], 1, progress=True)


@pytest.mark.parametrize(("channels", "right"), [(1, 30), (3, 25)])
def test_report_draws_runs_with_and_without_errors(tmp_path, rng, channels, right):
    pytest.importorskip("matplotlib")
    from fastnn.training.plots import save_report

    rows = [{"epoch": 1, "loss": 1.0, "accuracy": 0.5, "validation_loss": 2.0, "validation_accuracy": 0.9}]
    images, labels = rng.random((30, channels, 8, 8)), np.arange(30) % 3
    scores = np.eye(3)[np.where(np.arange(30) < right, labels, (labels + 1) % 3)]
    filters = rng.standard_normal((6, channels, 5, 5))
    save_report(tmp_path / "report.png", "title", History(rows), filters, images, labels, scores, "abc")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1


def test_history_plots_without_validation(tmp_path):
    pytest.importorskip("matplotlib")
    History([{"epoch": 1, "loss": 2.0}]).plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 5000


def test_fit_refuses_to_begin_without_examples_or_a_place_for_its_checkpoint(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="fit: data must hold at least one example, got none"):
        fit(model, optimizer, nn.MSELoss(), (x[:0], y[:0]), 1)
    (tmp_path / "file").write_text("")
    epochs = []
    with pytest.raises(OSError, match="file"):
        fit(
            model, optimizer, nn.MSELoss(), (x, y), 1, callbacks=[epochs.append], checkpoint=tmp_path / "file" / "c.npz"
        )
    assert epochs == []

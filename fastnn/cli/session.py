"""What the commands that train have in common."""

import shlex
import sys
import time
from pathlib import Path

import numpy as np

import fastnn
from fastnn import nn, optim
from fastnn.optim.lr_scheduler import CosineAnnealingLR
from fastnn.training import Interrupted, fit, predict, save_weights

__all__ = ["add_options", "train_and_report"]


def add_options(parser, epochs, batch_size, lr, out):
    """The options of every command that trains."""
    parser.add_argument(
        "--epochs", type=whole, default=epochs, help="passes over the training set (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=whole, default=batch_size, help="images per step (default %(default)s)")
    parser.add_argument("--lr", type=float, default=lr, help="first learning rate (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for the results (default %(default)s)")
    parser.add_argument("--threads", type=whole, help="at most this many (default: all CPUs that may be used)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from a checkpoint of an interrupted run")


def whole(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


whole.__name__ = "whole number from 1 up"  # argparse puts it into its message


def train_and_report(title, arguments, data, build, augment):
    """Train a new model on a Dataset with Adam and a cosine schedule; write its weights and a picture.

    Parameters
    ----------
    title : str
    arguments : argparse.Namespace
        With the options of `add_options`.
    data : Dataset
    build : callable
        Makes the model.
    augment : callable
        ``augment(images, rng)`` changes a batch.
    """
    if arguments.threads is not None:
        fastnn.set_num_threads(arguments.threads)
    fastnn.manual_seed(arguments.seed)
    model = build()
    size = sum(parameter.size for parameter in model.parameters())
    print(
        f"{title}: {size:,} parameters, {len(data.x_train):,} images to train with, {len(data.x_test):,} to test with"
    )
    print(f"{fastnn.get_backend()} kernels, {fastnn.get_num_threads()} thread(s); Ctrl-C stops and saves\n", flush=True)
    optimizer = optim.Adam(model.parameters(), lr=arguments.lr)
    checkpoint = arguments.out / "checkpoint.npz"
    started = time.perf_counter()
    try:
        history = fit(
            model,
            optimizer,
            nn.CrossEntropyLoss(),
            (data.x_train, data.y_train),
            arguments.epochs,
            batch_size=arguments.batch_size,
            test=(data.x_test, data.y_test),
            scheduler=CosineAnnealingLR(optimizer, arguments.epochs),
            augment=augment,
            seed=arguments.seed,
            checkpoint=checkpoint,
            resume=arguments.resume,
        )
    except Interrupted as interrupt:
        raise Interrupted(f"{interrupt}\nGo on with: {command_to_resume(checkpoint)}") from None
    seconds = time.perf_counter() - started
    scores = predict(model, data.x_test)
    correct = int(np.count_nonzero(scores.argmax(1) == data.y_test))
    accuracy = f"{100 * correct / len(scores):.2f} %"
    print(f"\ntest accuracy {accuracy} ({correct} of {len(scores)} images) after {seconds:.1f} s")
    for path in write_results(arguments.out, f"{title}: {accuracy} right", model, history, data, scores):
        print(f"written: {path}")
    return 0


def command_to_resume(checkpoint):
    return f"{sys.executable} -m fastnn {shlex.join([*sys.argv[1:], '--resume', str(checkpoint)])}"


def write_results(folder, title, model, history, data, scores):
    """Weights and picture, as far as the packages for them are installed; yields what was written."""
    save_weights(folder / "weights.npz", model)
    yield folder / "weights.npz"
    try:
        save_weights(folder / "weights.safetensors", model)
        yield folder / "weights.safetensors"
    except ImportError:
        print(f"no weights.safetensors: safetensors is not installed; {sys.executable} -m pip install safetensors")
    try:
        from fastnn.training.plots import save_report
    except ImportError:
        print(f"no picture: matplotlib is not installed; {sys.executable} -m pip install matplotlib, then go on with")
        print(f"  {command_to_resume(folder / 'checkpoint.npz')}")
        return
    filters = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).weight.data
    picture = folder / "report.png"
    save_report(picture, title, history, filters, data.x_test, data.y_test, scores, data.class_names)
    yield picture

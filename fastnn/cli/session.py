"""What the commands that train have in common."""

import shlex
import sys
import time
from pathlib import Path

import numpy as np

import fastnn
from fastnn import nn, optim
from fastnn.cli import UsageError
from fastnn.cli.numbers import positive, thread_count, whole, whole_from_zero
from fastnn.optim.lr_scheduler import CosineAnnealingLR
from fastnn.training import Interrupted, fit, predict, save_weights
from fastnn.training.loop import read_state

__all__ = ["add_options", "check_paths", "train_and_report"]

CHECKPOINT = "checkpoint.npz"
RESULTS = (CHECKPOINT, "weights.npz", "weights.safetensors", "report.png")


def add_options(parser, epochs, batch_size, lr, out):
    """The options of every command that trains."""
    parser.add_argument(
        "--epochs", type=whole, default=epochs, help="passes over the training set (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=whole, default=batch_size, help="images per step (default %(default)s)")
    parser.add_argument("--lr", type=positive, default=lr, help="first learning rate (default %(default)s)")
    parser.add_argument("--seed", type=whole_from_zero, default=0, help="of everything random (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for the results (default %(default)s)")
    parser.add_argument("--threads", type=thread_count, help="at most this many (default: all CPUs that may be used)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from a checkpoint of an interrupted run")


def check_paths(arguments):
    """What is wrong with --resume and --out is said before the data are read."""
    if arguments.resume is not None and not arguments.resume.is_file():
        what = "is a folder, not a checkpoint" if arguments.resume.is_dir() else "no such file"
        raise FileNotFoundError(f"{arguments.resume}: {what}")
    for folder in (arguments.out, *arguments.out.parents):
        if folder.is_file():
            raise NotADirectoryError(f"{folder}: is a file, not a folder; give another --out")
    if earlier_results(arguments) and not arguments.overwrite and not goes_on_in_place(arguments):
        raise UsageError(
            f"{arguments.out}: holds the results of an earlier run; give another --out, --overwrite to replace them"
            + (f", or --resume {arguments.out / CHECKPOINT} to go on" if (arguments.out / CHECKPOINT).exists() else "")
        )


def earlier_results(arguments):
    return [path for name in RESULTS if (path := arguments.out / name).exists()]


def goes_on_in_place(arguments):
    return arguments.resume is not None and arguments.resume.resolve().parent == arguments.out.resolve()


def remove_earlier_results(arguments):
    """So that a new checkpoint never lies beside the weights of another run."""
    earlier = earlier_results(arguments)
    if earlier and not goes_on_in_place(arguments):
        print(f"replaces the results of an earlier run in {arguments.out}")
    for path in earlier:
        if arguments.resume is None or not path.samefile(arguments.resume):
            path.unlink()


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
    if arguments.resume is not None:
        state = read_state(arguments.resume, model, arguments.epochs, arguments.batch_size, arguments.seed)
        if state["epoch"] == arguments.epochs:
            print(f"{arguments.resume} is from the end of its run: nothing to train, the results are written anew")
    remove_earlier_results(arguments)
    size = sum(parameter.size for parameter in model.parameters())
    print(
        f"{title}: {size:,} parameters, {len(data.x_train):,} images to train with, {len(data.x_test):,} to test with"
    )
    print(f"{fastnn.get_backend()} kernels, {fastnn.get_num_threads()} thread(s); Ctrl-C stops and saves\n", flush=True)
    optimizer = optim.Adam(model.parameters(), lr=arguments.lr)
    checkpoint = arguments.out / CHECKPOINT
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
        raise Interrupted(f"{interrupt}\nGo on with: {command_to_resume(arguments)}") from None
    seconds = time.perf_counter() - started
    scores = predict(model, data.x_test)
    correct = int(np.count_nonzero(scores.argmax(1) == data.y_test))
    accuracy = f"{100 * correct / len(scores):.2f} %"
    print(f"\ntest accuracy {accuracy} ({correct} of {len(scores)} images) after {seconds:.1f} s")
    for path in write_results(arguments, f"{title}: {accuracy} right", model, history, data, scores):
        print(f"written: {path}")
    return 0


def command_to_resume(arguments):
    """The command at hand, going on from its checkpoint, and from no other."""
    words = list(arguments.words)
    while "--resume" in words:
        del words[(place := words.index("--resume")) : place + 2]
    words = [word for word in words if not word.startswith("--resume=")]
    checkpoint = (arguments.out / CHECKPOINT).resolve()
    return f"{sys.executable} -m fastnn {shlex.join([*words, '--resume', str(checkpoint)])}"


def write_results(arguments, title, model, history, data, scores):
    """Weights and picture, as far as the packages for them are installed; yields what was written."""
    folder = arguments.out
    if (folder / CHECKPOINT).exists():
        yield folder / CHECKPOINT
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
        print(f"  {command_to_resume(arguments)}")
        return
    filters = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).weight.data
    picture = folder / "report.png"
    save_report(picture, title, history, filters, data.x_test, data.y_test, scores, data.class_names)
    yield picture

"""Pictures of a training run. The only module that imports matplotlib, which the "train" extra installs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

__all__ = ["plot_filters", "plot_history", "plot_images", "save_history", "save_report"]

TRAINING = "#4878a8"
VALIDATION = "#7a5ca8"
TEST = "#d1602f"
RIGHT = "#2b7a3d"
WRONG = "#c0272d"
SETS = {"training": TRAINING, "validation": VALIDATION, "test": TEST}
ROWS, COLUMNS = 3, 12  # of test images in a report


def plot_history(history, loss_axes, accuracy_axes):
    """Loss and accuracy over the epochs, of the training, the validation and the test set.

    Parameters
    ----------
    history : History
    loss_axes, accuracy_axes : matplotlib.axes.Axes
    """
    panels = [
        (loss_axes, "loss", 1, "loss (logarithmic)", "upper right"),
        (accuracy_axes, "accuracy", 100, "accuracy (%)", "lower right"),
    ]
    for axes, figure, scale, title, corner in panels:
        for label, color in SETS.items():
            prefix = "" if label == "training" else f"{label}_"
            if prefix + figure in history:
                values = scale * np.array(history[prefix + figure])
                epochs = [row["epoch"] for row in history.rows if prefix + figure in row]
                axes.plot(epochs, values, color=color, label=label, linewidth=1.8, marker="o", markersize=3)
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, loc=corner)  # looking for the best place, Matplotlib may warn that it is slow
    loss_axes.set_yscale("log")
    measured = [label for label in ("test", "validation") if f"{label}_accuracy" in history]
    if measured:
        last = 100 * history[f"{measured[0]}_accuracy"][-1]
        accuracy_axes.annotate(
            f"{last:.2f} %",
            (history["epoch"][-1], last),
            xytext=(0, -16),
            textcoords="offset points",
            ha="right",
            color=SETS[measured[0]],
            weight="bold",
        )
        accuracy_axes.set_ylim(top=100.5, bottom=min(95.0, accuracy_axes.get_ylim()[0]))


def plot_filters(weight, figure):
    """One picture per filter of a convolution, in a grid; colours where there are three input channels.

    Parameters
    ----------
    weight : ndarray
        Shape (K, C, R, S); of more than three channels the first is shown.
    figure : matplotlib Figure or SubFigure
    """
    columns = max(1, int(np.ceil(np.sqrt(len(weight)))))
    rows = -(-len(weight) // columns)
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = np.abs(weight).max()
    for place, filter in zip(axes.flat, weight, strict=False):
        if len(filter) == 3:
            place.imshow(np.clip(filter.transpose(1, 2, 0) / (2 * limit) + 0.5, 0, 1))
        else:
            place.imshow(filter[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for place in axes.flat:
        place.set_axis_off()


def plot_images(images, labels, scores, names, figure, columns):
    """Classified images, each titled with the class the network gave it; wrong ones also name the true class.

    Parameters
    ----------
    images : ndarray
        Shape (N, C, H, W), values from 0 to 1.
    labels : ndarray
        True classes (N,).
    scores : ndarray
        The network's outputs (N, classes).
    names : sequence of str
        Names of the classes.
    figure : matplotlib Figure or SubFigure
    columns : int
    """
    axes = figure.subplots(max(1, -(-len(images) // columns)), columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, image, label, score in zip(axes.flat, images, labels, scores, strict=False):
        place.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray_r", vmin=0, vmax=1)
        guess = int(score.argmax())
        right = guess == label
        text = names[guess] if right else f"predicted {names[guess]},\nis {names[label]}"
        place.set_title(text, color=RIGHT if right else WRONG, fontsize=10 if len(text) < 10 else 8, pad=3)


def save_history(history, path):
    """Loss and accuracy over the epochs, as an image file."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    plot_history(history, *figure.subplots(1, 2))
    save(figure, path)


def save_report(path, title, history, filters, images, labels, scores, names):
    """One picture of a whole run: curves, the first layer's filters, and test images, the wrong ones first.

    Parameters
    ----------
    path : str or path
    title : str
    history : History
    filters : ndarray
        Weight of the first convolution (K, C, R, S).
    images, labels, scores : ndarray
        The test set and the network's outputs for it.
    names : sequence of str
    """
    figure = Figure(figsize=(13, 8.2), dpi=120, layout=ConstrainedLayoutEngine(rect=(0.015, 0.015, 0.97, 0.97)))
    figure.suptitle(title, fontsize=15, weight="bold")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.1])  # matplotlib's annotation leaves the shape open
    top, bottom = halves
    curves, first_layer = top.subfigures(1, 2, width_ratios=[2.6, 1])
    plot_history(history, *curves.subplots(1, 2))
    first_layer.suptitle("filters of the first layer", fontsize=12)
    plot_filters(filters, first_layer)
    wrong = scores.argmax(1) != labels
    bottom.suptitle(f"test images: {np.count_nonzero(wrong)} of {len(labels)} wrong (red)", fontsize=12)
    chosen = np.flatnonzero(wrong)[:COLUMNS]
    chosen = np.concatenate([chosen, np.flatnonzero(~wrong)[: ROWS * COLUMNS - len(chosen)]])
    plot_images(images[chosen], labels[chosen], scores[chosen], names, bottom, COLUMNS)
    save(figure, path)


def save(figure, path):
    """All or nothing, as for checkpoints."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        figure.savefig(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

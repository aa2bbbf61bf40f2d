"""What is printed while training: a line per epoch, and within the epoch a line that changes, on terminals only."""

import sys
import time

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

__all__ = ["PlainBar", "bar", "table_header", "table_row"]

SECONDS_BETWEEN_UPDATES = 0.1


def bar(total, label, enabled=True):
    """A progress bar over `total` steps: tqdm's where it is installed, a plain line otherwise."""
    enabled = enabled and sys.stdout.isatty()
    if tqdm is None:
        return PlainBar(total, label, enabled)
    return tqdm(total=total, desc=label, disable=not enabled, leave=False, dynamic_ncols=True, file=sys.stdout)


class PlainBar:
    """The few methods of tqdm that the training loop uses, on one line that is written over."""

    def __init__(self, total, label, enabled):
        self.total, self.label, self.enabled = total, label, enabled
        self.done, self.text, self.width, self.shown = 0, "", 0, 0.0

    def set_postfix_str(self, text, refresh=True):
        self.text = text

    def update(self, steps=1):
        self.done += steps
        if self.enabled and time.monotonic() - self.shown >= SECONDS_BETWEEN_UPDATES:
            self.shown = time.monotonic()
            self.write(f"{self.label}: {self.done}/{self.total}  {self.text}")

    def write(self, line):
        print(f"\r{line:<{self.width}}", end="", flush=True)
        self.width = len(line)

    def close(self):
        if self.enabled and self.width:
            self.write("")
            print("\r", end="", flush=True)


LOSS_WIDTHS = {"validation": 16, "test": 10}


def table_header(row):
    """Titles of the columns that this row of the history has."""
    columns = ["  epoch", "    loss"]
    if "accuracy" in row:
        columns.append("accuracy")
    for name in ("validation", "test"):
        if f"{name}_loss" in row:
            columns.append(f"{f'{name} loss':>{LOSS_WIDTHS[name]}}")
        if f"{name}_accuracy" in row:
            columns.append("accuracy")
    return "  ".join([*columns, "learning rate", "   time"])


def table_row(row, epochs):
    """One row of the history as a line of text under its header."""
    columns = [f"{row['epoch']:>3}/{epochs:<3}", loss_text(row["loss"], 8)]
    if "accuracy" in row:
        columns.append(f"{100 * row['accuracy']:>6.2f} %")
    for name in ("validation", "test"):
        if f"{name}_loss" in row:
            columns.append(loss_text(row[f"{name}_loss"], LOSS_WIDTHS[name]))
        if f"{name}_accuracy" in row:
            columns.append(f"{100 * row[f'{name}_accuracy']:>6.2f} %")
    return "  ".join([*columns, f"{row['learning_rate']:>13.2g}", f"{row['seconds']:>5.1f} s"])


def loss_text(loss, width):
    """The loss in a column of this width: with four decimals, or fewer digits where it is too large for them."""
    texts = (format(loss, form) for form in (".4f", ".4g", ".2g"))
    return next((text for text in texts if len(text) <= 8), f"{loss:.0e}").rjust(width)

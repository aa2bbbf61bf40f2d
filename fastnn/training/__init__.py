"""Training: the loop over epochs, its history, early stopping, checkpoints, and plots (with matplotlib)."""

from fastnn.training.checkpoint import *
from fastnn.training.early_stopping import *
from fastnn.training.history import *
from fastnn.training.loop import *

__all__ = [
    "CheckpointError",
    "EarlyStopping",
    "History",
    "Interrupted",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_weights",
    "predict",
    "save_checkpoint",
    "save_weights",
]

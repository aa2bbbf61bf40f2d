"""Optimisers with the names, arguments and formulas of ``torch.optim``, learning-rate schedules, gradient clipping."""

from fastnn.optim import lr_scheduler
from fastnn.optim.clipping import clip_grad_norm_, clip_grad_value_
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.rules import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]

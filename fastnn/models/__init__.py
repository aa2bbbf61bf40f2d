"""Known architectures."""

from fastnn.models.lenet import LeNet5

__all__ = ["LeNet5"]

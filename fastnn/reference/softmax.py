"""softmax: to come."""

__all__ = []

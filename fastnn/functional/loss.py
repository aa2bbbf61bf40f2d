"""loss: to come."""

__all__ = []

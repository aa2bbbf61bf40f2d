"""optim: to come."""

__all__ = []

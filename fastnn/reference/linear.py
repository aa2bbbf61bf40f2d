"""linear: to come."""

__all__ = []

"""conv: to come."""

__all__ = []

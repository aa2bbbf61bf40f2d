"""norm: to come."""

__all__ = []

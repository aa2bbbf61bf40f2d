"""pool: to come."""

__all__ = []

"""distance: to come."""

__all__ = []

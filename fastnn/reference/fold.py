"""fold: to come."""

__all__ = []

"""vision: to come."""

__all__ = []

"""random: to come."""

__all__ = []

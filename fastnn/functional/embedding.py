"""embedding: to come."""

__all__ = []

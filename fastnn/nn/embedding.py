"""Embedding: a learnt vector per index."""

import numpy as np

import fastnn.functional as F
from fastnn.functional.checks import check_integer
from fastnn.nn import init
from fastnn.nn.module import Module, Parameter, accumulate

__all__ = ["Embedding"]


class Embedding(Module):
    """Rows of the weight (num_embeddings, embedding_dim) by integer index; any shape of indices gains a dimension.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Number of vectors and their size.
    padding_idx : int
        The index of a vector that is zero at first and gets no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Embedding(10, 4)(np.array([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
        self.num_embeddings = check_integer("Embedding", "num_embeddings", num_embeddings, 1)
        self.embedding_dim = check_integer("Embedding", "embedding_dim", embedding_dim, 1)
        if padding_idx is not None:
            index = check_integer("Embedding", "padding_idx", padding_idx)
            if not -num_embeddings <= index < num_embeddings:
                raise ValueError(f"Embedding: padding_idx must be an index of {num_embeddings} rows, got {index}")
            padding_idx = index % self.num_embeddings
        self.padding_idx = padding_idx
        self.weight = Parameter(np.zeros((self.num_embeddings, self.embedding_dim), np.float32))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the vectors anew, standard normal."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input):
        output = F.embedding(input, self.weight.data, self.padding_idx)
        self.save_for_backward(input)
        return output

    def backward(self, grad_output, needs_input_grad=True):
        """Adds to the weight's gradient; indices have none, so this returns None."""
        (input,) = self.pop_saved()
        if self.weight.requires_grad:
            accumulate(self.weight, F.embedding_backward(grad_output, input, self.weight.data, self.padding_idx))

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

"""Types of the compiled measurements, for the checkers and for editors."""

from typing import Any

from numpy.typing import NDArray

def multiply_add_rate(like: NDArray[Any], threads: int, repeats: int) -> float: ...
def triad_rate(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], threads: int) -> float: ...

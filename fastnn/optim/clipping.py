"""Gradient clipping over parameters or plain gradients."""

import numpy as np

import fastnn.functional as F

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def gradients(function, parameters):
    """The gradients of Parameters (those that have one), or the arrays themselves."""
    if isinstance(parameters, np.ndarray) or hasattr(parameters, "grad"):
        parameters = [parameters]
    found = []
    for i, parameter in enumerate(parameters):
        if isinstance(parameter, np.ndarray):
            found.append(parameter)
        elif not hasattr(parameter, "grad"):
            raise TypeError(
                f"{function}: parameters[{i}] must be a Parameter or a gradient array, got {type(parameter).__name__}"
            )
        elif parameter.grad is not None:
            found.append(parameter.grad)
    return found


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scales all gradients by one factor, in place, so that their global norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : iterable of Parameter, or of gradient arrays
        Those without a gradient are left out.
    max_norm, norm_type, error_if_nonfinite
        As in :func:`fastnn.functional.clip_grad_norm_`.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`fastnn.functional.clip_grad_norm_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> g = np.array([3.0, 4.0])
    >>> optim.clip_grad_norm_([g], max_norm=10.0)
    5.0
    """
    return F.clip_grad_norm_(gradients("clip_grad_norm_", parameters), max_norm, norm_type, error_if_nonfinite)


def clip_grad_value_(parameters, clip_value):
    """Clamps every gradient element into ``[-clip_value, clip_value]``, in place; NaN stays NaN.

    Parameters
    ----------
    parameters : iterable of Parameter, or of gradient arrays
        Those without a gradient are left out.
    clip_value : float
        Not negative.

    Raises
    ------
    TypeError, ValueError
        As in :func:`fastnn.functional.clip_grad_value_`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn import optim
    >>> g = np.array([3.0, -4.0])
    >>> optim.clip_grad_value_([g], 3.5)
    >>> g
    array([ 3. , -3.5])
    """
    F.clip_grad_value_(gradients("clip_grad_value_", parameters), clip_value)

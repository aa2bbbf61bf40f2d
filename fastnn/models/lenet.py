"""LeNet-5 (LeCun et al. 1998), with max pools and ReLU as it is taught today."""

from fastnn.functional.checks import check_integer
from fastnn.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

__all__ = ["LeNet5"]


class LeNet5(Sequential):
    """Two convolutions of 5x5 with pools of 2x2, then three fully connected layers of 120, 84 and ``num_classes``.

        input      in_channels x 32 x 32
        conv1      6 x 28 x 28       5x5, ReLU
        pool1      6 x 14 x 14       2x2
        conv2      16 x 10 x 10      5x5, ReLU
        pool2      16 x 5 x 5        2x2
        fc1        120               ReLU
        fc2        84                ReLU
        fc3        num_classes       no activation: for CrossEntropyLoss

    Parameters
    ----------
    num_classes : int
        Size of the output.
    in_channels : int
        1 for grey images, 3 for colour.
    input_size : int
        Height and width of the images, at least 16; those of 28 (MNIST) are padded to 32 by the first layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import LeNet5
    >>> model = LeNet5(input_size=28)
    >>> model(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    >>> sum(parameter.size for parameter in model.parameters())
    61706
    """

    def __init__(self, num_classes=10, in_channels=1, input_size=32):
        input_size = check_integer("LeNet5", "input_size", input_size, 16)
        padding = 2 if input_size == 28 else 0
        after_conv1 = input_size + 2 * padding - 4
        after_conv2 = after_conv1 // 2 - 4
        features = 16 * (after_conv2 // 2) ** 2
        super().__init__(
            {
                "conv1": Conv2d(in_channels, 6, 5, padding=padding),
                "relu1": ReLU(),
                "pool1": MaxPool2d(2),
                "conv2": Conv2d(6, 16, 5),
                "relu2": ReLU(),
                "pool2": MaxPool2d(2),
                "flatten": Flatten(),
                "fc1": Linear(features, 120),
                "relu3": ReLU(),
                "fc2": Linear(120, 84),
                "relu4": ReLU(),
                "fc3": Linear(84, num_classes),
            }
        )

"""The small convolutional networks of courses."""

from fastnn.functional.checks import check_integer
from fastnn.nn import BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential

__all__ = ["VGG", "ThreeLayerConvNet"]


class ThreeLayerConvNet(Sequential):
    """One convolution, a pool and two fully connected layers, as students of CS231n build it.

        conv       num_filters x input_size x input_size     filter_size, same padding, ReLU
        pool       half the size                             2x2
        fc1        hidden_dim                                ReLU
        fc2        num_classes

    Parameters
    ----------
    in_channels, input_size : int
        The images are in_channels x input_size x input_size.
    num_filters, filter_size : int
        Of the convolution; an odd size.
    hidden_dim, num_classes : int

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import ThreeLayerConvNet
    >>> ThreeLayerConvNet()(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(self, in_channels=3, input_size=32, num_filters=32, filter_size=7, hidden_dim=100, num_classes=10):
        where = "ThreeLayerConvNet"
        if check_integer(where, "filter_size", filter_size, 1) % 2 == 0:
            raise ValueError(f"{where}: filter_size must be odd, for the same padding on both sides, got {filter_size}")
        features = num_filters * (check_integer(where, "input_size", input_size, 2) // 2) ** 2
        super().__init__(
            {
                "conv": Conv2d(in_channels, num_filters, filter_size, padding=filter_size // 2),
                "relu1": ReLU(),
                "pool": MaxPool2d(2),
                "flatten": Flatten(),
                "fc1": Linear(features, hidden_dim),
                "relu2": ReLU(),
                "fc2": Linear(hidden_dim, num_classes),
            }
        )


class VGG(Sequential):
    """Stages of 3x3 convolutions with batch norm and ReLU, a pool of 2x2 after each (Simonyan and Zisserman 2014).

    Parameters
    ----------
    stages : sequence of sequences of int
        Output channels of each convolution, stage by stage.
    in_channels, input_size, num_classes : int
        The images are in_channels x input_size x input_size; one linear layer gives the classes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import VGG
    >>> VGG()(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(self, stages=((64, 64), (128, 128), (256, 256)), in_channels=3, input_size=32, num_classes=10):
        check_integer("VGG", "input_size", input_size, 2 ** len(stages))
        layers: dict[str, Module] = {}
        channels = in_channels
        for i, stage in enumerate(stages, 1):
            for j, outputs in enumerate(stage, 1):
                # without a bias: the batch norm takes the mean away
                layers[f"conv{i}_{j}"] = Conv2d(channels, outputs, 3, padding=1, bias=False)
                layers[f"norm{i}_{j}"] = BatchNorm2d(outputs)
                layers[f"relu{i}_{j}"] = ReLU()
                channels = outputs
            layers[f"pool{i}"] = MaxPool2d(2)
        layers["flatten"] = Flatten()
        layers["fc"] = Linear(channels * (input_size >> len(stages)) ** 2, num_classes)
        super().__init__(layers)

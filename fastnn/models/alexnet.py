"""AlexNet."""

from fastnn.nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential

__all__ = ["AlexNet"]


class AlexNet(Sequential):
    """Five convolutions and three fully connected layers for images of 224x224 (Krizhevsky 2014, one tower).

    The layers, their shapes and the order of the parameters are those of torchvision's ``alexnet``.

    Parameters
    ----------
    num_classes : int
    dropout : float
        Probability with which inputs of the first two fully connected layers are dropped.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnn.models import AlexNet
    >>> AlexNet(num_classes=10)(np.zeros((1, 3, 224, 224), np.float32)).shape
    (1, 10)
    """

    def __init__(self, num_classes=1000, dropout=0.5):
        features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=2),
            ReLU(),
            MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2),
            ReLU(),
            MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1),
            ReLU(),
            Conv2d(384, 256, 3, padding=1),
            ReLU(),
            Conv2d(256, 256, 3, padding=1),
            ReLU(),
            MaxPool2d(3, stride=2),
        )
        classifier = Sequential(
            Dropout(dropout),
            Linear(256 * 6 * 6, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, 4096),
            ReLU(),
            Linear(4096, num_classes),
        )
        super().__init__(
            {"features": features, "avgpool": AdaptiveAvgPool2d(6), "flatten": Flatten(), "classifier": classifier}
        )

"""Known architectures."""

from fastnn.models.alexnet import AlexNet
from fastnn.models.convnet import VGG, ThreeLayerConvNet
from fastnn.models.lenet import LeNet5
from fastnn.models.mlp import MLP
from fastnn.models.resnet import ResNet18

__all__ = ["MLP", "VGG", "AlexNet", "LeNet5", "ResNet18", "ThreeLayerConvNet"]

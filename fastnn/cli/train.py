"""`python -m fastnn train`."""

from pathlib import Path

from fastnn import nn
from fastnn.cli.session import add_options, train_and_report
from fastnn.data import DataError, load_cifar10, load_mnist, random_crop, random_flip


def add_arguments(parser):
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with train-images-idx3-ubyte[.gz] and so on (MNIST), or with data_batch_1[.bin] (CIFAR-10)",
    )
    add_options(parser, epochs=10, batch_size=128, lr=2e-3, out="runs/train")


def run(arguments):
    data = load(arguments.data)
    _, channels, height, width = data.x_train.shape
    if min(height, width) < 8:
        raise DataError(f"{arguments.data}: images are {height}x{width} pixels, the network's three pools need 8x8")

    def build():
        return small_network(channels, height, width, len(data.class_names))

    return train_and_report(f"Training on {arguments.data.resolve().name}", arguments, data, build, augmentation(data))


def load(folder):
    """The Dataset in a folder, CIFAR-10 where it has that one's files, else MNIST's."""
    cifar = any(folder.glob("data_batch_1*")) or any(folder.glob("cifar-10-batches-*"))
    return (load_cifar10 if cifar else load_mnist)(folder)


def augmentation(data):
    """For photographs, shifts and mirror images; none for others: a mirrored digit is another sign."""
    if data.x_train.shape[1] == 1:
        return None
    return lambda images, rng: random_flip(random_crop(images, 4, rng), rng)


def small_network(channels, height, width, classes):
    """Three blocks of a 3x3 convolution, batch norm, ReLU and a 2x2 pool, and one fully connected layer."""
    layers = []
    for inputs, outputs in [(channels, 16), (16, 32), (32, 64)]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (height // 8) * (width // 8), classes))

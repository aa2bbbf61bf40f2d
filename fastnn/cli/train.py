"""`python -m fastnn train`."""

from pathlib import Path

from fastnn import nn
from fastnn.cli.session import add_options, check_paths, train_and_report
from fastnn.data import DataError, load_cifar10, load_mnist, random_crop, random_flip

# What tells the two kinds of folders apart; load_mnist says where its files are when they lie deeper.
MNIST = ("train-*", "t10k-*", "*/train-*", "*/*/train-*")
CIFAR10 = ("data_batch_*", "test_batch*", "cifar-10-batches-*")
ACCEPTED = (
    "the files of MNIST's format (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
    "t10k-labels-idx1-ubyte, each plain or .gz) or those of CIFAR-10 (data_batch_1.bin to data_batch_5.bin and "
    "test_batch.bin, or the same names without .bin for the Python version, there or in cifar-10-batches-bin or -py)"
)


def add_arguments(parser):
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with train-images-idx3-ubyte[.gz] and so on (MNIST), or with data_batch_1[.bin] and so on "
        "(CIFAR-10)",
    )
    add_options(parser, epochs=10, batch_size=128, lr=2e-3, out="runs/train")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run in --out")


def run(arguments):
    check_paths(arguments)
    data = load(arguments.data)
    _, channels, height, width = data.x_train.shape
    if min(height, width) < 8:
        raise DataError(f"{arguments.data}: images are {height}x{width} pixels, the network's three pools need 8x8")

    def build():
        return small_network(channels, height, width, len(data.class_names))

    return train_and_report(f"Training on {arguments.data.resolve().name}", arguments, data, build, augmentation(data))


def load(folder):
    """The Dataset in a folder, CIFAR-10's or MNIST's, whichever it has a file of."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give one that holds {ACCEPTED}")
    if has_any(folder, CIFAR10):
        return load_cifar10(folder)
    if has_any(folder, MNIST):
        return load_mnist(folder)
    raise FileNotFoundError(f"{folder}: holds no data set; looked for {ACCEPTED}")


def has_any(folder, patterns):
    return any(path for pattern in patterns for path in folder.glob(pattern))


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

"""`python -m fastnn demo`."""

from fastnn.cli.session import add_options, check_paths, train_and_report
from fastnn.data import load_digits, random_crop
from fastnn.models import LeNet5


def add_arguments(parser):
    add_options(parser, epochs=20, batch_size=32, lr=2e-3, out="runs/demo")
    parser.set_defaults(overwrite=True)


def run(arguments):
    check_paths(arguments)
    data = load_digits()
    data = data._replace(x_train=enlarge(data.x_train), x_test=enlarge(data.x_test))
    return train_and_report("LeNet-5 on handwritten digits", arguments, data, LeNet5, shift)


def enlarge(images):
    """8x8 pixels become the 32x32 that LeNet-5 takes: each pixel a square of 4x4."""
    return images.repeat(4, axis=2).repeat(4, axis=3)


def shift(images, rng):
    """Augmentation: up to two pixels in every direction, half a pixel of the original 8x8."""
    return random_crop(images, 2, rng)

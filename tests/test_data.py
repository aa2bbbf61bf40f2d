"""Data sets from files, good and broken; batches and augmentation."""

import gzip
import os
import pickle
import shutil
import struct

import numpy as np
import pytest

from fastnn import data


def write_idx(path, array, magic=None):
    content = (magic or struct.pack(">HBB", 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path, rng):
    """A tiny data set in MNIST's files: 20 training and 7 test images of 5x4 pixels."""
    for part, count in [("train", 20), ("t10k", 7)]:
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 5, 4), np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


# Digits


def test_digits_have_every_class_in_both_parts_in_equal_shares():
    digits = data.load_digits()
    assert digits.x_train.shape == (1352, 1, 8, 8)
    assert digits.x_test.shape == (445, 1, 8, 8)
    assert digits.x_train.dtype == np.float32
    assert digits.y_train.dtype == np.int64
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    counts = np.bincount(np.concatenate([digits.y_train, digits.y_test]))
    np.testing.assert_array_equal(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])  # as UCI states them
    np.testing.assert_array_equal(np.bincount(digits.y_test), counts // 4)


def test_digits_split_shares_no_image():
    digits = data.load_digits()
    train, test = ({image.tobytes() for image in images} for images in (digits.x_train, digits.x_test))
    assert not train & test


def test_digits_match_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    expected = datasets.load_digits()
    digits = data.load_digits()
    ours = np.concatenate([digits.x_train, digits.x_test]).reshape(-1, 64) * 16
    assert sorted(map(tuple, ours)) == sorted(map(tuple, expected.data))


# IDX files


def test_load_mnist_reads_plain_and_compressed_files_alike(mnist):
    packed = data.load_mnist(mnist)
    for path in mnist.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = data.load_mnist(str(mnist))
    for a, b in zip(packed[:4], plain[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert packed.x_train.shape == (20, 1, 5, 4)
    assert packed.x_test.shape == (7, 1, 5, 4)
    assert packed.x_train.dtype == np.float32
    assert packed.y_test.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert packed.class_names == tuple("0123456789")


def test_load_mnist_scales_255_to_one(mnist):
    write_idx(mnist / "train-images-idx3-ubyte.gz", np.full((20, 5, 4), 255, np.uint8))
    assert (data.load_mnist(mnist).x_train == 1).all()


def test_load_mnist_takes_the_spelling_with_a_dot(mnist):
    (mnist / "train-images-idx3-ubyte.gz").rename(mnist / "train-images.idx3-ubyte.gz")
    assert len(data.load_mnist(mnist).x_train) == 20


def test_load_mnist_names_the_articles_of_fashion_mnist(mnist):
    folder = mnist / "Fashion-MNIST"
    folder.mkdir()
    for path in mnist.glob("*.gz"):
        shutil.move(path, folder)
    assert data.load_mnist(folder).class_names[9] == "Ankle boot"


FASHION = "/usr/share/datasets/fashion-mnist"


@pytest.mark.skipif(not os.path.isdir(FASHION), reason="Debian's package dataset-fashion-mnist is not installed")
def test_load_mnist_reads_fashion_mnist():
    fashion = data.load_mnist(FASHION)
    assert fashion.x_train.shape == (60000, 1, 28, 28)
    assert fashion.x_test.shape == (10000, 1, 28, 28)
    assert fashion.y_train[:5].tolist() == [9, 0, 0, 3, 0]
    np.testing.assert_allclose([fashion.x_train.mean(), fashion.x_train.std()], [0.2860, 0.3530], atol=1e-4)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def no_folder(folder):
    shutil.rmtree(folder)


def missing(folder):
    (folder / LABELS).unlink()


def one_folder_up(folder):
    (folder / "raw").mkdir()
    for path in list(folder.glob("*.gz")):
        shutil.move(path, folder / "raw")


def cut_compressed(folder):
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-20])


def damaged(folder):
    content = bytearray((folder / IMAGES).read_bytes())
    content[30:40] = b"0123456789"
    (folder / IMAGES).write_bytes(content)


def not_compressed(folder):
    (folder / IMAGES).write_bytes(b"<html>not found</html>")


def not_idx(folder):
    (folder / IMAGES).write_bytes(gzip.compress(b"<html>not found</html>"))


def no_header(folder):
    (folder / IMAGES).write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))


def empty_file(folder):
    (folder / IMAGES).write_bytes(gzip.compress(b""))


def too_short(folder):
    (folder / IMAGES).write_bytes(gzip.compress(gzip.decompress((folder / IMAGES).read_bytes())[:-1]))


def too_long(folder):
    (folder / IMAGES).write_bytes(gzip.compress(gzip.decompress((folder / IMAGES).read_bytes()) + b"x"))


def huge(folder):
    (folder / IMAGES).write_bytes(gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12))


def floats(folder):
    write_idx(folder / IMAGES, np.zeros((20, 5, 4), np.uint8), magic=b"\0\0\x0d\x03")


def swapped(folder):
    shutil.copy(folder / LABELS, folder / IMAGES)


def other_count(folder):
    write_idx(folder / LABELS, np.zeros(19, np.uint8))


def other_size(folder):
    write_idx(folder / "t10k-images-idx3-ubyte.gz", np.zeros((7, 6, 6), np.uint8))


def no_images(folder):
    write_idx(folder / IMAGES, np.zeros((0, 5, 4), np.uint8))


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        (no_folder, FileNotFoundError, r"no such folder; give the folder that holds train-images-idx3-ubyte"),
        (missing, FileNotFoundError, r"train-labels-idx1-ubyte: no such file; put it there, plain or as \.gz"),
        (one_folder_up, FileNotFoundError, r"train-images-idx3-ubyte: no such file; it stands in .*raw, give that"),
        (cut_compressed, data.DataError, r"train-images-idx3-ubyte\.gz: the compressed file is truncated; get the"),
        (damaged, data.DataError, r"train-images-idx3-ubyte\.gz: .*get the file again"),
        (not_compressed, data.DataError, r"train-images-idx3-ubyte\.gz: is not a gzip file, or is damaged"),
        (not_idx, data.DataError, r"is not an IDX file \(it starts with b'<htm'\); get the file again"),
        (no_header, data.DataError, r"is truncated, it ends within its header; get the file again"),
        (empty_file, data.DataError, r"is not an IDX file \(it starts with b''\)"),
        (too_short, data.DataError, r"is truncated, shape \(20, 5, 4\) needs 400 bytes but it has 399; get"),
        (too_long, data.DataError, r"is too long, shape \(20, 5, 4\) needs 400 bytes but it has 401; get"),
        (huge, data.DataError, r"is truncated, shape \(4294967295, 4294967295, 4294967295\) needs"),
        (floats, data.DataError, r"holds elements of IDX type 0x0D, expected 0x08 \(unsigned bytes\)"),
        (swapped, data.DataError, r"images.*: holds an array of 1 dimensions, but images have 3; it may have been"),
        (other_count, data.DataError, r"holds 19 labels, but train-images-idx3-ubyte\.gz has 20 images"),
        (other_size, data.DataError, r"training images are 5x4 pixels, test images 6x6"),
        (no_images, data.DataError, r"holds no images; get the file again"),
    ],
)
def test_load_mnist_names_the_file_and_what_is_wrong(mnist, breaks, error, message):
    breaks(mnist)
    with pytest.raises(error, match=message):
        data.load_mnist(mnist)


# CIFAR-10


def pickle_as_python_2(pixels, labels):
    """The batch as Python 2 and an old NumPy pickled it, with byte strings for all strings, as the real files are."""

    def text(value):
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    array += b"(" + number(1) + number(len(pixels)) + number(3072) + b"\x86"
    array += b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    array += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array += b"\x89" + text(pixels.tobytes()) + b"tb"
    labels = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


@pytest.fixture
def batches_of_cifar(rng):
    """Six batches of three images each: pixels (3, 3072) and labels."""
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    return {name: (rng.integers(0, 256, (3, 3072), np.uint8), rng.integers(0, 10, 3).tolist()) for name in names}


def write_binary(folder, batches_of_cifar):
    for name, (pixels, labels) in batches_of_cifar.items():
        records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


@pytest.fixture
def cifar(tmp_path, batches_of_cifar):
    write_binary(tmp_path, batches_of_cifar)
    return tmp_path


def test_load_cifar10_reads_both_versions_alike(tmp_path, batches_of_cifar):
    folders = {name: tmp_path / name / f"cifar-10-batches-{name}" for name in ("bin", "py", "py2")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_binary(folders["bin"], batches_of_cifar)
    for name, (pixels, labels) in batches_of_cifar.items():
        (folders["py"] / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}))
        (folders["py2"] / name).write_bytes(pickle_as_python_2(pixels, labels))
    loaded = [data.load_cifar10(tmp_path / "bin"), data.load_cifar10(folders["py"]), data.load_cifar10(folders["py2"])]
    training = list(batches_of_cifar.values())[:5]
    expected = np.concatenate([pixels for pixels, _ in training]).reshape(-1, 3, 32, 32)
    for dataset in loaded:
        np.testing.assert_array_equal(dataset.x_train, expected / np.float32(255))
        assert dataset.x_train.dtype == np.float32
        assert dataset.y_train.tolist() == np.concatenate([batch[1] for batch in training]).tolist()
        assert dataset.y_test.tolist() == batches_of_cifar["test_batch"][1]
        assert dataset.class_names[6] == "frog"


class Malicious:
    def __reduce__(self):
        return os.system, ("echo broken > broken",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Malicious()}), r"data_batch_1: .*\(it asks for \w+\.system, which no batch"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]})[:-9], r"data_batch_1: is truncated"),
        (b"", r"data_batch_1: is truncated or not a batch of CIFAR-10"),
        (b"<html>", r"data_batch_1: is truncated or not a batch of CIFAR-10"),
        (pickle.dumps([1]), r"data_batch_1: has no data and labels"),
        (pickle.dumps({b"labels": [0]}), r"data_batch_1: has no data and labels"),
        (pickle.dumps({b"data": np.zeros((1, 9), np.uint8), b"labels": [0]}), r"shape \(1, 9\) and type uint8, expect"),
        (pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": np.arange(0)}), r"holds no images"),
    ],
)
def test_load_cifar10_refuses_broken_and_malicious_pickles(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(data.DataError, match=message):
        data.load_cifar10(tmp_path)
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("data_batch_1.bin", None, FileNotFoundError, r"data_batch_1\.bin: no such file; unpack cifar-10-binary\.tar"),
        ("data_batch_3.bin", None, FileNotFoundError, r"data_batch_3\.bin: no such file"),
        ("test_batch.bin", lambda c: c[:-1], data.DataError, r"test_batch\.bin: has 9218 bytes, expected a multiple"),
        ("test_batch.bin", lambda c: b"", data.DataError, r"test_batch\.bin: has 0 bytes, expected a multiple of 3073"),
        ("test_batch.bin", lambda c: b"\xff" + c[1:], data.DataError, r"has labels from \d to 255, CIFAR-10 has 0 to"),
    ],
)
def test_load_cifar10_names_the_file_and_what_is_wrong(cifar, name, change, error, message):
    path = cifar / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(error, match=message):
        data.load_cifar10(cifar)


def test_load_cifar10_names_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; give the one that holds data_batch_1\.bin"):
        data.load_cifar10(tmp_path / "nowhere")


# Batches


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_batches_cover_every_example_once_and_keep_pairs_together(size):
    x, y = np.arange(20).reshape(10, 2), np.arange(10)
    seen = []
    for inputs, targets in data.batches(x, y, size, rng=0):
        assert len(inputs) == len(targets) <= size
        np.testing.assert_array_equal(inputs[:, 0], 2 * targets)
        seen += targets.tolist()
    assert sorted(seen) == list(range(10))


def test_batches_come_in_order_without_a_generator_and_reproducibly_with_one():
    x = np.arange(50)
    np.testing.assert_array_equal(np.concatenate([a for a, _ in data.batches(x, x, 7)]), x)
    first, second = ([a.tolist() for a, _ in data.batches(x, x, 7, rng=3)] for _ in range(2))
    assert first == second
    assert first != [a.tolist() for a, _ in data.batches(x, x, 7, rng=4)]


def test_batches_of_nothing():
    assert list(data.batches(np.zeros((0, 2)), np.zeros(0), 4, rng=0)) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3), np.zeros(4), 2), ValueError, r"batches: x has 3 examples, but y has 4"),
        ((np.zeros(3), np.zeros(3), 0), ValueError, r"batches: size must be at least 1, got 0"),
        ((np.zeros(3), np.zeros(3), 1.5), TypeError, r"float"),
    ],
)
def test_batches_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        data.batches(*arguments)


# Augmentation


def test_random_crop_shifts_each_image_and_fills_with_zeros(rng, dtype):
    images = rng.random((200, 2, 5, 6)).astype(dtype) + 1
    shifted = data.random_crop(images, 2, np.random.default_rng(0))
    assert shifted.shape == images.shape
    assert shifted.dtype == dtype
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for before, after in zip(padded, shifted, strict=True):
        places = [(r, c) for r in range(5) for c in range(5) if (before[:, r : r + 5, c : c + 6] == after).all()]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25


def test_random_flip_mirrors_about_half_of_the_images(rng):
    images = rng.random((400, 1, 2, 3), np.float32)
    flipped = data.random_flip(images, np.random.default_rng(0))
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[..., ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_add_noise_has_the_deviation_asked_for(dtype):
    noise = data.add_noise(np.zeros((10, 1, 40, 40), dtype), 0.3, np.random.default_rng(0))
    assert noise.dtype == dtype
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.3) < 0.01


def test_augmentation_leaves_its_input_alone(rng):
    images = rng.random((8, 1, 6, 6), np.float32)
    images.flags.writeable = False
    data.random_crop(images, 1, rng)
    data.random_flip(images, rng)
    data.add_noise(images, 0.1, rng)


def test_random_crop_refuses_negative_padding(rng):
    with pytest.raises(ValueError, match=r"random_crop: padding must be at least 0, got -1"):
        data.random_crop(np.zeros((1, 1, 2, 2)), -1, rng)

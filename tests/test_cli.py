"""The command line: every command, in this process or in one of its own."""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import check, native
from fastnn.__main__ import COMMANDS, main
from fastnn.cli import session
from fastnn.training import load_checkpoint
from tests.test_data import write_idx

# info


def test_info_names_what_matters(capsys):
    assert main(["info"]) == 0
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["fastnn"].startswith(fastnn.__version__)
    assert facts["NumPy"] == np.__version__
    assert facts["backend"] == "native"
    assert native.runtime.isa() in facts["instruction set"]
    assert facts["OpenMP"].startswith(("yes", "no"))
    assert facts["threads"].startswith(f"{fastnn.get_num_threads()} of")
    for name in ("memory of arrays", "memory kept", "blocks of memory", "tqdm", "matplotlib", "safetensors"):
        assert name in facts


def test_info_shows_the_environment_variables_that_are_set(capsys, monkeypatch):
    monkeypatch.setenv("FASTNN_CONV_ALGORITHM", "im2col")
    monkeypatch.delenv("FASTNN_BACKEND", raising=False)
    main(["info"])
    out = capsys.readouterr().out
    assert re.search("^FASTNN_CONV_ALGORITHM +im2col$", out, re.MULTILINE)
    assert "FASTNN_BACKEND" not in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert COMMANDS[command][1].split()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FASTNN_ISA", "nonsense", "expected one of baseline.*, got 'nonsense'"),
        ("FASTNN_BACKEND", "nonsense", "expected 'native' or 'reference', got 'nonsense'"),
        (
            "FASTNN_CONV_ALGORITHM",
            "nonsense",
            "must be 'auto', 'im2col', 'direct', 'winograd' or 'fft', got 'nonsense'",
        ),
        ("FASTNN_NUM_THREADS", "0", "expected a whole number from 1 to 1024, got '0'"),
    ],
)
def test_a_wrong_environment_variable_ends_commands_with_one_line_and_imports_with_an_error(variable, value, message):
    folder = os.path.dirname(os.path.dirname(fastnn.__file__))
    environment = {**os.environ, "PYTHONPATH": folder, variable: value}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    for command in (("-m", "fastnn", "info"), ("-mfastnn",), ("-W", "ignore", "-m", "fastnn", "train")):
        done = run(*command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert re.fullmatch(rf"fastnn: {variable}:? {message}\n", done.stderr)
    done = run("-c", "import fastnn", "fastnn")
    assert done.returncode == 1
    assert re.search(rf"^ValueError: {variable}:? {message}$", done.stderr, re.MULTILINE)


def test_commands_say_in_one_line_that_the_source_tree_is_not_built(tmp_path):
    """As in a clone after `pip install .`: its folder comes before the installed package, and has no kernels."""
    folder = os.path.dirname(fastnn.__file__)
    shutil.copytree(folder, tmp_path / "fastnn", ignore=shutil.ignore_patterns("*.so", "__pycache__"))

    def run(*command, **environment):
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    cure = r"hides an installed fastnn: change to another folder, or build it here with `pip install -e \.`"
    for command in ("check", "bench", "demo", "train"):
        done = run("-m", "fastnn", command)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"fastnn: the compiled kernels cannot be loaded \(.*\); .* {cure}\n", done.stderr)
    done = run("-m", "fastnn", "info")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(cure, done.stdout)
    assert re.search(f"RuntimeWarning: fastnn runs on slow NumPy code: .*{cure}", run("-c", "import fastnn").stderr)
    slow = run("-m", "fastnn", "demo", "--epochs", "1", "--resume", "no.npz", FASTNN_BACKEND="reference")
    assert (slow.returncode, slow.stderr) == (1, "fastnn: no.npz: no such file\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number from 1 up, got '0'"),
        (["--batch-size", "1.5"], "argument --batch-size: must be a whole number from 1 up, got '1.5'"),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0 up, got '-1'"),
        (["--lr", "nan"], "argument --lr: must be a number above 0, got 'nan'"),
        (["--lr", "0"], "argument --lr: must be a number above 0, got '0'"),
        (["--lr", "fast"], "argument --lr: must be a number above 0, got 'fast'"),
        (["--threads", "99999"], r"argument --threads: must be at most \d+ on \d+ CPUs, got '99999'"),
    ],
)
@pytest.mark.parametrize("command", ["demo", "train"])
def test_wrong_numbers_are_wrong_usage(command, options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, *options])
    assert caught.value.code == 2
    assert re.search(rf"^python -m fastnn {command}: error: {message}$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--epochs", "0"], ["demo", "--threads", "x"]])
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m fastnn" in capsys.readouterr().err


def test_without_a_command_all_of_them_are_listed(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert set(COMMANDS) <= set(capsys.readouterr().err.split())


# check


def test_an_interrupt_is_told(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastnn.cli.info.run", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "\nfastnn: interrupted\n"


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        command = [sys.executable, "-m", "fastnn", "info"]
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(fastnn.__file__))}
        done = subprocess.run(command, env=environment, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_check_covers_every_compiled_kernel():
    results = list(check.run_checks())
    assert [result for result in results if not result.passed] == []
    used = set().union(*(result.kernels for result in results))
    kernels = {name for name, value in vars(native).items() if callable(value) and not name.startswith("_")}
    assert kernels - used - {"philox"} == set()  # philox itself is compared bit by bit in test_random.py


def test_check_passes_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr(check, "CASES", [case for case in check.CASES if case.name in {"relu", "linear"}])
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    for isa in native.runtime.available_isas():
        assert isa in out
    assert "4 of 4 within their bounds" in out


@pytest.mark.parametrize("broken", [lambda x: x, lambda x: x[:1], lambda x: x * np.nan, lambda x: 1 / 0])
def test_check_finds_broken_kernels(capsys, monkeypatch, broken):
    monkeypatch.setattr(check, "CASES", [case for case in check.CASES if case.name in {"relu", "linear"}])
    monkeypatch.setattr(native, "relu", broken)
    before = native.runtime.isa(), fastnn.get_backend()
    with np.errstate(all="ignore"):
        assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^relu .* FAILED", out, re.MULTILINE)
    assert "FAILED: relu\n" in out or "FAILED: relu, relu_backward\n" in out
    assert (native.runtime.isa(), fastnn.get_backend()) == before


def test_check_measures_the_largest_error_over_the_rms():
    assert check.error(np.array([3.0, 4.5], np.float32), np.array([3.0, 4.0])) == pytest.approx(0.5 / np.sqrt(12.5))
    assert check.error(np.zeros(3), np.zeros(3)) == 0
    assert check.error(np.zeros(0), np.zeros(0)) == 0
    assert check.error(np.ones(3), np.zeros(3)) == np.inf
    assert check.error(np.array([np.nan]), np.array([1.0])) == np.inf
    assert check.error(np.array([1.0]), np.array([np.nan])) == np.inf
    assert check.error(np.array([np.inf, 2]), np.array([np.inf, 2])) == 0


def test_check_needs_numpy_alone(tmp_path):
    """As on a user's machine: no test folder, no optional package."""
    program = (
        "import sys\n"
        "for name in ('pytest', 'torch', 'scipy', 'matplotlib', 'tqdm', 'safetensors'): sys.modules[name] = None\n"
        "from fastnn import check\n"
        "check.CASES = check.CASES[:2]\n"
        "from fastnn.__main__ import main\n"
        "sys.exit(main(['check']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(fastnn.__file__))}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "within their bounds" in done.stdout


# demo and train


def fastnn_command(*arguments, **options):
    """The command in a process of its own."""
    folder = os.path.dirname(os.path.dirname(fastnn.__file__))
    environment = {**os.environ, "PYTHONPATH": folder, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fastnn", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_demo_writes_weights_checkpoint_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["demo", "--epochs", "1", "--threads", "1", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "61,706 parameters, 1,352 images to train with, 445 to test with" in out
    assert float(re.search(r"test accuracy (\S+) %", out)[1]) > 30
    assert re.search(r"^ +epoch +loss +accuracy +test loss +accuracy ", out, re.MULTILINE)
    assert "validation" not in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"checkpoint.npz", "weights.npz", "report.png"}
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_demo_reaches_98_percent(tmp_path, capsys):
    assert main(["demo", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert float(re.search(r"test accuracy (\S+) %", capsys.readouterr().out)[1]) >= 98


def test_demo_says_what_is_missing_for_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "fastnn.training.plots", raising=False)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    assert main(["demo", "--epochs", "1", "--threads", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "no picture: matplotlib is not installed" in out
    assert "no weights.safetensors: safetensors is not installed" in out
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.npz", "weights.npz"}


def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_end(tmp_path):
    options = ["--epochs", "4", "--threads", "1"]
    process = fastnn_command("demo", *options, "--out", tmp_path / "stopped")
    lines = [process.stdout.readline() for _ in range(5)]  # up to the first epoch's
    assert "1/4" in lines[-1]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (rest, errors)
    assert re.search(
        r"fastnn: interrupted in epoch \d of 4; everything up to here is saved in .*checkpoint\.npz", errors
    )
    assert "Traceback" not in errors
    checkpoint = tmp_path / "stopped" / "checkpoint.npz"
    assert f"--resume {checkpoint}" in errors
    assert 1 <= load_checkpoint(checkpoint)["epoch"] < 4

    outputs = []
    for resume in (["--resume", checkpoint], []):
        process = fastnn_command("demo", *options, *resume, "--out", tmp_path / f"complete{len(resume)}")
        rest, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        outputs.append(np.load(tmp_path / f"complete{len(resume)}" / "weights.npz"))
    for name in outputs[0]:
        np.testing.assert_array_equal(outputs[0][name], outputs[1][name])


@pytest.fixture
def squares(tmp_path):
    """A data set in MNIST's files that is learnt at once: where a bright square stands."""
    folder = tmp_path / "squares"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in [("train", 400), ("t10k", 80)]:
        labels = rng.integers(0, 4, count).astype(np.uint8)
        images = rng.integers(0, 100, (count, 12, 12), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[6 * (label // 2) :, 6 * (label % 2) :][:6, :6] += 150
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def test_train_learns_from_idx_files(squares, tmp_path, capsys):
    arguments = ["train", "--data", str(squares), "--out", str(tmp_path / "out"), "--epochs", "3", "--threads", "1"]
    arguments += ["--batch-size", "32"]
    assert main(arguments) == 0
    assert "test accuracy 100.00 % (80 of 80 images)" in capsys.readouterr().out
    assert (tmp_path / "out" / "weights.npz").exists()


@pytest.mark.parametrize("version", ["bin", "py"])
def test_train_takes_cifar10(tmp_path, capsys, version):
    import pickle

    rng = np.random.default_rng(0)
    folder = tmp_path / f"cifar-10-batches-{version}"
    folder.mkdir()
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]:
        labels = rng.integers(0, 10, 20)
        pixels = rng.integers(0, 256, (20, 3072), np.uint8)
        if version == "bin":
            records = np.concatenate([labels.astype(np.uint8)[:, None], pixels], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels.tolist()}))
    assert (
        main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--epochs", "1", "--threads", "1"]) == 0
    )
    assert "100 images to train with, 20 to test with" in capsys.readouterr().out


def test_train_replaces_an_earlier_run_only_when_it_is_told_to(squares, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["train", "--data", str(squares), "--out", str(out), "--threads", "1", "--epochs"]
    assert main([*arguments, "2"]) == 0
    assert f"written: {out / 'checkpoint.npz'}\n" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.iterdir()}

    assert main([*arguments, "1"]) == 2
    assert re.fullmatch(
        r"fastnn: .*out: holds the results of an earlier run; give another --out, --overwrite to replace them, "
        r"or --resume .*checkpoint\.npz to go on\n",
        capsys.readouterr().err,
    )
    resume = ["--resume", str(out / "checkpoint.npz")]
    assert main([*arguments, "1", *resume]) == 1
    assert "is already finished after 2 epochs" in capsys.readouterr().err
    assert main(["demo", "--out", str(out), *resume]) == 1
    assert "is the checkpoint of another model" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before

    (out / "report.png").write_text("of the earlier run")
    assert main([*arguments, "3", *resume]) == 0
    assert load_checkpoint(out / "checkpoint.npz")["epoch"] == 3
    (out / "weights.npz").write_text("of the earlier run")
    with np.errstate(all="ignore"):
        assert main([*arguments, "1", "--overwrite", "--lr", "1e30"]) == 1
    assert f"replaces the results of an earlier run in {out}\n" in capsys.readouterr().out
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--data", "my files"], ["train", "--data", "my files"]),
        (["demo", "--resume", "a.npz", "--epochs", "3"], ["demo", "--epochs", "3"]),
        (["demo", "--resume=a.npz", "--resume", "b.npz"], ["demo"]),
    ],
)
def test_the_command_to_go_on_names_one_checkpoint_by_its_whole_path(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = argparse.Namespace(words=words, out=Path("out"))
    command = shlex.split(session.command_to_resume(arguments))
    assert command[1:] == ["-m", "fastnn", *expected, "--resume", str(tmp_path.resolve() / "out" / "checkpoint.npz")]


def no_such_folder(folder):
    return ["--data", folder / "nowhere"]


def an_empty_folder(folder):
    (folder / "empty").mkdir()
    return ["--data", folder / "empty"]


def one_file_of_cifar10(folder):
    (folder / "part").mkdir()
    (folder / "part" / "test_batch.bin").write_bytes(b"")
    return ["--data", folder / "part"]


def one_folder_too_high(folder):
    return ["--data", folder.parent]


def no_such_checkpoint(folder):
    return ["--data", folder, "--resume", folder / "no.npz"]


def labels_for_a_checkpoint(folder):
    return ["--data", folder, "--resume", folder / "train-labels-idx1-ubyte.gz"]


def text_for_a_checkpoint(folder):
    (folder / "ten.py").write_text("ten = 10\n")
    return ["--data", folder, "--resume", folder / "ten.py"]


def a_folder_for_a_checkpoint(folder):
    return ["--data", folder / "nowhere", "--resume", folder]


def a_file_for_the_results(folder):
    (folder / "notes").write_text("")
    return ["--data", folder / "nowhere", "--out", folder / "notes" / "run"]


def an_empty_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    return ["--data", folder]


def a_huge_rate(folder):
    return ["--data", folder, "--lr", "1e30"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (no_such_folder, r"fastnn: .*nowhere: no such folder; give one that holds the files of MNIST's format"),
        (
            an_empty_folder,
            r"fastnn: .*empty: holds no data set; looked for .*train-images-idx3-ubyte, .* plain or \.gz.* or "
            r".*CIFAR-10 \(data_batch_1\.bin .*without \.bin for the Python version",
        ),
        (one_file_of_cifar10, r"fastnn: .*part/data_batch_1\.bin: no such file; unpack cifar-10-binary"),
        (one_folder_too_high, r"fastnn: .*: no such file; it stands in .*squares, give that folder"),
        (no_such_checkpoint, r"fastnn: .*no\.npz: no such file"),
        (labels_for_a_checkpoint, r"fastnn: .*train-labels-idx1-ubyte\.gz: is damaged or not a checkpoint(?=\n)"),
        (text_for_a_checkpoint, r"fastnn: .*ten\.py: is damaged or not a checkpoint(?=\n)"),
        (a_folder_for_a_checkpoint, r"fastnn: .*: is a folder, not a checkpoint(?=\n)"),
        (a_file_for_the_results, r"fastnn: .*notes: is a file, not a folder; give another --out(?=\n)"),
        (an_empty_file, r"fastnn: .*t10k-labels-idx1-ubyte\.gz: is not an IDX file"),
        (a_huge_rate, r"fastnn: fit: the loss is (nan|inf) in epoch 1, batch \d"),
    ],
)
def test_train_ends_with_one_line_that_says_what_is_wrong(squares, tmp_path, capsys, options, message):
    arguments = ["train", "--out", str(tmp_path / "out"), *map(str, options(squares))]
    with np.errstate(all="ignore"):
        assert main(arguments) == 1
    assert re.fullmatch(message + r".*\n", capsys.readouterr().err)

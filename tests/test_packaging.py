"""What is shipped: a source distribution that builds, a small wheel, and a build without OpenMP."""

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds the source distribution for all


def run(*command, cwd=None, **environment):
    environment = {**os.environ, **environment}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip_wheel(source, folder, **environment):
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(source), **environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpacked(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution as setuptools makes it, unpacked: what is not listed in it is missing here."""
    folder = tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(
        ".git*", ".venv", ".*_cache", ".hypothesis", "build", "dist", "runs", "*.so", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, folder / "checkout", ignore=left_out)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(folder / "checkout"))
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return source


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    return pip_wheel(sdist, tmp_path_factory.mktemp("wheel"))


def test_wheel_built_from_the_sdist_is_small_and_complete(wheel):
    assert wheel.stat().st_size < 3_000_000
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("fastnn/py.typed", "fastnn/data/digits-images-idx3-ubyte.gz", "fastnn/data/README.md"):
        assert needed in names
    assert not [name for name in names if name.startswith("tests/") or name.endswith((".c", ".h", ".pyx"))]


def test_sdist_has_what_its_readme_and_makefile_point_to(sdist):
    for name in ("docs/demo.png", "docs/nn.md", "CONTRIBUTING.md", "CHANGELOG.md", ".clang-format", "tests/arm64.c"):
        assert (sdist / name).is_file(), name


def test_wheel_passes_its_own_check_with_numpy_alone(wheel, tmp_path):
    """`python -m fastnn check` in an environment that has NumPy and the wheel, nothing else."""
    import numpy

    site = unpacked(wheel, tmp_path)
    os.symlink(Path(numpy.__file__).parent, site / "numpy")
    libraries = Path(numpy.__file__).parent.parent / "numpy.libs"
    if libraries.exists():
        os.symlink(libraries, site / "numpy.libs")
    output = run(sys.executable, "-S", "-m", "fastnn", "check", cwd=site)
    assert "conv" in output


def test_builds_and_runs_without_openmp(sdist, tmp_path):
    """A compiler that knows neither OpenMP nor AVX (and is fast): the package runs on one thread and says so.

    In the folder of the build before, whose extensions must not be taken for this compiler's.
    """
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in *openmp*|-mavx*) exit 1;; esac; done\nexec cc "$@" -O0\n'
    )
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    wheel = pip_wheel(sdist, tmp_path / "wheel", CC=str(compiler))
    site = unpacked(wheel, tmp_path / "site")
    info = run(sys.executable, "-m", "fastnn", "info", cwd=site, FASTNN_NUM_THREADS="2")
    facts = dict(line.split("  ", 1) for line in info.splitlines())
    assert facts["OpenMP"].strip() == "no: built without OpenMP, runs on one thread"
    assert facts["threads"].strip().startswith("1 of")
    program = (
        "import numpy as np, fastnn, fastnn.functional as F\n"
        "from fastnn.native import runtime\n"
        "assert not runtime.openmp() and fastnn.get_num_threads() == 1\n"
        "print(F.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))).item())\n"
    )
    assert run(sys.executable, "-c", program, cwd=site).split() == ["9.0"]

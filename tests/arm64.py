"""Programs for arm64: built by a cross compiler and run in an emulator, where both are installed."""

import os
import shutil
import subprocess

import pytest

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def compile_for_arm64(*arguments):
    if not (shutil.which(COMPILER) and shutil.which(EMULATOR)):
        pytest.skip(
            f"needs {COMPILER} and {EMULATOR} (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)"
        )
    flags = ["-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi", "-Wall", "-Wextra", "-Werror"]
    command = [COMPILER, *flags, "-Wno-unused-function", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_on_arm64(*command, **options):
    """Runs a program that is linked statically; options are subprocess.run's."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [EMULATOR, *map(str, command)]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120, **options)

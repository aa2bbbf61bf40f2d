"""The core for arm64, whose plainest table runs on NEON: it compiles without a warning, and its kernels are right."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.arm64 import compile_for_arm64, run_on_arm64

pytestmark = pytest.mark.xdist_group("arm64")  # one worker builds the core

CORE = Path(__file__).parents[1] / "csrc"
MACROS = {"f32": [], "f64": ["-DFASTNN_F64"]}


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """All objects of the core, as setup.py compiles them for a CPU that has one table."""
    folder = tmp_path_factory.mktemp("arm64")
    compile_for_arm64("-O3", "-c", CORE / "dispatch.c", "-o", folder / "dispatch.o")
    jobs = [
        ["-O3", f"-DFASTNN_VARIANT={name}_baseline", *macros, "-c", source, "-o", folder / f"{source.stem}_{name}.o"]
        for source in CORE.glob("*.c")
        if source.name != "dispatch.c"
        for name, macros in MACROS.items()
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: compile_for_arm64(*job), jobs))
    return sorted(folder.glob("*.o"))


def test_kernels_are_right_on_arm64(core, dtype, tmp_path):
    name = {np.float32: "f32", np.float64: "f64"}[dtype.type]
    program = tmp_path / "arm64"
    source = Path(__file__).with_name("arm64.c")
    compile_for_arm64("-O2", f"-I{CORE}", *MACROS[name], source, *core, "-static", "-lm", "-o", program)
    done = run_on_arm64(program, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    convolutions = (
        "conv",
        "direct",
        "winograd",
        "channels in lanes",
        "channels last",
        "fft",
        "pixels",
        "patches",
        "grouped",
        "depthwise, as any groups",
        "depthwise, channels last",
        "depthwise, channels first",
    )
    for kernel in ("gemm", *convolutions, "gelu", "softmax", "layer_norm"):
        assert kernel in done.stdout

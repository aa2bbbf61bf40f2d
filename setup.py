"""Builds the C core once per instruction set and dtype, and the Cython extensions that use it.

The core (csrc/) is linked into fastnn.native.runtime alone; the other extensions take the chosen tables from there.
Everything static about the package stands in pyproject.toml.
"""

import copy
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
# The glue is as fast with -O2, and the wheel 3 % smaller.
GLUE_FLAGS = ["-O2"]
COMMON_FLAGS = ["-g0", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wno-psabi"]
# Nobody reads errno: without it a loop of square roots over lanes becomes one vector instruction. GCC's copies of
# functions for constant arguments, of which those that matter are inlined, are 4 % of the wheel.
CORE_FLAGS = ["-O3", "-fno-ipa-cp-clone", "-std=gnu11", "-fno-math-errno", "-Wextra", "-Wno-unused-function"]
# Written in vectors, and as fast with -O2, which makes a third to a half less of them.
SMALL_SOURCES = {"layout.c", "optim.c", "pixels.c", "softmax.c"}
DTYPES = {"f32": [], "f64": ["-DFASTNN_F64"]}
# The widest last. A variant is built where the compiler can build it for the target.
X86_VARIANTS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
# Bounds stay checked: Cython only ever indexes small Python sequences, elements are C's business.
CYTHON_DIRECTIVES = {"language_level": 3, "cdivision": True, "embedsignature": True}


class BuildExtensions(build_ext):
    """Adds the C core and OpenMP, found by compiling tiny programs with the compiler that builds the extensions."""

    def build_extensions(self):
        openmp_compile, openmp_link = self.find_openmp()
        if not self.inplace and sys.platform == "linux":  # a wheel 3 % smaller; profilers of a checkout want the names
            openmp_link = [*openmp_link, "-Wl,--strip-all"]
        macros = [("FASTNN_OPENMP", str(int(bool(openmp_compile))))]
        self.stamp = self.write_stamp(openmp_compile)
        translated = {extension.name: extension for extension in self.translate()}
        for extension in self.extensions:
            extension.sources = translated[extension.name].sources
            extension.depends = [*translated[extension.name].depends, str(self.stamp)]
            extension.extra_compile_args += [*COMMON_FLAGS, *GLUE_FLAGS, *openmp_compile]
            extension.extra_link_args += openmp_link
            extension.define_macros += macros
            if extension.name == "fastnn.native.runtime":
                extension.extra_objects += self.compile_core()
                extension.depends += extension.extra_objects  # or an edited kernel would not be linked anew
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()

    def translate(self):
        """From Cython to C. Done here and not in setup(), which also runs for metadata and source distributions."""
        return cythonize(
            [copy.copy(extension) for extension in self.extensions],
            compiler_directives=CYTHON_DIRECTIVES,
            include_path=["csrc"],
            build_dir="build/cython",
        )

    def write_stamp(self, openmp_compile):
        """A file newer than everything that another compiler, or other flags, have built in this folder."""
        stamp = Path(self.build_temp) / "compiler"
        text = repr((self.compiler.compiler_so, self.compiler.linker_so, openmp_compile))
        if not stamp.exists() or stamp.read_text() != text:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text)
        return stamp

    def compile_core(self):
        variants = {"baseline": []}
        if self.compiles("#ifndef __x86_64__\n#error not x86-64\n#endif\n"):
            variants.update({name: flags for name, flags in X86_VARIANTS.items() if self.compiles("", flags)})
        sources = sorted(path for path in (ROOT / "csrc").glob("*.c") if path.name != "dispatch.c")
        jobs = [
            (source, f"{dtype}_{isa}", [f"-DFASTNN_VARIANT={dtype}_{isa}", *dtype_flags, *isa_flags])
            for source in sources
            for dtype, dtype_flags in DTYPES.items()
            for isa, isa_flags in variants.items()
        ]
        have = [f"-DFASTNN_HAVE_{isa.upper()}" for isa in variants]
        jobs.append((ROOT / "csrc" / "dispatch.c", "dispatch", have))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda job: self.compile_core_file(*job), jobs))

    def compile_core_file(self, source, variant, flags):
        """One object; an object newer than its source, every header and the compiler's stamp is kept."""
        output = Path(self.build_temp) / variant
        built = output / source.relative_to(ROOT).with_suffix(".o")
        inputs = [source, *source.parent.glob("*.h"), Path(__file__), self.stamp]
        if not built.exists() or built.stat().st_mtime < max(path.stat().st_mtime for path in inputs):
            path = os.path.relpath(source)
            size = ["-O2"] if source.name in SMALL_SOURCES else []
            self.compiler.compile([path], str(output), extra_postargs=[*COMMON_FLAGS, *CORE_FLAGS, *size, *flags])
        return str(built)

    def find_openmp(self):
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        for compile_flags, link_flags in [
            (["-fopenmp"], ["-fopenmp"]),
            (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple clang with libomp
        ]:
            if self.compiles(program, compile_flags, link_flags):
                return compile_flags, link_flags
        print("fastnn: the compiler has no OpenMP; building for one thread")
        return [], []

    def compiles(self, program, flags=(), link_flags=None):
        """Whether the compiler takes this program with these flags (and links it, where link flags are given)."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(program or "int probe;\n")
            command = [*self.compiler.compiler_so, *flags, "-c", str(source), "-o", f"{folder}/probe.o"]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return False
            if link_flags is None:
                return True
            environment_flags = shlex.split(os.environ.get("LDFLAGS", ""))  # which linker_exe may not have
            command = [*self.compiler.linker_exe, *environment_flags, f"{folder}/probe.o", *link_flags]
            return subprocess.run([*command, "-o", f"{folder}/probe"], capture_output=True, check=False).returncode == 0


def extension(path):
    return Extension(
        ".".join(path.relative_to(ROOT).with_suffix("").parts),
        [str(path.relative_to(ROOT))],
        include_dirs=["csrc", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )


setup(
    ext_modules=[extension(path) for path in sorted((ROOT / "fastnn" / "native").glob("*.pyx"))],
    cmdclass={"build_ext": BuildExtensions},
)

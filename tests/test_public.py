"""The public names: all listed in docs/functions.md, all explained, and the same in every implementation."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from fastnn import native, reference

MODULES = [
    "fastnn",
    "fastnn.functional",
    "fastnn.nn",
    "fastnn.nn.init",
    "fastnn.optim",
    "fastnn.optim.lr_scheduler",
    "fastnn.data",
    "fastnn.training",
    "fastnn.models",
]
LIST = Path(__file__).parent.parent / "docs" / "functions.md"


def public(module):
    """Pairs of name and function or class."""
    module = importlib.import_module(module)
    objects = [(name, getattr(module, name)) for name in module.__all__]
    return [(name, value) for name, value in objects if not inspect.ismodule(value)]


def listed(module):
    """The names, with their signatures, that the list has for this module: what stands between backticks."""
    sections = dict(section.split("\n", 1) for section in LIST.read_text().split("\n## ")[1:])
    lines = [line for line in sections[module].splitlines() if line.startswith("- ")]
    return [entry for line in lines for entry in re.findall(r"`([^`]+)`", line)]


def as_listed(name, value):
    """A name with its signature, without annotations; an exception's name alone."""
    if isinstance(value, type) and issubclass(value, BaseException):
        return name
    return name + re.sub(r": [A-Za-z.]+(?=[,)])", "", str(inspect.signature(value)))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_list_with_its_signature(module):
    entries, names = listed(module), [name for name, _ in public(module)]
    for name, value in public(module):
        backward = name.endswith("_backward") and name.removesuffix("_backward") in names
        expected = name if backward else as_listed(name, value)
        assert expected in entries, f"docs/functions.md: {module} lacks `{expected}`"


@pytest.mark.parametrize("module", MODULES)
def test_the_list_says_of_all_names_of_one_function_but_one_that_they_are_another_name(module):
    objects: dict = {}
    for name, value in public(module):
        objects.setdefault(value, []).append(name)
    sections = dict(section.split("\n", 1) for section in LIST.read_text().split("\n## ")[1:])
    lines = {line.split("`")[1].split("(")[0]: line for line in sections[module].splitlines() if line.startswith("- ")}
    for names in objects.values():
        if not names[0].endswith("_backward"):  # those stand in the line of their forward
            assert sum("Another name for" in lines[name] for name in names if name in lines) == len(names) - 1, names


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring_with_an_example(module):
    for name, value in public(module):
        assert value.__doc__, f"{module}.{name} has no docstring"
        if callable(value):
            for part in ("Examples\n", ">>> "):
                assert part in value.__doc__, f"{module}.{name} has no example"


def test_a_native_function_takes_the_arguments_of_its_namesake_in_reference():
    functions = {name: value for name, value in vars(native).items() if callable(value)}
    assert len(functions) > 80
    for name, function in functions.items():
        expected = inspect.signature(getattr(reference, name)).parameters
        given = inspect.signature(function).parameters
        assert list(given) == list(expected)[: len(given)], name
        # What only the reference takes is optional.
        assert all(parameter.default is not parameter.empty for parameter in list(expected.values())[len(given) :]), (
            name
        )


def test_the_tests_that_the_theory_names_exist():
    text = (LIST.parent / "theory.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 50
    assert len(named) == text.count("`test_")
    for file, test in named:
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), f"{file}::{test}"


def test_the_names_that_the_theory_gives_exist():
    text = (LIST.parent / "theory.md").read_text()
    spaces = {"F": "fastnn.functional", "nn": "fastnn.nn", "optim": "fastnn.optim", "models": "fastnn.models"}
    for space, name in re.findall(r"`(F|nn|optim|models)\.(\w+)", text):
        assert hasattr(importlib.import_module(spaces[space]), name), f"{space}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_every_method_of_a_public_class_has_a_docstring(module):
    for name, value in public(module):
        for method, function in inspect.getmembers(value, inspect.isfunction) if isinstance(value, type) else []:
            if not method.startswith("_"):
                assert inspect.getdoc(function), f"{module}.{name}.{method} has no docstring"


def test_the_architecture_names_every_source_file_of_the_families():
    text = (LIST.parent / "architecture.md").read_text()
    root = LIST.parent.parent
    files = [*root.glob("csrc/*.c"), *root.glob("fastnn/native/*.pyx")]
    files += [path for folder in ("reference", "functional") for path in root.glob(f"fastnn/{folder}/[a-z]*.py")]
    assert len(files) > 50
    for path in files:
        assert re.search(rf"\b{path.stem}\b", text), f"docs/architecture.md does not name {path.name}"

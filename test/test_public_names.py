"""The names that `nodulemc` exports, and their examples."""

import ast
import doctest
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nodulemc

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = [
    example
    for thing in (nodulemc, *(getattr(nodulemc, name) for name in nodulemc.__all__))
    for example in doctest.DocTestFinder(recurse=False).find(thing)
    if example.examples
]


def test_the_public_names_are_these_and_those_that_type_checkers_see():
    errors = {name for name, _ in inspect.getmembers(import_module("nodulemc.errors"), inspect.isclass)}
    assert set(nodulemc.__all__) == {
        "Ensemble", "Nodule", "NodulePrediction", "Volume", "predict", "read_volume", *errors
    }  # fmt: skip
    homes = {
        alias.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(nodulemc)))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("nodulemc.")
        for alias in node.names
    }
    assert homes == {name: getattr(nodulemc, name).__module__ for name in nodulemc.__all__}
    assert {*nodulemc.__all__} <= {*dir(nodulemc)}


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="module 'nodulemc' has no attribute 'Ensembel'"):
        _ = nodulemc.Ensembel


def test_the_import_loads_nothing_else():
    program = "import sys, typing, importlib; before = {*sys.modules}; import nodulemc; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.stdout.split(), done.stderr) == (["nodulemc"], "")


@pytest.mark.parametrize("name", nodulemc.__all__)
def test_each_has_an_example_or_is_one_of_the_errors(name):
    thing = getattr(nodulemc, name)
    assert thing.__doc__
    assert name in {example.name for example in EXAMPLES} or issubclass(thing, nodulemc.NoduleMCError)


@pytest.mark.heavy
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples(example, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    said = []
    found = doctest.DocTestRunner().run(example, out=said.append)
    assert found.failed == 0, "".join(said)

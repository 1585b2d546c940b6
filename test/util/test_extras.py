"""Commands where an extra is not installed: each says so in one line before it begins, or does without."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import metadata, packages_distributions, requires
from pathlib import Path

import pytest
import SimpleITK as sitk
from conftest import centre_of, make_ct
from ensembles import make_untrained_ensemble

from nodulemc import cli
from nodulemc.errors import ConfigError
from nodulemc.program import exit_code_of
from nodulemc.util.extras import MODULES, check_extra

REPOSITORY = Path(__file__).resolve().parents[2]
# Words of a command line whose inputs do not exist, and the extra that it needs.
COMMANDS = [
    ("predict none --points none", None),
    ("predict . --points . --dicom out", "dicom"),
    ("import-reference none --output out", None),
    ("prepare --table none --ct none --nodule-masks none --output out", "train"),
    ("split none --seed 1 --output out.json", None),
    ("split none --seed 1 --output out.json --scheme kfold", "train"),
    ("split . --seed 1 --output out.json", "train"),
    ("train none --store none --split none --output out", "train"),
    ("phantom --output out --patients 1 --seed 1 --into none", "train"),
    ("evaluate none --output out", "report"),
    ("evaluate --store none --output out", "report"),
    ("evaluate --store none --output out", "train"),
    ("compare none none", "report"),
    ("calibrate none --method platt --resources none", "report"),
    ("cohort none --output out", "cohort"),
    ("cohort none --output out --engine ray", "ray"),
    ("cohort-status none", None),
    ("cohort-export none", "cohort"),
    ("serve --port 0 --output out", "serve"),
    ("bench --resources none", None),
]
EVERYTHING = sorted({module for modules in MODULES.values() for module in modules})
# As if the modules were not installed: a finder that raised would be seen by `find_spec`, too.
PROGRAM = """
import contextlib, io, json, sys
missing, lines = json.loads(sys.argv[1])
finders = list(sys.meta_path)
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in missing:
            return next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
sys.meta_path[:] = [Finder]
from nodulemc.cli import main
results = []
for line in lines:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line)
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def run_without(missing, lines, folder) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of command lines where modules are missing."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([list(missing), lines])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_command_is_tried():
    assert {line.split()[0] for line, _ in COMMANDS} == set(cli.COMMANDS)


@pytest.mark.heavy
@pytest.mark.parametrize("extra", sorted({extra for _, extra in COMMANDS if extra}))
def test_a_missing_extra_is_one_line_before_any_work(extra, tmp_path):
    lines = [line.split() for line, needed in COMMANDS if needed == extra]
    for line, (code, out, err) in zip(lines, run_without(MODULES[extra], lines, tmp_path), strict=True):
        assert (code, out, err.count("\n")) == (2, "", 1), (line, err)
        module = err.removeprefix("error: ").partition(" cannot be imported (")[0]
        assert module in MODULES[extra]
        holders = [name for name, modules in MODULES.items() if module in modules]  # scikit-learn comes with two
        assert err.endswith(tuple(f": {name}: pip install 'nodulemc[{name}]'\n" for name in holders))
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_the_other_commands_need_no_extra(tmp_path):
    lines = [line.split() for line, needed in COMMANDS if needed is None]
    for line, (code, _, err) in zip(lines, run_without(EVERYTHING, lines, tmp_path), strict=True):
        assert (code, err.count("\n")) == (2, 1), (line, err)
        assert "pip install" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", EVERYTHING)
def test_an_import_that_fails_amid_the_work_names_the_extra(module, capsys):
    def work():
        raise ModuleNotFoundError(f"No module named '{module}.part'", name=f"{module}.part")

    assert exit_code_of(work) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {module} cannot be imported (")
    first = next(name for name, modules in MODULES.items() if module in modules)
    assert err.endswith(f": {first}: pip install 'nodulemc[{first}]'\n")
    with pytest.raises(ModuleNotFoundError):
        exit_code_of(lambda: __import__("nodulemc.nothing"))


@pytest.mark.parametrize(
    ("imports", "package"), [("nothing_of_this_name", "nothing_of_this_name"), ("json.none", "json")]
)
def test_the_missing_module_is_named_not_the_one_that_imports_it(tmp_path, monkeypatch, imports, package):
    (tmp_path / "importing_others.py").write_text(f"import {imports}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"^{package} cannot be imported \(No module .*: train: pip install 'nodulemc\["
    ):
        check_extra("train", "importing_others")


@pytest.mark.heavy
def test_scoring_needs_no_extra(tmp_path):
    """As installed from `requirements.txt` but for the fast CPU runtime."""
    make_untrained_ensemble(tmp_path / "ensemble", upscales=False)
    sitk.WriteImage(make_ct(), str(tmp_path / "ct.nii.gz"))
    points = {"points": [{"name": "a", "point": list(centre_of(make_ct()))}]}
    (tmp_path / "points.json").write_text(json.dumps(points))
    lines = ["predict ct.nii.gz --points points.json --resources ensemble --device cpu",
             "bench --nodules 1 --resources ensemble --device cpu"]  # fmt: skip
    (first, table, _), (second, speed, _) = run_without(EVERYTHING, [line.split() for line in lines], tmp_path)
    assert (first, second) == (0, 0)
    assert "probability" in table
    assert "nodule " in speed


def imported() -> set[str]:
    """Top-level modules that this package imports somewhere."""
    found = set()
    for path in (REPOSITORY / "nodulemc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    return {name.partition(".")[0] for name in found}


def plain(name: str) -> str:
    return name.lower().replace("-", "_")


@pytest.mark.heavy
def test_every_import_is_of_a_known_package():
    required = {plain(re.match(r"[\w.-]+", text)[0]) for text in requires("nodulemc") if "extra ==" not in text}
    names = imported() - sys.stdlib_module_names - {"nodulemc"}
    distributions = packages_distributions()
    base = {name for name in names if {*map(plain, distributions[name])} & required}
    assert {"numpy", "torch", "SimpleITK"} <= base
    assert names - base <= set(EVERYTHING)
    assert set(MODULES) == set(metadata("nodulemc").get_all("Provides-Extra")) - {"all", "dev", "docs"}

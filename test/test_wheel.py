"""The package as `pip install .` gives it: built from its source archive, installed into an environment of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from nodulemc.output.multiple_points import OUTPUT_NAME

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("nodulemc", "resources", "pyproject.toml", "setup.py", "README.md", "LICENSE")
INPUT = REPOSITORY / "test" / "input"
BUILD = "from setuptools.build_meta import build_sdist; build_sdist('dist')"


def run(*command, cwd) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments, cwd) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, folder / "source" / name)
    run(sys.executable, "-c", BUILD, cwd=folder / "source")
    (archive,) = (folder / "source" / "dist").iterdir()
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, archive, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_all_code_and_the_packaged_ensemble(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
        manifest = json.loads(content.read("nodulemc/resources/ensemble.json"))
        for member in manifest["members"]:
            seed = content.read(f"nodulemc/resources/{member['file']}")
            assert hashlib.sha256(seed).hexdigest() == member["sha256"]
    tracked = run(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", "nodulemc", "resources", cwd=REPOSITORY
    ).splitlines()
    assert names == {name if name.startswith("nodulemc/") else f"nodulemc/{name}" for name in tracked}


def test_installed_into_an_empty_environment_it_predicts(wheel, tmp_path):
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # Third-party libraries are the tests' own. Path files in there, such as this checkout's, have no effect.
    (packages / "third_party.pth").write_text(f"{sysconfig.get_path('purelib')}{os.linesep}")
    run(environment / "bin" / "nodulemc", "predict", INPUT / "images" / "chest-ct" / "ct.mha", "--points",
        INPUT / "nodule-locations.json", "--device", "cpu", "--output", "p.json", cwd=tmp_path)  # fmt: skip
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["ensemble"]["path"] == str(packages / "nodulemc" / "resources")
    expected = json.loads((REPOSITORY / "test" / "expected" / OUTPUT_NAME).read_text())
    for result, truth in zip(found["points"], expected["points"], strict=True):
        assert result["name"] == truth["name"]
        assert result["probability"] == pytest.approx(truth["probability"], abs=0.005)

"""Other people's programs that judge DICOM objects (Debian: dicom3tools; PyPI: dcmqi)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def program(name: str, package: str) -> str:
    """A program's path; skips the test where it is not installed, except in CI."""
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    )
    if found is None:
        absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        absent(f"no {name}: install {package}")
    return found


def faults(file: Path) -> list[str]:
    """What dciodvfy has against a DICOM object, but for what an object's own DICOMDIR would need."""
    command = [program("dciodvfy", "dicom3tools"), "-new", file]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    assert any(line in ("Segmentation", "Comprehensive3DSR", "CTImage", "EnhancedCTImage") for line in said), said
    return [line for line in said if line.startswith(("Error", "Warning")) and "DICOMDIR" not in line]

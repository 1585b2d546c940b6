"""The lock files pin what requirements.txt pins, each with hashes."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BASE_IMAGE_BRINGS = {"torch"}


def pinned(name: str) -> set[tuple[str, str]]:
    found = re.findall(r"^([\w.-]+)==([\w.+]+)", (REPOSITORY / name).read_text(), re.MULTILINE)
    return {(package.lower(), version) for package, version in found}


@pytest.mark.parametrize(
    ("lock", "without"), [("requirements.lock", BASE_IMAGE_BRINGS), ("requirements-test.lock", set())]
)
def test_the_lock_holds_what_is_pinned_and_hashes_everything(lock, without):
    stated = {(package, version) for package, version in pinned("requirements.txt") if package not in without}
    assert stated <= pinned(lock)
    assert not {package for package, _ in pinned(lock)} & without
    for entry in re.split(r"\n(?=\S)", (REPOSITORY / lock).read_text().strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_image_is_built_from_the_lock():
    assert "--require-hashes -r requirements.lock" in (REPOSITORY / "Dockerfile").read_text()

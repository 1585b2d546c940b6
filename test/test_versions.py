"""One PyTorch everywhere: requirements.txt states it, and the image, the package and the documents agree."""

import re

import pytest
from dockerfile import REPOSITORY, default_base_image
from packaging.requirements import Requirement

PINNED = re.findall(r"^([\w.-]+)==([\w.]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
# Their wheels bring a cuDNN (9.10) that torch refuses for half-precision Conv3d.
REFUSED = ("2.9.0", "2.9.1", "2.10.0")


def stated_in_pyproject(package: str) -> list[Requirement]:
    text = (REPOSITORY / "pyproject.toml").read_text()
    stated = [Requirement(line) for line in re.findall(rf'"({package}[=<>!~][^"]*)"', text)]
    assert stated, package
    return stated


def test_the_image_has_the_torch_that_is_tested():
    name, tag = default_base_image().split(":")
    assert name == "pytorch/pytorch"
    assert ("torch", tag.split("-")[0]) in PINNED


@pytest.mark.parametrize(("package", "version"), PINNED)
def test_the_package_takes_what_is_pinned(package, version):
    assert all(requirement.specifier.contains(version) for requirement in stated_in_pyproject(package))


@pytest.mark.parametrize("version", REFUSED)
def test_the_package_refuses_a_torch_that_is_slow_on_a_gpu(version):
    assert not any(requirement.specifier.contains(version) for requirement in stated_in_pyproject("torch"))


def test_every_mention_of_the_base_image_is_the_dockerfiles():
    mentions = {}
    for pattern in ("Dockerfile", "*.sh", "*.md", "docs/*.md", "scripts/*", "test/**/*.py"):
        for path in REPOSITORY.glob(pattern):
            for image in re.findall(r"pytorch/pytorch:[\w.-]+", path.read_text()):
                mentions.setdefault(image, set()).add(path.name)
    assert set(mentions) == {default_base_image()}, mentions
    assert "container.md" in mentions[default_base_image()]

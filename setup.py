"""Everything is said in pyproject.toml, but that the ensemble in resources/ is a part of the package."""

from setuptools import find_packages, setup

RESOURCES = "nodulemc.resources"

setup(packages=[*find_packages(include=["nodulemc*"]), RESOURCES], package_dir={RESOURCES: "resources"})

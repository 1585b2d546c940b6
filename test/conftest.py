"""Shared fixtures: data beside the checkout, and small CTs with known content."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

_ALL_HEAVY = re.compile(r"^pytestmark = pytest\.mark\.heavy$", re.MULTILINE)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where heavy tests are left out, modules that hold no others are not imported: that would take longer than the
    rest.
    """
    if "not heavy" in config.option.markexpr and collection_path.suffix == ".py":
        return bool(_ALL_HEAVY.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with heavy tests come first, so that short ones fill the end, where one process waits for another."""
    heavy = {item.path for item in items if item.get_closest_marker("heavy")}
    items.sort(key=lambda item: item.path not in heavy)


@pytest.fixture
def shared_data() -> Path:
    """Real CTs, tables and Grand-Challenge files that lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="module")
def small_backbone() -> Iterator[str]:
    """The name of a network of a few hundred weights, which this process alone knows: for all but a network's size."""
    from models.small_i3d import SmallI3d

    from nodulemc.models.architecture import BACKBONES

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(BACKBONES, SmallI3d.name, SmallI3d())
        yield SmallI3d.name


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """A case's empty input and output folder."""
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    return tmp_path / "input", tmp_path / "output"


def hear_interrupts() -> None:
    """For a child's start: a shell's background job ignores SIGINT, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read whatever it likes; be nobody meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def load_script(name: str) -> ModuleType:
    """A program of ``scripts`` as a module."""
    spec = spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rotation(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Rotation matrix Rz·Ry·Rx."""
    turn = sitk.Euler3DTransform((0, 0, 0), *np.radians([x_deg, y_deg, z_deg]).tolist())
    return np.array(turn.GetMatrix()).reshape(3, 3)


def make_ct(
    *,
    size: tuple[int, int, int] = (90, 80, 50),
    spacing: tuple[float, float, float] = (0.7, 0.8, 1.5),
    origin: tuple[float, float, float] = (-31.25, 12.5, -140.75),
    direction: np.ndarray | None = None,
    seed: int = 0,
) -> sitk.Image:
    """A CT (int16, x, y, z size) of smooth random tissue, different at every voxel."""
    image = sitk.GetImageFromArray(_tissue(size, seed))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction.ravel().tolist())
    return image


@cache
def _tissue(size: tuple[int, int, int], seed: int) -> np.ndarray:
    noise = sitk.GetImageFromArray(np.random.default_rng(seed).normal(size=size[::-1]).astype(np.float32))
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 1.5))
    return (-500 + 400 * smooth / smooth.std()).round().astype(np.int16)


def centre_of(image: sitk.Image) -> tuple[float, float, float]:
    """World point of the image's centre."""
    return image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])

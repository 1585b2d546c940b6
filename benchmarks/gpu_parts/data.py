"""Fast: copies to the device and back, and cutting patches out of a CT on the CPU and on the device."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measure import seconds

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting, probes

SPACING_MM = (0.7, 0.7, 1.25)


def rows(setting: Setting) -> Iterator[Row]:
    """Measure copies of a batch, then patches."""
    yield from attempt("copies", _copies(setting))
    yield from attempt("patches cut out of a CT", _patches(setting))


def _copies(setting: Setting) -> Iterator[Row]:
    batch = torch.from_numpy(probes(2 if setting.small else 32))
    there = batch.to(setting.device, copy=True)
    ways = {
        "to the device, pageable": lambda: batch.to(setting.device, copy=True),
        "to the device, pinned on the way": lambda: _pinned(batch, setting).to(setting.device, copy=True),
        "back": lambda: there.to("cpu", copy=True),
    }
    if setting.device == "cuda":
        pinned = batch.pin_memory()
        ways["to the device, pinned before"] = lambda: pinned.to(setting.device, non_blocking=True)
    for name, copy in ways.items():
        copy()
        rate = batch.nbytes / seconds(copy, 5, setting.device)
        yield Row(f"{len(batch)} patches, {name}", rate / 1e9, "GB/s")


def _pinned(batch: torch.Tensor, setting: Setting) -> torch.Tensor:
    return batch.pin_memory() if setting.device == "cuda" else batch


def _patches(setting: Setting) -> Iterator[Row]:
    import SimpleITK as sitk

    from nodulemc.ct.volume import Volume
    from nodulemc.patch import extract_patch

    size, count = ((96, 96, 64), 2) if setting.small else ((512, 512, 160), 32)
    random = np.random.default_rng(0)
    voxels = random.integers(-1000, 400, size[::-1], np.int16)
    points = (random.uniform(0.3, 0.7, (count, 3)) * size * SPACING_MM).tolist()
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING_MM)
    volume = Volume(image, Path("made"))
    start = time.perf_counter()
    expected = np.stack([extract_patch(volume, point) for point in points])
    yield Row("patches cut on the CPU, SimpleITK", count / (time.perf_counter() - start), "patches/s", "one core")
    found = _on_device(setting, voxels, points)
    each = seconds(lambda: _on_device(setting, voxels, points), setting.repeats, setting.device)
    difference = float(np.abs(found.cpu().numpy()[:, 0] - expected).max())
    beside = f"boxes copied and resampled there; largest difference {difference:.1e}"
    yield Row(f"patches cut on the {setting.device}, PyTorch", count / each, "patches/s", beside)


def _on_device(setting: Setting, voxels: np.ndarray, points: list[list[float]]) -> torch.Tensor:
    """Cut patches as training does from stored blocks, without augmentation."""
    from nodulemc.data.block_store import NoduleBlock
    from nodulemc.training.augmentation import IDENTITY
    from nodulemc.training.dataset import collate, cut_sample
    from nodulemc.training.resampling import sampling_affine

    mask = np.broadcast_to(np.uint8(0), voxels.shape)
    scan_bounds = (np.full(3, -0.5), np.array(voxels.shape[::-1]) - 0.5)
    samples = []
    for point in points:
        block = NoduleBlock(voxels, mask, np.zeros(3), np.diag(SPACING_MM), np.array(point), scan_bounds, {})
        samples.append(cut_sample(block, sampling_affine(block, IDENTITY), 0, 0))
    return collate(samples).to(torch.device(setting.device)).resample()[0]

"""Nodules in the lung of a given real scan, drawn with the scan's own blur and noise."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import SimpleITK as sitk

from nodulemc.arrays import Array
from nodulemc.ct.volume import Volume
from nodulemc.errors import ImageError
from nodulemc.geometry import Grid
from nodulemc.phantom.nodule import Rendered, render_nodule
from nodulemc.phantom.patient import Lesion, Patient
from nodulemc.phantom.scanner import NoiseFilter, correlation_taps, noise
from nodulemc.phantom.sites import Site

_LUNG_HU = (-960.0, -500.0)
_SMOOTHING_MM = 1.0
_OPENING_MM, _CLOSING_MM = 3.0, 6.0
_SMALLEST_LUNG_ML = 20.0
_VESSEL_HU = -350.0
_STEP_HU = 600.0
_SHARPEST_SHARE = 0.2
_PATCH = 9
_FLAT_HU = 40.0
_TISSUE_HU = (-150.0, 250.0)
_ATTEMPTS = 12
_GAP_MM = 6.0


@dataclass(frozen=True)
class Host:
    """A real scan, and the facts about it that inserting a nodule needs.

    Attributes:
        volume: The scan.
        grid: The scan's grid.
        hu: int16 voxels, z, y, x.
        depth: mm from the lung's surface, positive inside, z, y, x.
        blur: The standard deviations in mm of the scan's point spread function along the voxel axes x, y, z.
        noise_hu: The standard deviation of its noise in soft tissue.
        noise_filter: The correlation of its noise between neighbouring voxels.
    """

    volume: Volume
    grid: Grid
    hu: Array
    depth: Array
    blur: tuple[float, float, float]
    noise_hu: float
    noise_filter: NoiseFilter

    @classmethod
    def measure(cls, volume: Volume) -> "Host":
        """Find the lung and estimate blur and noise.

        Raises:
            ImageError: no lung is found, or no edges or even tissue to estimate blur and noise from.
        """
        image = sitk.Cast(volume.image, sitk.sitkFloat32)
        hu = sitk.GetArrayFromImage(image)
        spacing = volume.image.GetSpacing()
        depth = _lung_depth(image, volume)
        noise_hu, texture = estimate_noise(hu, volume)
        x, y, z = (estimate_blur(hu, axis, mm, volume) for axis, mm in zip((2, 1, 0), spacing, strict=True))
        return cls(
            volume=volume,
            grid=Grid.of(volume.image),
            hu=np.clip(np.rint(hu), -32768, 32767).astype(np.int16),
            depth=depth,
            blur=(x, y, z),
            noise_hu=noise_hu,
            noise_filter=texture,
        )

    @property
    def digest(self) -> str:
        """A hash of the voxels and grid."""
        return sha256(repr(self.grid).encode() + self.hu.tobytes()).hexdigest()

    @cached_property
    def inside(self) -> Array:
        """The (N, 3) indices x, y, z of the lung's voxels."""
        return np.argwhere(self.depth > 0)[:, ::-1]

    def at(self, array: Array, points: Array) -> Array:
        """Return the nearest voxels of an array (z, y, x) at world points (N, 3), limited to the scan."""
        index = np.clip(np.rint(self.grid.to_index(points)).astype(int), 0, np.array(self.grid.size) - 1)
        nearest: Array = array[index[:, 2], index[:, 1], index[:, 0]]
        return nearest


def insert(host: Host, patient: Patient, scan: int) -> tuple[Array, list[tuple[Lesion, Array, Rendered]]]:
    """Put the lesions of a patient's scan into the host.

    Returns:
        int16 HU (z, y, x), and each lesion with its centroid (world, mm) and its rendering on the host's grid.
    """
    hu = host.hu.copy()
    placed = []
    for lesion, site in zip(patient.lesions, host_sites(host, patient), strict=True):
        if not lesion.first_scan <= scan <= lesion.last_scan:
            continue
        nodule = patient.form(lesion, site.normal)
        diameter = lesion.diameter(scan)
        centroid = site.centroid(nodule, diameter)
        rendered = render_nodule(nodule, centroid, diameter, host.grid, host.blur)
        box = tuple(map(slice, rendered.lower[::-1], rendered.upper[::-1]))
        grain = noise((*patient.noise_key(scan), lesion.number), host.noise_filter, rendered.lower, rendered.upper)
        # The noise that the nodule covers is replaced, so that the noise is as strong as around the nodule.
        share = np.sqrt(1 - (1 - np.clip(rendered.cover, 0, 1)) ** 2)
        value = hu[box] * (1 - rendered.cover) + rendered.filled + share * np.float32(host.noise_hu) * grain
        hu[box] = np.clip(np.rint(value), -32768, 32767).astype(np.int16)
        placed.append((lesion, centroid, rendered))
    return hu, placed


def host_sites(host: Host, patient: Patient) -> list[Site]:
    """Return a site in the host's lung for each of a patient's lesions, the same in all scans.

    Fissures are not searched in a real scan. Perifissural nodules keep their flat form and lie free.

    Raises:
        ImageError: the lung has no room for a nodule.
    """
    sites: list[Site] = []
    for lesion in patient.lesions:
        taken = [(site.point, other.largest) for site, other in zip(sites, patient.lesions, strict=False)]
        rng = patient.site_rng(lesion)
        clearance = lesion.largest / 2 + 3
        for _ in range(_ATTEMPTS):
            site = _candidate(host, lesion.traits.attachment, clearance, taken, lesion.largest, rng)
            if site is not None:
                break
            clearance *= 0.8
        else:
            raise ImageError(
                f"no room for a nodule of {lesion.largest:.0f} mm in the lung",
                host.volume.source,
                "give a CT that shows more of the lungs",
            )
        sites.append(site)
    return sites


def _candidate(
    host: Host,
    attachment: str,
    clearance: float,
    taken: list[tuple[Array, float]],
    diameter: float,
    rng: np.random.Generator,
) -> Site | None:
    index = host.inside[rng.integers(0, len(host.inside), 4000)]
    points = host.grid.to_world(index)
    depth = host.depth[index[:, 2], index[:, 1], index[:, 0]]
    normals = rng.normal(size=points.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    if attachment == "pleura":
        points, depth, normals = (a[depth < 1.5 * max(host.grid.spacing)] for a in (points, depth, normals))
        normals = -_depth_slope(host, points)
        points = points + normals * depth[:, None]
        deep = host.at(host.depth, points - normals * clearance * 1.2) > 0.8 * clearance
        good = deep & (host.at(host.hu, points + 4 * normals) > -200)
        within = points - normals * clearance
    else:
        hu = host.hu[index[:, 2], index[:, 1], index[:, 0]]
        good = (depth > clearance) & ((hu > _VESSEL_HU) if attachment == "vessel" else (hu < _LUNG_HU[1]))
        within = points
    edge = np.min(
        np.minimum(*(np.abs(host.grid.to_index(within) - end) for end in (-0.5, np.array(host.grid.size) - 0.5)))
        * host.grid.spacing,
        axis=1,
    )
    good &= edge > clearance
    for point, normal in zip(points[good], normals[good], strict=True):
        if all(np.linalg.norm(point - p) > (diameter + d) * 0.75 + _GAP_MM for p, d in taken):
            return Site(point, normal, "")
    return None


def _depth_slope(host: Host, points: Array) -> Array:
    """Return unit vectors (N, 3), world axes, in which the depth grows; over 3 mm, as voxel surfaces are ragged."""
    slopes = [host.at(host.depth, points + step) - host.at(host.depth, points - step) for step in np.eye(3) * 3.0]
    slope = np.stack(slopes, axis=1)
    unit: Array = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
    return unit


def _lung_depth(image: sitk.Image, volume: Volume) -> Array:
    """Return the signed depth in the lungs in mm (float32 z, y, x)."""
    smooth = sitk.SmoothingRecursiveGaussian(image, _SMOOTHING_MM)
    mask = sitk.BinaryThreshold(smooth, *_LUNG_HU)
    spacing = image.GetSpacing()
    mask = sitk.BinaryMorphologicalOpening(mask, _voxels(_OPENING_MM, spacing))
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask), _smallest(spacing))
    mask = parts > 0
    if not sitk.GetArrayViewFromImage(mask).any():
        raise ImageError(
            f"no lung of {_SMALLEST_LUNG_ML:.0f} ml or more", volume.source, "give a chest CT in Hounsfield units"
        )
    # Vessels belong to the lung.
    mask = sitk.BinaryMorphologicalClosing(mask, _voxels(_CLOSING_MM, spacing))
    depth = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(depth)


def _voxels(mm: float, spacing: tuple[float, ...]) -> list[int]:
    return [max(1, round(mm / s)) for s in spacing]


def _smallest(spacing: tuple[float, ...]) -> int:
    return int(_SMALLEST_LUNG_ML * 1000 / np.prod(spacing))


def estimate_blur(hu: Array, axis: int, spacing: float, volume: Volume) -> float:
    """Estimate the standard deviation in mm of the point spread function along an array axis.

    A step of height H blurred by σ rises at most by H / (σ √(2π)) per mm. The sharpest edges between lung and tissue
    lie across the axis. Less sharp edges are oblique to it.

    Raises:
        ImageError: there are no edges of 600 HU or more.
    """
    reach = max(2, round(4.0 / spacing))
    line = np.moveaxis(hu, axis, 0)
    count = line.shape[0] - 2 * reach
    if count < 1:
        raise ImageError(f"only {line.shape[0]} voxels along an axis", volume.source, "give a CT with more slices")
    difference = np.diff(line, axis=0)
    steepest = np.abs(difference[reach : reach + count])
    before, after = line[:count], line[2 * reach : 2 * reach + count]
    height = np.abs(after - before)
    # Only edges that stay within the step count, because thin walls and vessels would look too sharp.
    rise = sum(np.abs(difference[k : k + count]) for k in range(2 * reach))
    edges = (
        (height > _STEP_HU) & (rise < 1.25 * height) & (steepest >= np.abs(difference[reach - 1 : reach - 1 + count]))
    )
    edges &= (np.minimum(before, after) > -1000) & (np.maximum(before, after) < 300)
    edges &= steepest > height / (2 * reach) * 1.5
    if edges.sum() < 100:
        raise ImageError("no clear edges between lung and tissue", volume.source, "give a chest CT in Hounsfield units")
    sigma = height[edges] * spacing / (np.sqrt(2 * np.pi) * steepest[edges])
    # A difference between neighbours averages the slope over one voxel, which widens the edge by spacing² / 12.
    sharpest = float(np.quantile(sigma, _SHARPEST_SHARE)) ** 2 - spacing**2 / 12
    return float(np.sqrt(max(sharpest, (0.3 * spacing) ** 2)))


def estimate_noise(hu: Array, volume: Volume) -> tuple[float, NoiseFilter]:
    """Estimate the noise of even soft tissue: its standard deviation in HU, and its texture.

    The texture comes from the correlation of neighbours.

    Raises:
        ImageError: there is no even soft tissue.
    """
    height, width = (n // _PATCH * _PATCH for n in hu.shape[1:])
    slices = np.arange(0, hu.shape[0] - 1)
    pairs = np.stack([hu[slices], hu[slices + 1]], axis=1)[..., :height, :width]
    patches = pairs.reshape(len(slices), 2, height // _PATCH, _PATCH, width // _PATCH, _PATCH).transpose(
        0, 2, 4, 1, 3, 5
    )
    patches = patches.reshape(-1, 2, _PATCH, _PATCH).astype(np.float32)
    mean = patches[:, 0].mean(axis=(1, 2))
    thirds = patches[:, 0].reshape(-1, 3, _PATCH // 3, 3, _PATCH // 3).mean(axis=(2, 4)).reshape(len(patches), -1)
    flat = (mean > _TISSUE_HU[0]) & (mean < _TISSUE_HU[1]) & (np.ptp(thirds, axis=1) < _FLAT_HU)
    if flat.sum() < 50:
        raise ImageError(
            "no even soft tissue to measure noise in", volume.source, "give a chest CT in Hounsfield units"
        )
    patches = patches[flat]
    sigma = float(np.median(patches[:, 0].std(axis=(1, 2), ddof=1)))
    residual = patches - patches.mean(axis=(2, 3), keepdims=True)
    variance = np.mean(residual[:, 0] ** 2)
    in_plane = np.mean(residual[:, 0, :, 1:] * residual[:, 0, :, :-1]) / variance
    along_z = np.mean(residual[:, 0] * residual[:, 1]) / variance
    return sigma, NoiseFilter(correlation_taps(in_plane), correlation_taps(along_z))

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.special import ndtr

from nodulemc.cli import main
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.errors import ImageError
from nodulemc.phantom.insertion import Host, estimate_blur, estimate_noise, insert
from nodulemc.phantom.patient import Patient
from nodulemc.phantom.render import render_box

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def host(request):
    path = request.path.parents[3] / "shared" / "data" / "ct" / "chest_ct.nii.gz"
    if not path.is_file():
        pytest.skip(f"real CT not found at {path}")
    return Host.measure(read_volume(path))


def volume_of(array, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    return Volume(image, "test")


def test_noise_estimate_is_the_scanners():
    scene = Patient(3, 1).scene(0)
    heart = np.rint(scene.grid.to_index(np.array((24, -24, -62)) * scene.stretch + scene.offset)).astype(int)
    hu = render_box(scene, heart - (30, 27, 12), heart + (30, 27, 12), [])
    sigma, texture = estimate_noise(hu, volume_of(hu))
    assert sigma == pytest.approx(hu.std(), rel=0.06)  # blood alone, so all that varies is noise
    full = np.concatenate([scene.scanner.noise_filter.in_plane[:0:-1], scene.scanner.noise_filter.in_plane])
    estimate = 2 * texture.in_plane[0] * texture.in_plane[1]
    assert estimate == pytest.approx(np.sum(full[1:] * full[:-1]), abs=0.06)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.6])
def test_blur_estimate_is_that_of_a_blurred_edge(sigma):
    x = np.arange(160) * 0.7
    phase = np.linspace(40, 44, 60)[:, None]
    lines = -850 + 890 * ndtr((x - phase) / sigma)
    hu = np.repeat(lines[None].astype(np.float32), 12, axis=0)
    hu += np.random.default_rng(0).normal(0, 12, hu.shape)
    assert estimate_blur(hu, 2, 0.7, volume_of(hu)) == pytest.approx(sigma, rel=0.2)


def test_only_the_nodules_voxels_change(host):
    patient = next(p for p in (Patient(6, k) for k in range(50)) if len(p.shown(p.scans[0])) >= 2)
    hu, placed = insert(host, patient, patient.scans[0])
    changed = hu != host.hu
    near = np.zeros_like(changed)
    for _, _, rendered in placed:
        near[tuple(map(slice, rendered.lower[::-1], rendered.upper[::-1]))] = True
    assert changed.any()
    assert not changed[~near].any()
    assert hu.dtype == np.int16


def test_inserted_nodules_lie_in_the_lung_as_stated(host):
    shown = 0
    for patient in (Patient(6, k) for k in range(12)):
        _, placed = insert(host, patient, patient.scans[-1])
        for lesion, centroid, rendered in placed:
            shown += 1
            diameter = lesion.diameter(patient.scans[-1])
            voxel = float(np.prod(host.grid.spacing))
            if diameter > 7:  # smaller ones have few voxels of 1.5 mm
                assert rendered.mask.sum() * voxel == pytest.approx(np.pi / 6 * diameter**3, rel=0.15)
            middle = np.argwhere(rendered.mask)[:, ::-1].mean(axis=0) + rendered.lower
            assert np.abs(host.grid.to_world(middle) - centroid).max() < 1.5
            assert host.at(host.depth, centroid[None])[0] > 0
    assert shown > 12


def test_insertion_is_reproducible(host):
    first, second = (insert(host, Patient(6, 3), Patient(6, 3).scans[0])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_noise_within_a_solid_nodule_is_the_scans(host):
    deviations = []
    for patient in (Patient(6, k) for k in range(16)):
        hu, placed = insert(host, patient, patient.scans[0])
        for lesion, _, rendered in placed:
            if lesion.traits.density == "solid" and lesion.traits.calcification == "none":
                box = hu[tuple(map(slice, rendered.lower[::-1], rendered.upper[::-1]))]
                core = box[rendered.cover > 0.995]
                deviations.append(core - core.mean() if len(core) > 10 else core[:0])
    assert np.concatenate(deviations).std() == pytest.approx(host.noise_hu, rel=0.15)


def test_command_keeps_the_scans_geometry(tmp_path, shared_data):
    source = shared_data / "ct" / "chest_ct.nii.gz"
    arguments = ["phantom", "--output", str(tmp_path), "--patients", "2", "--seed", "6", "--workers", "1"]
    assert main([*arguments, "--into", str(source)]) == 0
    original = sitk.ReadImage(source)
    for path in (tmp_path / "ct").iterdir():
        written = sitk.ReadImage(path)
        assert written.GetSize() == original.GetSize()
        assert written.GetSpacing() == pytest.approx(original.GetSpacing())
        assert written.GetOrigin() == pytest.approx(original.GetOrigin())
        assert written.GetDirection() == pytest.approx(original.GetDirection())


def test_a_scan_without_lung_is_refused(tmp_path, capsys):
    water = sitk.GetImageFromArray(np.zeros((20, 40, 40), np.int16))
    sitk.WriteImage(water, tmp_path / "water.mha")
    with pytest.raises(ImageError, match="no lung"):
        Host.measure(read_volume(tmp_path / "water.mha"))
    arguments = ["phantom", "--output", str(tmp_path / "out"), "--patients", "1", "--seed", "0"]
    assert main([*arguments, "--into", str(tmp_path / "water.mha")]) == 2
    assert "water.mha" in capsys.readouterr().err

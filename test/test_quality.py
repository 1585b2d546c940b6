"""Warnings beside the numbers: each against a scan made so that it must, or must not, be warned about."""

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cases import MeanOfPatch, make_case, output_of, points_near
from conftest import centre_of, make_ct

from nodulemc import predict
from nodulemc.ct.volume import Volume, read_volume
from nodulemc.grand_challenge.case import run_case
from nodulemc.points.reading import Nodule
from nodulemc.prediction import prepare_inputs
from nodulemc.quality import member_warnings, scan_warnings


def warnings_of(image: sitk.Image, point=None):
    return prepare_inputs(Volume(image, Path("ct")), [Nodule("n", tuple(point or centre_of(image)))])[1]


@pytest.mark.heavy
def test_a_good_scan_and_real_ones_raise_no_false_alarm(shared_data):
    assert warnings_of(make_ct()) == warnings_of(make_ct(seed=3))
    assert warnings_of(make_ct()).scan == ()
    assert warnings_of(make_ct()).nodules == ((),)
    # Its voxels are 1.5 mm; its intensities are a CT's.
    (only,) = scan_warnings(read_volume(shared_data / "ct" / "chest_ct.nii.gz"))
    assert only.startswith("pixel spacing 1.50 mm")
    (only,) = scan_warnings(read_volume(shared_data / "ct" / "dicom_series"))
    assert only.startswith("a contrast agent was given")


@pytest.mark.parametrize("shift", [1024, -1024])
def test_an_offset_is_found_in_a_real_ct(shared_data, shift):
    image = read_volume(shared_data / "ct" / "chest_ct.nii.gz").image + shift
    assert any(f"shifted by {shift:+d}" in warning for warning in scan_warnings(Volume(image, Path("ct"))))


def test_the_reach_beyond_the_scan_is_measured_in_mm():
    image = make_ct(size=(120, 120, 60), spacing=(1.0, 1.0, 2.0), origin=(0, 0, 0))
    # The cube's outermost voxel centres lie 31.5·50/64 = 24.61 mm from the point; the first face is at −0.5 mm.
    (warning,) = warnings_of(image, (10.0, 60.0, 60.0)).nodules[0]
    assert warning == "its 50 mm cube reaches 14 mm beyond the scan, where air is assumed"
    assert not any("cube reaches" in warning for warning in warnings_of(image, (24.5, 60.0, 60.0)).nodules[0])


def test_a_point_without_lung_around_is_flagged():
    tissue = sitk.Image([100, 100, 100], sitk.sitkInt16) + 40
    lung = sitk.GetImageFromArray(np.where(np.arange(100)[:, None, None] < 20, -850, 40).repeat(100, 1).repeat(100, 2))
    for image, expected in ((tissue, True), (lung, False)):
        (warnings,) = warnings_of(image, (50.0, 50.0, 30.0)).nodules
        assert any("no lung around the point" in warning for warning in warnings) == expected


@pytest.mark.parametrize(("sigma", "flagged"), [(60, False), (250, True)])
def test_noise_is_measured_in_soft_tissue(sigma, flagged):
    rng = np.random.default_rng(1)
    hu = np.where(np.arange(80)[:, None, None] < 40, -850.0, 40.0) + rng.normal(0, sigma, (80, 80, 80))
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    assert any("noise" in warning for warning in warnings_of(image).scan) == flagged


@pytest.mark.parametrize(
    ("by_member", "expected"), [([0.2, 0.45], ()), ([0.1, 0.5, 0.3], ("the members disagree: 0.10 to 0.50",))]
)
def test_members_that_disagree(by_member, expected):
    assert member_warnings(np.array(by_member)) == expected


def test_warnings_are_in_the_detailed_result_and_on_stderr_and_not_in_grand_challenges_json(folders, caplog):
    image = make_case(folders[0], points_near(make_ct()))
    sitk.WriteImage(image + 1024, str(folders[0] / "images" / "chest-ct" / "ct.mha"))
    with caplog.at_level(logging.WARNING):
        predictions = run_case(*folders, MeanOfPatch)
    assert all("shifted by +1024" in prediction.warnings[0] for prediction in predictions)
    assert caplog.text.count("shifted by +1024") == 1  # of the scan, not of each nodule
    assert caplog.text.count("no lung around the point") == 3
    assert all(point.keys() == {"name", "point", "probability"} for point in output_of(folders[1])["points"])


def test_warnings_do_not_change_a_probability():
    image = make_ct(spacing=(1.4, 1.4, 4.0))
    (noted,) = predict(image, [centre_of(image)], MeanOfPatch())
    assert any("slice spacing" in warning for warning in noted.warnings)
    mean = prepare_inputs(Volume(image, Path("ct")), [Nodule(None, centre_of(image))])[0].astype(float).mean()
    assert noted.probability == pytest.approx((mean + mean**2) / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("agent", "given"),
    [
        *((text, False) for text in ("", "NONE", "No", "n", "0", "N/A", "no contrast", "WITHOUT", "w/o contrast", "-")),
        *((text, False) for text in ("NO IV CONTRAST", "Not given", "ohne KM", "0.0 ml", "non-contrast", "UNENHANCED")),
        *(
            (text, True)
            for text in ("APPLIED", "IV CONTRAST", "Non-ionic", "Omnipaque 350", "0.5 ml/kg Ultravist", "1")
        ),
        *((text, True) for text in ("ORAL", "without and with contrast", "No oral, 100 ml iv", "YES", "NONIONIC 300")),
    ],
)
def test_a_contrast_agent_named_none_is_none(agent, given):
    warnings = scan_warnings(Volume(make_ct(), Path("ct"), acquisition={"ContrastBolusAgent": agent}))
    assert any("contrast agent" in warning for warning in warnings) == given


@pytest.mark.parametrize(("unit", "warned"), [("HU", False), ("US", True), ("HU_MOD", True)])
def test_a_rescale_type_other_than_hu_is_told(unit, warned):
    warnings = scan_warnings(Volume(make_ct(), Path("ct"), acquisition={"RescaleType": unit}))
    assert any("rescale type" in warning for warning in warnings) == warned

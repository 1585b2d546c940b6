from pathlib import Path

import pytest
from conftest import centre_of, make_ct

from nodulemc.ct.volume import Volume
from nodulemc.errors import PointsError
from nodulemc.limits import MAX_NODULE_ML
from nodulemc.points.regions import Region, check_litres, nodules_of

CT = make_ct()
VOLUME = Volume(CT, Path("ct.mha"))
CENTRE = centre_of(CT)
FILE = Path("labels.nii.gz")


def test_names_that_several_have_are_numbered_and_no_number_is_taken_twice():
    names = ["a", "b", "a", "a-1", "a"]
    nodules = nodules_of([Region(name, CENTRE) for name in names], FILE, VOLUME)
    assert [nodule.name for nodule in nodules] == ["a-2", "b", "a-3", "a-1", "a-4"]
    assert {nodule.point for nodule in nodules} == {tuple(CENTRE)}


def test_an_empty_segmentation_is_refused():
    with pytest.raises(PointsError, match=r"no nodule: nothing is segmented: labels\.nii\.gz: "):
        nodules_of([], FILE, VOLUME)


def test_one_nodule_in_the_ct_is_enough_and_none_is_refused():
    x, y, _ = CENTRE
    top = CT.TransformIndexToPhysicalPoint((0, 0, CT.GetSize()[2] - 1))[2]
    # The scan ends half a slice of 1.5 mm above the last voxels' centres.
    outside = [Region("far", (x, y, top + 0.75 + 100)), Region("near", (x, y, top + 0.75 + 40))]
    with pytest.raises(PointsError, match=r"lies outside the CT, by 40 mm or more: .* segmentation of ct\.mha"):
        nodules_of(outside, FILE, VOLUME)
    assert len(nodules_of([*outside, Region("inside", CENTRE)], FILE, VOLUME)) == 3


def test_a_centre_outside_its_own_region_is_a_warning(caplog):
    nodules_of([Region("ring", CENTRE, is_hollow=True), Region("ball", CENTRE)], FILE, VOLUME)
    assert caplog.messages == ["labels.nii.gz: nodule 'ring': its centre of mass lies outside its own region"]


def test_what_is_larger_than_all_nodules_is_refused():
    check_litres(MAX_NODULE_ML, "label 1 is of", FILE)
    with pytest.raises(PointsError, match=rf"label 1 is of {1.25 * MAX_NODULE_ML / 1000:.1f} litres: labels"):
        check_litres(1.25 * MAX_NODULE_ML, "label 1 is of", FILE)

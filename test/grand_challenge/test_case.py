"""Grand-Challenge's contract, with a stand-in for the network."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from cases import CLINICAL, MeanOfPatch, make_case, output_of, points_near
from conftest import centre_of, make_ct, without_privileges

from nodulemc.ct.volume import read_volume
from nodulemc.errors import CaseError, FileError, ImageError, NoduleMCError, PointsError
from nodulemc.grand_challenge.case import read_case, run_case
from nodulemc.output.multiple_points import OUTPUT_NAME
from nodulemc.patch import extract_patch


def test_points_keep_order_names_and_coordinates(folders):
    source, target = folders
    points = points_near(make_ct())
    make_case(source, points)
    run_case(source, target, MeanOfPatch)
    result = output_of(target)
    probabilities = [point.pop("probability") for point in result["points"]]
    assert result == {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": points,
        "version": {"major": 1, "minor": 0},
    }
    volume = read_volume(source / "images" / "chest-ct" / "ct.mha")
    for point, probability in zip(points, probabilities, strict=True):
        mean = extract_patch(volume, point["point"]).astype(float).mean()
        assert probability == pytest.approx((mean + mean**2) / 2, abs=1e-9)
    assert [path.name for path in target.iterdir()] == [OUTPUT_NAME]


def test_a_case_without_nodules_gives_an_empty_list(folders):
    make_case(folders[0], [])
    run_case(*folders, MeanOfPatch)
    assert output_of(folders[1])["points"] == []


def test_a_nodule_without_a_name_stays_without_one(folders):
    make_case(folders[0], [{"point": list(centre_of(make_ct()))}])
    run_case(*folders, MeanOfPatch)
    assert output_of(folders[1])["points"][0].keys() == {"point", "probability"}


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_inputs_json_says_where_the_inputs_are(folders, key):
    source, target = folders
    make_case(source, points_near(make_ct()))
    (source / "elsewhere").mkdir()
    (source / "images" / "chest-ct").rename(source / "elsewhere" / "scan")
    (source / "nodule-locations.json").rename(source / "elsewhere" / "points.json")
    (source / "clinical-information-lung-ct.json").rename(source / "elsewhere" / "clinical.json")
    listing = [
        {key: {"slug": "chest-ct", "relative_path": "elsewhere/scan"}, "image": {"name": "ct.mha"}},
        {key: {"slug": "nodule-locations", "relative_path": "elsewhere/points.json"}, "value": None},
        {key: {"slug": "clinical-information-lung-ct", "relative_path": "elsewhere/clinical.json"}},
        {key: {"slug": "something-new", "relative_path": "new.json"}},
    ]
    (source / "inputs.json").write_text(json.dumps(listing))
    assert read_case(source).clinical == CLINICAL
    run_case(source, target, MeanOfPatch)
    assert len(output_of(target)["points"]) == 3


def test_clinical_information_may_be_absent(folders):
    make_case(folders[0], [], clinical=None)
    assert read_case(folders[0]).clinical is None


def test_clinical_information_may_be_null(folders):
    make_case(folders[0], [], clinical=None)
    (folders[0] / "clinical-information-lung-ct.json").write_text("null")
    assert read_case(folders[0]).clinical is None


@pytest.mark.parametrize("beside", ["._ct.mha", "._other.tif", ".ct.mha"])
def test_hidden_files_are_no_cts(folders, beside):
    make_case(folders[0], [])
    socket = folders[0] / "images" / "chest-ct"
    (socket / beside).write_bytes(bytes.fromhex("0005160700020000") + bytes(100))
    assert read_case(folders[0]).ct == socket / "ct.mha"


@pytest.mark.parametrize("name", ["ct.MHA", "CT.Mha", "ct.TIF"])
def test_a_suffix_may_have_capitals(folders, name):
    make_case(folders[0], [])
    socket = folders[0] / "images" / "chest-ct"
    sitk.WriteImage(make_ct(), str(socket / name.lower()))
    (socket / name.lower()).rename(socket / name)
    if name.lower() != "ct.mha":
        (socket / "ct.mha").unlink()
    read = read_volume(read_case(folders[0]).ct).image
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(read), sitk.GetArrayFromImage(make_ct()))


def test_tiff_is_read_with_a_warning(folders, caplog):
    source, target = folders
    make_case(source, [{"name": "a", "point": [10, 10, 10]}], ct_name="ct.tif")
    run_case(source, target, MeanOfPatch)
    assert "TIFF holds no patient coordinates" in caplog.text
    assert len(output_of(target)["points"]) == 1


@pytest.mark.parametrize("name", ["ct.mha", "ct.nii.gz"])
def test_only_a_tiff_is_said_to_be_one(folders, caplog, name):
    source, target = folders
    make_case(source, points_near(make_ct()), ct_name=name)
    entry = {"socket": {"slug": "chest-ct", "relative_path": f"images/chest-ct/{name}"}}
    (source / "inputs.json").write_text(json.dumps([entry]))
    run_case(source, target, MeanOfPatch)
    assert "TIFF" not in caplog.text


@pytest.mark.parametrize("locked", ["images/chest-ct", "images/chest-ct/ct.mha"])
def test_a_ct_that_may_not_be_read_is_refused(public_folder, locked):
    make_case(public_folder, points_near(make_ct()))
    read_case(public_folder)
    (public_folder / locked).chmod(0)
    with without_privileges(), pytest.raises(NoduleMCError, match=r"Permission denied.*chest-ct"):
        read_case(public_folder)


def remove_ct(source):
    (source / "images" / "chest-ct" / "ct.mha").unlink()


def double_ct(source):
    shutil.copy(source / "images" / "chest-ct" / "ct.mha", source / "images" / "chest-ct" / "other.mha")


def remove_folder(source):
    shutil.rmtree(source / "images")


def truncate_ct(source):
    ct = source / "images" / "chest-ct" / "ct.mha"
    ct.write_bytes(ct.read_bytes()[:20_000])


def remove_points(source):
    (source / "nodule-locations.json").unlink()


def break_points(source):
    (source / "nodule-locations.json").write_text('{"points": [')


def break_clinical(source):
    (source / "clinical-information-lung-ct.json").write_text("[71]")


def point_outside(source):
    x, y, z = make_ct().TransformContinuousIndexToPhysicalPoint((-0.5, 40, 25))
    (source / "nodule-locations.json").write_text(json.dumps({"points": [{"name": "n7", "point": [x - 12.34, y, z]}]}))


def break_listing(source):
    (source / "inputs.json").write_text('[{"socket": {"slug": "chest-ct"}}]')


def escape_input(source):
    entry = {"socket": {"slug": "chest-ct", "relative_path": "../../etc"}}
    (source / "inputs.json").write_text(json.dumps([entry]))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove_ct, ImageError, "no CT: .*chest-ct"),
        (double_ct, ImageError, r"2 CTs \(ct.mha, other.mha\)"),
        (remove_folder, ImageError, "no CT: .*chest-ct"),
        (truncate_ct, ImageError, r"the file holds 19653 of 720000 bytes: .*ct\.mha"),
        (remove_points, FileError, r"cannot read the file .*nodule-locations\.json"),
        (break_points, FileError, r"malformed JSON .*nodule-locations\.json"),
        (break_clinical, CaseError, r"no JSON object: .*clinical-information-lung-ct\.json"),
        (point_outside, PointsError, r"nodule 'n7' lies 12\.34 mm outside the CT"),
        (break_listing, CaseError, r"an entry is malformed .*inputs\.json"),
        (escape_input, CaseError, r"leads out of the input folder.*inputs\.json"),
    ],
)
def test_a_bad_case_is_refused_and_leaves_no_output(folders, damage, error, message):
    source, target = folders
    make_case(source, points_near(make_ct()))
    run_case(source, target, MeanOfPatch)  # an earlier case's output must not survive either
    damage(source)
    with pytest.raises(error, match=message) as caught:
        run_case(source, target, MeanOfPatch)
    assert isinstance(caught.value, NoduleMCError)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not list(target.iterdir())


def test_output_that_cannot_be_written_is_an_input_error(folders):
    make_case(folders[0], [])
    (folders[1] / "file").touch()
    with pytest.raises(FileError, match=r"cannot make the folder \(Not a directory\)"):
        run_case(folders[0], folders[1] / "file" / "output", MeanOfPatch)


def test_a_missing_output_folder_is_made(folders):
    make_case(folders[0], points_near(make_ct()))
    run_case(folders[0], folders[1] / "new" / "output", MeanOfPatch)
    assert [path.name for path in (folders[1] / "new" / "output").iterdir()] == [OUTPUT_NAME]

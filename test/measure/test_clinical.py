"""Clinical information: Grand-Challenge's file as it is, with further keys, and what is refused."""

import json

import pytest

from nodulemc.errors import CaseError, FileError
from nodulemc.measure.clinical import completed, read_clinical
from nodulemc.points.nodules import Nodule

NODULES = [Nodule("n1", (0.0, 0.0, 0.0)), Nodule(None, (1.0, 0.0, 0.0))]


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "clinical.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_clinical(path, NODULES)

    return read


def test_grand_challenges_own_file(shared_data):
    path = shared_data / "grand_challenge" / "clinical-information-lung-ct.json"
    assert read_clinical(path, NODULES) == [{"age": 71, "gender": "female"}] * 2


def test_what_is_known_of_patient_and_nodules(read):
    patient = {
        "age": 61.5, "gender": "Male", "smoking_status": "Former", "family_history": False, "emphysema": True,
        "cancer_history": False, "nodule_count": 3,
    }  # fmt: skip
    nodules = {"n1": {"type": "part-solid", "upper_lobe": True}, "2": {"spiculation": False, "fdg_uptake": "faint"}}
    lower = patient | {"gender": "male", "smoking_status": "former"}
    assert read(patient | {"nodules": nodules}) == [lower | nodules["n1"], lower | nodules["2"]]


@pytest.mark.parametrize(
    "nothing",
    [{}, {"nodules": None}, {"nodules": {"n1": None}}, {"gender": "Unknown", "age": None}, {"gender": "OTHER"}],
)
def test_what_is_not_known_is_left_out(read, nothing):
    assert read(nothing) == [{}, {}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the clinical information is no JSON object"),
        ("{", "malformed JSON"),
        ({"age": "61"}, "age is '61': .*: give a number of years up to 130"),
        ({"age": -1}, "age is -1"),
        ({"age": True}, "age is True"),
        ({"gender": "w"}, "gender is 'w': .*: give female, male, other, unknown or null"),
        ({"emphysema": 1}, "emphysema is 1: .*: give true, false or null"),
        ({"nodule_count": 2.5}, "nodule_count is 2.5"),
        ({"nodule_count": 0}, "nodule_count is 0"),
        ({"smoking_status": 3}, "smoking_status is 3"),
        ({"nodules": [1]}, "nodules is no JSON object"),
        ({"nodules": {"n1": [1]}}, "nodule 'n1' is no JSON object"),
        ({"nodules": {"n2": {}}}, "no nodule is called 'n2'"),
        ({"nodules": {"n1": {"type": "subsolid"}}}, "type is 'subsolid': .*nodule 'n1': give solid, part-solid"),
    ],
)
def test_what_is_refused(read, content, message):
    with pytest.raises((CaseError, FileError), match=message):
        read(content)


def test_options_complete_what_the_file_lacks(read):
    known = read({"gender": "MALE", "nodules": {"n1": {"spiculation": True}}})
    options = {"age": 71.0, "gender": None}
    assert completed(known, options) == [
        {"gender": "male", "spiculation": True, "age": 71.0},
        {"gender": "male", "age": 71.0},
    ]
    assert completed(known, {"age": None, "gender": "male"}) == known
    with pytest.raises(CaseError, match=r"^gender is 'female', but 'male' in the clinical information: --gender: "):
        completed(known, {"age": None, "gender": "female"})
    with pytest.raises(CaseError, match=r"^age is 131\.0: the options: give a number of years up to 130"):
        completed(known, {"age": 131.0})

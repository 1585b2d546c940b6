"""Grand-Challenge's folders of a case, and a stand-in for the network."""

import json
from types import SimpleNamespace

import numpy as np
import SimpleITK as sitk
from conftest import centre_of, make_ct

from nodulemc.output.multiple_points import OUTPUT_NAME

CLINICAL = {"gender": "FEMALE", "age": 71, "smoking_status": "Unknown"}


class MeanOfPatch:
    """An ensemble of two seeds whose probabilities are the patch's mean and its square."""

    caveat = None
    trained_cases = None
    device = "cpu"
    manifest = SimpleNamespace(
        member_names=["seed_1", "seed_2"],
        attributes=(),
        trained_on="nothing",
        sha256="0" * 64,
        origin="trained on nothing",
        identity={"path": "/made", "sha256": "0" * 64},
    )

    def member_probabilities(self, patches):
        means = patches.astype(np.float64).mean(axis=(1, 2, 3))
        return np.stack([means, means**2], axis=1)

    def findings(self, patches):
        return self.member_probabilities(patches), np.empty((len(patches), 0))

    def findings_and_masks(self, patches):
        return *self.findings(patches), self.mask_probabilities(patches)

    def vote(self, by_member):
        return by_member.mean(axis=1)


def make_case(folder, points, *, ct_name="ct.mha", clinical=CLINICAL):
    image = make_ct()
    (folder / "images" / "chest-ct").mkdir(parents=True)
    sitk.WriteImage(image, str(folder / "images" / "chest-ct" / ct_name))
    content = {"name": "Points of interest", "type": "Multiple points", "points": points}
    (folder / "nodule-locations.json").write_text(json.dumps(content | {"version": {"major": 1, "minor": 0}}))
    if clinical is not None:
        (folder / "clinical-information-lung-ct.json").write_text(json.dumps(clinical))
    return image


def points_near(image):
    x, y, z = centre_of(image)
    return [
        {"name": "b", "point": [x + 5, y, z]},
        {"name": "a", "point": [x, y - 4.25, z + 2]},
        {"name": "a", "point": [round(x), round(y), round(z)]},
    ]


def output_of(folder):
    return json.loads((folder / OUTPUT_NAME).read_text())

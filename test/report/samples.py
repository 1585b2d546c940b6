"""Predictions, masks and pages of small CTs, without a network."""

from pathlib import Path

import numpy as np
from conftest import centre_of, make_ct
from digital_shapes import ball

from nodulemc.ct.volume import Volume
from nodulemc.ensemble.manifest import EnsembleManifest, Member
from nodulemc.measure.mask import nodule_mask
from nodulemc.measure.risk import assess
from nodulemc.measure.sizes import measure
from nodulemc.models.architecture import Architecture
from nodulemc.points.nodules import Nodule
from nodulemc.prediction import NodulePrediction
from nodulemc.report.page import Finding, Origin
from nodulemc.report.pictures import look_at_nodule

PLATT = {
    "method": "platt", "slope": 1.0, "intercept": -1.0,
    "training_prevalence": 0.5, "fitted_prevalence": 0.2, "prevalence": 0.09,
}  # fmt: skip


def make_manifest(
    *, decoder=True, trained_on="phantoms & more", calibration=None, attributes=("texture", "spiculation")
):
    architecture = Architecture(
        "inception_i3d", decoder_widths=(64, 64, 48, 32, 16) if decoder else None, attributes=attributes
    )
    members = tuple(Member(f"seed_{k}.safetensors", f"{k}" * 64, architecture, weight=k) for k in (1, 2, 3))
    return EnsembleManifest(
        members, trained_on, "Apache-2.0", calibration=calibration, folder=Path("/made"), sha256="5a" * 32
    )


def make_origin(**about):
    return Origin(make_manifest(**about), "cpu", "bf16", False)


def make_findings(names=("n1", "n2"), *, image=None, masks=True, warnings=()):
    """Nodules along a CT's middle, their masks balls of 9 mm and more."""
    volume = Volume(image or make_ct(), Path("ct.mha"))
    x, y, z = centre_of(volume.image)
    findings = []
    for k, name in enumerate(names):
        point = (x + 7.5 * k, y - 3 * k, z + 2.2 * k)
        mask = nodule_mask(volume, point, ball(9 + 3 * k)) if masks else None
        size = measure(volume, mask) if masks else None
        risk = assess({"age": 62, "gender": "female", "upper_lobe": True, "spiculation": False,
                       "long_axis_mm": size.long_axis_mm}) if masks else None  # fmt: skip
        found = NodulePrediction(
            Nodule(name, point), 0.25 + 0.1 * k, (0.1, 0.2, 0.3 + 0.15 * k), tuple(warnings), (4.25, 1.5), size, risk
        )
        findings.append(Finding(found, look_at_nodule(volume, found.nodule), mask))
    return findings


def grey(hu, low, high):
    """HU as a window of 8 bits shows them: black at ``low``, white at ``high``."""
    return np.rint(np.clip((np.asarray(hu, np.float64) - low) / (high - low), 0, 1) * 255).astype(int)

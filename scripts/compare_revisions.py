"""Do two revisions give the same bytes? Run both on the same inputs, and compare their outputs.

    .venv/bin/python scripts/compare_revisions.py OLD [NEW]

OLD and NEW are git revisions (NEW: HEAD). Each is checked out into a temporary worktree and run with the packages of
this script's Python, on the CPU. One line per output says whether it is the same, or where it first differs. Content
that must differ is removed first (``BLANKED``, ``UNCOMPARED``): the time, speed and revision with which a file was
made. ``SPELLINGS`` has the options and keys that changed their names.

Exit code: 0 all the same, 1 a difference, 2 an error. It takes about three minutes on two idle cores.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk

from nodulemc.errors import CaseError
from nodulemc.program import exit_code_of

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "test"))

from dicom import change_dicom, write_dicom_series  # noqa: E402

# Each row has the names of one thing. A revision gets the first one in its `--help` or its configs/nodulemc.yaml.
SPELLINGS = (
    ("export", "cohort-export"),
    ("--resources", "--ensemble"),
    ("--masks", "--nodule-masks"),
    ("central_epochs", "centre_crop_epochs"),
)
# The patterns removed from every file. A pattern's first group stays.
BLANKED = (
    re.compile(rb'("git_revision": )(?:"[^"]*"|null)'),
    re.compile(rb"(git revision )(?:[0-9a-f]{40}(?:-dirty)?|unknown)"),
    re.compile(rb"(nodulemc )[0-9]+\.[0-9]+[0-9a-z.+]*"),
    re.compile(rb"()[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} UTC"),
    re.compile(rb"(?<=^epoch,seconds,)([^\n]*\n1,)[0-9.]+"),
)
# The length of the first group is that of its UIDs, whose digits vary.
BLANKED_ELEMENT = re.compile("Date$|Time$|GroupLength$|^SoftwareVersions$|^ImplementationVersionName$")
NEW_UID = re.compile(r"1\.2\.826\.0\.1\.3680043\.(?:8\.498|10\.511\.3)\.[0-9]+")  # made by pydicom and highdicom
UNCOMPARED = ("*.lock", "*.sqlite*", "checkpoint.pt", "tensorboard/*")  # they hold times, or are only for the program
RECIPE = """
model: {{kinetics: null, decoder_widths: [16, 16, 16, 8, 8]}}
run: {{epochs: 1, {central_epochs}: 1, batch_size: 4, samples_per_epoch: 8, workers: 0, precision: bf16}}
card: {{trained_on: phantoms, licence: Apache-2.0}}
"""
# Nodules of the phantoms of seed 8: those to train on, malignant ones among them, and those to validate with.
TRAIN = ("9000002_1_20000102", "9000002_1_20010102", "9000003_1_19990102", "9000003_1_20000102")
VALIDATION = ("9000001_1_20000102", "9000001_2_20000102")
INFERENCE = "inference.py"
DICOM_VOXELS = (70, 70, 30)  # around the nodule, x, y, z
STUDY_COLUMNS = (
    "AnnotationID", "PatientID", "SeriesInstanceUID", "CoordX", "CoordY", "CoordZ", "label", "diameter_mm",
    "Age_at_StudyDate", "Gender",
)  # fmt: skip
PATIENT = {"StudyDate": "20240229", "PatientID": "4711", "PatientName": "Doe^Jane", "FrameOfReferenceUID": "1.2.3.4"}


class Step(NamedTuple):
    """A command in today's words, and the files and folders that it writes; none to compare its printed output."""

    words: str
    outputs: tuple[str, ...] = ()

    @property
    def printed(self) -> str:
        """The file for the command's printed output."""
        return f"{self.words.split()[0]}.txt"

    @property
    def compared(self) -> tuple[str, ...]:
        """Everything that is compared."""
        return self.outputs or (self.printed,)


ENSEMBLE = "--resources input/ensemble"
CASE = f"predict input/case/images/chest-ct/ct.mha --points input/case/nodule-locations.json {ENSEMBLE}"
PHANTOM = f"predict input/phantom.mha --points input/phantom.csv {ENSEMBLE}"
PRIOR = "--prior input/phantom.mha --prior-points input/phantom.csv --date 2026-02-01 --prior-date 2025-01-31"
STUDY = "input/predictions.csv --table input/table.csv"
SPLIT = "split input/table.csv --seed 3"
# The steps of a chain run in their order, the chains in parallel.
CHAINS = (
    (
        Step("phantom --output phantom --patients 1 --seed 5 --workers 1", ("phantom",)),
        Step("phantom --blocks --output store --patients 3 --seed 8 --workers 1", ("store",)),
        Step(
            "train recipe.yaml --store store --split input/split.json --seeds 1 --output run",
            ("run/ensemble/seed_1.safetensors", "run/ensemble", "run/seed_1"),
        ),
    ),
    (
        Step(f"inference.py --input input/case --output case {ENSEMBLE}", ("case",)),
        Step(CASE),
        Step(f"{CASE} --output case.csv --markups case.mrk.json", ("case.csv", "case.mrk.json")),
        Step(
            f"{CASE} --output case.json --measure --masks case-masks --report case.html",
            ("case.json", "case-masks", "case.html"),
        ),
        Step(
            f"{PHANTOM} {PRIOR} --clinical input/clinical.json --output phantom.json --masks phantom-masks",
            ("phantom.json", "phantom-masks"),
        ),
        Step(f"predict input/dicom --points input/dicom.csv --dicom objects {ENSEMBLE}", ("objects",)),
        Step(
            f"cohort input/phantoms --workers 1 --measure --json --report cohort/pages --output cohort {ENSEMBLE}",
            ("cohort",),
        ),
        Step("export cohort --json --output exported", ("exported",)),
        Step(
            "prepare --table input/phantoms/table.csv --ct input/phantoms/ct --masks input/phantoms/masks --workers 1"
            " --output prepared",
            ("prepared",),
        ),
        Step(f"{SPLIT} --scheme nodulemc --validation 40 --output groups.json", ("groups.json",)),
        Step(f"{SPLIT} --scheme kfold --output folds.json", ("folds.json",)),
        Step(f"evaluate {STUDY} --bootstrap 200 --output evaluation", ("evaluation",)),
        Step("compare input/predictions.csv input/others.csv --table input/table.csv --bootstrap 200"),
        Step(f"calibrate {STUDY} --method platt --ensemble calibrated", ("calibrated/ensemble.json",)),
    ),
)


def main() -> int:
    """Run both revisions and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW", nargs="?", default="HEAD")
    args = parser.parse_args()
    commits = {"old": commit_of(args.old), "new": commit_of(args.new)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        failures = {side: run_revision(commit, folder, folder / side) for side, commit in commits.items()}
        failed = {output: f"{side}: {error}" for side, errors in failures.items() for output, error in errors.items()}
        outputs = [output for chain in CHAINS for step in chain for output in step.compared]
        differences = {
            name: failed.get(name) or difference(folder / "old" / name, folder / "new" / name) for name in outputs
        }
    for output, where in differences.items():
        print(f"differs  {output}: {where}" if where else f"same     {output}")
    return int(any(differences.values()))


def commit_of(revision: str) -> str:
    """Return the commit that a revision names."""
    done = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if done.returncode:
        raise CaseError("no such revision", revision, "name a commit, branch or tag of this repository")
    return done.stdout.strip()


def git(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run git in this repository."""
    return subprocess.run(["git", "-C", REPOSITORY, *words], capture_output=True, text=True, check=False)


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[None]:
    """Make a temporary worktree."""
    done = git("worktree", "add", "--detach", folder, commit)
    if done.returncode:
        raise CaseError("git cannot check it out", commit, done.stderr)
    try:
        yield
    finally:
        git("worktree", "remove", "--force", folder)


def run_revision(commit: str, folder: Path, results: Path) -> dict[str, str]:
    """Do all steps with a commit's code, and move the outputs to ``results``.

    Return the outputs that could not be made, with the reasons. Both revisions run in the same folders, as paths are
    part of some outputs.
    """
    code, work = folder / "code", folder / "work"
    with checkout(commit, code):
        revision = Revision(code, work)
        work.mkdir()
        if not (folder / "input").exists():
            make_inputs(folder / "input", revision)
        (work / "input").symlink_to(folder / "input")
        shutil.copytree(folder / "input" / "ensemble", work / "calibrated")
        central = spelled("central_epochs", (code / "configs" / "nodulemc.yaml").read_text())
        (work / "recipe.yaml").write_text(RECIPE.format(central_epochs=central))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(revision.run_chain, CHAINS))
    work.rename(results)
    return revision.failures


class Revision:
    """A checkout's programs, run in ``work``.

    Attributes:
        code: The checkout.
        failures: The outputs that could not be made, with the error.
    """

    def __init__(self, code: Path, work: Path) -> None:
        self.code = code
        self.failures: dict[str, str] = {}
        self._work = work

    def run_chain(self, steps: Sequence[Step]) -> None:
        """Run commands, one after the other, even if one fails."""
        for step in steps:
            done = self.run(*self._words_of(step))
            if not step.outputs:
                (self._work / step.printed).write_text(done.stdout)
            if done.returncode:
                self.failures |= dict.fromkeys(step.compared, f"exit code {done.returncode}: {done.stderr[-300:]!r}")

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `inference.py` or a command of `nodulemc`."""
        start = [self.code / program] if program == INFERENCE else ["-m", "nodulemc", program]
        environment = os.environ | {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, *start, *words],
            cwd=self._work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _words_of(self, step: Step) -> list[str]:
        """Return a step's words in the revision's spelling."""
        program, *words = step.words.split()
        if program != INFERENCE:
            program = spelled(program, self.run("--help").stdout)
        text = self.run(program, "--help").stdout
        return [program, *(spelled(word, text) for word in words)]


def spelled(word: str, text: str) -> str:
    """Return the name that begins a line of a help or a recipe, from all names of the same thing."""
    names = next((names for names in SPELLINGS if word in names), (word,))
    return next((name for name in names if re.search(rf"(?m)^ +{re.escape(name)}(?![\w-])", text)), word)


def make_inputs(folder: Path, revision: Revision) -> None:
    """Make the inputs of both revisions. The first revision makes those that are a program's own output."""
    shutil.copytree(revision.code / "resources", folder / "ensemble")
    shutil.copytree(revision.code / "test" / "input", folder / "case")
    done = revision.run("phantom", *f"--output {folder}/phantoms --patients 2 --seed 7 --workers 1".split())
    if done.returncode:
        raise CaseError("the first revision makes no phantoms", revision.code, done.stderr)
    with (folder / "phantoms" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    write_phantom(folder, rows)
    write_study(folder)
    clinical = {"gender": "FEMALE", "age": 66, "emphysema": True, "nodule_count": 1}
    (folder / "clinical.json").write_text(json.dumps(clinical))
    (folder / "split.json").write_text(json.dumps({"train": TRAIN, "validation": VALIDATION}))


def write_phantom(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write the first phantom's CT with its points, and the surroundings of its first nodule as a DICOM series."""
    series = rows[0]["SeriesInstanceUID"]
    image = sitk.ReadImage(folder / "phantoms" / "ct" / f"{series}.mha")
    points = [[row[f"Coord{axis}"] for axis in "XYZ"] for row in rows if row["SeriesInstanceUID"] == series]
    write_rows(folder / "phantom.csv", [["CoordX", "CoordY", "CoordZ"], *points])
    shutil.copy(folder / "phantoms" / "ct" / f"{series}.mha", folder / "phantom.mha")
    centre = np.array(image.TransformPhysicalPointToIndex([float(c) for c in points[0]]))
    low = np.maximum(centre - DICOM_VOXELS, 0)
    size = np.minimum(centre + DICOM_VOXELS, image.GetSize()) - low
    cut = sitk.RegionOfInterest(image, size.tolist(), low.tolist())
    write_dicom_series(cut, folder / "dicom")
    change_dicom(*(folder / "dicom").iterdir(), **PATIENT)
    write_rows(folder / "dicom.csv", [["CoordX", "CoordY", "CoordZ"], points[0]])


def write_study(folder: Path) -> None:
    """Write a table of 120 patients with two nodules each, and two sets of predictions for them."""
    random = np.random.default_rng(22)
    nodules = [(f"{patient}_{number}_20000102", patient) for patient in range(1000, 1120) for number in (1, 2)]
    labels = random.random(len(nodules)) < 0.3
    points = random.uniform(-100, 100, (len(nodules), 3)).round(2)
    sizes = random.uniform(4, 30, len(nodules)).round(1)
    write_rows(
        folder / "table.csv",
        [
            STUDY_COLUMNS,
            *(
                [
                    name,
                    patient,
                    f"1.2.{patient}",
                    *point,
                    int(label),
                    size,
                    50 + patient % 30,
                    ("Male", "Female")[patient % 2],
                ]
                for (name, patient), point, label, size in zip(nodules, points, labels, sizes, strict=True)
            ),
        ],
    )
    for name in ("predictions", "others"):
        seeds = 1 / (1 + np.exp(random.normal(0, 1, (2, len(nodules))) - 1.5 * labels + 1))
        lines = zip((name for name, _ in nodules), labels.astype(int), seeds.mean(0), *seeds, strict=True)
        write_rows(folder / f"{name}.csv", [["AnnotationID", "label", "probability", "seed_1", "seed_2"], *lines])


def write_rows(file: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file."""
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def difference(old: Path, new: Path) -> str | None:
    """Return where two files or folders first differ. None if they are the same."""
    names = sorted({*file_names(old), *file_names(new)})
    if not names:
        return "written by neither"
    return next((f"{name}{where}" for name in names if (where := file_difference(old / name, new / name))), None)


def file_names(place: Path) -> list[str]:
    """Return the compared files of a folder, or "" for a file."""
    if place.is_file():
        return [""]
    names = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
    return [str(name) for name in names if not any(map(name.match, UNCOMPARED))]


def file_difference(old: Path, new: Path) -> str | None:
    """Return where two files first differ."""
    for file, side in ((old, "new"), (new, "old")):
        if not file.is_file():
            return f": only in {side}"
    a, b = (comparable(file) for file in (old, new))
    if a == b:
        return None
    if b"\0" in a + b or a.splitlines() == b.splitlines():
        return f": byte {len(os.path.commonprefix([a, b]))}"
    lines = zip_longest(a.splitlines(), b.splitlines(), fillvalue=b"")
    number, pair = next((number, pair) for number, pair in enumerate(lines, 1) if pair[0] != pair[1])
    start = max(len(os.path.commonprefix(pair)) - 30, 0)
    return f": line {number}: {' / '.join(repr(line[start : start + 80].decode()) for line in pair)}"


def comparable(file: Path) -> bytes:
    """Return a file's content without the parts that must differ."""
    content = file.read_bytes()
    if content[128:132] == b"DICM":
        return dicom_text(file)
    for pattern in BLANKED:
        content = pattern.sub(rb"\1", content)
    return content


def dicom_text(file: Path) -> bytes:
    """Return a DICOM file's elements as text, without the parts that must differ. New UIDs are numbered in order."""
    data = pydicom.dcmread(file)
    for part in (data.file_meta, data):
        part.walk(blank_element)
    text = json.dumps([data.file_meta.to_json_dict(), data.to_json_dict()], indent=1)
    seen: dict[str, str] = {}
    return NEW_UID.sub(lambda uid: seen.setdefault(uid[0], f"UID {len(seen)}"), text).encode()


def blank_element(_: pydicom.Dataset, element: pydicom.DataElement) -> None:
    """Empty an element that shows when or by which version the file was made."""
    if BLANKED_ELEMENT.search(element.keyword):
        element.value = None


if __name__ == "__main__":
    sys.exit(exit_code_of(main))

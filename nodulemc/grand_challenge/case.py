"""Grand-Challenge's contract: an algorithm gets one case's input files and writes malignancy likelihoods.

Grand-Challenge calls each input or output a socket. Source: the LUNA25 challenge's algorithm interface, and
`inputs.json` as Grand-Challenge writes it since 2025.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodulemc.ct.meta_image import SUFFIXES as META_IMAGE
from nodulemc.ct.meta_image import locate_voxels
from nodulemc.ct.volume import read_volume, reading
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.errors import CaseError, ImageError
from nodulemc.output.multiple_points import OUTPUT_NAME, multiple_points
from nodulemc.points.nodules import Nodule, shortened
from nodulemc.points.reading import from_grand_challenge
from nodulemc.prediction import NodulePrediction, predict_patches, prepare_inputs, side_by_side
from nodulemc.util.files import prepare_output, visible
from nodulemc.util.json_files import read_json, write_json_atomically

logger = logging.getLogger(__name__)

_DEFAULT_PATHS = {
    "chest-ct": "images/chest-ct",
    "nodule-locations": "nodule-locations.json",
    "clinical-information-lung-ct": "clinical-information-lung-ct.json",
}
_LISTING = "expected a list of objects with socket.slug and relative_path"
_TIFF = (".tif", ".tiff")
_CT_SUFFIXES = (".mha", *_TIFF)


@dataclass(frozen=True)
class Case:
    """One case as Grand-Challenge provides it.

    Attributes:
        ct: The CT file.
        nodules: The nodules, in Grand-Challenge's order.
        clinical: The clinical information, which the network does not use. None if there is none.
    """

    ct: Path
    nodules: tuple[Nodule, ...]
    clinical: dict[str, Any] | None


def read_case(input_dir: Path) -> Case:
    """Find and read a case's inputs. ``inputs.json`` gives their paths; otherwise they have fixed paths.

    Raises:
        FileError: a JSON file is missing, unreadable or malformed.
        CaseError: an input is doubled, outside the folder or malformed.
        ImageError: there is no CT, or more than one.
        PointsError: the nodule locations are malformed.
    """
    paths = _socket_paths(input_dir)
    clinical = None
    if _is_there(paths["clinical-information-lung-ct"]):
        clinical = read_json(paths["clinical-information-lung-ct"])
        if not isinstance(clinical, dict | None):  # null: a socket left empty
            raise CaseError(
                "the clinical information is no JSON object",
                paths["clinical-information-lung-ct"],
                "repair the file",
            )
    locations = paths["nodule-locations"]
    nodules = from_grand_challenge(read_json(locations), locations)
    return Case(_only_ct(input_dir, paths["chest-ct"]), tuple(nodules), clinical)


def clear_output(output_dir: str | Path) -> Path:
    """Remove an earlier case's output, so that nobody takes it for this one's; return the output's path.

    Raises:
        FileError: The output cannot be removed, or the folder cannot be made or written.
    """
    output = Path(output_dir) / OUTPUT_NAME
    prepare_output(output)
    return output


def run_case(input_dir: str | Path, output_dir: str | Path, load: Callable[[], Ensemble]) -> list[NodulePrediction]:
    """Score the case in ``input_dir`` and write Grand-Challenge's JSON into ``output_dir``.

    A failed case leaves no output, not even an earlier case's.

    Args:
        input_dir: Grand-Challenge's input folder.
        output_dir: Grand-Challenge's output folder.
        load: Returns the ensemble; it is called while the CT is being read.

    Raises:
        NoduleMCError: an input or the ensemble cannot be used, or the output cannot be written.
    """
    output = clear_output(output_dir)
    predictions = score_case(input_dir, load)
    write_output(output, predictions)
    return predictions


def score_case(input_dir: str | Path, load: Callable[[], Ensemble]) -> list[NodulePrediction]:
    """Score the case in ``input_dir``; ``load`` is called while the CT is being read.

    Raises:
        NoduleMCError: an input or the ensemble cannot be used.
    """
    case = read_case(Path(input_dir))
    if case.ct.suffix.lower() in _TIFF:
        logger.warning("%s: TIFF holds no patient coordinates; the CT is taken to start at 0, 0, 0 mm", case.ct)
    (patches, warnings), ensemble = side_by_side(lambda: prepare_inputs(read_volume(case.ct), case.nodules), load)
    return predict_patches(case.nodules, patches, warnings, ensemble)


def write_output(output: Path, predictions: list[NodulePrediction]) -> None:
    """Write Grand-Challenge's JSON, completely or not at all.

    Raises:
        FileError: The file cannot be written.
    """
    write_json_atomically(output, multiple_points(predictions))


def _socket_paths(input_dir: Path) -> dict[str, Path]:
    """Return the inputs' paths; each lies inside the folder, after links are followed."""
    paths = {slug: input_dir / relative for slug, relative in _DEFAULT_PATHS.items()}
    listing = _inside(input_dir, input_dir / "inputs.json")
    if _is_there(listing):
        paths |= _listed_paths(input_dir, listing)
    return {slug: _inside(input_dir, path) for slug, path in paths.items()}


def _listed_paths(input_dir: Path, listing: Path) -> dict[str, Path]:
    """Return the paths that ``inputs.json`` gives for this algorithm's sockets."""
    paths: dict[str, Path] = {}
    entries = read_json(listing)
    if not isinstance(entries, list):
        raise CaseError(f"it holds {shortened(entries)}", listing, _LISTING)
    try:
        for entry in entries:
            socket = entry.get("socket") or entry["interface"]
            slug = socket["slug"]
            if slug in paths:
                raise CaseError(f"socket {slug} is listed twice", listing, "list each input once")
            if slug in _DEFAULT_PATHS:
                paths[slug] = _inside(input_dir, input_dir / socket["relative_path"], listing)
    except (KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"an entry is malformed ({shortened(error)})", listing, _LISTING) from error
    return paths


def _inside(input_dir: Path, path: Path, named_by: Path | None = None) -> Path:
    """Return the path if it exists and lies in the input folder, after links are followed."""
    where = named_by or path
    try:
        inside = path.resolve().is_relative_to(input_dir.resolve())
        path.is_file()  # a path too long for the file system
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a null byte
        raise CaseError(
            f"the path {shortened(str(path))} is unusable ({error})", where, "repair it, or let it be read"
        ) from error
    if not inside:
        raise CaseError(
            f"the path {shortened(str(path))} leads out of the input folder", where, "give a path or link inside it"
        )
    return path


def _is_there(path: Path) -> bool:
    """Return whether an optional input was given, readable or not."""
    return path.is_symlink() or path.exists()


def _only_ct(input_dir: Path, socket: Path) -> Path:
    """Return the one CT file in the socket's folder, or the file itself if the socket names a file."""
    with reading(socket):
        ct = _in_folder(socket) if socket.is_dir() else socket
        if not ct.exists():
            raise ImageError("no CT", ct, "put one .mha file there")
        if not _inside(input_dir, ct).is_file():  # a folder would be read as a DICOM series
            raise ImageError("the CT is not a regular file", ct, "put one .mha file there")
        if ct.name.lower().endswith(META_IMAGE):
            _inside(input_dir, locate_voxels(ct).file, ct)
    return ct


def _in_folder(folder: Path) -> Path:
    found = [path for path in visible(folder.iterdir()) if path.suffix.lower() in _CT_SUFFIXES]
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:3]) + (", …" if len(found) > 3 else "")
        what = f"{len(found)} CTs ({names})" if found else "no CT"
        raise ImageError(what, folder, "put exactly one .mha file there")
    return found[0]

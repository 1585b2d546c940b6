"""Check on phantoms whether the explanations of a case page hold for an ensemble, and note it in the ensemble's folder.

The script draws nodules with a known probability of malignancy (docs/phantoms.md). It replaces the same parts as the
page, with the ensemble's own masks: spicules, density, pleura contact, size. It compares the moves of the ensemble's
log odds with those of the known probability without the same part. Each nodule is also drawn anew without it, to
distinguish a fault of the replacement from one of the ensemble. For the map, it compares the cells' moves with the
share of the nodule in them. Then `nodulemc predict --explain` shows the explanations that have passed, until the
ensemble's weights change.

    .venv/bin/python scripts/explain_check.py --resources resources
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nodulemc.ct.volume import Volume
from nodulemc.ensemble.ensemble import Ensemble
from nodulemc.ensemble.manifest import read_manifest
from nodulemc.measure.mask import nodule_mask
from nodulemc.patch import EXTENT_MM, extract_patch
from nodulemc.phantom.patient import Lesion
from nodulemc.phantom.removal import (
    CONTACT,
    DENSITY,
    PLEURAL,
    SIZE,
    SPICULES,
    kind_of,
    known_move,
    patient_of_all_kinds,
    scene_without,
)
from nodulemc.phantom.render import Scene, draw_nodules, render_box
from nodulemc.program import exit_code_of
from nodulemc.report.explain import explain, mask_on_patch, on_patch
from nodulemc.report.explain_check import FILE_NAME, Check, write_checks
from nodulemc.report.occlusion import CORE, MAP, PARTS, PLEURA, RIM, SOLID, cell_slices
from nodulemc.util.progress import progress

# The trait that each replaced part represents.
REMOVALS = {SOLID: DENSITY, RIM: SPICULES, PLEURA: CONTACT, CORE: SIZE}
_SEED = 901  # not used in training
_PATIENTS, _MAPS = 14, 6  # patients with five nodules each; the number of maps, for the largest nodules
_MARGIN_MM = 4.0  # around a patch, for interpolation
_LEAST_MOVE = 0.5  # the least move of the known log odds that has a direction
_LEAST_P = 1e-6  # the least vote, so that log odds are finite


class Move(NamedTuple):
    """The moves of log odds without one part: the known one, and the ensemble's for a replaced part and a new drawing.

    The last one is None if the removal changes nothing.
    """

    known: float
    replaced: float
    anew: float | None


@dataclass(frozen=True)
class Case:
    """A nodule in a phantom scan."""

    lesion: Lesion
    scene: Scene
    index: int

    @property
    def point(self) -> tuple[float, float, float]:
        """The nodule's centroid."""
        return self.scene.nodules[self.index].centroid

    def cut(self) -> tuple[Volume, np.ndarray]:
        """Return the scan around the nodule, and its patch."""
        grid = self.scene.grid
        lower, upper = grid.box(self.point, EXTENT_MM + 2 * _MARGIN_MM)
        voxels = render_box(self.scene, lower, upper, draw_nodules(self.scene))
        volume = Volume(grid.crop(lower, upper).image(voxels), Path("phantom"))
        return volume, extract_patch(volume, self.point)

    def without(self, part: str) -> "Case":
        """Return the same case, drawn without the trait that a part represents."""
        return Case(self.lesion, scene_without(self.scene, self.index, REMOVALS[part]), self.index)

    def on_patch(self) -> np.ndarray:
        """Return the share of each of the patch's voxels that the nodule fills."""
        drawn = draw_nodules(self.scene)[self.index]
        return on_patch(self.scene.grid.crop(drawn.lower, drawn.upper).image(drawn.cover), self.point)


def main() -> int:
    """Draw, replace, compare and note the result. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=Path, default=Path("resources"), metavar="DIR", help="ensemble folder")
    return exit_code_of(lambda: check(parser.parse_args()))


def check(args: argparse.Namespace) -> None:
    """Print the table and write the ensemble's file."""
    ensemble = Ensemble.load(args.resources, masks=read_manifest(args.resources).segments)
    cases = [case for k in range(_PATIENTS) for case in cases_of(k)]
    moves: dict[str, list[Move]] = defaultdict(list)
    for case in progress(cases, len(cases), "nodules"):
        for part, move in moves_of(case, ensemble).items():
            moves[part].append(move)
    checks = {part: check_of(moves[part]) for part in PARTS if part in moves}
    mapped = [case for case in cases if kind_of(case.lesion.traits) != PLEURAL]
    mapped = sorted(mapped, key=lambda case: -case.lesion.first_diameter)[:_MAPS]
    maps = [map_of(case, ensemble) for case in progress(mapped, len(mapped), "maps")]
    checks[MAP] = check_of_maps(maps)
    print("\n".join(table(checks, moves)))
    write_checks(ensemble.manifest, checks)
    print(f"written: {ensemble.manifest.folder / FILE_NAME}")


def cases_of(index: int) -> list[Case]:
    """Return the nodules of one patient."""
    patient = patient_of_all_kinds(_SEED, index)
    scene = patient.scene(0)
    return [Case(lesion, scene, k) for k, lesion in enumerate(patient.lesions)]


def moves_of(case: Case, ensemble: Ensemble) -> dict[str, Move]:
    """Return the moves for a nodule without each part, if they are known. Empty if the ensemble finds no mask."""
    patch, mask = seen(case, ensemble)
    if mask is None:
        return {}
    known = {part: known_move(case.lesion, removal) for part, removal in REMOVALS.items()}
    known = {part: move for part, move in known.items() if move is not None}
    replaced = explain(patch, mask, ensemble, known).parts
    anew = {part: vote(case.without(part).cut()[1], ensemble) for part, move in known.items() if move}
    base = log_odds(vote(patch, ensemble))
    return {
        part: Move(move, log_odds(replaced[part]) - base, log_odds(anew[part]) - base if part in anew else None)
        for part, move in known.items()
    }


def map_of(case: Case, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """Return each cell's share of all moves, and its share of the nodule; only for cells with structures."""
    patch, mask = seen(case, ensemble)
    base = log_odds(vote(patch, ensemble))
    filled = case.on_patch()
    cells = explain(patch, mask, ensemble, [MAP]).cells
    moves = np.array([abs(log_odds(without) - base) for without in cells.values()])
    held = np.array([filled[cell_slices(cell)].sum() for cell in cells])
    return moves / (moves.sum() or 1), held / held.sum()


def seen(case: Case, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a nodule's patch, and the ensemble's mask on it. The mask is None if there is none."""
    volume, patch = case.cut()
    if not ensemble.manifest.segments:
        return patch, None
    mask = nodule_mask(volume, case.point, ensemble.mask_probabilities(patch[None])[0])
    return patch, mask_on_patch(volume, case.point, mask)


def vote(patch: np.ndarray, ensemble: Ensemble) -> float:
    """Return the ensemble's probability of one patch."""
    return float(ensemble.vote(ensemble.member_probabilities(patch[None]))[0])


def log_odds(probability: float) -> float:
    """Return the log odds of a probability, kept finite."""
    p = np.clip(probability, _LEAST_P, 1 - _LEAST_P)
    return float(np.log(p / (1 - p)))


def check_of(moves: Sequence[Move]) -> Check:
    """Return the agreement of a part's moves with the known ones."""
    known, replaced = (np.array([getattr(move, name) for move in moves]) for name in ("known", "replaced"))
    moving = abs(known) >= _LEAST_MOVE
    return Check(correlation(known, replaced), float(np.mean(known[moving] * replaced[moving] > 0)), len(moves))


def check_of_maps(maps: Sequence[tuple[np.ndarray, np.ndarray]]) -> Check:
    """Return how well maps point to nodules."""
    moves, held = (np.concatenate(shares) for shares in zip(*maps, strict=True))
    hits = [shares[cells.argmax()] > 0 for cells, shares in maps]
    return Check(correlation(moves, held), float(np.mean(hits)), len(maps))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation, 0 if one of the two is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if np.std(a) and np.std(b) else 0.0


def table(checks: dict[str, Check], moves: dict[str, list[Move]]) -> Iterator[str]:
    """Yield the table's lines."""
    heads = ["", "nodules", "known", "drawn anew", "replaced", "replaced, none known", "r anew", "r known"]
    yield f"| {' | '.join([*heads, 'agreement', 'shown'])} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, check in checks.items():
        ends = [f"{check.correlation:.2f}", f"{check.agreement:.0%}", "yes" if check.passed else "no"]
        yield f"| {' | '.join([name, str(check.nodules), *cells_of(moves.get(name, [])), *ends])} |"


def cells_of(moves: Sequence[Move]) -> list[str]:
    """Return mean moves of log odds and a correlation.

    For nodules that have the part: known, drawn anew and replaced. For those without it: replaced. The correlation is
    between the ensemble's two moves, drawn anew and replaced.
    """
    having = np.array([move for move in moves if move.anew is not None], float)
    lacking = [move.replaced for move in moves if move.anew is None]
    if not len(having):
        return ["", "", "", "", ""]
    known, replaced, anew = having.T
    means = [known.mean(), anew.mean(), replaced.mean(), np.mean(lacking) if lacking else np.nan]
    return [*("" if np.isnan(mean) else f"{mean:+.2f}" for mean in means), f"{correlation(anew, replaced):.2f}"]


if __name__ == "__main__":
    sys.exit(main())

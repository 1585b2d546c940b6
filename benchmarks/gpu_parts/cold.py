"""Fast: from a cold process to the JSON, beside the work that every case waits for, measured in the same run.

The floor is a process that imports the modules of inference, starts the GPU and reads the CT, one after the other.
"""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import run_cold

from gpu_parts.row import Row, attempt
from gpu_parts.setting import Setting

_ROOT = Path(__file__).resolve().parents[2]
# The longest time that a case may take, in floors.
_GOAL = 1.2


def rows(setting: Setting) -> Iterator[Row]:
    """Measure 1, 10 and 50 nodules. The floor alternates with the shortest case."""
    yield from attempt("cold cases", _cases(setting))


def _cases(setting: Setting) -> Iterator[Row]:
    from cold_start import SLICES, write_ct, write_points

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "output").mkdir()
        slices = 12 if setting.small else SLICES
        write_ct(folder / "images" / "chest-ct" / "ct.mha", slices)
        floors = []
        for count in (1,) if setting.small else (1, 10, 50):
            write_points(folder, count)
            times = []
            for _ in range(1 if setting.small else 3):
                if count == 1:
                    floors.append(_floor(setting, folder))
                times.append(_case(setting, folder))
            floor, median = min(floors), statistics.median(times)
            if count == 1:
                yield Row("imports, the GPU's start, reading the CT", floor, "s", f"{slices} slices; the least of some")
            judged = count == 1 and not setting.small
            beside = f"{median / floor:.2f} of that{f' (goal {_GOAL:g})' if judged else ''}"
            yield Row(f"cold case, {count} nodules", median, "s", beside, median <= _GOAL * floor if judged else None)


def _floor(setting: Setting, folder: Path) -> float:
    program = _ROOT / "benchmarks" / "phases.py"
    return run_cold([*map(str, (program, folder, setting.resources, setting.device, "auto", "--floor"))])[0]


def _case(setting: Setting, folder: Path) -> float:
    options = ["--input", folder, "--output", folder / "output", "--resources", setting.resources]
    return run_cold([*map(str, (_ROOT / "inference.py", *options, "--device", setting.device))])[0]

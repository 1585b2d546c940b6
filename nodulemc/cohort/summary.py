"""A cohort's state in words."""

from nodulemc.cohort.identity import Identity
from nodulemc.cohort.results_db import Record, now
from nodulemc.cohort.state import CohortState
from nodulemc.ensemble.calibration import describe_calibration
from nodulemc.errors import printable
from nodulemc.util.progress import clock
from nodulemc.util.text import counted

# Scans per second are those of so many seconds.
_RECENT_S = 600
_SHOWN = 10


def summary(state: CohortState) -> str:
    """Describe the state in lines for people: counts, speed while it runs, failures."""
    done, failed = state.done, state.failed
    ensemble = state.plan.ensemble
    scans, nodules = (
        counted(len(state.listed), "scan"),
        counted(sum(len(record.predictions) for _, record in done), "nodule"),
    )
    members, origin = counted(len(ensemble.seeds), "member"), ensemble.trained_on or "nothing (untrained)"
    lines = [
        f"{scans}: {len(done)} done ({nodules}), {len(failed)} failed, {state.pending} to do",
        f"{members}, {ensemble.precision}, weights trained on: {origin}",
    ]
    if ensemble.calibration:
        lines.append(f"calibrated: {describe_calibration(ensemble.calibration)}")
    if trained_on := state.trained_on:
        affected = counted(sum(len(record.predictions) for _, record in trained_on), "nodule")
        what = f"{len(trained_on)} of {counted(len(done), 'scan')} ({affected})"
        lines.append(f"trained on: {what} are of patients that the ensemble was trained on, see their warnings")
    if state.outdated:
        lines.append(_outdated(state))
    if state.running:
        lines.append(f"{counted(state.running, 'run')} at work{_speed(state)}")
    lines += [f"failed: {record.scan}: {record.error}" for record in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"and {len(failed) - _SHOWN} more, see failures.csv (`nodulemc cohort-export` writes it)")
    tracebacks = [record.traceback for record in failed if record.traceback]
    if tracebacks:
        lines += ["to report the fault of this program:", *map(printable, tracebacks[0].splitlines())]
    duplicate_cts = state.duplicate_cts()
    lines += [f"the same CT under several names: {', '.join(group[:_SHOWN])}" for group in duplicate_cts[:_SHOWN]]
    if len(duplicate_cts) > _SHOWN:
        lines.append(f"and {len(duplicate_cts) - _SHOWN} more such groups")
    return "\n".join(lines)


def _outdated(state: CohortState) -> str:
    ensemble, records = state.plan.ensemble, state.outdated
    others = {_difference(record, ensemble) for record in records}
    return f"{len(records)} of those to do have results that do not count: {', '.join(sorted(others))}"


def _difference(record: Record, ensemble: Identity) -> str:
    if record.weights != ensemble.weights:
        return "other weights"
    return "not measured" if record.precision == ensemble.precision else str(record.precision)


def _speed(state: CohortState) -> str:
    end = now()
    since = max(state.plan.started, end - _RECENT_S)
    # The plan's own time is that of the manifest's faults, which were no work.
    recent = sum(record.finished > since for record in state.records.values())
    if not recent or since > end:  # by the clock of another machine
        return ""
    rate = recent / max(end - since, 1)
    return f", {rate:.2f} scans/s, {clock(state.pending / rate)} left"

"""Whatever happens to a run, it leaves the complete result or none."""

import signal
from dataclasses import replace

import injection
import pytest
from ensembles import make_untrained_ensemble
from injection import made

pytestmark = pytest.mark.heavy

needs_mount = pytest.mark.skipif(not injection.can_mount(), reason="may not mount file systems (not root)")


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resources")
    make_untrained_ensemble(folder)
    return folder


@pytest.fixture
def one_member(resources, monkeypatch):
    """A third of the packaged ensemble's time to be disturbed in."""
    monkeypatch.setattr(injection, "PROGRAM", [*injection.PROGRAM, "--resources", str(resources)])


@pytest.fixture
def output(tmp_path):
    return made(tmp_path / "output")


def assert_refused(ending, message):
    assert ending.code == 2, ending.stderr
    (error,) = [line for line in ending.stderr.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert message in error
    assert ending.state == "none"


@pytest.fixture
def seconds(one_member, output):
    """How long an undisturbed run takes, which is complete."""
    ending = injection.undisturbed(output)
    assert (ending.code, ending.state) == (0, "complete"), ending.stderr
    return ending.seconds


def test_sigkill_at_random_moments(tmp_path, seconds):
    for ending in injection.at_random_moments(tmp_path, signal.SIGKILL, 4, 1.05 * seconds, seed=1):
        assert ending.code in (0, -signal.SIGKILL)
        assert ending.state != "broken"


@pytest.mark.usefixtures("one_member")
@pytest.mark.parametrize("step", ["fsync", "link"])
def test_sigkill_in_the_middle_of_writing_leaves_nothing(output, step):
    ending = injection.killed_while_writing(output, step)
    assert (ending.code, ending.state) == (-signal.SIGKILL, "none"), ending.stderr


def test_sigterm_at_random_moments_is_143_or_complete(tmp_path, seconds):
    for ending in injection.at_random_moments(tmp_path, signal.SIGTERM, 3, 1.05 * seconds, seed=2):
        # Before the handler is there, the signal itself ends a process that is not a container's first.
        assert ending.code in (0, 143, -signal.SIGTERM), ending.stderr
        assert ending.state != "broken"
        assert "Traceback" not in ending.stderr


@pytest.mark.usefixtures("one_member")
def test_an_output_folder_that_disappears(output):
    assert_refused(injection.vanishing_output(output), "cannot write (No such file or directory)")


@needs_mount
@pytest.mark.usefixtures("one_member")
def test_a_full_disk(output):
    assert_refused(injection.full_disk(output), "cannot write (No space left on device)")


@needs_mount
@pytest.mark.usefixtures("one_member")
def test_a_read_only_output_folder(output):
    assert_refused(injection.read_only(output), "(Read-only file system)")


@pytest.mark.parametrize("mib", [300, 900])
def test_too_little_memory_is_told(output, mib):
    ending = injection.with_memory(output, mib)
    # Libraries that run out of memory may print lines of their own; ours is the last, as docs/reliability.md says.
    *_, last = ending.stderr.splitlines()
    assert_refused(replace(ending, stderr=last), "out of memory")

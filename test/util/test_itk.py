import threading

import pytest
import SimpleITK as sitk

from nodulemc.util.itk import itk_silence


def shown() -> bool:
    return sitk.ProcessObject.GetGlobalWarningDisplay()


@pytest.fixture(params=[True, False])
def before(request: pytest.FixtureRequest):
    saved = shown()
    sitk.ProcessObject.SetGlobalWarningDisplay(request.param)
    yield request.param
    sitk.ProcessObject.SetGlobalWarningDisplay(saved)


def test_warnings_are_as_before_after_threads_that_overlap(before: bool):
    entered, leave = threading.Event(), threading.Event()

    def silent():
        with itk_silence:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=silent)
    with itk_silence:
        thread.start()
        entered.wait()
    assert not shown()
    leave.set()
    thread.join()
    assert shown() is before


def test_warnings_are_as_before_after_an_error(before: bool):
    with pytest.raises(ValueError, match="broken"), itk_silence, itk_silence:
        raise ValueError("broken")
    assert shown() is before

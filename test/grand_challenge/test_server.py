import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cases import MeanOfPatch, make_case, output_of, points_near
from ensembles import make_untrained_ensemble
from fastapi.testclient import TestClient

from nodulemc import cli
from nodulemc.errors import EnsembleError
from nodulemc.grand_challenge.server import create_app

# A loopback address of its own keeps other servers on the port out of the way.
HOST = "127.0.47.43"
INPUT = Path(__file__).parents[1] / "input"
ENTRY_POINTS = (["-m", "nodulemc.grand_challenge"], ["-m", "nodulemc.cli", "serve"])
no_sigterm_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")


class Broken(MeanOfPatch):
    def vote(self, by_member):
        raise ZeroDivisionError


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    image = make_case(tmp_path / "input", [])
    (tmp_path / "input" / "nodule-locations.json").unlink()
    return tmp_path / "input", tmp_path / "output", image


def client_of(ensemble, folders, writing=None):
    """A client of the server whose ensemble is loaded, or, given a future, may yet be."""
    loaded = ensemble if isinstance(ensemble, Future) else Future()
    if loaded is not ensemble:
        loaded.set_result(ensemble)
    app = create_app(loaded, input_dir=folders[0], output_dir=folders[1], writing=writing or threading.Lock())
    return TestClient(app, raise_server_exceptions=False)


def in_background(ask):
    """Start to ask; gives a function that waits for the answer."""
    answer = Future()
    threading.Thread(target=lambda: answer.set_result(ask()), daemon=True).start()
    return lambda: answer.result(20)


def put_points(folders, text):
    (folders[0] / "nodule-locations.json").write_text(text)


def test_good_bad_and_good_again(folders, capsys):
    client = client_of(MeanOfPatch(), folders)
    assert client.get("/health").status_code == 200
    good = json.dumps({"points": points_near(folders[2])})
    put_points(folders, good)
    answer = client.post("/invoke")
    assert (answer.status_code, answer.json()) == (201, {"nodules": 3})
    first = output_of(folders[1])
    put_points(folders, "{")
    answer = client.post("/invoke")
    assert answer.status_code == 422
    assert "malformed JSON" in answer.json()["error"]
    assert capsys.readouterr().err == f"error: {answer.json()['error']}\n"  # one line
    assert not list(folders[1].iterdir())
    put_points(folders, good)
    assert client.post("/invoke").status_code == 201
    assert output_of(folders[1]) == first


def test_a_bug_is_500_and_leaves_no_output(folders):
    put_points(folders, '{"points": []}')
    assert client_of(Broken(), folders).post("/invoke").status_code == 500
    assert not list(folders[1].iterdir())
    assert client_of(MeanOfPatch(), folders).post("/invoke").status_code == 201


def test_health_answers_while_a_case_runs_and_cases_take_turns(folders):
    running, release = threading.Event(), threading.Event()
    at_once = []

    class Slow(MeanOfPatch):
        def vote(self, by_member):
            at_once.append(1)
            running.set()
            assert release.wait(20)
            assert len(at_once) == 1
            at_once.pop()
            return super().vote(by_member)

    put_points(folders, '{"points": []}')
    client = client_of(Slow(), folders)
    answers = []
    cases = [threading.Thread(target=lambda: answers.append(client.post("/invoke").status_code)) for _ in range(2)]
    for case in cases:
        case.start()
    assert running.wait(20)
    assert client.get("/health").status_code == 200
    release.set()
    for case in cases:
        case.join(20)
    assert answers == [201, 201]


def test_an_untrained_ensemble_is_warned_of_with_every_case(folders, caplog):
    class Untrained(MeanOfPatch):
        caveat = "the weights are untrained"

    put_points(folders, '{"points": []}')
    client = client_of(Untrained(), folders)
    for _ in range(2):
        assert client.post("/invoke").status_code == 201
    assert [record.message for record in caplog.records if "untrained" in record.message] == [Untrained.caveat] * 2


def test_until_the_ensemble_is_loaded_health_is_503_and_a_case_waits(folders):
    put_points(folders, '{"points": []}')
    ensemble = Future()
    client = client_of(ensemble, folders)
    answer = in_background(lambda: client.post("/invoke").status_code)
    try:
        for _ in range(2):
            assert client.get("/health").status_code == 503
            time.sleep(0.2)
        assert not list(folders[1].iterdir())
    finally:
        ensemble.set_result(MeanOfPatch())  # the thread that waits for it would keep pytest from ending
    assert answer() == 201
    assert client.get("/health").status_code == 200


def test_an_ensemble_that_cannot_be_loaded_is_503_and_tells_no_second_error(folders, capsys):
    ensemble = Future()
    ensemble.set_exception(EnsembleError("no ensemble.json", "here", "give one"))
    client = client_of(ensemble, folders)
    assert client.get("/health").status_code == client.post("/invoke").status_code == 503
    assert capsys.readouterr().err == ""


def test_nothing_is_written_while_the_signal_holds_the_output(folders):
    put_points(folders, '{"points": []}')
    writing = threading.Lock()
    client = client_of(MeanOfPatch(), folders, writing)
    with writing:
        answer = in_background(lambda: client.post("/invoke").status_code)
        time.sleep(0.5)
        assert not list(folders[1].iterdir())
    assert answer() == 201


def test_an_input_link_is_followed_anew_for_each_case(folders):
    source, output, image = folders
    client = client_of(MeanOfPatch(), (source.parent / "link", output))
    for shift in (0, 8):
        case = Path(shutil.copytree(source, source.parent / f"case_{shift}"))
        points = points_near(image)
        points = [{"name": p["name"], "point": [p["point"][0] + shift, *p["point"][1:]]} for p in points]
        (case / "nodule-locations.json").write_text(json.dumps({"points": points}))
        (source.parent / "link").unlink(missing_ok=True)
        (source.parent / "link").symlink_to(case)
        assert client.post("/invoke").status_code == 201
        found = output_of(output)["points"]
        assert [p["point"] for p in found] == [p["point"] for p in points]
        assert len(list(output.iterdir())) == 1


@contextmanager
def started(entry_point, *options):
    """The program with options; killed if it is still there in the end."""
    command = [sys.executable, *entry_point, "--host", HOST, "--device", "cpu", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def ask(port, path, method="GET"):
    """The answer's status; None where the connection is refused or lost."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def free_port():
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


@pytest.mark.heavy
@no_sigterm_on_windows
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_sigterm_ends_the_program_with_code_0_from_the_start(entry_point, tmp_path):
    make_untrained_ensemble(tmp_path, (1,))
    folders = ["--resources", tmp_path, "--input", tmp_path, "--output", tmp_path]
    # The warning comes as soon as the weights are loaded.
    with started(entry_point, "--port", free_port(), *folders) as server:
        assert "untrained" in server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""


@pytest.mark.heavy
@no_sigterm_on_windows
@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "interrupted\n")])
def test_a_signal_ends_the_case_in_hand_without_output(tmp_path, number, code, said):
    case = Path(shutil.copytree(INPUT, tmp_path / "input"))
    point = np.array(json.loads((case / "nodule-locations.json").read_text())["points"][0]["point"])
    points = [{"name": str(k), "point": (point + 0.01 * k).tolist()} for k in range(500)]
    (case / "nodule-locations.json").write_text(json.dumps({"points": points}))
    (tmp_path / "output").mkdir()
    port = free_port()
    with started(ENTRY_POINTS[0], "--port", port, "--input", case, "--output", tmp_path / "output") as server:
        assert server.stdout.readline() == f"ready on {HOST}:{port}\n"
        answer = in_background(lambda: ask(port, "/invoke", "POST"))
        time.sleep(2)
        server.send_signal(number)
        assert server.wait(5) == code
        assert answer() is None
        assert server.stderr.read() == said
    assert not list((tmp_path / "output").iterdir())


@pytest.mark.heavy
def test_loading_that_fails_is_exit_code_2_and_one_line(tmp_path):
    with started(ENTRY_POINTS[0], "--port", free_port(), "--resources", tmp_path, "--output", tmp_path) as server:
        assert server.wait(60) == 2
        (line,) = server.stderr.read().splitlines()
        assert line.startswith("error: ")
        assert str(tmp_path) in line
        assert server.stdout.read() == ""


def test_the_port_is_open_before_anything_slow_is_imported():
    code = (
        "import socket, sys\n"
        "slow = {'numpy', 'SimpleITK', 'torch', 'openvino', 'fastapi', 'uvicorn'}\n"
        "socket.create_server = lambda *_, **__: sys.exit(str(sorted(slow & set(sys.modules))))\n"
        "from nodulemc.grand_challenge.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_an_address_that_cannot_be_listened_on_is_one_line(capsys):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--host", HOST, "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot listen")
    assert "in use" in line
    assert f"{HOST}:{port}: give another" in line


def test_a_port_that_is_none_is_refused(capsys):
    assert cli.main(["serve", "--host", HOST, "--port", "70000"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: --port 70000: nodulemc serve: give 0 to 65535"


@pytest.mark.parametrize("library", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_one_line_that_names_it(library, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    assert cli.main(["serve", "--host", HOST, "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {library} cannot be imported")
    assert line.endswith(": serve: pip install 'nodulemc[serve]'")

import json
import signal
import subprocess
import sys
import threading

import pytest
from ensembles import make_untrained_ensemble
from fastapi.testclient import TestClient
from test_case import MeanOfPatch, make_case, output_of, points_near

from nodulemc.serve import create_app


class Broken(MeanOfPatch):
    def vote(self, per_seed):
        raise ZeroDivisionError


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    image = make_case(tmp_path / "input", [])
    (tmp_path / "input" / "nodule-locations.json").unlink()
    return tmp_path / "input", tmp_path / "output", image


def client_of(ensemble, folders):
    app = create_app(ensemble, input_dir=folders[0], output_dir=folders[1])
    return TestClient(app, raise_server_exceptions=False)


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
        def vote(self, per_seed):
            at_once.append(1)
            running.set()
            assert release.wait(20)
            assert len(at_once) == 1
            at_once.pop()
            return super().vote(per_seed)

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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_ends_the_program_with_code_0_from_the_start(tmp_path):
    make_untrained_ensemble(tmp_path, (1,))
    # The warning comes as soon as the weights are loaded, before the server takes over the signals. A
    # loopback address of its own keeps other servers on the port out of the way.
    command = [sys.executable, "-m", "nodulemc.serve", "--host", "127.0.47.43", "--device", "cpu"]
    folders = ["--resources", tmp_path, "--input", tmp_path, "--output", tmp_path]
    with subprocess.Popen([*command, *map(str, folders)], stderr=subprocess.PIPE, text=True) as server:
        assert "untrained" in server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""

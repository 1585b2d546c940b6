import os
import re
import subprocess
import sys

import pytest
from ensembles import make_untrained_ensemble

from nodulemc import cli


def test_help_lists_every_command():
    shown = subprocess.run([sys.executable, "-m", "nodulemc.cli", "--help"], capture_output=True, text=True, check=True)
    text = " ".join(shown.stdout.split())
    for name, summary in cli.COMMANDS.items():
        assert f"{name} {summary}" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_help_shows_one_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  nodulemc {name} " in capsys.readouterr().out


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom nodulemc.cli import main\n"
        "try: main(['predict', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_interrupt_while_a_command_is_imported(capsys, monkeypatch):
    def interrupt(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    assert cli.main(["cohort-status", "nowhere"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_into_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nodulemc.cli", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.heavy
def test_bench_prints_seconds_per_nodule(tmp_path, capsys):
    make_untrained_ensemble(tmp_path)
    assert cli.main(["bench", "--nodules", "1", "--device", "cpu", "--resources", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    seconds, rate = re.search(r"nodule +([\d.]+) s \(([\d.]+) per second\)", shown).groups()
    assert float(seconds) > 0
    assert float(rate) == pytest.approx(1 / float(seconds), rel=0.1)
    assert "cpu, bf16, 1 member\n" in shown or "cpu, fp32, 1 member\n" in shown
    assert cli.main(["bench", "--nodules", "0"]) == 2

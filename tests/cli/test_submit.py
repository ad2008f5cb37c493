"""`lmray submit --local`, and what is refused before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "say.py").write_text(
        "import sys; print('said', sys.argv[1]); sys.exit(5)\n"
    )
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def submit(*arguments: object, cwd: Path, code: int, **more: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LMRAY_"))}
    done = subprocess.run(
        [sys.executable, "-m", "lmray", "submit", *map(str, arguments)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])} | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def test_the_same_command_works_here_on_what_git_tracks(project: Path):
    (project / "sub" / "untracked").write_text("")
    shown = "import os; print(sorted(os.listdir()), 'SECRET' in os.environ, os.environ['KEY'])"
    here = ["--local", "--env", "KEY", "--", sys.executable]
    asked = {"SECRET": "a", "KEY": "b"}
    said = submit(*here, "-c", shown, cwd=project / "sub", code=0, **asked)
    assert said.splitlines()[-1] == "['say.py'] False b"
    assert "said two words" in submit(
        *here, "say.py", "two words", cwd=project / "sub", code=5, **asked
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--", "true"], "--address URL, --cluster YAML or --local"),
        (["--local", "--address", "http://x:1", "--", "true"], "one place to run"),
        (["--local"], "no command"),
        (["--local", "--detach", "--", "true"], "leave --detach out"),
        (["--local", "--env", "KEY=1", "--", "true"], "KEY is not in the environment"),
        (["--address", "http://x:1", "--", "lmray", "sweep", "run", "s.py"], "need a root"),
        (
            ["--address", "http://x:1", "--", "lmray", "train", "--root", "out"],
            "out is not absolute",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_as_usage(project: Path, arguments: list[str], words: str):
    assert words in submit(*arguments, cwd=project, code=2)


def test_an_address_where_nothing_answers_is_refused(project: Path):
    said = submit("--address", "http://127.0.0.1:9", "--", "true", cwd=project, code=3)
    assert "no Ray dashboard answers at http://127.0.0.1:9" in said

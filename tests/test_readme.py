"""What the README and CONTRIBUTING say to type is what exists."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from lmray.cli.main import app
from lmray.config import KEYS, parse_assignments
from lmray.runs.expected import BANDS
from lmray.sweeps.space_file import shipped_spaces

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(text: str, word: str) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{word} ")]


@pytest.mark.parametrize("line", commands(README, "lmray"))
def test_every_lmray_command_of_the_readme_is_one(line: str):
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("lmray", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"lmray has no verb {name}"
        command = command.commands[name]
    # Parsing refuses unknown options, missing ones and values of the wrong kind.
    command.make_context(line, list(words), parent=context)
    keys = parse_assignments([w for w in words if "=" in w and not w.startswith("-")])
    assert set(keys) <= set(KEYS)


def test_the_scripts_of_the_readme_exist_and_parse():
    scripts = commands(README, "bash")
    assert [line.split()[1] for line in scripts] == ["scripts/quickstart.sh", "scripts/test.sh"]
    for line in scripts:
        subprocess.run(["bash", "-n", str(ROOT / line.split()[1])], check=True)


def test_every_file_of_the_tree_and_every_link_exists():
    for name in re.findall(r"\b([a-z_]+\.py)\b", README):
        folders = ("lmray/**", "tune_spaces", "scripts")
        assert any(list(ROOT.glob(f"{folder}/{name}")) for folder in folders), name
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_shipped_space_is_in_the_readme():
    assert all(f"{name}.py" in README for name in shipped_spaces())


def test_the_loss_that_the_readme_lets_expect_is_the_band_that_runs_are_set_against():
    band = next(band for band in BANDS if band.preset == "base_ts")
    assert f"Expect a validation loss of {band.low} to {band.high} nats/token" in README

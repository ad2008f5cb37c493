"""Files that define a space: those that lmray ships, one's own, and broken ones."""

from pathlib import Path

import pytest

from lmray.errors import UsageError
from lmray.sweeps.constraints import memory_needed
from lmray.sweeps.space_file import load_space, shipped_spaces


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_every_shipped_space_loads_with_a_hypothesis(name: str):
    loaded = load_space(name)
    assert "Hypothesis:" in loaded.hypothesis
    assert loaded.trials("digest")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


GOOD = """'''Hypothesis: none.'''
from lmray.presets import tiny
from lmray.sweeps.space import Asha
BASE = tiny()
SPACE = {"optim.lr": [1e-3]}
SEEDS = [0]
ASHA = Asha(131_072)
"""


def test_a_space_of_ones_own_loads(tmp_path: Path):
    assert load_space(write(tmp_path / "mine.py", GOOD)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACE = {", "does not run: SyntaxError"),
        ("import nothing_here", "does not run: ModuleNotFoundError"),
        (GOOD.replace("SEEDS", "SEED"), "does not define SEEDS"),
        (GOOD.replace("optim.lr", "optim.lrr"), "did you mean optim.lr"),
        (GOOD.replace("tiny()", "tiny"), "BASE=.* is no Run"),
        (GOOD + "def refuse(run):\n    return run.nothing", "is no space: AttributeError"),
    ],
)
def test_a_broken_space_file_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        load_space(write(tmp_path / "mine.py", text))


FROM_THE_BASE = GOOD.replace(
    'SPACE = {"optim.lr": [1e-3]}',
    """MEMORY_GB = 2
def SPACE(base, memory_gb):
    return {"data.batch_size": [base.budget.tokens // 131_072, round(memory_gb)]}
""",
)


def test_the_axes_may_follow_from_the_base_and_the_memory_as_the_command_line_has_them(
    tmp_path: Path,
):
    path = write(tmp_path / "mine.py", FROM_THE_BASE)
    assert load_space(path).axes == {"data.batch_size": [16, 2]}
    # Neither the file's base nor its rungs go with the other's.
    changes = {"budget.tokens": 131_072 * 64, "asha.grace_tokens": 1_048_576}
    found = load_space(path, changes, {"MEMORY_GB": 32})
    assert found.axes == {"data.batch_size": [64, 32]}
    assert (found.base.budget.tokens, found.memory_gb) == (131_072 * 64, 32)
    assert found.asha.grace_tokens == 1_048_576
    with pytest.raises(UsageError, match=r"data\.batch_size is what space mine varies"):
        load_space(path, {"data.batch_size": 3})
    with pytest.raises(UsageError, match=r"unknown key 'asha\.grace'"):
        load_space(path, {"asha.grace": 3})
    with pytest.raises(UsageError, match="is no space: ZeroDivisionError"):
        load_space(write(tmp_path / "bad.py", FROM_THE_BASE.replace("// 131_072", "// 0")))


SMOKE = {
    "model.d_model": 64,
    "model.num_layers": 2,
    "model.num_heads": 2,
    "evaluation.prefix_tokens": 8192,
    "budget.tokens": 131_072,
    "evaluation.interval_tokens": 32_768,
}


@pytest.mark.parametrize(
    ("changes", "memory_gb", "largest"),
    [
        ({}, 4, 256),
        ({}, 80, 1024),  # 12 steps; 4096 has three
        (SMOKE, 4, 256),  # four steps
        (SMOKE, 80, 256),
        ({"budget.steps": 48}, 80, 256),  # all 48 of them are there at 256
        ({"budget.steps": 49}, 80, 64),
        ({"budget.tokens": 10**9}, 4, 256),
        ({"budget.tokens": 10**9}, 80, 4096),
        ({"budget.tokens": 10**8, "execution.micro_batch": 16}, 4, 65_536),  # in parts
    ],
)
def test_batches_go_up_by_fours_to_what_the_budget_or_the_memory_ends(
    changes: dict, memory_gb: float, largest: int
):
    found = load_space("batch_size", changes, {"MEMORY_GB": memory_gb})
    sizes = found.axes["data.batch_size"]
    assert sizes == [4**power for power in range(len(sizes))]
    assert sizes[-1] == largest
    assert not found.refusals()
    per_step = found.base.model.context_length * largest
    steps = changes.get("budget.steps", 4)
    assert found.base.budget.tokens >= steps * per_step
    needed = [memory_needed(found.run_of({"data.batch_size": b})) for b in (largest, 4 * largest)]
    assert needed[0] <= memory_gb * 1e9
    assert needed[1] > memory_gb * 1e9 or found.base.budget.tokens < 4 * steps * per_step


def test_an_unknown_space_names_those_there_are():
    with pytest.raises(
        UsageError, match=r"name a Python file or one of ablations, .*learning_rate"
    ):
        load_space("lerning_rate")

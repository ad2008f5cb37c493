"""Lives of one run whose files lie at a URL, each on a node of its own and ended by kill -9.

python -m tests.runs.travelling TOKENS FOLDER prints a JSON line for each death. A node is an empty
cache; the store is a folder. Each life is killed right before it would change the store another
time, so that the deaths fall between any two changes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch._dynamo  # noqa: F401 - every optimizer imports it, in a second or two

from lmray import remote
from lmray.config import Run, override, run_id
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from tests.folder_store import use_folder
from tests.runs.dying import in_child
from tests.small import small_run

RUNS = Path("s3:/bucket/out/runs")
CHANGES = (0, 1, 2, 3, 6, 4, 9, 5, 7, 11, 8, 10, 13, 12)
"""How often each life may change the store."""


def short_run(tokens: Path) -> Run:
    """Three checkpoints kept and many removed again."""
    changes = {
        "budget.tokens": 60 * 64,
        "execution.checkpoint_interval_steps": 2,
        "execution.keep_best": True,
    }
    return override(small_run(tokens), changes)


def kill_at_change(number: int) -> None:
    """Ends this process when it is about to change the store once more than `number` times."""
    left = [number]
    for name in ("_send", "_drop"):
        change = getattr(remote, name)

        def counting(file: Path, change=change) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            change(file)

        setattr(remote, name, counting)


def main() -> None:
    tokens, folder = map(Path, sys.argv[1:])
    run, splits = short_run(tokens), open_splits(tokens)
    for life, changes in enumerate((*CHANGES, sys.maxsize)):
        child = os.fork()
        if child == 0:
            os.environ["LMRAY_CACHE"] = str(folder / f"node-{life}")
            use_folder(folder / "store")
            kill_at_change(changes)
            in_child(lambda: execute(run, splits, remote.cached(RUNS), report=lambda record: None))
        status = os.waitpid(child, 0)[1]
        there = folder / "store" / "bucket" / "out" / "runs" / run_id(run, splits.digest)
        whole = sorted(path.parent.name for path in there.glob("checkpoints/*/state.json"))
        begun = sorted(path.name for path in there.glob("checkpoints/*"))
        facts = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
        print(json.dumps({**facts, "whole": whole, "begun": begun}), flush=True)


if __name__ == "__main__":
    main()

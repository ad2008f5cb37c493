"""kill -9 while a checkpoint is written."""

import subprocess
import sys

KILLED = """
import os, signal, sys
from pathlib import Path

import torch

from lmray.model import TransformerLM
from lmray.training import AdamW, checkpoint
from lmray.training.snapshot import Position, take

torch.set_num_threads(1)
directory, identity = Path(sys.argv[1]), {"seed": 0}


def make(step):
    model = TransformerLM(50, 16, 32, 1, 4, 48, 10_000.0)
    torch.nn.init.constant_(model.ln_final.weight, step)
    return model, AdamW(model.parameters())


def write(step):
    checkpoint.write(directory, take(Position(step, step, 0.0), *make(step), identity))


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half_then_kill(_, path):
    Path(path).write_bytes(b"half")
    kill()


def second_call_kills(function):
    calls = []

    def wrapped(*arguments):
        calls.append(arguments)
        return kill() if len(calls) == 2 else function(*arguments)

    return wrapped


write(1)
places = {
    "before the first file": ("save_file", kill),
    "within the first file": ("save_file", half_then_kill),
    "between the files": ("save_file", second_call_kills(checkpoint.save_file)),
    "before the state": ("write_json", kill),
    "before the rename": ("sync_directory", kill),
    "after the rename": ("sync_directory", second_call_kills(checkpoint.sync_directory)),
}
for place, (name, replacement) in places.items():
    child = os.fork()
    if child == 0:
        setattr(checkpoint, name, replacement)
        write(2)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, place
    litter = list(directory.glob(".step-*"))
    model, optimizer = make(0)
    found = checkpoint.restore_latest(directory, model, optimizer, identity=identity)
    expected = 2 if place == "after the rename" else 1
    assert found.step == expected, (place, found)
    assert (model.ln_final.weight == expected).all(), place
    assert len(litter) == (expected == 1), (place, litter)
write(3)
assert not list(directory.glob(".step-*"))
"""


def test_kill_9_at_every_place_of_a_write(tmp_path):
    """What is left is the checkpoint before or the new one, and the next writer clears the litter.

    In a process of its own, which forks the writers that die.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "passing over" not in done.stderr

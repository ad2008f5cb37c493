"""A run's checkpoints: exact, verified, whole on a full disk, refused to strangers."""

import hashlib
import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from lmray.config import Model
from lmray.errors import CorruptionError, LmrayError, PreflightError, UsageError
from lmray.model import TransformerLM, cross_entropy
from lmray.storage import canonical_json
from lmray.training import AdamW, checkpoint
from lmray.training.snapshot import START, Best, Position, take

MODEL = Model(vocab_size=64, context_length=16, num_layers=2, d_model=32, num_heads=4, d_ff=48)
IDENTITY = {"experiment": {"optim": {"lr": 1e-3, "betas": (0.9, 0.95)}, "seed": 0}, "data": "abc"}


def make(seed=0):
    torch.manual_seed(seed)
    model = TransformerLM.from_config(MODEL)
    return model, AdamW(model.parameters(), lr=1e-2)


def run(model, optimizer, steps, *, start=0):
    losses = []
    for step in range(start, start + steps):
        ids = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def write(directory, model, optimizer, *, step=5, best=None):
    position = Position(step=step, tokens=64 * step, seconds=1.5, best=best)
    return checkpoint.write(directory, take(position, model, optimizer, IDENTITY))


def trained(steps=1):
    model, optimizer = make()
    run(model, optimizer, steps)
    return model, optimizer


def contents(model, optimizer):
    return [t.clone() for t in model.state_dict().values()], dict(optimizer.state)


def test_resume_equals_the_straight_run_bit_for_bit(tmp_path):
    straight, optimizer = make()
    losses = run(straight, optimizer, 10)

    first, optimizer = make()
    begun = run(first, optimizer, 5)
    path = write(tmp_path, first, optimizer)
    assert path == tmp_path / "step-00000005"
    assert sorted(p.name for p in path.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]

    second, optimizer = make(seed=1)
    found = checkpoint.restore_latest(tmp_path, second, optimizer, identity=IDENTITY)
    assert found == Position(step=5, tokens=320, seconds=1.5)
    assert begun + run(second, optimizer, 5, start=5) == losses
    for mine, its in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_random_generators_go_on_where_they_were(tmp_path):
    model, optimizer = trained()
    write(tmp_path, model, optimizer)
    expected = torch.rand(3)
    torch.manual_seed(99)
    checkpoint.restore_latest(tmp_path, model, optimizer, identity=IDENTITY)
    assert torch.equal(torch.rand(3), expected)


def test_optimizer_tensors_carry_their_parameters_names(tmp_path):
    from safetensors.torch import load_file

    names = load_file(write(tmp_path, *trained()) / "optimizer.safetensors").keys()
    assert "layers.0.attn.q_proj.weight.exp_avg_sq" in names
    assert len(names) == 2 * len(list(make()[0].parameters()))


def test_without_a_checkpoint_nothing_is_touched(tmp_path):
    model, optimizer = make()
    for directory in (tmp_path, tmp_path / "absent"):
        assert checkpoint.restore_latest(directory, model, optimizer, identity=IDENTITY) == START
    assert torch.equal(model.lm_head.weight, make()[0].lm_head.weight)


def test_load_weights_asks_for_no_identity(tmp_path):
    model, optimizer = trained()
    path = write(tmp_path, model, optimizer)
    other, _ = make(seed=1)
    assert checkpoint.load_weights(path, other).step == 5
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


def test_a_snapshot_is_not_changed_by_the_steps_after_it(tmp_path):
    model, optimizer = trained()
    before = write(tmp_path / "at once", model, optimizer)
    snapshot = take(Position(5, 320, 1.5), model, optimizer, IDENTITY)
    run(model, optimizer, 3)
    torch.rand(3)
    after = checkpoint.write(tmp_path / "later", snapshot)
    for name in FILES:
        assert (before / name).read_bytes() == (after / name).read_bytes()


def test_a_checkpoint_older_than_the_best_can_be_read(tmp_path):
    """As version 1 of the format has it: a position without a best."""
    model, optimizer = trained()
    path = write(tmp_path, model, optimizer)
    state = json.loads((path / "state.json").read_text())
    del state["digest"], state["position"]["best"]
    state["format"] = 1
    state["digest"] = hashlib.sha256(canonical_json(state).encode()).hexdigest()
    (path / "state.json").write_text(json.dumps(state))
    assert checkpoint.read(path, *make(), identity=IDENTITY) == Position(5, 320, 1.5)


def test_the_best_is_restored_and_selected(tmp_path):
    model, optimizer = trained()
    write(tmp_path, model, optimizer, step=5, best=Best(5, 4.25))
    write(tmp_path, model, optimizer, step=6, best=Best(5, 4.25))
    found = checkpoint.restore_latest(tmp_path, *make(), identity=IDENTITY)
    assert found.best == Best(5, 4.25)
    (best,) = checkpoint.select(tmp_path, "best")
    assert best.name == "step-00000005"
    # A newest one that is damaged does not hide it.
    (tmp_path / "step-00000006" / "state.json").write_text("{}")
    assert checkpoint.select(tmp_path, "best") == [best]


def test_selects_the_latest_or_a_step_and_names_those_there_are(tmp_path):
    with pytest.raises(PreflightError, match="has no checkpoint yet"):
        checkpoint.select(tmp_path, "latest")
    model, optimizer = trained()
    five, six = (write(tmp_path, model, optimizer, step=step) for step in (5, 6))
    assert checkpoint.select(tmp_path, "latest") == [six, five]
    assert checkpoint.select(tmp_path, "5") == checkpoint.select(tmp_path, "00005") == [five]
    with pytest.raises(PreflightError, match="no checkpoint of step 7; there are 6, 5"):
        checkpoint.select(tmp_path, "7")
    with pytest.raises(PreflightError, match=r"no best .* execution\.keep_best=true .*steps 6, 5"):
        checkpoint.select(tmp_path, "best")
    for word in ("newest", "-5", "1e3", "", "\u00b2"):
        with pytest.raises(UsageError, match="is neither best nor latest nor one of 6, 5"):
            checkpoint.select(tmp_path, word)


def test_prune_keeps_the_newest_and_what_it_is_to_spare(tmp_path):
    model, optimizer = trained()
    for step in (5, 100, 123_456_789):
        write(tmp_path, model, optimizer, step=step)
    for spare, kept in (((5,), 3), ((), 2), ((5, 100, 7), 2)):
        checkpoint.prune(tmp_path, 2, spare)
        names = [p.name for p in checkpoint.newest_first(tmp_path)]
        assert names == ["step-123456789", "step-00000100", "step-00000005"][:kept]


def test_writing_a_step_again_replaces_it_and_voids_later_ones(tmp_path):
    model, optimizer = trained()
    write(tmp_path, model, optimizer, step=5)
    write(tmp_path, model, optimizer, step=10)
    run(model, optimizer, 1)
    write(tmp_path, model, optimizer, step=5)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    other, fresh = make(seed=1)
    checkpoint.restore_latest(tmp_path, other, fresh, identity=IDENTITY)
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)


FILES = ["model.safetensors", "optimizer.safetensors", "state.json"]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_told_and_the_older_one_used(tmp_path, name, damage, caplog):
    model, optimizer = trained()
    write(tmp_path, model, optimizer, step=5)
    older = model.lm_head.weight.detach().clone()
    run(model, optimizer, 1)
    newest = write(tmp_path, model, optimizer, step=6)
    damage(newest / name)

    model, optimizer = make(seed=1)
    weights, state = contents(model, optimizer)
    with pytest.raises(CorruptionError, match=rf"{newest}.*delete"):
        checkpoint.read(newest, model, optimizer, identity=IDENTITY)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))
    assert optimizer.state == state

    assert checkpoint.restore_latest(tmp_path, model, optimizer, identity=IDENTITY).step == 5
    assert torch.equal(model.lm_head.weight, older)
    assert "step-00000006" in caplog.text


def test_every_byte_of_state_json_counts(tmp_path):
    """A flipped bit is found, or the JSON still says the same (a space that became another)."""
    model, optimizer = trained()
    path = write(tmp_path, model, optimizer) / "state.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 4
        path.write_bytes(data)
        try:
            checkpoint.read(path.parent, model, optimizer, identity=IDENTITY)
        except CorruptionError:
            continue
        assert json.loads(data) == json.loads(whole)


def test_refuses_a_checkpoint_of_another_config_naming_what_differs(tmp_path):
    model, optimizer = trained()
    write(tmp_path, model, optimizer)
    other = {
        "experiment": {"optim": {"lr": 3e-3, "betas": (0.9, 0.95)}, "seed": 0, "new": "x"},
        "data": "abc",
    }
    weights, _ = contents(model, optimizer)
    with pytest.raises(PreflightError) as caught:
        checkpoint.restore_latest(tmp_path, model, optimizer, identity=other)
    assert "experiment.optim.lr is 0.001 there and 0.003 here" in str(caught.value)
    assert "experiment.new is 'absent' there and 'x' here" in str(caught.value)
    assert "seed" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(weights[0], model.token_embeddings.weight)


def test_refuses_a_format_it_does_not_know(tmp_path, monkeypatch):
    model, optimizer = trained()
    monkeypatch.setattr(checkpoint, "FORMAT", 4)
    path = write(tmp_path, model, optimizer)
    monkeypatch.undo()
    with pytest.raises(PreflightError, match="has format 4 and this lmray reads up to 3"):
        checkpoint.read(path, model, optimizer, identity=IDENTITY)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The kernel refuses to grow a file past the limit, as it does when the disk is full."""
    model, optimizer = trained()
    write(tmp_path, model, optimizer, step=5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(LmrayError, match=r"cannot write checkpoint .*step-00000006: .*; free"):
            write(tmp_path, model, optimizer, step=6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    assert checkpoint.restore_latest(tmp_path, *make(), identity=IDENTITY).step == 5

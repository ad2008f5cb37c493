import subprocess
import sys

import pytest

from lmray.config import (
    KEYS,
    Run,
    build,
    flatten,
    override,
    parse_assignments,
    run_id,
)
from lmray.presets import tiny

DIGEST = "d" * 64


def changed(*assignments: str) -> Run:
    return override(Run(), parse_assignments(list(assignments)))


# One other valid value of every field.
OTHER = {
    "model.vocab_size": 10_001,
    "model.context_length": 128,
    "model.num_layers": 5,
    "model.d_model": 256,
    "model.num_heads": 8,
    "model.d_ff": 1280,
    "model.rope_theta": 20_000.0,
    "model.attention": "math",
    "model.norm": "post",
    "model.position": "none",
    "model.ffn": "gelu",
    "model.num_kv_heads": 4,
    "model.tied_embeddings": True,
    "model.qk_norm": True,
    "model.logit_softcap": 15.0,
    "model.zero_init": True,
    "model.embedding_norm": True,
    "model.value_embeddings": True,
    "model.unet_skips": True,
    "data.tokens": "elsewhere",
    "data.batch_size": 64,
    "data.batch_unit": "tokens",
    "data.batch_ramp": ({"share": 0.5, "batch_size": 64},),
    "data.length_ramp": ({"share": 0.5, "context_length": 128},),
    "optim.name": "muon",
    "optim.lr": 2e-3,
    "optim.matrix_lr": 0.01,
    "optim.momentum": 0.9,
    "optim.schedule": "linear",
    "optim.precision": "bf16",
    "optim.min_lr_fraction": 0.2,
    "optim.warmup_fraction": 0.1,
    "optim.decay_fraction": 0.1,
    "optim.phases": (),
    "optim.beta1": 0.8,
    "optim.beta2": 0.99,
    "optim.eps": 1e-9,
    "optim.weight_decay": 0.0,
    "optim.no_decay": "norms",
    "optim.clip_norm": "none",
    "budget.tokens": 1_000_000,
    "budget.steps": 100,
    "budget.flops": 1e15,
    "budget.seconds": 60.0,
    "evaluation.interval_tokens": 1_000_000,
    "evaluation.prefix_tokens": 4096,
    "evaluation.prompts": ("Once upon a time", ""),
    "evaluation.sample_tokens": 32,
    "execution.device": "cpu",
    "execution.workers": 2,
    "execution.gpu_share": 0.5,
    "execution.micro_batch": 16,
    "execution.compile": "default",
    "execution.threads": 1,
    "execution.checkpoint_interval_steps": 7,
    "execution.keep_checkpoints": 1,
    "execution.keep_best": True,
    "execution.deterministic": True,
    "execution.log_interval_steps": 1,
    "tracking.wandb": "offline",
    "tracking.project": "other",
    "tracking.tensorboard": True,
    "seed": 1,
    "begins_from": "0123456789ab",
}


def test_every_field_has_another_value_here() -> None:
    assert set(OTHER) == set(KEYS)
    # Phases need a schedule that reads them; tests/training/test_schedules.py has such a run.
    same = {key for key, value in OTHER.items() if flatten(Run())[key] == value}
    assert same == {"optim.phases"}


@pytest.mark.parametrize("key", KEYS)
def test_the_run_id_changes_with_the_experiment_and_with_nothing_else(key: str) -> None:
    shown = ("evaluation.prompts", "evaluation.sample_tokens")
    same = key.startswith(("execution.", "tracking."))
    same = same or key in ("data.tokens", "optim.phases", *shown)
    # So many tokens are so many sequences of 256.
    beside = {"data.batch_size": 256 * 64} if key == "data.batch_unit" else {}
    other = override(Run(), {key: OTHER[key]} | beside)
    assert (run_id(other, DIGEST) == run_id(Run(), DIGEST)) == same


def test_the_run_id_changes_with_the_data() -> None:
    assert run_id(Run(), DIGEST) != run_id(Run(), "e" * 64)


def test_the_run_id_is_this_one() -> None:
    """It may change only together with NUMERICS: runs that are done would be done again.

    A switch that the model gains later is left out of the id at its default.
    """
    run = build(
        {"model": {"d_ff": 1344}, "optim": {"lr": 0.002, "clip_norm": "none"}, "seed": 3},
        source="test",
    )
    assert run_id(run, DIGEST) == "1373a98b97c2"


def test_the_run_id_is_the_same_in_another_process() -> None:
    code = (
        "from lmray.config import run_id\n"
        "from lmray.presets import tiny\n"
        f"print(run_id(tiny(), {DIGEST!r}))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == run_id(tiny(), DIGEST)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("optim.lr=1e-3", "optim.lr=0.001"),
        ("optim.lr=1", "optim.lr=1.0"),
        ("optim.clip_norm=2", "optim.clip_norm=2.0"),
        ("model.rope_theta=10_000", "model.rope_theta=1e4"),
        ("budget.tokens=1e6", "budget.tokens=1_000_000"),
        ("seed=3", "seed=3.0"),
        ("data.batch_size=64", "data.batch_unit=tokens data.batch_size=16384"),
        ("model.d_ff=auto", "model.d_ff=1344"),
        ("model.num_kv_heads=auto", "model.num_kv_heads=16"),
        ("model.logit_softcap=15", "model.logit_softcap=15.0"),
    ],
)
def test_two_spellings_of_one_experiment_have_one_id(one: str, other: str) -> None:
    assert run_id(changed(one), DIGEST) == run_id(changed(*other.split()), DIGEST)

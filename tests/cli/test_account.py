"""`lmray account`, as a process and in this one."""

import json
import subprocess
import sys

import pytest

from lmray.cli.main import main
from tests.cli.test_cli import refused


def account(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["lmray", "account", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return capsys.readouterr().out


def test_a_preset_and_changes_to_it(monkeypatch, capsys):
    words = ("base_ts", "model.tied_embeddings=true", "data.batch_size=64", "--json")
    more = ("--memory-gb", "80", "--device", "NVIDIA H100 80GB HBM3", "--price", "3")
    found = json.loads(account(monkeypatch, capsys, *words, *more))
    assert found["parameters"]["all"] == 22_696_448 - 5_120_000
    assert "head" not in found["parameters"]
    assert found["forward_flops"]["all"] == sum(found["forward_flops"].values()) // 2
    memory, training = found["memory"], found["training"]
    assert memory["batch"] == 64
    assert memory["bytes"]["weights"] == 4 * 17_576_448
    assert memory["largest_batch"] > 64
    assert training["tokens"] == training["steps"] * 64 * 256
    assert training["cost"] == pytest.approx(3 * training["seconds"] / 3600)
    assert training["seconds"] == pytest.approx(training["flops"] / (989e12 * 0.4))


def test_a_table_for_people(monkeypatch, capsys):
    changes = ("tiny", "model.ffn=silu", "model.d_ff=512", "data.batch_size=2", "--measure")
    shown = account(monkeypatch, capsys, *changes)
    # two matrices of 512 for three of 320, in four layers
    for line in ("token embedding", "262,144", "+32,768 against SwiGLU of automatic width"):
        assert line in shown
    assert "measured peak" in shown
    assert "AdamW training in fp32, batch 2" in shown


def test_memory_is_that_of_the_precision_and_of_a_batch_in_sequences(monkeypatch, capsys):
    words = ("base_ts", "data.batch_unit=tokens", "data.batch_size=16384")
    fp32, low = (
        json.loads(account(monkeypatch, capsys, *words, *more, "--json"))["memory"]
        for more in ((), ("optim.precision=bf16_weights",))
    )
    assert (fp32["batch"], low["batch"]) == (64, 64)
    assert (fp32["precision"], low["precision"]) == ("fp32", "bf16_weights")
    assert 2 * low["bytes"]["weights"] == fp32["bytes"]["weights"]
    assert 0.5 < low["bytes"]["all"] / fp32["bytes"]["all"] < 0.6


def test_three_models_side_by_side(monkeypatch, capsys):
    shown = account(monkeypatch, capsys, "gpt2-xl")
    for number in ("2,127,057,600", "1,635,537,600", "1,557,611,200", "6,584", "4,886", "7.924"):
        assert number in shown
    facts = json.loads(account(monkeypatch, capsys, "gpt2-small", "--json"))
    assert [fact["parameters"] for fact in facts] == [190_460_160, 162_148_608, 124_439_808]


def test_the_toy(monkeypatch, capsys):
    found = json.loads(account(monkeypatch, capsys, "sgd-toy", "--json"))
    assert [round(row[1], 2) for row in found.values()] == [15.47, 24.17, 8725.1]
    assert "1.676e+08" in account(monkeypatch, capsys, "sgd-toy")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("gpt2-xl", "model.d_ff=1"), 2, "gpt2-xl takes no changes and 'model.d_ff=1' is one"),
        (("gpt2",), 2, "no preset named 'gpt2'"),
        (("base_ts", "--device", "TPU"), 2, "no peak is known for device='TPU' at dtype=bf16"),
        (("base_ts", "--memory-gb", "0.1"), 3, "training takes"),
    ],
)
def test_what_it_refuses(tmp_path, words, code, message):
    assert message in refused("account", *words, cwd=tmp_path, code=code)


def test_counting_needs_no_torch():
    code = (
        "import atexit, sys\n"
        "sys.argv = ['lmray', 'account', 'base_ts']\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from lmray.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "22,696,448" in done.stdout
    assert done.stdout.endswith("False\n")

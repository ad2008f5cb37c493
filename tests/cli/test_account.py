"""`lmray account`, as a process and in this one."""

import json
import subprocess
import sys
from decimal import Decimal

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
    facts = json.loads(account(monkeypatch, capsys, "gpt2-small", "--json"))["models"]
    assert [fact["parameters"] for fact in facts] == [190_460_160, 162_148_608, 124_439_808]


COURSEWORK = ("--device", "A100", "--dtype", "fp32", "--mfu", "0.5", "--memory-gb", "80")


def test_the_first_of_the_three_is_shown_as_a_configuration_is(monkeypatch, capsys):
    shown = account(monkeypatch, capsys, "gpt2-xl", *COURSEWORK, "--price", "2")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "ffn 1,474,560,000",
        "all 2,127,057,600",
        "qkvo projections 1,006.633 22.3",
        "attention scores 161.061 3.6",
        "attention values 161.061 3.6",
        "ffn 3,019.899 66.9",
        "head 164.682 3.6",
        "all 4,513.337 100.0",
        "AdamW training in fp32, batch 1 GB GiB",
        "weights 8.508 7.924",
        "second moments 8.508 7.924",
        "largest batch in 80 GB: 6 sequences",
    ):
        assert line in lines
    assert "in 400,000 steps: 5.546e+21 FLOP (6ND: 5.353e+21), AdamW 1.191e+16" in lines[-2]
    assert lines[-1].startswith("A100 in fp32 at 50% of its peak: ")
    assert lines[-1].endswith(" = 6,583.6 days, costs 316,010.71")


def test_what_is_shown_of_a_gpt2_shape_is_in_its_json(monkeypatch, capsys):
    found = json.loads(account(monkeypatch, capsys, "gpt2-xl", *COURSEWORK, "--json"))
    assert found["parameters"]["all"] == found["models"][0]["parameters"] == 2_127_057_600
    assert found["forward_flops"]["all"] == found["models"][0]["forward_flops"]
    assert (found["memory"]["batch"], found["memory"]["largest_batch"]) == (1, 6)
    assert found["training"]["optimizer_flops"] == 400_000 * 14 * 2_127_057_600
    days = [found["training"]["seconds"] / 86_400, found["models"][0]["days"]["3 x forward"]]
    assert days == pytest.approx([6584, 6584], abs=0.5)


def test_the_toy(monkeypatch, capsys):
    found = json.loads(account(monkeypatch, capsys, "sgd-toy", "--json"))
    assert [round(row[1], 2) for row in found.values()] == [15.47, 24.17, 8725.1]


# FIGURES, section 3.
TOY = [
    "24.17 15.47 11.40 8.92 7.23 5.99 5.05 4.32 3.73 3.25",
    "24.17 24.17 4.15 0.10 0.00 0.00 0.00 0.00 0.00 0.00",
    "24.17 8725 1.507e6 1.676e8 1.358e10 8.57e11 4.40e13 1.89e15 6.98e16 2.24e18",
]


def test_the_table_of_the_toy_is_that_of_the_figures(monkeypatch, capsys):
    """At their digits; from 8.57e11 on they have one less than the table."""
    lines = account(monkeypatch, capsys, "sgd-toy").replace(",", "").splitlines()
    rows = [[Decimal(word) for word in line.split()] for line in lines[1:11]]
    assert [row[0] for row in rows] == list(range(10))
    for column, figures in enumerate(TOY, start=1):
        for row, figure in zip(rows, map(Decimal, figures.split()), strict=True):
            shown = row[column]
            assert shown.as_tuple().exponent <= figure.as_tuple().exponent
            assert shown.quantize(figure) == figure


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("gpt2-xl", "model.d_ff=1"), 2, "gpt2-xl takes no changes and 'model.d_ff=1' is one"),
        (("gpt2-xl", "--measure"), 2, "gpt2-xl takes no --measure, which is for configurations"),
        (("gpt2-xl", "--device", "TPU"), 2, "no peak is known for device='TPU' at dtype=bf16"),
        (("gpt2-xl", "--memory-gb", "30"), 3, "training takes"),
        (("sgd-toy", "seed=1"), 2, "sgd-toy takes no changes and 'seed=1' is one"),
        (("sgd-toy", "--memory-gb", "8"), 2, "sgd-toy takes no --memory-gb"),
        (("gpt2",), 2, "no preset named 'gpt2'"),
        (("base_ts", "--device", "TPU"), 2, "no peak is known for device='TPU' at dtype=bf16"),
        (("base_ts", "--memory-gb", "0.1"), 3, "training takes"),
    ],
)
def test_what_it_refuses(tmp_path, words, code, message):
    assert message in refused("account", *words, cwd=tmp_path, code=code)


@pytest.mark.parametrize(
    "option",
    ["--device=A100", "--dtype=bf16", "--mfu=0.4", "--price=0", "--memory-gb=0", "--measure"],
)
def test_the_toy_refuses_each_option_even_at_its_default(monkeypatch, capsys, option):
    monkeypatch.setattr("sys.argv", ["lmray", "account", "sgd-toy", option])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"sgd-toy takes no {option.split('=')[0]}, " in capsys.readouterr().err


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

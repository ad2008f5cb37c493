import json
from pathlib import Path

import pytest

from lmray.tokenizer import load_tokenizer
from tests.cli.test_cli import lmray, refused
from tests.small import VOCAB_SIZE, write_corpus, write_tokenizer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    corpus = write_corpus(folder)
    write_tokenizer(corpus, folder / "lmray-out" / "tokenizer" / "t" / "tokenizer.json")
    return folder


def test_a_report_for_a_machine(home: Path) -> None:
    found = json.loads(
        lmray("tokenizer", "report", "t", "--corpus", "train.txt", "--json", cwd=home).stdout
    )
    tokenizer = load_tokenizer(home / "lmray-out/tokenizer/t/tokenizer.json")
    assert found["vocabulary"]["ids"] == VOCAB_SIZE
    assert found["vocabulary"]["fingerprint"] == tokenizer.fingerprint
    (usage,) = found["corpora"]
    data = (home / "train.txt").read_bytes()
    assert (usage["corpus"], usage["bytes"]) == ("train", len(data))
    assert usage["tokens"] == len(tokenizer.encode_bytes(data))
    assert found["throughput"]["one_mb_per_s"] > 0


def test_a_report_for_a_person(home: Path) -> None:
    path = "lmray-out/tokenizer/t/tokenizer.json"
    without = lmray("tokenizer", "report", path, cwd=home).stdout
    assert f"{VOCAB_SIZE} ids, 43 merges" in without
    assert "longest tokens" in without
    assert "MB/s" not in without
    given = lmray("tokenizer", "report", path, "--corpus", "valid.txt", cwd=home).stdout
    assert given.startswith(without)
    assert "byte fallback" in given
    assert "the Pile's 825 GB would take" in given


def test_a_comparison_sets_each_beside_each(home: Path) -> None:
    arguments = ("tokenizer", "compare", "t", "lmray-out/tokenizer/t/tokenizer.json")
    corpora = ("--corpus", "train.txt", "--corpus", "valid.txt")
    found = json.loads(lmray(*arguments, *corpora, "--json", cwd=home).stdout)
    assert [row["tokenizer"] for row in found] == list(arguments[2:])
    assert [u["corpus"] for u in found[0]["corpora"]] == ["train", "valid"]
    assert found[0]["corpora"] == found[1]["corpora"]
    shown = lmray(*arguments, *corpora, cwd=home).stdout
    assert "train: bytes/token" in shown
    assert f"{found[0]['corpora'][1]['bytes_per_token']:.3f}" in shown


def test_other_files_are_read_as_corpora(home: Path) -> None:
    documents = [json.dumps({"text": f"Ada sees {number} birds."}) for number in range(50)]
    (home / "rows.jsonl").write_text("\n".join(documents))
    found = json.loads(
        lmray("tokenizer", "compare", "t", "--corpus", "rows.jsonl", "--json", cwd=home).stdout
    )
    assert found[0]["corpora"][0]["bytes"] > 50 * len("Ada sees 1 birds.<|endoftext|>")


def test_what_cannot_be_reported_on_is_refused(home: Path) -> None:
    assert "cannot read tokenizer nope" in refused("tokenizer", "report", "nope", cwd=home, code=2)
    assert "name a text with --corpus" in refused("tokenizer", "compare", "t", cwd=home, code=2)
    (home / "empty.txt").touch()
    assert "there is no text in" in refused(
        "tokenizer", "report", "t", "--corpus", "empty.txt", cwd=home, code=3
    )

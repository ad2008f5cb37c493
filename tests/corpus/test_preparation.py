import gzip
import json
from pathlib import Path

import pytest

from lmray.corpus import Corpus, prepare
from lmray.corpus.documents import read_all
from lmray.errors import PreflightError, UsageError
from lmray.progress import silent

SEPARATED = "one\n<|endoftext|>\ntwo\n<|endoftext|>\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def documents(corpus: Corpus, split: str) -> list[bytes]:
    return list(read_all(corpus.splits[split], progress=silent))


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Two hundred numbered documents."""
    return write(tmp_path / "stories.txt", "".join(f"{n}\n<|endoftext|>\n" for n in range(200)))


def test_separated_text_with_a_validation_file_is_used_in_place(tmp_path: Path) -> None:
    train, valid = write(tmp_path / "a.txt", SEPARATED), write(tmp_path / "b.txt", SEPARATED)
    corpus = prepare([train], valid=[valid], name="mine", root=tmp_path / "out")
    assert corpus == Corpus("mine", (train,), (valid,))
    assert not (tmp_path / "out").exists()


def test_files_without_separators_are_a_document_each(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.txt", f"{name}\n\nend") for name in "abc"]
    valid = write(tmp_path / "v.txt", SEPARATED)
    corpus = prepare(files, valid=[valid], name="books", root=tmp_path)
    assert corpus.train == (tmp_path / "corpora" / "books" / "train.txt",)
    assert corpus.valid == (valid,)
    assert corpus.train[0].read_text() == "".join(
        f"{name}\n\nend\n<|endoftext|>\n" for name in "abc"
    )


def test_every_kind_of_file_gives_the_same_text(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.txt", SEPARATED)
    rows = write(tmp_path / "a.jsonl", '{"text": "one\\n"}\n{"text": "two"}\n')
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"one<|endoftext|>two"))
    for source in (rows, packed):
        corpus = prepare([source], valid=[source], name="mine", root=tmp_path)
        assert corpus.train[0].read_bytes() == corpus.valid[0].read_bytes() == plain.read_bytes()


def test_held_out_documents_are_chosen_by_content(tmp_path: Path, stories: Path) -> None:
    corpus = prepare([stories], name="mine", root=tmp_path, valid_fraction=0.2)
    train, valid = documents(corpus, "train"), documents(corpus, "valid")
    assert 20 < len(valid) < 60
    assert sorted(train + valid, key=int) == [b"%d\n" % n for n in range(200)]
    # Neither the order of documents nor others beside them decide.
    backwards = "".join(f"{n}\n<|endoftext|>\n" for n in reversed(range(150)))
    other = write(tmp_path / "backwards.txt", backwards)
    again = prepare([other], name="other", root=tmp_path, valid_fraction=0.2)
    assert documents(again, "valid") == [text for text in reversed(valid) if int(text) < 150]


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_neither_split_is_left_empty(tmp_path: Path, stories: Path, fraction: float) -> None:
    corpus = prepare([stories], name="mine", root=tmp_path, valid_fraction=fraction)
    sizes = [len(documents(corpus, split)) for split in ("train", "valid")]
    assert sorted(sizes) == [1, 199]


def test_a_conversion_is_reused_until_its_source_changes(tmp_path: Path, stories: Path) -> None:
    corpus = prepare([stories], name="mine", root=tmp_path)
    record = tmp_path / "corpora" / "mine" / "source.json"
    made = corpus.train[0].stat().st_mtime_ns
    assert prepare([stories], name="mine", root=tmp_path) == corpus
    assert corpus.train[0].stat().st_mtime_ns == made

    with stories.open("a") as file:
        file.write("200\n<|endoftext|>\n")
    prepare([stories], name="mine", root=tmp_path)
    assert len(documents(corpus, "train") + documents(corpus, "valid")) == 201
    source = json.loads(record.read_text())["source"]
    assert source["files"][0]["bytes"] == stories.stat().st_size

    before = corpus.digest()
    corpus.train[0].write_bytes(b"cut")
    prepare([stories], name="mine", root=tmp_path)
    assert corpus.digest() == before
    prepare([stories], name="mine", root=tmp_path, valid_fraction=0.3)
    assert corpus.digest() != before


def test_the_digest_is_of_text_alone(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.txt", SEPARATED), write(tmp_path / "b.txt", SEPARATED)
    other = write(tmp_path / "c.txt", SEPARATED + "x")
    digest = Corpus("one", (one,), (two,)).digest()
    assert Corpus("two", (two,), (one,)).digest() == digest
    assert Corpus("one", (one,), (other,)).digest() != digest
    assert Corpus("one", (other,), (one,)).digest() != digest
    assert Corpus("one", (one, two), ()).digest() != digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one long text", r"is 1 document.* no '<\|endoftext\|>' was found.* --valid FILE"),
        ("one<|endoftext|>\n", "is 1 document"),
        ("", "corpus 'mine' is empty"),
        (" \n\n", "corpus 'mine' is empty"),
        ("a<|endoftext|>\na<|endoftext|>a", "the 3 documents .* are all the same"),
    ],
)
def test_a_corpus_that_cannot_be_split_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PreflightError, match=message):
        prepare([write(tmp_path / "a.txt", text)], name="mine", root=tmp_path)
    assert list((tmp_path / "corpora" / "mine").iterdir()) == []


def test_an_empty_validation_file_is_refused(tmp_path: Path) -> None:
    train, valid = write(tmp_path / "a.txt", SEPARATED), write(tmp_path / "b.txt", "\n")
    with pytest.raises(PreflightError, match="the valid split of corpus 'mine' is empty"):
        prepare([train], valid=[valid], name="mine", root=tmp_path)


def test_a_wrong_request_is_refused(tmp_path: Path, stories: Path) -> None:
    def refused(message: str):
        return pytest.raises(UsageError, match=message)

    with refused("cannot read .*absent"):
        prepare([tmp_path / "absent.txt"], name="mine", root=tmp_path)
    with refused("no corpus given"):
        prepare([], name="mine", root=tmp_path)
    with refused("corpus name '../x' is no file name"):
        prepare([stories], name="../x", root=tmp_path)
    with refused("valid_fraction=1.5 is not between 0 and 1"):
        prepare([stories], name="mine", root=tmp_path, valid_fraction=1.5)
    with refused("unknown corpus 'tinystory'; the named ones are stdlib, tinystories"):
        prepare("tinystory", name="mine", root=tmp_path)
    with refused("has its own validation split"):
        prepare("stdlib", valid=[stories], name="mine", root=tmp_path)

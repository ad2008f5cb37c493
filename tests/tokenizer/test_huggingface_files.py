import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import ucd_3_2_0

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmray.errors import CorruptionError, UsageError
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN, Tokenizer
from lmray.tokenizer.huggingface_files import read_tokenizer, write_tokenizer
from tests.tokenizer.random_tokenizers import (
    in_any_order,
    in_merge_order,
    learnt_merges,
    made_up_merges,
    seeds,
    some_specials,
    text_of,
)
from tests.tokenizer.samples import TEXT, hard_text, small_tokenizer

tokenizers = pytest.importorskip("tokenizers")

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN = [GPT2_PATTERN, GPT4_PATTERN, NANOCHAT_PATTERN, LLAMA3]
PATTERNS = [*KNOWN, r"\p{L}+", r"[ab]+|\d", r" ?\S+", r"(?:ab)+?|\s++"]


def written(tokenizer: Tokenizer) -> Any:
    """The tokenizer as `tokenizers` reads it."""
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder, "tokenizer.json"), tokenizer)
        return tokenizers.Tokenizer.from_file(str(Path(folder, "tokenizer.json")))


def read(theirs: Any) -> Tokenizer:
    """The tokenizer as `tokenizers` writes it."""
    with TemporaryDirectory() as folder:
        theirs.save(str(Path(folder, "tokenizer.json")))
        return read_tokenizer(Path(folder, "tokenizer.json"))


def ids(theirs: Any, text: str) -> list[int]:
    return theirs.encode(text).ids


@given(seeds, st.sampled_from(PATTERNS))
def test_tokenizers_gives_the_same_ids_and_writes_the_same_tokenizer(
    draw: Random, pattern: str
) -> None:
    made = in_any_order(draw, made_up_merges(draw), some_specials(draw))
    tokenizer = Tokenizer(made.vocab, made.merges, made.special_tokens, pattern=pattern)
    theirs = written(tokenizer)
    for _ in range(3):
        text = text_of(draw)
        assert ids(theirs, text) == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text), skip_special_tokens=False) == text
    assert read(theirs).fingerprint == tokenizer.fingerprint


def settled(text: str) -> str:
    """The characters that `regex` and `tokenizers`, of different Unicode versions, both know."""
    return "".join(character for character in text if ucd_3_2_0.category(character) not in _UNSURE)


_UNSURE = ("Cn", "Cs")


@given(hard_text | st.text(), st.sampled_from(KNOWN))
@example("\x1c\x85\u2028 \u00a0a\u0301\u1e9e'\u017f 1\u00b2Ⅷ", LLAMA3)
def test_any_text(text: str, pattern: str) -> None:
    small = small_tokenizer()
    tokenizer = Tokenizer(small.vocab, small.merges, small.special_tokens, pattern=pattern)
    text = settled(text)
    assert ids(HELD[pattern], text) == tokenizer.encode(text)


HELD = {
    pattern: written(
        Tokenizer(
            small_tokenizer().vocab,
            small_tokenizer().merges,
            small_tokenizer().special_tokens,
            pattern=pattern,
        )
    )
    for pattern in KNOWN
}


@pytest.mark.parametrize("name", ["tinystories-valid.txt", "webtext-valid.txt"])
def test_gpt2_on_real_text(data_dir: Path, gpt2: Tokenizer, name: str) -> None:
    text = (data_dir / name).read_text()[:60_000]
    assert ids(written(gpt2), text) == gpt2.encode(text)


def trained(pre_tokenizer: Any, **options: Any) -> Any:
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = pre_tokenizer
    theirs.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=360,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        **{"initial_alphabet": tokenizers.pre_tokenizers.ByteLevel.alphabet()} | options,
    )
    theirs.train_from_iterator([TEXT], trainer)
    return theirs


def byte_level(use_regex: bool = True, **options: Any) -> Any:
    options = {"add_prefix_space": False} | options
    return tokenizers.pre_tokenizers.ByteLevel(use_regex=use_regex, **options)


def split_by(pattern: str, behavior: str = "isolated", **options: Any) -> Any:
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), behavior, **options)
    return tokenizers.pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


@given(seeds, hard_text)
def test_a_tokenizer_that_tokenizers_trained(draw: Random, text: str) -> None:
    text = settled(text) + text_of(draw)
    for theirs, ours in THEIRS:
        assert ours.encode(text) == ids(theirs, text)


THEIRS = [
    (theirs, read(theirs))
    for theirs in (
        trained(byte_level()),
        trained(split_by(LLAMA3)),
        trained(split_by(r"\p{L}+")),  # whose gaps are pieces, not characters
        trained(split_by(r" ?[a-z]{2,}|\d")),
    )
]


def test_tokens_added_later_are_special_tokens() -> None:
    theirs = trained(byte_level())
    size = theirs.get_vocab_size()
    theirs.add_special_tokens(["<é x>"])
    theirs.add_tokens(["gather", "zz"])
    ours = read(theirs)
    assert ours.special_ids == {
        END_OF_TEXT: 0,
        "<é x>": size,
        "gather": size + 1,
        "zz": size + 2,
    }
    text = f"zzz gathering{END_OF_TEXT}<é x><é x"
    assert ours.encode(text) == ids(theirs, text)


def test_bytes_that_are_no_token_are_dropped_there_and_refused_here() -> None:
    theirs = trained(byte_level(), initial_alphabet=[])
    ours = read(theirs)
    assert ours.encode("there") == ids(theirs, "there")
    assert ids(theirs, "Zthere") == ids(theirs, "there")
    with pytest.raises(UsageError, match=r"byte b'Z' .* is not in the vocabulary"):
        ours.encode("Zthere")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json", small_tokenizer())
    return tmp_path / "tokenizer.json"


def altered(path: Path, change: Callable[[Any], object]) -> Path:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return path


def test_both_spellings_of_merges_are_read(path: Path) -> None:
    def as_lists(record: Any) -> None:
        record["model"]["merges"] = [merge.split(" ") for merge in record["model"]["merges"]]

    assert read_tokenizer(path).fingerprint == small_tokenizer().fingerprint
    assert read_tokenizer(altered(path, as_lists)).fingerprint == small_tokenizer().fingerprint


def added(content: str, **options: Any) -> dict[str, Any]:
    return {"content": content, "id": 900, "special": True, "normalized": False} | options


SPLIT = {"type": "Split", "pattern": {"Regex": r"\S+"}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def cut_by(*parts: Any) -> Callable[[Any], object]:
    return lambda r: r.update(pre_tokenizer={"type": "Sequence", "pretokenizers": list(parts)})


REFUSED: list[tuple[Callable[[Any], object], str]] = [
    (lambda r: r.update(normalizer={"type": "NFC"}), r"normalizer=\{'type': 'NFC'\} changes"),
    (lambda r: r.update(truncation={"max_length": 8}), "truncation=.* changes the text or its ids"),
    (lambda r: r.update(padding={"pad_id": 0}), "padding=.* changes the text or its ids"),
    (lambda r: r.update(post_processor={"type": "TemplateProcessing"}), "adds no tokens to a text"),
    (lambda r: r.update(decoder={"type": "WordPiece"}), "decoder WordPiece is neither ByteLevel"),
    (lambda r: r.update(pre_tokenizer=None), r"pre_tokenizer \[None\] is neither ByteLevel nor"),
    (lambda r: r.update(pre_tokenizer={"type": "Whitespace"}), r"\['Whitespace'\] is neither"),
    (lambda r: r["pre_tokenizer"].update(add_prefix_space=True), "has add_prefix_space, but lmray"),
    (lambda r: r["pre_tokenizer"].update(use_regex=False), "exactly one of ByteLevel's use_regex"),
    (cut_by(SPLIT, LEVEL | {"use_regex": True}), "exactly one of ByteLevel's use_regex"),
    (cut_by({"type": "Digits"}, LEVEL), r"\['Digits', 'ByteLevel'\] is neither"),
    (cut_by(SPLIT | {"behavior": "Removed"}, LEVEL), "Split with behavior Removed, invert=False"),
    (cut_by(SPLIT | {"invert": True}, LEVEL), "Split with behavior Isolated, invert=True"),
    (cut_by(SPLIT | {"pattern": {"String": " "}}, LEVEL), "and a String is not Isolated"),
    (cut_by(SPLIT | {"pattern": {"Regex": r"\w+"}}, LEVEL), r"may not mean the same to `tokenize"),
    (lambda r: r["model"].update(type="WordPiece"), "model WordPiece is not BPE"),
    (lambda r: r["model"].update(ignore_merges=True), "model has ignore_merges=True, which lmray"),
    (lambda r: r["model"].update(byte_fallback=True), "model has byte_fallback=True"),
    (lambda r: r["model"].update(dropout=0.1), "model has dropout=0.1"),
    (lambda r: r["model"].update(continuing_subword_prefix="##"), "continuing_subword_prefix='##'"),
    (lambda r: r["model"].update(end_of_word_suffix="</w>"), "model has end_of_word_suffix='</w>'"),
    (lambda r: r["model"].update(cache="x"), "model has cache='x', which lmray does not do"),
    (lambda r: r["model"]["merges"].append(r["model"]["merges"][0]), "a merge is listed twice"),
    (lambda r: r["model"]["merges"].append("q q"), "needs b'qq', which is not in the vocabulary"),
    (lambda r: r["model"]["merges"].append("東 q"), "is not of byte-level characters"),
    (lambda r: r["model"]["vocab"].update(new=3), "one id is given to several tokens"),
    (lambda r: r["model"]["vocab"].update(new="3"), "does not map tokens to ids"),
    (lambda r: r["model"]["vocab"].update(new=-3), "does not map tokens to ids"),
    (lambda r: r["added_tokens"].append(added("<z>", lstrip=True)), "added token '<z>' has lstrip"),
    (lambda r: r["added_tokens"].append(added("<z>", single_word=True)), "has single_word"),
    (lambda r: r["added_tokens"].append(added("<|", normalized=True)), "can share characters"),
    (lambda r: r["added_tokens"].append(added("é", id=233)), r"as the bytes b'\\xe9'"),
    (lambda r: r["added_tokens"].append(added("a")), "'a' has id 900, in the vocabulary 97"),
    (lambda r: r["added_tokens"].append(added("  ")), r"ids \d+ and 900 .* are both b'  '"),
    (lambda r: (r["model"].update(unk_token="?"), r["model"]["vocab"].pop("Z")),
     r"unk_token='\?' stands for bytes that are no token"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_lmray_does_not_do_is_refused_by_name(
    path: Path, change: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_tokenizer(altered(path, change))
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("model"), "it has no model"),
        (lambda r: r["model"].pop("merges"), "is damaged .KeyError: 'merges'"),
        (lambda r: r["model"].update(merges=[["a"]]), "is damaged .ValueError"),
        (lambda r: r.update(added_tokens=[{}]), "is damaged .KeyError"),
        (lambda r: r.update(pre_tokenizer="ByteLevel"), "is damaged .TypeError"),
    ],
)
def test_a_damaged_file_is_refused(
    path: Path, change: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(CorruptionError, match=message):
        read_tokenizer(altered(path, change))


@pytest.mark.parametrize(
    "pattern", [r"\p{N}{1,3}+|\s", r"\s+$|\S", r"^a|b", r"\w+", r"\bcat", r"[a&&b]", r"(?<=a)b"]
)
def test_patterns_that_other_regular_expressions_read_otherwise_are_refused(
    tmp_path: Path, pattern: str
) -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)}
    with pytest.raises(UsageError, match="may not mean the same to `tokenizers`"):
        write_tokenizer(tmp_path / "x.json", Tokenizer(vocab, [], pattern=pattern))


def test_a_special_token_that_merges_make_of_other_characters_is_refused(tmp_path: Path) -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: "é".encode(), 257: b"ab"}
    merges = [(b"\xc3", b"\xa9"), (b"a", b"b")]
    with pytest.raises(UsageError, match="special token 'é' is also what merges make or use"):
        write_tokenizer(tmp_path / "x.json", Tokenizer(vocab, merges, ["é"]))
    tokenizer = Tokenizer(vocab, merges, ["ab"])
    assert ids(written(tokenizer), "xabé") == tokenizer.encode("xabé") == [120, 257, 256]


def test_ids_stay_where_learnt_merges_have_gaps() -> None:
    draw = Random(3)
    tokenizer = in_merge_order(draw, learnt_merges(draw), [END_OF_TEXT, "zz"])
    assert written(tokenizer).token_to_id("zz") == tokenizer.special_ids["zz"]

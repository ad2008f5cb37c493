from collections.abc import Sequence
from pathlib import Path

import pytest

from lmray.corpus import ByteRange, Corpus
from lmray.corpus.sampling import DocumentSample
from lmray.errors import PreflightError, UsageError
from lmray.progress import Progress, silent
from lmray.tokenizer import GPT2_PATTERN, PretokenCounts, count_pretokens, load_tokenizer, train_bpe
from lmray.tokenizer.build import Recipe, build
from lmray.tokenizer.corpus_counts import CountRule, Effort, count_here
from tests.small import END, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


def not_called(
    ranges: Sequence[ByteRange], rule: CountRule, progress: Progress
) -> tuple[PretokenCounts, Effort]:
    raise AssertionError("counted again")


def test_it_is_what_train_bpe_learns_and_is_found_again(corpus: Corpus, tmp_path: Path) -> None:
    directory = tmp_path / "tokenizer" / "t"
    facts = build(corpus, directory, Recipe(300), kept_counts=tmp_path / "counts")
    vocab, merges = train_bpe(corpus.train[0], 300, [END])
    made = load_tokenizer(directory / "tokenizer.json")
    assert (made.vocab, made.merges) == (vocab, merges)
    assert facts["bytes"] == facts["corpus_bytes"] == corpus.train[0].stat().st_size
    assert facts["merges"] == 43
    again = build(
        corpus, directory, Recipe(300), kept_counts=tmp_path / "no", count_ranges=not_called
    )
    assert again == facts


def test_another_size_and_an_interrupted_training_use_the_kept_counts(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "counts"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmray.tokenizer.build.learn_merges", killed)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, tmp_path / "t", Recipe(300), kept_counts=kept)
    assert not (tmp_path / "t" / "tokenizer.json").exists()
    for size in (300, 310):
        facts = build(
            corpus, tmp_path / f"{size}", Recipe(size), kept_counts=kept, count_ranges=not_called
        )
        assert facts["bytes"] == corpus.train[0].stat().st_size
    made = load_tokenizer(tmp_path / "310" / "tokenizer.json")
    assert made.merges == train_bpe(corpus.train[0], 310, [END])[1]


def test_a_sample_is_its_own_recipe(corpus: Corpus, tmp_path: Path) -> None:
    size = corpus.train[0].stat().st_size
    kept = tmp_path / "counts"
    recipe = Recipe(290, max_bytes=size // 2, seed=1)
    facts = build(corpus, tmp_path / "half", recipe, kept_counts=kept)
    assert 0.4 * size < facts["bytes"] < 0.6 * size
    text = DocumentSample((size // 2) / size, seed=1).of(corpus.train[0].read_bytes())
    (tmp_path / "half.txt").write_bytes(text)
    made = load_tokenizer(tmp_path / "half" / "tokenizer.json")
    assert made.merges == train_bpe(tmp_path / "half.txt", 290, [END])[1]
    with pytest.raises(PreflightError, match=r"another tokenizer \(not the same seed\)"):
        build(corpus, tmp_path / "half", Recipe(290, max_bytes=size // 2, seed=2), kept_counts=kept)
    # A sample that is everything is no sample, whatever its seed.
    everything = build(corpus, tmp_path / "all", Recipe(290, seed=5), kept_counts=kept)
    assert everything == build(
        corpus, tmp_path / "all", Recipe(290, max_bytes=2 * size, seed=6), kept_counts=kept
    )


def test_any_pattern_and_special_tokens_count_alike_in_ranges(corpus: Corpus) -> None:
    text = corpus.train[0].read_bytes()
    cut = text.index(END.encode(), len(text) // 3) + len(END)
    path = str(corpus.train[0])
    ranges = [ByteRange(path, 0, cut), ByteRange(path, cut, len(text))]
    for pattern in (GPT2_PATTERN, r"\w+|\W+"):
        rule = CountRule(pattern, (END, "Ada"), DocumentSample(1.0, seed=0), memory=1 << 30)
        counts, effort = count_here(ranges, rule, silent)
        whole = count_pretokens(text, pattern=pattern, special_tokens=[END, "Ada"])
        assert counts.as_counter() == whole.as_counter()
        assert b"Ada" not in counts.as_counter()
        assert effort.read_bytes == effort.counted_bytes == len(text)


def test_counts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text(" ".join(map(str, range(40_000))))
    corpus = Corpus("numbers", (path,), (path,))
    with pytest.raises(PreflightError, match=r"distinct pre-tokens need .* --max-bytes"):
        build(corpus, tmp_path / "t", Recipe(300), kept_counts=tmp_path, memory=1_000_000)
    assert not list(tmp_path.glob("*.parquet"))


def test_recipes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="max_bytes=0"):
        Recipe(300, max_bytes=0)
    with pytest.raises(UsageError, match="vocabulary of 256 is too small"):
        Recipe(256)


@pytest.mark.parametrize(
    ("special_tokens", "message"),
    [
        ((END, END + "<p>"), "can share characters"),
        (("t|>x", END), "can share characters"),
        (("<p>",), "no special token '<|endoftext|>'"),
    ],
)
def test_special_tokens_that_the_cuts_of_the_text_would_break_are_refused(
    special_tokens: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Recipe(300, special_tokens=special_tokens)
    assert message in str(refused.value)

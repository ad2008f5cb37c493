"""From a corpus to a tokenizer on disk: count, keep the counts, learn, save, report."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmray.corpus import ByteRange, Corpus, byte_ranges
from lmray.corpus.sampling import DocumentSample
from lmray.errors import PreflightError, UsageError
from lmray.machine import peak_memory, total_memory
from lmray.progress import Progress, silent
from lmray.storage import canonical_json, locked, read_json, write_json
from lmray.tokenizer import counts_file
from lmray.tokenizer.corpus_counts import CountRanges, CountRule, Effort, count_here
from lmray.tokenizer.counts import PretokenCounts
from lmray.tokenizer.files import save
from lmray.tokenizer.learning import (
    TIE_BREAKS,
    TieBreak,
    check_vocab_size,
    learn_merges,
    vocabulary,
)
from lmray.tokenizer.native_learner import learning_bytes
from lmray.tokenizer.pattern import END_OF_TEXT, GPT2_PATTERN, Pretokenizer
from lmray.tokenizer.separator import check_separator
from lmray.tokenizer.tokenizer import Tokenizer

ALL_TEXT = 1 << 62
"""Recipe.max_bytes that no corpus reaches."""

_LEAST_RANGE, _MOST_RANGE, _RANGES = 1 << 20, 1 << 25, 16


@dataclass(frozen=True)
class Recipe:
    """All that decides, with a corpus, which tokenizer is learnt."""

    vocab_size: int
    pattern: str = GPT2_PATTERN
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    tie_break: TieBreak = "bytes"
    max_bytes: int = ALL_TEXT
    """Text to learn from, about: a sample of whole documents where the corpus has more."""
    seed: int = 0
    """Chooses the sample."""

    def __post_init__(self) -> None:
        check_vocab_size(self.vocab_size, self.special_tokens)
        Pretokenizer(self.pattern, self.special_tokens)  # refuses those that cannot work
        check_separator(self.special_tokens)
        if self.tie_break not in TIE_BREAKS:
            raise UsageError(f"tie_break={self.tie_break!r} is neither {' nor '.join(TIE_BREAKS)}")
        if self.max_bytes < 1:
            raise UsageError(f"max_bytes={self.max_bytes} is not positive; ask for some text")


def build(
    corpus: Corpus,
    directory: Path,
    recipe: Recipe,
    *,
    kept_counts: Path,
    count_ranges: CountRanges = count_here,
    memory: int = total_memory() // 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Learns directory/tokenizer.json from the training split, or finds it there; says what it is.

    The counts are kept in the folder `kept_counts`, for tokenizers of other sizes and in case
    learning is interrupted. Neither they nor learning take more than `memory` bytes in a process.

    Raises PreflightError if `directory` holds a tokenizer of another recipe or corpus, and what
    `count_ranges` and `learn_merges` raise.
    """
    digest = corpus.digest()
    ranges = _ranges(corpus.train)
    size = sum(part.size for part in ranges)
    content = {
        "corpus": digest,
        "pattern": recipe.pattern,
        "special_tokens": list(recipe.special_tokens),
        "max_bytes": min(recipe.max_bytes, size),
        "seed": recipe.seed if recipe.max_bytes < size else 0,
    }
    wanted = {"vocab_size": recipe.vocab_size, "tie_break": recipe.tie_break, **content}
    if (known := _known(directory, wanted)) is not None:
        return known
    rule = CountRule(
        pattern=recipe.pattern,
        special_tokens=recipe.special_tokens,
        sample=DocumentSample(share=min(1.0, recipe.max_bytes / max(size, 1)), seed=recipe.seed),
        memory=memory,
    )
    name = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]
    with locked(directory, f"another process is training {directory}; wait for it or stop it"):
        begun = time.monotonic()
        counts, effort = _counts(
            kept_counts / f"{name}.parquet", ranges, rule, count_ranges, progress
        )
        counted = time.monotonic()
        needed = learning_bytes(counts, recipe.vocab_size)
        if needed > memory:
            raise PreflightError(
                f"learning merges from {len(counts):,} distinct pre-tokens may take "
                f"{needed / 1e9:.3g} GB, more than the {memory / 1e9:.3g} GB allowed; raise "
                f"--memory (the counts are kept) or count a sample with --max-bytes"
            )
        merges = learn_merges(
            counts,
            vocab_size=recipe.vocab_size,
            special_tokens=recipe.special_tokens,
            tie_break=recipe.tie_break,
            progress=progress,
        )
        learnt = time.monotonic()
        specials = list(recipe.special_tokens)
        made = Tokenizer(vocabulary(merges, specials), merges, specials, pattern=recipe.pattern)
        facts = {
            **wanted,
            "fingerprint": made.fingerprint,
            "merges": len(merges),
            "distinct_pretokens": len(counts),
            "pretokens": counts.occurrences,
            "corpus_bytes": size,
            "bytes": effort.counted_bytes,
            "longest_bytes": int(made.token_bytes().max()),
            "seconds": {
                "counting": round(counted - begun, 3),
                "merging": round(learnt - counted, 3),
            },
            "seconds_of_all_threads": {
                "read": round(effort.read_seconds, 3),
                "count": round(effort.count_seconds, 3),
                "reduce": round(effort.reduce_seconds, 3),
            },
            "merges_per_second": round(len(merges) / max(learnt - counted, 1e-9)),
            "learning_bytes": needed,
            "peak_bytes": {"this process": peak_memory(), "a worker": effort.worker_peak_bytes},
        }
        save(
            made,
            directory / "tokenizer.json",
            corpus_digest=digest,
            tie_break=recipe.tie_break,
        )
        write_json(directory / "report.json", facts)
    return facts


def _ranges(files: Sequence[Path]) -> list[ByteRange]:
    """Ranges of the text: enough of them for many cores, large enough to be worth a task."""
    size = sum(file.stat().st_size for file in files)
    target = min(max(size // _RANGES, _LEAST_RANGE), _MOST_RANGE)
    return [part for file in files for part in byte_ranges(file, target_bytes=target)]


def _known(directory: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The report of the tokenizer that is in `directory` already, if any."""
    if not (directory / "tokenizer.json").exists() or not (directory / "report.json").exists():
        return None
    facts = read_json(directory / "report.json")
    differing = [key for key, value in wanted.items() if facts.get(key) != value]
    if differing:
        raise PreflightError(
            f"{directory} holds another tokenizer (not the same {', '.join(differing)}); "
            f"choose another --name or delete it"
        )
    return facts


def _counts(
    path: Path,
    ranges: Sequence[ByteRange],
    rule: CountRule,
    count_ranges: CountRanges,
    progress: Progress,
) -> tuple[PretokenCounts, Effort]:
    """The counts that are kept in `path`, or that are made and kept now."""
    if path.exists():
        counts, facts = counts_file.load(path)
        return counts, Effort(**facts)
    counts, effort = count_ranges(ranges, rule, progress)
    counts_file.save(path, counts, asdict(effort))
    return counts, effort

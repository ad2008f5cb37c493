"""The directory a token dataset is written to: what may be there already, and what stays there."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np

from lmray.corpus import Corpus
from lmray.dataset.manifest import Manifest, ends_file, read_manifest, shard_file
from lmray.errors import PreflightError
from lmray.storage import ASIDE, write_bytes
from lmray.tokenizer import Tokenizer, load_tokenizer


def check_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Raises PreflightError if `directory` holds tokens of another tokenizer."""
    own = directory / "tokenizer.json"
    if own.exists() and (found := load_tokenizer(own).fingerprint) != tokenizer.fingerprint:
        raise PreflightError(
            f"{directory} holds tokens of another tokenizer ({found:.12}, not "
            f"{tokenizer.fingerprint:.12}); choose another --name or delete it"
        )


def planned(corpus: Corpus, tokenizer: Tokenizer, shard_bytes: int) -> Manifest:
    """What a split's manifest will say, but for its shards."""
    return Manifest(
        dtype=tokenizer.id_dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.fingerprint,
        corpus=corpus.digest(),
        shard_bytes=shard_bytes,
        shards=[],
    )


def is_built(target: Path, wanted: Manifest) -> bool:
    """Whether a split is there, made from what `wanted` names.

    Raises PreflightError if it is made from something else.
    """
    if not (target / "manifest.json").exists():
        return False
    found = read_manifest(target)
    differing = [
        f"{key}={getattr(found, key)!r} instead of {value!r}"
        for key, value in wanted
        if key != "shards" and value != getattr(found, key)
    ]
    if differing:
        raise PreflightError(
            f"{target} was made from something else: {', '.join(differing)}; "
            f"choose another --name or delete it"
        )
    return True


def write_array(path: Path, array: np.ndarray) -> str:
    """Writes a .npy file; returns its SHA-256."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def tidy(target: Path, num_shards: int) -> None:
    """Removes what interrupted builds, perhaps of other shard sizes, have left."""
    for rows in target.glob("rows-*"):
        shutil.rmtree(rows)
    kept = {name(index) for index in range(num_shards) for name in (shard_file, ends_file)}
    for path in (*target.glob("*.npy"), *target.glob(f".*{ASIDE}")):
        if path.name not in kept:
            path.unlink()

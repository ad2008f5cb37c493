"""tiktoken's ranks: a file with a token in base64, a space and its rank on each line.

tiktoken merges the two neighbours whose joined bytes have the lowest rank; a rank is the token's
id. The file has neither the split pattern nor the special tokens.
"""

import base64
import binascii
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from lmray.errors import CorruptionError, UsageError
from lmray.storage import write_bytes
from lmray.tokenizer.tokenizer import Tokenizer

Merge = tuple[bytes, bytes]

_GREATEST = (1 << 31) - 1


def read_ranks(path: Path | str) -> dict[bytes, int]:
    """The rank of each token.

    Raises CorruptionError, naming the line, for what is not a token and a rank of its own.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); check the path and its permissions"
        ) from error
    ranks: dict[bytes, int] = {}
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        token, rank = _token_and_rank(f"{path}:{number}", line)
        if token in ranks or rank in tokens:
            what = f"token {token!r}" if token in ranks else f"rank {rank}"
            raise CorruptionError(f"{path}:{number} has {what} once more; fetch the file again")
        ranks[token] = rank
        tokens[rank] = token
    if not ranks:
        raise CorruptionError(f"{path} has no ranks; give a .tiktoken file")
    return ranks


def _token_and_rank(where: str, line: bytes) -> tuple[bytes, int]:
    token, _, rank = line.partition(b" ")
    try:
        data = base64.b64decode(token, validate=True)
    except binascii.Error:
        data = b""
    if not data or not rank.isdigit() or len(rank) > 10 or int(rank) > _GREATEST:
        shown = line.decode("ascii", "backslashreplace")
        raise CorruptionError(
            f"{where} is not a token in base64, a space and a rank: {shown!r:.80}; "
            f"give a whole .tiktoken file"
        )
    return data, int(rank)


def merges_of(ranks: Mapping[bytes, int]) -> list[Merge]:
    """The merges that encode as tiktoken does with `ranks`, in the order of what they make.

    The two parts of a token are those that tiktoken is left with when it encodes the token's own
    bytes: merges within a token do not depend on the text around it, so it is never made from
    other parts. UsageError if a token is never made from its bytes: tiktoken then yields it only
    for a pre-token that is it as a whole, which merges cannot say.
    """
    merges = []
    unmade = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) == 1:
            continue
        parts = _last_parts(token, ranks)
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
        else:
            unmade.append(token)
    if unmade:
        raise UsageError(
            f"no merges lead to {len(unmade):,} tokens, the first of which is rank "
            f"{ranks[unmade[0]]}, {unmade[0]!r}: lmray has no tokens that only a whole pre-token "
            f"becomes; use a vocabulary that was learnt by merging"
        )
    return merges


def _last_parts(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What `token` is merged to before it becomes one."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right, _GREATEST + 1) for left, right in pairwise(parts)]
        lowest = min(found)
        if lowest > _GREATEST:
            break
        place = found.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def write_ranks(path: Path | str, tokenizer: Tokenizer) -> None:
    """Writes the tokens of `tokenizer` that are not special.

    Raises UsageError if tiktoken would merge otherwise than `tokenizer` does.
    """
    ranks = _ranks(tokenizer)
    merges = merges_of(ranks)
    if merges != tokenizer.merges:
        raise UsageError(f"{_difference(merges, tokenizer)}; use the huggingface format")
    lines = (
        base64.b64encode(token) + b" %d\n" % rank
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
    )
    write_bytes(path, b"".join(lines))


def _ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    """The ids of all tokens but those that are special only."""
    made = {left + right for left, right in tokenizer.merges}
    special = {token.encode() for token in tokenizer.special_tokens}
    ranks = {}
    for token, data in tokenizer.vocab.items():
        if len(data) == 1 or data in made:
            ranks[data] = token
        elif data not in special:
            raise UsageError(
                f"no merge makes id {token}, {data!r}, but tiktoken would merge to every token; "
                f"use the huggingface format"
            )
    return ranks


def _difference(found: list[Merge], tokenizer: Tokenizer) -> str:
    """Why ranks cannot say what the tokenizer's merges do."""
    ids = {data: token for token, data in tokenizer.vocab.items()}
    made = [ids[left + right] for left, right in tokenizer.merges]
    for rank, (one, other) in enumerate(pairwise(made), start=1):
        if one >= other:
            return (
                f"tiktoken's ranks are ids, and merge {rank} makes id {other} after {one}: "
                f"ids are not in the order of the merges"
            )
    merge, ranked = next(
        pairs for pairs in zip(tokenizer.merges, found, strict=True) if pairs[0] != pairs[1]
    )
    return (
        f"tiktoken would make {merge[0] + merge[1]!r} from {ranked[0]!r} + {ranked[1]!r}, "
        f"this tokenizer makes it from {merge[0]!r} + {merge[1]!r}"
    )

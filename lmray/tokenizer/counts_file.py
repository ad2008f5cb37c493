"""Pre-token counts on disk: a Parquet file of pre-tokens and counts that any tool can read."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmray.errors import CorruptionError
from lmray.storage import canonical_json, write_bytes
from lmray.tokenizer.counts import PretokenCounts

_FACTS = b"lmray"


def save(path: Path, counts: PretokenCounts, facts: dict[str, Any]) -> None:
    """Writes `counts` and what is to be known of them, whole or not at all, with checksums."""
    import pyarrow as pa
    import pyarrow.parquet

    offsets = np.concatenate([[0], counts.ends]).astype(np.int64)
    pretokens = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(counts), [None, pa.py_buffer(offsets), pa.py_buffer(counts.data)]
    )
    table = pa.table({"pretoken": pretokens, "count": counts.counts})
    table = table.replace_schema_metadata({_FACTS: canonical_json(facts)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        table, buffer, use_dictionary=False, compression="zstd", write_page_checksum=True
    )
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> tuple[PretokenCounts, dict[str, Any]]:
    """What `save` wrote.

    Raises CorruptionError if the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
        facts = json.loads(table.schema.metadata[_FACTS])
        pretokens = table["pretoken"].combine_chunks().cast(pa.large_binary())
        counts = table["count"].combine_chunks().to_numpy()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"{path} is damaged ({' '.join(str(error).split())}); delete it to count anew"
        ) from error
    _, offsets, data = pretokens.buffers()
    return (
        PretokenCounts(
            data=np.frombuffer(data or b"", dtype=np.uint8),
            ends=np.frombuffer(offsets, dtype=np.int64)[1 : len(counts) + 1].copy(),
            counts=counts,
        ),
        facts,
    )

"""Where text comes from: named and local corpora, documents, byte ranges."""

from lmray.corpus.corpus import Corpus
from lmray.corpus.documents import read_documents
from lmray.corpus.facts import Facts, stat
from lmray.corpus.named import NAMED, VALID_FRACTION, fetch
from lmray.corpus.preparation import prepare
from lmray.corpus.ranges import SEPARATOR, ByteRange, byte_ranges

__all__ = [
    "NAMED",
    "SEPARATOR",
    "VALID_FRACTION",
    "ByteRange",
    "Corpus",
    "Facts",
    "byte_ranges",
    "fetch",
    "prepare",
    "read_documents",
    "stat",
]

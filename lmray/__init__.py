"""lmray: from raw text to a trustworthy answer about small language models."""

__version__ = "0.1.0"

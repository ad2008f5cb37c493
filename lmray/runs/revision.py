"""The commit of the checkout a program runs from, also where only its files were sent."""

import subprocess
from pathlib import Path

REVISION_FILE = ".git_revision"
"""What takes the place of .git at the top of a package that `lmray submit` sends."""


def git_revision(root: Path) -> str:
    """The commit of the checkout at `root`, with -dirty if a tracked file was changed since.

    Of the files of a package, that of the checkout they were sent from. "none" without either, as
    in a wheel, and before the first commit.
    """
    if not (root / ".git").exists():
        packed = root / REVISION_FILE
        return packed.read_text().strip() if packed.is_file() else "none"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "none"

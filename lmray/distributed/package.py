"""What a job takes along to its cluster: the tracked files of a git checkout, as one zip file.

Tracked, because a data set, a virtual environment and a forgotten key are not; as they are on disk,
because what is tried out is seldom committed. The same files always give the same zip.
"""

import fnmatch
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmray.errors import PreflightError
from lmray.runs.revision import REVISION_FILE, git_revision

MAX_BYTES = 50 << 20
"""Ray keeps packages in the memory of the head, and each node fetches them from there."""

SECRETS = (
    *("*.env", ".env.*", ".envrc", ".netrc", ".npmrc", ".pypirc", ".pgpass", ".htpasswd"),
    *(".aws", ".docker", ".dockercfg", ".dockerconfigjson", ".gnupg", ".kube", ".ssh"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
    *("*credentials*", "*kubeconfig*", "*service[_-]account*.json"),
    *("secret", "secrets", "secret.*", "secrets.*", "*password", "*passwords", "*password*.txt"),
    *("api[_-]key*", "apikey*", "*[_-]api[_-]key", "*.token", "*[_-]token"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.keystore", "*.ppk", "*.tfstate"),
)
"""Names of files and folders, in any case, that are refused: they usually hold keys."""


@dataclass(frozen=True)
class Package:
    """Files of a checkout that are to be packed."""

    root: Path
    """The checkout."""
    files: dict[str, int]
    """Bytes of each file, by its path beneath the root."""

    revision: str
    """The checkout's commit, with -dirty where the files are no longer those of it."""

    untracked: tuple[str, ...] = ()
    """Files that are left out, though git does not ignore them either."""

    @property
    def bytes(self) -> int:
        """Their sizes added up, before they are compressed."""
        return sum(self.files.values())

    def largest(self, count: int) -> list[tuple[str, int]]:
        """The largest files and their bytes."""
        return sorted(self.files.items(), key=lambda item: (-item[1], item[0]))[:count]

    def write(self, destination: Path) -> None:
        """Writes the files, and one that names their revision, to a new zip file."""
        with zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                path = self.root / name
                _add(archive, name, path.read_bytes(), mode=path.stat().st_mode & 0o777)
            _add(archive, REVISION_FILE, f"{self.revision}\n".encode(), mode=0o644)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, *, mode: int) -> None:
    # One date for all: the zip's name on the cluster is the hash of its bytes.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = mode << 16
    archive.writestr(entry, data)


def find_package(directory: Path, *, allow_secrets: bool = False) -> Package:
    """The tracked files of the checkout that `directory` lies in; deleted ones are left out.

    Raises PreflightError if there is no checkout, or its files are too large, look like secrets
    (unless those are allowed), or are links to what is not packed.
    """
    root = Path(_git(directory, "rev-parse", "--show-toplevel").strip()).resolve()
    names = [
        name for name in _git(root, "ls-files", "-z", "--recurse-submodules").split("\0") if name
    ]
    names = [name for name in dict.fromkeys(names) if (root / name).exists()]
    for name in names:
        # What a link leads to is packed in its place, so it must be a file that would be anyway.
        target = (root / name).resolve()
        if not target.is_file() or str(target).removeprefix(f"{root}/") not in names:
            raise PreflightError(
                f"{name} is a link to {target}, which git does not track as a file of {root}; "
                f"put the file in its place or `git rm` the link"
            )
    secrets = [name for name in names if looks_secret(name)]
    if secrets and not allow_secrets:
        raise PreflightError(
            f"{', '.join(secrets[:5])}{' ...' if len(secrets) > 5 else ''} would be sent to the "
            f"cluster and {'look' if len(secrets) > 1 else 'looks'} like a secret; "
            f"`git rm --cached` it, or send it with --allow-secrets"
        )
    others = _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    sizes = {name: (root / name).stat().st_size for name in names}
    package = Package(root, sizes, git_revision(root), tuple(filter(None, others)))
    if not names:
        raise PreflightError(f"git tracks no file in {root}; `git add` what the job needs")
    if package.bytes > MAX_BYTES:
        largest = ", ".join(f"{name} ({size:,} bytes)" for name, size in package.largest(3))
        raise PreflightError(
            f"the tracked files of {root} have {package.bytes:,} bytes, more than {MAX_BYTES:,}; "
            f"`git rm --cached` what the job can read from shared storage, such as {largest}"
        )
    return package


def looks_secret(name: str) -> bool:
    """Whether a part of a path has a name that keys and passwords usually have."""
    parts = [part.lower() for part in Path(name).parts]
    return any(
        fnmatch.fnmatchcase(part, pattern) and not part.endswith(".pub")
        for part in parts
        for pattern in SECRETS
    )


def check_arguments(package: Package, directory: Path, command: Sequence[str]) -> None:
    """Refuses a command that names a file of the checkout that is not packed.

    Raises PreflightError.
    """
    for argument in command:
        try:
            path = (directory / argument).resolve()
            named = path.is_relative_to(package.root) and path.is_file()
        except (OSError, ValueError):
            continue  # longer than a name can be, or no text of one: a program, not a file
        if named:
            name = str(path.relative_to(package.root))
            if name not in package.files:
                raise PreflightError(
                    f"{argument} is not tracked by git, so the job would not find it; "
                    f"`git add {argument}`"
                )


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PreflightError(
            "git is not installed, and it says what to pack; install it"
        ) from error
    if done.returncode != 0:
        raise PreflightError(
            f"{directory} is not in a git checkout ({done.stderr.strip()[:100]}), and what git "
            f"tracks is what is packed; run this in your project, after `git init` and `git add`"
        )
    return done.stdout

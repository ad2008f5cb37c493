"""What is packed for a job, and what is refused; git is the judge of what is tracked."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from lmray.distributed import package
from lmray.distributed.package import check_arguments, find_package, looks_secret
from lmray.errors import PreflightError
from lmray.runs.revision import REVISION_FILE, git_revision


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "spaces").mkdir(parents=True)
    (root / "spaces" / "rate.py").write_text("SEEDS = [0]\n")
    (root / "run.sh").write_text("echo hi\n")
    (root / "run.sh").chmod(0o755)
    (root / "untracked.txt").write_text("x" * 1000)
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "spaces", "run.sh")
    return root


def test_only_tracked_files_are_packed_as_they_are_on_disk(project: Path, tmp_path: Path):
    (project / "spaces" / "rate.py").write_text("SEEDS = [0, 1]\n")
    found = find_package(project / "spaces")
    assert found.files == {"run.sh": 8, "spaces/rate.py": 15}
    assert found.bytes == 23
    assert found.untracked == ("untracked.txt",)
    found.write(tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert sorted(archive.namelist()) == [REVISION_FILE, "run.sh", "spaces/rate.py"]
        assert archive.read("spaces/rate.py") == b"SEEDS = [0, 1]\n"
        assert archive.getinfo("run.sh").external_attr >> 16 == 0o755


def test_the_files_know_the_commit_they_were_sent_from_and_whether_they_are_still_its(
    project: Path, tmp_path: Path
):
    def arrived(name: str) -> str:
        find_package(project).write(tmp_path / f"{name}.zip")
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        return git_revision(tmp_path / name)

    assert arrived("before") == "none"
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    git(project, *who, "commit", "-q", "-m", "first")
    commit = arrived("after")
    assert commit == git_revision(project)
    assert len(commit) == 12
    (project / "untracked.txt").write_text("not sent, so not a change")
    assert arrived("untracked") == commit
    (project / "run.sh").write_text("echo ho\n")
    assert arrived("changed") == f"{commit}-dirty"
    assert git_revision(tmp_path) == "none", "neither a checkout nor sent"


def test_the_same_files_give_the_same_zip(project: Path, tmp_path: Path):
    find_package(project).write(tmp_path / "a.zip")
    (project / "run.sh").touch()
    find_package(project).write(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_deleted_file_is_left_out(project: Path):
    (project / "run.sh").unlink()
    assert list(find_package(project).files) == ["spaces/rate.py"]


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".env.local", "deploy.pem", "ssh/id_rsa", "aws_Credentials.json", "server.KEY"),
        *("prod.env", ".envrc", "secret.yaml", "secrets/a", ".aws/config", ".kube/config"),
        *("kubeconfig", "lab-kubeconfig.yaml", "service_account.json", "my-service-account.json"),
        *(".dockerconfigjson", ".docker/config.json", ".htpasswd", ".pgpass", ".ssh/config"),
        *(".vault-token", "auth_token", "hf_token", "password.txt", "db_passwords.txt"),
        *("api_key", "API-KEY.txt", "wandb_api_key", "terraform.tfstate", "release.keystore"),
    ],
)
def test_what_looks_like_a_secret_is_refused_unless_allowed(project: Path, name: str):
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("hush")
    git(project, "add", "-f", name)
    with pytest.raises(PreflightError, match=r"looks like a secret.*--allow-secrets") as refused:
        find_package(project)
    assert name in str(refused.value)
    assert "hush" not in str(refused.value)
    assert name in find_package(project, allow_secrets=True).files


@pytest.mark.parametrize(
    "name",
    [
        *("id_rsa.pub", "keys.py", "environment.sh", "monkey", "lmray/tokenizer/token_files.py"),
        *("passwords.py", "secretary.md", "service_account.py", "docker/Dockerfile", "token"),
        *("capi_keyboard.py", "special_tokens", "aws/config"),
    ],
)
def test_ordinary_names_are_no_secrets(name: str):
    assert not looks_secret(name)


def test_more_than_the_limit_is_refused_with_the_largest_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(package, "MAX_BYTES", 10)
    with pytest.raises(PreflightError, match=r"20 bytes, more than 10.*spaces/rate.py \(12 bytes"):
        find_package(project)


def test_a_link_out_of_the_project_is_refused(project: Path):
    (project / "notes").symlink_to("/etc/hostname")
    git(project, "add", "notes")
    with pytest.raises(PreflightError, match="notes is a link to"):
        find_package(project)


def test_a_command_that_names_an_untracked_file_is_refused(project: Path):
    found = find_package(project)
    check_arguments(found, project, ["lmray", "sweep", "run", "spaces/rate.py"])
    with pytest.raises(PreflightError, match=r"`git add untracked\.txt`"):
        check_arguments(found, project, ["cat", "untracked.txt"])


@pytest.mark.parametrize("word", ["print(1);" * 40, "a/" * 3000, "a\0b", "~", ""])
def test_words_of_a_command_that_can_be_no_files_are_let_through(project: Path, word: str):
    check_arguments(find_package(project), project, ["python", "-c", word])


def test_a_folder_without_git_is_refused(tmp_path: Path):
    with pytest.raises(PreflightError, match="not in a git checkout"):
        find_package(tmp_path)

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from base.errors import ConfigError
from base.keys import ensure_keys

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("store_owner", "store_owner.sha256", "agent_hmac", "tenant_salt")


def _refuse_writing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path):
    first, second = ensure_keys(tmp_path / "keys"), ensure_keys(tmp_path / "keys")
    assert first == second
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {*FILES, ".lock"}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert first.store_owner not in repr(first)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_keys_that_are_there_need_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    made = ensure_keys(tmp_path)
    _refuse_writing(monkeypatch, number)
    assert ensure_keys(tmp_path) == made


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_key_that_cannot_be_written_is_an_error_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
):
    made = ensure_keys(tmp_path)
    (tmp_path / missing).unlink()
    with monkeypatch.context() as patch:
        _refuse_writing(patch, errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            ensure_keys(tmp_path)
    assert not (tmp_path / missing).exists()
    again = ensure_keys(tmp_path)
    assert (again.store_owner == made.store_owner) == (missing != "store_owner")


def test_a_disk_that_fills_within_a_write_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            ensure_keys(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("name", "text"), [("store_owner", ""), ("agent_hmac", ""), ("agent_hmac", "not hex"), ("tenant_salt", "ab")]
)
def test_a_file_that_holds_no_key_is_told_and_kept(tmp_path: Path, name: str, text: str):
    ensure_keys(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"{name} holds"):
        ensure_keys(tmp_path)
    assert (tmp_path / name).read_text() == text


def test_a_password_changed_by_hand_gets_its_hash(tmp_path: Path):
    before = ensure_keys(tmp_path)
    (tmp_path / "store_owner").write_text("my own\n")
    after = ensure_keys(tmp_path)
    assert after.store_owner == "my own"
    assert after.store_owner_hash_file == before.store_owner_hash_file
    assert len(after.store_owner_hash_file.read_text()) == 64


def test_processes_that_start_together_agree(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from base.keys import ensure_keys\n"
        "for line in sys.stdin:\n"
        "    k = ensure_keys(Path(line.strip()))\n"
        "    print(k.store_owner, k.agent_hmac.hex(), k.tenant_salt.hex(), flush=True)"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for attempt in range(20):
            for process in processes:
                process.stdin.write(f"{tmp_path / str(attempt)}\n")
                process.stdin.flush()
            assert len({process.stdout.readline() for process in processes}) == 1
    finally:
        for process in processes:
            process.communicate(timeout=60)

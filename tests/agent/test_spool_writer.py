from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.spool import writer as spool_module
from agent.spool.framing import FOOTER_BYTES, MAX_RECORD_BYTES
from agent.spool.reader import SpoolReader
from agent.spool.writer import SpoolWriter, folder_bytes, producer_folder
from base.errors import DataFolderInUseError
from base.framed import varint

if TYPE_CHECKING:
    from pathlib import Path


def drain(reader: SpoolReader) -> list[bytes]:
    bodies = []
    for lane in reader.lanes():
        while (batch := lane.next_batch()) is not None:
            bodies.append(batch.body)
            lane.acknowledge(batch)
    return bodies


@given(st.integers(min_value=0, max_value=2**35))
def test_a_length_is_a_protobuf_varint(size: int):
    from google.protobuf.internal.decoder import _DecodeVarint  # noqa: PLC0415

    assert _DecodeVarint(varint(size), 0)[0] == size


def test_what_is_appended_comes_out_in_order_and_merged(tmp_path: Path):
    writer = SpoolWriter(producer_folder(tmp_path, "tap-a"))
    for number in range(10):
        assert writer.append("traces", b"%d;" % number)
    reader = SpoolReader(tmp_path)
    assert drain(reader) == [b"0;1;2;3;4;5;6;7;8;9;"]
    assert writer.written == {"traces": 10}


def test_a_folder_name_is_made_safe(tmp_path: Path):
    assert producer_folder(tmp_path, "tap-a/b c") == tmp_path / "tap-a_b_c"
    with pytest.raises(ValueError, match="folder"):
        producer_folder(tmp_path, "../x"[:2])


def test_records_outlive_a_killed_writer(tmp_path: Path):
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from agent.spool.writer import SpoolWriter
        writer = SpoolWriter(Path({str(tmp_path)!r}) / "tap")
        for number in range(200):
            writer.append("traces", b"x%03d" % number)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    reader = SpoolReader(tmp_path)
    assert b"".join(drain(reader)) == b"".join(b"x%03d" % number for number in range(200))
    assert drain(reader) == []
    assert folder_bytes(tmp_path / "tap" / "traces") == 0, "a sealed segment that is sent goes away"


def test_a_full_spool_refuses_and_counts_then_takes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spool_module, "_RETRY_SECONDS", 0.0)
    writer = SpoolWriter(tmp_path / "tap", max_bytes=1000, segment_bytes=300)
    taken = [writer.append("traces", b"x" * (99 - FOOTER_BYTES)) for _ in range(12)]
    assert taken == [True] * 10 + [False] * 2
    assert writer.dropped == {"full": 2}
    reader = SpoolReader(tmp_path)
    drain(reader)
    assert writer.append("traces", b"x" * 99)


def test_a_record_too_large_is_refused(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap")
    assert not writer.append("traces", b"x" * (MAX_RECORD_BYTES + 1))
    assert writer.dropped == {"too_large": 1}


def test_a_disk_that_takes_half_a_record_does_not_swallow_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = SpoolWriter(tmp_path / "tap")
    writer.append("traces", b"one;")
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2]))
    assert not writer.append("traces", b"lost;")
    monkeypatch.setattr(os, "write", real)
    assert writer.append("traces", b"two;")
    assert drain(SpoolReader(tmp_path)) == [b"one;two;"]
    assert writer.dropped == {"disk": 1}


def test_no_space_is_counted_and_never_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = SpoolWriter(tmp_path / "tap")

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not writer.append("traces", b"a")
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", full)
    assert not writer.append("logs", b"a")
    monkeypatch.undo()
    assert writer.append("logs", b"b")
    assert writer.dropped == {"disk": 2}


def test_a_file_size_limit_is_a_refusal(tmp_path: Path):
    """A real kernel error, not a patched one: writes above RLIMIT_FSIZE end short or with EFBIG."""
    script = textwrap.dedent(
        f"""
        import resource
        from pathlib import Path
        from agent.spool.writer import SpoolWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
        writer = SpoolWriter(Path({str(tmp_path)!r}) / "tap")
        print(sum(writer.append("traces", b"y" * 298) for _ in range(5)), dict(writer.dropped))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "3 {'disk': 2}"
    assert b"".join(drain(SpoolReader(tmp_path))) == b"y" * 298 * 3


def test_one_process_reads_a_spool_at_a_time(tmp_path: Path):
    reader = SpoolReader(tmp_path)
    with pytest.raises(DataFolderInUseError, match="another agent"):
        SpoolReader(tmp_path)
    reader.close()
    SpoolReader(tmp_path).close()


def test_without_a_descriptor_for_the_next_segment_the_open_one_takes_records(tmp_path: Path):
    script = textwrap.dedent(
        f"""
        import os, resource
        from pathlib import Path
        from agent.spool.writer import SpoolWriter
        writer = SpoolWriter(Path({str(tmp_path / "one")!r}), segment_bytes=10)
        assert writer.append("traces", b"x" * 20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(3):
            assert writer.append("traces", b"y" * 20)
        assert not writer.dropped
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert b"".join(drain(SpoolReader(tmp_path))) == b"x" * 20 + b"y" * 60

"""The fence around the engine's process: files by Landlock, no TCP beyond the open listener, a bound on memory.

It must close before the first engine thread starts: a thread inherits the fence of the thread that starts it.
Reference: linux/landlock.h; numbers of the system calls are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_DUMPABLE = 4

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILES_V1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_WRITE_FILE = 1 << 1
_EXECUTE = 1 << 0
_TCP_BIND, _TCP_CONNECT = 1, 2
_SCOPE_SOCKETS, _SCOPE_SIGNALS = 1, 2
_ABI_REFER, _ABI_TRUNCATE, _ABI_NET, _ABI_IOCTL, _ABI_SCOPE = 2, 3, 4, 5, 6

PACKAGES: Final = ("base", "collector")
"""Ours that the store is made of: what it may read, and what its next life is started from."""
_SYSTEM_PATHS = ("/usr", "/lib", "/lib64", "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache", "/etc/ssl/certs")
# The main thread's stack is measured through maps; statm and meminfo are what the engine's memory tracker reads.
_FACTS = ("/proc/self/maps", "/proc/self/smaps", "/proc/self/statm", "/proc/meminfo", "/proc/cpuinfo", "/sys/fs/cgroup")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def fence(data: Path, code: Path) -> str:
    """Close the fence around this process.

    Args:
        data: The only folder it may write (and read).
        code: Folder of our own modules, readable.

    Returns:
        What holds, in words: for the log. It says plainly when the kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if abi < 1:
        return "this kernel has no Landlock: readers are held by role and guard alone"
    files = _FILES_V1
    files |= _REFER if abi >= _ABI_REFER else 0
    files |= _TRUNCATE if abi >= _ABI_TRUNCATE else 0
    files |= _IOCTL if abi >= _ABI_IOCTL else 0
    network = _TCP_BIND | _TCP_CONNECT if abi >= _ABI_NET else 0
    scope = _SCOPE_SOCKETS | _SCOPE_SIGNALS if abi >= _ABI_SCOPE else 0
    attribute = struct.pack("=QQQ", files, network, scope)
    size = 24 if abi >= _ABI_SCOPE else 16 if abi >= _ABI_NET else 8
    ruleset = libc.syscall(_CREATE_RULESET, attribute[:size], ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return f"Landlock refused the rules ({os.strerror(ctypes.get_errno())}): role and guard alone"
    try:
        _allow(libc, ruleset, [data], files & ~_EXECUTE)
        _allow(libc, ruleset, _readable(code), _READ_FILE | _READ_DIR)
        _allow(libc, ruleset, (Path(name) for name in _FACTS), _READ_FILE)
        _allow(libc, ruleset, (Path(name) for name in _DEVICES), _READ_FILE | _WRITE_FILE)
        # So that a store can replace itself, still inside this fence; nothing else may be run.
        _allow(libc, ruleset, _interpreter(), _READ_FILE | _EXECUTE)
        if libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) != 0:
            return f"Landlock could not be closed ({os.strerror(ctypes.get_errno())}): role and guard alone"
    finally:
        os.close(ruleset)
    return f"Landlock {abi}: files{', TCP' if network else ''}{', signals' if scope else ''}"


def bound_memory(limit: int) -> None:
    """Bound the data this process may map, and offer it to the kernel as the first to be killed for memory.

    Args:
        limit: Bytes of private memory, well above what the engine is told to use.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        # No /proc, or a container that forbids it: the kernel then chooses by size.
        return


def _readable(code: Path) -> Iterable[Path]:
    roots = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), *map(Path, _SYSTEM_PATHS)}
    roots |= {code / name for name in PACKAGES}
    # Installed editable or elsewhere: whatever this interpreter imports from, but never a folder with keys in it.
    roots |= {Path(entry) for entry in sys.path if entry and Path(entry).name in {"site-packages", "dist-packages"}}
    return sorted(roots)


def _interpreter() -> Iterable[Path]:
    """The program of this process and the loader that the kernel starts it with."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    loaders = {line.split()[-1] for line in maps if line.rpartition("/")[2].startswith("ld-")}
    return [Path(sys.executable).resolve(), *map(Path, sorted(loaders))]


def _allow(libc: ctypes.CDLL, ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # A path that this system lacks needs no rule.
            continue
        try:
            # Rights on folders are refused for a plain file.
            allowed = rights if path.is_dir() else rights & (_READ_FILE | _WRITE_FILE | _TRUNCATE | _EXECUTE)
            rule = struct.pack("=Qi", allowed, descriptor)
            libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        finally:
            os.close(descriptor)

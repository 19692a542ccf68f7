"""A stand-in for NVIDIA's driver library, to drive the real binding where no GPU is: its figures are made up."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Final

from base.errors import ServescopeError

GPUS_VARIABLE: Final = "SERVESCOPE_STUB_GPUS"
"""How many GPUs the library shows to a process that sets nothing else."""
PROCESSES_VARIABLE: Final = "SERVESCOPE_STUB_PROCESSES"
"""What runs on them there: ``gpu:pid`` with commas between."""
_NAME: Final = "libnvidia-ml.so.1"


class NoCompilerError(ServescopeError):
    """This machine has no C compiler."""

    def __init__(self) -> None:
        super().__init__("The stub driver needs a C compiler", "Debian: apt-get install gcc libc6-dev")


def build(folder: Path) -> Path:
    """The library, built into a folder that ``LD_LIBRARY_PATH`` may name.

    Raises:
        NoCompilerError: There is no compiler.
        subprocess.CalledProcessError: The compiler refused the source.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError
    library = folder / _NAME
    source = Path(__file__).with_name("nvml.c")
    # The binding asks for the library by name, and the loader knows one that is there already by its soname.
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{_NAME}",
         "-o", str(library), str(source), "-lm", "-lpthread"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return library


def load(folder: Path) -> ctypes.CDLL:
    """The same in this process, with its ``stub_*`` functions.

    Raises:
        NoCompilerError: There is no compiler.
    """
    library = ctypes.CDLL(str(build(folder)), mode=ctypes.RTLD_GLOBAL)
    library.stub_rule.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.stub_process.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_ulonglong, ctypes.c_uint]
    library.stub_xid.argtypes = [ctypes.c_int, ctypes.c_ulonglong]
    return library

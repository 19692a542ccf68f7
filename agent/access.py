"""The key that a server's pages want: where it is, never what it is.

Settings, files and the terminal only ever hold the reference. The key is read at each use, so that one that is
exchanged needs no restart, and is kept nowhere.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from base.errors import ConfigError, PageError

if TYPE_CHECKING:
    from pathlib import Path

AUTHORIZATION: Final = "authorization"
_MAX_BYTES: Final = 16_384
_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A header's name (RFC 9110, token)."""
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
FRAMING: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "expect", "host", "te", "transfer-encoding",
     "upgrade", "user-agent"}
)  # fmt: skip
"""Headers that belong to the request itself; a key in one of them would break it."""


class KeyWantedError(PageError):
    """A server answers 401 or 403: a key is wanted, or the one given is not taken."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the key of a server is; false when it has none.

    Neither place is shown by ``repr`` or named in an error: people put the key itself there by mistake.

    Args:
        file: File that holds the key, and nothing else.
        variable: Environment variable that holds it.
        header: Header that carries it: as ``Bearer KEY`` in ``authorization`` (a key with a scheme of its own, such as
            ``Basic …``, goes as it is), plain in any other.
    """

    file: Path | None = field(default=None, repr=False)
    variable: str = field(default="", repr=False)
    header: str = AUTHORIZATION

    @classmethod
    def checked(cls, file: Path | None, variable: str, header: str) -> Access:
        """What a command line says, checked.

        Raises:
            ConfigError: Both places are given, or the header can't carry a key.
        """
        if file is not None and variable:
            raise ConfigError("both --key-file and --key-env are given", "Give one of them")
        if not HEADER.fullmatch(header) or header.lower() in FRAMING:
            raise ConfigError("--key-header names no header that can carry a key", "Give one such as x-api-key")
        return cls(file, variable, header)

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.variable)

    def headers(self) -> dict[str, str]:
        """The header with the key; none where there is no key.

        Raises:
            KeyWantedError: The key can't be read; the text names the setting, never its value.
        """
        if not self:
            return {}
        key = self._read()
        if not _KEY.fullmatch(key):
            raise KeyWantedError(
                f"what {self._setting} names holds no key", "A key is one line of printable ASCII and nothing else"
            )
        return {self.header: f"Bearer {key}" if self.header.lower() == AUTHORIZATION and " " not in key else key}

    @property
    def _setting(self) -> str:
        return "key_file" if self.file is not None else "key_env"

    def _read(self) -> str:
        if self.file is None:
            if self.variable not in os.environ:
                raise KeyWantedError(
                    "the variable that key_env names is not set", "Set it where this process is started"
                )
            return os.environ[self.variable].strip()
        try:
            with self.file.expanduser().open("rb") as file:
                return file.read(_MAX_BYTES).decode("ascii").strip()
        except OSError as error:
            what = f"the file that key_file names can't be read: {error.strerror}"
            raise KeyWantedError(what, "Name a file that this user can read") from None
        except (UnicodeDecodeError, RuntimeError):
            return ""  # RuntimeError: ~nobody of expanduser; either way no key


def refused(url: str, status: int, *, keyed: bool, named: bool) -> KeyWantedError:
    """A 401 or 403 in words.

    Args:
        url: As people may see it.
        status: What came.
        keyed: A key was sent.
        named: The URL itself has a user, and perhaps a password.
    """
    sent = "the key that it was given" if keyed else "the user and password of its URL" if named else ""
    what = f"it does not take {sent}" if sent else "it wants a key"
    return KeyWantedError(
        f"{url} answers {status}: {what}",
        "Check what the key's file or variable holds"
        if keyed
        else "Name the key's file (key_file) or variable (key_env) at this target under agent.targets, or give probe "
        "--key-file or --key-env",
    )

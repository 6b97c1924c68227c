"""Master keys, and what is sealed with them: what an org's key at its provider is at rest.

    master key ── HKDF ──▶ sealing key ── AES-256-GCM ──▶ nonce and ciphertext, bound to the org
               ── HKDF ──▶ marking key ── HMAC-SHA-256 ─▶ the fingerprint of the key that is sealed
               ── HKDF ──▶ API keys' key ─ HMAC-SHA-256 ▶ the mark of an API key, kept in its place
               ── HKDF ──▶ the master key's own name

Names and fingerprints may be shown to anybody; nothing else in here has a text form.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from millpond.errors import Refused
from millpond.settings import Settings

_MASTER_BYTES = 32
_NONCE_BYTES = 12
_NAME_BYTES = 4
_FINGERPRINT_BYTES = 8
_FILE_BYTES_MOST = 10_000
_MAKE_ONE = "make one with: openssl rand -base64 32"


class BadMasterKey(Refused):
    """A master key that is none, or that others can read. Its text is never told."""

    code = "bad_master_key"


class NoMasterKey(Refused):
    """A key is to be kept, and there is nothing to seal or to mark it with."""

    code = "no_master_key"

    def __init__(self, why: str = "provider keys are kept encrypted") -> None:
        super().__init__(
            f"{why}, and there is no master key: set MILLPOND_MASTER_KEY "
            f"or, to a file that only its owner can read, MILLPOND_MASTER_KEY_FILE; {_MAKE_ONE}"
        )


@dataclass(frozen=True, slots=True)
class Sealed:
    """A key that only the master key of this name opens, with its fingerprint."""

    master: str
    fingerprint: str
    text: str


class MasterKey:
    """One master key: it seals, opens and marks."""

    __slots__ = ("_api_keys", "_cipher", "_marking", "name")

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_derive(secret, b"sealing", 32))
        self._marking = _derive(secret, b"marking", 32)
        self._api_keys = _derive(secret, b"API keys", 32)
        self.name = _derive(secret, b"name", _NAME_BYTES).hex()

    def __repr__(self) -> str:
        return f"MasterKey({self.name})"

    def seal(self, org: str, secret: str) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        text = nonce + self._cipher.encrypt(nonce, secret.encode(), _bound_to(org))
        return Sealed(self.name, self.fingerprint(secret), base64.b64encode(text).decode())

    def open(self, org: str, text: str) -> str | None:
        """None: it was sealed with another master key, for another org, or was changed since."""
        try:
            raw = base64.b64decode(text, validate=True)
            nonce, sealed = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, sealed, _bound_to(org)).decode()
        except (InvalidTag, ValueError):
            return None

    def fingerprint(self, secret: str) -> str:
        """The same for the same key, for whoever has this master key."""
        return _mark(self._marking, secret)[:_FINGERPRINT_BYTES].hex()

    def mark_api_key(self, text: str) -> str:
        """What is kept of an API key: whoever has the key and this master key makes it again."""
        return _mark(self._api_keys, text).hex()


class MasterKeys:
    """The master keys of a deployment, the newest first: that one seals, any of them opens."""

    def __init__(self, newest_first: Sequence[MasterKey]) -> None:
        self._keys = {key.name: key for key in newest_first}
        self.newest = newest_first[0]

    def __repr__(self) -> str:
        return f"MasterKeys({', '.join(self._keys)})"

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def seal(self, org: str, secret: str) -> Sealed:
        return self.newest.seal(org, secret)

    def open(self, org: str, sealed: Sealed) -> str | None:
        key = self._keys.get(sealed.master)
        return None if key is None else key.open(org, sealed.text)

    def fingerprints(self, secret: str) -> dict[str, str]:
        """A key's fingerprint under each master key."""
        return {name: key.fingerprint(secret) for name, key in self._keys.items()}

    def mark_api_key(self, text: str, master: str) -> str | None:
        """An API key's mark under the master key of that name; None: it is not among ours."""
        key = self._keys.get(master)
        return None if key is None else key.mark_api_key(text)


def read_master_keys(settings: Settings) -> MasterKeys | None:
    """The master keys that the settings name; None: they name none. Raises BadMasterKey."""
    if settings.master_key is not None and settings.master_key_file is not None:
        raise BadMasterKey("set MILLPOND_MASTER_KEY or MILLPOND_MASTER_KEY_FILE, not both")
    if settings.master_key is not None:
        return _read("MILLPOND_MASTER_KEY", settings.master_key.get_secret_value())
    if settings.master_key_file is not None:
        where = f"MILLPOND_MASTER_KEY_FILE ({settings.master_key_file})"
        return _read(where, _text_of(where, settings.master_key_file))
    return None


def _read(where: str, text: str) -> MasterKeys:
    words = re.split(r"[\s,]+", text.strip(" \t\r\n,"))
    keys = []
    for number, word in enumerate(words, start=1):
        try:
            secret = base64.b64decode(word.encode().translate(_URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != _MASTER_BYTES:
            raise BadMasterKey(
                f"{where}: master key {number} of {len(words)} is not {_MASTER_BYTES} bytes in "
                f"base64; {_MAKE_ONE}. Several stand on a line each, or with commas, newest first"
            )
        keys.append(MasterKey(secret))
    return MasterKeys(keys)


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _text_of(where: str, path: Path) -> str:
    """The file's text, if only its owner can read it. (Looked at once it is open: a name can be
    given to another file in between. To open a FIFO would else be to wait for its writer.)"""
    try:
        with open(path, "rb", opener=_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise BadMasterKey(_no_file(where))
            if mode & 0o077:
                raise BadMasterKey(f"{where} can be read by others than its owner: chmod 600 it")
            return file.read(_FILE_BYTES_MOST).decode("ascii")
    except IsADirectoryError:
        raise BadMasterKey(_no_file(where)) from None
    except OSError as error:
        raise BadMasterKey(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadMasterKey(f"{where} holds no text; {_MAKE_ONE}") from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _no_file(where: str) -> str:
    return (
        f"{where} is a directory, a pipe or a device: name a file that holds the key, or set "
        f"MILLPOND_MASTER_KEY to the key itself; {_MAKE_ONE}"
    )


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    kdf = HKDF(hashes.SHA256(), length, salt=None, info=b"millpond provider keys 1: " + purpose)
    return kdf.derive(secret)


def _mark(key: bytes, text: str) -> bytes:
    mark = hmac.HMAC(key, hashes.SHA256())
    mark.update(text.encode())
    return mark.finalize()


def _bound_to(org: str) -> bytes:
    """A ciphertext that is copied into another org's record does not open there."""
    return b"millpond provider key 1: " + org.encode()

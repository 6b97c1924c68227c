"""Provider keys are sealed so that only the right master key opens them, for the right org."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from millpond.errors import Refused
from millpond.settings import Settings
from millpond.store.sealing import (
    BadMasterKey,
    MasterKey,
    MasterKeys,
    NoMasterKey,
    Sealed,
    read_master_keys,
)

CANARY = "co-canary-5b1f9e"
ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def keys(*secrets: bytes) -> MasterKeys:
    return MasterKeys([MasterKey(secret) for secret in secrets])


def from_text(told: str) -> MasterKeys:
    found = read_master_keys(Settings(master_key=SecretStr(told)))
    assert found is not None
    return found


# ---------------------------------------------------------------- sealing


def test_a_key_opens_with_the_master_key_and_for_the_org_that_it_was_sealed_for() -> None:
    sealed = keys(ONE).seal("acme", CANARY)

    assert keys(ONE).open("acme", sealed) == CANARY
    assert keys(TWO, ONE).open("acme", sealed) == CANARY


def test_it_does_not_open_in_another_orgs_record() -> None:
    sealed = keys(ONE).seal("acme", CANARY)

    assert keys(ONE).open("beta", sealed) is None


def test_another_master_key_does_not_open_it_whatever_it_is_called() -> None:
    sealed = keys(ONE).seal("acme", CANARY)

    assert keys(TWO).open("acme", sealed) is None
    named = Sealed(keys(TWO).newest.name, sealed.fingerprint, sealed.text)
    assert keys(TWO).open("acme", named) is None


@pytest.mark.parametrize("position", [0, 11, 12, -17, -1])
def test_a_changed_ciphertext_does_not_open(position: int) -> None:
    sealed = keys(ONE).seal("acme", CANARY)
    raw = bytearray(base64.b64decode(sealed.text))
    raw[position] ^= 1

    changed = Sealed(sealed.master, sealed.fingerprint, text(bytes(raw)))

    assert keys(ONE).open("acme", changed) is None


@pytest.mark.parametrize("told", ["", "no base64!", "AAAA", text(bytes(11)), text(bytes(28))])
def test_what_is_no_ciphertext_does_not_open(told: str) -> None:
    master = keys(ONE)

    assert master.open("acme", Sealed(master.newest.name, "", told)) is None


def test_sealed_twice_it_looks_different_and_has_the_same_fingerprint() -> None:
    one, two = keys(ONE).seal("acme", CANARY), keys(ONE).seal("beta", CANARY)

    assert one.text != two.text
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != keys(ONE).seal("acme", CANARY + "x").fingerprint


def test_a_fingerprint_tells_nothing_to_who_has_not_the_master_key() -> None:
    assert keys(ONE).seal("acme", CANARY).fingerprint != keys(TWO).seal("acme", CANARY).fingerprint


def test_the_newest_master_key_seals() -> None:
    assert keys(TWO, ONE).seal("acme", CANARY).master == keys(TWO).newest.name
    assert keys(ONE).newest.name in keys(TWO, ONE)


def test_neither_the_secret_nor_the_key_has_a_text_form() -> None:
    master = keys(ONE)
    shown = f"{master!r} {master} {master.newest!r} {master.seal('acme', CANARY)!r}"

    assert CANARY not in shown
    assert text(ONE) not in shown
    assert master.newest.name in shown


# ---------------------------------------------------------------- from environment or file


def test_without_a_setting_there_is_no_master_key() -> None:
    assert read_master_keys(Settings()) is None
    assert "openssl rand -base64 32" in str(NoMasterKey())


@pytest.mark.parametrize(
    "told",
    [
        f"{text(TWO)},{text(ONE)}",
        f"{text(TWO)}\n{text(ONE)}\n",
        f" {text(TWO)} , {text(ONE)} ",
        base64.urlsafe_b64encode(TWO).decode() + "," + base64.urlsafe_b64encode(ONE).decode(),
    ],
)
def test_several_are_given_with_the_newest_first(told: str) -> None:
    found = from_text(told)

    assert found.newest.name == keys(TWO).newest.name
    assert keys(ONE).newest.name in found


def test_both_alphabets_of_base64_are_read() -> None:
    secret = bytes([0xFB, 0xFF] * 16)

    plain, for_urls = (
        code(secret).decode() for code in (base64.b64encode, base64.urlsafe_b64encode)
    )

    assert plain != for_urls
    assert from_text(plain).newest.name == from_text(for_urls).newest.name


@pytest.mark.parametrize("told", ["", "short", text(bytes(31)), text(bytes(33)), "ä" * 44])
def test_what_is_no_master_key_is_refused_and_not_shown(told: str) -> None:
    with pytest.raises(BadMasterKey) as error:
        from_text(f"{text(ONE)}\n{told}" if told else "")

    assert "MILLPOND_MASTER_KEY: master key" in str(error.value)
    assert "openssl rand -base64 32" in str(error.value)
    assert text(ONE) not in str(error.value)
    assert not told or told not in str(error.value)


def test_a_file_that_only_its_owner_can_read_is_read(tmp_path: Path) -> None:
    path = tmp_path / "master"
    path.write_text(f"{text(TWO)}\n{text(ONE)}\n")
    path.chmod(0o600)

    found = read_master_keys(Settings(master_key_file=path))

    assert found is not None
    assert found.newest.name == keys(TWO).newest.name


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master"
    path.write_text(text(ONE))
    path.chmod(mode)

    with pytest.raises(BadMasterKey, match="can be read by others than its owner: chmod 600"):
        read_master_keys(Settings(master_key_file=path))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadMasterKey, match=r"MILLPOND_MASTER_KEY_FILE .* No such file"):
        read_master_keys(Settings(master_key_file=tmp_path / "none"))


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe", 0o600)
    return folder / "pipe"


@pytest.mark.parametrize(
    "place", [pipe, lambda folder: folder, lambda _: Path("/dev/null"), lambda _: Path("/dev/zero")]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """Nobody writes into the pipe, and to open it would be to wait for somebody."""
    path = place(tmp_path)
    program = (
        "import sys; from pathlib import Path; from millpond.settings import Settings\n"
        "from millpond.store.sealing import read_master_keys\n"
        "read_master_keys(Settings(master_key_file=Path(sys.argv[1])))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=20
    )

    told = done.stderr.splitlines()[-1]
    assert f"MILLPOND_MASTER_KEY_FILE ({path}) is a directory, a pipe or a device" in told
    assert "set MILLPOND_MASTER_KEY to" in told


def test_two_sources_are_refused(tmp_path: Path) -> None:
    settings = Settings(master_key=SecretStr(text(ONE)), master_key_file=tmp_path)

    with pytest.raises(Refused, match="not both"):
        read_master_keys(settings)


def test_the_settings_do_not_show_a_master_key() -> None:
    assert text(ONE) not in repr(Settings(master_key=SecretStr(text(ONE))))

"""An API key's text tells whether it can be one; all that is kept of it is its mark."""

import re
import zlib

import pytest

from millpond.domain.account import (
    CHECKLIST,
    GUIDELINES_VERSION,
    Form,
    checklist_fault,
    form_fault,
    name_fault,
    org_id_fault,
    user_id_fault,
)
from millpond.store.key_text import Kind, make_key_text, read_key_text
from millpond.store.sealing import MasterKey, MasterKeys

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OLD, NEW = MasterKey(bytes(range(32))), MasterKey(bytes(range(32, 64)))


def base62(text: str) -> int:
    value = 0
    for character in text:
        value = value * 62 + DIGITS.index(character)
    return value


# ---------------------------------------------------------------- form


@pytest.mark.parametrize(("kind", "begins"), [(Kind.USER, "mpk_"), (Kind.OPERATOR, "mpo_")])
def test_a_key_is_its_kind_its_id_a_secret_and_a_check(kind: Kind, begins: str) -> None:
    name, text = make_key_text(kind)

    assert re.fullmatch(r"mp[ko]_[a-z2-7]{12}_[0-9A-Za-z]{49}", text)
    assert text.startswith(begins + name.id + "_")
    assert base62(text[-6:]) == zlib.crc32(text[:-6].encode())
    assert read_key_text(text) == name


def test_a_secret_has_256_random_bits() -> None:
    secrets = [base62(make_key_text(Kind.USER)[1][17:60]) for _ in range(200)]

    assert len(set(secrets)) == 200
    assert max(secrets) < 2**256
    for bit in range(256):
        ones = sum(secret >> bit & 1 for secret in secrets)
        assert 50 < ones < 150, f"bit {bit}"


def test_any_one_character_that_is_wrong_is_noticed() -> None:
    _, text = make_key_text(Kind.USER)

    for place in range(len(text)):
        for other in "aZ3_é":
            if text[place] != other:
                assert read_key_text(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "a",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.upper(),
        lambda text: text.replace("mpk", "mpo"),
        lambda text: text.replace("mpk", "sk"),
        lambda text: text.replace("_", "-"),
        lambda text: text * 1_000,
        lambda text: "\udcff" + text[1:],
    ],
)
def test_what_was_never_a_key_has_no_name(change: object) -> None:
    _, text = make_key_text(Kind.USER)
    assert callable(change)

    assert read_key_text(change(text)) is None


# ---------------------------------------------------------------- marks


def test_a_mark_is_a_whole_hash_under_a_key_of_its_own() -> None:
    _, text = make_key_text(Kind.USER)

    assert re.fullmatch(r"[0-9a-f]{64}", OLD.mark_api_key(text))
    assert OLD.mark_api_key(text) == MasterKey(bytes(range(32))).mark_api_key(text)
    assert OLD.mark_api_key(text) != NEW.mark_api_key(text)
    assert not OLD.mark_api_key(text).startswith(OLD.fingerprint(text))


def test_a_mark_does_not_change_from_release_to_release() -> None:
    """The expected one is made by Python's own hmac: HKDF's two steps, then the mark."""
    text = "mpk_aaaaaaaaaaaa_" + "0" * 49

    assert OLD.mark_api_key(text) == (
        "20520cd7da47b64b4395b5da81250ea05ee445552d49711f9f6ca2ed1af23fe8"
    )


def test_each_of_several_master_keys_can_mark_and_an_unknown_one_cannot() -> None:
    both = MasterKeys([NEW, OLD])

    assert both.mark_api_key("text", OLD.name) == OLD.mark_api_key("text")
    assert both.mark_api_key("text", NEW.name) == NEW.mark_api_key("text")
    assert MasterKeys([NEW]).mark_api_key("text", OLD.name) is None


# ---------------------------------------------------------------- ids, forms, checklists


@pytest.mark.parametrize("org", ["a", "acme", "7up", "a_b-c", "a" * 63])
def test_an_org_id_is_plain(org: str) -> None:
    assert org_id_fault(org) is None


@pytest.mark.parametrize(
    "org", ["", "-a", "_a", "Acme", "a.b", "a b", "a:b", "é", "a" * 64, "a\n", "a,b", "a|b"]
)
def test_what_could_be_taken_for_something_else_is_no_org_id(org: str) -> None:
    assert "cannot be an org's id" in (org_id_fault(org) or "")


@pytest.mark.parametrize("user", ["a", "Ann", "ann@example.org", "a.b_c-d", "7", "a" * 63])
def test_a_user_id_may_be_a_mail_address(user: str) -> None:
    assert user_id_fault(user) is None


@pytest.mark.parametrize("user", ["", "@a", ".a", "a b", "a:b", "a/b", "é", "a" * 64, "a\n"])
def test_what_could_be_taken_for_something_else_is_no_user_id(user: str) -> None:
    assert "cannot be a user's id" in (user_id_fault(user) or "")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31m", "\ud800", "a" * 201])
def test_a_name_is_one_line(name: str) -> None:
    assert name_fault("name", name) == "name must be 1 to 200 characters on one line"


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        (Form("mail triage", "spam", True, GUIDELINES_VERSION), None),
        (Form("x", "y" * 4_000, True, GUIDELINES_VERSION), None),
        (Form("", "spam", True, GUIDELINES_VERSION), "use_case must be a text"),
        (Form(" \n", "spam", True, GUIDELINES_VERSION), "use_case must be a text"),
        (Form("mail", "", True, GUIDELINES_VERSION), "risks must be a text"),
        (Form("x" * 4_001, "spam", True, GUIDELINES_VERSION), "1 to 4,000 characters"),
        (Form("\ud800", "spam", True, GUIDELINES_VERSION), "use_case must be a text"),
        (Form("mail", "spam", False, GUIDELINES_VERSION), "commitment must be true"),
        (Form("mail", "spam", True, "2019-01"), "not the present ones"),
    ],
)
def test_a_form_has_a_use_case_risks_and_the_commitment(form: Form, fault: str | None) -> None:
    found = form_fault(form)

    assert found is None if fault is None else fault in (found or "")


@pytest.mark.parametrize("missing", CHECKLIST)
def test_an_approval_needs_every_item_ticked(missing: str) -> None:
    ticked = dict.fromkeys(CHECKLIST, True)

    assert checklist_fault(ticked, approves=True) is None
    assert checklist_fault(ticked | {"another": False}, approves=True) is None
    for short in (ticked | {missing: False}, {k: v for k, v in ticked.items() if k != missing}):
        assert missing in (checklist_fault(short, approves=True) or "")
        assert checklist_fault(short, approves=False) is None


@pytest.mark.parametrize("name", ["", "Two Words", "a" * 64, "é"])
def test_a_checklist_has_short_names(name: str) -> None:
    assert "at most 50 names" in (checklist_fault({name: True}, approves=False) or "")

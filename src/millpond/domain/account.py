"""Who asks: orgs with their access, users, and operators."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: The usage guidelines that an org accepts; a newer text has a newer version.
GUIDELINES_VERSION = "2026-11"

#: What a reviewer must have ticked before an org gets full access.
CHECKLIST = ("use_case_clear", "risks_addressed", "guidelines_accepted")

#: Characters of a text of an application, of a question, an answer or a reason.
TEXT_MOST = 4_000
NAME_MOST = 200
_CHECKS_MOST = 50

_ORG_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_USER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_CHECK = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: What no line of a page or of a log can hold.
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


class Role(StrEnum):
    """What somebody may do: a member submits jobs and sees what the org does; an admin looks after
    its users and keys as well; an operator looks after all orgs and belongs to none."""

    MEMBER = "member"
    ADMIN = "admin"
    OPERATOR = "operator"


#: Roles of users of an org.
USER_ROLES = (Role.MEMBER, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom an API key belongs to. `org` and `user` are empty for an operator, who has a name."""

    key: str
    role: Role
    org: str = ""
    user: str = ""
    name: str = ""


class Stage(StrEnum):
    """Where an application for full access stands. `asked`: the reviewer wants to know more."""

    OPEN = "open"
    ASKED = "asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


#: Each step of a review: from where it may be taken, and where it leads.
STEPS: Mapping[str, tuple[frozenset[Stage], Stage]] = {
    "ask": (frozenset({Stage.OPEN}), Stage.ASKED),
    "answer": (frozenset({Stage.ASKED}), Stage.OPEN),
    "approve": (frozenset({Stage.OPEN}), Stage.APPROVED),
    "reject": (frozenset({Stage.OPEN, Stage.ASKED}), Stage.REJECTED),
    "withdraw": (frozenset({Stage.OPEN, Stage.ASKED}), Stage.WITHDRAWN),
}


@dataclass(frozen=True, slots=True)
class Form:
    """What an org tells that applies for full access. `commitment`: to responsible use, by the
    usage guidelines of this version."""

    use_case: str
    risks: str
    commitment: bool
    guidelines: str


def org_id_fault(org: str) -> str | None:
    """What is wrong with an org's id; None: nothing."""
    if _ORG_ID.fullmatch(org):
        return None
    return (
        f"{org!r} cannot be an org's id: write 1 to 63 of a-z, 0-9, _ and -, "
        "the first a letter or a digit"
    )


def user_id_fault(user: str) -> str | None:
    if _USER_ID.fullmatch(user):
        return None
    return (
        f"{user!r} cannot be a user's id: write 1 to 63 letters, digits, ., _, @ and -, "
        "the first a letter or a digit"
    )


def name_fault(what: str, name: str) -> str | None:
    if name.strip() and len(name) <= NAME_MOST and not _NO_NAME.search(name):
        return None
    return f"{what} must be 1 to {NAME_MOST} characters on one line"


def text_fault(what: str, text: str) -> str | None:
    if text.strip() and len(text) <= TEXT_MOST and not _NO_TEXT.search(text):
        return None
    return f"{what} must be a text of 1 to {TEXT_MOST:,} characters"


def form_fault(form: Form) -> str | None:
    if not form.commitment:
        return "full access needs the commitment to responsible use: commitment must be true"
    if form.guidelines != GUIDELINES_VERSION:
        return (
            f"these usage guidelines are not the present ones, {GUIDELINES_VERSION}: "
            "read those and accept them"
        )
    return text_fault("use_case", form.use_case) or text_fault("risks", form.risks)


def checklist_fault(checklist: Mapping[str, bool], *, approves: bool) -> str | None:
    """What is wrong with a reviewer's checklist, or keeps it from being an approval."""
    if len(checklist) > _CHECKS_MOST or not all(
        _CHECK.fullmatch(name) and isinstance(ticked, bool) for name, ticked in checklist.items()
    ):
        return f"a checklist is at most {_CHECKS_MOST} names of a-z, 0-9 and _, each true or false"
    missing = [name for name in CHECKLIST if not checklist.get(name)]
    if approves and missing:
        return f"full access needs every item of the checklist ticked: {', '.join(missing)}"
    return None

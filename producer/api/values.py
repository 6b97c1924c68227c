"""Ids, names, prose, roles and lifetimes in bodies, each checked by a rule of the domain."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from millpond.domain.account import TEXT_MOST, Role, name_fault, text_fault, user_id_fault

_KEY_S_MOST = 3_650 * 86_400


def no_fault(fault: Callable[[str], str | None]) -> AfterValidator:
    """A text in which a function of the domain finds no fault."""

    def check(text: str) -> str:
        wrong = fault(text)
        if wrong is not None:
            raise ValueError(wrong)
        return text

    return AfterValidator(check)


def _no_user_id(id: str) -> str | None:
    return "'me' is whoever asks: choose another id" if id == "me" else user_id_fault(id)


def _of_user(role: Role) -> Role:
    if role is Role.OPERATOR:
        raise ValueError("a user is a member or an admin")
    return role


UserId = Annotated[str, StringConstraints(min_length=1, max_length=63), no_fault(_no_user_id)]
Label = Annotated[
    str, StringConstraints(min_length=1, max_length=200), no_fault(partial(name_fault, "it"))
]
Prose = Annotated[
    str, StringConstraints(min_length=1, max_length=TEXT_MOST), no_fault(partial(text_fault, "it"))
]
UserRole = Annotated[
    Role,
    Field(strict=False, json_schema_extra={"enum": ["member", "admin"]}),
    AfterValidator(_of_user),
]
Lifetime = Annotated[
    int, Field(ge=1, le=_KEY_S_MOST, description="Seconds that it is good for; none: no end.")
]

"""Who asks: users of orgs, and operators."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do: a member submits jobs and sees what the org does; an admin looks after
    its users and keys as well; an operator looks after all orgs and belongs to none."""

    MEMBER = "member"
    ADMIN = "admin"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom an API key belongs to. `org` and `user` are empty for an operator, who has a name."""

    key: str
    role: Role
    org: str = ""
    user: str = ""
    name: str = ""

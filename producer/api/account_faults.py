"""What the store refuses about orgs, users, keys and models, as problems that clients are told."""

from millpond.producer.http.problems import Faults, Problem
from millpond.store.access import AlreadyApplied, HasFullAccess
from millpond.store.api_keys import LastOperator, NotFirst, UnknownKey, UserSuspended
from millpond.store.directory import LastAdmin, TooMany, UnknownUser, UserKnown
from millpond.store.own_models import ModelTaken
from millpond.store.reading import BadValue
from millpond.store.sealing import NoMasterKey
from millpond.store.store import OrgKnown, OrgPurging, WrongStage
from millpond.store.vault import KeysHidden, KeyTaken, NoKey


def _key_taken(taken: KeyTaken) -> Problem:
    told = "another org has this key: one account at a provider has one org"
    return Problem("conflict", told, error_code=taken.code)


def _keys_hidden(hidden: KeysHidden | NoMasterKey) -> Problem:
    told = "this server cannot keep the key as it is set up: its operator has to look"
    return Problem("conflict", told, error_code=hidden.code)


def _bad_value(bad: BadValue) -> Problem:
    return Problem("invalid", str(bad), error_code=bad.code)


def _model_taken(taken: ModelTaken) -> Problem:
    return Problem(
        "conflict", "it is registered already: a model belongs to one org", error_code=taken.code
    )


def _no_key(none: NoKey) -> Problem:
    return Problem("not-found", "the org has no key at the provider", error_code=none.code)


ACCOUNT_FAULTS: Faults = {
    AlreadyApplied: "conflict",
    BadValue: _bad_value,
    HasFullAccess: "conflict",
    KeyTaken: _key_taken,
    KeysHidden: _keys_hidden,
    LastAdmin: "conflict",
    LastOperator: "conflict",
    ModelTaken: _model_taken,
    NoKey: _no_key,
    NoMasterKey: _keys_hidden,
    NotFirst: "conflict",
    OrgKnown: "conflict",
    OrgPurging: "conflict",
    TooMany: "conflict",
    UnknownKey: "not-found",
    UnknownUser: "not-found",
    UserKnown: "conflict",
    UserSuspended: "conflict",
    WrongStage: "conflict",
}

"""The values of the command line's options: read, or refused with the option's name, the fault and
the way out."""

import os
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from getpass import getpass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import typer

from millpond.domain.job import Endpoint
from millpond.domain.limit import Limits, Unit, parse_limits
from millpond.domain.request import Example
from millpond.errors import Refused
from millpond.providers.profile import PROFILES, ProviderName
from millpond.run.options import Options, WhatIf

Result = TypeVar("Result")

#: Characters; no provider's key is so long.
_KEY_MOST = 4_096


class Reserve(StrEnum):
    STRICT = "strict"
    P99 = "p99"


class Mode(StrEnum):
    LIMITED = "limited"
    FULL = "full"


def checked(option: str, read: Callable[[str], Result], text: str) -> Result:
    try:
        return read(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def address(text: str | None, default: str | None) -> str | None:
    """A provider's address: as named, or its profile's."""
    if text is None:
        return default
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in text:
        raise typer.BadParameter(
            f"{text!r} is no address: write http://HOST:PORT or https://HOST",
            param_hint="--base-url",
        )
    return text.rstrip("/")


def user(text: str, option: str = "--user") -> str:
    """A name that may stand in a key."""
    if text and not re.fullmatch(r"[\w.@-]{1,64}", text):
        raise typer.BadParameter(
            f"{text!r} is no name: write up to 64 letters, digits and . _ @ -", param_hint=option
        )
    return text


def for_interactive(text: str | None, limits: Limits) -> Limits:
    """What bulk leaves free: less than there is, in windows that are limited."""
    kept = {} if text is None else checked("--for-interactive", parse_limits, text)
    for endpoint, of in kept.items():
        for one in of:
            limit = next(
                (
                    limit
                    for limit in limits.get(endpoint, ())
                    if (limit.window_ms, limit.unit) == (one.window_ms, one.unit)
                ),
                None,
            )
            if limit is None or one.unit is not Unit.CALLS or not one.window_ms:
                raise typer.BadParameter(
                    f"{one.written}: {endpoint} has no limit of calls with this window",
                    param_hint="--for-interactive",
                )
            if one.amount >= limit.amount:
                raise typer.BadParameter(
                    f"{one.written} of {limit.written} leaves nothing for bulk",
                    param_hint="--for-interactive",
                )
    return kept


def params(pairs: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(
                f"{pair!r}: write KEY=JSON, for example temperature=0.3", param_hint="--param"
            )
        try:
            params[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise typer.BadParameter(
                f"{pair!r}: the value is no JSON; a text needs its quotes: "
                f"""--param '{name}="{text}"'""",
                param_hint="--param",
            ) from None
    return params


def quota(text: str | None, default: int | None, option: str = "--quota") -> int | None:
    if text is None:
        return default
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise typer.BadParameter(
            f"{text!r}: write a whole number of characters, or none", param_hint=option
        )
    return int(text)


def what_if(texts: list[str], provider: ProviderName) -> tuple[WhatIf, ...]:
    """Other ways to run; a mode comes with its limits and quota."""
    return tuple(WhatIf(text, _what_if(text, provider)) for text in texts)


def _what_if(text: str, provider: ProviderName) -> dict[str, Any]:
    name, _, value = text.partition("=")
    match name:
        case "mode" if value in set(Mode):
            return {
                "mode": value,
                "limits": {},
                "quota": PROFILES[provider].quota[Mode(value).value],
            }
        case "quota" if value:
            return {"quota": quota(value, None, option="--what-if")}
        case "limits" if value:
            return {"limits": checked("--what-if", parse_limits, value)}
        case "concurrency" if re.fullmatch(r"[0-9]{1,5}", value) and 1 <= int(value) <= 10_000:
            return {"concurrency": int(value)}
    raise typer.BadParameter(
        f"{text!r}: write mode=full, quota=none, quota=N, limits=generate=120/60s or "
        "concurrency=50 (1 to 10,000)",
        param_hint="--what-if",
    )


def examples(endpoint: Endpoint, path: Path | None) -> tuple[Example, ...]:
    if endpoint is not Endpoint.CLASSIFY:
        if path is not None:
            raise typer.BadParameter("only classify has examples", param_hint="--examples")
        return ()
    if path is None:
        raise typer.BadParameter(
            "classify needs examples: a file with the columns text and label, at least two of "
            "each label",
            param_hint="--examples",
        )
    from millpond.producer.examples import read_examples

    try:
        return read_examples(path)
    except Refused as error:
        raise typer.BadParameter(str(error), param_hint="--examples") from None


def key(provider: ProviderName, path: Path | None, *, own: bool) -> str:
    """The provider's key. A simulator or model that is our own never sees a real one."""
    variable = PROFILES[provider].key_variable
    if variable is None and own and path is None:
        return "demo"
    if path is not None:
        try:
            key = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(
                f"{path} cannot be read: {error}", param_hint="--api-key-file"
            ) from None
    else:
        key = os.environ.get(variable or "CO_API_KEY", "").strip()
    if variable is None:
        return key or "demo"
    if not key:
        raise typer.BadParameter(
            f"{provider} needs a key: set {variable}, or name a file that holds it with "
            "--api-key-file",
            param_hint="--provider",
        )
    _must_be_a_key(key, "--api-key-file")
    return key


def new_key() -> str:
    """A provider's key from standard input, or asked for where somebody sits there."""
    try:
        key = getpass("The provider's key: ") if sys.stdin.isatty() else sys.stdin.read(_KEY_MOST)
    except UnicodeDecodeError:
        key = ""
    key = key.strip()
    if not key:
        raise typer.BadParameter("there is no key on standard input", param_hint="KEY")
    _must_be_a_key(key, "KEY")
    return key


def _must_be_a_key(key: str, option: str) -> None:
    if not key.isascii() or not key.isprintable() or " " in key or len(key) >= _KEY_MOST:
        raise typer.BadParameter(
            "the key holds characters that no key has; is it the right file?", param_hint=option
        )


def must_differ(options: Options) -> None:
    """The input, and each file that is written, are files of their own."""
    named = {
        "FILE": options.file,
        "--out": options.out,
        "--errors": options.errors,
        "--ledger": options.ledger,
    }
    seen: dict[Path, str] = {}
    for option, path in named.items():
        if path is None:
            continue
        place = path.resolve()
        if place in seen:
            raise typer.BadParameter(
                f"{path} is {seen[place]} already; name another file", param_hint=option
            )
        seen[place] = option

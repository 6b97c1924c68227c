"""A line of an OpenAI batch file: {"custom_id", "method", "url", "body"}.

The body is sent as it is. Checked is only what nobody but us can tell: that it is for this run,
that one answer comes of it, and that its text can be counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond.producer.fields import Flaw, Parsed, custom_id_of, kind, listed, missing

CHAT_URL = "/v1/chat/completions"
EMBEDDINGS_URL = "/v1/embeddings"

#: The fields of a line, and what each must be.
FIELDS: dict[str, tuple[type, str]] = {
    "custom_id": (str, "a string"),
    "method": (str, "a string"),
    "url": (str, "a string"),
    "body": (dict, "an object"),
}


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    """What is asked, for people and for counting."""

    body: dict[str, Any]


def read_line(line: Mapping[str, Any], url: str | None) -> Line | Flaw:
    """The request in a line. With `url`, only one for that is taken."""
    flaw = _flaw_around(line, url) or _flaw_within(line["body"])
    if flaw:
        return flaw
    body = line["body"]
    text = _one_text(body) if line["url"] == EMBEDDINGS_URL else _conversation(body)
    return text if isinstance(text, Flaw) else Line(text, body)


def line_id(parsed: Parsed) -> str | Flaw:
    """The custom_id, which answers are told apart by: a line must have it."""
    custom_id = parsed.fields.get("custom_id")
    if custom_id is None:
        return missing(parsed.fields, "custom_id")
    if not isinstance(custom_id, str):
        return _wrong("custom_id", "a string", custom_id, "/custom_id")
    if not custom_id:
        return Flaw("missing_field", "custom_id is empty", "/custom_id")
    return custom_id_of(parsed) or custom_id


def model_of(line: Mapping[str, Any]) -> str | None:
    match line:
        case {"body": {"model": str(model)}}:
            return model
        case _:
            return None


def _flaw_around(line: Mapping[str, Any], url: str | None) -> Flaw | None:
    for name, (needed, called) in FIELDS.items():
        if line.get(name) is None:
            return missing(line, name)
        if not isinstance(line[name], needed):
            return _wrong(name, called, line[name], f"/{name}")
    if line["method"] != "POST":
        message = f"method must be POST, not {listed([line['method']])}"
        return Flaw("wrong_method", message, "/method")
    if line["url"] not in ((CHAT_URL, EMBEDDINGS_URL) if url is None else (url,)):
        wanted = url or f"{CHAT_URL} or {EMBEDDINGS_URL}"
        message = f"the line's url is {listed([line['url']])}, and this run is for {wanted}"
        return Flaw("url_mismatch", message, "/url")
    return None


def _flaw_within(body: Mapping[str, Any]) -> Flaw | None:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        return _wrong("model", "a string", model, "/body/model")
    if body.get("stream") is True:
        message = "stream must not be true: an answer is written when it is whole. Leave it out"
        return Flaw("stream_not_supported", message, "/body/stream")
    return None


def _one_text(body: Mapping[str, Any]) -> str | Flaw:
    match body.get("input"):
        case None:
            return _lacking("body", "input", "/body/input")
        case "":
            return Flaw("empty_prompt", "input is empty", "/body/input")
        case str(text):
            return text
        case list():
            message = "input must be one text, not a list: write one text a line"
            return Flaw("wrong_type", message, "/body/input")
        case other:
            return _wrong("input", "a string", other, "/body/input")


def _conversation(body: Mapping[str, Any]) -> str | Flaw:
    match body.get("messages"):
        case None:
            return _lacking("body", "messages", "/body/messages")
        case []:
            return Flaw("empty_prompt", "messages is empty", "/body/messages")
        case list(messages):
            texts = []
            for number, message in enumerate(messages):
                text = _text_of(message, f"/body/messages/{number}")
                if isinstance(text, Flaw):
                    return text
                texts.append(text)
            return "\n".join(texts)
        case other:
            return _wrong("messages", "a list", other, "/body/messages")


def _text_of(message: Any, pointer: str) -> str | Flaw:
    if not isinstance(message, dict):
        return _wrong("a message", "an object", message, pointer)
    if message.get("role") is None:
        return _lacking("message", "role", f"{pointer}/role")
    if not isinstance(message["role"], str):
        return _wrong("role", "a string", message["role"], f"{pointer}/role")
    match message.get("content"):
        case str(text):
            return text
        case list(parts):
            return _joined(parts, f"{pointer}/content")
        case None if message.get("tool_calls"):
            return ""
        case None:
            return _lacking("message", "content", f"{pointer}/content")
        case other:
            return _wrong("content", "a string or a list of parts", other, f"{pointer}/content")


def _joined(parts: list[Any], pointer: str) -> str | Flaw:
    """The text of all parts; an image and the like has none."""
    texts = []
    for number, part in enumerate(parts):
        if not isinstance(part, dict):
            return _wrong("a part of content", "an object", part, f"{pointer}/{number}")
        text = part.get("text", "")
        if not isinstance(text, str):
            return _wrong("text", "a string", text, f"{pointer}/{number}/text")
        texts.append(text)
    return "".join(texts)


def _lacking(where: str, name: str, pointer: str) -> Flaw:
    return Flaw("missing_field", f"the {where} has no {name}", pointer)


def _wrong(what: str, needed: str, value: Any, pointer: str) -> Flaw:
    return Flaw("wrong_type", f"{what} must be {needed}, not {kind(value)}", pointer)

"""The examples that classify learns its labels from: a text and its label, in CSV or JSONL.

All or nothing: a mistake in one of them would quietly change every answer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from millpond.domain.request import Example
from millpond.producer.bad_input import BadInput
from millpond.producer.fields import kind, listed
from millpond.producer.formats import Format, detect
from millpond.producer.records import Reader

MAX_EXAMPLES = 2_500
MIN_LABELS = 2
MIN_PER_LABEL = 2

#: The names that a label may have, the first that is there counts.
_LABEL_NAMES = ("label", "category")


def read_examples(path: Path, *, most_per_label: int | None = None) -> tuple[Example, ...]:
    """All examples of the file, or the first so many of each label. Blank lines are passed over.

    Raises BadInput that names file and line, and what to do.
    """
    if most_per_label is not None and most_per_label < MIN_PER_LABEL:
        raise BadInput(f"classify needs {MIN_PER_LABEL} examples of each label at least")
    kept: list[Example] = []
    count: Counter[str] = Counter()
    first_lines: dict[str, int] = {}
    for line, example in _all(path):
        first_lines.setdefault(example.label, line)
        if most_per_label is not None and count[example.label] == most_per_label:
            continue
        count[example.label] += 1
        kept.append(example)
        if len(kept) > MAX_EXAMPLES:
            raise BadInput(
                f"{path}, line {line}: there are more than {MAX_EXAMPLES:,} examples, which is "
                "the most: leave some out, or take only the first so many of each label"
            )
    _check(path, count, first_lines)
    return tuple(kept)


def _check(path: Path, count: Mapping[str, int], first_lines: Mapping[str, int]) -> None:
    if not count:
        raise BadInput(f"{path} has no examples: give each a text and a label, one a line")
    if len(count) < MIN_LABELS:
        raise BadInput(
            f"{path}, line {min(first_lines.values())} and on: all examples have the label "
            f"{listed(count)}; at least {MIN_LABELS} labels are needed: add examples of another"
        )
    few = [label for label, found in count.items() if found < MIN_PER_LABEL]
    if few:
        raise BadInput(
            f"{path}, line {first_lines[few[0]]}: at least {MIN_PER_LABEL} examples of each label "
            f"are needed, and there is only one of: {listed(few)}. Add another, or leave it out"
        )


def _all(path: Path) -> Iterator[tuple[int, Example]]:
    format = detect(path, "auto")
    # A text has no columns: what is not JSONL is read as CSV, whatever its name.
    format = Format.CSV if format in (Format.CSV, Format.TEXT) else Format.JSONL
    reader = Reader(path, format, field="text", template=None)
    for line, parsed in reader.parsed():
        if parsed.flaw and parsed.flaw.code == "empty_line":
            continue
        if parsed.flaw:
            raise BadInput(f"{path}, line {line}: {parsed.flaw.message}: mend or remove it")
        fields = parsed.fields
        label = next((name for name in _LABEL_NAMES if name in fields), _LABEL_NAMES[0])
        where = f"{path}, line {line}"
        yield line, Example(_words(fields, "text", where), _words(fields, label, where))


def _words(fields: Mapping[str, Any], name: str, where: str) -> str:
    match fields.get(name):
        case str(words) if words.strip():
            return words
        case None if name not in fields:
            raise BadInput(
                f'{where}: the example has no "{name}"; it has: {listed(fields)}. '
                "An example needs a text and a label"
            )
        case None | str():
            raise BadInput(f'{where}: "{name}" is empty: fill it in, or remove the example')
        case other:
            raise BadInput(f'{where}: "{name}" must be a string, not {kind(other)}: quote it')

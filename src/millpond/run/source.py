"""The input of a run, ready to be read: unpacked, its format known, its identity computed."""

from dataclasses import dataclass, replace
from pathlib import Path

from millpond.domain.request import Ask
from millpond.errors import Refused
from millpond.producer.bad_input import BadInput
from millpond.producer.records import Format, Reader, detect, survey
from millpond.producer.spool import plain_name, spool
from millpond.producer.template import Template
from millpond.providers.profile import adapter
from millpond.run.feeder import Wanted, Writer
from millpond.run.folder import DataFolder
from millpond.run.options import Options


@dataclass(frozen=True, slots=True)
class Source:
    """What is read, and what makes jobs of it. `options` have their model now; `wanted`: the lines
    of a sample, or None."""

    options: Options
    format: Format
    reader: Reader
    writer: Writer
    wanted: Wanted
    lines: int
    sha256: str
    run_id: str


def open_source(options: Options, folder: DataFolder) -> Source:
    """Raises BadInput or BadParameter for what would be wrong for every line."""
    incoming = folder.path / "incoming"
    path = spool(options.file, incoming)
    format = detect(path, options.format, name=plain_name(options.file or Path("stdin")))
    found = survey(path, format)
    if path == incoming:
        path = incoming.replace(folder.unpacked(found.sha256))
    template = None if options.template is None else Template(options.template)
    url = options.line_url if format is Format.OPENAI else None
    reader = Reader(path, format, field=options.field, template=template, url=url)
    reader.check()
    options = replace(options, model=_model(options, reader, format))
    speaks = adapter(options.wire(format))
    speaks.need(options.common(), Ask("?"))
    wanted, lines = None, found.records
    if options.sample is not None and options.sample < found.records:
        wanted, lines = reader.sample_lines(options.sample, found.sha256), options.sample
    run_id = options.run_id(folder.id, found.sha256, format)
    writer = Writer(speaks, options.common())
    return Source(options, format, reader, writer, wanted, lines, found.sha256, run_id)


def strictly(bad: int, lines: int) -> None:
    """For --strict. Raises BadInput if some lines cannot be asked."""
    if bad:
        raise BadInput(
            f"{bad:,} of {lines:,} lines cannot be asked, and --strict "
            "wants all of them; nothing was sent. Without --strict they go to the errors file"
        )


def _model(options: Options, reader: Reader, format: Format) -> str:
    if options.model is not None:
        return options.model
    named = reader.models() if format is Format.OPENAI else set()
    found = named.pop() if len(named) == 1 else options.profile.model(options.endpoint)
    if found is None:
        raise UnknownModel(f"{options.provider} has no default model: name one with --model")
    return found


class UnknownModel(Refused):
    """Neither the command, nor the file, nor the provider's profile names a model."""

    code = "unknown_model"

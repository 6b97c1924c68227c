"""From the file into the server: never more than a window of jobs, whatever the file's size.

A job's id is made of the run and its line, and the server keeps a job until its row is on disk.
So the file can be read again from its start at any time: what is on disk is skipped, what the
server knows it keeps, and everything else is new.
"""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from millpond.domain.request import Ask, Common, Need
from millpond.errors import Refused
from millpond.producer.records import Invalid, Reader, Record
from millpond.providers.adapter import Adapter, BadParameter
from millpond.store.store import ACCEPT_MOST, NewJob

JOBS_MOST = 10_000
BYTES_MOST = 16 * 1024 * 1024

#: The lines of a sample; None: all lines.
Wanted = Container[int] | None


class Lines:
    """A set of line numbers, a bit each: a million lines are 125 kB."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, line: int) -> None:
        byte = line >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(4096, byte - len(self._bits) + 1)))
        self._bits[byte] |= 1 << (line & 7)

    def __contains__(self, line: int) -> bool:
        byte = line >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (line & 7) & 1)


@dataclass(slots=True)
class Portion:
    """What one look into the file brought: jobs for the server, and records that cannot run."""

    jobs: list[NewJob] = field(default_factory=list)
    invalid: list[Invalid] = field(default_factory=list)


class Feeder:
    """Reads the file from its start, skipping the lines that are answered."""

    def __init__(
        self, reader: Reader, writer: "Writer", run_id: str, answered: Lines, wanted: Wanted
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._run_id = run_id
        self._skip = skipping(answered, wanted)
        self._records: Iterator[Record | Invalid] = reader.read(self._skip)
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self.done = False

    @property
    def room(self) -> int:
        """How many more jobs may go into the server now."""
        if self.done or self._bytes >= BYTES_MOST:
            return 0
        return max(0, min(ACCEPT_MOST, JOBS_MOST - len(self._sizes)))

    def take(self) -> Portion:
        """Read on, for as many jobs as there is room for."""
        portion, room = Portion(), self.room
        while len(portion.jobs) < room and len(portion.invalid) < ACCEPT_MOST:
            record = next(self._records, None)
            if record is None:
                self.done = True
                break
            self._sort(record, portion)
            if self._bytes >= BYTES_MOST:
                break
        return portion

    def begin_again(self) -> None:
        """Read from the start once more: the server may have forgotten jobs."""
        self._records = self._reader.read(self._skip)
        self._sizes.clear()
        self._bytes = 0
        self.done = False

    def expects(self, job: NewJob) -> bool:
        """Whether a job that was taken from here has not left yet."""
        return job.id in self._sizes

    def left(self, job: str) -> None:
        """A job is on disk and has left the server."""
        self._bytes -= self._sizes.pop(job, 0)

    def _sort(self, record: Record | Invalid, portion: Portion) -> None:
        written = record if isinstance(record, Invalid) else self._writer.write(record)
        if isinstance(written, Invalid):
            portion.invalid.append(written)
            return
        job = NewJob(
            id=f"{self._run_id}.{record.line}",
            need=written.need.characters,
            tokens=written.need.tokens,
            base=written.need.base,
            pack=written.pack,
            note=f"{record.offset},{record.length}",
            payload=written.payload,
        )
        self._sizes[job.id] = len(job.payload)
        self._bytes += len(job.payload)
        portion.jobs.append(job)


@dataclass(frozen=True, slots=True)
class Written:
    """A record as a job: what is stored of it, the most that it may use, and with which others it
    may share a call."""

    payload: bytes
    need: Need
    pack: str


class Writer:
    """Makes jobs of records, and says of a record why it cannot be one.

    `check_model` raises for a model that a record may not name; None: it may name any.
    """

    def __init__(self, adapter: Adapter, common: Common) -> None:
        self._adapter = adapter
        self._common = common
        self.check_model: Callable[[str], None] | None = None
        self.pack_most = adapter.pack_most(common)

    def write(self, record: Record) -> Written | Invalid:
        ask = Ask(record.prompt, record.params, record.body)
        try:
            if self.check_model is not None and record.body is not None:
                self.check_model(record.body.get("model") or self._common.model)
            need = self._adapter.need(self._common, ask)
        except Refused as refused:
            return _refused(record, refused)
        return Written(ask.write(), need, self._adapter.pack_key(self._common, ask))


def skipping(answered: Lines, wanted: Wanted) -> Callable[[int], bool]:
    """Which lines are passed over: answered ones, and those that are not wanted (None: all are)."""
    if wanted is None:
        return answered.__contains__
    return lambda line: line in answered or line not in wanted


def _refused(record: Record, refused: Refused) -> Invalid:
    where = "body" if record.body is not None else "params"
    return Invalid(
        line=record.line,
        offset=record.offset,
        length=record.length,
        input=record.input,
        custom_id=record.custom_id,
        code=refused.code,
        message=str(refused),
        pointer=f"/{where}/{refused.name}" if isinstance(refused, BadParameter) else None,
    )

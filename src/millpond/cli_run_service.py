"""`millpond run --url`: the lines of a file as jobs of a service, which knows limits and quota.

    file ── reader ──▶ client ──▶ service
                         │
    answers, errors ◀─ collector

Each line has an idempotency key of its own. Cut off and started again, the run asks only for lines
that have no row yet, and who was asked before is the same job: nothing is paid for twice.
"""

import asyncio
import math
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import orjson
import typer

from millpond.cli_do import do
from millpond.cli_service import Place, Service, end, exit_code, find, told_here
from millpond.cli_tell import Told, note
from millpond.client import AsyncClient, Job, JobRequest, Result
from millpond.client.access import Access
from millpond.client.errors import ApiError, ClientError
from millpond.client.transport import Transport
from millpond.errors import MillpondError, Refused
from millpond.producer.records import Format, Invalid, Record
from millpond.run.collector import Collector
from millpond.run.feeder import Lines, skipping
from millpond.run.folder import DataFolder, Ended, read_end, write_end
from millpond.run.options import Options
from millpond.run.progress import Progress, Standing, progress, say
from millpond.run.source import Source, open_source, strictly
from millpond.run.summary import End, Summary, tell_json
from millpond.run.summary import exit_code as exit_code_of
from millpond.store.store import Row

#: Lines that are at the service at once.
UNDER_WAY = 1_000
_ROWS_AT_ONCE, _WRITE_S, _LOOK_S = 500, 0.5, 5.0
#: What a service takes for granted.
_MAX_TOKENS = 256
#: So long the service may be away.
_AWAY_S = 900.0
_IN_USE = (
    "another run is at work in {path}; wait for it, or give this one a folder of its own with "
    "--data-dir"
)


class NotForAService(Refused):
    """Something that a service decides itself, or does not take."""

    code = "not_for_a_service"


#: Options of a run whose server and workers are its own.
_ITS_OWN = (
    *("provider", "base_url", "mode", "limits", "quota", "workers", "concurrency", "timeout"),
    *("attempts", "user", "weight", "service_time", "reserve", "for_interactive", "dry_run"),
    *("what_if", "ledger", "ephemeral", "model_unchecked"),
)


def go(context: typer.Context, options: Options, url: str, key_file: Path | None) -> NoReturn:
    """Do the run, and end with its exit code."""
    for name in _ITS_OWN:
        told = context.get_parameter_source(name)
        if told is not None and told.name != "DEFAULT":
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter("with --url it is the service's to say", param_hint=option)
    try:
        access = find(Place(url, key_file))
    except MillpondError as error:
        end(error)
    raise typer.Exit(do(lambda _: run_at_service(options, access)))


async def run_at_service(options: Options, access: Access) -> int:
    """Do the run; its exit code."""
    began_s = time.monotonic()
    options = replace(options, base_url=access.url)
    with DataFolder(options.data_dir, in_use=_IN_USE) as folder:
        # What parameters may be is the service's to say: it knows its provider.
        source = await asyncio.to_thread(open_source, replace(options, params={}), folder)
        if source.format is Format.OPENAI:
            raise NotForAService("a service takes no OpenAI batch lines: run them without --url")
        run_id = options.run_id(folder.id, source.sha256, source.format)
        path = folder.run(run_id)
        ended = read_end(path)
        collector = Collector(path, options, source.reader)
        try:
            if ended is not None:
                say(f"this run has finished; its answers are in {options.out}", quiet=options.quiet)
                tell_json(options, {**ended.summary, "seconds": 0.0})
                return ended.exit_code
            if options.strict:
                await asyncio.to_thread(_refuse_bad_lines, source)
            transport = Transport(access, reply_timeout=30.0)
            async with AsyncClient(access.url, access.key, timeout=_AWAY_S) as client:
                run = _Run(options, source, run_id, collector, client, Service(access, transport))
                try:
                    end = await run.go()
                finally:
                    await transport.close()
            summary = run.summary(time.monotonic() - began_s)
            code = run.code if run.code is not None else exit_code_of(end, failed=summary.failed)
            if end is End.DONE:
                write_end(path, Ended(code, summary.as_json()))
        finally:
            collector.close()
        say(summary.for_people(), quiet=options.quiet)
        if summary.resume_command is not None:
            told = f"ended: {end.value}. What is at the service goes on there. To go on: "
            say(told + summary.resume_command, quiet=options.quiet)
        tell_json(options, summary.as_json())
        return code


def _refuse_bad_lines(source: Source) -> None:
    records = source.reader.read(skipping(Lines(), source.wanted))
    strictly(sum(isinstance(one, Invalid) for one in records), source.lines)


class _Run:
    """One run. `code`: how it ends, where something said so."""

    def __init__(
        self,
        options: Options,
        source: Source,
        run_id: str,
        collector: Collector,
        client: AsyncClient,
        service: Service,
    ) -> None:
        self._options = options
        self._source = source
        self._run_id = run_id
        self._collector = collector
        self._client = client
        self._service = service
        self._invalid: list[Invalid] = []
        self._rows: list[Row] = []
        self._waits: str | None = None
        self.code: int | None = None

    async def go(self) -> End:
        """Until each line has its row, or something ends it before."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with progress(quiet=self._options.quiet) as shown:
            try:
                await self._tell_access()
                async with self._watching(shown):
                    await self._ask_all()
            except ClientError as error:
                note(f"millpond: {told_here(error)}")
                self.code = exit_code(error)
                return End.NO_SERVER
            except asyncio.CancelledError:
                task.uncancel()
                return End.INTERRUPTED
            finally:
                self._write()
                shown.show(self._standing())
        done = self._collector.succeeded + self._collector.failed
        return End.DONE if done >= self._source.lines else End.GAVE_UP

    async def _tell_access(self) -> None:
        try:
            org = await self._service.get("/v1/orgs/me")
        except ApiError as error:
            if error.status == 404:
                return
            raise
        access = f"org {org['id']} at {self._service.access.url}: {org['mode']} access"
        if org["mode"] != "full":
            access += ", for testing; `millpond access` tells the way to full access"
        say(access, quiet=self._options.quiet)

    async def _ask_all(self) -> None:
        results = self._client.map(self._records(), text=self._job_of, concurrency=UNDER_WAY)
        async for result in results:
            self._take(result)
            if len(self._rows) + len(self._invalid) >= _ROWS_AT_ONCE:
                await asyncio.to_thread(self._write)

    def _records(self) -> Iterator[Record]:
        skip = skipping(self._collector.answered, self._source.wanted)
        for record in self._source.reader.read(skip):
            if isinstance(record, Invalid):
                self._invalid.append(record)
            else:
                yield record

    def _job_of(self, record: Record) -> JobRequest:
        options = self._options
        params = {**options.params, **record.params}
        if options.max_tokens != _MAX_TOKENS:
            params = {"max_tokens": options.max_tokens, **params}
        return JobRequest(
            endpoint=options.endpoint.value,
            text=record.prompt,
            examples=[(one.text, one.label) for one in options.examples] or None,
            model=options.model,
            params=params or None,
            class_="interactive" if options.interactive else "bulk",
            metadata={"run": self._run_id, "line": str(record.line)},
            idempotency=f"{self._run_id}.{record.line}",
        )

    def _take(self, result: Result[Record]) -> None:
        record, job = result.item, result.job
        if job is not None and job.ended:
            self._rows.append(_row(self._run_id, record, job))
        elif isinstance(result.error, ApiError) and result.error.status in (400, 413, 422):
            self._invalid.append(_refused(record, result.error))
        # else nobody knows yet: started again, the run asks for it again

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        invalid, self._invalid = self._invalid, []
        if rows:
            self._collector.take(rows)
        if invalid:
            self._collector.take_invalid(invalid)

    # ---- how it goes

    @asynccontextmanager
    async def _watching(self, shown: Progress) -> AsyncIterator[None]:
        """Meanwhile rows are written, and it is told how things stand."""
        task = asyncio.create_task(self._watch(shown))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, shown: Progress) -> None:
        looked_s = -math.inf
        while True:
            await asyncio.sleep(_WRITE_S)
            self._write()
            if time.monotonic() - looked_s >= _LOOK_S:
                looked_s = time.monotonic()
                await self._look()
            shown.show(self._standing())

    async def _look(self) -> None:
        """What the lane waits for, for people."""
        with suppress(ClientError):
            told = await self._service.get("/v1/limits")
            waits = told["endpoints"][self._options.endpoint].get("waits")
            self._waits = None if waits is None else str(waits["limit"])

    def _standing(self) -> Standing:
        return Standing(
            lines=self._source.lines,
            succeeded=self._collector.succeeded,
            failed=self._collector.failed,
            calls=None,
            characters=0,
            quota=None,
            seconds_left=None,
            waits_for=self._waits,
        )

    def summary(self, seconds: float) -> Summary:
        """What it came to."""
        succeeded, failed = self._collector.succeeded, self._collector.failed
        waiting = self._source.lines - succeeded - failed
        return Summary(
            lines=self._source.lines,
            succeeded=succeeded,
            failed=failed,
            waiting=waiting,
            waiting_reason=None,
            calls=None,
            refusals=None,
            used_characters=None,
            estimated_characters=None,
            reserved_characters=None,
            seconds=seconds,
            resume_command=shlex.join(["millpond", *sys.argv[1:]]) if waiting else None,
        )


def _row(run_id: str, record: Record, job: Job) -> Row:
    """A job's end, as a run's own server would tell it."""
    body: Told
    if job.state == "succeeded":
        body = {**(job.result or {}), "simulated": job.simulated}
    else:
        failure = job.error
        body = {
            "error": {
                "code": failure.code if failure else job.state,
                "message": failure.message if failure else f"it was {job.state}",
                "pointer": failure.pointer if failure else None,
                "provider_status": failure.provider_status if failure else None,
            }
        }
    return Row(
        job.id,
        {
            "job": f"{run_id}.{record.line}",
            "note": f"{record.offset},{record.length}",
            "state": job.state,
            "attempts": str(job.attempts),
            "body": orjson.dumps(body).decode(),
        },
    )


def _refused(record: Record, error: ApiError) -> Invalid:
    first = error.errors[0] if error.errors else None
    pointer = None if first is None else first.pointer.partition("/")[2].partition("/")[2]
    return Invalid(
        line=record.line,
        offset=record.offset,
        length=record.length,
        input=record.input,
        custom_id=record.custom_id,
        code=error.code,
        message=first.detail if first is not None else str(error),
        pointer=f"/{pointer}" if pointer else None,
    )

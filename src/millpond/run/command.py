"""One run from its start to its end.

file ── feeder ──▶ server ── workers ──▶ provider
                      │
answers, errors ◀─ collector
"""

import asyncio
import time
from functools import partial

from millpond import logs
from millpond.domain.job import COUNTED
from millpond.producer.formats import Format
from millpond.providers.catalogue import ModelRefused, check_model, read_catalogue
from millpond.run.collector import Collector, answered_lines
from millpond.run.feeder import Feeder
from millpond.run.folder import DataFolder, Ended, KeyInUse, read_end
from millpond.run.household import Household
from millpond.run.loop import Run
from millpond.run.options import Options
from millpond.run.preview import (
    Contents,
    Preview,
    describe_preview,
    describe_what_if,
    preview,
    read_contents,
)
from millpond.run.progress import say
from millpond.run.source import Source, open_source, strictly
from millpond.run.summary import WORDS, End, Summary, exit_code, tell_json
from millpond.settings import Settings
from millpond.standing.estimate import LATENCY_GUESS_MS


async def execute(options: Options, settings: Settings) -> int:
    """Do the run; its exit code."""
    began_s = time.monotonic()
    with DataFolder(options.data_dir) as folder:
        logs.configure(settings.log_level, folder.log.open("a"))
        source = await asyncio.to_thread(open_source, options, folder)
        options = source.options
        path = folder.run(source.run_id)
        ended = read_end(path)
        if ended is not None and not options.dry_run:
            Collector(path, options, source.reader).close()
            return _tell_again(options, ended, time.monotonic() - began_s)
        household = Household(
            options,
            settings,
            folder,
            source.run_id,
            common=options.common(),
            wire=options.wire(source.format),
            pack=source.writer.pack_most,
        )
        await _check_models(source, household, settings)
        answered = await asyncio.to_thread(answered_lines, path)
        contents = await asyncio.to_thread(
            partial(read_contents, lines=source.lines, answered=answered),
            source.reader,
            source.writer,
            source.wanted,
        )
        if options.dry_run:
            return await _show_preview(options, household, contents)
        if options.strict:
            strictly(contents.bad_lines, contents.lines)
        collector = Collector(path, options, source.reader)
        run = Run(
            options,
            collector,
            Feeder(source.reader, source.writer, source.run_id, collector.answered, source.wanted),
            household,
            path=path,
            contents=contents,
            began_s=began_s,
        )
        key = KeyInUse(options.account())
        if key.elsewhere and settings.redis_url is None and not options.own_provider:
            say(
                "another run on this machine uses the same key, with books of its own: together "
                "they may be over the limits. With one server they share: set MILLPOND_REDIS_URL",
                quiet=options.quiet,
            )
        try:
            end, summary = await run.go()
        finally:
            key.close()
            collector.close()
        return _finish(options, end, summary)


async def _check_models(source: Source, household: Household, settings: Settings) -> None:
    """Raises ModelRefused for a model that cannot be asked; lines that name one become errors."""
    options = source.options
    models = read_catalogue(settings.models).get(options.wire(source.format))
    if models is None or options.model_unchecked:
        return
    assert options.model is not None
    # Only what the catalogue does not know can be an org's own: else no server is asked.
    lines_name_models = source.format is Format.OPENAI
    own = {}
    if options.model not in models or lines_name_models:
        own = await household.own_models()

    def check(model: str) -> None:
        try:
            check_model(models, own, options.mode, options.endpoint, model)
        except ModelRefused as refused:
            raise refused.adding(_way_out(refused)) from None

    check(options.model)
    source.writer.check_model = check if lines_name_models else None


def _way_out(refused: ModelRefused) -> str:
    """What whoever runs this can do about a model that is refused."""
    add = "add it to the file that MILLPOND_MODELS names, or say --model-unchecked"
    match refused.why:
        case "unknown":
            return (
                f"If the provider has it, {add}; a fine-tuned model: "
                f"millpond models add {refused.model} --org ORG --base MODEL"
            )
        case "base":
            return f"If the provider has that, {add}"
        case "mode":
            return f"With {' or '.join(refused.modes)} access: --mode {refused.modes[0]}"
        case "endpoint":
            return ""


async def _show_preview(options: Options, household: Household, contents: Contents) -> int:
    """What the run would come to; nothing is sent."""
    others = [(one, options.under(one)) for one in options.what_if]
    limited = any(one.quota is not None for one in (options, *(other for _, other in others)))
    used = await household.used() if limited and options.endpoint in COUNTED else 0

    def seen_under(one: Options) -> Preview:
        counts = one.quota is not None and one.endpoint in COUNTED
        return preview(
            contents,
            household.limits_under(one),
            quota_left=one.quota - used if counts and one.quota is not None else None,
            concurrency=one.concurrency,
            latency_ms=LATENCY_GUESS_MS,
        )

    seen, wall_s = seen_under(options), time.time()
    told = seen.as_json(wall_s=wall_s)
    say(describe_preview(seen, options.mode), quiet=options.quiet)
    if others:
        told["what_if"] = []
    for what_if, other in others:
        if_so = seen_under(other)
        told["what_if"].append(if_so.as_what_if(what_if.written, wall_s=wall_s))
        say(f"if {what_if.written}: {describe_what_if(if_so)}", quiet=options.quiet)
    tell_json(options, told)
    return 0 if seen.fits_quota else 75


def _finish(options: Options, end: End, summary: Summary) -> int:
    code = exit_code(end, failed=summary.failed)
    told = summary.as_json()
    say(summary.for_people(), quiet=options.quiet)
    if summary.resume_command is not None:
        why = WORDS.get(end, end.value)
        say(f"ended: {why}. To go on: {summary.resume_command}", quiet=options.quiet)
    tell_json(options, told)
    return code


def _tell_again(options: Options, ended: Ended, seconds: float) -> int:
    say(
        f"this run has finished: {ended.summary['succeeded']:,} answered, "
        f"{ended.summary['failed']:,} failed; nothing was sent. Its answers are in {options.out}",
        quiet=options.quiet,
    )
    tell_json(options, {**ended.summary, "seconds": round(seconds, 3)})
    return ended.exit_code

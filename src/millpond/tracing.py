"""Spans, for whoever has OpenTelemetry's SDK at work: of a request, of jobs that are submitted, of
a call, and of what is settled. Without it `begin` finds nothing, and nothing is done.

{method} {route} ─▶ submit jobs ─ traceparent, kept with each job ─▶ {operation} {model}
                                                                 └─▶ settle calls

One job's call is in the trace of its submission; a call of several names each of theirs as a link.
No span has a prompt, an answer, a key or an error's text.
"""

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points

import structlog
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from millpond import __version__
from millpond.domain.call import Claimed
from millpond.domain.job import Endpoint
from millpond.domain.request import Common

log = structlog.get_logger()

SUBMIT, CALL, SETTLE = "submit jobs", "call", "settle calls"
#: What a call does, as OpenTelemetry's conventions for generative AI call it.
OPERATIONS = {
    Endpoint.GENERATE: "text_completion",
    Endpoint.EMBED: "embeddings",
    Endpoint.CLASSIFY: "classify",
}

_PROPAGATOR = TraceContextTextMapPropagator()
_NOTHING: AbstractContextManager[None] = nullcontext()
_NO_EXPORTER = ("", "none")
#: A job's payload begins so, if it was submitted under a span.
_KEPT, _LENGTH = b'{"traceparent":"', 55


# ---------------------------------------------------------------- whether


def begin() -> Tracer | None:
    """Asked once by whatever makes spans; None: nobody wants any."""
    found = provider()
    return None if found is None else found.get_tracer("millpond", __version__)


def provider() -> TracerProvider | None:
    """What somebody has set before us, or what OTEL_TRACES_EXPORTER names."""
    found = trace.get_tracer_provider()
    if not isinstance(found, ProxyTracerProvider | NoOpTracerProvider):
        return found
    names = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    return None if names in _NO_EXPORTER else _set_up(names.split(","))


def _set_up(names: Sequence[str]) -> TracerProvider | None:
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("tracing_unavailable", wanted="pip install 'millpond[otel]'")
        return None
    of_service = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "millpond")}
    made = Provider(resource=Resource.create(of_service))
    for name in names:
        found = entry_points(group="opentelemetry_traces_exporter", name=name.strip())
        if not found:
            log.warning("tracing_unavailable", exporter=name)
            return None
        for one in found:
            made.add_span_processor(BatchSpanProcessor(one.load()()))
    trace.set_tracer_provider(made)
    return made


# ---------------------------------------------------------------- which


@contextmanager
def requested(
    tracer: Tracer, method: str, route: str, headers: Mapping[str, str]
) -> Generator[Span]:
    """A request over HTTP, a part of its client's trace if it names one."""
    with tracer.start_as_current_span(
        f"{method} {route}",
        context=_PROPAGATOR.extract(headers),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method, "http.route": route},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def replied(span: Span, status: int) -> None:
    """How a request ended."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


@contextmanager
def submitting(tracer: Tracer, jobs: int) -> Generator[str]:
    """Jobs are submitted; what is to be kept with each."""
    with tracer.start_as_current_span(
        SUBMIT,
        kind=SpanKind.PRODUCER,
        attributes={"millpond.jobs": jobs},
        record_exception=False,
        set_status_on_exception=False,
    ):
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        yield carrier.get("traceparent", "")


def with_traceparent(payload: bytes, traceparent: str) -> bytes:
    """What a job asks, and the span that it was submitted under."""
    if len(traceparent) != _LENGTH:
        return payload
    return b'%s%s",%s' % (_KEPT, traceparent.encode(), payload[1:])


def calling(tracer: Tracer | None, call: Claimed) -> AbstractContextManager[Span | None]:
    """A call to the provider."""
    if tracer is None:
        return _NOTHING
    attributes: dict[str, str | int] = {"millpond.call": call.id, "millpond.jobs": len(call.jobs)}
    return _after(tracer, CALL, SpanKind.CLIENT, attributes, [call])


def called(span: Span, provider: str, common: Common | None, ended: str | None) -> None:
    """What a call asked for; and how it ended, if it was not answered."""
    if common is not None:
        operation = OPERATIONS[common.endpoint]
        span.update_name(f"{operation} {common.model}")
        span.set_attribute("gen_ai.operation.name", operation)
        span.set_attribute("gen_ai.request.model", common.model)
    span.set_attribute("gen_ai.provider.name", provider)
    if ended is not None:
        span.set_attribute("error.type", ended)
        span.set_status(StatusCode.ERROR)


def used(span: Span, endpoint: Endpoint, *, characters: int, tokens: int | None) -> None:
    """What a call used. (Providers tell of tokens in all: only of what has no output are they those
    of the input.)"""
    span.set_attribute("millpond.usage.characters", characters)
    if tokens is not None:
        is_input = endpoint is Endpoint.EMBED
        name = "gen_ai.usage.input_tokens" if is_input else "millpond.usage.tokens"
        span.set_attribute(name, tokens)


def settling(
    tracer: Tracer | None, calls: Sequence[Claimed]
) -> AbstractContextManager[Span | None]:
    """The store is told how calls ended."""
    if tracer is None or not calls:
        return _NOTHING
    return _after(tracer, SETTLE, SpanKind.INTERNAL, {"millpond.calls": len(calls)}, calls)


@contextmanager
def _after(
    tracer: Tracer,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
    calls: Iterable[Claimed],
) -> Generator[Span]:
    """A span for jobs that were submitted under others: one is its parent, several are links."""
    jobs = [job for call in calls for job in call.jobs]
    parents = {kept for job in jobs if (kept := _kept(job.payload))}
    contexts = [_PROPAGATOR.extract({"traceparent": one}) for one in sorted(parents)]
    links = [Link(trace.get_current_span(one).get_span_context()) for one in contexts]
    with tracer.start_as_current_span(
        name,
        context=contexts[0] if len(contexts) == 1 else None,
        kind=kind,
        links=links if len(jobs) > 1 else (),
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def _kept(payload: bytes) -> str | None:
    if not payload.startswith(_KEPT):
        return None
    return payload[len(_KEPT) : len(_KEPT) + _LENGTH].decode(errors="replace")

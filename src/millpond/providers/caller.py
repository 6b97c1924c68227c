"""One call from its claim to its outcome: write the request, send it, read the reply."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from opentelemetry.trace import Span

from millpond import tracing
from millpond.domain.call import Claimed
from millpond.domain.request import Ask, Common, read_ask, read_common
from millpond.errors import Unavailable
from millpond.providers.adapter import Adapter, Reply
from millpond.providers.at_work import AtWork
from millpond.providers.http import Http, Posted
from millpond.providers.outcome import Answered, NoAnswer, NotSent, Outcome
from millpond.providers.several import apart, together

_REMEMBERED_MOST = 100
#: A provider's time is rounded, and its proxy may count a call a moment after it began to time it.
_CREDIT_MARGIN_MS = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a call; when its response headers came (None: they did not); how long before
    that the provider had surely counted it; and what it said in them of its limits, for us and for
    people."""

    outcome: Outcome
    headers_ms: float | None = None
    told: str | None = None
    said: str | None = None
    credit_ms: int = 0


class Caller:
    """Makes the calls of one provider account. `common_of` finds what a flow's jobs share, `key_of`
    an org's own key; without one its calls are made with the key of `http`. `at_work` is told what
    we are at work on, should that be the end of us."""

    def __init__(
        self,
        adapter: Adapter,
        http: Http,
        common_of: Callable[[str], Awaitable[bytes | None]],
        *,
        key_of: Callable[[str], Awaitable[str | None]] | None = None,
        at_work: AtWork | None = None,
    ) -> None:
        self._adapter = adapter
        self._http = http
        self._common_of = common_of
        self._key_of = key_of
        self._at_work = at_work or AtWork(None)
        self._remembered: dict[str, Common] = {}
        self._tracer = tracing.begin()

    async def send(self, call: Claimed, may_begin: Callable[[], bool] = lambda: True) -> Sent:
        """Make the call, if `may_begin` says yes as its first byte is about to go."""
        with tracing.calling(self._tracer, call) as span:
            sent = await self._send(call, may_begin)
            if span is not None:
                self._trace(span, call, sent.outcome)
            return sent

    async def _send(self, call: Claimed, may_begin: Callable[[], bool]) -> Sent:
        try:
            common = await self._common(call.flow)
            key = None if self._key_of is None else await self._key_of(call.org)
        except Unavailable as error:
            return Sent(NotSent(str(error), unreachable=False))
        if common is None:
            return Sent(NotSent("its flow has gone", unreachable=False))
        with self._at_work.on(call.id):
            asks = [read_ask(job.payload) for job in call.jobs]
            common = asks[0].common or common  # those of one call have the same
            wire = self._adapter.wire(common, apart(asks))
        posted = await self._http.post(
            wire.path, wire.body, attempt=call.id, may_begin=may_begin, key=key
        )
        match posted:
            case Posted(reply, headers_ms):
                with self._at_work.on(call.id):
                    return Sent(
                        self._read(common, asks, reply),
                        headers_ms,
                        told=self._adapter.told(reply),
                        said=self._adapter.said(reply),
                        credit_ms=_credit_ms(posted, self._adapter.service_ms(reply)),
                    )
            case failed:
                return Sent(failed)

    def _trace(self, span: Span, call: Claimed, outcome: Outcome) -> None:
        common = self._remembered.get(call.flow)
        if common is not None:
            common = read_ask(call.jobs[0].payload).common or common
        answered = outcome if isinstance(outcome, Answered) else None
        failed = None if answered else type(outcome).__name__
        tracing.called(span, type(self._adapter).__name__.lower(), common, failed)
        if answered and common:
            characters = sum(answered.used)
            tracing.used(span, common.endpoint, characters=characters, tokens=answered.tokens)

    def _read(self, common: Common, asks: Sequence[Ask], reply: Reply) -> Outcome:
        try:
            return together(asks, self._adapter.read(common, apart(asks), reply))
        except RecursionError:
            return NoAnswer("the reply is nested too deep to be read")

    async def _common(self, flow: str) -> Common | None:
        """Fetched once for each flow. (Two calls may do so at once; that does no harm.)"""
        if flow not in self._remembered:
            told = await self._common_of(flow)
            if told is None:
                return None
            while len(self._remembered) >= _REMEMBERED_MOST:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[flow] = read_common(told)
        return self._remembered.get(flow)


def _credit_ms(posted: Posted, service_ms: int | None) -> int:
    """How long before the headers the provider had counted the call, if it worked `service_ms`.

    A time that is longer than the call took is not believed, and only for a call that was served
    is there any.
    """
    took_ms = posted.headers_ms - posted.began_ms
    if service_ms is None or service_ms > took_ms or not 200 <= posted.reply.status < 300:
        return 0
    return max(0, service_ms - _CREDIT_MARGIN_MS)

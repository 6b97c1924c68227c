"""What operators are told, as text: the same facts as the JSON, in lines that people read."""

from collections.abc import Iterator, Sequence

from millpond.standing.moments import Told, for_people


def standing_lines(told: Told) -> Iterator[str]:
    """Of a job, a flow or a lane."""
    kind = told["kind"]
    yield f"{kind} {told['id']}: {told['state']}"
    if kind == "job":
        yield f"  of flow {told['flow']}, {told['attempts']} attempts, {told['failures']} failures"
    if kind == "flow":
        yield from _flow_lines(told)
    if told["waits"] is not None:
        yield f"  waits for {waits_text(told['waits'])}"
    yield from _when_lines(told)
    yield from _org_lines(told["org"])
    lane = told if kind == "lane" else told["lane"]
    if kind != "lane":
        yield f"lane {lane['id']}"
    yield from _lane_lines(lane)
    for line in told.get("in_line", ()):
        yield f"  in line: {_line_text(line)}"


def waits_text(waits: Told) -> str:
    text: str = waits["limit"]
    if waits["amount"] is not None:
        text += f" ({waits['used']:,} of {waits['amount']:,} {waits['unit']})"
    if waits["since"] is not None:
        text += f", since {for_people(waits['since'])}"
    if waits["next_release"] is not None:
        text += f", next at {for_people(waits['next_release'])}"
    return text


def _flow_lines(told: Told) -> Iterator[str]:
    jobs = told["jobs"]
    yield (
        f"  {told['class']}, user {told['user'] or '(none)'}, weight {told['weight']:g}; of the "
        f"jobs that the server holds {jobs['queued']:,} queued, {jobs['in_flight']:,} in flight, "
        f"{jobs['later']:,} to be tried again, {jobs['parked']:,} without room in the quota; "
        f"{jobs['succeeded']:,} answered, {jobs['failed']:,} failed"
    )


def _when_lines(told: Told) -> Iterator[str]:
    if told["kind"] == "lane":
        return
    before = told["calls_before"]
    if told["goes"] is not None:
        whose = "calls" if told["kind"] == "job" else "calls of others"
        last = "" if told["kind"] == "job" else "the last "
        yield f"  {before:,} {whose} before it; {last}goes about {for_people(told['goes'])}"
    if told["answered"] is not None:
        yield f"  answered about {for_people(told['answered'])}"


def _org_lines(org: Told) -> Iterator[str]:
    if org["state"] == "suspended":
        yield f"org {org['id']}: suspended"
    if org["quota"] is not None:
        yield f"org {org['id']}: {quota_text(org)}"


def quota_text(org: Told) -> str:
    if org["quota"] is None:
        return f"no quota; {org['used']:,} characters used"
    spent = org["used"] + org["estimated"]
    text = f"{spent:,} of {org['quota']:,} characters used ({org['percent'] or 0} %)"
    if org["estimated"]:
        text += f", {org['estimated']:,} of them kept for calls of unknown outcome"
    return text + f", {org['reserved']:,} reserved for calls in flight, {org['left']:,} left"


def _lane_lines(lane: Told) -> Iterator[str]:
    for limit in lane["limits"]:
        text = f"  {limit['limit']}: {limit['used']:,} of {limit['amount']:,} {limit['unit']}"
        if "kept_for_interactive" in limit:
            text += " by bulk"
        if limit["has_room"] is not None:
            text += f", has room at {for_people(limit['has_room'])}"
        yield text
    says = lane["provider_says"]
    if says["limits"] or says["left"]:
        yield f"  the provider says: {'; '.join(filter(None, (says['limits'], says['left'])))}"
    measured = "" if lane["latency_measured"] else " (a guess)"
    text = (
        f"  {lane['in_flight']:,} in flight, {lane['slots_free']:,} of {lane['slots']:,} worker "
        f"slots free, {lane['latency_ms'] / 1_000:.2f} s to an answer{measured}"
    )
    if lane["refusals"]:
        text += f", {lane['refusals']:,} refused by the provider"
    yield text
    marks = [
        f"uses {lane['share']:.0%} of its shortest limit after refusals" * (lane["share"] < 1),
        "bulk goes evenly" * lane["paced"],
        "the provider's service time is believed" * lane["service_time"],
    ]
    if any(marks):
        yield f"  {', '.join(filter(None, marks))}"


def _line_text(line: Told) -> str:
    text = f"{line['flow']}, {line['class']}, user {line['user'] or '(none)'}"
    text += f", weight {line['weight']:g}: {line['queued']:,} jobs"
    if line["answered"] is not None:
        text += f", answered about {for_people(line['answered'])}"
    return text


def every_lines(told: Told) -> Iterator[str]:
    """Of every org and its lanes."""
    if not told["orgs"]:
        yield "nothing has been submitted"
    for org in told["orgs"]:
        yield f"org {org['id']}: {org['state']}, {quota_text(org)}"
        for lane in org["lanes"]:
            text = f"  lane {lane['id']}: {lane['state']}"
            queued = sum(line["queued"] for line in lane["in_line"])
            text += f", {queued:,} jobs in line, {lane['in_flight']:,} in flight"
            if lane["waits"] is not None:
                text += f"; waits for {waits_text(lane['waits'])}"
            yield text
            for line in lane["in_line"]:
                yield f"    {_line_text(line)}"


def quota_lines(told: Told) -> Iterator[str]:
    yield f"org {told['id']}: {told['state']}, {quota_text(told)}"
    yield f"  mode {told['mode'] or 'not set'}, reserve {told['reserve']}"
    if told["unknown_calls"]:
        yield (
            f"  {told['unknown_calls']:,} calls of unknown outcome: millpond quota unknown "
            f"{told['id']}"
        )
    for user, weight in sorted(told["weights"].items()):
        yield f"  user {user or '(none)'}: weight {weight:g}"


def unknown_lines(rows: Sequence[Told]) -> Iterator[str]:
    if not rows:
        yield "no call is of unknown outcome"
    for row in rows:
        yield f"{row['call']}\t{row['characters']:,} characters"


def ledger_lines(rows: Sequence[Told]) -> Iterator[str]:
    if not rows:
        yield "the ledger is empty"
    for row in rows:
        text = f"{row['at']['at']}\t{row['outcome']}\t{row['characters']:,}"
        text += f"\tused {row['used']:,}\testimated {row['estimated']:,}"
        who = " ".join(filter(None, (row.get("call"), row.get("lane"), row.get("by"))))
        yield f"{text}\t{who}" + (f"\t{row['why']}" if "why" in row else "")


def verified_lines(told: Told) -> Iterator[str]:
    whole = "the whole ledger" if told["complete"] else "what is left of the ledger"
    verdict = "right" if told["right"] else "WRONG"
    yield f"{verdict}: {whole}, {told['rows']:,} rows, each by the one before it"
    if told["unchecked"]:
        yield f"  {told['unchecked']:,} rows rest in part on ones that have left"
    if not told["agrees_with_org"]:
        yield (
            f"  the org has {told['used']:,} used and {told['estimated']:,} estimated, the last "
            "row something else"
        )
    for mistake in told["mistakes"]:
        yield f"  {mistake}"


def event_lines(rows: Sequence[Told]) -> Iterator[str]:
    if not rows:
        yield "no event"
    for row in rows:
        yield f"{row['at']['at']}\t{_event_text(row)}"


def _event_text(row: Told) -> str:
    if row["event"] == "key":
        return f"the key {row['fingerprint']} was {row['change']} by {row['by']}"
    return (
        f"{row['percent']} % of the quota: {row['used']:,} used and {row['estimated']:,} estimated "
        f"of {row['quota']:,} characters"
    )


def audit_lines(rows: Sequence[Told]) -> Iterator[str]:
    if not rows:
        yield "no change"
    for row in rows:
        for change in row["changes"]:
            what = f"{change['what']} {change['id']}: {change['field'] or '(none)'}"
            old, new = change["from"] or "(none)", change["to"] or "(none)"
            yield f"{row['at']['at']}\t{row['by']}\tversion {row['version']}\t{what} {old} -> {new}"


def adjusted_lines(told: Told) -> Iterator[str]:
    yield f"org {told['org']}: {told['used']:,} used, {told['estimated']:,} estimated"


def changed_lines(told: Told) -> Iterator[str]:
    name = told.get("flow") or told.get("lane") or told["org"]
    yield f"{name} is changed: version {told['version']} of org {told['org']}"
    for lane, limits in told.get("lanes", {}).items():
        yield f"  lane {lane}: {limits}"

"""What is always so: the server's data, read whole, against the books."""

import copy

from millpond.domain.job import Class
from millpond.domain.turns import Level, Turn, Turns
from property.books import ENDED, Books, FlowBook, JobBook, LaneBook
from property.counted import counters, taken
from property.direct import Dump


def number(fields: dict[str, str], name: str) -> int:
    return int(fields.get(name, 0))


def line(dump: Dump, flow: str) -> list[str]:
    """Ids of the queued jobs of a flow. A job that ended while it stood in line (by a late answer,
    cancelled, expired) leaves its entry behind, which is dropped when its turn comes."""
    ids = [job_of(entry) for entry in dump.get(f"f:{flow}:q", [])]
    return [id for id in ids if dump.get(f"j:{id}", {}).get("state") == "queued"]


def job_of(entry: str) -> str:
    return entry.split("|")[1]


def check_all(dump: Dump, books: Books, now: int, true_ms: float) -> None:
    characters_add_up(dump, books)
    the_ledger_runs(dump, books)
    calls_are_where_they_should_be(dump, books)
    jobs_are_in_one_place(dump, books)
    what_is_passed_over_has_ended(dump, books)
    the_org_knows_who_is_parked(dump)
    the_dead_are_kept(dump, books)
    counts_are_right(dump, books)
    gaps_in_line_are_counted(dump, books)
    for lane in books.lanes.values():
        flight_of_every_unit_is_counted(dump, books, lane)
        windows_tell_no_less_than_the_provider_may_have_counted(dump, books, lane, now, true_ms)
        turns_are_taken_as_by_the_reference(dump, books, lane)


def gaps_in_line_are_counted(dump: Dump, books: Books) -> None:
    """A flow's places in line are its queued jobs there, and as many gaps as it says."""
    for id in books.flows:
        places = dump.get(f"f:{id}:q", [])
        assert len(places) - number(dump[f"f:{id}"], "gaps") == len(line(dump, id)), id


def characters_add_up(dump: Dump, books: Books) -> None:
    org = dump["o:acme"]
    assert number(org, "reserved") == books.reserved()
    assert number(org, "used") == books.used
    assert number(org, "estimated") == books.estimated
    for id, flow in books.flows.items():
        of = dump[f"f:{id}"]
        assert number(of, "reserved") == books.reserved_of(id)
        assert number(of, "used") == flow.used
        assert number(of, "estimated") == flow.estimated


def the_ledger_runs(dump: Dump, books: Books) -> None:
    rows = dump.get("o:acme:led", [])
    assert len(rows) == len(books.ledger)
    if rows:
        told = rows[-1][1]
        row = (told["call"], told["outcome"], *(int(told[n]) for n in LEDGER_SUMS))
        assert row == books.ledger[-1]


LEDGER_SUMS = ("characters", "used", "estimated")


def calls_are_where_they_should_be(dump: Dump, books: Books) -> None:
    """Ready, or with a worker, and in flight; or lost."""
    assert dump.get("ready:acme", []) == books.ready
    assert {key[2:] for key in dump if key.startswith("c:")} == set(books.calls)
    for id, call in books.calls.items():
        fields = dump[f"c:{id}"]
        assert fields["state"] == call.state
        if call.state == "running":
            cancelled = all(books.jobs[job].cancelled for job in call.needs)
            assert ("cancel" in fields) == cancelled, id
    for key, members in dump.items():
        if key.startswith("wc:"):
            assert members == sorted(books.running(key[3:]))
    with_workers = sum(len(dump.get(f"wc:{name}", [])) for name in books.workers)
    flight = [id for lane in books.lanes for id in dump.get(f"l:{lane}:flight", {})]
    assert sorted(flight) == sorted(call.id for call in books.live())
    assert len(flight) == len(books.ready) + with_workers
    lost = {call.id for call in books.calls.values() if call.state == "lost"}
    assert set(dump.get("o:acme:lost", {})) == lost


def jobs_are_in_one_place(dump: Dump, books: Books) -> None:
    places: dict[str, list[str]] = {id: [] for id in books.jobs}
    for flow in books.flows.values():
        assert line(dump, flow.id) == flow.line
        for id in flow.line:
            places[id].append("queue")
        for id in dump.get(f"f:{flow.id}:later", {}):
            places[id].append("later")
        for id in dump.get(f"f:{flow.id}:parked", {}):
            places[id].append("parked")
        for _, row in dump.get(f"f:{flow.id}:out", []):
            if "job" in row:
                places[row["job"]].append(row["state"])
    for call in books.live():
        for job in books.jobs_under(call):
            places[job.id].append(call.id)
    for id, job in books.jobs.items():
        assert places[id] == ([] if job.place == "gone" else [job.place]), id
        job_is_as_booked(dump, books, job)


def job_is_as_booked(dump: Dump, books: Books, job: JobBook) -> None:
    fields = dump.get(f"j:{job.id}")
    if job.place == "gone":
        assert fields is None
        assert f"y:{job.id}" not in dump
        return
    assert fields is not None
    ended = job.place in ENDED
    call = books.calls.get(job.place)
    if call is not None:
        assert fields["state"] == ("released" if call.state == "ready" else "running")
    else:
        assert fields["state"] == (job.place if ended else "queued")
    lost = books.calls.get(job.call) if job.waits else None
    if lost is not None:
        assert lost.state == "lost"
        assert fields.get("call") == job.call
    elif not job.waits:
        assert fields.get("call") == (call.id if call else None)
    for name in ("attempts", "failures", "crashed", "refused", "unsent", "deadline"):
        assert number(fields, name) == getattr(job, name), (job.id, name)
    assert fields["entry"] == job.entry
    assert fields.get("errors", "") == "\n".join(job.errors)
    assert fields.get("on_unknown", "retry") == job.on_unknown
    assert fields.get("replays", "") == job.replays
    assert ("cancel" in fields) == job.cancelled
    assert not (job.cancelled and job.waits)
    assert dump.get(f"y:{job.id}") == (None if ended else job.payload.encode())


def the_org_knows_who_is_parked(dump: Dump) -> None:
    """Of each flow with parked jobs, what the least of them needs."""
    least = {
        key.split(":")[1]: min(needs.values())
        for key, needs in dump.items()
        if key.startswith("f:") and key.endswith(":parked")
    }
    assert dump.get("o:acme:parked", {}) == least


def what_is_passed_over_has_ended(dump: Dump, books: Books) -> None:
    """Entries in line of jobs that are not queued; those of queued ones say what they ask."""
    for flow in books.flows.values():
        entries = dump.get(f"f:{flow.id}:q", [])
        assert len({job_of(entry) for entry in entries}) == len(entries)
        for entry in entries:
            job = books.jobs[job_of(entry)]
            if job.place == "queue":
                assert entry == job.entry
            else:
                assert job.place in {*ENDED, "gone"}, job


def the_dead_are_kept(dump: Dump, books: Books) -> None:
    """And deadlines are, of those that have not ended."""
    assert dump.get("o:acme:dead", {}) == {id: one.at for id, one in books.dead.items()}
    assert {key[2:] for key in dump if key.startswith("x:")} == set(books.dead)
    for id, letter in books.dead.items():
        assert dump[f"x:{id}"] == letter.fields
    assert dump.get("until", {}) == books.until


def counts_are_right(dump: Dump, books: Books) -> None:
    for id, flow in books.flows.items():
        of = dump[f"f:{id}"]
        assert number(of, "open") == books.open(id)
        for name in COUNTS:
            assert number(of, name) == getattr(flow, name), name
    free = sum(number(dump[f"w:{name}"], "free") for name in books.workers)
    assert number(dump["m"], "free:acme") == free
    for lane in books.lanes.values():
        assert number(dump[f"l:{lane.id}"], "trouble") == lane.trouble


COUNTS = (
    *("held", "succeeded", "failed", "cancelled", "expired"),
    *("calls", "refusals", "pack"),
)


def flight_of_every_unit_is_counted(dump: Dump, books: Books, lane: LaneBook) -> None:
    fields = dump[f"l:{lane.id}"]
    flight = books.flight(lane.id)
    limited = {cap.unit for cap in lane.caps} - {"calls"}
    assert {name[7:] for name in fields if name.startswith("flight:")} <= limited
    for unit in limited:
        assert number(fields, f"flight:{unit}") == sum(call.units[unit] for call in flight)


def windows_tell_no_less_than_the_provider_may_have_counted(
    dump: Dump, books: Books, lane: LaneBook, now: int, true_ms: float
) -> None:
    for one in taken(dump, books, lane, now):
        cap = one.cap
        inside = lane.most_inside(cap, true_ms)
        assert one.used(now) >= min(cap.amount, inside), (one, inside, dump[f"l:{lane.id}"])
        ring = dump.get(f"l:{lane.id}:d:{cap.unit}:{cap.window_ms}")
        if ring is not None:
            total = number(dump[f"l:{lane.id}"], f"total:{cap.unit}:{cap.window_ms}")
            assert total == sum(counters(ring))


# ------------------------------------------------------------------ turns


def keep_turns(dump: Dump, books: Books) -> None:
    """Who came into line takes turns, who was found with nothing in line does not, nor does who
    waits a moment to fill its pack."""
    for flow in books.flows.values():
        turns = books.lanes[flow.lane].turns
        assert flow.paused == ("paused" in dump.get(f"f:{flow.id}", {})), flow.id
        there = flow.id in dump.get(f"l:{flow.lane}:f:{flow.klass}:{flow.user}", {})
        assert not (there and flow.paused), flow.id
        if not there:
            assert flow.paused or flow.away or not flow.line or flow.id in dump.get("soon", {}), (
                flow.id
            )
            turns.leave(flow.turn)
    for lane in books.lanes.values():
        came = [
            flow.turn
            for flow in own(books, lane)
            if flow.id in dump.get(f"l:{lane.id}:f:{flow.klass}:{flow.user}", {})
            and not lane.turns.takes(flow.turn)
        ]
        order = came if len(came) == 1 else _order_of(dump, lane, lane.turns, came)
        assert order is not None, (came, lane.turns)
        for turn in order:
            lane.turns.enter(turn)
    for lane in books.lanes.values():
        _classes_linger(dump, lane)


def _order_of(dump: Dump, lane: LaneBook, turns: Turns, came: list[Turn]) -> list[Turn] | None:
    """In what order those came that came with one script: so that each has the tag that it has now.
    None: there is no such order."""
    if not came:
        return []
    for turn in came:
        then = copy.deepcopy(turns)
        then.enter(turn)
        keys = ("c", f"u:{turn.klass}", f"f:{turn.klass}:{turn.user}")
        if all(
            dump.get(f"l:{lane.id}:{key}", {}).get(member) == level.tags[member]
            for key, (level, member) in zip(keys, _places(then, turn), strict=True)
        ):
            after = _order_of(dump, lane, then, [one for one in came if one != turn])
            if after is not None:
                return [turn, *after]
    return None


def _places(turns: Turns, turn: Turn) -> list[tuple[Level, str]]:
    """Where the class, the user and the flow stand."""
    flows = turns.flows.setdefault((turn.klass, turn.user), Level())
    return [
        (turns.classes, turn.klass),
        (turns.users[turn.klass], turn.user),
        (flows, turn.flow),
    ]


def _classes_linger(dump: Dump, lane: LaneBook) -> None:
    """A class whose last job rode along is found to be empty at its next turn."""
    classes, there = lane.turns.classes, dump.get(f"l:{lane.id}:c", {})
    for klass, users in lane.turns.users.items():
        if klass in classes.resting and klass in there:
            classes.tags[klass] = classes.resting.pop(klass)
        elif klass in classes.tags and klass not in there and not users.tags:
            classes.rest(klass)


def turns_are_taken_as_by_the_reference(dump: Dump, books: Books, lane: LaneBook) -> None:
    turns = lane.turns
    _level_is(dump, f"l:{lane.id}:c", turns.classes)
    for klass in Class:
        users = turns.users[klass]
        _level_is(dump, f"l:{lane.id}:u:{klass}", users)
        for user in _users(books):
            flows = turns.flows.get((klass, user), Level())
            _level_is(dump, f"l:{lane.id}:f:{klass}:{user}", flows)
            assert bool(flows.tags) == (user in users.tags)
        assert klass in turns.classes.tags or not users.tags


def _users(books: Books) -> set[str]:
    return {flow.user for flow in books.flows.values()}


def _level_is(dump: Dump, key: str, level: Level) -> None:
    assert dump.get(key, {}) == level.tags, (key, dump.get(key), level)
    idle = dump.get(f"{key}:idle", {})
    assert level.tags or not idle, key
    for member in idle.keys() | level.resting.keys():
        stood = idle.get(member), level.resting.get(member)
        passed = all(tag is None or tag <= level.v for tag in stood)
        assert stood[0] == stood[1] or passed, (key, idle, level)


def own(books: Books, lane: LaneBook) -> list[FlowBook]:
    return [flow for flow in books.flows.values() if flow.lane == lane.id]

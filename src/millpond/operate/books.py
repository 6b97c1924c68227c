"""An org's books: what is left of its quota, the rows of its ledger and whether they agree."""

import asyncio
from dataclasses import dataclass, field

import orjson

from millpond.standing.moments import Clock, Told
from millpond.standing.standing import org_standing
from millpond.store.store import Row, Store

#: Rows that are read in one go while the ledger is walked.
_PAGE = 1_000
_MISTAKES_MOST = 20
_TRIES = 10


async def quota(store: Store, org: str) -> Told:
    """What an org may still use."""
    unknown = await store.unknown(org)
    return {
        **org_standing(await store.org(org), org),
        "unknown_calls": len(unknown),
        "weights": await store.weights(org),
    }


async def unknown(store: Store, org: str) -> list[Told]:
    """Calls of unknown outcome, with the characters that are kept for each."""
    kept = await store.unknown(org)
    return [{"call": call, "characters": kept[call]} for call in sorted(kept, key=_number)]


def _number(call: str) -> tuple[int, str]:
    return len(call), call


async def ledger(store: Store, org: str, *, most: int, clock: Clock) -> list[Told]:
    """The newest rows of the ledger, the oldest of them first."""
    rows = await store.records(org, "ledger", most=most)
    return [_ledger_row(row, clock) for row in reversed(rows)]


def _ledger_row(row: Row, clock: Clock) -> Told:
    fields = row.fields
    told: Told = {
        "at": clock.at(int(fields["at"])),
        "outcome": fields["outcome"],
        "characters": int(fields["characters"]),
        "used": int(fields["used"]),
        "estimated": int(fields["estimated"]),
    }
    return told | {name: fields[name] for name in ("call", "lane", "by", "why") if fields.get(name)}


async def events(store: Store, org: str, *, most: int, clock: Clock) -> list[Told]:
    """What was worth telling: thresholds of the quota as they were crossed, changes of the key."""
    rows = await store.records(org, "events", most=most)
    return [
        {
            "at": clock.at(int(row.fields["at"])),
            "event": row.fields["event"],
            **{
                name: int(row.fields[name])
                for name in ("percent", "used", "estimated", "quota")
                if name in row.fields
            },
            **{
                name: row.fields[name]
                for name in ("change", "by", "fingerprint", "master")
                if name in row.fields
            },
        }
        for row in reversed(rows)
    ]


async def audit(store: Store, org: str, *, most: int, clock: Clock) -> list[Told]:
    """Who has changed what."""
    rows = await store.records(org, "audit", most=most)
    return [
        {
            "at": clock.at(int(row.fields["at"])),
            "by": row.fields["by"],
            "version": int(row.fields["version"]),
            "changes": [
                {"what": what, "id": id, "field": name, "from": old, "to": new}
                for what, id, name, old, new in orjson.loads(row.fields["changes"])
            ],
        }
        for row in reversed(rows)
    ]


@dataclass(slots=True)
class Verification:
    """A walk along the ledger: each row's sums must follow from those of the row before it.

    Known, settled, entered and corrected characters are used; those of an unknown call are kept as
    estimated until it is known or put right. `complete`: the first row is the first there ever was,
    so that every sum was checked; else older ones have left.
    """

    rows: int = 0
    complete: bool = True
    unchecked: int = 0
    mistakes: list[str] = field(default_factory=list)
    used: int = 0
    estimated: int = 0
    _kept: dict[str, int] = field(default_factory=dict)

    def row(self, row: Row) -> None:
        """The next row, from the oldest on."""
        used, estimated = int(row.fields["used"]), int(row.fields["estimated"])
        rests_on_what_left = self._rests_on_what_left(row, estimated)
        more_used, more_estimated = self._changes(row)
        if not self.rows and (used, estimated) != (more_used, more_estimated):
            self.complete = False
        elif self.rows:
            self._compare(row, "used", self.used + more_used, used)
            if more_estimated is None or rests_on_what_left:
                self.unchecked += 1
            else:
                self._compare(row, "estimated", self.estimated + more_estimated, estimated)
        self.rows += 1
        self.used, self.estimated = used, estimated

    def _rests_on_what_left(self, row: Row, estimated: int) -> bool:
        """A call that was lost before the first row is known now: what was kept for it is not."""
        known = row.fields["outcome"] == "known" and row.fields.get("call") not in self._kept
        return not self.complete and known and estimated < self.estimated

    def _compare(self, row: Row, what: str, expected: int, found: int) -> None:
        if expected == found:
            return
        self.mistakes.append(
            f"row {row.id} ({row.fields['outcome']}, {row.fields['characters']} characters): "
            f"{what} is {found}, and should be {expected}"
        )

    def _changes(self, row: Row) -> tuple[int, int | None]:
        """By how much a row changes used and estimated characters; None: the row that it rests on
        has left the ledger."""
        fields = row.fields
        outcome, characters, call = fields["outcome"], int(fields["characters"]), fields.get("call")
        match outcome:
            case "unknown":
                # A call that was lost may be told of once more: it is kept for all the same.
                if call in self._kept:
                    return 0, 0
                self._kept[call or ""] = characters
                return 0, characters
            case "known":
                # One that nobody had heard of before changes nothing that is kept.
                return characters, -self._kept.pop(call or "", 0)
            case "settled":
                kept = self._kept.pop(call or "", None)
                return characters, None if kept is None else -kept
            case "corrected":
                self._kept.clear()
                return characters, -self.estimated
            case _:
                return characters, 0

    def told(self, org_used: int, org_estimated: int) -> Told:
        agrees = (self.used, self.estimated) == (org_used, org_estimated) or not self.rows
        return {
            "rows": self.rows,
            "complete": self.complete,
            "unchecked": self.unchecked,
            "mistakes": self.mistakes[:_MISTAKES_MOST],
            "mistakes_in_all": len(self.mistakes),
            "used": org_used,
            "estimated": org_estimated,
            "agrees_with_org": agrees,
            "right": agrees and not self.mistakes,
        }


async def verify(store: Store, org: str) -> Told:
    """Walk the ledger from its oldest row to the newest one, and compare that with the org."""
    walk, last = Verification(), ""
    for _ in range(_TRIES):
        while rows := await store.ledger_after(org, last, most=_PAGE):
            for row in rows:
                walk.row(row)
            last = rows[-1].id
        seen = await store.org(org)
        # Rows that came in between would make a difference that is none.
        if not await store.ledger_after(org, last, most=1):
            break
        await asyncio.sleep(0)
    return walk.told(seen.used, seen.estimated)

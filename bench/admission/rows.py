"""The table: each row is something that is run, and what is wanted of it."""

from bench.admission import fair, flat, guards, stranger, texts, two
from bench.admission.chat import ChatRun
from bench.admission.figures import NONE, Row, at_least, at_most
from bench.admission.files import FileRun

CLOSE = {"refused": NONE, "sustained_of_ideal": at_least(0.98), "drain_of_ideal": at_most(1.03)}
GUARDED = {"refused": NONE, "sustained_of_bound": at_least(0.90), "duplicates": NONE}

#: Microseconds of the server; `off` is how far any size is from the smallest.
FLAT = {
    "alone_us_most": at_most(80),
    "tens_us_most": at_most(50),
    "alone_us_off": at_most(0.15),
    "tens_us_off": at_most(0.15),
    "commands_off": at_most(0.15),
    "whole_cpu_us_off": at_most(0.15),
}

_IN = ("--delay-in", "uniform:0,0.6")
_BOTH = ("--delay-in", "lognormal:0.02,1.2", "--delay-out", "lognormal:0.02,1.2")
_FAR = ("--delay-in", "lognormal:0.03,1", "--delay-out", "lognormal:0.03,1")
_CREDIT = ("--service-time",)

ROWS = [
    Row("scaled", "60/6s, no jitter", FileRun(300, "60/6s"), CLOSE, 35),
    Row("scaled-in", "60/6s, U(0,0.6) in", FileRun(300, "60/6s", _IN), CLOSE, 35),
    Row(
        "scaled-both",
        "60/6s, lognormal(0.02,1.2) both ways",
        FileRun(300, "60/6s", _BOTH),
        CLOSE,
        35,
    ),
    Row(
        "credit",
        "60/6s, no jitter, service time",
        FileRun(300, "60/6s", options=_CREDIT),
        CLOSE,
        35,
    ),
    Row(
        "credit-in",
        "60/6s, U(0,0.6) in, service time",
        FileRun(300, "60/6s", _IN, _CREDIT),
        CLOSE,
        35,
    ),
    Row(
        "credit-both",
        "60/6s, lognormal(0.02,1.2) both ways, service time",
        FileRun(300, "60/6s", _BOTH, _CREDIT),
        CLOSE,
        35,
    ),
    Row(
        "500",
        "500/10s, 3,000 calls, U(0,0.5) in",
        FileRun(3_000, "500/10s", ("--delay-in", "uniform:0,0.5"), ("--concurrency", "500")),
        CLOSE,
        75,
    ),
    Row(
        "two",
        "60/6s and 200/60s, 400 calls",
        two.two_windows,
        {"refused": NONE, "drain_of_ideal": at_most(1.03)},
        90,
    ),
    Row(
        "tokens",
        "60 calls and 20,000 tokens/6s, OpenAI's shape, at most 480 tokens an answer",
        FileRun(
            400,
            "60/6s,20000tokens/6s",
            ("--tokens", "uniform:250,450"),
            ("--max-tokens", "480"),
            openai=True,
            words=(30, 50),
            by="20000tokens/6s",
        ),
        {"refused": NONE, "sustained": at_least(0.90)},
        65,
    ),
    Row(
        "clock-3s",
        "the server's clock 3 s on, later back",
        guards.clock_stepped(3_000),
        GUARDED,
        80,
    ),
    Row(
        "clock-2h",
        "the server's clock 2 h on, later back",
        guards.clock_stepped(7_200_000),
        GUARDED,
        80,
    ),
    Row("killed", "the server killed and started again", guards.server_killed, GUARDED, 80),
    Row("deleted", "all that is known of the limits deleted", guards.lanes_deleted, GUARDED, 80),
    Row(
        "weights",
        "8 users with weights 1 to 8, 600 calls, 60/6s",
        fair.by_weight,
        {"refused": NONE, "share_off": at_most(0.02)},
        75,
    ),
    Row(
        "one",
        "a user with one job comes beside one with a million: calls that go before it",
        flat.beside_a_million,
        {"before": at_most(1)},
        60,
        real=True,
        alone=True,
    ),
    Row(
        "chat",
        "60/6s, 0.2 s calls, a chat at a moment of each second beside bulk",
        ChatRun(6, "0.2"),
        {"refused": NONE, "chats": at_least(60), "wait_p95_s": at_most(0.2), "lost": at_most(0.03)},
        90,
    ),
    Row(
        "chat-real",
        "60/60s, 2 s calls, 6 chats a minute beside bulk",
        ChatRun(60, "2"),
        {"refused": NONE, "chats": at_least(60), "wait_p95_s": at_most(2), "lost": at_most(0.03)},
        790,
        real=True,
    ),
    Row(
        "stranger",
        "60/6s, 900 calls; a stranger takes a fifth of the account for two windows",
        stranger.stranger_comes,
        {},
        110,
    ),
    Row(
        "real",
        "60/60s, 2 s calls, lognormal(0.03,1) both ways",
        FileRun(300, "60/60s", _FAR, service="2", seconds=600),
        {**CLOSE, "sustained": at_least(0.94)},
        280,
        real=True,
    ),
    Row(
        "real-credit",
        "the same with service time",
        FileRun(300, "60/60s", _FAR, _CREDIT, service="2", seconds=600),
        {**CLOSE, "sustained": at_least(0.98)},
        280,
        real=True,
    ),
    Row(
        "streams",
        "60/60s, headers after 0.2 s, then 20 s of stream",
        FileRun(300, "60/60s", ("--stream-time", "20"), service="0.2", seconds=600),
        {"refused": NONE, "sustained": at_least(0.95)},
        280,
        real=True,
    ),
    Row(
        "texts",
        "150,000 short texts to embed, 500 calls a minute, packs of 96, 1 s a call",
        texts.three_windows,
        {"refused": NONE, "texts_a_minute": at_least(45_000), "latency_s": at_most(2)},
        210,
        real=True,
        alone=True,
    ),
    Row(
        "flat-user",
        "release with 1,000 to a million jobs of one user",
        flat.one_user,
        FLAT,
        90,
        real=True,
        alone=True,
    ),
    Row(
        "flat-users",
        "the same jobs of 200 to 200,000 users",
        flat.many_users,
        FLAT,
        180,
        real=True,
        alone=True,
    ),
    Row(
        "flat-accounts",
        "release with 1 to 100,000 accounts, ten of them active",
        flat.many_accounts,
        FLAT,
        90,
        real=True,
        alone=True,
    ),
    Row(
        "flat-day",
        "release under a day's limit too",
        flat.with_a_day,
        {"alone_us": at_most(80), "tens_us": at_most(50)},
        20,
        real=True,
        alone=True,
    ),
    Row(
        "packs",
        "release of packs of 96",
        flat.packed,
        {"job_us": at_most(4)},
        20,
        real=True,
        alone=True,
    ),
]

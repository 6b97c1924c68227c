"""A provider with books of its own: the independent judge of our limiter.

It runs as its own process and imports nothing from the rest of millpond: it parses limits,
counts calls and measures a run by itself, so that a mistake of ours cannot be in both.

One call:

    body read ── delay in ──▶ arrival ── windows ── quota ── fault? ── valid? ── service ── delay out ──▶ reply
    received_ms               at_ms      429        402      weather   400       settle     headers_ms

    commands.py   the options, and the subcommand `report`
    server.py     HTTP, the process, which path leads where;  sending.py: how a reply goes out
    provider.py   the path above, from arrival to what is to be answered
    books.py      who was admitted when, and what was charged;  windows.py: ways to count
    weather.py    delays and service times;  faults.py: what goes wrong
    wire.py       what the wires have in common:  cohere.py, openai.py
    author.py     the words and numbers in the answers;  classify.py: which label a text gets
    journal.py    one line a call
    report.py     what the journal says about the run
    limits.py, chances.py, values.py   how options are spelt
"""  # noqa: E501 (the picture is one line)

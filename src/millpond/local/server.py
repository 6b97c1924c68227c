"""From a model's file to a server that answers, and its end.

signals held back ── load ──▶ listening ── one request ──▶ ready file ── SIGTERM, SIGINT ──▶ 0
                      NoLocalModel                    NoLocalModel
"""

import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

from millpond.local.weights import HOW, NoLocalModel

HOST = "127.0.0.1"
#: Requests that are worked on at once; what comes beside them waits. Two make somewhat more tokens
#: in all than one; more than two make no more.
SLOTS = 2
#: Most tokens of a request and its answer.
CONTEXT_TOKENS = 2_048
#: Tokens per step. Embedding keeps a number for each word of the vocabulary and each token of a
#: step: with 512 it takes 460 MB instead of 360.
_STEP_TOKENS = 256
_THREADS_MOST = 4
_ANSWER_S = 120
_STOPS = (signal.SIGTERM, signal.SIGINT)
_LOG_ERRORS = 1


def serve(model: Path, *, port: int, ready_file: Path | None, threads: int | None) -> NoReturn:
    """Serve a model until SIGTERM or SIGINT, which end the process with code 0.

    Raises NoLocalModel if it cannot be loaded or does not answer.
    """
    # The server's own threads inherit this, so a signal always waits for us. While the model
    # loads nothing of Python runs; a signal that comes then counts at its end.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    # The name keeps the server alive.
    server = _load(model, port, threads or _threads())
    url = f"{server.listening_address}/v1"
    _must_answer(url)
    if ready_file is not None:
        _write_whole(ready_file, url)
    signal.sigwait(_STOPS)
    # The server's destructor waits for requests that run. There is nothing to be saved.
    os._exit(0)


def _load(model: Path, port: int, threads: int) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise NoLocalModel(f"xllamacpp cannot be imported ({error}). {HOW}") from None
    try:
        return xllamacpp.Server(_params(xllamacpp, model, port, threads))
    except RuntimeError:
        raise NoLocalModel(
            f"{model} cannot be served on port {port}; the lines above say why"
        ) from None


def _params(xllamacpp: Any, model: Path, port: int, threads: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model.stem}
    params.offline = True
    params.hostnames = [HOST]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.fit_params = False
    params.n_ubatch = _STEP_TOKENS
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # Chats are answered all the same. The last token has seen the whole text, so its vector stands
    # for it. The mean of all found fewer pairs in a trial (5 of 12, against 10), and with it a text
    # longer than a step is answered with 500.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    # No memory beside the context, by default up to 8 GB; _must_answer warms up.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.warmup = False
    # Nothing for browsers, nothing that shows requests.
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = f"http://{HOST}"
    params.verbosity = _LOG_ERRORS
    return params


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _THREADS_MOST)


def _must_answer(url: str) -> None:
    """Ask for one token. (http.client, since it heeds no proxy of the environment.)"""
    address = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(address, timeout=_ANSWER_S)
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        text = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoLocalModel(f"the model does not answer: {error}") from None
    finally:
        connection.close()
    if reply.status != http.HTTPStatus.OK:
        raise NoLocalModel(f"the model cannot chat: {text[:300].decode(errors='replace')}")


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing: who waits for the file never reads half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)

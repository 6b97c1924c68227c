"""What nobody should send. Each is answered by one problem that names what is wrong, or cut off:
never a 5xx, never a wait without an end."""

import json
import re

import pytest
from structlog.testing import capture_logs

from flow.test_http_core_toy import toy

KEY = b"Authorization: Bearer member\r\n"
JSON = b"Content-Type: application/json\r\n"
DUCK = b'{"kind":"duck","name":"d"}'


def request(
    body: bytes = b"",
    *,
    line: bytes = b"POST /v1/birds HTTP/1.1",
    headers: bytes = JSON,
    length: int | None = None,
) -> bytes:
    """Bytes of a request that asks for its connection to be closed."""
    size = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return line + b"\r\nHost: a\r\nConnection: close\r\n" + KEY + headers + size + b"\r\n" + body


def field(name: bytes, value: bytes) -> bytes:
    """A duck with one more field."""
    return b'{"kind":"duck","name":"d","%s":%s}' % (name, value)


def nested(depth: int, left: bytes = b"[", right: bytes = b"]") -> bytes:
    return left * depth + right * depth


def problem_of(raw: bytes) -> tuple[int, list[str]]:
    """Status and pointers of the only reply there is; each refusal is problem+json."""
    assert len(re.findall(rb"HTTP/\d\.\d \d{3} ", raw)) == 1, raw[:2_000]
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head[9:12])
    assert b"application/problem+json" in head, raw[:2_000]
    assert re.search(rb"x-request-id: ", head, re.IGNORECASE)
    told = json.loads(body)
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    return status, [error["pointer"] for error in told.get("errors", [])]


# ---- JSON: (body, the places that are named)

SURROGATE = rb'"a\ud800b"'
BODIES: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", [""]),
    "blank": (b" \r\n\t ", [""]),
    "null": (b"null", [""]),
    "a number": (b"1", [""]),
    "a string": (b'"duck"', [""]),
    "true": (b"true", [""]),
    "a list": (b"[]", [""]),
    "a list of one": (b"[" + DUCK + b"]", [""]),
    "cut off": (DUCK[:-1], [""]),
    "cut off in a string": (DUCK[:-4], [""]),
    "cut off in an escape": (b'{"kind":"\\u00', [""]),
    "cut off after a colon": (b'{"kind":', [""]),
    "a brace": (b"{", [""]),
    "a closing brace": (b"}", [""]),
    "no quotes": (b"{kind:duck}", [""]),
    "single quotes": (b"{'kind':'duck'}", [""]),
    "a comma too many": (b'{"kind":"duck","name":"d",}', [""]),
    "a comma first": (b'{,"kind":"duck"}', [""]),
    "no comma": (b'{"kind":"duck" "name":"d"}', [""]),
    "two documents": (DUCK + DUCK, [""]),
    "something after": (DUCK + b"x", [""]),
    "lines": (DUCK + b"\n" + DUCK, [""]),
    "a comment": (b"/* */" + DUCK, [""]),
    "a line comment": (DUCK + b"// a", [""]),
    "hash comment": (b"# a\n" + DUCK, [""]),
    "Python": (b"{'kind': None}", [""]),
    "undefined": (field(b"age", b"undefined"), [""]),
    "True": (field(b"age", b"True"), [""]),
    "a leading zero": (field(b"age", b"01"), [""]),
    "a plus": (field(b"age", b"+1"), [""]),
    "hexadecimal": (field(b"age", b"0x1"), [""]),
    "a bare point": (field(b"weight", b".5"), [""]),
    "a point at the end": (field(b"weight", b"5."), [""]),
    "an exponent without digits": (field(b"weight", b"1e"), [""]),
    "underscores": (field(b"age", b"1_0"), [""]),
    "a control character": (field(b"note", b'"a\x01b"'), [""]),
    "a tab in a string": (field(b"note", b'"a\tb"'), [""]),
    "a line end in a string": (field(b"note", b'"a\nb"'), [""]),
    "a raw NUL in a string": (field(b"note", b'"a\x00b"'), [""]),
    "NUL behind": (DUCK + b"\x00", [""]),
    "NUL before": (b"\x00" + DUCK, [""]),
    "an unknown escape": (field(b"note", rb'"\x41"'), [""]),
    "a bad hex escape": (field(b"note", rb'"\u00zz"'), [""]),
    "XML": (b"<bird/>", [""]),
    "a form": (b"kind=duck&name=d", [""]),
    # encodings
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + DUCK, [""]),
    "UTF-16": (DUCK.decode().encode("utf-16"), [""]),
    "UTF-16 little": (DUCK.decode().encode("utf-16-le"), [""]),
    "UTF-16 big": (DUCK.decode().encode("utf-16-be"), [""]),
    "UTF-32": (DUCK.decode().encode("utf-32"), [""]),
    "Latin-1": (field(b"note", b'"\xe9"'), [""]),
    "overlong": (field(b"note", b'"\xc0\xaf"'), [""]),
    "an encoded surrogate": (field(b"note", b'"\xed\xa0\x80"'), [""]),
    "beyond Unicode": (field(b"note", b'"\xf5\x80\x80\x80"'), [""]),
    "a cut sequence": (b'{"kind":"duck\xe2\x82', [""]),
    "UTF-7": (b"+AHs-", [""]),
    "gzip without saying so": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", [""]),
    # surrogates
    "half a pair": (field(b"note", SURROGATE), ["/note"]),
    "the other half": (field(b"note", rb'"\udc00"'), ["/note"]),
    "the halves exchanged": (field(b"note", rb'"\udc00\ud800"'), ["/note"]),
    "half a pair in a name": (rb'{"kind":"duck","name":"d","\ud800":1}', ["/?"]),
    "half a pair in metadata": (field(b"metadata", rb'{"a":["\ud800"]}'), ["/metadata/a/0"]),
    # numbers
    "NaN": (field(b"weight", b"NaN"), ["/weight"]),
    "Infinity": (field(b"weight", b"Infinity"), ["/weight"]),
    "minus Infinity": (field(b"weight", b"-Infinity"), ["/weight"]),
    "1e400": (field(b"weight", b"1e400"), ["/weight"]),
    "minus 1e400": (field(b"weight", b"-1e400"), ["/weight"]),
    "NaN in metadata": (field(b"metadata", b'{"a":{"b":NaN}}'), ["/metadata/a/b"]),
    "1e999 in metadata": (field(b"metadata", b'{"a":[0,1e999]}'), ["/metadata/a/1"]),
    "Infinity in a list in metadata": (field(b"metadata", b'{"a":[Infinity]}'), ["/metadata/a/0"]),
    "only NaN": (b"NaN", [""]),
    "65 bits": (field(b"age", b"18446744073709551616"), ["/age"]),
    "65 bits in metadata": (field(b"metadata", b'{"a":18446744073709551616}'), ["/metadata/a"]),
    "64 bits and a sign": (field(b"metadata", b'{"a":-9223372036854775809}'), ["/metadata/a"]),
    "5,000 digits": (field(b"age", b"9" * 5_000), ["/age"]),
    "5,000 digits in metadata": (field(b"metadata", b'{"a":%s}' % (b"9" * 5_000)), ["/metadata/a"]),
    "an integer with a point": (field(b"age", b"1.5"), ["/age"]),
    "an integer with an exponent": (field(b"age", b"1e2"), ["/age"]),
    "too large": (field(b"age", b"201"), ["/age"]),
    "too small": (field(b"age", b"-1"), ["/age"]),
    # names twice
    "a name twice": (b'{"kind":"duck","name":"a","name":"b"}', ["/name"]),
    "the tag twice": (b'{"kind":"duck","kind":"goose","name":"a"}', ["/kind"]),
    "a name twice in metadata": (field(b"metadata", b'{"a":1,"a":1}'), ["/metadata/a"]),
    "a name twice in a list": (field(b"metadata", b'{"l":[{"b":1,"b":2}]}'), ["/metadata/l/0/b"]),
    "a name twice by an escape": (rb'{"kind":"duck","name":"a","n\u0061me":"b"}', ["/name"]),
    "an empty name twice": (field(b"metadata", b'{"":1,"":2}'), ["/metadata/"]),
    "two names twice": (b'{"kind":"duck","kind":"duck","name":"a","name":"b"}', ["/kind", "/name"]),
    "a name twice, then cut off": (b'{"kind":"duck","a":{"b":1,"b":2}', [""]),
    "a name twice, and too deep": (
        b'{"kind":"duck","name":"a","name":"b","note":' + nested(40) + b"}",
        ["/name", "/note" + "/0" * 31],
    ),
    # depth
    "33 deep": (nested(33), ["/0" * 32]),
    "metadata 33 deep": (field(b"metadata", b'{"a":%s}' % nested(31)), ["/metadata/a" + "/0" * 30]),
    "objects 40 deep": (b'{"a":' * 40 + b"1" + b"}" * 40, ["/a" * 32]),
    "300 deep": (nested(300), ["/0" * 32]),
    "10,000 deep": (nested(10_000), [""]),
    "30,000 open brackets": (b"[" * 30_000, [""]),
    "12,000 open objects": (b'{"a":' * 12_000, [""]),
    # fields
    "no fields": (b"{}", ["/kind"]),
    "an unknown tag": (b'{"kind":"swan"}', ["/kind"]),
    "a tag of another type": (b'{"kind":1}', ["/kind"]),
    "a tag that is null": (b'{"kind":null}', ["/kind"]),
    "a tag that is a list": (b'{"kind":[]}', ["/kind"]),
    "a field is missing": (b'{"kind":"duck"}', ["/name"]),
    "an unknown field": (field(b"colour2", b"1"), ["/colour2"]),
    "an unknown field of an awkward name": (field(b"a/b~c", b"1"), ["/a~1b~0c"]),
    "fields of an org": (field(b"org", b'"other"'), ["/org"]),
    "dunder": (field(b"__class__", b"{}"), ["/__class__"]),
    "proto": (field(b"__proto__", b'{"admin":true}'), ["/__proto__"]),
    "an unknown field inside": (
        field(b"young", b'[{"kind":"duck","name":"y","x":1}]'),
        ["/young/0/x"],
    ),
    "a number for a text": (b'{"kind":"duck","name":5}', ["/name"]),
    "null for a text": (b'{"kind":"duck","name":null}', ["/name"]),
    "a list for a text": (b'{"kind":"duck","name":["d"]}', ["/name"]),
    "an object for a text": (b'{"kind":"duck","name":{"$ne":1}}', ["/name"]),
    "a text for a number": (field(b"age", b'"5"'), ["/age"]),
    "true for a number": (field(b"age", b"true"), ["/age"]),
    "false for a number": (field(b"weight", b"false"), ["/weight"]),
    "null for a number": (field(b"age", b"null"), ["/age"]),
    "a text for a float": (field(b"weight", b'"NaN"'), ["/weight"]),
    "one for true": (b'{"kind":"goose","honks":1}', ["/honks"]),
    "yes for true": (b'{"kind":"goose","honks":"yes"}', ["/honks"]),
    "a list for an object": (field(b"metadata", b"[]"), ["/metadata"]),
    "a text for an object": (field(b"metadata", b'"{}"'), ["/metadata"]),
    "an object for a list": (field(b"young", b"{}"), ["/young"]),
    "no such colour": (field(b"colour", b'"green"'), ["/colour"]),
    "a colour in capitals": (field(b"colour", b'"RED"'), ["/colour"]),
    "an empty name": (b'{"kind":"duck","name":""}', ["/name"]),
    "a long name": (b'{"kind":"duck","name":"%s"}' % (b"n" * 201), ["/name"]),
    "NUL in a name": (rb'{"kind":"duck","name":"a\u0000"}', ["/name"]),
    "a line end in a name": (rb'{"kind":"duck","name":"a\nb"}', ["/name"]),
    "an escape in a name": (rb'{"kind":"duck","name":"\u001b[2J"}', ["/name"]),
    "DEL in a name": (rb'{"kind":"duck","name":"a\u007f"}', ["/name"]),
    "several at once": (b'{"kind":"duck","name":5,"age":"x","z":1}', ["/name", "/age", "/z"]),
    "a field's name of 20,000": (field(b"x" * 20_000, b"1"), ["/" + "x" * 299 + "…"]),
    "1,000 unknown fields": (
        b'{"kind":"duck","name":"d",%s}' % b",".join(b'"x%d":1' % n for n in range(1_000)),
        [f"/x{n}" for n in range(100)],
    ),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_that_is_no_good_is_refused_by_name(case: str) -> None:
    body, pointers = BODIES[case]
    async with toy() as asked:
        raw = await asked.raw(request(body))
    assert problem_of(raw) == (422, pointers)


# ---- requests: (bytes, statuses that will do)


def chunked(body: bytes, *, headers: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    head = b"POST /v1/birds HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    return head + KEY + JSON + headers + b"\r\n" + body


ONE_CHUNK = b"%x\r\n%s\r\n" % (len(DUCK), DUCK)
TE = b"Transfer-Encoding: "
GET = b"GET /v1/birds/1 HTTP/1.1"

REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    # content type and encoding
    "no content type": (request(DUCK, headers=b""), {415}),
    "an empty content type": (request(DUCK, headers=b"Content-Type:\r\n"), {415}),
    "text": (request(DUCK, headers=b"Content-Type: text/plain\r\n"), {415}),
    "a form": (
        request(DUCK, headers=b"Content-Type: application/x-www-form-urlencoded\r\n"),
        {415},
    ),
    "multipart": (
        request(DUCK, headers=b"Content-Type: multipart/form-data; boundary=a\r\n"),
        {415},
    ),
    "another json": (request(DUCK, headers=b"Content-Type: application/jsonx\r\n"), {415}),
    "problem json": (request(DUCK, headers=b"Content-Type: application/problem+json\r\n"), {415}),
    "no slash": (request(DUCK, headers=b"Content-Type: json\r\n"), {415}),
    "Latin-1": (
        request(DUCK, headers=b"Content-Type: application/json; charset=latin-1\r\n"),
        {415},
    ),
    "UTF-16": (request(DUCK, headers=b"Content-Type: application/json; charset=utf-16\r\n"), {415}),
    "an unknown charset": (
        request(DUCK, headers=b"Content-Type: application/json; charset=\r\n"),
        {415, 201},
    ),
    "two content types": (request(DUCK, headers=JSON + JSON), {415, 400}),
    "gzip": (request(DUCK, headers=JSON + b"Content-Encoding: gzip\r\n"), {415}),
    "deflate": (request(DUCK, headers=JSON + b"Content-Encoding: deflate\r\n"), {415}),
    "br": (request(DUCK, headers=JSON + b"Content-Encoding: br\r\n"), {415}),
    "zstd": (request(DUCK, headers=JSON + b"Content-Encoding: zstd\r\n"), {415}),
    "gzip twice": (request(DUCK, headers=JSON + b"Content-Encoding: gzip, gzip\r\n"), {415}),
    "an unknown encoding": (request(DUCK, headers=JSON + b"Content-Encoding: x\r\n"), {415}),
    # length
    "one byte too many": (request(b" " * 65_537), {413}),
    "a terabyte announced": (request(b"", length=10**12), {413}),
    "a length beyond 64 bits": (request(b"", length=10**30), {400, 413}),
    "a negative length": (request(b"", length=-1), {400}),
    "a length with a plus": (chunked(DUCK, headers=b"Content-Length: +5\r\n"), {400}),
    "a length in hexadecimal": (chunked(DUCK, headers=b"Content-Length: 0x5\r\n"), {400}),
    "a length that is no number": (chunked(DUCK, headers=b"Content-Length: five\r\n"), {400}),
    "an empty length": (chunked(DUCK, headers=b"Content-Length: \r\n"), {400}),
    "a length with an underscore": (chunked(DUCK, headers=b"Content-Length: 2_6\r\n"), {400}),
    "two lengths": (request(DUCK, headers=JSON + b"Content-Length: 5\r\n"), {400}),
    "two lengths in one": (chunked(DUCK, headers=b"Content-Length: 26, 26\r\n"), {400}),
    "no length": (chunked(b"", headers=b""), {422}),
    # transfer encoding
    "length and chunked": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"chunked\r\nContent-Length: 5\r\n"), {400},
    ),
    "chunked and length": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=b"Content-Length: 5\r\n" + TE + b"chunked\r\n"),
        {400},
    ),
    "chunked twice": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"chunked\r\n" + TE + b"chunked\r\n"),
        {400, 422, 201},
    ),
    "chunked, chunked": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"chunked, chunked\r\n"),
        {400},
    ),
    "xchunked": (chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"xchunked\r\n"), {400}),
    "chunked with a tab": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"\x0bchunked\r\n"),
        {400},
    ),
    "identity": (chunked(DUCK, headers=TE + b"identity\r\n"), {400}),
    "gzip, chunked": (
        chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"gzip, chunked\r\n"),
        {400, 415, 201},
    ),
    "chunked, gzip": (chunked(ONE_CHUNK + b"0\r\n\r\n", headers=TE + b"chunked, gzip\r\n"), {400}),
    "an empty transfer encoding": (chunked(DUCK, headers=TE + b"\r\n"), {400, 422}),
    "a space before the colon": (chunked(DUCK, headers=b"Transfer-Encoding : chunked\r\n"), {400}),
    "a chunk's size is no number": (chunked(b"zz\r\n"), {400}),
    "a chunk's size is negative": (chunked(b"-1\r\n"), {400}),
    "a chunk's size has 0x": (chunked(b"0x5\r\nabcde\r\n0\r\n\r\n"), {400}),
    "a chunk's size has an underscore": (chunked(b"1_0\r\n"), {400}),
    "a chunk's size is beyond 64 bits": (chunked(b"f" * 20 + b"\r\n"), {400, 413}),
    "a chunk is huge": (chunked(b"ffffffff\r\n" + b" " * 70_000), {413}),
    "a chunk is longer than it says": (chunked(b"1\r\nabc\r\n0\r\n\r\n"), {400}),
    "a chunk ends in LF": (chunked(b"1\na\n0\n\n"), {400}),
    "many chunks": (chunked((b"400\r\n" + b" " * 1_024 + b"\r\n") * 80), {413}),
    "no last chunk": (chunked(ONE_CHUNK), {408}),
    "a long chunk extension": (chunked(b"1;" + b"a" * 20_000 + b"\r\n"), {400, 413, 422, 408}),
    "HTTP/1.0 and chunked": (
        chunked(ONE_CHUNK + b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), {400, 201, 422},
    ),
    # request line and headers
    "no HTTP": (b"hello\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "SSH": (b"SSH-2.0-OpenSSH\r\n\r\n", {400}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400}),
    "HTTP/3": (b"GET / HTTP/3.0\r\n\r\n", {400}),
    "HTTP/1.11": (b"GET / HTTP/1.11\r\n\r\n", {400}),
    "NUL in the line": (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "a space in the path": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "a long path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {400, 414}),
    "a long header": (request(line=GET, headers=b"X: " + b"a" * 20_000 + b"\r\n"), {400, 431}),
    "a long header name": (request(line=GET, headers=b"a" * 20_000 + b": 1\r\n"), {400, 431}),
    "many headers": (request(line=GET, headers=b"X: 1\r\n" * 200), {400, 431}),
    "NUL in a header": (request(line=GET, headers=b"X: a\x00b\r\n"), {400}),
    "CR in a header": (request(line=GET, headers=b"X: a\rb\r\n"), {400}),
    "a header without a name": (request(line=GET, headers=b": a\r\n"), {400}),
    "a header without a colon": (request(line=GET, headers=b"abc\r\n"), {400}),
    "a folded header": (request(line=GET, headers=b"X: a\r\n b\r\n"), {400}),
    "brackets in a header's name": (request(line=GET, headers=b"X[]: a\r\n"), {400}),
    "a method of its own": (request(line=b"FOO /v1/birds/1 HTTP/1.1"), {400, 405}),
    "a lower case method": (request(line=b"get /v1/birds/1 HTTP/1.1"), {400, 405}),
    "TRACE": (request(line=b"TRACE /v1/birds/1 HTTP/1.1"), {405}),
    "PATCH": (request(line=b"PATCH /v1/birds/1 HTTP/1.1"), {405}),
    "POST where GET is": (request(line=b"POST /v1/birds/1 HTTP/1.1"), {405}),
    "CONNECT": (request(line=b"CONNECT example.com:443 HTTP/1.1"), {400, 404, 405}),
    "OPTIONS of everything": (request(line=b"OPTIONS * HTTP/1.1"), {400, 404}),
    "no path": (request(line=b"GET  HTTP/1.1"), {400}),
    "an absolute URL elsewhere": (request(line=b"GET http://evil.example/x HTTP/1.1"), {400, 404}),
    "a URL that is none": (request(line=b"GET http://[::1 HTTP/1.1"), {400, 404}),
    "dots": (request(line=b"GET /v1/../../etc/passwd HTTP/1.1"), {404}),
    "escaped dots": (request(line=b"GET /v1/%2e%2e/%2e%2e/etc HTTP/1.1"), {404}),
    "two slashes": (request(line=b"GET //v1/birds/1 HTTP/1.1"), {404}),
    "a slash at the end": (request(line=b"GET /v1/birds/ HTTP/1.1"), {404}),
    "a backslash": (request(line=b"GET /v1\\birds HTTP/1.1"), {400, 404}),
    "a bad escape": (request(line=b"GET /v1/birds/%z HTTP/1.1"), {400, 404}),
    "half an escape": (request(line=b"GET /v1/birds/% HTTP/1.1"), {400, 404}),
    "no UTF-8": (request(line=b"GET /v1/birds/%ff%fe HTTP/1.1"), {404}),
    "raw bytes": (request(line=b"GET /v1/birds/\xff HTTP/1.1"), {400, 404}),
    "raw UTF-8": (request(line="GET /v1/birds/é HTTP/1.1".encode()), {400, 404}),
    "NUL in the path": (request(line=b"GET /v1/birds/%00 HTTP/1.1"), {404}),
    "a line end in the path": (request(line=b"GET /v1/birds/a%0d%0ab HTTP/1.1"), {404}),
    "a long parameter": (request(line=b"GET /v1/birds/" + b"a" * 201 + b" HTTP/1.1"), {404}),
    "braces": (request(line=b"GET /v1/birds/{id}/x HTTP/1.1"), {400, 404}),
    "two hosts": (request(line=GET, headers=b"Host: b\r\n"), {400}),
    # keys
    "no key": (request(line=GET).replace(KEY, b""), {401}),
    "a long key": (request(line=GET).replace(b"member", b"m" * 5_000), {401}),
    "a key with a tab": (request(line=GET).replace(b"member", b"mem\tber"), {401}),
    "a key in UTF-8": (request(line=GET).replace(b"member", "ké".encode()), {401}),
    "a key in Latin-1": (request(line=GET).replace(b"member", b"k\xe9"), {401, 400}),
    "two keys": (request(line=GET, headers=KEY), {401, 400}),
    "basic": (request(line=GET).replace(b"Bearer", b"Basic"), {401}),
    # upgrades and expectations
    "a web socket": (
        request(line=GET, headers=b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n").replace(
            b"Connection: close", b"Connection: Upgrade"
        ),
        {400, 426},
    ),
    "h2c": (
        request(line=GET, headers=b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n").replace(
            b"Connection: close", b"Connection: Upgrade, HTTP2-Settings"
        ),
        {400, 426},
    ),
    "an upgrade with a body": (
        request(DUCK, headers=JSON + b"Upgrade: websocket\r\n").replace(
            b"Connection: close", b"Connection: Upgrade"
        ),
        {400, 426},
    ),
    "an upgrade of a path that is not there": (
        request(line=b"GET /x HTTP/1.1", headers=b"Upgrade: websocket\r\n").replace(
            b"Connection: close", b"Connection: Upgrade"
        ),
        {400, 426, 404},
    ),
    "Upgrade alone": (request(line=GET, headers=b"Upgrade: websocket\r\n"), {400, 426}),
    "another expectation": (request(DUCK, headers=JSON + b"Expect: 200-ok\r\n"), {417}),
    "an expectation of a path that is not there": (
        request(line=b"GET /x HTTP/1.1", headers=b"Expect: x\r\n"), {417, 404},
    ),
    "an expectation that is too large": (
        request(b"", length=10**9, headers=JSON + b"Expect: 100-continue\r\n"), {413},
    ),
    "an expectation without a key": (
        request(b"", length=10, headers=JSON + b"Expect: 100-continue\r\n").replace(KEY, b""),
        {401},
    ),
    # bodies where none is
    "a body for GET": (request(DUCK, line=GET), {422}),
    "a large body for GET": (request(b" " * 5_000, line=GET), {413}),
    "a body for POST without one": (request(DUCK, line=b"POST /v1/touch HTTP/1.1"), {422}),
    # queries
    "a query where none is": (request(line=b"GET /v1/birds/1?a=b HTTP/1.1"), {422}),
    "a key in the query": (request(line=b"GET /v1/birds?key=member HTTP/1.1"), {422}),
    "a query twice": (request(line=b"GET /v1/birds?limit=1&limit=1 HTTP/1.1"), {422}),
    "a query of raw bytes": (request(line=b"GET /v1/birds?limit=\xff HTTP/1.1"), {400, 422}),
    "a query with a bad escape": (request(line=b"GET /v1/birds?limit=%1 HTTP/1.1"), {400, 422}),
    "a query with NUL": (request(line=b"GET /v1/birds?cursor=%00 HTTP/1.1"), {422}),
    "brackets in a query": (request(line=b"GET /v1/birds?limit[]=1 HTTP/1.1"), {400, 422}),
    "5,000 parameters": (
        request(line=b"GET /v1/birds?" + b"&".join([b"a"] * 3_000) + b" HTTP/1.1"),
        {422},
    ),
    "a large number in a query": (
        request(line=b"GET /v1/birds?limit=" + b"9" * 5_000 + b" HTTP/1.1"),
        {422},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_request_that_is_no_good_is_refused(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent, statuses = REQUESTS[case]
    async with toy() as asked:
        with capture_logs() as events:
            raw = await asked.raw(sent)
            again = await asked.ask("GET", "/v1/birds/1")
    if raw[9:12] == b"201":
        assert 201 in statuses
    else:
        status, pointers = problem_of(raw)
        assert status in statuses, raw
        assert status != 422 or pointers
    assert again.status == 200
    assert {event["log_level"] for event in events} == {"info"}
    assert caplog.text == ""

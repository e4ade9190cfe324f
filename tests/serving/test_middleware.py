"""Requests that are refused, each with its reason, and the next valid one is served as before."""

import json
import socket
import struct
import zlib

import pytest

from serving.servers import ask, encoded, form, noise, predict, serving
from vitlab.data.decoding import MAX_PIXELS
from vitlab.serving.limits import Limits
from vitlab.serving.middleware import GuardMiddleware, _name_of


def refused(answer, status, said):
    found, headers, body = answer
    assert found == status, body
    assert said in json.loads(body)["error"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1:x", "192.168.1.2", "[::2]:80"]
)
def test_another_host_is_refused(port, host):
    refused(ask(port, "/api/model", Host=host), 421, "that name")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{}", "[::1]:{}", "LOCALHOST"])
def test_this_machines_names_are_answered(port, host):
    assert ask(port, "/api/model", Host=host.format(port))[0] == 200


def test_two_hosts_are_refused(port):
    assert b" 4" in raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n")[:13]


def test_no_host_is_refused(port):
    assert raw(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{}", "http://127.0.0.1:1"])
def test_another_origin_is_refused(port, origin):
    answer = ask(port, "/api/predict", encoded(noise()), content_type="image/png", Origin=origin.format(port))
    refused(answer, 403, "other websites")


def test_our_own_origin_is_served_and_a_cross_site_fetch_is_not(port):
    own = f"http://127.0.0.1:{port}"
    assert ask(port, "/api/predict", encoded(noise()), content_type="image/png", Origin=own)[0] == 200
    refused(ask(port, "/api/model", Sec_Fetch_Site="cross-site"), 403, "other websites")
    assert ask(port, "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link from elsewhere may lead here"


def test_listening_everywhere_takes_addresses_and_no_names():
    guard = GuardMiddleware(None, Limits(), "0.0.0.0")
    assert guard._is_ours("192.168.1.2:8000")
    assert guard._is_ours("[fe80::1]:8000")
    assert not guard._is_ours("evil.example:8000")
    assert _name_of("[::1]:80") == "::1"


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_types_that_any_page_may_send_are_refused(port, kind):
    refused(ask(port, "/api/predict", encoded(noise()), content_type=kind), 415, "send an image")


def test_what_is_too_large_is_refused_whether_its_length_is_told_or_not(model):
    with serving(model, Limits(body_bytes=50_000, pixels=10_000)) as port:
        data = encoded(noise(shape=(90, 90, 3)))
        expected = predict(port, data)
        too_many = noise(shape=(200, 200, 3)).tobytes()
        refused(ask(port, "/api/predict", too_many, content_type="image/png"), 413, "limit of 50,000 bytes")
        pieces = (too_many[start : start + 1000] for start in range(0, len(too_many), 1000))
        refused(ask(port, "/api/predict", pieces, content_type="image/png"), 413, "limit of 50,000 bytes")
        refused(ask(port, "/api/predict", bomb(101, 100), content_type="image/png"), 413, "101 x 100 pixels")
        refused(
            ask(port, "/api/predict", bomb(60_000, 60_000), content_type="image/png"), 413, f"{MAX_PIXELS:,} pixels"
        )
        assert predict(port, data) == expected


def bomb(width, height):
    """A PNG whose header promises more than there is."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(1000)))]
    chunks.append((b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_bodies_together_are_bounded(model):
    limits = Limits(bodies_bytes=20_000)
    with serving(model, limits) as port:
        refused(
            ask(port, "/api/predict", noise(shape=(100, 100, 3)).tobytes(), content_type="image/png"), 429, "too much"
        )
        small = encoded(noise(shape=(20, 20, 3)))
        for _ in range(30):
            predict(port, small)  # what is done is given back


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"--x--\r\n", "multipart/form-data", "no boundary"),
        (b"nonsense", "multipart/form-data; boundary=x", "malformed"),
        (form(("image", "a", b"z"))[0][:-20], "multipart/form-data; boundary=frontier", "truncated"),
        (*form(("file", "a", b"z")), "0 fields 'image'"),
        (*form(("image", "a", b"z"), ("image", "b", b"z")), "2 fields 'image'"),
        (*form(*[(f"f{number}", "a", b"z") for number in range(40)]), "more than 16 fields"),
        (b"--x\r\n" + b"A: b\r\n" * 100, "multipart/form-data; boundary=x", "malformed"),
        (b"--x\r\nA: " + b"b" * 10_000, "multipart/form-data; boundary=x", "malformed"),
        (b"", "multipart/form-data; boundary=" + "x" * 300, "malformed"),
    ],
)
def test_a_malformed_form_is_named(port, body, kind, said):
    refused(ask(port, "/api/predict", body, content_type=kind), 400, said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable"),
        (b"8BPS" + bytes(100), "not a readable"),
        (b"SIMPLE  =                    T" + bytes(3000), "not a readable"),
        (encoded(noise())[:500], "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_named(port, data, said):
    refused(ask(port, "/api/predict", data, content_type="image/png"), 422, said)


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page/page.js",
        "/api/../page.js",
        "//page.js",
        "/page.css/",
        "/openapi.json/..",
        "/docs/",
        "/api/file?path=/etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(port, path):
    status, _, body = ask(port, path)
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize(
    ("query", "said"), [("?top=0", "greater"), ("?top=x", "integer"), ("?top=-5", "greater"), ("?top=1e9", "integer")]
)
def test_a_wrong_parameter_is_named(port, query, said):
    refused(ask(port, f"/api/predict{query}", encoded(noise()), content_type="image/png"), 422, said)
    refused(ask(port, "/api/attention?layer=3", encoded(noise()), content_type="image/png"), 422, "3 layers")
    refused(ask(port, "/api/similarity?depth=4", encoded(noise()), content_type="image/png"), 422, "3 layers")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_other_methods_are_not_allowed(port, method):
    assert ask(port, "/api/predict", method=method)[0] == 405


def test_maps_that_are_too_large_are_not_sent(model):
    with serving(model, Limits(response_bytes=1000)) as port:
        answer = ask(port, "/api/attention", encoded(noise()), content_type="image/png")
        refused(answer, 413, "too large to send")


def raw(port, data):
    """What comes back on a connection after these bytes, until the server closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        return received(connection)


def received(connection):
    pieces = []
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


HEAD = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def test_slow_clients_are_not_waited_for(model):
    with serving(model, Limits(header_seconds=0.3, body_seconds=0.3, idle_seconds=0.3)) as port:
        assert b" 408 " in raw(port, b"")
        assert b" 408 " in raw(port, b"GET / HTTP/1.1\r\nHost:")
        assert b" 408 " in raw(port, HEAD + b"Content-Length: 100\r\n\r\nab")
        assert b" 408 " in raw(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        after_one = raw(port, b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HT")
        assert after_one.startswith(b"HTTP/1.1 200")
        assert len(predict(port, encoded(noise()))) == 4


def test_requests_sent_behind_one_another_are_all_answered(model):
    with serving(model, Limits(header_seconds=0.5, idle_seconds=0.3)) as port:
        one = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        assert raw(port, 3 * one).count(b"HTTP/1.1 200") == 3


def test_connections_are_bounded(model):
    with serving(model, Limits(connections=3, header_seconds=20)) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(8)]
        turned_away = [received(connection) for connection in held[3:]]
        assert all(b" 429 " in answer for answer in turned_away)
        for connection in held:
            connection.close()


def test_a_malformed_head_is_a_400(port):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /" + b"a" * 100_000,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        assert raw(port, data + b"\r\n\r\n").startswith(b"HTTP/1.1 400"), data[:40]

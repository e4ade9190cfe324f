"""Requests that mean harm, as bytes, each a function of (seed, number); all go to 127.0.0.1."""

import random
import socket
import struct
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from serving.servers import encoded, form, noise

WORKERS = 8
PATIENCE = 30  # seconds for an answer
PATHS = [
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/api/predict/../../etc/passwd",
    "//etc/passwd",
    "/page.js%00.png",
    "/api/file?path=/etc/passwd",
    "/file=/etc/passwd",
    "/..%5c..%5cwindows%5cwin.ini",
    "/" + "a" * 9000,
    "/%ff%fe",
    "/?" + "x=1&" * 2000,
]
HEADS = [
    b"",
    b"<svg onload=alert(1)/>",
    b"SIMPLE  =                    T",
    b"8BPS\0\1" + bytes(20),
    b"%!PS-Adobe-3.0 EPSF-3.0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a\xff\xff\xff\xff",
    b"RIFF\xff\xff\xff\xffWEBPVP8X",
    b"II*\0\x08\0\0\0",
    b"BM",
    b"P6 99999 99999 255\n",
    b"\xff\xd8\xff\xe0",
    b"\0\0\0\x0cjP  ",
    b"\xca\xfe\xba\xbe",
    b"PK\3\4",
]
GOOD = encoded(noise())


def request(seed, number):
    """(kind, pieces to send one after the other, whether an answer must come)."""
    draw = random.Random(f"{seed}:{number}")
    kind = draw.choice(list(KINDS))
    pieces, answered = KINDS[kind](draw)
    return kind, pieces, answered


def head(path="/api/predict", method="POST", **headers):
    given = {"Host": "127.0.0.1", "Connection": "close", "Content-Type": "image/png"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def post(body, path="/api/predict", **headers):
    return [head(path, Content_Length=len(body), **headers) + body]


def api(draw):
    return draw.choice(["/api/predict", "/api/look", "/api/attention?layer=1", "/api/similarity?depth=2"])


def mutated(draw):
    data = bytearray(
        encoded(noise(draw.randrange(9)), draw.choice(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]))
    )
    for _ in range(draw.randrange(1, 30)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return post(bytes(data[: draw.randrange(1, len(data))] if draw.random() < 0.5 else data), api(draw)), True


def bomb(draw):
    side = draw.choice([7100, 13_000, 40_000, 2**31 - 1])
    bits = draw.choice([1, 8])
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10**6), 1)),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return post(b"\x89PNG\r\n\x1a\n" + data, api(draw)), True


def oversized(draw):
    if draw.random() < 0.03:  # 17 MB, really sent
        return [head(Content_Length=17 * 2**20), *[bytes(2**20)] * 17], True
    return [head(Content_Length=10 ** draw.randrange(8, 30)) + b"x"], False


def bad_form(draw):
    body, kind = form(
        ("image", draw.choice(["../../etc/passwd", "<script>alert(1)</script>", "a\0b", "x" * 5000]), GOOD)
    )
    trick = draw.randrange(6)
    if trick == 0:
        body = body[: draw.randrange(len(body))]
    elif trick == 1:
        body = bytes(draw.randrange(256) for _ in range(300))
    elif trick == 2:
        body, kind = form(*[("image", "x", b"y")] * draw.randrange(2, 300))
    elif trick == 3:
        body = b"--frontier\r\n" + b"X-A: b\r\n" * 3000
    elif trick == 4:
        kind = draw.choice(
            ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 4000]
        )
    return post(body, api(draw), Content_Type=kind), True


def foreign(draw):
    trick = draw.choice(
        [
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": None},
            {"Host": "a\tb"},
            {"Host": "[::"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
        ]
    )
    return post(GOOD, api(draw), **trick), True


def mistyped(draw):
    kinds = [
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/html",
        "image",
        "",
        None,
        "\xff" * 50,
    ]
    return post(GOOD, api(draw), Content_Type=draw.choice(kinds)), True


def path_trick(draw):
    return [head(draw.choice(PATHS), draw.choice(["GET", "HEAD"]))], True


def odd_method(draw):
    return [
        head(api(draw), draw.choice(["PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "PATCH", "FOO"]), Content_Length=0)
    ], True


def odd_query(draw):
    values = ["-1", "0", "x", "1e9", "9" * 5000, "%00", "<script>", "nan", "", "3", "&".join(["1"] * 500)]
    name = draw.choice(["predict?top", "attention?layer", "similarity?depth"])
    return post(GOOD, f"/api/{name}={draw.choice(values)}"), True


def garbage(draw):
    return [bytes(draw.randrange(256) for _ in range(draw.randrange(1, 2000))) + b"\r\n\r\n"], False


def smuggled(draw):
    return [
        draw.choice(
            [
                head(Content_Length=5, Transfer_Encoding="chunked") + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                head(Transfer_Encoding="chunked") + b"zz\r\n",
                head(Transfer_Encoding="gzip, chunked") + b"0\r\n\r\n",
                head(Content_Length="5\r\nContent-Length: 6") + b"hello",
                head(Content_Length="-1"),
                head(Expect="100-continue", Content_Length=0),
                head(
                    "/",
                    "GET",
                    Upgrade="websocket",
                    Connection="Upgrade",
                    Sec_WebSocket_Key="a",
                    Sec_WebSocket_Version=13,
                ),
                head(X=("y" * 70_000)),
                head(Transfer_Encoding="chunked") + b"ffffffffffffffff\r\n" + bytes(100),
            ]
        )
    ], False


def slow(draw):
    whole = post(GOOD, api(draw))[0]
    cut = draw.randrange(1, len(whole))
    return [whole[:cut], None] if draw.random() < 0.5 else [whole[:cut]], False


def not_an_image(draw):
    body = draw.choice(HEADS) + bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
    return post(
        body, api(draw), Content_Type=draw.choice(["image/png", "image/svg+xml", "application/octet-stream"])
    ), True


def good(draw):
    return post(GOOD, api(draw)), True


KINDS = {
    make.__name__: make
    for make in (
        mutated,
        bomb,
        oversized,
        bad_form,
        foreign,
        mistyped,
        path_trick,
        odd_method,
        odd_query,
        garbage,
        smuggled,
        slow,
        not_an_image,
        good,
    )
}


def send(port, pieces, answered):
    """The status of the answer, 0 where the connection ended without one; a piece of None is a sudden end."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        got = b""
        try:
            for piece in pieces:
                if piece is None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return 0
                connection.sendall(piece)
            if not answered:
                connection.shutdown(socket.SHUT_WR)  # or both sides would wait
            while len(got) < 20 and (more := connection.recv(65536)):
                got += more
            while connection.recv(2**20):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
    return int(got.split(b" ")[1]) if got.startswith(b"HTTP/1.") else 0


def attack(port, count, seed=0):
    """Sends `count` requests, some at a time; returns how often each (kind, status, answer due) came."""

    def one(number):
        kind, pieces, answered = request(seed, number)
        return kind, send(port, pieces, answered), answered

    with ThreadPoolExecutor(WORKERS) as pool:
        return Counter(pool.map(one, range(count)))

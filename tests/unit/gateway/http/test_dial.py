"""Where a request goes: addresses, names looked up once, and words for what went wrong."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import pytest

from midwatch.gateway.upstream import dial
from midwatch.gateway.upstream.address import Place, address_of
from midwatch.gateway.upstream.dial import Dialer, Found, in_words, interleave

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("url", "place", "target", "host"),
    [
        ("https://api.x.com/v1?key=a%20b", Place("api.x.com", 443, secure=True), "/v1?key=a%20b", "api.x.com"),
        ("http://api.x.com:8080", Place("api.x.com", 8080, secure=False), "/", "api.x.com:8080"),
        ("https://x.com:443/a//b/../c", Place("x.com", 443, secure=True), "/a//b/../c", "x.com"),
        ("http://[::1]:11434/api", Place("::1", 11434, secure=False), "/api", "[::1]:11434"),
        ("https://bücher.example/", Place("xn--bcher-kva.example", 443, secure=True), "/", "xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_an_address_is_taken_apart_and_its_path_left_alone(
    url: str, place: Place, target: str, host: str
) -> None:
    address = address_of(url)
    assert (address.place, address.target, address.host) == (place, target, host)


def test_families_take_turns() -> None:
    found: list[Found] = [(V6, 1), (V6, 2), (V6, 3), (V4, 4)]
    assert interleave(found) == [(V6, 1), (V4, 4), (V6, 2), (V6, 3)]
    assert interleave([]) == []


class Names(Dialer):
    """Looks up nothing: answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.go = asyncio.Event()

    async def _look_up(self, key: tuple[str, int]) -> list[Found]:
        self.asked += 1
        await self.go.wait()
        if self.asked == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(V4, ("192.0.2.1", key[1]))]


async def test_a_name_is_looked_up_once_for_all_and_a_failure_is_not_kept() -> None:
    names, place = Names(), Place("x.example", 443, secure=True)
    asking = [asyncio.create_task(names._find(place)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the others still wait for the same
    names.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {type(answer) for answer in answers[1:]} == {socket.gaierror}
    assert [await names._find(place) for _ in range(3)] == [[(V4, ("192.0.2.1", 443))]] * 3
    assert names.asked == 2
    await names.close()


async def test_an_address_is_not_looked_up() -> None:
    names = Names()
    assert await names._find(Place("127.0.0.1", 1, secure=False)) == [(V4, ("127.0.0.1", 1))]
    assert await names._find(Place("::1", 1, secure=False)) == [(V6, ("::1", 1))]
    assert names.asked == 0


async def test_the_first_address_that_answers_wins_and_the_others_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    pair = socket.socketpair()

    async def dialled(family: int, address: str) -> socket.socket:
        if address == "refuses":
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        if address == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(address)
        return pair[0]

    monkeypatch.setattr(dial, "_dial", dialled)
    monkeypatch.setattr(dial, "STAGGER_S", 0.01)
    won = await dial._race([(V6, "hangs"), (V4, "refuses"), (V6, "answers")])
    await asyncio.sleep(0)
    assert (won, ended) == (pair[0], ["hangs"])
    with pytest.raises(ConnectionRefusedError):
        await dial._race([(V6, "refuses"), (V4, "refuses")])
    with pytest.raises(OSError, match="no address"):
        await dial._race([])
    for one in pair:
        one.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused by x.example:443"),
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), "the name 'x.example' is not known: Name not known"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "x.example closed the connection during the TLS handshake"),
        (OSError(errno.ENETUNREACH, "x"), "no connection to x.example:443: Network is unreachable"),
        (OSError("odd"), "no connection to x.example:443: odd"),
        (ssl.SSLError(1, "odd"), "TLS with x.example failed: "),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told_in_words(error: OSError, words: str) -> None:
    assert in_words(error, Place("x.example", 443, secure=True)).startswith(words)

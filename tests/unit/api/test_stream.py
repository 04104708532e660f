from __future__ import annotations

from midwatch.api.stream import MAX_WAITING, Stream
from midwatch.core.counts import Counts


async def test_a_slow_follower_loses_its_queue_and_is_told_to_start_over() -> None:
    counts = Counts()
    stream = Stream(counts)
    slow = stream.follow(resumes=False)
    await anext(slow)
    for number in range(MAX_WAITING + 10):
        stream.publish("beat", {"n": number})
    assert b"event: resync" in await anext(slow)
    assert counts.total("stream_resyncs") == 1
    stream.publish("beat", {"n": "after"})
    assert b'"after"' in await anext(slow)
    await slow.aclose()


async def test_what_is_published_has_its_times_as_rfc_3339() -> None:
    stream = Stream(Counts())
    following = stream.follow(resumes=False)
    await anext(following)
    cycle = {"at": 1_795_258_923.1236, "tokens": 5}
    stream.publish("beat", {"agent": "inbox", "at": 1_795_258_923.1236, "cycle": cycle})
    assert (await anext(following)).decode().rpartition("data: ")[2].strip() == (
        '{"agent":"inbox","at":"2026-11-21T11:02:03.123Z",'
        '"cycle":{"at":"2026-11-21T11:02:03.123Z","tokens":5}}'
    )
    assert cycle["at"] == 1_795_258_923.1236  # the view's own stays as it is
    await following.aclose()


async def test_silence_is_filled_with_comments_and_closing_ends_it() -> None:
    stream = Stream(Counts(), keep_alive_s=0.01)
    following = stream.follow(resumes=False)
    await anext(following)
    assert await anext(following) == b": still here\n\n"
    stream.close()
    assert [chunk async for chunk in following] == []
    assert stream.followers == 0

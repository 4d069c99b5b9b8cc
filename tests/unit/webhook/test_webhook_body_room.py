"""All bodies on their way together have so much room, whoever sends them."""

from __future__ import annotations

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.web.body_room import BodyRoom


def request(*parts: bytes, ends: bool = True) -> Request:
    """Make a request whose body comes in parts, and which is left then unless it ends."""
    coming: list[Message] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    last: Message = {"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"}
    coming.append(last)

    async def receive() -> Message:
        return coming.pop(0)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def test_a_body_is_held_for_its_block_and_no_longer() -> None:
    room = BodyRoom(10)
    async with room.body(request(b"abc", b"def")) as body:
        assert (body, room.held) == (b"abcdef", 6)
    assert room.held == 0


async def test_what_has_no_room_is_refused_and_gives_back_what_it_took() -> None:
    room = BodyRoom(10)
    async with room.body(request(b"x" * 6)):
        with pytest.raises(DicodeError) as refused:
            async with room.body(request(b"abc", b"def")):
                pytest.fail("there was room")
        assert refused.value.code is Code.RATE_LIMITED
        assert room.held == 6
        async with room.body(request(b"abcd")) as body:
            assert body == b"abcd"
    assert room.held == 0


async def test_a_sender_that_leaves_and_a_block_that_fails_give_back_theirs() -> None:
    room = BodyRoom(10)
    with pytest.raises(ClientDisconnect):
        async with room.body(request(b"abc", ends=False)):
            pytest.fail("there was no whole body")
    with pytest.raises(ValueError, match="mine"):
        async with room.body(request(b"abc")):
            raise ValueError("mine")
    assert room.held == 0

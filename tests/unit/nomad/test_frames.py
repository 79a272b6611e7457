"""Log frames come whole, however the network cuts them."""

import base64
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.nomad.frames import Frame, FrameReader

pytestmark = pytest.mark.fast


def on_the_wire(data: bytes | None) -> bytes:
    if data is None:
        return b"{}"
    body = {"Data": base64.b64encode(data).decode(), "File": "alloc/logs/main.stdout.0", "Offset": len(data)}
    return json.dumps(body).encode()


@given(chunks=st.lists(st.none() | st.binary(min_size=1, max_size=200)), cuts=st.lists(st.integers(0, 4000)))
def test_any_cutting_gives_the_same_frames(chunks: list[bytes | None], cuts: list[int]) -> None:
    wire = b"".join(map(on_the_wire, chunks))
    places = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    reader = FrameReader()
    frames = [frame for start, end in itertools.pairwise(places) for frame in reader.feed(wire[start:end])]
    assert [frame.data for frame in frames] == [chunk or b"" for chunk in chunks]


def test_a_frame_keeps_nomads_word_about_its_place() -> None:
    assert FrameReader().feed(on_the_wire(b"hello")) == [Frame(b"hello", "alloc/logs/main.stdout.0", 5)]


def test_what_is_not_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".*"):
        FrameReader().feed(b"Permission denied}")

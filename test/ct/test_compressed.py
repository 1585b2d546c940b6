"""Streams that Python's own zlib and gzip have written."""

import gzip
import zlib

import numpy as np
import pytest

from nodulemc.ct import compressed
from nodulemc.ct.compressed import check_length, decoded_length, read_voxels
from nodulemc.ct.stored_voxels import StoredVoxels
from nodulemc.errors import ImageError

CONTENT = np.random.default_rng(0).integers(0, 4, 300_000, dtype=np.uint8).tobytes()
STREAMS = {
    "zlib": zlib.compress(CONTENT),
    "gzip": gzip.compress(CONTENT),
    "two members": gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
    "members apart": gzip.compress(CONTENT[:1000]) + bytes(5000) + gzip.compress(CONTENT[1000:]) + bytes(7),
}


def read(path, content, length, **place) -> bytes:
    path.write_bytes(content)
    target = bytearray(length)
    read_voxels(StoredVoxels(path, **place), memoryview(target))
    return bytes(target)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_streams_are_read_whole(tmp_path, stream):
    place = {"start": 100, "compressed": True}
    assert read(tmp_path / "ct", bytes(100) + stream, len(CONTENT), **place) == CONTENT
    assert read(tmp_path / "ct", bytes(100) + stream, len(CONTENT) - 352, skip=352, **place) == CONTENT[352:]
    assert read(tmp_path / "ct", bytes(100) + stream, len(CONTENT) - 16, padding=16, **place) == CONTENT[:-16]
    assert decoded_length([stream[:10], stream[10:]], tmp_path / "ct", before=5) == len(CONTENT) + 5


def test_plain_voxels_are_read_from_their_place(tmp_path):
    assert read(tmp_path / "ct", CONTENT, 1000, start=352, compressed=False) == CONTENT[352:1352]
    with pytest.raises(ImageError, match="the file holds 3 of 1000 bytes"):
        read(tmp_path / "ct", CONTENT, 1000, start=len(CONTENT) - 3, compressed=False)


@pytest.mark.parametrize(
    ("damage", "length", "message"),
    [
        (lambda s: s[:-1], 0, "end too early"),
        (lambda s: s[: len(s) // 2], 0, "end too early"),
        (lambda s: s[:-6] + bytes([s[-6] ^ 1]) + s[-5:], 0, "corrupt"),  # in the checksum
        (lambda s: s + b"junk", 0, "corrupt"),
        (lambda s: s, 1, f"holds {len(CONTENT)} of {len(CONTENT) + 1} bytes"),
        (lambda s: s, -1, f"holds more than {len(CONTENT) - 1} bytes"),
    ],
)
def test_a_damaged_or_misfitting_stream_is_refused(tmp_path, damage, length, message):
    content = damage(STREAMS["gzip"])
    with pytest.raises(ImageError, match=message):
        read(tmp_path / "ct", content, len(CONTENT) + length, start=0, compressed=True)


def test_what_cannot_hold_the_voxels_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "ct").write_bytes(bytes(1100))
    for is_compressed, most in ((False, 1000), (True, 1000 * 1032)):
        voxels = StoredVoxels(tmp_path / "ct", 100, is_compressed)
        check_length(voxels, most)
        with pytest.raises(ImageError, match=f"{most} of {most + 1} bytes"):
            check_length(voxels, most + 1)


def test_a_stream_longer_than_any_ct_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "MAX_CT_BYTES", 1 << 18)
    with pytest.raises(ImageError, match="inflates to more than 0 GiB"):
        decoded_length([STREAMS["zlib"]], tmp_path / "ct")

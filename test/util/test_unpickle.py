import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from nodulemc.errors import ImageError
from nodulemc.util.unpickle import read_plain_dict


def save(path: Path, content: object) -> Path:
    np.save(path, content, allow_pickle=True)
    return path


def test_arrays_and_numbers_are_read(tmp_path: Path):
    content = {
        "f8": np.array([1.5, -2.5]),
        "big": np.array([[1, 2], [3, 4]], ">i4"),
        "fortran": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        "flag": np.array([True, False]),
        "scalar": np.float32(0.25),
        "int": 3,
        "float": 4.5,
    }
    read = read_plain_dict(save(tmp_path / "m.npy", content))
    assert read.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_of_any_numpy(module: str, protocol: int, tmp_path: Path):
    """NumPy 1 and 2 name the function that rebuilds arrays differently; protocol 2 is Python 2's."""
    path = save(tmp_path / "m.npy", {})
    header = path.read_bytes()[: -len(pickle.dumps(np.array({}, object), protocol=4))]
    array = np.empty((), object)
    array[()] = {"n": 7, "x": 0.5}
    stream = pickle.dumps(array, protocol=protocol)
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        if protocol < 4:
            stream = stream.replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n")
        else:
            short = b"\x8c" + bytes([len(name)]) + name
            stream = stream.replace(short, b"\x8c" + bytes([len(module)]) + module.encode())
    assert module.encode() in stream
    # Protocol 4 frames state their length, which the other name changes.
    frame = stream.find(b"\x95")
    if frame >= 0:
        stream = stream[: frame + 1] + struct.pack("<Q", len(stream) - frame - 9) + stream[frame + 9 :]
    path.write_bytes(header + stream)
    if protocol == 2:
        with pytest.raises(ImageError, match=r"it asks for _codecs\.encode"):
            read_plain_dict(path)
    else:
        assert read_plain_dict(path) == {"n": 7, "x": 0.5}


class Malicious:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
        (np.fromfile, "fromfile"),
    ],
)
@pytest.mark.parametrize("place", ["whole", "value", "key", "array"])
def test_nothing_is_executed(function, name: str, place: str, tmp_path: Path):
    victim = tmp_path / "victim"
    bad = Malicious(function, f"touch {victim}" if function is os.system else str(victim))
    content = {
        "whole": bad,
        "value": {"origin": bad},
        "key": {(bad,): 1},
        "array": {"origin": np.array([bad, bad], object)},
    }[place]
    with pytest.raises(ImageError, match=r"it asks for .*" + name.rpartition(".")[2]):
        read_plain_dict(save(tmp_path / "m.npy", content))
    assert not victim.exists()


def forged(body: bytes) -> bytes:
    """A metadata file whose pickle is ``body``."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    "value", [np.array(["text"]), np.array([b"text"]), np.array([1j]), np.str_("text"), "text", [1], None]
)
def test_anything_but_numbers_is_refused(value, tmp_path: Path):
    with pytest.raises(ImageError, match="cannot read the metadata"):
        read_plain_dict(save(tmp_path / "m.npy", {"origin": value}))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


def array_of(dtype: bytes, data: bytes, shape: bytes = b"(t") -> bytes:
    return RECONSTRUCT + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


OBJECT = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR"


@pytest.mark.parametrize(
    "body",
    [
        # An object array from raw bytes: NumPy would take them for a pointer.
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00origin" + array_of(OBJECT, b"C\x08AAAAAAAA") + b"ue"),
        # Attributes of the classes that stand for NumPy's.
        b"cnumpy\nndarray\n}X\x04\x00\x00\x00realK\x01sb.",
        b"cnumpy\ndtype\nN}X\x04\x00\x00\x00realK\x01s\x86b.",
        # Wrong kinds of content.
        array_of(OBJECT, b"](K\x01e"),
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00origin]ue"),
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00originX\x01\x00\x00\x00xue"),
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00originhcue"),
        array_of(b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR", b"C\x07AAAAAAA", b"K\x01\x85"),
        # An array that is its own dtype.
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00origin" + RECONSTRUCT + b"q\x01(K\x01(th\x01\x89C\x00tbue"),
        # Sizes out of all proportion.
        b"\x8e" + struct.pack("<Q", 1 << 62),
        b"\x96" + struct.pack("<Q", 1 << 36),
        b"Nr" + struct.pack("<I", 1 << 31) + b"0",
        b"N" * (1 << 20),
        # Whose hash or text would take for ever.
        array_of(OBJECT, b"](}(" + b")" + b"2\x86" * 99 + b"K\x01ue"),
        array_of(OBJECT, b"](}(X\x06\x00\x00\x00origin)" + b"q\x00h\x00\x86" * 99 + b"ue"),
        array_of(OBJECT, b"](}()" + b"q\x00h\x00\x86" * 99 + b"K\x01ue"),
        b"",
    ],
)
def test_forged_files_are_refused(body: bytes, tmp_path: Path):
    path = tmp_path / "m.npy"
    path.write_bytes(forged(body + b"."))
    with pytest.raises(ImageError, match=r"cannot read the metadata .*m\.npy"):
        read_plain_dict(path)

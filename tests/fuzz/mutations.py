"""Changes to files that keep them likely enough to get past the first check."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from google.protobuf.message import Message

__all__ = [
    "mutate_bytes",
    "mutate_json",
    "mutate_model",
    "mutate_npz",
    "mutate_partial",
    "mutate_script",
]

NUMBERS = (0, -1, 1, 2**31, 2**62, 2**63 - 1, -(2**63), 10**400)
FLOATS = (0.0, -0.0, -1.0, 1e308, -1e308, 5e-324, 1e-300, 0.5)
TEXTS = (
    "", "x", "\x1b[2J\u202e", "\ud800", "a\0b", "../../etc/passwd", "{{7*7}}", "n" * 5000,
    "\r\n[E] ", "fp4", "adjoint", "nan", "7" * 5000, "$x", "__import__('os')",
)  # fmt: skip


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Returns `content` with some bytes flipped, cut, doubled or moved."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        start = random.randint(0, len(changed))
        end = min(len(changed), start + random.choice((1, 2, 8, 64, 4096)))
        action = random.choice(("flip", "cut", "double", "fill", "insert", "end"))
        if action == "flip" and start < len(changed):
            changed[start] ^= 1 << random.randint(0, 7)
        elif action == "cut":
            del changed[start:end]
        elif action == "double":
            changed[start:start] = changed[start:end]
        elif action == "fill":
            changed[start:end] = bytes([random.choice((0, 0x7F, 0x80, 0xFF))]) * (end - start)
        elif action == "insert":
            changed[start:start] = random.choice(TEXTS).encode(errors="replace")
        elif action == "end" and random.randint(0, 3) == 0:
            del changed[start:]
    return bytes(changed)


def mutate_json(content: bytes, random: Random) -> bytes:
    """Returns JSON of much the same structure, with some values replaced, lost or doubled."""
    if random.randint(0, 9) == 0:
        return mutate_bytes(content, random)
    value = json.loads(content)
    for _ in range(random.randint(1, 4)):
        places = list(_places(value))
        if not places:
            break
        holder, key = random.choice(places)
        action = random.randint(0, 9)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[key]))
        elif action == 2:
            holder[key] = copy.deepcopy(random.choice(random.choice(places)[:1]))
        else:
            holder[key] = _json_value(holder[key], random)
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _json_value(old: Any, random: Random) -> Any:
    if random.randint(0, 2):  # of the same type, so that it gets further
        if isinstance(old, bool) or old is None:
            return random.choice((True, False, None, 0.5))
        if isinstance(old, int):
            return random.choice((*NUMBERS, old + 1))
        if isinstance(old, float):
            return random.choice((*FLOATS, old * 1e10, -old))
        if isinstance(old, str):
            return random.choice((*TEXTS, old + "'"))
    return random.choice(([], {}, None, True, 1, 1e308, "", [[]], {"": {}}, *NUMBERS, *TEXTS))


def mutate_model(content: bytes, random: Random) -> bytes:
    """Returns an ONNX model with some fields of its messages changed."""
    if random.randint(0, 4) == 0:
        return mutate_bytes(content, random)
    model = onnx.ModelProto.FromString(content)
    for _ in range(random.randint(1, 5)):
        messages = list(_messages(model))
        message = random.choice(messages)
        fields = list(message.DESCRIPTOR.fields)
        used = [field for field, _ in message.ListFields()]
        field = random.choice(used if used and random.randint(0, 3) else fields)
        _change_field(message, field, random)
    return bytes(model.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if _is_repeated(value) else [value]:
                yield from _messages(item)


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "extend")  # descriptors say it differently from version to version


def _change_field(message: Message, field: Any, random: Random) -> None:
    value = getattr(message, field.name)
    if field.message_type is not None:
        if not _is_repeated(value):
            (value.SetInParent if random.randint(0, 1) else value.Clear)()
        elif len(value) and random.randint(0, 1):
            value.add().CopyFrom(random.choice(list(value)))
        elif len(value):
            del value[random.randrange(len(value))]
        else:
            value.add()
        return
    new = _scalar(field, random)
    if not _is_repeated(value):
        setattr(message, field.name, new)
    elif len(value) and random.randint(0, 1):
        value[random.randrange(len(value))] = new
    elif len(value) and random.randint(0, 1):
        del value[random.randrange(len(value))]
    else:
        value.append(new)


_SMALL = (0, 1, 2, 3, 7, 16, 17, 99, 2**31 - 1)


def _scalar(field: Any, random: Random) -> Any:
    if field.enum_type is not None:
        return random.choice([value.number for value in field.enum_type.values])
    if field.type == field.TYPE_BYTES:
        return random.choice((b"", b"\xff\xfe", b"x" * 7, b"none"))
    choices: dict[int, Sequence[Any]] = {
        field.CPPTYPE_FLOAT: (0.0, -1.0, 1e30, float("nan"), float("inf")),
        field.CPPTYPE_DOUBLE: (0.0, -1.0, 1e300, float("nan"), float("inf")),
        field.CPPTYPE_STRING: [text for text in TEXTS if text != "\ud800"],
        field.CPPTYPE_BOOL: (True, False),
        field.CPPTYPE_INT64: (*_SMALL, -1, 2**62, -(2**63), 2**63 - 1, 2**40),
    }
    return random.choice(choices.get(field.cpp_type, _SMALL))


def mutate_npz(content: bytes, random: Random) -> bytes:
    """Returns an archive in which headers claim something else, or bytes are changed."""
    if random.randint(0, 2) == 0:
        return mutate_bytes(content, random)
    written = io.BytesIO()
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(written, "w", compression) as new,
        _no_warnings(),  # of names that occur twice
    ):
        for info in old.infolist():
            name = random.choice((info.filename, info.filename, "y.npy", "x", "../x.npy"))
            new.writestr(name, _changed_array(old.read(info), random))
    return written.getvalue()


def mutate_partial(content: bytes, random: Random) -> bytes:
    """Returns a partial ranking with another record, other numbers, or as `mutate_npz` does."""
    if random.randint(0, 2) == 0:
        return mutate_npz(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {
            name.removesuffix(".npy"): _array_in(archive, name) for name in archive.namelist()
        }
    if random.randint(0, 1):
        record = mutate_json(arrays["record"].tobytes(), random)
        arrays["record"] = np.frombuffer(record, np.uint8)
    for name in random.sample(sorted(arrays), random.randint(0, 3)):
        if name != "record" and arrays[name].size:
            arrays[name] = arrays[name].copy()
            choices = FLOATS if arrays[name].dtype.kind == "f" else (0, -1, 1, 5, 2**31, 2**63 - 1)
            with np.errstate(all="ignore"):
                arrays[name].reshape(-1)[random.randrange(arrays[name].size)] = random.choice(
                    choices
                )
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


def _array_in(archive: zipfile.ZipFile, name: str) -> Any:
    return np.load(io.BytesIO(archive.read(name)))


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _changed_array(content: bytes, random: Random) -> bytes:
    array = np.load(io.BytesIO(content))
    header = io.BytesIO()
    shapes = (array.shape, (), (0,), (2**40,), (2**62, 2**62), (-1,), (True,), ("x",), 7, (1.5,))
    types = (
        "<f4",
        ">f4",
        "|O",
        "<U4",
        "<f2",
        "<M8[s]",
        "|V3",
        "<f99",
        7,
        "|b1",
        "<c8",
        [("a", "<f4")],
    )
    description = {
        "descr": random.choice((array.dtype.str, array.dtype.str, *types)),
        "fortran_order": random.choice((False, True, 1)),
        "shape": random.choice((array.shape, *shapes)),
    }
    text = repr(description).encode() + b"\n"
    header.write(np.lib.format.magic(*random.choice(((1, 0), (2, 0), (3, 0), (9, 9)))))
    header.write(len(text).to_bytes(2, "little") + text + array.tobytes())
    changed = header.getvalue()
    return changed if random.randint(0, 3) else mutate_bytes(changed, random)


def mutate_script(content: bytes, random: Random) -> bytes:
    """Returns a script with some of its first lines, which hold the data, replaced."""
    if random.randint(0, 1):
        return mutate_bytes(content, random)
    lines = content.decode().split("\n")
    literals: tuple[Callable[[], str], ...] = (
        lambda: repr(random.choice(TEXTS)),
        lambda: repr(random.choice(NUMBERS)),
        lambda: "[" * random.choice((1, 90, 5000)),
        lambda: "-" * random.choice((1, 90, 5000)) + "1",
        lambda: repr([{"name": "x", "op": 7, "inputs": [None], "outputs": (), "reason": ""}]),
        lambda: "{[]: 1}",
        lambda: "{**1}",
        lambda: "1 + 1j",
        lambda: "f'{1}'",
        lambda: "b'x'",
        lambda: "{1, 2}",
        lambda: "__import__('os')",
    )
    names = ("PRECISION", "CONSTRAINTS", "MODEL_NAME", "MODEL_DIGEST", "ALLOW_UNMATCHED")
    for _ in range(random.randint(1, 3)):
        name = random.choice((*names, "IO_PRECISION"))
        line = f"{name}{random.choice(('', ': int', ' ='))} = {random.choice(literals)()}"
        known = [i for i, text in enumerate(lines) if text.startswith(name)]
        lines[random.choice(known) if known else 0] = line
    return "\n".join(lines).encode(errors="surrogatepass")

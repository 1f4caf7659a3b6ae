"""Image archives as `docker load` and `ctr images import` take them, made of directories without any registry.

    app = Image("app:1.0", (layer(Path("rootfs"), Path("rootfs.tar")),), ("python3", "/app.py"))
    write(Path("images.tar"), [app, pause(Path("pause.layer.tar"))])

Members carry no time and no user of this machine, so that the same files make the same archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a field's type, read by dataclass
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PAUSE: Final = "localhost/pause:lab"

_LOAD_AT: Final = 0x400000
_PAUSE_CODE: Final = {
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),  # again: mov eax, SYS_pause; syscall; jmp again
    "aarch64": (
        183,
        struct.pack("<7I", *(0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA)),
    ),
}
"""Machine number of ELF, and code. On arm64: x0 to x3 = 0; x8 = SYS_ppoll; svc 0; back."""


def layer(root: Path, archive: Path, under: str = "") -> Path:
    """Write a directory as a layer.

    Args:
        root: the directory.
        archive: the file to write.
        under: the path in the image that the directory becomes; the image's root when left out.
    """
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=under or ".", filter=_plain)
    return archive


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        name: as a Pod names it.
        layers: archives, lowest first.
        command: the entry point.
        env: variables as ``NAME=value``, beside a PATH.
    """

    name: str
    layers: tuple[Path, ...]
    command: tuple[str, ...]
    env: tuple[str, ...] = ()


def write(archive: Path, images: Sequence[Image]) -> Path:
    """Write an archive of images; a layer that several have is in it once.

    Raises:
        LabError: this is a processor that the lab does not know.
    """
    digests = {path: _sha256(path) for image in images for path in image.layers}
    manifest = []
    with tarfile.open(archive, "w") as tar:
        for path, digest in digests.items():
            tar.add(path, arcname=_member(digest), filter=_plain)
        for image in images:
            mine = [digests[each] for each in image.layers]
            config = json.dumps(_config(image, mine), sort_keys=True).encode()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(tar, name, config, 0o644)
            manifest.append({"Config": name, "RepoTags": [image.name], "Layers": [_member(each) for each in mine]})
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return archive


def unpack(archive: Path, folder: Path) -> tuple[Path, ...]:
    """Take the layers out of an archive of one image, lowest first.

    Args:
        archive: as `docker save` writes it, too.
        folder: where they go.

    Raises:
        LabError: this is no such archive.
    """
    try:
        with tarfile.open(archive) as tar:
            manifest = json.loads(_read(tar, "manifest.json"))
            layers = [folder / f"{archive.stem}.{number}.layer.tar" for number in range(len(manifest[0]["Layers"]))]
            for layer, member in zip(layers, manifest[0]["Layers"], strict=True):
                layer.write_bytes(_read(tar, member))
    except (tarfile.TarError, OSError, KeyError, ValueError) as error:
        raise LabError(f"{archive} is no archive of an image: {error}") from error
    return tuple(layers)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _member(digest: str) -> str:
    return f"{digest}/layer.tar"


def _config(image: Image, digests: list[str]) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES[_machine()],
        "os": "linux",
        "config": {"Entrypoint": list(image.command), "Env": [_PATH, *image.env]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
    }


def pause(archive: Path) -> Image:
    """The image of the container that keeps a Pod's namespaces: a program of some bytes that waits for ever.

    Args:
        archive: the file that its layer is written to.
    """
    with tarfile.open(archive, "w") as tar:
        _add(tar, "pause", pause_program(), 0o755)
    return Image(PAUSE, (archive,), ("/pause",))


def pause_program() -> bytes:
    """An ELF executable that waits for ever, with this machine's instructions; no compiler is needed.

    Raises:
        LabError: this is a processor that the lab does not know.
    """
    machine, code = _PAUSE_CODE[_machine()]
    head, entry = 64 + 56, 64 + 56
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    elf = struct.pack("<16sHHIQQQIHHHHHH", identity, 2, machine, 1, _LOAD_AT + entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = head + len(code)
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_AT, _LOAD_AT, size, size, 0x1000) + code


def _machine() -> str:
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise LabError(f"real nodes run on {' and '.join(_ARCHITECTURES)}, not on {machine}")
    return machine


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 0
    member.uname = member.gname = ""
    return member


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

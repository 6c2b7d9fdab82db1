"""The files that an MJCF scene is made of, and hashes of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

LENGTH = 16  # hexadecimal digits of a hash


def mjcf_files(path: Path) -> list[Path]:
    """An MJCF file and all that it reads: includes, models, meshes, textures, height fields."""
    found, folders = [path], {"mesh": "", "texture": ""}
    assets: list[tuple[str, str]] = []
    for file in found:  # grows by what is included
        for element in ElementTree.parse(file).iter():
            name = element.get("file")
            if element.tag == "compiler":
                every = element.get("assetdir", "")
                given = {"mesh": element.get("meshdir") or every, "texture": element.get("texturedir") or every}
                folders |= {kind: where for kind, where in given.items() if where}
            elif name and element.tag == "include":
                included = path.parent / name
                found += [included] if included not in found else []
            elif name and element.tag == "model":  # a whole scene, with folders of its own
                assets += [("model", str(one)) for one in mjcf_files((path.parent / name).absolute())]
            else:
                assets += [(element.tag, each) for key, each in element.items() if key.startswith("file") and each]
    for kind, name in assets:
        folder = folders["texture" if kind == "texture" else "mesh"] if kind != "model" else ""
        found.append(path.parent / os.path.join(folder, name))
    return list(dict.fromkeys(found))


def hash_files(paths: Iterable[Path]) -> str:
    """Of names and contents. FileNotFoundError: one is missing."""
    parts = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} of a twin's scene is missing; build the scene again")
        parts += [path.name.encode(), path.read_bytes()]
    return digest(parts)


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of parts, shortened."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:LENGTH]

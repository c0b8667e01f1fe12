"""Words for what a name or a path stands for, where it stands for several contents or the reverse."""

from __future__ import annotations

import json
from collections import defaultdict

UNKNOWN = "unknown"
DIGITS = 6  # of a digest, in words


class Contents:
    """What is known of data, weights and label files: (kind, name, place, digest or None) noted, then told in words.

    The content of a place whose digest nobody noted is that of the others of this place if they have one; if they have
    several, it is unknown, which is a content of its own; if none is known, the place stands for its content.
    """

    def __init__(self):
        self._known = defaultdict(set)
        self._places = defaultdict(lambda: defaultdict(set))

    def note(self, kind: str, name, place: str, digest: str | None) -> None:
        """Note a content's digest; all are noted before any is asked for."""
        if digest is not None:
            self._known[kind, name, place].add(digest)

    def content(self, kind: str, name, place: str, digest: str | None) -> tuple:
        """Return what stands for a content: equal where contents are taken as equal."""
        digests = [digest] if digest is not None else list(self._known[kind, name, place])
        content = ("digest", digests[0]) if len(digests) == 1 else (UNKNOWN,) if digests else ("place", place)
        self._places[kind, name][content].add(place)
        return content

    def words(self, kind: str, name) -> dict[tuple, str]:
        """Return {content: words}, such as "ViT-B/16" or "weights 6d9417"; all contents are asked for before.

        That is the end of the path where it leads to this content only, else the kind and the digest's first digits.
        """
        contents = self._places[kind, name]
        paths = {content: min(map(_path, places), key=_is_path) for content, places in contents.items()}
        leads_to = defaultdict(set)
        for content, places in contents.items():
            for place in places:
                leads_to[_path(place)].add(content)
        digests = [content[1] for content in contents if content[0] == "digest"]
        digits = next(
            n for n in range(DIGITS, 65) if len({digest[:n] for digest in digests}) == len(digests) or n == 64
        )
        own = [path for path in paths.values() if path and len(leads_to[path]) == 1]
        return {
            content: _end(path, own) if path in own else _told(kind, content, digits) for content, path in paths.items()
        }


def _told(kind, content, digits):
    if content[1:] and not content[1]:  # no file
        return f"no {kind}" if kind == "initial weights" else f"{kind} by name"
    if content[0] == "place":
        parts = json.loads(content[1]) if content[1].startswith("[") else [content[1]]
        return ", ".join(filter(None, parts))
    return f"{kind} {content[1][:digits] if content[1:] else UNKNOWN}"


def _path(place: str) -> str:
    """Return the path of a place: the text itself, or the first of a list."""
    return json.loads(place)[0] if place.startswith("[") else place


def _is_path(text: str) -> tuple[bool, str]:
    """Return what sorts names before paths."""
    return text.startswith(("/", "~", ".")), text


def _end(path: str, others: list[str]) -> str:
    """Return as much of a path's end, cut at slashes, as no other has; a name that is no path stays whole."""
    if not _is_path(path)[0]:
        return path
    parts = path.split("/")
    ends = ("/".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f"/{other}".endswith(f"/{end}") for other in others) == 1), path)

"""Data sets, files of wrong labels and weights, distinguished by content if a name stands for several contents."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pandas as pd

from dspt_atlas.results.record import DIGITS, PARTS

UNKNOWN = "unknown"
_LAYOUT = re.compile(r"(hf:|openai:|open_clip:([^=/]+=)?)(?=[/~.])")  # of a backbone's weights, before a path
KINDS = {"data": "data", "source": "data", "backbone": "weights", "init_weights": "initial weights", "noise": "file"}


def name_contents(results: pd.DataFrame) -> pd.DataFrame:
    """Return results whose `dataset`, `source` and `noise` distinguish contents, with columns for backbone and weights.

    If the digest of a place is not known, it counts as the digest of other results with this place, if they have one.
    If they have several, the content is unknown, which counts as its own content. If no digest is known, the place
    counts.
    """
    words = _words_of_several(results)
    source = words["source"].fillna(words["data"].where(results["source_place"].isna()))
    noise = [
        noise.replace("file)", f"{word})") if noise.endswith("file)") and pd.notna(word) else noise
        for noise, word in zip(results["noise"], words["noise"], strict=True)
    ]
    return results.assign(
        dataset=_with_word(results["dataset"], words["data"]),
        source=_with_word(results["source"], source),
        noise=noise,
        backbone=results["backbone_place"].fillna("").map(backbone_name),
        weights=words["backbone"],
        **{"initial weights": words["init_weights"]},
    )


def _with_word(names, words):
    told = names.where(words.isna() | names.isna(), names.astype(str) + " (" + words.astype(str) + ")").astype(object)
    return told.where(told.notna(), None)


def _words_of_several(results):
    """Return the words for each content, one column per slot; missing if its name stands for one content only."""
    names = {
        "data": results["dataset"],
        "source": results["source"].fillna(results["dataset"]),
        "backbone": "",
        "init_weights": "",
        "noise": results["dataset"] + "/" + results["shots"].astype(str) + "/" + results["noise"],
    }
    slots = {
        slot: pd.DataFrame(
            {"kind": kind, "name": names[slot], **{part: results[f"{slot}_{part}"] for part in PARTS}}, dtype=object
        )
        for slot, kind in KINDS.items()
    }
    long = pd.concat(slots, names=["slot", "result"]).dropna(subset=["place"]).reset_index()
    long["content"] = _contents(long)
    several = long.groupby(["kind", "name"])["content"].transform("nunique") > 1
    words = pd.DataFrame(None, index=results.index, columns=list(KINDS), dtype=object)
    for (kind, _), own in long[several].groupby(["kind", "name"]):
        told = own["content"].map(_words(kind, own))
        for slot, places in own.groupby("slot"):
            words.loc[places["result"], slot] = told[places.index].to_numpy()
    return words


def _contents(long):
    """Return a value for each content; equal values mean equal contents."""
    known = long.groupby(["kind", "name", "place"])["digest"]
    filled = known.transform("first").mask(known.transform("nunique") > 1)
    content = "digest " + long["digest"].fillna(filled).astype(object)
    is_unknown = long["digest"].isna() & (known.transform("nunique") > 1)
    return content.fillna("place " + long["place"]).mask(is_unknown, UNKNOWN)


def _words(kind: str, own: pd.DataFrame) -> dict[str, str]:
    """Return {content: words}, such as "ViT-B/16" or "weights 6d9417".

    That is the end of the path if only this content has it, otherwise the kind and the digest's first digits.
    """
    places = own.groupby("content")["place"].agg(set)
    paths = {content: min(map(_path, found), key=_is_path) for content, found in places.items()}
    leads_to = defaultdict(set)
    for content, found in places.items():
        for place in found:
            leads_to[_path(place)].add(content)
    digests = [content.partition(" ")[2] for content in places.index if content.startswith("digest ")]
    digits = next(n for n in range(DIGITS, 65) if len({digest[:n] for digest in digests}) == len(digests) or n == 64)
    telling = [path for path in paths.values() if path and len(leads_to[path]) == 1]
    return {
        content: _end(path, telling) if path in telling else _told(kind, content, digits)
        for content, path in paths.items()
    }


def _told(kind, content, digits):
    what, _, value = content.partition(" ")
    if what == "place":
        parts = json.loads(value) if value.startswith("[") else [value]
        empty = f"no {kind}" if kind == "initial weights" else f"{kind} by name"
        return ", ".join(filter(None, parts)) or empty
    return f"{kind} {value[:digits] or UNKNOWN}"


def backbone_name(place: str) -> str:
    """Return a backbone's name for people: a path is its last part, after its layout.

    >>> backbone_name("ViT-B/16"), backbone_name("openai:/home/me/vit.pt"), backbone_name("")
    ('ViT-B/16', 'openai:vit.pt', '')
    """
    return _end(place, [place]) if place else ""


def _path(place: str) -> str:
    """Return the path of a place: the text itself, or the first of a list."""
    return json.loads(place)[0] if place.startswith("[") else place


def _is_path(text: str) -> tuple[bool, str]:
    """Return a key that sorts names before paths."""
    return text.startswith(("/", "~", ".")), text


def _end(path: str, others: list[str]) -> str:
    """Return the shortest end of a path, cut at slashes, that no other path has; a name stays whole."""
    if layout := _LAYOUT.match(path):  # the architecture is part of the backbone's name
        alike = [other.removeprefix(layout[0]) for other in others if other.startswith(layout[0])]
        return layout[0] + _end(path[layout.end() :], alike)
    if not _is_path(path)[0]:
        return path
    parts = path.split("/")
    ends = ("/".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f"/{other}".endswith(f"/{end}") for other in others) == 1), path)

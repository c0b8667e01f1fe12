"""Emoji concepts and their drawings, read from npm packages and rendered to small transparent bitmaps."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

PRETRAIN_STYLES = ("noto", "twemoji", "streamline-emojis", "fxemoji", "emojione-monotone")
BENCHMARK_STYLES = ("emojione", "fluent-emoji-flat", "noto-v1", "fluent-emoji-high-contrast")
SKIPPED_GROUPS = (1, 2, 8, 9)  # people, components, symbols, flags: hundreds of almost equal drawings or letters


@dataclass(frozen=True)
class Concept:
    """One emoji: its Unicode name, keywords and CLDR subgroup."""

    hexcode: str
    label: str
    tags: tuple[str, ...]
    subgroup: str


def load_concepts(npm: Path) -> list[Concept]:
    """Read every emoji outside `SKIPPED_GROUPS` from `emojibase-data`."""
    data = json.loads((npm / "emojibase-data/en/data.json").read_text(encoding="utf-8"))
    subgroups = json.loads((npm / "emojibase-data/meta/groups.json").read_text(encoding="utf-8"))["subgroups"]
    return [
        Concept(
            _hexcode(e["hexcode"]),
            e["label"].lower(),
            tuple(t.lower() for t in e.get("tags", ())),
            subgroups[str(e["subgroup"])],
        )
        for e in data
        if e.get("group") is not None and e["group"] not in SKIPPED_GROUPS
    ]


def find_icons(npm: Path, style: str, concepts: list[Concept]) -> dict[str, str]:
    """Map hexcode to icon name for one drawing style, by code point if the package knows it, otherwise by name."""
    folder = npm / "@iconify-json" / style
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    names = {_squeeze(n): n for n in (*icons.get("aliases", {}), *icons["icons"])}
    codes = {_hexcode(h): n for h, n in json.loads((folder / "chars.json").read_text(encoding="utf-8")).items()}
    known_names = _names_by_hexcode(npm)
    found = {}
    for concept in concepts:
        if concept.hexcode in codes:
            found[concept.hexcode] = codes[concept.hexcode]
            continue
        for name in (concept.label, *known_names.get(concept.hexcode, ())):
            if (icon := names.get(_squeeze(name)) or names.get(_squeeze(name) + "1")) is not None:
                found[concept.hexcode] = icon
                break
    return found


def render_style(npm: Path, style: str, concepts: list[Concept], size: int) -> dict[str, np.ndarray]:
    """Render one style: hexcode -> (size, size, 4) uint8 RGBA with a straight alpha channel."""
    icons = json.loads((npm / "@iconify-json" / style / "icons.json").read_text(encoding="utf-8"))
    return {h: _render(_svg(icons, name), size) for h, name in find_icons(npm, style, concepts).items()}


def _svg(icons: dict, name: str) -> str:
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"].replace("currentColor", "#000000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def _render(svg: str, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size * 2)))).convert("RGBA")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.asarray(canvas)


def _names_by_hexcode(npm: Path) -> dict[str, list[str]]:
    """Other names of an emoji: other styles' icon names, shortcodes, and the Unicode character's own name."""
    names: dict[str, list[str]] = {}
    for style in ("noto", "twemoji", "fluent-emoji-flat"):
        chars = json.loads((npm / "@iconify-json" / style / "chars.json").read_text(encoding="utf-8"))
        for code, name in chars.items():
            names.setdefault(_hexcode(code), []).append(name)
    for file in sorted((npm / "emojibase-data/en/shortcodes").glob("*.json")):
        for code, short in json.loads(file.read_text(encoding="utf-8")).items():
            names.setdefault(_hexcode(code), []).extend([short] if isinstance(short, str) else short)
    for code in list(names):
        if "-" not in code:
            names[code].append(unicodedata.name(chr(int(code, 16)), ""))
    return names


def _hexcode(text: str) -> str:
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name.lower()))

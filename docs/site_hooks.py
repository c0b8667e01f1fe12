"""mkdocs calls these. Pages at the top of the repository are pages of the site, under the links that GitHub follows."""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "datasets/embedded_data/ATTRIBUTION.md")
FOREIGN = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


def on_files(files, config):
    """Add the pages at the top."""
    for name in TOP:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links between docs/ and the top into links of the site."""
    depth = page.file.src_uri.count("/")
    above, here = ("docs/", "") if page.file.src_uri in TOP else ("../" * (depth + 1), "../" * depth)
    return markdown.replace(f"]({above}", f"]({here}")


def on_post_page(output, page, config):
    """Refuse a page that would load something from another place."""
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri}: the site has to work without a network, but has {found[0]}")
    return output

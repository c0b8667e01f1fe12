"""A table in LaTeX, with the package booktabs, as papers print it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspt_atlas.results.render import Shown

WIDE = 60  # letters of a row; wider tables span both columns of a page
_MARKS = "The best of each column is bold, the second best underlined."
_LETTERS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "†": r"$^\dagger$", "–": "--", "\n": " ", "\r": " ",
}  # fmt: skip


def escape(text: str) -> str:
    r"""Return a text that LaTeX prints as it is.

    >>> print(escape("n_ctx = 5 %"))
    n\_ctx = 5 \%
    """
    return "".join(_LETTERS.get(letter, letter) for letter in text)


def latex(table: Shown) -> str:
    """Return a table with caption and label; it needs the package booktabs."""
    width = max((sum(map(len, (*key, *(cell["text"] for cell in cells)))) for key, cells in table.rows), default=0)
    environment = "table*" if width > WIDE else "table"
    marks = f" {_MARKS}" if any(cell["rank"] for _, cells in table.rows for cell in cells) else ""
    label = "-".join("".join(letter if letter.isalnum() else " " for letter in table.title.lower()).split())
    head = " & ".join(map(escape, (*(f"{name[:1].upper()}{name[1:]}" for name in table.index), *table.columns)))
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            rf"\begin{{{environment}}}[t]",
            r"\centering",
            r"\small",
            rf"\caption{{{escape(f'{table.title}. {table.caption}')}{marks}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.index)}{'r' * len(table.columns)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *_lines(table),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{environment}}}",
        ]
    )


def _lines(table: Shown):
    before = None
    for key, cells in table.rows:
        group = key[:-1]
        if before not in (None, group):
            yield r"\midrule"
        names = [escape(name) for name in key] if group != before else [*[""] * len(group), escape(key[-1])]
        line = rf"{' & '.join([*names, *map(_cell, cells)])} \\"
        yield f"{{}}{line}" if line.startswith(("[", "*")) else line  # else an argument of the row before it
        before = group


def _cell(cell: dict) -> str:
    main = re.sub(r"-(?=\d)", "$-$", escape(cell["main"]))
    main = {1: rf"\textbf{{{main}}}", 2: rf"\underline{{{main}}}"}.get(cell["rank"], main)
    more = rf"{{\scriptsize{escape(cell['more'].replace(' ', ''))}}}" if cell["more"] else ""
    few = rf" {{\scriptsize {escape(cell['few'])}}}" if cell["few"] else ""
    return f"{main}{more}{few}"

"""Extras of the package: older versions of pip find a name only as the package's metadata has it."""

import re

from support.paths import ROOT


def test_names_of_extras_are_normalised():
    section = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    names = re.findall(r"^([\w.-]+) = \[", section.split("\n\n")[0], re.MULTILINE)
    assert names == [re.sub(r"[-_.]+", "-", name).lower() for name in names]
    asked = re.search(r"'\.\[([^]]*)\]'", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert asked and set(asked[1].split(",")) <= set(names)

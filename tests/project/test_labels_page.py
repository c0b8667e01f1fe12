"""The commands in docs/labels.md run one after the other on a small run."""

import csv
import json
import re
import shlex
import shutil

from dspt_atlas.cli import main
from dspt_atlas.report.page.decisions import COLUMNS
from dspt_atlas.results.cells import write_csv
from support.paths import ROOT

TEXT = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")


def test_the_whole_way_runs(tiny_noisy_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_noisy_run, "output/mine")
    (block,) = re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    commands = [line for line in block.replace("\\\n", "").splitlines() if not line.startswith("#")]
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
        if command.endswith("labels output/mine"):
            with open("output/mine/label_errors.csv", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["is_wrong"] == "1"]
            cells = [[row["split"], row["path"], row["given_label"], "other", row["clean_label"]] for row in rows]
            write_csv("label_decisions.csv", COLUMNS, cells)  # as somebody who knows
    assert len(commands) == 5 and len(cells) == 12
    results = {name: json.loads((tmp_path / f"output/mine_corrected/{name}/result.json").read_text()) for name in
               ("before", "after")}  # fmt: skip
    old = json.loads((tmp_path / "output/mine/result.json").read_text())
    assert results["before"]["accuracy"] == old["accuracy"] and results["after"]["noise"] is None
    assert f"{results['after']['accuracy']:.1f}" in capsys.readouterr().out

"""The command dspt-atlas: what its help says, when torch is loaded, how options and KEY VALUE pairs are read."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from dspt_atlas import cli
from dspt_atlas.commands import COMMANDS, OLD_SPELLINGS, Parser
from dspt_atlas.plan.planner import read_plan
from support.paths import ROOT

WITHOUT_TORCH = ([], *([name] for name in COMMANDS), ["run", "noisy"])
LIST = (
    "import sys; from dspt_atlas.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\nprint(*sys.modules)"
)


def _parser(name):
    return importlib.import_module(f"dspt_atlas.{COMMANDS[name].module}").build_parser()


def test_the_help_names_every_sub_command(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert [line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == [name]] == [command.line]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_sub_command_ends_with_an_example_that_can_be_read(name, capsys):
    parser = _parser(name)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help"])
    *_, title, example = capsys.readouterr().out.splitlines()
    program, sub_command, *arguments = shlex.split(example)
    assert (stop.value.code, title, program, sub_command) == (0, "example:", "dspt-atlas", name)
    parser.parse_args(arguments)


def test_the_page_of_the_commands_says_what_their_help_says(capsys):
    assert cli.main(["--help", "--markdown"]) == 0
    printed, page = capsys.readouterr().out, (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert printed.split() == page.split(), "dspt-atlas --help --markdown > docs/commands.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_has_one_spelling(name):
    for action in _parser(name)._actions:
        assert not {*OLD_SPELLINGS} & {*action.option_strings}


@pytest.mark.parametrize("words", WITHOUT_TORCH, ids=lambda words: " ".join(words) or "dspt-atlas")
def test_help_loads_no_torch(words):
    done = subprocess.run(
        [sys.executable, "-c", LIST, *words, "--help"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    loaded = done[-1].split()
    assert "dspt_atlas.commands" in loaded and not {"torch", "dassl"} & {*loaded}


@pytest.mark.parametrize("words, named", [(["tabel"], "table"), ([], "--help"), (["nothing at all"], "nothing at all")])
def test_an_unknown_sub_command_is_one_sentence(words, named, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


PAIRS = ("OPTIM.LR", "-1", "VERBOSE", "False")


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer", "CoOp", "--seed", "2", *PAIRS],
        [*PAIRS, "--trainer", "CoOp", "--seed", "2"],
        ["--trainer", "CoOp", *PAIRS, "--seed", "2"],
        ["--seed", "2", "--trainer", "CoOp", "--", *PAIRS],
        ["--trainer", "CoOp", *PAIRS[:2], "--seed", "2", "--", *PAIRS[2:]],
    ],
)
def test_pairs_may_stand_anywhere(words):
    options = _parser("train").parse_args(words)
    assert (options.trainer, options.seed, options.pairs) == ("CoOp", 2, PAIRS)


def test_pairs_after_several_values_of_an_option_are_not_taken_for_values():
    options = _parser("train").parse_args(["--transforms", "random_flip", "normalize", *PAIRS])
    assert (options.transforms, options.pairs) == (["random_flip", "normalize"], PAIRS)


def test_a_value_that_looks_like_a_key_stays_a_value():
    options = _parser("train").parse_args(["--output-dir", "RUN.A", *PAIRS])
    assert (options.output_dir, options.pairs) == ("RUN.A", PAIRS)


@pytest.mark.parametrize("words", [["OPTIM.LR"], ["OPTIM.LR", "--seed", "1"], ["optim.lr"]])
def test_a_key_without_a_value_stays_alone(words):
    assert len(_parser("train").parse_args(["--trainer", "CoOp", *words]).pairs) == 1


@pytest.mark.parametrize("old, new", OLD_SPELLINGS.items())
def test_old_spellings_are_read(old, new):
    parser = Parser("predict", example="")
    parser.add_argument(new, dest="value")
    for words in ([old, "1"], [f"{old}=1"], [new, "1"]):
        assert parser.parse_args(words).value == "1"


@pytest.mark.parametrize("words, seeds", [(["1,2,3"], (1, 2, 3)), (["1", "2,3"], (1, 2, 3)), (["0"], (0,))])
def test_seeds_are_separated_by_blanks_or_commas(words, seeds):
    assert _parser("table").parse_args(["output", "--seeds", *words]).seeds == seeds


@pytest.mark.parametrize("words", [["one"], ["-1"], [","], ["1.5"]])
def test_what_is_not_a_seed_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        _parser("table").parse_args(["output", "--seeds", *words])
    assert stop.value.code == 2 and "--seeds" in capsys.readouterr().err


def _commands_in_docs():
    """Yield what README.md and docs/*.md tell a reader to type after dspt-atlas."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if path.name == "commands.md":  # it is made of the parsers
            continue
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *dspt-atlas (.*)$", text, re.MULTILINE):
            yield pytest.param(shlex.split(line, comments=True), id=f"{path.name}: {line.split('#')[0].strip()}")


@pytest.mark.parametrize("words", list(_commands_in_docs()))
def test_a_command_of_the_docs_can_be_read(words):
    name, *arguments = words
    if name == "run":
        parser = importlib.import_module("dspt_atlas.tools.run_plan").build_parser(read_plan(arguments[0]))
    elif name != "--help":
        parser = _parser(name)
    assert name == "--help" or parser.parse_args(arguments)


def test_the_command_is_the_module_and_the_scripts_of_the_family(tmp_path):
    starts = (["-m", "dspt_atlas", "table"], [str(ROOT / "scripts" / "parse_results.py")])
    said = [
        subprocess.run([sys.executable, *start, "nowhere"], cwd=tmp_path, capture_output=True, check=False)
        for start in starts
    ]
    assert {done.returncode for done in said} == {2} and said[0].stderr == said[1].stderr


@pytest.mark.parametrize("below", ["", "/below"])
@pytest.mark.parametrize(
    "words",
    [
        ["figures", "RUN"],
        ["labels", "RUN"],
        ["profile", "RUN"],
        ["evidence"],
        ["sweep", "embedded_noisy"],
        ["run", "demo"],
    ],
    ids=lambda words: words[0],
)
def test_an_output_folder_that_is_a_file_is_refused_first(words, below, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli.main([*words, "--output", f"{tmp_path}/file{below}"]) == 2
    error = capsys.readouterr().err
    assert "--output" in error and str(tmp_path / "file") in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"

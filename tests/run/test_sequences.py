"""Sequences of starts, kills and changes: each number in a table is the number of a clean run with its row's settings.

Whatever cannot be that is refused in one sentence and leaves the folders as they were, and no file of others is lost.
`DSPT_ATLAS_SEQUENCE_MINUTES=60 pytest -s tests/run/test_sequences.py` goes on with other sequences for an hour.
"""

import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean

import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dspt_atlas.results.read import load
from dspt_atlas.results.render import render
from dspt_atlas.results.rows import SETTING
from dspt_atlas.results.tables import build_tables
from dspt_atlas.trainers.measures import MEASURES
from support.runs import result_of
from support.sequences_world import EDITS, SHOTS, CleanRuns, Data, Driver, Spec, measured, snapshot, start, write_yamls

MINUTES = float(os.environ.get("DSPT_ATLAS_SEQUENCE_MINUTES", "0"))
FIRST_SEED = int(os.environ.get("DSPT_ATLAS_SEQUENCE_SEED", "1"))
# What the written sequence comes to; the drawn ones come to whatever they do.
REACHED = {"training, new: 0", "training, begun: 0", "training, done: 2", "test, new: 0", "protocol: 0"}
REACHED |= {"rows: 3", "largest row: 2"}
RUN_FILES = ("config.yaml", "log.txt", "noise.json", "result.json", "prompt_learner/checkpoint")  # of no run: refused
HARMLESS = ("notes.txt", "config.yaml.bak", "x.tmp1", ".x.tmp", "prompt_learner/notes.txt", "prompt_learner/x.tmp1")
TRAINERS = st.sampled_from(["CoOp", "CoOp", "CoOpDSPT", "ZeroshotCLIP"])
LEARNED = st.sampled_from(["CoOp", "CoOpDSPT"])
SEEDS = st.sampled_from([1, 1, 2, -1])
CLASSES = st.sampled_from(["all", "all", "base", "new"])
SPLITS = st.sampled_from(["test", "test", "test", "val"])
KINDS = st.sampled_from(["pets", "birds"])
ROOTS = st.sampled_from(["A", "B"])
WEIGHTS = st.sampled_from(["clip.pt", "clip.pt", "again.pt"])
PLACES = st.sampled_from(["x1", "x2", "own"])  # own: the folder that a protocol chooses
SIGNALS = st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
# The N-th change in a folder; those of a training in output begin before its lock and end with its last checkpoint.
MOMENTS = st.sampled_from([*(("output", number) for number in range(6, 56)), *(("cache", n) for n in range(1, 40))])
OFTEN = st.sampled_from([False, False, True])


class Sequences(RuleBasedStateMachine):
    """Starts runs in a world that changes, and knows what each folder holds."""

    driver = clean = outcomes = None

    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="sequences"))
        self.output = self.home / "output"
        self.data = {name: Data(self.home / name, self.clean.pristine) for name in ("A", "B")}
        self.yaml = {"rate": 0.5, "epochs": 2}
        self.variants = {}
        for name in ("clip.pt", "again.pt"):
            self._write_weights(name, 0)
        write_yamls(self.home, **self.yaml)
        self.known: dict[Path, Spec] = {}  # what was started in a folder, whatever became of it
        self.starts: dict[Path, tuple] = {}  # the last start of a training in a folder: spec, root, weights
        self.foreign: dict[Path, bytes] = {}

    def teardown(self):
        shutil.rmtree(self.home)

    # What changes the world

    @rule(key=st.sampled_from(["rate", "epochs"]))
    def edit_a_yaml(self, key):
        self.yaml[key] = {0.5: 4.0, 4.0: 0.5}[self.yaml[key]] if key == "rate" else 3 - self.yaml[key]
        write_yamls(self.home, **self.yaml)

    @rule(root=ROOTS, edit=st.sampled_from([(kind, edit) for kind, edits in EDITS.items() for edit in edits]))
    def edit_the_data(self, root, edit):
        self.data[root].edit(*edit)

    @rule(root=ROOTS)
    def move_the_data(self, root):
        old = self.data[root].root
        self.data[root].root = old.with_name(root if old.name != root else f"{root} moved")
        old.rename(self.data[root].root)

    @rule()
    def replace_the_weights(self):
        self._write_weights("clip.pt", 1 - self.variants["clip.pt"])

    def _write_weights(self, name, variant):
        self.variants[name] = variant
        shutil.copy(self.clean.weights(variant), self.home / "new.pt")
        os.replace(self.home / "new.pt", self.home / name)

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def remove_a_run(self, data):
        folder = data.draw(st.sampled_from(sorted(self.known)))
        shutil.rmtree(folder, ignore_errors=True)
        del self.known[folder]
        self.starts.pop(folder, None)
        self.foreign = {path: text for path, text in self.foreign.items() if not path.is_relative_to(folder)}

    # Files of others

    @rule(
        place=st.sampled_from(["x1", "x2", "test", ".", "noisy", "base2new"]),
        name=st.sampled_from([*HARMLESS, *RUN_FILES]),
    )
    def put_a_foreign_file(self, place, name):
        path = self.output / place / name
        is_ours = name in RUN_FILES and self.output / place in self.known
        if is_ours or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}: of somebody else\n")
        self.foreign[path] = path.read_bytes()

    @rule(data=st.data())
    @precondition(lambda self: self.foreign)
    def take_a_foreign_file_away(self, data):
        path = data.draw(st.sampled_from(sorted(self.foreign)))
        path.unlink()
        del self.foreign[path]

    @invariant()
    def no_file_of_others_is_lost(self):
        for path, content in self.foreign.items():
            assert path.read_bytes() == content, path

    # Starts

    @rule(
        spec=st.builds(Spec, TRAINERS, SEEDS, noise=OFTEN, classes=CLASSES, split=SPLITS, kind=KINDS), root=ROOTS,
        weights=WEIGHTS, place=PLACES, is_near=OFTEN,
    )  # fmt: skip
    def train(self, spec, root, weights, place, is_near):
        spec = self._asked(spec, root, weights)
        self._start(spec, root, weights, self._folder(spec, place), is_near)

    @rule(
        spec=st.builds(Spec, TRAINERS, SEEDS, noise=OFTEN, kind=KINDS), root=ROOTS, weights=WEIGHTS, place=PLACES,
        signum=SIGNALS, moment=MOMENTS, again=st.booleans(),
    )  # fmt: skip
    def train_and_be_killed(self, spec, root, weights, place, signum, moment, again):
        spec = self._asked(spec, root, weights)
        folder = self._folder(spec, place)
        self._start(spec, root, weights, folder, signum=signum, moment=moment)
        if again:
            self._start(spec, root, weights, folder)

    @rule(data=st.data(), other_root=st.none() | ROOTS, signum=st.sampled_from([0, 0, signal.SIGKILL]), moment=MOMENTS)
    @precondition(lambda self: self.starts)
    def start_again(self, data, other_root, signum, moment):
        begun = [folder for folder in self.starts if folder in self.known and not (folder / "result.json").is_file()]
        folder = data.draw(st.sampled_from(sorted(begun or self.starts)))
        spec, root, weights = self.starts[folder]
        root = other_root or root
        self._start(self._asked(spec, root, weights), root, weights, folder, signum=signum, moment=moment)

    @rule(data=st.data(), root=ROOTS, place=PLACES)
    @precondition(lambda self: self._trainings())
    def resume_from_another_folder(self, data, root, place):
        source = data.draw(st.sampled_from(self._trainings()))
        there = self.known[source]
        spec = self._asked(there.asked, root, "clip.pt")
        folder = self._folder(spec, place)
        has_other_seed = folder in self.known and self.known[folder].drawn not in (None, there.drawn)
        is_done = self._is_done(folder) and self.known[folder].asked == spec.asked
        fits = is_done or (there.asked == spec.asked and not has_other_seed)
        is_allowed = fits and (source / "prompt_learner" / "checkpoint").is_file()
        allowed = self._expected(folder, spec) if is_allowed else {2}
        self._start(spec, root, "clip.pt", folder, options=("--resume", source), allowed=allowed)

    @rule(
        data=st.data(), root=ROOTS, weights=WEIGHTS, kind=KINDS, classes=CLASSES, split=SPLITS,
        epoch=st.sampled_from([None, None, 1, 2]), place=st.sampled_from(["test", "test", "x1"]),
    )  # fmt: skip
    @precondition(lambda self: self._trainings())
    def test_a_training(self, data, root, weights, kind, classes, split, epoch, place):
        folder = data.draw(st.sampled_from([*self._trainings(), self.output / "none"]))
        training = self.known.get(folder, Spec())
        spec = self._asked(Spec(training.trainer, classes=classes, split=split, kind=kind), root, weights)
        if spec.trainer.startswith("Zeroshot"):
            return
        spec = replace(spec, tested=(training, epoch))
        options = ["--eval-only", "--model-dir", folder, *([] if epoch is None else ["--load-epoch", epoch])]
        allowed = self._expected(self.output / place, spec) if self._can_be_tested(folder, spec) else {2}
        self._start(spec, root, weights, self.output / place, options=options, allowed=allowed)

    def _can_be_tested(self, folder, spec):
        training, epoch = spec.tested
        if folder not in self.known or (training.trainer, training.weights) != (spec.trainer, spec.weights):
            return False
        if epoch is None:
            return self._is_done(folder)
        return (folder / "prompt_learner" / f"model.pth.tar-{epoch}").is_file()

    @rule(
        trainer=LEARNED, seeds=st.sampled_from([(1,), (1, 2)]), kind=KINDS, root=ROOTS, weights=WEIGHTS,
        protocol=st.sampled_from(["noisy", "base2new", "fewshot", "crossdataset"]), noise=OFTEN, by_sweep=st.booleans(),
        signum=st.sampled_from([0, 0, signal.SIGKILL, signal.SIGTERM]),
        moment=st.tuples(st.sampled_from(["output", "output", "cache"]), st.integers(1, 150)),
    )  # fmt: skip
    def protocol_or_sweep(self, trainer, seeds, kind, root, weights, protocol, noise, by_sweep, signum, moment):
        spec = self._asked(Spec(trainer, kind=kind, noise=noise and protocol == "noisy"), root, weights)
        jobs = [job for number in seeds for job in self._jobs(protocol, replace(spec, seed=number), root)]
        command = self._sweep if by_sweep else self._protocol
        before = {folder: snapshot(folder) for folder, _ in jobs}
        allowed, failed = {}, False
        for folder, one in jobs:
            is_left_out = one.tested and failed  # its training comes right before it
            allowed[folder] = {2} if is_left_out else self._expected(folder, one)
            failed = allowed[folder] == {2}
        status, errors = self._ask(command(protocol, spec, seeds, root, weights), signum=signum, moment=moment)
        assert "Traceback" not in errors, errors
        for folder, one in jobs:
            if {2} == allowed[folder]:
                assert snapshot(folder) == before[folder], folder
            else:
                is_finished = (folder / "result.json").is_file()
                assert is_finished or signum or {0} != allowed[folder], (folder, status, errors)
                self._learn(folder, one, len(allowed[folder]) > 1)
        if not signum and {0, 2} not in allowed.values():
            expected = 0 if {2} not in allowed.values() else 1 if by_sweep else 2
            assert status == expected, (status, expected, errors)
        self._note(("sweep" if by_sweep else "protocol") + (" killed" if signum else "") + f": {status}")

    def _protocol(self, protocol, spec, seeds, root, weights):
        noise = ["sym", "0.5"] if spec.noise else ["none"]
        targets = ["--targets", self.home / "birds.yaml"]
        more = {"noisy": noise, "crossdataset": targets}.get(protocol, [])
        return [
            protocol, self.home / f"{spec.kind}.yaml", *more, "--trainer", spec.trainer, "--shots", SHOTS, "--seeds",
            ",".join(map(str, seeds)), "--config", self.home / "own.yaml", "--root", self.data[root].root,
            "--output", self.output, "--workers", 1, "--", "MODEL.BACKBONE.NAME", self.home / weights,
        ]  # fmt: skip

    def _sweep(self, protocol, spec, seeds, root, weights):
        lines = {
            "protocol": protocol, "datasets": str(self.home / f"{spec.kind}.yaml"), "trainers": spec.trainer,
            "configs": str(self.home / "own.yaml"), "shots": SHOTS, "noise": "sym 0.5" if spec.noise else "none",
            "seeds": list(seeds), "MODEL.BACKBONE.NAME": str(self.home / weights),
        }  # fmt: skip
        lines |= {"targets": str(self.home / "birds.yaml")} if protocol == "crossdataset" else {}
        (self.home / "sweep.yaml").write_text(json.dumps(lines))
        return ["sweep", self.home / "sweep.yaml", self.data[root].root, self.output, self.home]

    # What is expected

    def _asked(self, spec, root, weights):
        """Return an experiment as the world makes it now."""
        edits = self.data[root].fingerprint(spec.kind)
        return replace(spec, **self.yaml, data=edits, weights=self.variants[weights], drawn=None)

    def _folder(self, spec, place):
        if place != "own":
            return self.output / place
        return self._jobs("noisy" if spec.classes == "all" else "base2new", spec)[spec.classes == "new"][0]

    def _jobs(self, protocol, spec, root="A"):
        """Return the runs of a protocol: folders and what they are."""
        tail = Path(f"shots_{SHOTS}", spec.trainer, "own", f"seed{spec.seed}")
        if protocol == "noisy":
            return [(self.output / "noisy" / spec.kind / ("sym_0.5" if spec.noise else "clean") / tail, spec)]
        if protocol == "fewshot":
            return [(self.output / "fewshot" / spec.kind / tail, spec)]
        if protocol == "crossdataset":
            tail, seed = Path(spec.trainer, f"own_{SHOTS}shots"), f"seed{spec.seed}"
            test = replace(spec, kind="birds", data=self.data[root].fingerprint("birds"), tested=(spec, None))
            return [
                (self.output / spec.kind / tail / seed, spec),
                (self.output / "evaluation" / tail / "birds" / seed, test),
            ]
        base = replace(spec, classes="base", tested=None)
        folders = [self.output / "base2new" / part / spec.kind / tail for part in ("train_base", "test_new")]
        return [(folders[0], base), (folders[1], replace(spec, classes="new", tested=(base, None)))]

    def _trainings(self):
        return sorted(folder for folder, spec in self.known.items() if not spec.tested)

    def _is_done(self, folder):
        """Return whether a folder holds a run's result."""
        return folder in self.known and (folder / "result.json").is_file()

    def _expected(self, folder, spec):
        """Return the exit statuses that a start of an experiment in a folder may have."""
        if folder not in self.known:
            return {2} if any(folder / name in self.foreign for name in RUN_FILES) else {0}
        known = self.known[folder]
        own, other = (replace(side, tested=None).asked for side in (known, spec))
        if self._is_done(folder):
            return {0} if known.asked == spec.asked or (own == other and self._is_outdated(folder, spec)) else {2}
        if spec.tested and not known.tested and (folder / "prompt_learner" / "checkpoint").is_file():
            return {2}
        if not (folder / "identity.json").is_file():
            return {0, 2}  # nothing tells what its data were
        return {0} if own == other else {2}

    def _is_outdated(self, folder, spec):
        """Return whether a test is done again, because it does not know what the tested model was trained on."""
        known = self.known[folder]
        if not (known.tested and spec.tested) or known.tested[1] != spec.tested[1]:
            return False
        return result_of(folder)["evaluated"]["trained_on"] is None

    # What came of it

    def _ask(self, command, folder="/", signum=0, moment=("output", 0)):
        """Start a command in a folder, with relative paths in the world's; return exit status and standard error."""
        if folder == self.home:
            command = [str(part).replace(f"{self.home}/", "") for part in command]
        return self.driver.ask(command, self.home / "cache", folder, self.home / moment[0], int(signum), moment[1])

    def _start(
        self, spec, root, weights, folder, is_near=False, signum=0, moment=("output", 0), options=(), allowed=None
    ):
        allowed = allowed or self._expected(folder, spec)
        if not options:
            self.starts[folder] = spec, root, weights
        command = start(self.home, self.data[root].root, spec, self.home / weights, folder)
        command[1:1] = options
        before = snapshot(self.output)
        state = "new" if folder not in self.known else "done" if self._is_done(folder) else "begun"
        status, errors = self._ask(command, self.home if is_near else "/", signum, moment)
        assert "Traceback" not in errors and errors.count("\n") == (status > 0), errors
        assert status in allowed | ({-signum, 128 + signum} if signum else set()), (status, allowed, errors, command)
        if status == 2 or allowed == {2}:
            assert snapshot(self.output) == before, errors
        else:
            self._learn(folder, spec, len(allowed) > 1)
        kind = "test" if spec.tested else "resume" if options else "training"
        self._note(f"{kind}, {state}: {status}")

    def _learn(self, folder, spec, is_new=False):
        """Note what a folder holds after a start that was not refused, and check it; is_new: whatever it held."""
        if not (folder / "config.yaml").is_file():
            self.known.pop(folder, None)
        elif folder / "config.yaml" not in self.foreign:
            if is_new or folder not in self.known or (folder / "result.json").is_file():
                self.known[folder] = spec
            if (folder / "identity.json").is_file():
                drawn = json.loads((folder / "identity.json").read_text())["drawn_seed"]
                self.known[folder] = replace(self.known[folder], drawn=drawn)
            if self._is_done(folder):
                assert self._matches(folder), (folder, self.known[folder])

    def _matches(self, folder):
        """Return whether a folder's result is that of a clean run."""
        own, clean = measured(folder), self.clean.result(self.known[folder])
        return all(own[name] == clean[name] for name in own if name != "folder")

    def _note(self, outcome):
        self.outcomes[outcome] += 1
        if currently_in_test_context():
            event(outcome)

    @invariant()
    def each_number_is_that_of_a_clean_run_of_what_its_row_names(self):
        done = {folder: spec for folder, spec in self.known.items() if self._is_done(folder)}
        if not done:
            return
        results = load([self.output]).frame
        records, rows = list(results.itertuples()), {}
        for record in records:
            clean = self.clean.result(done[record.folder])
            assert all(getattr(record, name) == clean[name] for name in MEASURES), record
            setting = tuple(str(getattr(record, name)) for name in SETTING)
            rows.setdefault((record.row, setting), []).append(record)
        for key, group in rows.items():
            specs = [done[record.folder] for record in group]
            assert len({spec.row for spec in specs}) == 1, (key, specs)
            assert len({record.seed for record in group}) == len(group), (key, specs)
        counted = {(done[record.folder].row, record.seed) for record in records}
        for spec in done.values():
            assert (spec.row, _given_seed(spec)) in counted, spec
        self._check_tables(results, rows)
        self._note(f"rows: {min(len(rows), 3)}")
        self._note(f"largest row: {max(map(len, rows.values()))}")

    def _check_tables(self, results, rows):
        """Check that each number of the tables stands for one group of results, and each group is in a table."""
        groups = set()
        for (method, _), group in rows.items():
            mean = sum(record.accuracy for record in group) / len(group)
            groups.add((method, round(mean, 6), *sorted(record.seed for record in group)))
        entries = json.loads(render(build_tables(results), set(), "json"))
        shown = {(entry["method"], round(entry["mean"], 6), *entry["seeds"]) for entry in entries if entry["seeds"]}
        assert shown == groups
        by_row = {}
        for entry in entries:
            row = tuple(entry.values())[: list(entry).index("column")]
            by_row.setdefault(row, {})[entry["column"]] = entry["mean"]
        for row in by_row.values():
            if row.get("H") is not None:
                assert row["H"] == pytest.approx(harmonic_mean([row["base"], row["new"]]))


def _given_seed(spec):
    training = spec.tested[0] if spec.tested else spec
    return training.seed if training.drawn is None else training.drawn


def run_sequences(number, examples, steps):
    """Do sequences of a seed."""
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
        report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(seed(number)(Sequences), settings=chosen)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    driver = Driver(tmp_path_factory.mktemp("driver"))
    Sequences.driver, Sequences.outcomes = driver, Counter()
    Sequences.clean = CleanRuns(tmp_path_factory.mktemp("clean"), driver)
    yield
    driver.close()


def kill_after_its_first_checkpoint(sequence, place):
    """Start trainings in a folder, each killed a bit later, until one leaves a checkpoint and no result."""
    folder = sequence.output / place
    for number in range(20, 200, 2):
        sequence.train_and_be_killed(
            Spec("CoOp", 1), "A", "clip.pt", place, signal.SIGKILL, ("output", number), again=False
        )
        if (folder / "prompt_learner" / "checkpoint").is_file():
            break
        shutil.rmtree(folder, ignore_errors=True)
        sequence.known.pop(folder, None)
    assert not (folder / "result.json").is_file()


@pytest.mark.slow
def test_each_kind_of_start_gives_the_number_of_a_clean_run(world):
    Sequences.outcomes.clear()
    sequence = Sequences()
    try:
        kill_after_its_first_checkpoint(sequence, "x1")
        begun = sequence.output / "x1"
        sequence._start(*sequence.starts[begun], begun)
        sequence.train(Spec("CoOp", 2), "A", "clip.pt", "x2", False)
        sequence.train(Spec("CoOpDSPT", 1), "A", "clip.pt", "x2", False)
        trained = Spec("CoOp", 1)
        tested = replace(sequence._asked(trained, "A", "clip.pt"), tested=(sequence.known[begun], None), kind="birds")
        tested = replace(tested, data=sequence.data["A"].fingerprint("birds"))
        options = ["--eval-only", "--model-dir", begun]
        sequence._start(tested, "A", "clip.pt", sequence.output / "test", options=options)
        sequence.protocol_or_sweep(
            "CoOpDSPT", (1,), "pets", "A", "clip.pt", "noisy", True, False, 0, ("output", 1)
        )  # fmt: skip
        sequence.no_file_of_others_is_lost()
        sequence.each_number_is_that_of_a_clean_run_of_what_its_row_names()
    finally:
        sequence.teardown()
    assert REACHED <= set(Sequences.outcomes), Sequences.outcomes


@pytest.mark.slow
def test_whatever_happened_before_each_number_is_that_of_a_clean_run(world):
    begin, number = time.monotonic(), FIRST_SEED
    run_sequences(number, 10, 20)
    while time.monotonic() - begin < 60 * MINUTES:
        number += 1
        run_sequences(number, 20, 40)
        print(f"seed {number}: {(time.monotonic() - begin) / 60:.0f} minutes, {len(Sequences.clean)} clean runs")
    print(json.dumps(Sequences.outcomes, indent=1, sort_keys=True))

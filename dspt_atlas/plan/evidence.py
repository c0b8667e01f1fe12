"""What the evidence run consists of, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import register_standard
from dspt_atlas.config.benchmarks import CROSS_DATASET, DOMAIN_GENERALISATION
from dspt_atlas.config.build import check_choice
from dspt_atlas.launch.job import Job
from dspt_atlas.plan.jobs import Planner, Settings, learner_of

PARTS = ("noise", "generalisation", "ablations", "figures")
NOISE_METHODS = ("DSPT", "", "GCE", "MAE", "LS", "NLPrompt", "JoAPR")
GENERALISATION_METHODS = (
    ("", ""),
    ("LS", ""),
    *(("ATLaS", kind) for kind in ("ls", "csl", "isl")),
    ("TFKD", ""),
    ("OLS", ""),
)
SHORT = {"CoOp": "emoji_rn_ep20", "CoCoOp": "emoji_rn_ep4", "MaPLe": "emoji_vit_ep4"}  # fewer epochs, for time
SEEDS = {"noise": (1, 2, 3, 4, 5), "generalisation": (1, 2, 3), "ablations": (1, 2, 3), "figures": (1,)}
# 16 shots are the training on the source; two others for the slower prompt learners, for time.
FEWER_SHOTS = {"CoOp": (1, 2, 4, 8), "CoCoOp": (1, 4), "MaPLe": (1, 4)}
ABLATION = "ablation"  # in the folder of a run whose settings differ from the method's
PROFILE = "profile"  # in the folder of a run that records more, for the figures
ATLAS_ABLATIONS = {
    "PERIOD": (3, 5, 10),
    "ALPHA": (0.05, 0.2, 0.5, 1.0),
    "CSL_TEMPERATURE": (0.02, 0.05, 0.2, 0.5),
    "ISL_TEMPERATURE": (0.25, 0.5, 2.0, 4.0),
}
DSPT_ABLATIONS = {"TEMPERATURE": (0.25, 0.5, 2.0, 4.0), "PRECISION": ("bf16",)}
TFKD_MEAN = "3.3333"  # MULTIPLIER 100 / C for the 30 base classes: KL averaged over the classes (docs/methods.md)


def plan(output: Path, seeds: tuple[int, ...] = (), pairs: tuple[str, ...] = ()) -> list[tuple[str, Job]]:
    """Return (part, run) in the order in which they are done: main claims first, a method's seeds together.

    seeds: in place of each part's own. pairs: KEY VALUE pairs of every run.
    """
    register_standard()
    return list(_plan(_Plan(Path(output), tuple(seeds), tuple(pairs))))


class _Plan:
    """Makes the runs of one part and method."""

    def __init__(self, output, seeds, pairs):
        self.output, self.seeds, self.pairs = output, seeds, pairs

    def planner(self, part, protocol, trainer, soft_labels="", label="", own=()):
        check_choice("trainer", trainer, TRAINER_REGISTRY.registered_names(), "its registration")
        config = "" if protocol == "noisy" else SHORT[learner_of(trainer)]
        seeds = self.seeds or SEEDS[part]
        pairs = (*own, *self.pairs)
        settings = Settings("", self.output, seeds, config, soft_labels, pairs, may_fall_back=False, label=label)
        return Planner(settings, protocol, trainer)

    def noise(self, *settings):
        for noise_type, rate in settings:
            for trainer in ("ZeroshotCLIP", *(f"CoOp{method}" for method in NOISE_METHODS)):
                for job in self.planner("noise", "noisy", trainer).noisy("emoji", 16, noise_type, rate):
                    yield "noise", job

    def generalisation(self, protocol, *learners):
        for learner in learners:
            for method, soft_labels in GENERALISATION_METHODS:
                planner = self.planner("generalisation", protocol, learner + method, soft_labels)
                for job in self._protocol_jobs(planner):
                    yield "generalisation", job

    def zero_shot(self):
        """Yield the models before learning on base, new and target classes: the ResNet, then MaPLe's ViT."""
        for config in (SHORT["CoOp"], "emoji_vit"):
            for protocol in ("base2new", "transfer"):
                planner = self.planner("generalisation", protocol, "ZeroshotCLIP")
                planner.settings = replace(planner.settings, config=config)
                for job in self._protocol_jobs(planner):
                    yield "generalisation", job

    def _protocol_jobs(self, planner):
        if planner.protocol == "transfer":
            yield from planner.transfer("emoji", 16, (*CROSS_DATASET["emoji"], *DOMAIN_GENERALISATION["emoji"]))
        elif planner.protocol == "base2new":
            for job in planner.base2new("emoji", 16):
                yield _with_curves(job) if planner.trainer.startswith("CoOp") else job
        else:
            for shots in FEWER_SHOTS[learner_of(planner.trainer)]:
                yield from planner.fewshot("emoji", shots)

    def atlas_ablations(self):
        for key, values in ATLAS_ABLATIONS.items():
            kinds = (key[:3].lower(),) if key.endswith("TEMPERATURE") else ("ls", "csl", "isl")
            for kind in kinds:
                for value in values:
                    own = (f"TRAINER.ATLAS.{key}", f"{value:g}")
                    yield from self._ablated("CoOpATLaS", kind, f"{key.lower()}_{value:g}", own)
        yield from self._ablated("CoOpTFKD", "", "multiplier_100_by_c", ("TRAINER.TFKD.MULTIPLIER", TFKD_MEAN))

    def _ablated(self, trainer, kind, name, own):
        planner = self.planner("ablations", "base2new", trainer, kind, f"{ABLATION}_{name}", own)
        for job in planner.base2new("emoji", 16):
            yield "ablations", job

    def dspt_ablations(self):
        for key, values in DSPT_ABLATIONS.items():
            for value in values:
                own = (f"TRAINER.DSPT.{key}", str(value))
                planner = self.planner("ablations", "noisy", "CoOpDSPT", "", f"{ABLATION}_{key.lower()}_{value}", own)
                for noise in (("sym", 0.5), ("none", 0.0)):
                    for job in planner.noisy("emoji", 16, *noise):
                        yield "ablations", job

    def profiles(self):
        own = ("TEST.PERIOD", "1", "TRAIN.GRADIENT_PROFILE", "True", "TRAIN.CHECKPOINT_FREQ", "10")
        for method in ("", "GCE", "MAE", "DSPT"):
            for job in self.planner("figures", "noisy", f"CoOp{method}", "", PROFILE, own).noisy(
                "emoji", 16, "sym", 0.5
            ):
                yield "figures", job


def _plan(plan: _Plan) -> Iterator[tuple[str, Job]]:
    yield from plan.noise(("sym", 0.5), ("none", 0.0))
    yield from plan.generalisation("base2new", "CoOp")
    yield from plan.zero_shot()
    yield from plan.noise(("sym", 0.75), ("asym", 0.5))
    yield from plan.generalisation("transfer", "CoOp")
    yield from plan.profiles()
    yield from plan.generalisation("base2new", "CoCoOp", "MaPLe")
    yield from plan.dspt_ablations()
    yield from plan.noise(("sym", 0.25), ("asym", 0.25))
    yield from plan.atlas_ablations()
    yield from plan.generalisation("transfer", "CoCoOp", "MaPLe")
    yield from plan.generalisation("fewshot", "CoOp", "CoCoOp", "MaPLe")


def _with_curves(job: Job) -> Job:
    """Let a training on the base classes note both accuracies after every epoch."""
    if job.option("--model-dir"):
        return job
    return replace(job, arguments=(*job.arguments, "TEST.PERIOD", "1", "TEST.NEW_CLASSES", "True"))

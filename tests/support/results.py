"""Result files and logs of other repositories, written without a run; and what the tables make of them."""

import json

from dspt_atlas.report import table as reports
from dspt_atlas.results.read import load

SYM = {"family": "relabel", "type": "sym", "rate": 0.5}


def fields_of(accuracy, trainer="CoOp", dataset="Emoji", seed=1, shots=16, noise=None, folder="", **more):
    """Return the fields that tables read; `more` overrides them. Runs that differ by nothing else differ in LR."""
    config = {"OUTPUT_DIR": str(folder), "SEED": seed, "OPTIM": {"LR": more.pop("lr", 0.1)}}
    config["TRAINER"] = {"NAME": trainer, "ATLAS": {"SOFT_LABELS": more.pop("soft_labels", "ls")}}
    config["DATASET"] = {"NAME": dataset, "SUBSAMPLE_CLASSES": more.get("subsample", "all"), "NUM_SHOTS": shots}
    config["DATASET"]["NOISE"] = noise or {}
    return {
        "schema_version": 1,
        "trainer": trainer,
        "dataset": dataset,
        "seed": seed,
        "shots": shots,
        "subsample": "all",
        "noise": noise,
        "evaluated": None,
        "config_name": "rn50",
        "accuracy": accuracy,
        "macro_f1": accuracy / 2,
        "history": [],
        "config": config,
        **more,
    }


def write_result(folder, accuracy, **fields):
    """Write a result and a config.yaml; see fields_of."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(fields_of(accuracy, folder=folder, **fields)))
    (folder / "config.yaml").write_text("SEED: 1\n")


def with_backbone(folder, name):
    """Give a written result a backbone."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    result["config"]["MODEL"] = {"BACKBONE": {"NAME": name}}
    path.write_text(json.dumps(result))


def runs(roots):
    """Return the results that count below folders, each with the data frame's columns as attributes."""
    return list(load(roots).frame.itertuples())


def trained_on(dataset, **more):
    return {"model_dir": "x", "epoch": None, "trained_on": {"dataset": dataset, "shots": 16, "noise": None, **more}}


def entries(*roots, **options):
    """Return {(row..., column): entry} of the json format."""
    text, _ = reports.report(roots, form="json", **options)
    return {(entry.get("data set"), entry["method"], entry["column"]): entry for entry in json.loads(text)}


FAMILY_LOG = """***************
** Arguments **
***************
backbone:{blank}
config_file: configs/trainers/CoOp/vit_b16_ep50.yaml
eval_only: {evaluates}
model_dir:{model_dir}
************
** Config **
************
DATASET:
  NAME: {dataset}
  NUM_SHOTS: 16
  SUBSAMPLE_CLASSES: {subsample}
INPUT:
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  TRANSFORMS: ('random_resized_crop', 'random_flip')
SEED: {seed}
TRAINER:
  NAME: CoOp
Collecting env info ...
** System info **
PyTorch version: 1.13
{body}"""
TRAINED = """epoch [1/50] batch [5/50] time 0.1 loss 1.0
Finish training
Deploy the last-epoch model
=> result
* total: 2,465
* correct: 2,300
* accuracy: 93.3%
* error: 6.7%
* macro_f1: 90.1%
Elapsed: 0:01:00
"""
EVALUATED = "=> result\n* accuracy: 55.5%\n* macro_f1: 50.0%\n"


def write_log(folder, body, dataset="Caltech101", seed=1, subsample="all", model_dir=""):
    folder.mkdir(parents=True)
    fields = {"dataset": dataset, "seed": seed, "subsample": subsample, "body": body, "blank": " "}
    fields |= {"evaluates": bool(model_dir), "model_dir": f" {model_dir}"}
    (folder / "log.txt").write_text(FAMILY_LOG.format(**fields))

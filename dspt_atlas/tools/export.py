"""A run's classes as a linear head on frozen image features, for other programs: `dspt-atlas export`."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, write_atomically
from dspt_atlas.tools.predict import class_list

OPSET = 17  # of ONNX; older ones lack nothing here, and most runtimes have it


def _torch(head) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(head, file)
    return file.getvalue()


def _facts(head) -> dict[str, str]:
    """Return what is not a tensor, each as JSON."""
    return {key: json.dumps(head[key]) for key in ("classnames", "backbone", "preprocessing")}


def _safetensors(head) -> bytes:
    from safetensors.torch import save

    return save({key: head[key] for key in ("weight", "logit_scale")}, _facts(head))


def _onnx(head) -> bytes:
    """Return a graph from image_features (N, d) to logits and probabilities (N, C)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    count, width = head["weight"].shape
    arrays = {"weight": head["weight"].T.contiguous(), "logit_scale": head["logit_scale"]}
    nodes = [
        helper.make_node("LpNormalization", ["image_features"], ["unit"], axis=1, p=2),
        helper.make_node("Mul", ["unit", "logit_scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    sizes = {"image_features": width, "logits": count, "probabilities": count}
    features, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in sizes.items()
    )
    initial = [numpy_helper.from_array(array.numpy(), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "linear_head", [features], outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    helper.set_model_props(model, _facts(head))
    checker.check_model(model)
    return model.SerializeToString()


FORMATS = {".pt": (_torch, "torch"), ".safetensors": (_safetensors, "safetensors"), ".onnx": (_onnx, "onnx")}


def _writer(path: Path):
    """Return the function for a file's format; raises UserError before anything is computed."""
    if path.suffix not in FORMATS:
        raise UserError(f"Expected --to with the ending {', '.join(FORMATS)}, got {path}: choose one of them.")
    if path.exists():
        raise UserError(f"{path} exists already: choose another name for --to, or remove it.")
    write, package = FORMATS[path.suffix]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package or package == "torch":
            raise
        raise UserError(
            f"{path.suffix} needs the package {package}, which is not installed: pip install 'dspt-atlas[export]'."
        ) from error
    return write


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas export`."""
    parser = Parser(
        "export",
        example="output/emoji --to emoji.safetensors",
        more="The head's logits are logit_scale * normalised image features @ weight.T. It needs no data set.",
        mixed=True,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="output folder of a training run")
    parser.add_argument("--to", required=True, metavar="FILE", type=Path, help="its ending: .pt, .safetensors or .onnx")
    parser.add_load_epoch()
    parser.add_classnames()
    return parser


def export(options) -> None:
    """Write the head; raises UserError where a linear head is not the model."""
    path = expand_home(options.to)
    write = _writer(path)
    names = None if options.classnames is None else class_list(options.classnames)
    from dspt_atlas.run.model import load  # it loads torch

    model = load(options.run, options.load_epoch, "cpu")
    head = (model if names is None else model.with_classes(names)).linear_head()
    write_atomically(path, write(head))
    print(f"{path}: {len(head['classnames'])} classes, features of {head['backbone']}")


main = main_of(build_parser, export)

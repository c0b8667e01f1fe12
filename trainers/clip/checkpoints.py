"""Files of CLIP's weights: where they are, OpenAI's downloads, and reading them without running their code."""

import functools
import http.client
import importlib
import os
import warnings
import zipfile

import clip
import clip.clip
import torch
from filelock import FileLock

from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, file_state, remove_leftovers, temporary_name

OPEN_CLIP_CONFIG = "open_clip_config.json"
_INSIDE = ("state_dict", "model", "ema")
_PREFIXES = ("module.", "model.")


def checkpoint_path(backbone, clip_dir=None):
    """Path of a backbone's checkpoint; downloads a missing one of OpenAI's first; raises UserError."""
    backbone = str(backbone)
    if backbone in clip.available_models():
        return _download(backbone, clip_dir)
    path = expand_home(backbone)
    if path.is_dir():
        raise UserError(
            f"Expected a backbone's name or a checkpoint file, got the folder {path}: give the file inside it, or "
            f"hf:{path} or open_clip:{path} if it is a snapshot of transformers or open_clip."
        )
    if not path.is_file():
        raise UserError(
            f"Expected a backbone that OpenAI knows ({', '.join(clip.available_models())}) or the path of a "
            f"checkpoint, got '{backbone}', which is neither."
        )
    return path


def _download(name, clip_dir):
    folder = expand_home(clip_dir or os.environ.get("DSPT_ATLAS_CLIP_DIR") or "~/.cache/clip")
    url = clip.clip._MODELS[name]
    digest, file = url.split("/")[-2:]
    path = folder / file
    try:
        if not path.exists():
            _fetch(url, path, digest)
        if _digest_of_file(path, file_state(path)) == digest:
            return path
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"Could not download {name} ({error}): fetch {url} on a machine with network access and put the file "
            f"into {folder}, or give its folder by MODEL.CLIP_DIR FOLDER or DSPT_ATLAS_CLIP_DIR."
        ) from error
    raise UserError(
        f"Expected {path} to be OpenAI's {name}, but its SHA-256 is different: remove it if its download was "
        "interrupted, or give your own weights by their path."
    )


def _fetch(url, path, digest):
    """Download a file whose SHA-256 is known; raises OSError or RuntimeError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".download.lock"):
        if path.exists():  # another process downloaded it meanwhile
            return
        remove_leftovers(path.parent)
        temporary = path.with_name(temporary_name(path.name))
        torch.hub.download_url_to_file(url, str(temporary), hash_prefix=digest)
        temporary.rename(path)


@functools.lru_cache
def _digest_of_file(path, state):
    """Return the SHA-256 of a file in a given state."""
    return file_digest(path)


def read_state_dict(path):
    """Return the tensors of a TorchScript archive, a state dict or a safetensors file by name; raises UserError.

    A state dict may lie inside a training checkpoint, and its keys may have what DataParallel or a wrapper puts first.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit.load is deprecated, but OpenAI publishes such archives
            if path.suffix == ".safetensors":
                state = optional_package("safetensors.torch", "hf", path).load_file(path)
            elif is_torchscript(path):
                _check_code(path)
                state = torch.jit.load(str(path), map_location="cpu").state_dict()
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # pickle, zip and torch raise many types for a damaged file
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0].split(". ")[0][:160]
        raise UserError(
            f"Expected a TorchScript archive or a state dict of CLIP, but {path} cannot be read as either "
            f"({reason}): it may be truncated; copy or download it again."
        ) from error
    state = _inner(state, path)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise UserError(f"Expected a state dict of tensors in {path}, got {type(state).__name__} with other contents.")
    while state and (prefix := next((one for one in _PREFIXES if all(name.startswith(one) for name in state)), None)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _inner(state, path):
    """Return the state dict in a training checkpoint; raises UserError if it has several."""
    while isinstance(state, dict) and (inside := [key for key in _INSIDE if isinstance(state.get(key), dict)]):
        if len(inside) > 1:
            raise UserError(
                f"Expected one state dict in {path}, got {' and '.join(inside)}: save the one to use in its own file."
            )
        state = state[inside[0]]
    return state


def optional_package(module, extra, purpose):
    """Import a module that only an extra of this package has; raises UserError without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"Expected {module} for {purpose}, but it cannot be imported ({error}): install dspt-atlas[{extra}]."
        ) from error


def _check_code(path):
    """Raise UserError for an archive with GELU, or with a `__setstate__`, which `torch.jit.load` would run."""
    archive = torch._C.PyTorchFileReader(str(path))  # torch.jit.load uses it too, so both see the same members
    code = [name for name in archive.get_all_records() if name.endswith(".py")]
    if any(b"torch.gelu(" in archive.get_record(name) for name in code):
        raise UserError(
            f"Expected OpenAI's archive, with QuickGELU, but the TorchScript archive {path} computes GELU: save its "
            "state dict and name it as open_clip:ARCH=FILE."
        )
    if any(b"__setstate__" in archive.get_record(name) for name in code):
        raise UserError(
            f"Expected the weights of CLIP, but the TorchScript archive {path} has code that runs when it is loaded: "
            "get the file from a source that you trust, or save its state dict there and give that file."
        )


def is_torchscript(path):
    """Return whether a file is a TorchScript archive, as OpenAI publishes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())

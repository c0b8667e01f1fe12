"""Turn an exported model.pt into the checkpoint of the package: half precision and compressed.

python scripts/embedded/package_backbone.py rn/model.pt datasets/embedded_data/emoji_rn.pt
python scripts/embedded/package_backbone.py vit/model.pt datasets/embedded_data/emoji_vit_visual.pt --without-text
python scripts/embedded/package_backbone.py photos/text.pt datasets/embedded_data/photo_text.pt
python scripts/embedded/package_backbone.py photos/targets.pt datasets/embedded_data/photo_ridge.pt --ridge

A table of tokens that comes with the tokens that it has (PhotoEN's) is stored in int8, each row with its scale.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import torch


def main() -> None:
    """Convert the first path to the second."""
    source, target = map(Path, sys.argv[1:3])
    state = torch.load(source, weights_only=True)
    if "--without-text" in sys.argv[3:]:  # the text tower is the teacher's and is stored there
        state = {name: value for name, value in state.items() if name.startswith("visual.") or name == "logit_scale"}
    if "--ridge" in sys.argv[3:]:  # of the targets, what PhotoEN-MiniLM needs
        state = {"ridge": state["ridge"], "visual.mean": state["mean"]}
    if "token_embedding.used" in state:
        table = state.pop("token_embedding.weight")
        scale = (table.abs().amax(1) / 127).half()
        state["token_embedding.rows"] = (table / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        state |= {"token_embedding.scale": scale, "token_embedding.used": state["token_embedding.used"].int()}
    state = {name: value.half() if value.is_floating_point() and value.ndim else value for name, value in state.items()}
    plain = io.BytesIO()
    torch.save(state, plain)
    temporary = target.with_suffix(".tmp")
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for info in old.infolist():
            new.writestr(
                zipfile.ZipInfo(info.filename, date_time=(2026, 1, 1, 0, 0, 0)), old.read(info), zipfile.ZIP_DEFLATED
            )
    os.replace(temporary, target)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

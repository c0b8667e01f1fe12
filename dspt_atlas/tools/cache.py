"""Look at, check and clear the cache of image features that runs with INPUT.CACHE features share.

python -m dspt_atlas.tools.cache list
python -m dspt_atlas.tools.cache check [KEY ...] [--backbone NAME_OR_PATH] [--samples 4]
python -m dspt_atlas.tools.cache clear (--all | --older-than DAYS | KEY ...)
"""

import argparse
import functools
import sys
import time
from datetime import datetime
from types import SimpleNamespace

import numpy as np
from tabulate import tabulate

from dspt_atlas.commands import command_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, expand_home
from dspt_atlas.trainers.clip.model import fingerprint, load_clip
from dspt_atlas.trainers.features.cached import encode_views, identify_images, images_digest
from dspt_atlas.trainers.features.entry import Unusable
from dspt_atlas.trainers.features.store import FeatureStore
from dspt_atlas.trainers.features.views import ViewDataset, rebuild_transform

SHOWN_KEY = 12
# Distance of two unit vectors that rounding can explain; float16 and a GPU's TF32 round coarsely.
LIMIT_EXACT, LIMIT_COARSE = 1e-3, 0.05


class NotRecomputed(Exception):
    """Why an entry's samples could not be encoded anew."""


def main(argv=None):
    """Run a command line; return its exit status: 0 all well, 1 as the command says, 2 wrong arguments."""
    args = parse_arguments(argv)
    try:
        return args.run(FeatureStore(expand_home(args.cache) if args.cache else cache_dir()), args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse_arguments(argv):
    """Return the parsed command line, whose `run` is the function of the chosen command."""
    parser = argparse.ArgumentParser(
        description="Look at, check and clear the cache of image features that runs with INPUT.CACHE features share."
    )
    parser.add_argument(
        "--cache", metavar="DIR", help="cache folder (default: $DSPT_ATLAS_CACHE, else ~/.cache/dspt-atlas)"
    )
    commands = parser.add_subparsers(required=True, metavar="{list,check,clear}")
    listing = commands.add_parser("list", help="show what is cached, how large it is, and when it was last used")
    listing.set_defaults(run=list_entries)
    check = commands.add_parser(
        "check", help="read everything again and recompute a few samples; exit 1 if anything is wrong"
    )
    check.add_argument(
        "keys", nargs="*", metavar="KEY", help="entries by the first letters of their key (default: all)"
    )
    check.add_argument("--backbone", default="", help="name or path of the backbone, where an entry does not know it")
    check.add_argument("--samples", type=int, default=4, help="images to recompute per entry, 0 for none (default: 4)")
    check.set_defaults(run=check_entries)
    clear = commands.add_parser("clear", help="remove entries; what a live run uses is kept, with exit 1")
    clear.add_argument("keys", nargs="*", metavar="KEY", help="entries by the first letters of their key")
    clear.add_argument("--all", action="store_true", help="remove every entry")
    clear.add_argument("--older-than", type=float, metavar="DAYS", help="remove what was not used for so many days")
    clear.set_defaults(run=clear_entries)
    return parser.parse_args(argv)


def list_entries(store, args):
    """Print a table of the entries, the last used first."""
    entries = store.entries()
    if not entries:
        print(f"No cached features in {store.folder}.")
        return 0
    rows = [
        [
            entry.key[:SHOWN_KEY],
            contents(entry),
            f"{entry.bytes / 2**20:,.1f}",
            datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M"),
            "unfinished" if entry.unfinished else "in use" if entry.in_use() else "",
        ]
        for entry in reversed(entries)
    ]
    print(
        tabulate(
            rows,
            headers=["key", "what", "MiB", "last used", ""],
            disable_numparse=True,
            colalign=("left", "left", "right", "left", "left"),
        )
    )
    print(f"\n{len(entries)} entries, {sum(entry.bytes for entry in entries) / 2**20:,.1f} MiB in {store.folder}")
    return 0


def contents(entry):
    """Return what an entry holds, in words."""
    meta = entry.meta
    try:
        *views, images, width = meta["shape"]
        kind = f"{views[0]} views, seed {meta['inputs']['seed']}" if views else "no augmentation"
        return f"{meta.get('backbone') or 'backbone'} ({width}): {images:,} images, {kind}, {meta.get('folder', '')}"
    except (KeyError, TypeError, ValueError):
        return "damaged"


def check_entries(store, args):
    """Print the state of each entry; return 1 if one is wrong. An unfinished or outdated one is not wrong."""
    if args.samples < 0:
        raise UserError(f"Expected at least 0 samples, got {args.samples}.")
    rows, wrong = [], 0
    for entry in chosen(store, args.keys):
        state = problem = None
        if entry.unfinished:
            state = "unfinished: the next run that needs it goes on with it"
        elif entry.is_outdated:
            state = "of another version of this project: `clear` removes it"
        else:
            try:
                entry.check()
                problem, state = recompute(entry, args)
            except Unusable as reason:
                problem = reason
            except NotRecomputed as reason:
                state = f"whole; not recomputed: {reason}"
        wrong += problem is not None
        rows.append([entry.key[:SHOWN_KEY], f"WRONG: {problem}" if problem else state])
    print(tabulate(rows, headers=["key", "state"]) if rows else f"No cached features in {store.folder}.")
    if wrong:
        print(
            f"\n{wrong} of {len(rows)} entries are wrong: remove them with `{command_of('scripts/cache.py')} clear KEY`."
        )
    return 1 if wrong else 0


def recompute(entry, args):
    """Encode a few images anew; return (problem or None, state). Raises NotRecomputed with the reason."""
    meta, images = entry.meta, entry.images
    inputs = meta["inputs"]
    array = np.load(entry.array_path, mmap_mode="r").reshape(-1, *meta["shape"][-2:])  # (V, N, d)
    try:
        is_whole = inputs["images"] in (images_digest(images), images_digest(images, content_hash=True))
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        return "images.json is not what was written", None
    keys = sorted(
        {(index % len(array), index) for index in np.linspace(0, len(images) - 1, args.samples).astype(int).tolist()}
    )
    if not keys:
        raise NotRecomputed("no samples asked for")
    require_same_images([images[index] for _, index in keys])
    items = [SimpleNamespace(impath=path, label=0, domain=0) for path, _ in images]
    try:
        transform = rebuild_transform(inputs["transform"])
        dataset = ViewDataset(items, transform, inputs["seed"], inputs["views"])
        anew = next(encode_views(tower_of(args.backbone or meta.get("backbone"), inputs["backbone"]), dataset, [keys]))
    except UserError as error:
        raise NotRecomputed(error) from error
    distance = float(np.linalg.norm(anew - np.stack([array[key] for key in keys]), axis=1).max())
    exact = (inputs["precision"], inputs["device"]) == ("torch.float32", "cpu")
    if not distance <= (LIMIT_EXACT if exact else LIMIT_COARSE):
        return f"{len(keys)} recomputed features differ by up to {distance:.2g}", None
    return None, f"whole; {len(keys)} recomputed features differ by at most {distance:.1g}"


def require_same_images(images):
    """Raise NotRecomputed unless these [path, identity] are still as they were."""
    by_content = len(images[0][1]) == 64
    try:
        now = identify_images([path for path, _ in images], by_content)
    except UserError as error:
        raise NotRecomputed(error) from error
    for (path, before), (_, after) in zip(images, now, strict=True):
        if before != after:
            raise NotRecomputed(f"{path} has changed since, so that this entry will not be used again")


@functools.lru_cache(maxsize=1)
def tower_of(backbone, expected):
    """Return the image tower of a backbone; raises NotRecomputed unless its weights are those of the entry."""
    if not backbone:
        raise NotRecomputed("the entry does not name its backbone: give it by --backbone")
    model = load_clip(backbone)
    if fingerprint(model) != expected:
        raise NotRecomputed(f"{backbone} has other weights than the entry's backbone")
    return model.visual


def clear_entries(store, args):
    """Remove entries; return 1 if one was kept because it is in use."""
    if sum((args.all, args.older_than is not None, bool(args.keys))) != 1:
        shown = f"`{command_of('scripts/cache.py')} list`"
        raise UserError(f"Expected what to clear: --all, --older-than DAYS, or keys as {shown} shows them.")
    entries = chosen(store, args.keys)
    if args.older_than is not None:
        entries = [entry for entry in entries if entry.used < time.time() - args.older_than * 86400]
    kept = freed = 0
    for entry in entries:
        size = entry.bytes
        if store.remove(entry):
            freed += size
        else:
            kept += 1
            print(f"{entry.key[:SHOWN_KEY]} is in use by a running process and was kept.")
    print(f"Removed {len(entries) - kept} entries, {freed / 2**20:,.1f} MiB.")
    return 1 if kept else 0


def chosen(store, keys):
    """Return the entries whose keys start with one of `keys`, or all; raises UserError for a key of none or of several."""
    entries = store.entries()
    if not keys:
        return entries
    found = []
    for key in keys:
        matches = [entry for entry in entries if entry.key.startswith(key)]
        if len({entry.key for entry in matches}) != 1:
            raise UserError(
                f"Expected the first letters of one entry's key, got '{key}', which fits {len(matches)} entries: "
                f"see `{command_of('scripts/cache.py')} list`."
            )
        found += matches
    return found


if __name__ == "__main__":
    sys.exit(main())

"""Cached image features: the same numbers as encoding again, computed once, from the same inputs only, and complete."""

import copy
import errno
import functools
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler
from torchvision import transforms as T

from dspt_atlas.datasets.images import READING, read_image
from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.features import store as feature_store
from dspt_atlas.trainers.features.cached import FeatureLoader, fold_batch_norms, frozen_features
from dspt_atlas.trainers.features.entry import FORMAT, entry_key
from dspt_atlas.trainers.features.store import FeatureStore
from dspt_atlas.trainers.features.views import ViewDataset, describe_transform, rebuild_transform
from support.refusals import refused

GIB = 2**30


@pytest.fixture(scope="module")
def clip_model(tiny_clip_path):
    return load_clip(tiny_clip_path)


@pytest.fixture(scope="module")
def items(tiny_dataset):
    return items_of(tiny_dataset / "train")


@pytest.fixture
def own_items(tmp_path):
    """Items whose image files a test may change."""
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (36, 40, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return items_of(tmp_path / "images")


def items_of(folder):
    paths = sorted(folder.rglob("*.png"))
    return [SimpleNamespace(impath=str(p), label=i % 4, domain=0, classname=p.parent.name) for i, p in enumerate(paths)]


def augmentation(**changes):
    """A random transform that draws from torch, and from random and numpy through steps of dassl's."""
    from dassl.data.transforms.transforms import Cutout, Random2DTranslation

    settings = {"size": 32, "interpolation": T.InterpolationMode.BICUBIC, "mean": (0.5, 0.4, 0.3)} | changes
    return T.Compose(
        [
            T.RandomResizedCrop(settings["size"], scale=(0.3, 1.0), interpolation=settings["interpolation"]),
            T.RandomHorizontalFlip(),
            Random2DTranslation(settings["size"], settings["size"]),
            T.ToTensor(),
            Cutout(length=4),
            T.Normalize(settings["mean"], (0.2, 0.2, 0.2)),
        ]
    )


def plain_transform():
    return T.Compose([T.Resize(32), T.CenterCrop(32), T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)])


def encode(clip_model, items, transform, folder, **options):
    return frozen_features(clip_model, items, transform, **{"cache_dir": folder, "max_bytes": GIB} | options)


def encoded_anew(capsys):
    """Whether anything was encoded since the last call."""
    return "Encoding" in capsys.readouterr().out


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def only_entry(folder):
    (entry,) = FeatureStore(folder).entries()
    return entry


# Features


def test_features_are_known_by_how_images_are_opened(clip_model, items, tmp_path):
    encode(clip_model, items, plain_transform(), tmp_path)
    (entry,) = FeatureStore(tmp_path).entries()
    inputs = entry.meta["inputs"]
    assert inputs["reading"] == READING and entry_key({**inputs, "reading": READING - 1}) != entry.key


@pytest.mark.parametrize("path_fixture", ["tiny_clip_path", "tiny_resnet_clip_path"])
def test_features_equal_direct_encoding(request, items, tmp_path, path_fixture):
    model = load_clip(request.getfixturevalue(path_fixture))
    features = encode(model, items, plain_transform(), tmp_path, batch_size=7)
    with torch.no_grad():
        images = torch.stack([plain_transform()(Image.open(item.impath).convert("RGB")) for item in items])
        expected = F.normalize(model.encode_image(images), dim=-1)
    assert features.dtype == np.float32 and features.shape == (len(items), 32)
    assert not features.flags.writeable
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_folded_batch_norms_give_the_features_of_the_tower(tiny_resnet_clip_path):
    tower = load_clip(tiny_resnet_clip_path).visual.eval()
    norms = [module for module in tower.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                tensor.copy_(torch.randn(len(tensor), generator=generator))
            norm.running_var.copy_(torch.rand(len(norm.running_var), generator=generator) + 0.5)
        images = torch.randn(3, 3, tower.input_resolution, tower.input_resolution, generator=generator)
        folded = fold_batch_norms(copy.deepcopy(tower))
        expected = tower.double()(images.double())
        difference = (folded(images) - expected).abs().max() / expected.abs().max()
    assert norms and not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert difference < 1e-5


def test_view_features_equal_encoding_the_view_dataset(clip_model, items, tmp_path):
    features = encode(clip_model, items, augmentation(), tmp_path, views=3, seed=5, batch_size=10)
    assert features.shape == (3, len(items), 32)
    dataset = ViewDataset(items, augmentation(), seed=5, views=3)
    for epoch in (0, 1, 2, 4):
        dataset.set_epoch(epoch)
        with torch.no_grad():
            images = torch.stack([dataset[index]["img"] for index in range(len(items))])
            expected = F.normalize(clip_model.encode_image(images), dim=-1)
        np.testing.assert_allclose(features[epoch % 3], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_number_of_workers_does_not_change_the_features(clip_model, items, tmp_path):
    first = encode(clip_model, items, augmentation(), tmp_path / "a", views=2, batch_size=5)
    second = encode(clip_model, items, augmentation(), tmp_path / "b", views=2, batch_size=5, num_workers=2)
    np.testing.assert_array_equal(first, second)


def test_global_generators_stay_as_they_were(clip_model, items, tmp_path, capsys):
    before = global_states()
    for expected in (True, False):  # encoded anew, found again
        encode(clip_model, items, augmentation(), tmp_path, views=2)
        assert encoded_anew(capsys) is expected
        assert global_states() == before


def test_train_mode_of_the_model_is_neither_used_nor_changed(tiny_resnet_clip_path, items, tmp_path):
    model = load_clip(tiny_resnet_clip_path)
    expected = encode(model, items, plain_transform(), tmp_path / "eval")
    before = copy.deepcopy(model.visual.state_dict())
    model.train()
    np.testing.assert_array_equal(encode(model, items, plain_transform(), tmp_path / "train"), expected)
    assert model.visual.training
    assert all(torch.equal(before[name], value) for name, value in model.visual.state_dict().items())


# What an entry is known by


def test_equal_inputs_hit_whatever_the_labels_and_workers(clip_model, items, tmp_path, capsys):
    encode(clip_model, items, augmentation(), tmp_path, views=2, seed=1)
    assert encoded_anew(capsys)
    relabelled = [SimpleNamespace(**vars(item) | {"label": 3 - item.label}) for item in items]
    encode(clip_model, relabelled, augmentation(), tmp_path, views=2, seed=1, num_workers=1, batch_size=3)
    assert not encoded_anew(capsys)


def test_test_features_are_shared_by_all_seeds(clip_model, items, tmp_path, capsys):
    encode(clip_model, items, plain_transform(), tmp_path, seed=1)
    assert encoded_anew(capsys)
    encode(clip_model, items, plain_transform(), tmp_path, seed=2)
    assert not encoded_anew(capsys)


@pytest.mark.parametrize("change", ["seed", "views", "transform", "backbone", "order", "fewer", "replaced", "touched"])
def test_changed_inputs_never_hit(clip_model, own_items, tmp_path, capsys, change):
    options = {"views": 2, "seed": 1}
    encode(clip_model, own_items, augmentation(), tmp_path, **options)
    assert encoded_anew(capsys)
    model, items, transform = clip_model, own_items, augmentation()
    first = own_items[0].impath
    if change in options:
        options[change] += 1
    elif change == "transform":
        transform = augmentation(interpolation=T.InterpolationMode.BILINEAR)
    elif change == "backbone":
        model = copy.deepcopy(clip_model)
        with torch.no_grad():
            next(model.visual.parameters()).view(-1)[0] += 1e-4
    elif change in ("order", "fewer"):
        items = own_items[::-1] if change == "order" else own_items[:-1]
    elif change == "replaced":
        Image.new("RGB", (36, 40)).save(first)
    else:
        status = os.stat(first)
        os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    encode(model, items, transform, tmp_path, **options)
    assert encoded_anew(capsys)


def test_content_hash_follows_moved_and_touched_images_but_not_changed_ones(clip_model, own_items, tmp_path, capsys):
    def found(items):
        encode(clip_model, items, plain_transform(), tmp_path, content_hash=True)
        return not encoded_anew(capsys)

    assert not found(own_items)
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = items_of(tmp_path / "moved")
    os.utime(moved[0].impath)
    assert found(moved)
    Image.new("RGB", (36, 40)).save(moved[0].impath)
    assert not found(moved)


CHANGED_TRANSFORMS = [
    T.Resize(33), T.Resize(32, T.InterpolationMode.BICUBIC), T.Resize(32, antialias=False), T.Resize((32, 32)),
    T.RandomCrop(32), T.RandomCrop(32, fill=1), T.RandomCrop(32, padding_mode="reflect"), T.Normalize((0.5,), (0.2,)),
    T.Normalize((0.5,), (0.3,)), T.ColorJitter(0.1), T.ColorJitter(0.2), T.RandomApply([T.Resize(32)], p=0.3),
    T.RandomApply([T.Resize(33)], p=0.3), T.RandomApply(torch.nn.ModuleList([T.Resize(33)]), p=0.3), [T.Resize(32)],
    functools.partial(T.functional.resize, size=[32]), functools.partial(T.functional.resize, size=[33]), None,
    read_image, Image.open,
]  # fmt: skip


def test_descriptions_of_different_transforms_differ_and_are_stable():
    descriptions = [json.dumps(describe_transform(transform)) for transform in CHANGED_TRANSFORMS]
    assert len(set(descriptions)) == len(descriptions)
    assert descriptions == [json.dumps(describe_transform(copy.deepcopy(t))) for t in CHANGED_TRANSFORMS]
    assert not any(" at 0x" in description for description in descriptions)


def test_a_transform_can_be_rebuilt_from_its_description():
    description = json.loads(json.dumps(describe_transform(augmentation())))
    assert describe_transform(rebuild_transform(description)) == description


def test_transforms_that_cannot_be_told_apart_are_refused():
    with refused("<lambda>"):
        describe_transform(T.Compose([T.Lambda(lambda image: image)]))
    with refused("SimpleNamespace"):
        rebuild_transform(describe_transform(SimpleNamespace(a=1)))


# Views


def test_views_depend_on_seed_view_and_index_alone(items):
    dataset = ViewDataset(items, augmentation(), seed=1, views=2)
    dataset.set_epoch(1)
    expected = [dataset[index]["img"] for index in range(len(items))]
    torch.manual_seed(7)
    for index in (4, 0, 4):
        assert torch.equal(dataset[index]["img"], expected[index])
    batches = list(DataLoader(dataset, batch_size=6, num_workers=2))
    assert torch.equal(torch.cat([batch["img"] for batch in batches]), torch.stack(expected))
    dataset.set_epoch(3)
    assert torch.equal(dataset[0]["img"], expected[0])
    dataset.set_epoch(2)
    assert not torch.equal(dataset[0]["img"], expected[0])
    assert not torch.equal(ViewDataset(items, augmentation(), seed=2, views=2).image(0, 1), expected[0])
    same_image = ViewDataset([items[0], items[0]], augmentation(), seed=1, views=2)
    assert not torch.equal(same_image.image(0, 0), same_image.image(1, 0))


def test_a_view_leaves_the_generators_and_has_dassls_keys(items):
    before = global_states()
    sample = ViewDataset(items, augmentation(), seed=1, views=2)[3]
    assert global_states() == before
    assert list(sample) == ["label", "domain", "impath", "index", "img"]
    assert (sample["label"], sample["impath"], sample["index"]) == (items[3].label, items[3].impath, 3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_image_is_one_sentence_with_its_name(clip_model, own_items, tmp_path, num_workers):
    Path(own_items[2].impath).write_bytes(b"not an image")
    with refused("2.png"):
        encode(clip_model, own_items, plain_transform(), tmp_path / "cache", num_workers=num_workers)
    assert FeatureStore(tmp_path / "cache").entries() == []


def test_other_mistakes_are_sentences(clip_model, items, tmp_path):
    with pytest.raises(UserError, match="at least one image"):
        encode(clip_model, [], plain_transform(), tmp_path)
    with refused("views", "0", "-1"):
        ViewDataset(items, plain_transform(), seed=1, views=-1)
    with refused(tmp_path / "gone.png"):
        encode(clip_model, [SimpleNamespace(impath=str(tmp_path / "gone.png"))], plain_transform(), tmp_path)
    broken = copy.deepcopy(clip_model)
    torch.nn.init.constant_(broken.visual.proj, float("nan"))
    with pytest.raises(UserError, match="finite image features"):
        encode(broken, items, plain_transform(), tmp_path)


# Loader


class LikeDassl(Dataset):
    def __init__(self, items):
        self.data_source = items

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, index):
        item = self.data_source[index]
        return {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index}


@pytest.mark.parametrize("seed", [0, 1, 123])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_loader_has_the_order_and_draws_of_torchs(items, seed, shuffle, drop_last):
    features = np.random.default_rng(0).random((3, len(items), 8), dtype=np.float32)
    reference = DataLoader(LikeDassl(items), batch_size=7, shuffle=shuffle, drop_last=drop_last)
    loader = FeatureLoader(features, items, 7, (RandomSampler if shuffle else SequentialSampler)(items), drop_last)
    assert len(loader) == len(reference)
    torch.manual_seed(seed)
    expected = [list(reference) for _ in range(4)], torch.get_rng_state()
    torch.manual_seed(seed)
    for epoch in range(4):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(expected[0][epoch])
        for ours, theirs in zip(batches, expected[0][epoch], strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in ("label", "domain", "index"))
            assert ours["impath"] == theirs["impath"]
            assert ours["label"].dtype == ours["index"].dtype == torch.int64
            np.testing.assert_array_equal(ours["img"], features[epoch % 3][ours["index"]])
    assert torch.equal(torch.get_rng_state(), expected[1])


def test_loader_keeps_the_only_batch_and_sees_changed_labels(items):
    few = copy.deepcopy(items[:5])
    loader = FeatureLoader(np.ones((5, 8), np.float32), few, 32, RandomSampler(few), drop_last=True)
    few[0].label = 99
    (batch,) = loader
    assert len(loader) == 1 and batch["label"].max() == 99
    assert loader.sampler.data_source is loader.dataset.data_source is few and isinstance(loader.sampler, RandomSampler)
    few.pop()
    with refused("5", "4"):
        iter(loader)


def test_copies_of_a_loader_share_the_features(items):
    loader = FeatureLoader(np.ones((len(items), 8), np.float32), items, 4, SequentialSampler(items), drop_last=False)
    copied = copy.deepcopy(loader)
    assert np.shares_memory(copied.dataset.features, loader.dataset.features)
    copied.set_epoch(5)
    copied.dataset.data_source.pop()
    assert len(copied) == len(copied.sampler.data_source) // 4 + 1 == len(loader)
    assert len(loader.dataset) == len(copied.dataset) + 1


# Store: rows (view, row) -> value, so that what is where can be seen


def rows(view, count=4, width=3):
    return np.arange(count * width, dtype=np.float32).reshape(count, width) + 100 * view


class Encoder:
    """Yields views of known numbers in blocks of two rows; notes where it began; may raise before a view."""

    def __init__(self, views, fail_at=None, error=None):
        self.views, self.fail_at, self.error, self.started = views, fail_at, error, []

    def __call__(self, first_view):
        self.started.append(first_view)
        for view in range(first_view, self.views):
            yield rows(view)[:2]
            if view == self.fail_at and self.error:
                raise self.error
            yield rows(view)[2:]


def get(folder, name="a", encoder=None, views=3, max_bytes=GIB):
    encoder = encoder or Encoder(views)
    return FeatureStore(folder).get({"format": FORMAT, "name": name}, (views, 4, 3), encoder, max_bytes=max_bytes)


def expected_rows(views=3):
    return np.stack([rows(view) for view in range(views)])


def forget_users(folder):
    """Make the cache look as if the processes that used it had ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for marker in (folder / "features").glob("*/users/*"):
        host, _, rest = marker.name.rsplit("-", 2)
        marker.rename(marker.with_name(f"{host}-{ended.pid}-{rest}"))


def test_interrupted_computation_resumes_after_its_last_whole_view(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, encoder=Encoder(3, fail_at=2, error=KeyboardInterrupt()))
    assert only_entry(tmp_path).unfinished
    second = Encoder(3)
    np.testing.assert_array_equal(get(tmp_path, encoder=second), expected_rows())
    assert second.started == [2]
    only_entry(tmp_path).check()


def test_interrupted_encoding_of_images_ends_with_the_same_features(clip_model, items, tmp_path, monkeypatch):
    expected = encode(clip_model, items, augmentation(), tmp_path / "whole", views=3, batch_size=5)
    calls, original = [], ViewDataset.image

    def interrupted(self, index, view):
        calls.append(view)
        if len(calls) == 2 * len(items) + 3:
            raise KeyboardInterrupt
        return original(self, index, view)

    monkeypatch.setattr(ViewDataset, "image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode(clip_model, items, augmentation(), tmp_path / "cut", views=3, batch_size=5)
    calls.clear()
    resumed = encode(clip_model, items, augmentation(), tmp_path / "cut", views=3, batch_size=5)
    np.testing.assert_array_equal(resumed, expected)
    assert calls == [2] * len(items)


def test_unfinished_views_that_were_damaged_are_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, encoder=Encoder(3, fail_at=2, error=KeyboardInterrupt()))
    with open(only_entry(tmp_path).array_path, "r+b") as file:
        file.seek(130)
        file.write(b"\xff\xff")
    second = Encoder(3)
    np.testing.assert_array_equal(get(tmp_path, encoder=second), expected_rows())
    assert second.started == [0]


def test_interrupted_before_the_first_view_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, encoder=Encoder(3, fail_at=0, error=KeyboardInterrupt()))
    assert FeatureStore(tmp_path).entries() == []


def truncate(entry):
    os.truncate(entry.array_path, entry.array_path.stat().st_size - 4)


def lose_meta(entry):
    (entry.path / "meta.json").write_text("{")


def lose_array(entry):
    entry.array_path.unlink()


def other_header(entry):
    data = entry.array_path.read_bytes()
    entry.array_path.write_bytes(data.replace(b"<f4", b"<i4"))


@pytest.mark.parametrize("damage", [truncate, lose_meta, lose_array, other_header])
def test_a_damaged_entry_is_computed_again_and_named(tmp_path, capsys, damage):
    get(tmp_path)
    damage(only_entry(tmp_path))
    second = Encoder(3)
    np.testing.assert_array_equal(get(tmp_path, encoder=second), expected_rows())
    assert second.started == [0]
    assert str(only_entry(tmp_path).path) in capsys.readouterr().out


def test_waiting_runs_share_what_one_computes(tmp_path, capsys):
    started, finish, results = threading.Event(), threading.Event(), []

    def slow(first_view):
        started.set()
        assert finish.wait(60)
        yield from Encoder(3)(first_view)

    def never(first_view):
        raise RuntimeError("computed twice")

    first = threading.Thread(target=lambda: results.append(get(tmp_path, encoder=slow)))
    first.start()
    assert started.wait(60)
    others = [threading.Thread(target=lambda: results.append(get(tmp_path, encoder=never))) for _ in range(2)]
    for thread in others:
        thread.start()
    while capsys.readouterr().out.count("Waiting") == 0:
        pass
    finish.set()
    for thread in (first, *others):
        thread.join()
    assert len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result, expected_rows())


def test_least_recently_used_entries_make_room(tmp_path):
    bytes_each = get(tmp_path, "a").nbytes + 128  # with the header of the file
    get(tmp_path, "b")
    get(tmp_path, "c")
    forget_users(tmp_path)
    for age, name in enumerate(("b", "a", "c")):  # a is touched by the hit below
        os.utime(tmp_path / "features" / entry_key({"format": FORMAT, "name": name}) / "used", (age, age))
    get(tmp_path, "b")
    forget_users(tmp_path)
    get(tmp_path, "d", max_bytes=3 * bytes_each)
    names = {entry.meta["inputs"]["name"] for entry in FeatureStore(tmp_path).entries()}
    assert names == {"b", "c", "d"}


def test_entries_in_use_locked_or_just_made_are_kept(tmp_path, capsys):
    held = get(tmp_path, "held")
    get(tmp_path, "locked")
    store = FeatureStore(tmp_path)
    forget = entry_key({"format": FORMAT, "name": "locked"})
    with store._lock(forget):
        new = get(tmp_path, "new", max_bytes=held.nbytes + 200)
        assert len(store.entries()) == 3
        assert "INPUT.CACHE_GB" in capsys.readouterr().out
    np.testing.assert_array_equal(new, held)
    del new, held
    get(tmp_path, "newer", max_bytes=500)
    assert [entry.meta["inputs"]["name"] for entry in store.entries()] == ["newer"]


def test_a_view_of_the_array_keeps_its_entry_in_use(tmp_path):
    part = get(tmp_path)[1, 2:]
    assert only_entry(tmp_path).in_use()
    assert not FeatureStore(tmp_path).remove(only_entry(tmp_path))
    del part
    assert not only_entry(tmp_path).in_use()
    assert FeatureStore(tmp_path).remove(only_entry(tmp_path))


def test_more_than_the_limit_is_refused(tmp_path):
    with refused("INPUT.CACHE_GB", "INPUT.VIEWS"):
        get(tmp_path, max_bytes=100)
    assert FeatureStore(tmp_path).entries() == []


def test_full_disk_is_a_sentence_and_leaves_no_half_entry(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    with refused("No space left on device", tmp_path):
        get(tmp_path, encoder=Encoder(3, fail_at=1, error=full))
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["locks"]
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with refused(tmp_path):
        get(tmp_path)
    monkeypatch.undo()
    np.testing.assert_array_equal(get(tmp_path), expected_rows())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_writes_that_fail_in_the_end_are_errors_too(tmp_path, monkeypatch):
    real_open = open

    def full_open(path, *args, **kwargs):
        return real_open("/dev/full" if str(path).endswith("features.npy") and "wb" in args else path, *args, **kwargs)

    monkeypatch.setattr(feature_store, "open", full_open, raising=False)
    with refused(tmp_path):
        get(tmp_path)
    assert FeatureStore(tmp_path).entries() == []


def test_cache_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file", "DSPT_ATLAS_CACHE"):
        get(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_cache_serves_what_it_has(tmp_path):
    get(tmp_path)
    try:
        for path in [*tmp_path.rglob("*"), tmp_path]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        np.testing.assert_array_equal(get(tmp_path), expected_rows())
        with refused(tmp_path, "DSPT_ATLAS_CACHE"):
            get(tmp_path, "other")
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o755)


RUN = """
import json, sys, types
from torchvision import transforms as T
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.features.cached import frozen_features
checkpoint, cache, *paths = sys.argv[1:]
items = [types.SimpleNamespace(impath=path, label=0, domain=0) for path in paths]
model = load_clip(checkpoint)
print("ready", flush=True)
sys.stdin.readline()
transform = T.Compose([T.RandomResizedCrop(32), T.ToTensor()])
features = frozen_features(model, items, transform, cache_dir=cache, max_bytes=2**30, views=4, num_workers=1,
                           batch_size=2)
print("sum", repr(float(features.astype("float64").sum())))
"""


@pytest.mark.slow
def test_processes_that_start_at_once_encode_once(tiny_clip_path, items, tmp_path):
    command = [sys.executable, "-c", RUN, tiny_clip_path, str(tmp_path), *(item.impath for item in items)]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum("Encoding" in output for output in outputs) == 1
    assert len({output.split("sum ")[1] for output in outputs}) == 1
    entry = only_entry(tmp_path)
    entry.check()
    assert not entry.in_use()

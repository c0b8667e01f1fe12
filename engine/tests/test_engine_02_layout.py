"""CONTRACT.md, sections 1 and 2: import paths and import rules."""

import importlib
import subprocess
import sys

import pytest

PUBLIC = {
    "dassl": "__version__ __author__ __homepage__",
    "dassl.config": "get_cfg_default clean_cfg cfg_default",
    "dassl.config.defaults": "_C",
    "dassl.data": "DataManager DatasetWrapper",
    "dassl.data.data_manager": "build_data_loader DataManager DatasetWrapper build_dataset build_sampler "
    "build_transform INTERPOLATION_MODES read_image",
    "dassl.data.samplers": "RandomDomainSampler SeqDomainSampler RandomClassSampler build_sampler RandomSampler "
    "SequentialSampler",
    "dassl.data.transforms": "INTERPOLATION_MODES build_transform",
    "dassl.data.transforms.transforms": "INTERPOLATION_MODES build_transform AVAI_CHOICES Random2DTranslation "
    "InstanceNormalization Cutout GaussianNoise _build_transform_train _build_transform_test",
    "dassl.data.datasets": "DATASET_REGISTRY build_dataset Datum DatasetBase",
    "dassl.data.datasets.build": "DATASET_REGISTRY build_dataset",
    "dassl.data.datasets.base_dataset": "Datum DatasetBase",
    "dassl.engine": "TRAINER_REGISTRY build_trainer TrainerX TrainerXU TrainerBase SimpleTrainer SimpleNet",
    "dassl.engine.build": "TRAINER_REGISTRY build_trainer",
    "dassl.engine.trainer": "TrainerX TrainerXU TrainerBase SimpleTrainer SimpleNet",
    "dassl.evaluation": "build_evaluator EVALUATOR_REGISTRY EvaluatorBase Classification",
    "dassl.evaluation.build": "build_evaluator EVALUATOR_REGISTRY",
    "dassl.evaluation.evaluator": "EvaluatorBase Classification",
    "dassl.metrics": "compute_accuracy compute_distance_matrix cosine_distance euclidean_squared_distance",
    "dassl.metrics.accuracy": "compute_accuracy",
    "dassl.metrics.distance": "compute_distance_matrix cosine_distance euclidean_squared_distance",
    "dassl.modeling": "BACKBONE_REGISTRY build_backbone Backbone HEAD_REGISTRY build_head NETWORK_REGISTRY "
    "build_network",
    "dassl.modeling.backbone.build": "BACKBONE_REGISTRY build_backbone",
    "dassl.modeling.head.build": "HEAD_REGISTRY build_head",
    "dassl.modeling.network.build": "NETWORK_REGISTRY build_network",
    "dassl.modeling.ops.utils": "sharpen_prob create_onehot reverse_index shuffle_index sigmoid_rampup linear_rampup "
    "ema_model_update",
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.optim.optimizer": "AVAI_OPTIMS",
    "dassl.optim.lr_scheduler": "AVAI_SCHEDS ConstantWarmupScheduler LinearWarmupScheduler",
    "dassl.optim.radam": "RAdam",
    "dassl.utils": "mkdir_if_missing check_isfile read_json write_json set_random_seed download_url read_image "
    "collect_env_info listdir_nohidden get_most_similar_str_to_a_from_b check_availability tolist_if_not Logger "
    "setup_logger AverageMeter MetricMeter Registry save_checkpoint load_checkpoint resume_from_checkpoint "
    "load_pretrained_weights open_all_layers open_specified_layers count_num_param init_network_weights",
    "dassl.utils.tools": "read_json",
    "dassl.utils.logger": "setup_logger",
    "dassl.utils.meters": "AverageMeter",
    "dassl.utils.registry": "Registry",
    "dassl.utils.torchtools": "load_checkpoint",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_importable_from_the_contract_s_paths(module):
    imported = importlib.import_module(module)
    missing = [name for name in PUBLIC[module].split() if not hasattr(imported, name)]
    assert missing == []


IMPORT_ALONE = """
import os, random, sys
import numpy, torch

for name in "tqdm tabulate sklearn scipy tensorboard gdown wilds pandas".split():
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
import dassl.engine, dassl.modeling.ops, dassl.optim.radam
from dassl.data.datasets import DATASET_REGISTRY
after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
assert before == after, "importing draws random numbers"
assert not {"datasets", "trainers", "clip", "utils"} & set(sys.modules), "client module names are taken"
assert DATASET_REGISTRY.registered_names() == [] == dassl.engine.TRAINER_REGISTRY.registered_names()
assert not any(name.startswith("torchvision.transforms.v2") and "dassl" in str(module)
               for name, module in sys.modules.items())
assert os.listdir(".") == []
"""


def test_importing_needs_five_packages_draws_nothing_prints_nothing_and_registers_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALONE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""


def test_transforms_are_torchvision_s_v1_classes():
    from torchvision import transforms as v1

    from dassl.data.transforms import transforms

    assert transforms.T is v1
    assert transforms.T.RandomResizedCrop.__module__ == "torchvision.transforms.transforms"

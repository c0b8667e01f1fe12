"""Our declarations of Dassl's configuration keys; their defaults are Dassl's."""

from __future__ import annotations

from dspt_atlas.keys.declare import DASSLS, TRAINING, Need, declare
from dspt_atlas.keys.ranges import Allowed, at_least, finite, numbers, one_of, positive

MAX_SEED = 2**32 - 1  # NumPy's limit
OTHERS = Need(lambda run: run.trainer is None, "a trainer of another repository")
OTHERS_DATA = Need(lambda run: not run.is_data("ImageDataset"), "a data set of another repository")
DOMAINS = Need(lambda run: bool(getattr(run.dataset, "domains", True)), "a data set with domains")


def declare_all(group: str, keys: dict[str, tuple], role: str = "identity", needs: tuple[Need, ...] = ()) -> None:
    """Declare {name: (comment, allowed, need, ...)} of a group; all of them have `needs`."""
    for name, (comment, *more) in keys.items():
        allowed = [part for part in more if isinstance(part, Allowed)]
        own = tuple(part for part in more if isinstance(part, Need))
        declare(group + name, DASSLS, comment, *allowed, role=role, needs=(*needs, *own))


def _transform(*names):
    words = ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]
    return Need(lambda run: any(name in run.cfg.INPUT.TRANSFORMS for name in names), f"{words} in INPUT.TRANSFORMS")


def _optimiser(*names):
    words = ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]
    return Need(lambda run: run.cfg.OPTIM.NAME in names, f"OPTIM.NAME {words}")


def _sampler(name):
    return Need(lambda run: run.cfg.DATALOADER.TRAIN_X.SAMPLER == name, f"DATALOADER.TRAIN_X.SAMPLER {name}")


def _warmup(kind):
    return Need(lambda run: run.cfg.OPTIM.WARMUP_TYPE == kind, f"OPTIM.WARMUP_TYPE {kind}")


SGD = _optimiser("sgd")
ADAM = _optimiser("adam", "amsgrad", "radam", "adamw")
STAGED = Need(lambda run: run.cfg.OPTIM.STAGED_LR, "OPTIM.STAGED_LR True")
STEPS = Need(lambda run: run.cfg.OPTIM.LR_SCHEDULER != "cosine", "OPTIM.LR_SCHEDULER single_step or multi_step")
WARMUP = Need(lambda run: run.cfg.OPTIM.WARMUP_EPOCH > 0, "OPTIM.WARMUP_EPOCH above 0")
NORMALIZE, COLORJITTER, CUTOUT = map(_transform, ("normalize", "colorjitter", "cutout"))
NOISE, BLUR = map(_transform, ("gaussian_noise", "gaussian_blur"))
RATE = finite(0)
SEED = Allowed(lambda seed: -1 <= seed <= MAX_SEED, f"to be a seed from 0 to {MAX_SEED}, or -1 for none")
SIZE = numbers(2, lambda size: min(size) >= 1, "height and width in pixels, such as (224, 224)")
COLOURS = numbers(3, lambda mean: True, "three numbers, for red, green and blue")
POSITIVE_COLOURS = numbers(3, lambda std: min(std) > 0, "three numbers above 0, for red, green and blue")
SCALE = numbers(2, lambda scale: 0 < scale[0] <= scale[1], "two numbers above 0, the smaller first")
TENSORS = Allowed(lambda is_on: not is_on, "to be False, because CLIP takes tensors of one size")
SHOTS = Allowed(lambda count: count == -1 or count >= 1, "to be at least 1, or -1 for all images")

declare(
    "OUTPUT_DIR", DASSLS, "the run's folder", Allowed(bool, "to be the folder of the run (--output-dir)"), "machine"
)
declare("RESUME", DASSLS, "a folder to resume from; empty: OUTPUT_DIR", role="machine", needs=TRAINING)
declare("SEED", DASSLS, "the seed of sampling, noise and training; -1: drawn", SEED)
declare("USE_CUDA", DASSLS, "use a GPU if there is one", role="machine")
declare("VERBOSE", DASSLS, "print what is loaded", role="machine")
declare("TRAINER.NAME", DASSLS, "the trainer (--trainer)")
declare_all(
    "OPTIM.",
    {
        "NAME": ("the optimiser",),
        "LR": ("learning rate", RATE),
        "WEIGHT_DECAY": ("weight decay",),
        "MOMENTUM": ("momentum", _optimiser("sgd", "rmsprop")),
        "SGD_DAMPNING": ("dampening of the momentum", SGD),
        "SGD_NESTEROV": ("Nesterov's momentum", SGD),
        "RMSPROP_ALPHA": ("smoothing constant", _optimiser("rmsprop")),
        "ADAM_BETA1": ("decay of the first moment", ADAM),
        "ADAM_BETA2": ("decay of the second moment", ADAM),
        "ADAM_EPS": ("is added to the root of the second moment", positive(), ADAM),
        "STAGED_LR": ("LR for NEW_LAYERS, LR times BASE_LR_MULT for the others",),
        "NEW_LAYERS": ("layers that learn at LR", STAGED),
        "BASE_LR_MULT": ("factor of the other layers' rate", STAGED),
        "LR_SCHEDULER": ("single_step, multi_step or cosine",),
        "STEPSIZE": (
            "epochs at which the rate falls (multi_step), or number of epochs between falls (single_step)",
            STEPS,
        ),
        "GAMMA": ("factor of each fall", STEPS),
        "MAX_EPOCH": ("epochs of training", at_least(1)),
        "WARMUP_EPOCH": ("epochs of warm-up; up to 0: none",),
        "WARMUP_TYPE": ("linear or constant", WARMUP),
        "WARMUP_CONS_LR": ("rate of a constant warm-up", RATE, WARMUP, _warmup("constant")),
        "WARMUP_MIN_LR": ("first rate of a linear warm-up", RATE, WARMUP, _warmup("linear")),
        "WARMUP_RECOUNT": ("the schedule starts after the warm-up", WARMUP),
    },
    needs=(TRAINING,),
)
declare_all(
    "INPUT.",
    {
        "SIZE": ("height and width; follows the backbone", SIZE),
        "INTERPOLATION": ("between pixels, when an image is resized", one_of("bilinear", "bicubic", "nearest")),
        "TRANSFORMS": ("names of Dassl's transforms, in their order",),
        "NO_TRANSFORM": ("give images without any transform", TENSORS),
        "PIXEL_MEAN": ("the normalisation subtracts it; follows the backbone", COLOURS, NORMALIZE),
        "PIXEL_STD": ("the normalisation divides by it; follows the backbone", POSITIVE_COLOURS, NORMALIZE),
        "CROP_PADDING": ("pixels around the image", at_least(0), _transform("random_crop")),
        "RRCROP_SCALE": ("share of the image that is kept, from and to", SCALE, _transform("random_resized_crop")),
        "CUTOUT_N": ("squares that are cut out", CUTOUT),
        "CUTOUT_LEN": ("side of the squares in pixels", CUTOUT),
        "GN_MEAN": ("mean of the noise on the pixels", NOISE),
        "GN_STD": ("deviation of the noise on the pixels", NOISE),
        "RANDAUGMENT_N": ("operations per image", _transform("randaugment", "randaugment2", "randaugment_fixmatch")),
        "RANDAUGMENT_M": ("strength of the operations", _transform("randaugment")),
        "COLORJITTER_B": ("brightness", COLORJITTER),
        "COLORJITTER_C": ("contrast", COLORJITTER),
        "COLORJITTER_S": ("saturation", COLORJITTER),
        "COLORJITTER_H": ("hue", COLORJITTER),
        "RGS_P": ("probability of a grey image", _transform("randomgrayscale")),
        "GB_P": ("probability of a blurred image", BLUR),
        "GB_K": ("size of the kernel in pixels", BLUR),
    },
)
declare("DATALOADER.NUM_WORKERS", DASSLS, "processes that read images; at most the cores", at_least(0), "machine")
declare("DATALOADER.TEST.BATCH_SIZE", DASSLS, "images per step of a test", at_least(1), "machine")
declare("DATALOADER.TEST.SAMPLER", DASSLS, "order of the test images")
declare_all(
    "DATALOADER.TRAIN_X.",
    {
        "BATCH_SIZE": ("images per training step", at_least(1)),
        "SAMPLER": ("RandomSampler, SequentialSampler, RandomDomainSampler or RandomClassSampler",),
        "N_DOMAIN": ("domains per batch", _sampler("RandomDomainSampler")),
        "N_INS": ("images of each class per batch", at_least(1), _sampler("RandomClassSampler")),
    },
    needs=(TRAINING,),
)
declare_all(
    "",
    {
        "MODEL.HEAD.NAME": ("a head on the features",),
        "MODEL.HEAD.HIDDEN_LAYERS": ("sizes of the head's layers",),
        "MODEL.HEAD.ACTIVATION": ("activation of the head's layers",),
        "MODEL.HEAD.BN": ("a head with batch normalisation",),
        "MODEL.HEAD.DROPOUT": ("share of the head's units that are dropped",),
        "MODEL.BACKBONE.PRETRAINED": ("start from trained weights",),
        "TRAIN.COUNT_ITER": ("which loader gives an epoch its length",),
        "DATALOADER.TRAIN_U.SAME_AS_X": ("read as the labelled images",),
        "DATALOADER.TRAIN_U.SAMPLER": ("order of the unlabelled images",),
        "DATALOADER.TRAIN_U.BATCH_SIZE": ("unlabelled images per step",),
        "DATALOADER.TRAIN_U.N_DOMAIN": ("domains per batch",),
        "DATALOADER.TRAIN_U.N_INS": ("images of each class per batch",),
        "DATALOADER.K_TRANSFORMS": ("transforms of an image",),
        "DATALOADER.RETURN_IMG0": ("give the image without transform too",),
    },
    needs=(OTHERS,),
)
declare(
    "MODEL.BACKBONE.NAME",
    DASSLS,
    "CLIP's weights: a name or a path, as in backbones.md (--backbone)",
    role="location",
    digest="backbone",
)
declare("MODEL.INIT_WEIGHTS", DASSLS, "prompts to start from", role="location", needs=TRAINING, digest="init_weights")
declare("DATASET.NAME", DASSLS, "the data set", digest="data")
declare("DATASET.ROOT", DASSLS, "the folder of all data sets (--root)", role="machine", digest="data")
declare("DATASET.NUM_SHOTS", DASSLS, "training images per class", SHOTS)
declare("DATASET.SOURCE_DOMAINS", DASSLS, "domains that are trained on", needs=DOMAINS, digest="data")
declare("DATASET.TARGET_DOMAINS", DASSLS, "domains that are tested on", needs=DOMAINS, digest="data")
declare_all(
    "DATASET.",
    {
        "NUM_LABELED": ("labelled images",),
        "VAL_PERCENT": ("share of the training images that is used for validation",),
        "STL10_FOLD": ("fold of STL-10",),
        "CIFAR_C_TYPE": ("corruption of CIFAR-C",),
        "CIFAR_C_LEVEL": ("strength of the corruption",),
        "ALL_AS_UNLABELED": ("all images are also used as unlabelled images",),
    },
    needs=(OTHERS_DATA,),
)
declare("TRAIN.CHECKPOINT_FREQ", DASSLS, "epochs between checkpoints; 0 or less: only the last", role="machine")
declare("TRAIN.PRINT_FREQ", DASSLS, "batches between lines of progress; 0 or less: no lines", role="machine")
declare("TEST.EVALUATOR", DASSLS, "Dassl's evaluator")
declare("TEST.PER_CLASS_RESULT", DASSLS, "print the accuracy per class", role="observing")
declare("TEST.COMPUTE_CMAT", DASSLS, "save the confusion matrix", role="observing")
declare("TEST.NO_TEST", DASSLS, "train without a test at the end")
declare("TEST.SPLIT", DASSLS, "images of the final test", one_of("val", "test"))
declare("TEST.FINAL_MODEL", DASSLS, "the model that is tested", one_of("last_step", "best_val"), needs=TRAINING)

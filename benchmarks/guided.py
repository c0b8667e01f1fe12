"""The timed steps of the learners that hand-written prompts guide: KgCoOp, ProGrad and TCP."""

import torch
import torch.nn.functional as F
from reference import NaiveTextEncoder, gradients

from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, zero_shot_features
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.prograd import projected
from dspt_atlas.trainers.learners.tcp import TCPPromptLearner
from dspt_atlas.trainers.losses import cosine_distance

LOSS_SCALE = 2.0**12  # as in training: without one, gradients of many classes are too small for fp16


def guided(kind, side, problem):
    """A whole step with cross-entropy; ours has the images' features cached.

    The reference encodes the images at every step, for ProGrad twice, because its teacher is a model of its own.
    """
    model, images = problem.clip(with_images=True)
    names, block = problem.names(), 1 if problem.quick else 8
    fixed = zero_shot_features(model, names, ("a photo of a {}.",))
    if kind == "tcp":
        learner = TCPPromptLearner(model, names, fixed, block=block).to(problem.device)
    else:
        learner = CoOpPromptLearner(model, names, {"kgcoop": 4, "prograd": 16}[kind])
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    features = prompted.encode_image(images)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002)
    label = torch.arange(problem.batch, device=problem.device) % problem.classes
    scale = model.logit_scale.exp()

    @torch.no_grad()
    def encoded():
        return F.normalize(model.encode_image(images), dim=-1)

    def reference_text():
        context = learner()
        if kind != "tcp":
            return naive(context)[0]
        vectors = context[0, len(learner.ctx) :].view(len(names), len(learner.ctx), -1)
        return naive(context, vectors=vectors, layer_of_vectors=block)[0]

    def forward():
        if side == "ours":
            output = prompted(features)
            return output.logits, output.text_features, output.image_features
        image, text = encoded(), F.normalize(reference_text(), dim=-1)
        return scale * image @ text.t(), text, encoded() if kind == "prograd" else image

    def step():
        optimizer.zero_grad()
        logits, text, image = forward()
        criterion = LOSS_SCALE * F.cross_entropy(logits, label)
        if kind == "prograd":
            distance = LOSS_SCALE * F.cross_entropy(logits, (scale * image @ fixed.t()).softmax(dim=1))
            (guide,) = torch.autograd.grad(distance, [learner.ctx], retain_graph=True)
            criterion.backward()
            learner.ctx.grad = projected(learner.ctx.grad, guide)
        else:
            (criterion + LOSS_SCALE * 8.0 * cosine_distance(text, fixed)).backward()
        for parameter in learner.parameters():
            if parameter.grad is not None:
                parameter.grad /= LOSS_SCALE
        gradient = gradients(learner)
        optimizer.step()
        return gradient

    return step

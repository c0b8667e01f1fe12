"""The timed steps of VPT and PromptSRC, whose image tower has prompts of its own."""

import torch
import torch.nn.functional as F
from reference import NaiveTextEncoder, encode_prompted_images, gradients

from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.learners.promptsrc import consistency


def ivlp_learner(model, names, depth):
    """IVLP's prompt learner, 4 and 4 vectors."""
    return IVLPPromptLearner(model, names, depth_text=depth, depth_vision=depth)


def vpt(encodes_text, side, problem):
    """VPT step; the reference encodes the text, without gradient, in each step, or only once as the authors do."""
    model, images = problem.clip(with_images=True)
    depth = 2 if problem.quick else 12
    learner = IVLPPromptLearner(model, problem.names(), n_ctx_vision=8, depth_text=0, depth_vision=depth)
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    upstream = problem.upstream(problem.batch, problem.classes)
    encode = torch.no_grad()(lambda: F.normalize(naive()[0], dim=-1))
    once = None if encodes_text or side == "ours" else encode()
    if side == "ours":
        prompted.encode_text()

    def reference():
        text = encode() if once is None else once
        image = F.normalize(encode_prompted_images(model, images, learner().images), dim=-1)
        return model.logit_scale.exp() * image @ text.t()

    def step():
        learner.zero_grad()
        ((prompted(images).logits if side == "ours" else reference()) * upstream).sum().backward()
        return gradients(learner)

    return step


def promptsrc(side, problem):
    """PromptSRC step with its three terms; the reference has a second, frozen image tower, ours has cached features."""
    model, images = problem.clip(with_images=True)
    learner = ivlp_learner(model, problem.names(), 2 if problem.quick else 9)
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    upstream = problem.upstream(problem.batch, problem.classes)
    with torch.no_grad():
        fixed_text = F.normalize(problem.upstream(problem.classes, model.text_projection.shape[1]), dim=-1)
        cached = F.normalize(model.encode_image(images), dim=-1) if side == "ours" else None

    def ours():
        output = prompted(images)
        return output.logits, consistency(output, prompted.output(cached, fixed_text), 25, 10)

    def reference():
        context, deep, visual = learner()
        with torch.no_grad():
            fixed = F.normalize(model.encode_image(images), dim=-1)
        text = F.normalize(naive(context, deep)[0], dim=-1)
        image = F.normalize(encode_prompted_images(model, images, visual), dim=-1)
        z, z0 = (model.logit_scale.exp() * one @ other.t() for one, other in ((image, text), (fixed, fixed_text)))
        divergence = (z0.softmax(1) * (z0.log_softmax(1) - z.log_softmax(1))).mean()
        return z, 25 * (text - fixed_text).abs().mean() + 10 * (image - fixed).abs().mean() + divergence

    def step():
        learner.zero_grad()
        logits, terms = (ours if side == "ours" else reference)()
        ((logits * upstream).sum() + terms).backward()
        return gradients(learner)

    return step

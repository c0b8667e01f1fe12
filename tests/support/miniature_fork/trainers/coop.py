"""The fork's own CoOp: logits in `self.model(image)`, cross-entropy in `forward_backward`."""

import torch
from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint
from torch import nn
from torch.nn import functional as F

NO_PROMPTS = {"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}


class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.n_ctx = cfg.TRAINER.COOP.N_CTX
        self.tokens = clip.tokenize(["X" * self.n_ctx + name + "." for name in classnames])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokens)
        self.ctx = nn.Parameter(0.02 * torch.randn(self.n_ctx, embedding.shape[2]))
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 1 + self.n_ctx :])

    def forward(self):
        context = self.ctx.expand(len(self.tokens), -1, -1)
        return torch.cat([self.token_prefix, context, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.clip_model = clip_model
        with torch.no_grad():  # features of hand-written prompts, from which some trainers must not go far
            prompts = [f"a photo of a {name.replace('_', ' ')}." for name in classnames]
            fixed = clip_model.encode_text(clip.tokenize(prompts))
        self.register_buffer("fixed", F.normalize(fixed, dim=-1))

    def features(self, image):
        """Image features (B, d) and text features (C, d), not normalised."""
        model, tokens = self.clip_model, self.prompt_learner.tokens
        x = (self.prompt_learner() + model.positional_embedding).transpose(0, 1)
        x = model.transformer.resblocks([x, [], 0])[0].transpose(0, 1)
        text = model.ln_final(x)[range(len(x)), tokens.argmax(dim=1)] @ model.text_projection
        return model.encode_image(image), text

    def similarity(self, image, text):
        return self.clip_model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).t()

    def logits(self, image):
        return self.similarity(*self.features(image))

    def forward(self, image):
        return self.logits(image)


@TRAINER_REGISTRY.register()
class CoOp(TrainerX):
    custom_clip = CustomCLIP

    def check_cfg(self, cfg):
        assert cfg.TRAINER.COOP.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        print(f"Building the fork's own {type(self).__name__}")
        state_dict = torch.load(cfg.MODEL.BACKBONE.NAME, map_location="cpu", weights_only=True)
        clip_model = clip.build_model(state_dict, dict(NO_PROMPTS)).float()
        self.model = self.custom_clip(cfg, self.dm.dataset.classnames, clip_model)
        for name, param in self.model.named_parameters():
            param.requires_grad_("prompt_learner" in name)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        loss_summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        state = load_checkpoint(f"{directory}/prompt_learner/{file}")["state_dict"]
        self.model.prompt_learner.load_state_dict({"ctx": state["ctx"]}, strict=False)

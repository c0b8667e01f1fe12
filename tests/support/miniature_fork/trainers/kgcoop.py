"""A trainer of the fork that looks its template up by the data set's name, as KgCoOp's and ProGrad's do."""

from dassl.engine import TRAINER_REGISTRY

from .coop import CoOp

CUSTOM_TEMPLATES = {"Caltech101": "a photo of a {}.", "Blobs": "a blob of {}."}


@TRAINER_REGISTRY.register()
class KgCoOp(CoOp):
    def build_model(self):
        print(f"Template: {CUSTOM_TEMPLATES[self.cfg.DATASET.NAME]}")
        super().build_model()

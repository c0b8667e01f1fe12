"""Hand-written prompts: texts with one {} in the place of the class name."""

from dspt_atlas.datasets.noise import clean_name
from dspt_atlas.errors import UserError

DEFAULT = ("a photo of a {}.",)
# CLIP's authors chose these seven of their eighty for ImageNet (Radford et al. 2021).
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
# The templates in the authors' code that are not the data set's own (which are CoOp's), by its name.
KGCOOP = {"DescribableTextures": "a photo of a {}, a type of texture."}
PROGRAD = {
    "OxfordPets": "a type of pet, a photo of a {}.",
    "OxfordFlowers": "a type of flower, a photo of a {}.",
    "FGVCAircraft": "a type of aircraft, a photo of a {}.",
    "DescribableTextures": "a texture of {}.",
    "Food101": "a type of food, a photo of {}.",
}
TCP_FROZEN = {
    **KGCOOP,
    "FGVCAircraft": "a photo of an aircraft {}.",
    "Food101": "a photo of a {}, a type of food.",
}
TCP_PROMPT = {  # X is the place of a learned vector
    "OxfordPets": "X X X X {}, a type of pet.",
    "OxfordFlowers": "X X X X {}, a type of flower.",
    "FGVCAircraft": "X X X X {}, a type of aircraft.",
    "DescribableTextures": "X X X X {} texture.",
    "EuroSAT": "X X X X {}.",
    "SUN397": "X X X X {}.",
    "StanfordCars": "X X X X {}, a type of car",
    "Food101": "X X X X {}, a type of food.",
    "Caltech101": "X X X X {}.",
}

# The first 60 of the eighty that CLIP's authors published for ImageNet (MIT licence), the plain one first: PromptSRC's.
_SIXTY = (
    "a photo of a {}.|a bad photo of a {}.|a photo of many {}.|a sculpture of a {}.|a photo of the hard to see {}.|"
    "a low resolution photo of the {}.|a rendering of a {}.|graffiti of a {}.|a bad photo of the {}.|"
    "a cropped photo of the {}.|a tattoo of a {}.|the embroidered {}.|a photo of a hard to see {}.|"
    "a bright photo of a {}.|a photo of a clean {}.|a photo of a dirty {}.|a dark photo of the {}.|"
    "a drawing of a {}.|a photo of my {}.|the plastic {}.|a photo of the cool {}.|a close-up photo of a {}.|"
    "a black and white photo of the {}.|a painting of the {}.|a painting of a {}.|a pixelated photo of the {}.|"
    "a sculpture of the {}.|a bright photo of the {}.|a cropped photo of a {}.|a plastic {}.|"
    "a photo of the dirty {}.|a jpeg corrupted photo of a {}.|a blurry photo of the {}.|a photo of the {}.|"
    "a good photo of the {}.|a rendering of the {}.|a {} in a video game.|a photo of one {}.|a doodle of a {}.|"
    "a close-up photo of the {}.|the origami {}.|the {} in a video game.|a sketch of a {}.|a doodle of the {}.|"
    "a origami {}.|a low resolution photo of a {}.|the toy {}.|a rendition of the {}.|a photo of the clean {}.|"
    "a photo of a large {}.|a rendition of a {}.|a photo of a nice {}.|a photo of a weird {}.|"
    "a blurry photo of a {}.|a cartoon {}.|art of a {}.|a sketch of the {}.|a embroidered {}.|"
    "a pixelated photo of a {}.|itap of the {}."
)
SIXTY = tuple(_SIXTY.split("|"))


OWN = ("", "all", "ensemble")  # settings that read the data set's own templates


def fill(template, name):
    """Return the prompt of a class: the template with the name in the place of {}, and spaces for underscores.

    Raises UserError for a template without {}, with several {}, or with other braces.

    >>> fill("a photo of a {}.", "polar_bear")
    'a photo of a polar bear.'
    """
    parts = template.split("{}") if isinstance(template, str) else ()
    if len(parts) != 2 or any(brace in part for part in parts for brace in "{}"):
        raise UserError(
            f"Expected a template with one {{}} for the class name and no other braces, got {template!r}: write it "
            f"like {DEFAULT[0]!r}."
        )
    return name.replace("_", " ").join(parts)


def chosen_templates(dataset, setting):
    """Return prompt templates: "" is the data set's first, "all" are all its own, "ensemble" its first and ENSEMBLE.

    Any other setting is split at "|". Raises UserError for a template that cannot be filled.
    """
    own = getattr(dataset, "templates", ()) or DEFAULT
    if not isinstance(own, (list, tuple)):
        raise UserError(f"Expected the templates of {type(dataset).__name__} as a tuple of texts, got {own!r}.")
    named = {"": own[:1], "all": own, "ensemble": (*own[:1], *ENSEMBLE)}
    templates = tuple(named[setting] if setting in named else (part.strip() for part in setting.split("|")))
    for template in templates:
        fill(template, "")
    return templates


def prompts_name(cfg):
    """Return the name of the data set whose hand-written prompts a run has."""
    own = cfg.DATASET.get("OWN")
    return (own and own.get("PROMPTS_OF")) or clean_name(cfg.DATASET.NAME)


def has_own_prompts(dataset, name):
    """Return whether a data set has other hand-written prompts than data without any; name: by `prompts_name`."""
    is_named = any(name in table for table in (KGCOOP, PROGRAD, TCP_FROZEN, TCP_PROMPT))
    return is_named or tuple(getattr(dataset, "templates", ()) or DEFAULT) != DEFAULT


def authors_template(table, dataset, name):
    """Return the template of a data set, by its name, in a table of the authors, or else its own first."""
    return chosen_templates(dataset, table.get(clean_name(name), ""))[0]

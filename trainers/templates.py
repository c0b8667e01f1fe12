"""Hand-written prompts: texts with one {} in the place of the class name."""

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

"""What a refusal has to be: an error of a type, one sentence on one line, which names the facts that a user needs."""

from contextlib import contextmanager

import pytest

from dspt_atlas.errors import UserError


@contextmanager
def refused(*facts, error=UserError):
    """Expect an error that names all facts: keys, paths, names, numbers; its words are its own affair."""
    with pytest.raises(error) as caught:
        yield caught
    assert_names(str(caught.value), *facts)


def assert_names(sentence, *facts):
    """Check that one line, which may end, names all facts."""
    assert "\n" not in sentence.rstrip("\n"), sentence
    missing = [str(fact) for fact in facts if str(fact) not in sentence]
    assert not missing, f"{missing} are not named in: {sentence}"

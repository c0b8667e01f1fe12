"""CONTRACT.md, section 4: registries and builders."""

import pytest

from dassl.engine import build_trainer
from dassl.modeling import HEAD_REGISTRY, build_backbone
from dassl.utils import Registry, check_availability, get_most_similar_str_to_a_from_b


def test_register_get_and_force():
    registry = Registry("THING")

    @registry.register()
    class First:
        pass

    def second():
        return None

    assert registry.register(second) is second
    assert registry.get("First") is First
    assert registry.registered_names() == ["First", "second"]
    with pytest.raises(KeyError, match='"second".*"THING"'):
        registry.register(second)
    registry.register(second, force=True)
    with pytest.raises(KeyError, match='"third".*"THING"'):
        registry.get("third")


def test_a_default_stays_until_its_name_is_registered():
    registry = Registry("THING")
    default, theirs, later = (type("Thing", (), {}) for _ in range(3))
    assert registry.register_default(default) is default and registry.get("Thing") is default
    registry.register(theirs)
    assert registry.register_default(later) is later  # too late, whatever the order of the imports
    assert registry.get("Thing") is theirs and registry.registered_names() == ["Thing"]
    with pytest.raises(KeyError, match="already registered"):
        registry.register(later)


def test_unknown_names_come_with_the_most_similar_one():
    assert check_availability("adam", ["adam"]) is None
    with pytest.raises(ValueError) as error:
        check_availability("adan", ["sgd", "adam"])
    assert str(error.value) == (
        "The requested one is expected to belong to ['sgd', 'adam'], but got [adan] (do you mean [adam]?)"
    )
    assert get_most_similar_str_to_a_from_b("abc", ["abd", "abe"]) == "abe"
    assert get_most_similar_str_to_a_from_b("abc", ["x"]) == "x"
    assert get_most_similar_str_to_a_from_b("abc", []) is None


def test_builders_check_announce_and_call(make_cfg, capsys):
    with pytest.raises(ValueError, match=r"\[EngineToyTrainer\]"):
        build_trainer(make_cfg("TRAINER.NAME", "EngineToyTrainr"))
    assert build_backbone("EngineToyBackbone", pretrained=False).out_features == 3
    assert capsys.readouterr().out == "Backbone: EngineToyBackbone\n"
    build_backbone("EngineToyBackbone", verbose=False)
    assert capsys.readouterr().out == ""
    assert "mlp" in HEAD_REGISTRY.registered_names()

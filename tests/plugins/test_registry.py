"""Names stand for ours, for what is registered, and for what packages offer; a broken one costs itself."""

import ast
import inspect
import logging
import sys

import pytest

from byzflower.attacks import ATTACKS, MASK_ATTACKS, Attack
from byzflower.attacks.items import ITEM_ATTACKS
from byzflower.datasets import DATASETS, FEEDBACK
from byzflower.models import MODELS, PERSONAL, STATELESS
from byzflower.plugins import PluginError, Registry, import_modules, module_names
from byzflower.strategies import PRE_AGGREGATIONS, STRATEGIES, Median
from byzflower.strategies.items import ITEM_STRATEGIES

OURS = [
    *(STRATEGIES, PRE_AGGREGATIONS, ITEM_STRATEGIES, ATTACKS, MASK_ATTACKS, ITEM_ATTACKS),
    *(DATASETS, FEEDBACK, MODELS, STATELESS, PERSONAL),
]


def package(folder, name, entry_points, **modules):
    """Lay an installed package into a folder."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[test.things]\n" + "\n".join(entry_points) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def things(**places):
    return Registry("thing", "test.things", places)


@pytest.mark.parametrize("registry", OURS, ids=lambda registry: registry.kind)
def test_ours_are_all_there_and_described_without_importing_them(registry):
    for name in registry:
        summary = registry.summary(name)
        assert summary == inspect.getdoc(registry[name]).splitlines()[0]
        assert len(summary) > 10
        assert name in registry
    assert len(registry) == len(list(registry))
    assert "nothing of ours" not in registry
    with pytest.raises(KeyError):
        registry["nothing of ours"]


def test_what_is_registered_is_there_like_all_others():
    registry = things(date="datetime:date")
    registry.register("mine", dict)
    assert dict(registry) == {"date": __import__("datetime").date, "mine": dict}
    assert registry.summary("mine").startswith("dict()")
    registry.unregister("mine")
    assert list(registry) == ["date"]
    with pytest.raises(KeyError):
        registry.unregister("mine")


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced():
    registry = things(date="datetime:date")
    with pytest.raises(PluginError, match=r"there is a thing 'date' already \(datetime:date\); replace=True"):
        registry.register("date", dict)
    registry.register("date", __import__("datetime").date)  # the same again
    registry.register("date", dict, replace=True)
    assert registry["date"] is dict


@pytest.mark.parametrize("name", ["", "none", "My Rule", "Krum", "a,b", "é", "-x"])
def test_names_are_fit_for_options(name):
    with pytest.raises(PluginError, match="name"):
        things().register(name, dict)


def test_what_is_registered_is_of_the_right_kind():
    with pytest.raises(PluginError, match="strategy 'odd' must be a class derived from RobustStrategy, got"):
        STRATEGIES.register("odd", Attack)
    with pytest.raises(PluginError, match="must be a class derived from RobustStrategy"):
        STRATEGIES.register("odd", Median())
    with pytest.raises(PluginError, match="must be something to call"):
        MODELS.register("odd", 3)
    assert "odd" not in STRATEGIES


def test_entry_points_are_read_once_and_loaded_when_asked_for(folder):
    package(folder, "theirs", ["one = theirs_one:One"], theirs_one='class One:\n    """The first."""\n')
    registry = things(date="datetime:date")
    assert registry["date"]
    assert "one" in registry
    assert registry.summary("one") == "The first."
    assert "theirs_one" not in sys.modules
    assert registry["one"].__name__ == "One"
    assert registry.faults() == {}


BROKEN = {
    "raises = theirs_raises:One": "thing 'raises' of package theirs cannot be loaded: ZeroDivisionError",
    "absent = theirs_absent:One": "thing 'absent' of package theirs cannot be loaded: ModuleNotFoundError",
    "lacks = theirs_fine:Two": "thing 'lacks' of package theirs cannot be loaded: AttributeError",
    "number = theirs_fine:NUMBER": "thing 'number' of package theirs must be something to call, got 3",
    "syntax = theirs_syntax:One": "thing 'syntax' of package theirs cannot be loaded: SyntaxError",
}


def test_a_broken_entry_point_costs_its_own_name_alone(folder):
    package(
        folder,
        "theirs",
        [*BROKEN, "fine = theirs_fine:One"],
        theirs_raises="1 / 0",
        theirs_fine="NUMBER = 3\nclass One: pass\n",
        theirs_syntax="class One",
    )
    registry = things(date="datetime:date")
    assert registry["fine"]
    assert registry["date"]
    assert set(registry) == {"date", "fine", *(line.split()[0] for line in BROKEN)}
    for line, text in BROKEN.items():
        name = line.split()[0]
        for ask in (registry.__getitem__, registry.get, registry.summary):
            with pytest.raises(PluginError) as caught:
                ask(name)
            assert str(caught.value).startswith(text)
        assert registry.faults()[name].startswith(text)


def test_names_of_ours_and_of_two_packages(folder, caplog):
    package(folder, "theirs", ["date = theirs_fine:One", "both = theirs_fine:One", "A B = theirs_fine:One"])
    package(folder, "others", ["both = theirs_fine:One"], theirs_fine="class One: pass\n")
    registry = things(date="datetime:date")
    with caplog.at_level(logging.WARNING):
        assert set(registry) == {"date", "both"}
    assert registry["date"] is __import__("datetime").date
    assert "thing 'date' of package theirs is left out: byzflower has one of this name" in caplog.text
    assert "thing 'A B' of package theirs: a name is made of" in caplog.text
    with pytest.raises(
        PluginError, match=r"packages (theirs and others|others and theirs) both have a thing"
    ):
        registry["both"]


def test_modules_are_imported_by_name_and_what_is_wrong_is_said_with_its_place(folder):
    assert module_names("a.b, c,c") == ("a.b", "c")
    assert module_names(["a,b", "c"]) == ("a", "b", "c")
    assert module_names("") == ()
    for wrong in ("a b", "a;b", "../a", "a.", "3a", 3, [3]):
        with pytest.raises(ValueError, match="module"):
            module_names(wrong)
    (folder / "lab_raises.py").write_text("\n1 / 0\n")
    (folder / "lab_needs.py").write_text("import not_installed_anywhere\n")
    (folder / "lab_fine.py").write_text("")
    import_modules(["lab_fine"])
    assert "lab_fine" in sys.modules
    with pytest.raises(
        PluginError, match=r"lab_raises cannot be imported: ZeroDivisionError: .*lab_raises.py:2"
    ):
        import_modules(["lab_raises"])
    with pytest.raises(PluginError, match=r"lab_needs cannot be imported: .*not_installed_anywhere"):
        import_modules(["lab_needs"])
    for name in ("lab_absent", "lab_absent.inner"):
        with pytest.raises(PluginError, match=f"there is no module {name} .*PYTHONPATH"):
            import_modules([name])


def test_a_registry_says_what_it_has():
    assert repr(things(date="datetime:date")) == "Registry(thing: date)"
    assert ast.literal_eval(repr(list(things(date="datetime:date")))) == ["date"]

"""The registry: names, isolation of plugins, choices between them, options and modifiers."""

from __future__ import annotations

import importlib.metadata
import pickle
import string
import subprocess
import sys
import threading
import types
import warnings
from textwrap import dedent

import pytest
from attrs import field, frozen
from attrs.validators import gt, instance_of
from hypothesis import given
from hypothesis import strategies as st

from kdiff_core import lookup as lookup_module
from kdiff_core.errors import (
    AmbiguousNameError,
    CapabilityError,
    KdiffError,
    ParameterError,
    PluginError,
    UnknownNameError,
)
from kdiff_core.hookspecs import hookimpl
from kdiff_core.names import split_version
from kdiff_core.registry import KINDS, Entry, KdiffPluginWarning, Registry, normalise


@frozen
class Euler:
    order = 1
    memory = 0
    stochastic = False

    def __call__(self, denoiser, x, sigmas, **options):
        return x

    def plan(self, sigmas, path="ve", process=None):
        return None


@frozen
class Heun(Euler):
    eta: float = field(default=1.0, validator=instance_of(float))


@frozen
class Churn:
    solver: object
    s_churn: float = field(default=0.0, validator=gt(-1.0))
    s_noise: float = 1.0


@frozen
class Restart:
    solver: object
    restarts: int = 1
    s_noise: float = 1.0


@frozen
class Tame:
    solver: object
    clip: float = 1.0


def plugin(**hooks):
    """A plugin module whose hooks return these lists of entries: ``plugin(samplers=[...])``."""
    module = types.ModuleType("made_here")
    for name, entries in hooks.items():
        setattr(module, f"kdiff_{name}", hookimpl(lambda entries=entries: entries))
    return module


SAMPLERS = [
    Entry("euler", Euler, aliases=("comfyui:euler", "diffusers:EulerDiscreteScheduler")),
    Entry("euler_ancestral", Heun, aliases=("Euler a", "a1111:Euler a")),
    Entry("heun", Heun, defaults={"eta": 0.5}, summary="two evaluations a step"),
    Entry("dpm2", Euler),
    Entry("dpm2_a", Euler),
    Entry("dpmpp_2m", Euler, aliases=("a1111:DPM++ 2M",)),
    Entry("dpmpp_2m_sde", Euler),
    Entry("dpmpp_2m_sde_heun", Euler),
    Entry("comfyui:lms", Euler),
]
SCHEDULES = [
    Entry("karras", dict, aliases=("a1111:Karras",)),
    Entry("beta", dict),
    Entry("comfyui:beta", dict),
]
MODIFIERS = [Entry("churn", Churn), Entry("restart", Restart), Entry("tame", Tame)]
BUILTINS = plugin(samplers=SAMPLERS, schedules=SCHEDULES, modifiers=MODIFIERS)


def make(**others):
    """A registry of the built-ins above and of other plugins, by distribution."""
    made = Registry(load=False)
    made.register(BUILTINS, "kdiff-core")
    for name, other in others.items():
        made.register(other, name.replace("_", "-"))
    return made


@pytest.fixture(name="registry", scope="module")
def fixture_registry():
    return make()


@pytest.fixture(name="default")
def fixture_default(monkeypatch):
    made = make()
    monkeypatch.setattr(lookup_module, "_default", made)
    return made


@pytest.fixture(name="install")
def fixture_install(tmp_path, monkeypatch):
    """Writes distributions with entry points; only they are found."""
    for name in ("PLUGINS", "BLOCK", "DISABLE_PLUGINS", "STRICT", "PREFER"):
        monkeypatch.delenv(f"KDIFF_{name}", raising=False)

    def points(group):
        found = importlib.metadata.distributions(path=[str(tmp_path)])
        return [p for d in found for p in d.entry_points if p.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", points)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def install(distribution, source, *, point="plugin", version="1.2"):
        module = f"{normalise(distribution)}_{point}"
        head = "from kdiff_core.hookspecs import hookimpl\nfrom kdiff_core.registry import Entry\n"
        (tmp_path / f"{module}.py").write_text(head + dedent(source))
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[kdiff]\n{point} = {module}\n" if file.tell() == 0 else f"{point} = {module}\n")
        return module

    yield install
    for name in set(sys.modules) - modules:
        if name.endswith(("_plugin", "_one", "_two")):
            del sys.modules[name]


def offers(name, **more):
    """Source of a plugin that offers one sampler."""
    extra = "".join(f", {key}={value!r}" for key, value in more.items())
    return f"@hookimpl\ndef kdiff_samplers():\n    return [Entry({name!r}, dict{extra})]\n"


# -- names


@given(st.text())
def test_normalise_is_idempotent(name):
    """A normalised name is its own normal form, whatever the characters."""
    assert normalise(normalise(name)) == normalise(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("DPM++ 2M", "dpmpp_2m"),
        ("dpm_2", "dpm2"),
        ("Euler a", "euler_a"),
        ("ComfyUI: Euler", "comfyui:euler"),
        ("k-diff.core:x", "kdiff_core:X"),
    ],
)
def test_forms_that_are_one_name(one, other):
    """Hosts' labels and module names have the same normal form."""
    assert normalise(one) == normalise(other)


def test_a_colon_stays():
    """The host in front of a colon is part of the name."""
    assert normalise("comfyui:beta") == "comfyui:beta" != normalise("comfyui beta")


@st.composite
def disguised(draw, name):
    """The name with other case, with separators put in, taken out or exchanged, and p as +."""
    parts = []
    for letter in name:
        if letter in "_- .":
            parts.append(draw(st.sampled_from(["", "_", "-", " ", ".", "__"])))
            continue
        form = draw(st.sampled_from([letter, letter.upper()] + (["+"] if letter == "p" else [])))
        parts.append(form + draw(st.sampled_from(["", "", "", "_", " ", "-"])))
    return "".join(parts)


@given(st.data())
def test_every_form_leads_to_the_same_entry(registry, data):
    """Case, separators and plus signs never change which entry a name stands for."""
    entry = data.draw(st.sampled_from(SAMPLERS))
    name = data.draw(st.sampled_from([entry.name, *entry.aliases]))
    assert registry.entry("sampler", data.draw(disguised(name))).name == entry.name


KNOWN = {normalise(n): e.name for e in SAMPLERS for n in (e.name, *e.aliases)}
KNOWN |= {f"kdiffcore:{key}": name for key, name in KNOWN.items()}


@given(
    st.one_of(
        st.text(),
        st.text(string.ascii_lowercase + "_ +:@0123456789", max_size=12),
        st.sampled_from(sorted(KNOWN)).flatmap(
            lambda n: st.integers(0, len(n)).map(lambda i: n[:i] + n[i + 1 :])
        ),
    )
)
def test_there_is_no_silent_fallback(registry, name):
    """Any string is exactly a name, or an error of kdiff's own."""
    base, version = split_version(name)
    if normalise(base) in KNOWN and version in (None, 1):
        assert registry.entry("sampler", name).name == KNOWN[normalise(base)]
    else:
        with pytest.raises(UnknownNameError):
            registry.entry("sampler", name)


@given(st.text(max_size=20), st.integers(0, 999_999))
def test_versions_split_off(name, version):
    """The digits behind the last @ are a version, if a name stands before them."""
    expected = (name, version) if name else ("@" + str(version), None)
    assert split_version(f"{name}@{version}") == expected


def test_a_long_number_is_no_version(registry):
    """Five thousand digits, which Python does not convert, are an unknown name."""
    with pytest.raises(UnknownNameError):
        registry.entry("sampler", "euler@" + "9" * 5000)


def test_unknown_name_says_what_would_be_right(registry):
    """The message has the kind, the nearest names as written, and the command that lists them all."""
    with pytest.raises(UnknownNameError) as caught:
        registry.entry("sampler", "dpmpp_2n")
    message = str(caught.value)
    assert message.startswith("there is no sampler 'dpmpp_2n'; did you mean 'dpmpp_2m'")
    assert "`kdiff samplers`" in message


def test_unknown_name_of_another_kind(registry):
    """A schedule's name asked as a sampler is told to be a schedule's."""
    with pytest.raises(UnknownNameError, match=r"It is the name of a 'schedule'"):
        registry.entry("sampler", "karras")


def test_without_built_ins():
    """Where kdiff itself is not installed, an unknown name says so and what to do."""
    with pytest.raises(UnknownNameError, match=r"No built-in is known: install kdiff-core"):
        Registry(load=False).get("sampler", "euler")


def test_host_names_resolve_only_if_declared(registry):
    """A host's name that nobody declared is refused although the bare one exists, which is proposed."""
    assert registry.entry("sampler", "comfyui:euler").name == "euler"
    with pytest.raises(UnknownNameError, match=r"did you mean 'heun'"):
        registry.entry("sampler", "comfyui:heun")


def test_distribution_qualified_name_always_works(registry):
    """``distribution:name`` and ``distribution:alias`` lead to the entry."""
    assert registry.entry("sampler", "kdiff-core:euler").id == "kdiff-core:euler"
    assert registry.entry("sampler", "Kdiff_Core:Euler a").name == "euler_ancestral"


@pytest.mark.parametrize("name", [None, 3, b"euler"])
def test_a_name_is_a_string(registry, name):
    """Anything else is refused with the value."""
    with pytest.raises(ParameterError, match=r"must be a string"):
        registry.entry("sampler", name)


def test_unknown_kind(registry):
    """A kind that there is none of is refused with those that there are."""
    with pytest.raises(ParameterError, match=r"'sampler', 'modifier'"):
        registry.entry("samplers", "euler")


# -- versions


def test_versions_of_one_name():
    """The highest version is the default, NAME@N keeps another, and a version not kept is refused."""
    registry = make(
        other=plugin(samplers=[Entry("a", dict, version=1, aliases=("old",)), Entry("a", list, version=3)])
    )
    assert registry.entry("sampler", "a").version == 3
    assert registry.entry("sampler", "a@1").version == 1
    assert registry.entry("sampler", "other:A@1").version == 1
    assert registry.entry("sampler", "old").version == 3  # an alias stands for the name, not for a version
    assert [e.version for e in registry.list("sampler") if e.name == "a"] == [3]
    with pytest.raises(UnknownNameError, match=r"'a@1' and 'a@3'"):
        registry.entry("sampler", "a@2")


# -- labels


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("DPM++ 2M SDE Heun Karras", ("dpmpp_2m_sde_heun", "karras")),
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("Euler a", ("euler_ancestral", None)),
        ("Euler a Beta", ("euler_ancestral", "beta")),
        ("DPM2 a Karras", ("dpm2_a", "karras")),
        ("dpmpp_2m_karras", ("dpmpp_2m", "karras")),
        ("a1111:DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("heun", ("heun", None)),
    ],
)
def test_labels(registry, label, expected):
    """A label is a sampler, with or without a schedule behind it."""
    assert registry.parse_label(label) == expected


def test_label_that_is_none(registry):
    """A label of which only half is known is refused."""
    with pytest.raises(UnknownNameError):
        registry.parse_label("DPM++ 2M Exponential")
    with pytest.raises(UnknownNameError):
        registry.parse_label("comfyui:euler karras")  # the host has no schedule of that name


def test_label_as_a_sampler(registry):
    """`get` refuses a label with a schedule, half of which it could only drop, and names the halves."""
    with pytest.raises(UnknownNameError, match=r"sampler 'dpmpp_2m' with the schedule 'karras'.*parse_label"):
        registry.get("sampler", "DPM++ 2M Karras")


def test_name_that_looks_like_a_label():
    """A schedule whose name begins like a sampler's is told to be a schedule, not taken apart."""
    registry = make(other=plugin(schedules=[Entry("euler_karras", dict)]))
    with pytest.raises(UnknownNameError, match="It is the name of a 'schedule'"):
        registry.get("sampler", "Euler Karras")


def test_label_of_two_readings():
    """A label that can be cut in two ways is refused with both."""
    registry = make(other=plugin(samplers=[Entry("ab", dict), Entry("abc", dict)], schedules=SCHEDULES[:0]))
    registry.register(plugin(schedules=[Entry("cd", dict), Entry("d", dict)]), "more")
    with pytest.raises(AmbiguousNameError, match=r"'abc \+ d'"):
        registry.parse_label("abcd")


def test_parsed_name_leads_back():
    """The sampler's name that comes out is enough to find it, also where a built-in has the bare one."""
    with pytest.warns(KdiffPluginWarning):
        registry = make(taken=plugin(samplers=[Entry("euler", dict)]))
    assert registry.parse_label("taken:euler") == ("taken:euler", None)


# -- entries


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", dict), "needs a name"),
        (("_-", dict), "needs a name"),
        ((7, dict), "needs a name"),
        (("a@2", dict), "'@'"),
        (("a", "package.module"), "'package.module:name'"),
        (("a", "package.module:"), "'package.module:name'"),
        (("a", 7), "callable"),
        (("a", dict, "alias"), r"\('alias',\)"),
        (("a", dict, (), "", "", {}, 0), "counts from 1"),
    ],
)
def test_entries_are_validated(arguments, message):
    """An entry that could not work is refused when it is made, with what would be right."""
    with pytest.raises(ParameterError, match=message):
        Entry(*arguments)


def test_entries_are_values():
    """Equal entries are equal and hash alike, and their defaults cannot be changed."""
    one, other = (Entry("a", dict, defaults={"x": [1]}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(TypeError):
        one.defaults["x"] = 2


# -- building


def test_defaults_and_options(registry):
    """The entry's defaults come before the factory's, the caller's options before both."""
    assert registry.get("sampler", "heun") == Heun(eta=0.5)
    assert registry.get("sampler", "heun", eta=0.25) == Heun(eta=0.25)
    assert registry.get("sampler", "euler_ancestral") == Heun(eta=1.0)
    assert registry.entry("sampler", "heun").defaults == {"eta": 0.5}


def test_built_objects_pickle(registry):
    """What is built can be sent to another process."""
    sampler = registry.get("sampler", "heun", eta=0.25)
    assert pickle.loads(pickle.dumps(sampler)) == sampler


def test_unknown_option(registry):
    """An unknown option is refused with its name, the nearest, and the right ones with their defaults."""
    with pytest.raises(ParameterError) as caught:
        registry.get("sampler", "heun", etta=1.0)
    message = str(caught.value)
    assert "sampler 'heun' of kdiff-core has no option 'etta'; did you mean 'eta'?" in message
    assert "It takes eta=0.5." in message
    assert "Modifiers add s_churn, s_noise ('churn'); " in message
    with pytest.raises(ParameterError, match="no option 'rho'"):
        make(other=plugin(schedules=[Entry("x", Euler)])).get("schedule", "x", rho=7.0)


def test_refused_values_name_the_entry(registry):
    """What an attrs validator raises becomes a ParameterError with the entry's name and the cause."""
    with pytest.raises(ParameterError, match=r"sampler 'heun' of kdiff-core: 'eta' must be") as caught:
        registry.get("sampler", "heun", eta="much")
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(ParameterError, match=r"modifier 'churn'.*s_churn"):
        registry.get("sampler", "heun", s_churn=-2.0)


def test_missing_options_and_other_errors():
    """A required option that is missing is a ParameterError; other errors of kdiff pass as they are."""

    def needs_more():
        raise CapabilityError("needs a flow model")

    registry = make(other=plugin(noise=[Entry("x", Churn), Entry("y", needs_more)]))
    with pytest.raises(ParameterError, match="'solver'"):
        registry.get("noise", "x")
    with pytest.raises(CapabilityError, match="needs a flow model"):
        registry.get("noise", "y")


def test_positional_arguments():
    """Guidance and modifiers get what they wrap as their first argument."""
    registry = make(other=plugin(guidance=[Entry("x", Churn)]))
    assert registry.get("guidance", "x", "denoiser", s_churn=2.0) == Churn("denoiser", 2.0)


def test_import_strings_are_lazy():
    """A factory's module is imported when it is asked for, and a wrong import string is a PluginError."""
    strings = [
        Entry("good", "fractions:Fraction"),
        Entry("nested", "datetime:datetime.fromtimestamp"),
        Entry("no_module", "no_such_module:x"),
        Entry("no_name", "fractions:nothing"),
        Entry("no_callable", "sys:path"),
    ]
    registry = make(other=plugin(models=strings))
    assert registry.get("model", "good", numerator=1) == 1
    for name in ("no_module", "no_name", "no_callable"):
        with pytest.raises(PluginError, match=f"model '{name}' of other"):
            registry.get("model", name)


def test_defaults_the_factory_does_not_take():
    """Wrong defaults are the plugin's fault and told as such."""
    registry = make(other=plugin(models=[Entry("x", Heun, defaults={"rho": 1})]))
    with pytest.raises(PluginError, match="'rho'"):
        registry.get("model", "x")


# -- modifiers


def test_an_option_chooses_its_modifier(registry):
    """An option that only a modifier has wraps the sampler in it."""
    assert registry.get("sampler", "heun", s_churn=40.0) == Churn(Heun(eta=0.5), 40.0)
    assert registry.get("sampler", "heun", eta=0.25, s_churn=40.0) == Churn(Heun(eta=0.25), 40.0)


@given(st.permutations(["clip", "s_churn", "s_noise"]))
def test_the_order_of_options_does_not_matter(registry, names):
    """Shared options go to the modifier chosen, and the first registered lies innermost, in any order."""
    options = {"clip": 2.0, "s_churn": 40.0, "s_noise": 1.01}
    made = registry.get("sampler", "euler", **{name: options[name] for name in names})
    assert made == Tame(Churn(Euler(), 40.0, 1.01), 2.0)


def test_shared_options_alone(registry):
    """An option that several modifiers have is refused with those, and with what would choose one."""
    with pytest.raises(ParameterError, match=r"'churn' and 'restart' all have it.*'s_churn' or 'restarts'"):
        registry.get("sampler", "euler", s_noise=1.01)


def test_shared_option_of_two_chosen_modifiers(registry):
    """An option that two chosen modifiers share is refused rather than given to one of them."""
    with pytest.raises(ParameterError, match="each of the modifiers 'churn' and 'restart'"):
        registry.get("sampler", "euler", s_noise=1.01, s_churn=1.0, restarts=2)


def test_an_own_option_stays_own():
    """An option that the sampler has itself does not wrap it."""
    registry = make(other=plugin(samplers=[Entry("mine", Restart, defaults={"solver": None})]))
    assert registry.get("sampler", "mine", s_noise=2.0) == Restart(None, 1, 2.0)


def test_third_party_modifiers_do_not_disturb():
    """A plugin's modifier with a built-in's option, or that cannot be imported, changes nothing for it."""
    other = plugin(modifiers=[Entry("mine", Churn), Entry("gone", "no_such_module:x")])
    registry = make(other=other)
    assert registry.get("sampler", "euler", s_churn=1.0) == Churn(Euler(), 1.0)
    with pytest.raises(ParameterError, match=r"Not asked: modifier 'gone' of other"):
        registry.get("sampler", "euler", strength=1.0)


# -- plugins by hand


def test_provenance(registry):
    """Every entry tells its distribution, and listings leave hosts' variants out unless asked."""
    record = registry.provider("sampler", "Euler a")
    assert (record.distribution, record.state, record.builtin) == ("kdiff-core", "ok", True)
    assert record.counts == {"sampler": len(SAMPLERS), "schedule": 3, "modifier": 3}
    names = [e.name for e in registry.list("sampler")]
    assert names == sorted(e.name for e in SAMPLERS if ":" not in e.name)
    assert "comfyui:lms" in [e.name for e in registry.list("sampler", hosts=True)]
    assert registry.entry("sampler", "comfyui:lms").name == "comfyui:lms"


def test_registries_are_independent():
    """What one registry knows another does not."""
    assert Registry(load=False).list("sampler") == []
    assert make().list("sampler")


def test_a_class_with_hooks():
    """A plugin may be a class or an object with hooks."""

    class Plugin:
        @hookimpl
        def kdiff_samplers(self):
            return [Entry("x", dict)]

    for which in (Plugin, Plugin()):
        assert make(other=which).entry("sampler", "x").plugin.module == "Plugin"


def raising():
    raise RuntimeError("out of luck")


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"kdiff_samplers": hookimpl(raising)}, "out of luck"),
        ({"kdiff_samplers": hookimpl(lambda: None)}, "must return a list of Entry, not None"),
        ({"kdiff_samplers": hookimpl(lambda: Entry("x", dict))}, "must return a list of Entry"),
        ({"kdiff_samplers": hookimpl(lambda: [Entry("x", dict), "y"])}, "its item 1 is 'y'"),
        ({"kdiff_samplers": hookimpl(lambda device: [])}, "device"),
        ({"kdiff_sampler": hookimpl(lambda: [])}, "no hook 'kdiff_sampler'; did you mean 'kdiff_samplers'"),
        ({"kdiff_samplers": lambda: []}, "put @hookimpl above it"),
        ({}, "it has no hook"),
        ({"kdiff_samplers": hookimpl(lambda: [Entry("a b", dict), Entry("ab", dict)])}, "registered twice"),
        (
            {"kdiff_samplers": hookimpl(lambda: [Entry("a", dict), Entry("b", dict, aliases=("A",))])},
            "'A' is also one of 'a'",
        ),
    ],
)
def test_broken_plugins_are_rolled_back(hooks, message):
    """Whatever is wrong with a plugin is told, and nothing of it stays behind, not even its good hooks."""
    registry = make()
    module = plugin(schedules=[Entry("good", dict)])
    if not hooks:
        del module.kdiff_schedules
    for name, hook in hooks.items():
        setattr(module, name, hook)
    with pytest.raises(PluginError, match=message):
        registry.register(module, "other")
    assert [r.distribution for r in registry.plugins()] == ["kdiff-core"]
    with pytest.raises(UnknownNameError):
        registry.entry("schedule", "good")


# -- names that several plugins claim


def test_built_ins_are_not_overridden():
    """A built-in keeps its name; the plugin's claim is warned of once and kept at its distribution."""
    with pytest.warns(KdiffPluginWarning, match=r"'kdiff-core:euler'; ask for 'taken-dist:Euler'") as caught:
        registry = make(taken_dist=plugin(samplers=[Entry("Euler", dict, summary="mine")]))
    assert len(caught) == 1
    assert registry.get("sampler", "euler") == Euler()
    assert registry.entry("sampler", "taken-dist:euler").summary == "mine"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.register(plugin(samplers=[Entry("z", dict)]), "third")


def test_two_plugins_with_one_name():
    """A name or alias of two third-party plugins is refused with both full names, until one is preferred."""
    registry = make(
        one=plugin(samplers=[Entry("x", dict)]), two=plugin(samplers=[Entry("y", dict, aliases=("X",))])
    )
    with pytest.raises(AmbiguousNameError, match=r"'one:x' or 'two:y'"):
        registry.entry("sampler", "x")
    assert registry.entry("sampler", "two:x").name == "y"
    registry.prefer("two:y")
    assert registry.entry("sampler", "x").name == "y"
    registry.prefer("one:x")
    assert registry.entry("sampler", "x").name == "x"


def test_preferring_over_a_built_in():
    """An explicit choice replaces a built-in, silently, and one of something unknown is refused."""
    registry = Registry(load=False, prefer=["taken:euler"])
    with pytest.warns(KdiffPluginWarning, match="no plugin offers it"):
        registry.register(BUILTINS, "kdiff-core")
    registry.register(plugin(samplers=[Entry("euler", dict, summary="mine")]), "taken")
    assert registry.entry("sampler", "euler").summary == "mine"
    assert registry.get("sampler", "kdiff-core:euler") == Euler()
    with pytest.raises(UnknownNameError, match="distribution:name"):
        registry.prefer("euler")


# -- plugins that are installed


def test_installed_plugins_are_found_in_order(install):
    """Plugins load on the first look-up, sorted by distribution and entry point, each with its version."""
    install("b-two", offers("b"))
    install("A-one", offers("y"), point="two")
    module = install("A-one", offers("x"), point="one")
    registry = Registry()
    assert module not in sys.modules
    assert [e.name for e in registry.list("sampler")] == ["b", "x", "y"]
    records = registry.plugins()
    assert [(r.distribution, r.entry_point) for r in records] == [
        ("A-one", "one"),
        ("A-one", "two"),
        ("b-two", "plugin"),
    ]
    assert all(r.version == "1.2" and r.import_ms > 0 and r.counts == {"sampler": 1} for r in records)


@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit(3)", "import no_such_module", "def"])
def test_a_broken_plugin_harms_nobody(install, fault):
    """A plugin that fails on import is warned of once; the others work, and its own name raises the cause."""
    install("broken-dist", fault, point="lost")
    install("good", offers("fine"))
    registry = Registry()
    with pytest.warns(KdiffPluginWarning, match=r"broken-dist 1.2 .*'lost'.* is broken") as caught:
        assert registry.entry("sampler", "fine")
    assert len(caught) == 1
    record = registry.plugins()[0]
    assert record.state == "broken"
    assert "Traceback" in record.traceback or "SyntaxError" in record.traceback
    for name in ("lost", "Broken_Dist:anything"):
        with pytest.raises(PluginError) as error:
            registry.entry("sampler", name)
        assert error.value.__cause__ is record.exception
    with pytest.raises(UnknownNameError, match=r"may belong to plugin broken-dist 1.2"):
        registry.entry("sampler", "anything")


def test_keyboard_interrupt_passes(install):
    """Ctrl-C during the import of a plugin stops the program, and the next look-up starts anew."""
    install("slow", "raise KeyboardInterrupt")
    registry = Registry()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            registry.list("sampler")


def test_duplicates_between_entry_points(install):
    """Two entry points of one distribution with one name: the second is broken as a whole."""
    install("twice", offers("x"), point="one")
    install("twice", offers("y", aliases=("X",)), point="two")
    registry = Registry()
    with pytest.warns(KdiffPluginWarning, match="also one of 'x'"):
        assert [e.name for e in registry.list("sampler")] == ["x"]


def test_strict(install, monkeypatch):
    """With KDIFF_STRICT a broken plugin raises at once, at every look-up."""
    install("broken-dist", "1 / 0")
    monkeypatch.setenv("KDIFF_STRICT", "1")
    registry = Registry()
    for _ in range(2):
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            registry.list("sampler")


def test_a_warning_that_is_an_error_leaves_the_registry_whole(install):
    """Where warnings are errors the first look-up raises, and the second finds everything."""
    install("broken-dist", "1 / 0")
    install("good", offers("fine"))
    registry = Registry()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KdiffPluginWarning):
            registry.list("sampler")
        assert registry.entry("sampler", "fine")


@pytest.mark.parametrize(
    ("switch", "value", "argument", "left"),
    [
        ("KDIFF_PLUGINS", "good", {"plugins": ["good"]}, ["fine", "inner"]),
        ("KDIFF_PLUGINS", "Other_Dist, nobody", {"plugins": "other.dist"}, ["inner", "other"]),
        ("KDIFF_BLOCK", "good", {"block": ["good"]}, ["inner", "other"]),
        ("KDIFF_BLOCK", "other-dist:plugin", {"block": ["other-dist:plugin"]}, ["fine", "inner"]),
        ("KDIFF_DISABLE_PLUGINS", "1", {"disable": True}, ["inner"]),
        ("KDIFF_DISABLE_PLUGINS", "0", {"disable": False}, ["fine", "inner", "other"]),
        ("KDIFF_PLUGINS", "", {}, ["fine", "inner", "other"]),
        ("KDIFF_PLUGINS", "nobody", {"plugins": []}, ["inner"]),
    ],
)
def test_switches_act_before_the_import(install, monkeypatch, switch, value, argument, left):
    """Each switch, as variable and as argument, keeps plugins from being imported, not the built-ins."""
    modules = {"inner": install("kdiff-core", offers("inner"))}
    modules["fine"] = install("good", offers("fine"))
    modules["other"] = install("other-dist", offers("other"))
    for by_argument in (True, False):
        for module in modules.values():
            sys.modules.pop(module, None)
        if not by_argument:
            monkeypatch.setenv(switch, value)
        registry = Registry(**argument) if by_argument else Registry()
        assert [e.name for e in registry.list("sampler")] == left
        assert [name for name, module in sorted(modules.items()) if module in sys.modules] == left
        assert {r.state for r in registry.plugins()} <= {"ok", "blocked"}


def test_blocked_plugins_are_named(install):
    """An unknown name tells of the plugin that is blocked, and by what."""
    install("good", offers("fine"))
    with pytest.raises(UnknownNameError, match=r"good 1.2 .* is blocked by KDIFF_BLOCK"):
        Registry(block=["good"]).entry("sampler", "fine")


def test_preference_from_the_environment(install, monkeypatch):
    """KDIFF_PREFER chooses between plugins; a choice that nobody offers is warned of."""
    install("one", offers("x", summary="first"))
    install("two", offers("x", summary="second"))
    monkeypatch.setenv("KDIFF_PREFER", "two:X, gone:y")
    with pytest.warns(KdiffPluginWarning, match="'gone:y' is preferred"):
        assert Registry().entry("sampler", "x").summary == "second"


def test_look_up_while_loading(install):
    """A plugin that looks up a name on import is broken with that reason, and does not hang the program."""
    install("eager", "from kdiff_core.lookup import default_registry\ndefault_registry().list('sampler')")
    registry = Registry()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup_module, "_default", registry)
        with pytest.warns(KdiffPluginWarning, match="while the plugins are being loaded"):
            assert registry.list("sampler") == []


def test_threads_load_once(install):
    """Threads that ask at the same time import a plugin once and all find its names."""
    install("slow", "import time\ntime.sleep(0.05)\n" + offers("x"))
    registry = Registry()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(registry.entry("sampler", "x"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


# -- the default registry


def test_functions_ask_the_default_registry(default):
    """The module's functions are those of the default registry."""
    assert lookup_module.default_registry() is default
    assert lookup_module.get_sampler("euler", s_churn=1.0) == Churn(Euler(), 1.0)
    assert lookup_module.get_schedule("karras") == {}
    assert lookup_module.get_modifier("tame", Euler()) == Tame(Euler())
    assert lookup_module.parse_label("DPM++ 2M Karras") == ("dpmpp_2m", "karras")
    assert lookup_module.list_plugins() == default.plugins()
    lists = {
        "sampler": "samplers",
        "modifier": "modifiers",
        "schedule": "schedules",
        "process": "processes",
        "noise": "noise",
        "denoiser": "denoisers",
        "model": "models",
        "guidance": "guidance",
        "loss": "losses",
        "density": "densities",
        "dataset": "datasets",
        "condition": "conditions",
        "augmentation": "augmentations",
        "features": "features",
        "command": "commands",
    }
    assert set(lists) == set(KINDS)
    for kind, name in lists.items():
        assert getattr(lookup_module, f"list_{name}")(hosts=True) == default.list(kind, hosts=True)
        with pytest.raises(UnknownNameError, match=f"no {kind} "):
            getattr(lookup_module, f"get_{kind}")("no such name")


def test_objects_pass(default):
    """A sampler itself is returned as it is; options beside it, its class and other objects are refused."""
    sampler = Heun()
    assert lookup_module.get_sampler(sampler) is sampler
    with pytest.raises(ParameterError, match="'eta'"):
        lookup_module.get_sampler(sampler, eta=1.0)
    for wrong in (Heun, None, 3, object()):
        with pytest.raises(ParameterError, match="expected the name of a sampler"):
            lookup_module.get_sampler(wrong)


def test_importing_the_registry_loads_nothing():
    """Importing it loads neither torch nor a plugin."""
    code = (
        "import sys, kdiff_core.registry; print([m for m in ('torch', 'kdiff_samplers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@given(st.text(max_size=30))
def test_errors_are_printable(registry, name):
    """Whatever is asked of whichever part, the refusal is one of kdiff's errors with a message."""
    for ask in (registry.parse_label, lambda n: registry.get("schedule", n), registry.prefer):
        message = "found"
        try:
            ask(name)
        except KdiffError as error:
            message = str(error)
        assert message

"""A language model beside the patterns: what it adds, and that nothing is looked for less than the settings say.

The model of most tests is made here, of two patterns, so that they need the package alone; recall needs a real one.
Tests that need what is not installed are skipped with that reason.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import PolicyError, SettingsError
from bus.guardrails.engine import known_types, load_engine
from bus.guardrails.inspect import Inspection
from bus.guardrails.presidio import MAX_TEXT, PresidioEngine, _joined
from bus.guardrails.scanner import PatternScanner, Span, default_scanner
from bus.guardrails.types import MODEL_TYPES, TYPES
from bus.guardrails.unpack import Unclear
from bus.policy.loader import load_policy
from bus.settings import GuardrailEngine, Settings
from bus.wire.names import DomainName
from consumers.enforcer.app import Enforcer, check_detectors
from tests.pii.measure import measure, published
from tests.unit.build import MEMORY, domain_policy, make_policy
from tests.unit.forms import JSON, MAIL, rule, write
from tests.unit.inspected import Site, guardrail
from tests.unit.test_policy_checks import AGENTS, MESH

WITH_MODEL = Settings(guardrail_engine=GuardrailEngine.PRESIDIO)
MODEL = os.environ.get("TEST_SPACY_MODEL", "en_core_web_sm")
"""Name or folder of a real model."""
ANNA, OSLO = "Anna Berg", "Oslo"

installed = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None,
    reason="presidio-analyzer is not installed: pip install 'sealbus[presidio]'",
)


# What a policy may name.
def test_a_policy_may_name_what_a_model_finds_where_the_settings_choose_one():
    assert known_types(Settings()) == TYPES
    assert known_types(WITH_MODEL) == TYPES | MODEL_TYPES
    assert {"PERSON", "LOCATION", "NRP", "DATE_TIME"} <= MODEL_TYPES


@pytest.fixture
def law(tmp_path: Path) -> Path:
    """The folder of a policy that looks for places."""
    (tmp_path / "mesh.yaml").write_text(MESH.replace("detect: [EMAIL]", "detect: [EMAIL, LOCATION]"))
    (tmp_path / "agents.yaml").write_text(AGENTS)
    return tmp_path


def test_a_type_that_needs_a_model_is_refused_at_load_where_there_is_none(law):
    with pytest.raises(PolicyError, match=r"mesh.yaml:25:30: detect: expected one of .*, found 'LOCATION'"):
        load_policy(law)
    (loaded,) = load_policy(law, types=known_types(WITH_MODEL)).domains[DomainName("notes")].guardrails
    assert loaded.detect == {"EMAIL", "LOCATION"}


def test_the_command_line_goes_by_the_setting(run, law, monkeypatch):
    assert run("policy", "check", law).code == 1
    monkeypatch.setenv("BUS_GUARDRAIL_ENGINE", "presidio")
    assert run("policy", "check", law).code == 0


# Nothing is detected less.
@pytest.mark.parametrize("kind", ["LOCATION", "EMAILS"])
def test_patterns_refuse_a_type_that_they_do_not_know(kind):
    for make in (PatternScanner, lambda types: Inspection([rule("x", *types)])):
        with pytest.raises(PolicyError, match=f"nothing here detects {kind}") as refused:
            make(["EMAIL", kind])
        assert refused.value.code is Code.POLICY


def test_an_enforcer_refuses_a_policy_with_a_type_that_its_engine_does_not_know():
    """As one whose settings differ from those that the policy was loaded with."""
    held = make_policy(domain_policy(MEMORY, guardrails=(guardrail("x", "EMAIL"),)))
    check_detectors(held, default_scanner)
    for where in ("payload", "metadata"):
        other = make_policy(domain_policy(MEMORY, guardrails=(guardrail("x", "EMAIL", "NRP", on=where),)))
        with pytest.raises(PolicyError, match="nothing here detects NRP"):
            check_detectors(other, default_scanner)


def test_an_enforcer_looks_with_the_engine_that_it_was_given():
    class Places:
        """Finds Oslo."""

        def scan_each(self, texts: Collection[str]) -> dict[str, list[Span]]:
            return {text: [Span(0, len(OSLO), "LOCATION")] for text in texts if text.startswith(OSLO)}

    asked: list[frozenset[str]] = []
    site = Site(guardrails=(guardrail("places", "LOCATION"),))
    site.context.scanners = lambda types: asked.append(types) or Places()
    _, hop, made = site.one({"to": f"{OSLO}, at noon"})
    assert hop.tail.guardrails == (("places", "LOCATION", 1),)
    assert [json.loads(each.payload) for each in site.read(made)] == [{"to": "[LOCATION], at noon"}]
    assert asked == [frozenset({"LOCATION"})]


@pytest.mark.parametrize("missing", ["presidio_analyzer", "spacy"])
def test_an_enforcer_does_not_start_without_the_package_and_says_what_to_install(monkeypatch, missing):
    for name in [each for each in sys.modules if each.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "spacy" and importlib.util.find_spec("presidio_analyzer") is None:
        monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(SettingsError, match="guardrail_engine: expected the package presidio-analyzer") as refused:
        Enforcer(WITH_MODEL)
    assert "pip install 'sealbus[presidio]'" in refused.value.hint


@installed
def test_an_enforcer_does_not_start_without_the_model_and_says_what_to_install(tmp_path):
    for model in ("no_such_model", str(tmp_path)):
        with pytest.raises(SettingsError, match="guardrail_model: expected a spaCy model") as refused:
            Enforcer(Settings(guardrail_engine=GuardrailEngine.PRESIDIO, guardrail_model=model))
        assert f"python -m spacy download {model}" in refused.value.hint


def made_model(folder: Path, *labels: str) -> str:
    """A pipeline that finds Anna Berg as PERSON, Oslo as GPE and any year as CARDINAL, as far as ``labels`` say."""
    import spacy

    nlp = spacy.blank("en")
    if labels:
        words = {"PERSON": ANNA, "GPE": OSLO, "CARDINAL": [{"SHAPE": "dddd"}]}
        ner = nlp.add_pipe("entity_ruler", name="ner")
        ner.add_patterns([{"label": label, "pattern": words[label]} for label in labels])
    nlp.to_disk(folder)
    return str(folder)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return PresidioEngine(made_model(tmp_path_factory.mktemp("model"), "PERSON", "GPE", "CARDINAL"))


@installed
def test_a_model_that_does_not_find_a_type_is_refused_for_it_even_where_patterns_find_some(engine, tmp_path):
    blank = PresidioEngine(made_model(tmp_path / "blank"))
    assert blank.scanner(frozenset({"EMAIL"})).scan(MAIL) == [Span(0, len(MAIL), "EMAIL")]
    for made, kind in ((blank, "PERSON"), (blank, "LOCATION"), (engine, "NRP"), (engine, "CARDINAL")):
        with pytest.raises(PolicyError, match=f"nothing here detects {kind}"):
            made.scanner(frozenset({"EMAIL", kind}))


# What it finds.
def redacted(engine: PresidioEngine, value: object, *types: str) -> object:
    told = Inspection([rule("x", *types)], engine.scanner).payload(json.dumps(value).encode(), JSON)
    return json.loads(told.value)


@installed
def test_names_and_places_are_redacted_wherever_they_stand_and_patterns_find_what_they_did(engine):
    value = {ANNA: [f"{ANNA} of {OSLO}, {MAIL}", write({"in": OSLO})], "year": "in 2021", "half": f"\ud800 {ANNA}"}
    assert redacted(engine, value, "PERSON", "LOCATION", "EMAIL") == {
        "[PERSON]": ["[PERSON] of [LOCATION], [EMAIL]", '{"in":"[LOCATION]"}'],
        "year": "in 2021",
        "half": "? [PERSON]",
    }
    assert redacted(engine, value, "EMAIL")[ANNA][0] == f"{ANNA} of {OSLO}, [EMAIL]"


@installed
def test_a_payload_in_which_a_model_finds_nothing_stays(engine):
    data = write({"note": "nothing at all", "n": 5}).encode()
    assert Inspection([rule("x", "PERSON")], engine.scanner).payload(data, JSON).value is data


@installed
def test_texts_that_are_scanned_together_give_what_each_gives_alone(engine):
    scanner = engine.scanner(frozenset({"PERSON", "LOCATION", "EMAIL"}))
    texts = [ANNA, "", "--", f"{OSLO}: {MAIL}", "nothing", "\ud800", f"Mr Jan Novak and {ANNA}"]
    assert scanner.scan_each(texts) == {text: spans for text in texts if (spans := scanner.scan(text))}
    assert len(scanner.scan_each(texts)) == 3


@installed
def test_a_text_that_is_longer_than_a_model_reads_is_unclear_and_patterns_alone_read_it(engine):
    data = write(["x " * (MAX_TEXT // 4), "y " * (MAX_TEXT // 4)]).encode()
    assert Inspection([rule("x", "PERSON")], engine.scanner).payload(data, JSON).value is data
    longer = data[:-2] + b'yy"]'
    with pytest.raises(Unclear, match="more than a model reads"):
        Inspection([rule("x", "PERSON")], engine.scanner).payload(longer, JSON)
    assert Inspection([rule("x", "EMAIL")], engine.scanner).payload(longer, JSON).value is longer


@installed
def test_the_setting_loads_the_model_that_it_names(tmp_path):
    chosen = Settings(guardrail_engine=GuardrailEngine.PRESIDIO, guardrail_model=made_model(tmp_path / "m", "PERSON"))
    assert load_engine(chosen)(frozenset({"PERSON"})).scan(f"of {ANNA}") == [Span(3, 12, "PERSON")]
    assert load_engine(Settings())(frozenset({"PERSON"})).scan(f"of {ANNA}") == []


# Patterns and model together.
SPANS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.sampled_from("AB")), max_size=5)


@given(SPANS, SPANS, st.text("a- ", min_size=26, max_size=26))
def test_all_that_either_found_is_covered_and_patterns_keep_their_places(first, second, text):
    patterned: list[Span] = []
    for start, size, kind in sorted(first):
        if not patterned or patterned[-1].end <= start:
            patterned.append(Span(start, start + size, kind))
    modelled = sorted(Span(start, start + size, kind) for start, size, kind in second)
    made = _joined(text, patterned, modelled)
    assert set(patterned) <= set(made)
    assert all(one.end <= other.start for one, other in itertools.pairwise(made))
    covered = {place for span in made for place in range(span.start, span.end)}
    wanted = {place for span in [*patterned, *modelled] for place in range(span.start, span.end)}
    assert {place for place in wanted if text[place].isalnum()} <= covered <= wanted


def test_a_model_s_find_is_cut_to_what_patterns_left():
    text = "write to ops@x.org now"
    assert _joined(text, [Span(9, 18, "EMAIL")], [Span(0, 22, "PERSON")]) == [
        Span(0, 9, "PERSON"),
        Span(9, 18, "EMAIL"),
        Span(18, 22, "PERSON"),
    ]
    assert _joined("- ops@x.org", [Span(2, 11, "EMAIL")], [Span(0, 11, "PERSON")]) == [Span(2, 11, "EMAIL")]


# A real model.
@installed
def test_a_real_model_finds_most_names_of_the_unseen_half():
    try:
        engine = PresidioEngine(MODEL)
    except SettingsError:
        pytest.skip(f"the spaCy model {MODEL} is not installed: TEST_SPACY_MODEL may name a folder")
    score = measure(published(1), engine.scanner(TYPES))["PERSON"]
    assert score.labelled == 227
    assert score.recall >= 0.6

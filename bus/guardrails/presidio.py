"""presidio-analyzer beside the patterns: names, places and the like, by a spaCy model (extra ``presidio``).

Patterns come first, since checks stand behind them; what the model finds around their places is cut to what is left, so
that all that either found is covered. Nothing is ever downloaded here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from bus.errors import SettingsError
from bus.guardrails.scanner import Span, default_scanner, refuse_types, whole
from bus.guardrails.types import MODEL_TYPES, TYPES
from bus.guardrails.unpack import Unclear

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

MAX_TEXT: Final = 32 * 1024
"""Characters of one payload that a model reads: about a second. More is refused: it would hold up all others."""
BATCH: Final = 64
LEAST: Final = 0.3
"""Presidio's score below which a find does not count: ``1/12`` is a date at 0.1."""
_NOT_NEEDED: Final = ("parser", "tagger", "attribute_ruler", "lemmatizer", "senter", "morphologizer")


class PresidioEngine:
    """A loaded model. Raises SettingsError where the package or the model is missing.

    ``model`` is the name of an installed spaCy model or a folder that holds one.
    """

    def __init__(self, model: str) -> None:
        try:
            self._analyzer, self._language, self._finds = _load(model)
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"guardrail_engine: expected the package presidio-analyzer, found no {error.name}",
                hint="pip install 'sealbus[presidio]', or set guardrail_engine = \"patterns\"",
            ) from None
        except Exception as error:  # spaCy's loaders raise whatever a broken or foreign folder leads to
            raise SettingsError(
                f"guardrail_model: expected a spaCy model of this spaCy's version, found none at {model!r}",
                hint=f"python -m spacy download {model}, or name another model or a folder that holds one",
            ) from error

    def scanner(self, types: frozenset[str]) -> PresidioScanner:
        """Looks for ``types``. Raises PolicyError for one that neither a pattern nor this model finds; PERSON needs the
        model, too."""
        modelled = types & MODEL_TYPES
        refuse_types((types - TYPES - MODEL_TYPES) | (modelled - self._finds))
        return PresidioScanner(self._analyzer, self._language, types & TYPES, modelled)


class PresidioScanner:
    """See ``Scanner``; ``patterned`` types by patterns, ``modelled`` ones by the model, some by both."""

    def __init__(
        self, analyzer: AnalyzerEngine, language: str, patterned: frozenset[str], modelled: frozenset[str]
    ) -> None:
        self._analyzer = analyzer
        self._language = language
        self._patterns = default_scanner(patterned)
        self._modelled = sorted(modelled)

    def scan(self, text: str) -> list[Span]:
        """See ``Scanner``. Raises Unclear."""
        return self.scan_each((text,)).get(text, [])

    def scan_each(self, texts: Collection[str]) -> dict[str, list[Span]]:
        """See ``Scanner``. Each text is read by itself: what stands beside it is another place of the payload. Raises
        Unclear where together they are longer than a model reads."""
        found = self._patterns.scan_each(texts)
        read = [text for text in texts if any(map(str.isalnum, text))] if self._modelled else []
        if sum(map(len, read)) > MAX_TEXT:
            raise Unclear(f"more than {MAX_TEXT} characters, which is more than a model reads")
        clean = [whole(text) for text in read]
        batch = self._analyzer.nlp_engine.process_batch(clean, self._language, batch_size=BATCH)
        for text, (told, artifacts) in zip(read, batch, strict=True):
            results = self._analyzer.analyze(
                told, self._language, entities=self._modelled, nlp_artifacts=artifacts, score_threshold=LEAST
            )
            spans = sorted(Span(each.start, each.end, each.entity_type) for each in results)
            if made := _joined(text, found.get(text, []), spans):
                found[text] = made
        return found


def _joined(text: str, first: list[Span], second: list[Span]) -> list[Span]:
    """``first``, and of ``second`` what lies beside it and holds a letter or digit, in order, none over another."""
    made = list(first)
    for span in second:
        start = span.start
        for other in [*sorted(each for each in made if each.end > start and each.start < span.end), None]:
            end = span.end if other is None else other.start
            if any(map(str.isalnum, text[start:end])):
                made.append(Span(start, end, span.type))
            start = span.end if other is None else max(start, other.end)
    return sorted(made)


def _load(model: str) -> tuple[AnalyzerEngine, str, frozenset[str]]:
    """An analyzer, its language and the types that it finds. Raises whatever its packages do."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import DateRecognizer, SpacyRecognizer

    nlp = spacy.load(model, exclude=_NOT_NEEDED)
    language = nlp.lang
    labels = nlp.get_pipe("ner").labels if nlp.has_pipe("ner") else ()
    types = NerModelConfiguration().model_to_presidio_entity_mapping or {}
    finds = frozenset(types[label] for label in labels if label in types) & MODEL_TYPES
    ignored = [label for label in labels if types.get(label) not in MODEL_TYPES]
    engine: Any = SpacyNlpEngine(ner_model_configuration=NerModelConfiguration(labels_to_ignore=ignored))
    engine.nlp = {language: nlp}  # loaded: presidio would fetch a model that it does not find
    registry = RecognizerRegistry(
        recognizers=[
            SpacyRecognizer(supported_language=language, supported_entities=sorted(MODEL_TYPES)),
            DateRecognizer(supported_language=language),
        ],
        supported_languages=[language],
    )
    return AnalyzerEngine(registry, engine, supported_languages=[language]), language, finds

"""One bulk call: decoded items in, the JSON of each item's answer out, in their order."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from service.core.errors import RecurveError
from service.core.many.together import Outcomes
from service.core.requests import Answer
from service.http import render
from service.http.context import Collaborators
from service.http.errors import item_problem
from service.http.many import text
from service.http.many.items import Items, Names, read_items
from service.http.output import encode

log = logging.getLogger("recurve.http")


class ManyPredicts:
    """Bulk calls to the models of `deps`."""

    def __init__(self, deps: Collaborators) -> None:
        self._deps = deps
        self._room = threading.Semaphore(deps.limits.bulk_at_once)
        self._names: dict[str, Names] = {}

    def answer(self, model: str, raw: Sequence[Any], end: bytes) -> bytes:
        """What `raw`, decoded JSON, one for each item, is answered, with `end` behind each answer."""
        deps = self._deps
        spec = deps.registry.model(model).labelled().spec
        names = self._names.get(model)
        if names is None:
            names = self._names[model] = Names(model)
        items = read_items(raw, spec, names, deps.limits.max_observations)
        with self._room:
            outcomes = deps.together.predict(model, items.asked, items.places, items.ones)
        for _, answers in outcomes.many:
            deps.count_items(model, answers.spec.version, 200, len(answers))
        if len(outcomes.many) == 1 and len(outcomes.many[0][0]) == len(raw):
            return text.joined(outcomes.many[0][1], end)
        return b"".join(self._each(raw, items, outcomes, end))

    def _each(self, raw: Sequence[Any], items: Items, outcomes: Outcomes, end: bytes) -> list[bytes]:
        said = [b""] * len(raw)
        for places, answers in outcomes.many:
            for place, one in zip(places, text.each(answers, end), strict=True):
                said[place] = one
        problems: list[tuple[int, Any, Exception]] = [*items.refused]
        for place, outcome in outcomes.ones.items():
            if isinstance(outcome, Answer):
                self._deps.count_items(outcome.spec.name, outcome.version, 200, 1)
                body = render.answer(outcome, every=place in items.every)
                if outcome.replayed:
                    body["replayed"] = True
                said[place] = encode(body) + end
            else:
                problems.append((place, raw[place]["client"], outcome))
        self._tell(problems, said, end)
        return said

    def _tell(self, problems: Sequence[tuple[int, Any, Exception]], said: list[bytes], end: bytes) -> None:
        statuses: Counter[int] = Counter()
        for place, client, error in problems:
            problem = item_problem(error)
            statuses[problem["status"]] += 1
            said[place] = encode({"client": client, **problem}) + end
        for status, number in statuses.items():
            self._deps.count_items("", "", status, number)
        if statuses[503]:
            away = next(error for _, _, error in problems if isinstance(error, RecurveError) and error.retry_after_s)
            log.warning("items refused: %s", away, extra={"items": statuses[503]})

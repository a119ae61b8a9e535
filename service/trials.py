"""Trial metrics: how a candidate does in the shadow, as the judge sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.tally import Tally


class Trials:
    """The instruments, on `registry`, tallied by `tally`."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self._steps = Counter(
            "recurve_shadow_steps",
            "Steps of candidates that were compared with what clients were told, in closed minutes.",
            ["model", "version"],
            registry=registry,
        )
        self._wealth = Gauge(
            "recurve_shadow_wealth",
            "Wealth of the bets that the candidate is better, or worse, at the last look; 1 / level decides.",
            ["model", "version", "bet"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._outcomes = Counter(
            "recurve_promotions",
            "Trials by how they ended; left: to a human, unwritable: a look that could not write the repository.",
            ["model", "outcome"],
            registry=registry,
        )

    def observe_trial(self, model: str, version: int, steps: int, better: float, worse: float) -> None:
        """See ObservesTrials."""
        self._tally.counted(self._steps, model, version).add(steps)
        self._wealth.labels(model, version, "better").set(better)
        self._wealth.labels(model, version, "worse").set(worse)

    def observe_outcome(self, model: str, outcome: str) -> None:
        """See ObservesTrials."""
        self._tally.counted(self._outcomes, model, outcome).inc()

"""What is read of a source at once, and the refusal of one that does not hold what the job says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from training.job import Source


class SourceInvalid(ValueError):
    """Data that are not what the job says; the message names the file, query or log, and the column."""

    def __init__(self, source: Source, problem: str) -> None:
        super().__init__(f"{source.called}: {problem}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that were not read before, as the source has them, oldest word first; None for none.

    `mark` says where the next reading goes on, as JSON can hold it. `whole`: this is all there is, and what was read
    before counts no more.
    """

    table: pd.DataFrame | None
    mark: dict[str, Any]
    whole: bool

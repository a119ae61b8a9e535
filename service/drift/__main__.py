"""``python -m service.drift``: series of shares on stdin, where each changed on stdout; both are JSON objects.

In: {"series": {name: [value, ...]}}, values in [0, 1], oldest first.
Out: {"changes": {name: [[first index after the change, index at which it showed], ...]}}.
"""

from __future__ import annotations

import json
import os
import sys

from service.drift.detector import changes


def main() -> None:
    """Answer one question. Exit code 1 and a line on stderr if it can't be understood."""
    os.nice(10)  # requests come first
    try:
        series = {name: [float(value) for value in values] for name, values in json.load(sys.stdin)["series"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        sys.exit(f'expected {{"series": {{name: [value, ...]}}}} on stdin: {error!r}')
    json.dump({"changes": {name: changes(values) for name, values in series.items()}}, sys.stdout)


if __name__ == "__main__":
    main()

"""Labels moved while serving: the repository's, and at once this process's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from models import errors as models_errors
from models.labels import STABLE, Labels
from models.repository import Repository
from service.core.errors import (
    InvalidInput,
    LabelKept,
    LabelNotFound,
    LabelsMoved,
    ModelNotFound,
    RepositoryReadOnly,
    RepositoryUnavailable,
    VersionUnfit,
)
from service.core.ports import LabelsNow
from service.loader import Loader


class RepositoryLabels:
    """`MovesLabels` over the model repository. A version is loaded here before a label is moved to it, and the labels
    are served here when a call returns; other processes find them at their next look."""

    def __init__(self, repository: Repository, loader: Loader) -> None:
        self._repository = repository
        self._loader = loader

    def labels(self, model: str) -> LabelsNow:
        """See MovesLabels."""
        with _refusals():
            self._check(model)
            return _now(self._repository.labels(model))

    def move(self, model: str, label: str, version: int, generation: int | None) -> LabelsNow:
        """See MovesLabels. Moving `stable` is a promotion: what it named before is kept as `previous`."""
        with _refusals():
            self._check(model)
            self._repository.bundle(model, version)
            with self._loader.prepared(model, version):
                if label == STABLE:
                    after = self._repository.promote(model, version, generation)
                else:
                    after = self._repository.set_label(model, label, version, generation)
                self._loader.reload(model)
            return _now(after)

    def drop(self, model: str, label: str, generation: int | None) -> LabelsNow:
        """See MovesLabels."""
        with _refusals():
            self._check(model)
            after = self._repository.drop_label(model, label, generation)
            self._loader.reload(model)
            return _now(after)

    def _check(self, model: str) -> None:
        try:
            known = self._repository.versions(model)
        except models_errors.InvalidName as error:
            raise ModelNotFound(model) from error
        if not known:
            raise ModelNotFound(model)


def _now(labels: Labels) -> LabelsNow:
    return LabelsNow(labels.generation, labels.labels)


@contextmanager
def _refusals() -> Iterator[None]:
    """The repository's refusals as the core's."""
    try:
        yield
    except models_errors.UnknownLabel as error:
        raise LabelNotFound(str(error)) from error
    except models_errors.UnknownVersion as error:
        raise InvalidInput("version", str(error)) from error
    except models_errors.InvalidName as error:
        raise InvalidInput("label", str(error)) from error
    except models_errors.LabelsMoved as error:
        raise LabelsMoved(str(error), error.generation) from error
    except models_errors.DeleteRefused as error:
        raise LabelKept(str(error)) from error
    except models_errors.BundleDamaged as error:
        raise VersionUnfit(str(error)) from error
    except models_errors.RepositoryError as error:  # busy, or its labels don't read
        raise RepositoryUnavailable(str(error)) from error
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RepositoryReadOnly(str(error)) from error
        raise RepositoryUnavailable(f"the model repository does not work: {error}") from error

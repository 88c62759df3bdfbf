"""Entities from rows of columns: several times faster than loading them through a session."""

from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Row, Select, inspect
from sqlalchemy.orm import InstrumentedAttribute, Mapper
from sqlalchemy.orm.attributes import instance_state, manager_of_class

from app.kit.db.models import Base

ModelT = TypeVar("ModelT", bound=Base)


def check_inheritance(model: type[Base]) -> None:
    """Raise ``TypeError`` for a model that inherits from another one, or is inherited from."""
    mapper: Mapper[Any] = inspect(model)
    if mapper.inherits or mapper.polymorphic_on is not None:
        raise TypeError(
            f"{model.__name__} uses inheritance between tables, which a repository does not "
            "support: give each model a table of its own, with mixins for shared columns"
        )


class EntityBuilder(Generic[ModelT]):
    """Builds detached entities of a model from rows of its columns."""

    def __init__(self, model: type[ModelT]) -> None:
        """Prepare to build entities from rows of ``columns``."""
        check_inheritance(model)
        mapper: Mapper[ModelT] = inspect(model)
        self.columns = [attribute.columns[0] for attribute in mapper.column_attrs]
        self._names = [attribute.key for attribute in mapper.column_attrs]
        self.keys = {
            attribute.key: attribute.columns[0].key
            for attribute in mapper.column_attrs
            if isinstance(attribute.columns[0], Column)
        }
        self._keys = [
            self._names.index(mapper.get_property_by_column(column).key)
            for column in mapper.primary_key
        ]
        self._mapper = mapper
        self._new = manager_of_class(model).new_instance

    def __call__(self, row: Row[Any]) -> ModelT:
        """Return the entity of a row."""
        entity = self._new()
        vars(entity).update(zip(self._names, row, strict=True))
        # With a key the entity is detached, so an attribute that was not loaded raises.
        instance_state(entity).key = self._mapper.identity_key_from_primary_key(
            tuple(row[place] for place in self._keys)
        )
        return entity


_BUILDERS: dict[Any, EntityBuilder[Any]] = {}


def builder_of(model: type[ModelT]) -> EntityBuilder[ModelT]:
    """Return the builder of a model."""
    if model not in _BUILDERS:
        _BUILDERS[model] = EntityBuilder(model)
    return _BUILDERS[model]


def builder_for(statement: Select[*tuple[Any, ...]]) -> EntityBuilder[Any] | None:
    """Return the builder for ``select(Model)``, or None where only a session can load it."""
    if statement._with_options:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return None
    described = statement.column_descriptions
    if len(described) != 1 or not isinstance(described[0]["expr"], type):
        return None
    mapper: Mapper[Any] = inspect(described[0]["expr"])
    plain = all(
        isinstance(attribute.columns[0], Column) and not attribute.deferred
        for attribute in mapper.column_attrs
    )
    if not plain or mapper.inherits or mapper.polymorphic_on is not None:
        return None
    eager = any(each.lazy not in {"raise", "select", "noload"} for each in mapper.relationships)
    return None if eager else builder_of(mapper.class_)


def primary_key(model: Any) -> InstrumentedAttribute[Any]:
    """Return the primary key of a model, or raise ``TypeError`` if it has several columns."""
    mapper = inspect(model)
    if len(mapper.primary_key) != 1:
        raise TypeError(f"{model.__name__} needs a primary key of one column")
    attribute: InstrumentedAttribute[Any] = getattr(
        model, mapper.get_property_by_column(mapper.primary_key[0]).key
    )
    return attribute

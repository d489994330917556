"""Columns and units of the properties in a source file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scimill.atoms.database.columns import KNOWN, LABELS, Column
from scimill.atoms.kernels import units
from scimill.errors import ConfigError

GEOMETRY = {"coordinates": "Å", "cell": "Å"}
FORM = "source=column:unit, or for your own property source=name:unit:system|atomic:components"


@dataclass(frozen=True)
class Property:
    """A column, and the factor that converts the source's unit to the column's."""

    column: Column
    factor: float = 1.0

    def convert(self, values: ArrayLike) -> ArrayLike:
        """Convert values to the column's unit."""
        return values if self.factor == 1.0 else np.asarray(values, dtype=float) * self.factor


class Properties:
    """Maps the names in a source to columns.

    Parameters
    ----------
    given : ``column:unit`` by name in the source (see `FORM`), such as {"dft_energy": "energy:Hartree"}; may also give
        units to ``coordinates`` and ``cell``. Columns without an entry are read under their own names and units.

    Raises
    ------
    ConfigError : unknown column or unit, or two names for one column.

    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self.by_name: dict[str, Property] = {}
        self.geometry = dict.fromkeys(GEOMETRY, 1.0)
        for source, text in (given or {}).items():
            try:
                self._add_entry(source, text)
            except ValueError as error:
                raise ConfigError(
                    str(error), where=f"properties, {source}", allowed=FORM + f"; units: {units.NAMES}"
                ) from None
        named = [found.column.name for found in self.by_name.values()]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice:
            raise ConfigError(
                f"two properties map to the column {twice}", where="properties", remedy="use each column only once"
            )
        self.by_name |= {c.name: Property(c) for c in LABELS if c.name not in named and c.name not in self.by_name}
        self.ignored: set[str] = set()

    def _add_entry(self, source: str, text: str) -> None:
        name, unit, *kind = text.split(":")[0], *(text.split(":")[1:] or [""])
        if name in GEOMETRY:
            self.geometry[name] = units.factor(unit or GEOMETRY[name], GEOMETRY[name])
        elif name in KNOWN and not kind:
            column = KNOWN[name]
            is_free = column.units == "1" or column.dtype.startswith("|S")
            factor = 1.0 if is_free else units.factor(unit or column.units, column.units)
            self.by_name[source] = Property(column, factor)
        else:
            self.by_name[source] = Property(_user_column(name, unit, kind))

    def labels(self, values: Mapping[str, Any], lead: int | None = None) -> dict[str, ArrayLike]:
        """Convert a source's values to labels in the database's units.

        Names without a column are recorded in `ignored`.

        Parameters
        ----------
        values : by name in the source.
        lead : None for values of one structure, which get a leading axis; otherwise the number of rows.

        """
        found: dict[str, ArrayLike] = {}
        for name, value in values.items():
            known = self.by_name.get(name)
            if known is None:
                self.ignored.add(name)
            else:
                array = known.convert(value)
                found[known.column.name] = np.asarray(array)[None] if lead is None else array
        return found

    def lengths(self, name: str, values: ArrayLike) -> NDArray[np.float64]:
        """Convert coordinates or cell to Å."""
        return np.asarray(values, dtype=float) * self.geometry[name]

    @property
    def user_columns(self) -> list[Column]:
        """Columns of the user's own properties."""
        return [found.column for found in self.by_name.values() if found.column.name not in KNOWN]


def _user_column(name: str, unit: str, kind: list[str]) -> Column:
    """Make the column of a user's own property; its unit is kept, not converted."""
    of, components = (kind + ["system", "1"][len(kind) :])[:2]
    if not unit or of not in ("system", "atomic") or not components.isdecimal() or len(kind) > 2:
        raise ValueError(f"{name!r} is neither a database column nor a complete declaration of a property")
    shape = () if components == "1" else (int(components),)
    return Column(name, unit, "user's property", "atomic" if of == "atomic" else "system", shape)

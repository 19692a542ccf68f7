"""Rows for one landing table, and the bytes by which the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clickhouse_connect.datatypes.base import ClickHouseType


@dataclass(slots=True)
class Rows:
    """Rows for one landing table of plain columns.

    Attributes:
        table: Its name.
        types: ClickHouse type by column, in the order of a row's values.
        values: The rows.
    """

    table: str
    types: Mapping[str, str]
    values: list[tuple[object, ...]] = field(default_factory=list)

    def native(self) -> bytes:
        """The rows as one block of the format Native; there must be some.

        Raises:
            ValueError: A value does not fit its column's type.
        """
        context = InsertContext(
            self.table,
            list(self.types),
            [_type(name) for name in self.types.values()],
            list(zip(*self.values, strict=True)),
            column_oriented=True,
            block_size=len(self.values),
        )
        made = b"".join(NativeTransform.build_insert(context))
        if context.insert_exception is not None:
            raise ValueError(str(context.insert_exception)) from context.insert_exception
        # the driver's own statement stands before the block, on a line of its own
        return made.partition(b"\n")[2]


@cache
def _type(name: str) -> ClickHouseType:
    return get_from_name(name)

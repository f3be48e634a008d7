"""Questions from anywhere: other people's tables, and the published sets of the paper, by name.

A table becomes questions by a column map (`columns`); `tables` reads it from a file, a folder or
the hub, and rows of chat turns are split first (`chat`). `published` lists the sets whose schema
could be looked up, and reads them by name.
"""

from dreamprm.data.sources.columns import ColumnMap, changed_columns
from dreamprm.data.sources.published import KNOWN, find_known, find_source, known_table, read_known
from dreamprm.data.sources.tables import read_source

__all__ = [
    "KNOWN",
    "ColumnMap",
    "changed_columns",
    "find_known",
    "find_source",
    "known_table",
    "read_known",
    "read_source",
]

"""Rows of a task → token ids on disk.

`read_rows` (files → rows) → `TaskTokenizer` (text → ids) → `TokenStore` (ids, mapped) → `NgramTable` (counts, mapped).
"""

from tasc.data.ids import as_ids
from tasc.data.ngrams import NgramTable
from tasc.data.rows import Row, read_rows
from tasc.data.store import TokenStore
from tasc.data.tokenizer import TaskTokenizer, load_tokenizer
from tasc.progress import Progress

__all__ = ["NgramTable", "Progress", "Row", "TaskTokenizer", "TokenStore", "as_ids", "load_tokenizer", "read_rows"]

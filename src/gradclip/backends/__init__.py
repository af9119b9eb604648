"""Backends: what is done to a list of tensors, for each kind of them. They know no method, and a method knows no framework."""

from gradclip.backends.agreement import everybody, group_of
from gradclip.backends.backend import Backend, SparseEntries, Units
from gradclip.backends.chooser import choose, choose_sharded, norms_of_each, rescaled, take_all
from gradclip.backends.combine import combine, combined_on_host, vector
from gradclip.backends.cpu import reshaped
from gradclip.backends.functional import Functional, in_graph, transforming
from gradclip.backends.shards import Across, Shards, local_of, shards_of, shards_seen, summed
from gradclip.backends.stock_norms import norm_dtype
from gradclip.backends.values import prepared, values_of

__all__ = [
    "Across",
    "Backend",
    "Functional",
    "Shards",
    "SparseEntries",
    "Units",
    "choose",
    "choose_sharded",
    "combine",
    "combined_on_host",
    "in_graph",
    "everybody",
    "group_of",
    "local_of",
    "norm_dtype",
    "norms_of_each",
    "prepared",
    "rescaled",
    "reshaped",
    "shards_of",
    "shards_seen",
    "summed",
    "take_all",
    "transforming",
    "values_of",
    "vector",
]

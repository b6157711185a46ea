"""Adapters that turn data sets, in the layouts they come in, into manifests.

Each is a function that returns a table made with `cnnsvm.records`: one row an image, absolute
paths, label 0 (real) or 1 (fake). `open_dataset` picks the right one.
"""

from cnnsvm.datasets.archives import unpack_archive, unpack_zip
from cnnsvm.datasets.cifake import Cifake, read_cifake
from cnnsvm.datasets.deepfakeart import read_originals, read_records
from cnnsvm.datasets.duplicates import merge_near_duplicates
from cnnsvm.datasets.errors import DatasetError, MissingDataError
from cnnsvm.datasets.folder import read_folder, read_sources
from cnnsvm.datasets.kaggle import download
from cnnsvm.datasets.mask_shapes import classify_mask
from cnnsvm.datasets.opening import open_dataset
from cnnsvm.datasets.samples import write_samples
from cnnsvm.datasets.small_duplicates import group_near_duplicates

__all__ = [
    "Cifake",
    "DatasetError",
    "MissingDataError",
    "classify_mask",
    "download",
    "group_near_duplicates",
    "merge_near_duplicates",
    "open_dataset",
    "read_cifake",
    "read_folder",
    "read_originals",
    "read_records",
    "read_sources",
    "unpack_archive",
    "unpack_zip",
    "write_samples",
]

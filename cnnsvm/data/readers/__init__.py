"""Adapters that turn data sets, in the layouts they come in, into manifests.

Each is a function that returns a table made with `cnnsvm.data.manifest`: one row an image, absolute
paths, label 0 (real) or 1 (fake). `open_dataset` picks the right one.
"""

from cnnsvm.data.mask_shapes import classify_mask
from cnnsvm.data.near_duplicates import merge_near_duplicates
from cnnsvm.data.readers.archives import unpack_archive, unpack_zip
from cnnsvm.data.readers.cifake import Cifake, read_cifake
from cnnsvm.data.readers.deepfakeart import read_originals, read_records
from cnnsvm.data.readers.errors import DatasetError, MissingDataError
from cnnsvm.data.readers.folder import read_folder, read_sources
from cnnsvm.data.readers.kaggle import download
from cnnsvm.data.readers.opening import open_dataset
from cnnsvm.data.readers.samples import write_samples
from cnnsvm.data.small_near_duplicates import group_near_duplicates

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

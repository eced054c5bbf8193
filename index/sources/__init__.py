"""Where the images of an index come from: files, class folders, COCO, lists, tar shards, drawn scenes."""

from index.sources.base import NOTHING, UNKNOWN, Label, PatchTruth, Picture, Source, list_hash
from index.sources.folder import FolderSource
from index.sources.scenes import SceneSource, scene_truth
from index.sources.subset import Subset, limited

__all__ = [
    "NOTHING",
    "UNKNOWN",
    "FolderSource",
    "Label",
    "PatchTruth",
    "Picture",
    "SceneSource",
    "Source",
    "Subset",
    "limited",
    "list_hash",
    "scene_truth",
]

"""Where the images of an index come from: files, class folders, COCO, lists, shards, data sets, scenes."""

from index.sources.base import NOTHING, UNKNOWN, Label, PatchTruth, Picture, Source, list_hash
from index.sources.class_names import ClassNames, read_class_names
from index.sources.coco import CocoSource
from index.sources.folder import FolderSource
from index.sources.hugging_face import HuggingFaceSource
from index.sources.imagefolder import ImageFolderSource
from index.sources.opening import add_arguments, open_source
from index.sources.reopen import open_origin
from index.sources.scenes import SceneSource, scene_truth
from index.sources.subset import Subset, limited
from index.sources.tar_shards import TarSource
from index.sources.text_list import TextListSource

__all__ = [
    "NOTHING",
    "UNKNOWN",
    "ClassNames",
    "CocoSource",
    "FolderSource",
    "HuggingFaceSource",
    "ImageFolderSource",
    "Label",
    "PatchTruth",
    "Picture",
    "SceneSource",
    "Source",
    "Subset",
    "TarSource",
    "TextListSource",
    "add_arguments",
    "limited",
    "list_hash",
    "open_origin",
    "open_source",
    "read_class_names",
    "scene_truth",
]

"""`load`: a model that is shipped, from a directory, or from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from genossm.core.errors import InputFileError
from genossm.models.devices import require_device
from genossm.models.directory import CARD, CONFIG, cast_weights, is_own, read_directory
from genossm.models.importers import import_checkpoint, read_checkpoint
from genossm.models.sequence_model import SequenceModel
from genossm.models.shipped import shipped_directory, shipped_hint

# What `find_directory` downloads of a model on the Hub.
MODEL_FILES = ["*.json", "*.safetensors", CARD]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load(
    path: str | os.PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> SequenceModel:
    """Load a model for inference (`.eval()`); call `.train()` to go on training.

    path: the name of a shipped model (`genossm models` lists them), a model directory, or a Hub id such as
    "owner/name", before which a local directory of that name goes; one of a shipped model's name is an error. Another
    author's checkpoint that `genossm convert` can read is imported on the fly; pickles are not read.
    device: where to; None is the CPU.
    dtype: of the weights; None keeps the file's, of shipped models float32. Step-size biases, A_log and D stay at least
    float32.
    Raises: UsageError for a device that is not there; InputFileError if there is no such directory or download;
    ModelFormatError if it is incomplete or contradicts itself.
    """
    target = require_device(device or "cpu")
    directory = find_directory(path, files=MODEL_FILES)
    if dtype is None and shipped_directory(path) is not None:
        dtype = torch.float32
    if (directory / CONFIG).is_file() and not is_own(directory):
        model, _ = import_checkpoint(read_checkpoint(directory))
    else:
        model = read_directory(directory)
    if dtype is not None:
        cast_weights(model, dtype)
    return model.to(target).eval()


def find_directory(path: str | os.PathLike[str], *, files: list[str]) -> Path:
    """Of a shipped model, the local directory `path`, or a downloaded copy of `files` of the Hub's repository.

    Raises: InputFileError if there is none of these, or if a name is both a shipped model's and a directory's.
    """
    shipped = shipped_directory(path)
    if shipped is not None:
        return shipped
    local = Path(path)
    if local.is_dir():
        return local
    if local.exists():
        raise InputFileError(f"{local} is a file; wanted a model directory. Give the folder that holds config.json.")
    if not isinstance(path, str) or not _HUB_ID.fullmatch(path):
        raise InputFileError(f"There is no model directory at {local}. Check the path.{shipped_hint(path)}")
    return _download(path, files)


def _download(name: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except HFValidationError as error:
        raise InputFileError(f"There is no directory {name}, and it is no valid Hub id. Check the path.") from error
    except LocalEntryNotFoundError as error:
        raise InputFileError(
            f"There is no directory {name}, and the Hub cannot be reached for {name} nor is it in the local cache "
            "(HF_HUB_OFFLINE may be set). Check the path, or download the model where there is a connection."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputFileError(f"There is no directory {name}, and the Hub answers: {reason}. Check the name.") from error

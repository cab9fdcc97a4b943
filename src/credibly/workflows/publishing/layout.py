"""How a run is laid out in a repository: which names there are, and what a manifest must be to be believed.

The student stands at the top, where transformers looks for it; all else has the names of the run folder.
The run's manifest, cut down to what went up, says what there is, and its sha256.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from credibly.errors import RunFolderError, listed
from credibly.runs import FORMAT_VERSION, sha256

Content = Path | bytes
"""A file as it stands, or what is written in its place."""

LAYOUT = 1
"""Version of how a run is laid out in a repository: `publication` of its manifest."""

CARD, MANIFEST, STUDENT = "README.md", "manifest.json", "student/"
FILES = ("recipe.yaml", "calibration.json", "costs.json", "report.json")
FOLDERS = ("members", "student", "predictions", "export", "shift")
ENDS = (".json", ".jsonl", ".yaml", ".txt", ".jinja", ".model", ".safetensors", ".onnx", ".data")
"""What the files of a publication end with: no pickle, no code."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def name_there(name: str) -> str:
    """Return a run's file name as it is in a repository.

    >>> name_there("student/model.safetensors"), name_there("members/0/model.safetensors")
    ('model.safetensors', 'members/0/model.safetensors')
    """
    return name.removeprefix(STUDENT)


def checked_manifest(file: Path, where: str) -> dict[str, str]:
    """Return the sha256 of every file of a publication by its name in a run.

    Args:
        file: the manifest as it came.
        where: whose it is, for messages.

    Raises:
        RunFolderError: it is damaged, none of ours, of another version, or names what may not be there.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{where}: manifest.json is damaged ({error}); push the run again") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or "publication" not in content or "recipe.yaml" not in files:
        raise RunFolderError(not_ours(where))
    versions = content.get("format_version"), content["publication"]
    if versions != (FORMAT_VERSION, LAYOUT):
        raise RunFolderError(
            f"{where} has format {versions[0]} in layout {versions[1]}; this version of credibly reads "
            f"format {FORMAT_VERSION} in layout {LAYOUT}: install the version that pushed it"
        )
    refuse_others(files)
    wrong = [name for name, known in files.items() if not SHA256.fullmatch(str(known))]
    if wrong:
        raise RunFolderError(f"{where}: expected a sha256 of each file; there is none of {listed(wrong)}")
    return files


def not_ours(where: str) -> str:
    """Return what is said of a repository that `push` did not write."""
    return f"expected a run that `credibly push` wrote, and {where} is none; name another"


def digest(content: Content) -> str:
    """Return the sha256 of a file or of bytes."""
    return sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def size(content: Content) -> int:
    """Return the number of bytes of a file or of bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def refuse_others(names: Iterable[str]) -> None:
    """Raise RunFolderError where a name is none that a publication has: a pickle, code, or a way out."""
    wrong = [name for name in names if not _belongs(name)]
    if wrong:
        raise RunFolderError(
            f"expected files of a run ({', '.join(FOLDERS)}), no pickles and no code; got {listed(wrong)}"
        )


def _belongs(name: str) -> bool:
    """Return whether a name in a run is one that may be published, and leads nowhere else."""
    parts = name.split("/")
    plain = all(part and not part.startswith(".") and not set(part) & set("\\:\0") for part in parts)
    placed = name in FILES if len(parts) == 1 else parts[0] in FOLDERS
    return plain and placed and name.endswith(ENDS)

"""Reads the files of a policy folder. The one module of this package that touches the disk; it understands nothing."""

from __future__ import annotations

from pathlib import Path

from bot.errors import PolicyInvalid
from bot.policy.load import is_policy_file
from bot.policy.nodes import MOST_BYTES

_WAY_OUT = "Set OTABRAKE_POLICIES to the folder that holds them; policies/ of the source is one to start from."


def read_folder(path: Path) -> dict[str, bytes]:
    """The content of each policy file right in the folder, by its name.

    A file that is too large is read only as far as it takes to say so. Raises `PolicyInvalid`.
    """
    try:
        found = sorted(file for file in path.iterdir() if is_policy_file(file.name) and file.is_file())
    except FileNotFoundError as error:
        raise PolicyInvalid([f"{path}: there is no such folder, so there are no rules. {_WAY_OUT}"]) from error
    except NotADirectoryError as error:
        raise PolicyInvalid([f"{path}: this is a file; policies stand in a folder. {_WAY_OUT}"]) from error
    except OSError as error:
        raise PolicyInvalid([f"{path}: the folder cannot be read ({error.strerror}). {_WAY_OUT}"]) from error
    if not found:
        raise PolicyInvalid([f"{path}: no *.yaml file stands in this folder, so there are no rules. {_WAY_OUT}"])
    files: dict[str, bytes] = {}
    problems = []
    for file in found:
        try:
            with file.open("rb") as opened:
                files[file.name] = opened.read(MOST_BYTES + 1)
        except OSError as error:
            problems.append(f"{file.name}:1:1: the file cannot be read ({error.strerror}); expected a readable file")
    if problems:
        raise PolicyInvalid(problems)
    return files

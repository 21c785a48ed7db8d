"""Reading a policy folder: the one place of this room that touches the disk. `load` takes what it returns."""

from __future__ import annotations

from pathlib import Path

from bot.errors import PolicyInvalid

MAX_BYTES = 1024 * 1024


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bytes of the folder's policy files by name; files that end with `_test.yaml` are left out.

    Raises `PolicyInvalid` if there is no such folder, nothing in it, or a file that cannot be read or is too large.
    """
    if not folder.is_dir():
        raise PolicyInvalid([f"{folder}: there is no such folder. Set OTABRAKE_POLICIES to the folder of your policy."])
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".yaml", ".yml") and path.is_file()]
    paths = [path for path in paths if not path.stem.endswith("_test")]
    if not paths:
        raise PolicyInvalid([f"{folder}: there is no *.yaml file. See policies/README.md for a policy to start from."])
    files: dict[str, bytes] = {}
    complaints = []
    for path in paths:
        try:
            if path.stat().st_size > MAX_BYTES:
                complaints.append(f"{path.name}:1:1: the file is larger than 1 MiB; split it")
            else:
                files[path.name] = path.read_bytes()
        except OSError as error:
            complaints.append(f"{path.name}:1:1: the file cannot be read ({error.strerror})")
    if complaints:
        raise PolicyInvalid(complaints)
    return files

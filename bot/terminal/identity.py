"""Who sits at this terminal: the OS user of this process at the short name of its machine.

The user is that of the real user id, as the system knows it; what anybody can set (LOGNAME, USER) is not asked. What it
does not do: prove anything to another machine.
"""

from __future__ import annotations

import os
import pwd
import socket

from bot.errors import ConfigurationError


def person_here() -> str:
    """`alice@ops1`. Raises `ConfigurationError` if the system has no name for the user or for itself."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError as error:
        raise ConfigurationError(
            [f"This system has no name for its user {user_id}: run otabrake as a user that /etc/passwd names."]
        ) from error
    host = socket.gethostname().partition(".")[0].lower()
    if not user or not host:
        raise ConfigurationError(
            ["This machine has no name: give it one (hostnamectl), for the policy names people by it."]
        )
    return f"{user}@{host}"

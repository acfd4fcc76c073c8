"""Where a request may not go: link-local addresses are where clouds hand out credentials."""

import ipaddress
import socket
from urllib.parse import urlsplit

from trainer.errors import SettingsError


def refuse_link_local(variable: str, url: str) -> None:
    """Raise SettingsError when `url`, which `variable` set, leads to a link-local address.

    Names and odd spellings of numbers count as what they resolve to here. A name that does not
    resolve is left to whoever connects.
    """
    host = urlsplit(url).hostname or ""
    found = next((address for address in _addresses(host) if _is_link_local(address)), None)
    if found is not None:
        raise SettingsError(
            f"{variable}: {host} is the link-local address {found}, where a cloud keeps its "
            "metadata and credentials; set it to the address of the server that is meant"
        )


def _addresses(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)] if host else []
    except (OSError, UnicodeError):
        return []


def _is_link_local(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_link_local

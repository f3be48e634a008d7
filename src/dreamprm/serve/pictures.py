"""Pictures of requests: data URLs, and addresses on the net where their host is allowed.

What is not one of these is refused: a path would be read from the server's own disk. A host that is
allowed must also be a public one when it is asked: its name may be made to point at this machine,
at its network, or at a cloud's metadata.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import urllib.request
from typing import Any

from dreamprm.errors import DataError
from dreamprm.images import check_image, decode_image, fetch_image, is_data_url, may_be_fetched


def picture(url: str) -> bytes:
    """The bytes of a picture, which has been read to its end.

    Raises:
        DataError: it is no picture, too large a one, or not to be fetched.
    """
    if is_data_url(url):
        data = decode_image(url)
    elif may_be_fetched(url):
        data = fetch_image(url, _PublicHTTP(), _PublicHTTPS(), urllib.request.ProxyHandler({}))
    else:
        raise DataError(
            "a picture must be a data URL ('data:image/...;base64,...'); addresses are fetched "
            "only from hosts that the server allows",
            field="images",
        )
    checked = check_image(data)
    if checked.error is not None:
        raise checked.error
    return data


def connect_public(
    address: tuple[str, int], timeout: float | None = None, source_address: Any = None
) -> socket.socket:
    """A connection to a public address of a host; one name may have several.

    Raises:
        OSError: it has none, or does not answer.
    """
    host, port = address
    for *_, found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if ipaddress.ip_address(found[0]).is_global:
            return socket.create_connection((str(found[0]), port), timeout, source_address)
    raise OSError(f"{host} has no public address")


class _HTTP(http.client.HTTPConnection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = connect_public


class _HTTPS(http.client.HTTPSConnection):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._create_connection = connect_public


class _PublicHTTP(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTP, request)


class _PublicHTTPS(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPS, request)

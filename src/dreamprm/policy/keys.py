"""The key of served models: where it comes from, and how it is kept out of all that is written."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

from dreamprm.errors import DreamPRMError

NO_KEY = "EMPTY"
"""What servers without keys are usually sent."""

_SHORT = 8  # a shorter key may be part of a word of the text
_SHORT_BASE64 = 6


@dataclass(frozen=True)
class Key:
    """A key, and the environment variable that it came from."""

    value: str = field(repr=False)
    variable: str

    @classmethod
    def read(cls, variable: str) -> Key:
        """The key in an environment variable, `NO_KEY` where it is unset.

        Raises:
            DreamPRMError: it has characters that an HTTP header cannot carry.
        """
        key = os.environ.get(variable, "").strip() or NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise DreamPRMError(
                f"environment variable {variable} holds characters that no key has (a line break "
                "or an accent, say); set it again"
            )
        return cls(key, variable)

    def mask(self, text: str) -> str:
        """The text with *** for the key, also where it is written as URL, in base64 or as JSON."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text

    def mask_sample(self, text: str) -> str:
        """The same for what a model wrote; a key of a few letters may be a word of it."""
        return self.mask(text) if len(self.value) >= _SHORT else text

    @cached_property
    def _forms(self) -> list[str]:
        key = self.value
        if key == NO_KEY:
            return []
        escapes = ("%{:02X}", "%{:02x}", "\\u{:04x}", "\\u{:04X}", "\\x{:02x}")
        urls = [quote(key), quote(key, safe="")]
        urls += [re.sub("%..", lambda match: match[0].lower(), url) for url in urls]
        forms = [key, *urls, json.dumps(key)[1:-1], key.replace("/", "\\/")]
        forms += ["".join(escape.format(ord(letter)) for letter in key) for escape in escapes]
        # In base64 three bytes are four letters, so the same bytes look differently at each of
        # three places. Letters that they share with what stands before and behind are left.
        for before in range(3):
            encoded = base64.b64encode(b" " * before + key.encode()).decode()
            whole = encoded[-(-8 * before // 6) : 8 * (before + len(key)) // 6]
            if len(whole) >= _SHORT_BASE64:
                forms += [whole, whole.replace("+", "-").replace("/", "_")]
        return list(dict.fromkeys(forms))

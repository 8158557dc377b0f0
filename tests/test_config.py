import pytest

from charrnn.config import Config
from charrnn.errors import UsageError


def test_encodings_that_cannot_decode_a_text_are_rejected() -> None:
    for encoding in ("utf-9", "base64", "hex", "rot13", "idna", "punycode", "undefined", "", "a\0b", "\ud800"):
        with pytest.raises(UsageError, match="unknown encoding"):
            Config(encoding=encoding)
    for encoding in ("utf-8", "latin-1", "utf-16", "utf-8-sig", "utf-7", "cp949", "iso2022_kr", "hz", "cp037"):
        assert Config(encoding=encoding).encoding == encoding

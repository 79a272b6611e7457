"""A token of ours that stands in a file, which an operator or an agent (Vault, Consul Template) renews: read again when
the file has changed, so that no process need be started anew. Used by the Nomad and Consul adapters for each call.
"""

from pathlib import Path

from shared.runtime import logs

log = logs.get("adapters.token_file")


class Token:
    """`given` where there is no file; else what the file says. Threads may share it."""

    def __init__(self, given: str, file: Path | None = None) -> None:
        self._value = given
        self._file = file
        self._seen: object = None

    def now(self) -> str:
        """The token of this moment. While the file is away or empty, which is how some write one, the last one."""
        if self._file is not None:
            try:
                found = self._file.stat()
                seen = (found.st_mtime_ns, found.st_size, found.st_ino)
                if seen != self._seen:
                    self._seen, self._value = seen, self._file.read_text(encoding="utf-8").strip() or self._value
            except (OSError, UnicodeDecodeError) as error:
                self._complain(repr(error))
        return self._value

    def headers(self, name: str) -> dict[str, str]:
        """Under this name; none where there is no token."""
        token = self.now()
        return {name: token} if token else {}

    def _complain(self, why: str) -> None:
        """Once for each trouble: it is asked for with every call."""
        if self._seen != why:
            self._seen = why
            log.warning("token_file_unreadable", file=str(self._file), culprit=why)

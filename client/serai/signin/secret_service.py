"""The desktop's keyring, where there is one: what must not lie in a file is kept there.

The `keyring` library chooses among Secret Service, KWallet, macOS's Keychain and Windows' Credential Locker; a machine
without a desktop has none. Its backends may raise anything, may ask a person, may hang, and some keep nothing: each
call has a deadline, and what was kept is read back.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")

SERVICE: Final = "serai"
DEADLINE_S: Final = 60.0
"""A keyring may ask for its password first."""


class NoKeyring(Exception):
    """It cannot be used; the message says why."""


def keep(name: str, secret: str) -> None:
    """Keep a secret. Raises NoKeyring."""
    import keyring
    from keyring.backends import fail

    if isinstance(keyring.get_keyring(), fail.Keyring):
        raise NoKeyring("there is none here")
    within(lambda: keyring.set_password(SERVICE, name, secret))
    if read(name) != secret:
        raise NoKeyring("it does not give back what it was given")


def read(name: str) -> str | None:
    """The secret, None when there is none. Raises NoKeyring."""
    import keyring

    return within(lambda: keyring.get_password(SERVICE, name))


def forget(name: str) -> None:
    """Take the secret out, if there is one. Raises NoKeyring."""
    import keyring

    if read(name) is not None:
        within(lambda: keyring.delete_password(SERVICE, name))


def within(work: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """The outcome of a call, in a thread that nobody waits for after the deadline. Raises NoKeyring."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    try:
        return outcome.result(deadline_s)
    except TimeoutError as error:
        raise NoKeyring(f"no answer in {deadline_s:g} s") from error
    except Exception as error:  # a backend raises what its desktop's library raises
        raise NoKeyring(str(error) or type(error).__name__) from error

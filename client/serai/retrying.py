"""Whether and when a request that failed is sent again. Pure: the caller sleeps, and brings clock and chance.

The one retrying layer of the client: nothing above it tries again.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts` tries in all within `total_s` seconds; the first pause is at most `base_s`, each next one twice that,
    none over `cap_s`.
    """

    attempts: int = 5
    total_s: float = 30.0
    base_s: float = 0.2
    cap_s: float = 5.0


def pause_before_next(
    patience: Patience, *, tried: int, elapsed_s: float, chance: float, retry_after_s: float | None = None
) -> float | None:
    """Seconds to wait before try `tried` + 1, or None to give up.

    `chance` in [0, 1) spreads clients apart (full jitter over the upper half of the pause). A server's Retry-After
    is a lower bound; if it does not fit into what is left of the patience, giving up now is kinder than waiting.
    """
    if tried >= patience.attempts:
        return None
    ceiling = min(patience.cap_s, patience.base_s * 2 ** (tried - 1))
    pause = ceiling * (0.5 + 0.5 * chance)
    if retry_after_s is not None:
        pause += retry_after_s
    return pause if elapsed_s + pause <= patience.total_s else None

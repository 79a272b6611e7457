"""The development issuer's one page: a demo user allows or refuses a sign-in that a command line began. Pure.

No script, nothing loaded from anywhere, no framing. There is no password: whoever reaches this issuer can be anybody.
"""

from html import escape
from typing import Final

from services.auth.demo_users import DEMO_USERS

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
}  # fmt: skip
_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem}"
    "code{font-size:1.6rem;letter-spacing:.1em}label{display:block;margin:.4rem 0}"
    "button,input[name=user_code]{font:inherit;padding:.4rem 1rem;margin:.8rem .6rem 0 0}small{color:#666}"
)


def ask_for_code(words: str = "") -> str:
    """The page of somebody who came without a code, or with a wrong one."""
    told = f"<p role=alert>{escape(words)}</p>" if words else ""
    return _page(
        "Sign in",
        f"{told}<form method=get action=/device><label>Code, as your command line shows it: "
        "<input name=user_code autofocus autocomplete=off required></label><button>Go on</button></form>",
    )


def choose(user_code: str, client: str) -> str:
    """The page with the code and the demo users."""
    users = "".join(
        f"<label><input type=radio name=user value={escape(each.user)} required{' checked' if not number else ''}> "
        f"<b>{escape(each.name)}</b> ({escape(each.user)}), {escape(each.about)}</label>"
        for number, each in enumerate(DEMO_USERS)
    )
    return _page(
        "Sign in",
        f"<p><b>{escape(client)}</b> asks to act for you. Go on only if it shows this code:</p>"
        f"<p><code>{escape(user_code)}</code></p><form method=post action=/device>"
        f"<input type=hidden name=user_code value={escape(user_code)}>{users}"
        "<button name=answer value=allow>Allow</button><button name=answer value=refuse formnovalidate>Refuse</button>"
        "</form>",
    )


def done(words: str) -> str:
    """The last page."""
    return _page(words, "<p>You can close this page and go back to your command line.</p>")


def _page(title: str, content: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<main><h1>{escape(title)}</h1>{content}<p><small>Serai development issuer: demo users, no passwords, this "
        "machine only.</small></p></main></html>"
    )

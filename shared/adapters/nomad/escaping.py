"""How user text stays data on its way through Nomad. Pure; used by `specification.py` and `mock.py`.

Nomad rewrites three places, each by rules of its own (seen on Nomad 2.0.6; source: `helper/pluginutils/hclutils`,
`helper/args`, `client/taskenv`):

- a task's `Config` is an HCL2 template: `${` opens an expression and `%{` a directive, `$${` and `%%{` are escapes; an
  unknown name fails the task ("Failed Validation").
- values of `Env`, and `DestPath` of templates, go once through a plain replacement of `${name}` where the name is
  known. There is no escape, and what is known differs from node to node.
- a template's text is a Go template between delimiters that the specification may choose.

None of them looks at its own result again. So one rule serves the first two: a `$` or `%` before a `{` is written as a
variable of ours that holds it, `${HOME}` as `${NOMAD_META_serai_dollar}{HOME}`. Every sign of a run is written so
(`$$${`), since the signs before a variable would else be read as an escape. No launcher and no shell is needed, and
images without one work too.
"""

import re
from collections.abc import Iterable
from itertools import count

MARKS = {"serai_dollar": "$", "serai_percent": "%"}
"""Meta that a job needs wherever `literal` had something to write."""

_VARIABLES = {sign: f"${{NOMAD_META_{key}}}" for key, sign in MARKS.items()}
_OPENING = re.compile(r"[$%]+(?=\{)")


def literal(text: str) -> str:
    """`text` written so that a driver's configuration, the environment or a path has it byte for byte."""
    return _OPENING.sub(lambda run: "".join(_VARIABLES[sign] for sign in run[0]), text)


def marks_for(texts: Iterable[str]) -> dict[str, str]:
    """The meta that these texts need; none for ordinary ones."""
    return MARKS if any(_OPENING.search(text) for text in texts) else {}


def template_of(content: str) -> tuple[str, str, str]:
    """(template text, left delimiter, right delimiter) that render to exactly `content`.

    The left delimiter is the first of a fixed series that does not occur in the content, so that the same content
    always gives the same specification. Nomad refuses an empty template: nothing is written as an action that prints
    nothing.
    """
    left = next(mark for mark in (f"<serai-{n}<" for n in count()) if mark not in content)
    right = left.replace("<", ">")
    return (content or f'{left}""{right}'), left, right

"""What all tests of this folder need, and that they share one platform: `pytestmark = marks.REAL`."""

from typing import Final

import pytest

from tests.system.real.whole import MISSING

REAL: Final = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.crash,
    pytest.mark.rabbitmq,
    pytest.mark.postgres,
    pytest.mark.consul,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}"),
]

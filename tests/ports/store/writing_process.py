"""A process that writes things and tells each number once it was returned; the test kills it in the middle."""

import asyncio
import sys

from shared.adapters.stores import open_store_at
from tests.ports.store.database import put


async def main(url: str, first: int) -> None:
    store = await open_store_at(url, None)
    numbers = iter(range(first, 1_000_000))

    async def write() -> None:
        for number in numbers:
            print(await store.transact(put(number)), flush=True)

    await asyncio.gather(*(write() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

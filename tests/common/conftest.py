from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from common.transport import private_folder
from tests.fakes.room import Room


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    folder = private_folder()
    async with AsyncExitStack() as stack:
        yield Room(stack, folder)
    for left_over in folder.iterdir():
        left_over.unlink()
    folder.rmdir()

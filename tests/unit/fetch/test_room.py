from __future__ import annotations

import anyio

from cachefetch.errors import StoreError
from cachefetch.fetch.room import Room

FREE = 100


def require(size: int) -> None:
    if size > FREE:
        raise StoreError("full")


def most_together(*sizes: int) -> int:
    """Return how many of these payloads were under way at once, at most."""
    room, now, most = Room(require), 0, 0

    async def one(size: int) -> None:
        nonlocal now, most
        async with room.of(size):
            now += 1
            most = max(most, now)
            await anyio.sleep(0.001)
            now -= 1

    async def main() -> None:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for size in sizes:
                    group.start_soon(one, size)

    anyio.run(main)
    return most


def test_what_fits_comes_together() -> None:
    assert most_together(30, 30, 40) == 3


def test_what_does_not_fit_waits_for_those_under_way() -> None:
    assert most_together(60, 60, 60) == 1
    assert most_together(60, 60, 30) == 2


def test_the_disk_itself_refuses_what_fits_nowhere() -> None:
    assert most_together(101, 101) == 1


def test_who_fails_makes_room() -> None:
    async def main() -> None:
        room = Room(require)
        for _ in range(3):
            try:
                async with room.of(80):
                    raise ValueError
            except ValueError:
                assert room.fits(FREE)

    anyio.run(main)


def test_what_a_manifest_promises_keeps_its_room() -> None:
    """A size that only a server tells waits until that came, or until it is known that it will not come."""
    order: list[str] = []

    async def told(room: Room) -> None:
        async with room.of(60):
            order.append("told")

    async def main() -> None:
        room = Room(require)
        room.expect("a", 30)
        assert room.fits(70)
        room.expect("b", 30)
        assert not room.fits(60)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(told, room)
                await anyio.sleep(0.01)
                order.append("settled")
                room.settled("a")
                room.settled("a")  # also a second time
        assert room.fits(70)

    anyio.run(main)
    assert order == ["settled", "told"]

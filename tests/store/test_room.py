"""Room by number and by weight, first come, first in."""

from __future__ import annotations

import asyncio

from control.store.room import Room


async def entering(room: Room, *weights: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(room.enter(weight)) for weight in weights]
    await turn()
    return tasks


async def turn() -> None:
    for _ in range(3):  # a future is set, its waiter is woken, and its task is done
        await asyncio.sleep(0)


def inside(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def test_the_room_is_full_by_number_or_by_weight() -> None:
    light = await entering(Room(things=2, size=100), 1, 1, 1)
    heavy = await entering(Room(things=9, size=100), 60, 40, 1)
    assert inside(light) == inside(heavy) == [True, True, False]
    for tasks in (light, heavy):
        tasks[-1].cancel()


async def test_nothing_light_slips_past_what_is_heavy_and_waits() -> None:
    room = Room(things=9, size=100)
    tasks = await entering(room, 60, 50, 1)
    assert (inside(tasks), room.waiting) == ([True, False, False], 2)
    room.leave(60)
    await turn()
    assert (inside(tasks), room.waiting) == ([True, True, True], 0)


async def test_what_is_heavier_than_the_room_is_let_in_alone() -> None:
    room = Room(things=9, size=100)
    tasks = await entering(room, 10, 500, 10)
    assert inside(tasks) == [True, False, False]
    room.leave(10)
    await turn()
    assert inside(tasks) == [True, True, False]
    room.leave(500)
    await turn()
    assert inside(tasks) == [True, True, True]


async def test_nobody_passes_who_was_let_in_and_has_not_resumed() -> None:
    room, order = Room(things=2, size=100), list[str]()

    async def enter(name: str) -> None:
        await room.enter(1)
        order.append(name)

    await entering(room, 1, 1)
    first = asyncio.create_task(enter("first"))
    await turn()
    second = asyncio.create_task(enter("second"))  # its turn of the loop comes before the first's
    room.leave(1)
    room.leave(1)
    await turn()
    assert first.done() and second.done()
    assert order == ["first", "second"]


async def test_who_comes_while_another_gives_up_its_place_is_let_in() -> None:
    room = Room(things=1, size=100)
    tasks = await entering(room, 1, 1)
    tasks += [asyncio.create_task(room.enter(1))]
    room.leave(1)
    tasks[1].cancel()
    await turn()
    assert tasks[1].cancelled() and tasks[2].done()


async def test_who_gives_up_waiting_makes_way() -> None:
    room = Room(things=9, size=100)
    tasks = await entering(room, 60, 50, 40)
    tasks[1].cancel()
    await turn()
    assert tasks[1].cancelled() and inside(tasks) == [True, True, True]


async def test_who_gives_up_as_it_is_let_in_leaves_its_room() -> None:
    room = Room(things=1, size=100)
    tasks = await entering(room, 1, 1, 1)
    room.leave(1)
    tasks[1].cancel()
    await turn()
    assert tasks[1].cancelled() and inside(tasks) == [True, True, True]

"""What is kept for the next generation: rows compared, readings lent and given back, limits held."""

from __future__ import annotations

import gc
import random
import threading
import weakref

import pytest
import torch

from explorer.vlm.cache import SLACK, GrowingCache
from explorer.vlm.memory import (
    ANSWERS_PER_PROMPT,
    PROMPTS,
    READINGS,
    READINGS_PER_KEY,
    Memories,
    Memory,
    Reading,
    agreeing,
)


def read(rows: torch.Tensor, cache: GrowingCache | None = None, start: int = 0) -> GrowingCache:
    """Keys and values [1, 2, n, 3] and [1, 2, n, 5] of rows [n, 4], in two layers, told from the rows."""
    cache = GrowingCache(2) if cache is None else cache
    for layer in range(2):
        keys, values = told(rows[start:], layer)
        cache.update(keys, values, layer)
    return cache


def told(rows: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    one = (rows + layer).T[None, None].expand(1, 2, -1, -1).transpose(2, 3)
    return one[..., :3], torch.cat([one, -one[..., :1]], dim=-1)


def holds(cache: GrowingCache, rows: torch.Tensor) -> bool:
    """Whether a cache holds just what belongs to these rows."""
    return all(
        torch.equal(layer.keys, told(rows, i)[0]) and torch.equal(layer.values, told(rows, i)[1])
        for i, layer in enumerate(cache.layers)
    )


def some(seed: int, n: int = 20) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def kept(memory: Memory, rows: torch.Tensor, key: str = "k") -> None:
    memory.put(Reading(key, rows, read(rows)))


# ---- keys and values that grow --------------------------------------------------------------------------


def test_a_cache_grows_crops_and_forks_like_rows_in_a_list() -> None:
    rng = random.Random(2)
    for _ in range(20):
        rows, cache = some(0, 0), GrowingCache(2)
        for _ in range(12):
            match rng.randrange(4):
                case 0:
                    gone = rng.randrange(len(rows) + 1)
                    cache.crop(-gone)
                    rows = rows[: len(rows) - gone]
                case 1:
                    count = rng.randrange(len(rows) + 3)
                    cache.keep(count)
                    rows = rows[:count]
                case 2:
                    count = rng.randrange(len(rows) + 3)
                    old, before = cache, rows
                    cache, rows = cache.forked(count), rows[:count]
                    if len(old.layers[0]._buffers):
                        more = torch.cat([before, some(9, 5)])
                        read(more, old, len(before))
                case _:
                    rows = torch.cat([rows, some(rng.randrange(99), rng.randrange(1, 90))])
                    read(rows, cache, cache.get_seq_length())
            assert cache.get_seq_length() == len(rows)
            assert not len(rows) or holds(cache, rows)
            assert not len(rows) or cache.get_mask_sizes(3, 0) == (len(rows) + 3, 0)


def test_a_cache_has_room_and_does_not_copy_for_each_token() -> None:
    cache = read(some(0, 10))
    place = cache.layers[0].keys.data_ptr()
    for count in range(11, 10 + SLACK + 1):
        read(some(0, count), cache, count - 1)
        assert cache.layers[0].keys.data_ptr() == place
    before = cache.nbytes
    read(some(0, 11 + SLACK), cache, 10 + SLACK)
    assert cache.nbytes > before == 2 * 2 * (3 + 5) * 4 * (10 + SLACK)


# ---- rows that agree -------------------------------------------------------------------------------------


def test_rows_agree_up_to_the_first_that_differs_anywhere() -> None:
    rng = random.Random(1)
    rows = some(0)
    assert agreeing(rows, rows.clone()) == 20 and agreeing(rows[:7], rows) == 7 == agreeing(rows, rows[:7])
    for _ in range(30):
        other, place = rows.clone(), rng.randrange(20)
        other[place, rng.randrange(4)] += 1e-6
        if rng.random() < 0.5:
            other[rng.randrange(place, 20)] = 7.0
        assert agreeing(rows, other) == next(i for i in range(20) if not torch.equal(rows[i], other[i]))
    assert agreeing(rows, rows.double()) == agreeing(rows, rows[:, :3]) == agreeing(rows[:0], rows) == 0
    assert agreeing(torch.full((2, 4), torch.nan), torch.full((2, 4), torch.nan)) == 0


# ---- readings --------------------------------------------------------------------------------------------


def test_a_reading_is_cropped_to_what_it_shares_and_is_the_taker_s_alone() -> None:
    memory, rows = Memory(), some(0)
    kept(memory, rows)
    nearly = rows.clone()
    nearly[19] += 1.0
    taken = memory.take("k", nearly)
    assert taken is not None and torch.equal(taken.rows, rows[:19]) and holds(taken.cache, rows[:19])
    assert memory.take("k", nearly) is None and memory.readings == () and memory.nbytes == 0
    memory.put(Reading("k", nearly, read(nearly, taken.cache, 19)))
    assert [reading.rows is nearly for reading in memory.readings] == [True]
    assert holds(memory.readings[0].cache, nearly)


def test_the_last_row_is_always_left_to_be_read() -> None:
    memory, rows = Memory(), some(0)
    kept(memory, rows)
    taken = memory.take("k", rows.clone())
    assert taken is not None and len(taken.rows) == 19 == taken.cache.get_seq_length()


def test_another_key_or_another_beginning_gets_nothing() -> None:
    memory, rows = Memory(), some(0)
    kept(memory, rows)
    assert memory.take("other", rows) is None and memory.take("k", some(1)) is None
    assert memory.take("k", rows[:1]) is None and len(memory.readings) == 1


def test_much_is_not_written_over_while_there_is_room_for_a_copy() -> None:
    memory, rows = Memory(), some(0)
    kept(memory, rows)
    half = rows.clone()
    half[10:] += 1.0
    taken = memory.take("k", half)
    assert taken is not None and taken.lent == 0 and holds(taken.cache, rows[:10])
    read(half, taken.cache, 10)
    assert holds(memory.readings[0].cache, rows), "written over"
    memory.put(Reading("k", half, taken.cache))
    whole = memory.take("k", rows)
    assert whole is not None and whole.lent > 0 and len(whole.rows) == 19


def test_no_more_than_a_few_readings_the_last_used_stay() -> None:
    memory = Memory()
    for seed in range(9):
        kept(memory, some(seed), "one")
    assert [float(one.rows[0, 0]) for one in memory.readings] == [
        float(some(seed)[0, 0]) for seed in (8, 7, 6)[:READINGS_PER_KEY]
    ]
    for seed in range(READINGS + 3):
        kept(memory, some(seed), f"key {seed}")
    assert len(memory.readings) == READINGS and "one" not in {one.key for one in memory.readings}
    more = [memory.take(f"key {READINGS + 2}", some(READINGS + 2)) for _ in range(2)]
    assert more[0] is not None and more[1] is None


def test_what_is_given_back_is_as_it_was_lent_in_no_more_memory() -> None:
    for extra in (3, SLACK + 30):
        memory, rows = Memory(), some(0)
        kept(memory, rows)
        before = memory.nbytes
        taken = memory.take("k", rows)
        assert taken is not None
        longer = torch.cat([rows[:19], some(5, extra)])
        read(longer, taken.cache, 19)
        memory.put(taken.restored())
        assert memory.nbytes <= before and holds(memory.readings[0].cache, rows[:19])


def test_a_pass_that_broke_off_between_two_layers_leaves_nothing_behind() -> None:
    memory, rows = Memory(), some(0)
    kept(memory, rows)
    taken = memory.take("k", rows)
    assert taken is not None
    taken.cache.update(*told(some(3, 4), 0), 0)  # and not the second layer
    memory.put(taken.restored())
    assert holds(memory.readings[0].cache, rows[:19])


# ---- answers ---------------------------------------------------------------------------------------------


def test_answers_are_kept_by_prompt_newest_first() -> None:
    memory = Memory()
    for answer in ([1], [2], [1], [3]):
        memory.learn("what", answer)
    assert memory.earlier("what") == ((3,), (1,), (2,)) and memory.earlier("who") == ()
    for number in range(100):
        memory.learn("what", [number])
        memory.learn(f"prompt {number}", [1])
    assert len(memory.earlier("what")) == ANSWERS_PER_PROMPT and len(memory.drafts) == PROMPTS
    kept(memory, some(0))
    memory.forget()
    assert memory.nbytes == 0 and memory.readings == () and memory.earlier("what")[0] == (99,)


# ---- all memories together -------------------------------------------------------------------------------


def test_the_least_recently_used_memory_loses_its_keys_first() -> None:
    one = Memory()
    kept(one, some(0))
    size = one.nbytes
    memories = Memories(3 * size)
    first, second, third, fourth = (memories.new() for _ in range(4))
    for memory in (first, second, third):
        kept(memory, some(0))
    first.put(first.take("k", some(0)).restored())
    assert memories.nbytes > 2 * size
    kept(fourth, some(0))
    assert second.nbytes == 0 and min(first.nbytes, third.nbytes, fourth.nbytes) > 0
    assert memories.nbytes <= 3 * size
    for seed in range(READINGS_PER_KEY):
        kept(fourth, some(seed), f"key {seed}")
    assert first.nbytes == third.nbytes == 0 and 2 * size < memories.nbytes == fourth.nbytes <= 3 * size
    small = Memories(size - 1).new()
    kept(small, some(0))
    assert small.nbytes == 0


def test_memories_are_held_weakly_and_their_tensors_go_with_them() -> None:
    memories = Memories(10**9)
    memory = memories.new()
    kept(memory, some(0))
    keys = weakref.ref(memory.readings[0].cache.layers[0].keys)
    assert memories.nbytes == memory.nbytes > 0
    del memory
    gc.collect()
    assert memories.nbytes == 0 and keys() is None


@pytest.mark.parametrize("limit", [0, 20_000, 10**9])
def test_many_threads_at_once(limit: int) -> None:
    memories = Memories(limit)
    shared, wrong = [memories.new() for _ in range(2)], []

    def visit(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            memory, rows = rng.choice(shared), some(rng.randrange(3))
            rows[rng.randrange(5, 20) :] += rng.randrange(2)
            taken = memory.take("k", rows)
            start = 0 if taken is None else len(taken.rows)
            cache = read(rows, None if taken is None else taken.cache, start)
            if not holds(cache, rows):
                wrong.append(seed)
            if rng.random() < 0.7:
                memory.put(Reading("k", rows, cache))
            elif taken is not None and taken.lent:
                memory.put(taken.restored())

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and memories.nbytes <= limit

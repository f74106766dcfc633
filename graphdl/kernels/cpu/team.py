"""A team: the threads of the pool, the words by which they share launches, and how they wait.

One thread at a time owns the team: the one whose tape runs. It is participant 0; the pool's threads
are the others, and they run `work` for as long as the process lives. Each participant has a queue
of parts of the launch that runs now (so that it meets the same rows of arrays again, in its cache),
and takes from the others' queues when its own is empty. Whoever ends the last part of a launch
begins the next.

Nobody is waited for but who is inside a part. A queue is one word, the row of the launch and how
many parts are left, and a part is taken by making that word one less. So a thread that comes late,
or that the system has stopped between two parts, holds nothing: the others do its parts, its owner
returns without it, and the words that it looks at when it comes back tell what runs then. That is
why a team's memory is never freed, and why its epochs only grow.

Who finds no part looks for `PATIENCE` turns, then sleeps until it is roused. It never offers its
processor instead (`sched_yield`): on a busy machine it would come back a whole turn of the
scheduler later, work or no work, and Linux takes the rest of its own turn away too. A sleeper's
share of the processor is kept for when it wakes.

Sleeping and waking are Python's own locks, which are semaphores of the system and need neither the
interpreter nor its lock.
"""

from __future__ import annotations

from graphdl.kernels.cpu.assembler import Function, Module, Value

#: The words of a team. The first line is written by the owner, between tapes: the tape, the row at
#: which it stops, how many participants there are, and run_part(team, queue, row, left). Then who
#: owns the team, the functions that take and release a lock, and what participants write, each word
#: on a cache line of its own (128 bytes, since processors fetch lines in pairs): the number of the
#: epoch, how many parts of a launch are done, how many participants may be asleep.
TAPE, END, THREADS, RUN_PART = (8 * i for i in range(4))
OWNED, ACQUIRE, RELEASE = 128, 136, 144
EPOCH, DONE, SLEEPERS = 256, 384, 512
#: Two lines for each participant: its queue; whether it is asleep, and the lock that it sleeps on.
_PLACES, _PLACE = 640, 256
_QUEUE, ASLEEP, LOCK = 0, 128, 136
LINE = 128

#: The most participants; a team is so large.
MOST = 1024
SIZE = _PLACES + MOST * _PLACE

#: An epoch is even while a launch runs that has several parts, and odd when the owner's stretch of
#: the tape has ended.
FINISHED = 1

#: A participant without work looks so often, about 40 ns each, before it sleeps: about as long as
#: it takes to wake one.
PATIENCE = 1000

#: Who wakes others wakes so many, and these wake more.
_ROUSED = 2


def place(index: int) -> int:
    """Where in a team the words of a participant begin."""
    return _PLACES + index * _PLACE


def _place(team: Value, index: Value) -> Value:
    return team + index * _PLACE + _PLACES


def fill(f: Function, team: Value, queue: Value, row: Value, parts: Value) -> None:
    """Put so many parts of the launch of that row into a queue."""
    f.store_shared(_place(team, queue) + _QUEUE, (row << 32) | parts)


def publish(f: Function, team: Value, finished: bool) -> None:
    """Begin an epoch: the queues are full, or the owner's stretch of the tape has ended."""
    epoch = f.load_shared(team + EPOCH)
    following = (epoch | FINISHED) + (2 if finished else 1)
    f.exchange(team + EPOCH, following)
    if finished:
        f.call("wake", team, 0)
    else:
        f.call("rouse", team)


def _define_wake(module: Module) -> None:
    """wake(team, index): wake a participant; 1 if it was asleep."""
    with module.function("wake", 2) as (f, (team, index)):
        here = _place(team, index)
        with f.when(f.load_shared(here + ASLEEP).equals(0)):
            f.leave(0)
        with f.when(f.exchange(here + ASLEEP, 0).equals(0)):
            f.leave(0)
        f.fetch_add(team + SLEEPERS, -1)
        f.call(f.load(team + RELEASE), f.load(here + LOCK), returns="void")
        f.leave(1)


def _define_rouse(module: Module) -> None:
    """rouse(team): wake some of the participants that sleep."""
    with module.function("rouse", 1) as (f, (team,)):
        with f.when(f.load_shared(team + SLEEPERS).equals(0)):
            f.leave()
        roused = f.variable(0)
        with f.count(0, f.load(team + THREADS)) as i:
            roused.set(roused.get() + f.call("wake", team, i))
            with f.when(roused.get() >= _ROUSED):
                f.leave()


def _define_wait(module: Module) -> None:
    """wait(team, me, seen): until the epoch is another one than `seen`, or for no reason.

    Either a thread that is about to sleep sees the new epoch, or the one that writes it sees that
    somebody sleeps. Who says that somebody does not sleep any more, itself or another, is told by
    the word ASLEEP; it then holds one lock more, or has released it.
    """
    with module.function("wait", 3) as (f, (team, me, seen)):
        with f.count(0, PATIENCE):
            with f.when(f.load_shared(team + EPOCH).differs(seen)):
                f.leave()
            f.pause()
        here = _place(team, me)
        f.fetch_add(team + SLEEPERS, 1)
        f.exchange(here + ASLEEP, 1)
        late = f.load_shared(team + EPOCH).differs(seen)
        with f.when(late), f.when(f.exchange(here + ASLEEP, 0).differs(0)):
            f.fetch_add(team + SLEEPERS, -1)
            f.leave()
        f.call(f.load(team + ACQUIRE), f.load(here + LOCK), f.narrow(f.constant(1)), returns="i32")


def _define_take(module: Module) -> None:
    """take(team, queue): run parts from the queue until none is left; how many were run.

    Only who has taken a part may look at the launch: until that part is done, it stays.
    """
    with module.function("take", 2) as (f, (team, queue)):
        word, taken = _place(team, queue) + _QUEUE, f.variable(0)
        with f.forever() as loop:
            seen = f.load_shared(word)
            left = seen & 0xFFFFFFFF
            with f.when(left.equals(0)):
                f.leave(taken.get())
            loop.again_when(f.compare_exchange(word, seen, seen - 1).differs(seen))
            f.call(f.load(team + RUN_PART), team, queue, seen >> 32, left, returns="void")
            taken.set(taken.get() + 1)


def _define_work(module: Module) -> None:
    """work(team, me): take part. Who owns the team, 0, leaves when its stretch has ended."""
    with module.function("work", 2) as (f, (team, me)), f.forever() as loop:
        epoch = f.load_shared(team + EPOCH)
        finished = (epoch & FINISHED).differs(0)
        with f.when(finished & me.equals(0)):
            f.leave()
        threads = f.load(team + THREADS)
        taken = f.variable(0)
        with f.unless(finished | (me >= threads)):
            f.call("rouse", team)
            with f.count(0, threads) as k:
                taken.set(taken.get() + f.call("take", team, (me + k) % threads))
        loop.again_when(taken.get() > 0)
        f.call("wait", team, me, epoch)


def define(module: Module) -> None:
    """Write `work`, and what it calls."""
    _define_wake(module)
    _define_rouse(module)
    _define_wait(module)
    _define_take(module)
    _define_work(module)

"""The measurements that the README quotes: `python -m tests.bench [name ...]`, run by `make bench`.

Each module measures one promise and returns rows. Where there is a peer, plain LangGraph on its stock Postgres saver,
the two take turns in one run of the program, and a ratio is the median of the rounds' ratios, so that what else the
machine does falls on both. The rules that keep it honest:

- A real PostgreSQL with fsync on, in a data folder of its own; settings are those of production.
- Ours does all that it does in production, and never less than the peer: both write the same number of checkpoints,
  blobs and writes, which is checked; both wait for every commit (durability `sync`); every run must have succeeded.
- The clock stops when the last commit is acknowledged, not when it was begun.
- A goal that is missed is printed as missed, and the program ends with 1.

`--scale` makes fewer or smaller ones of everything, for a quick look; goals are promised at 1.
"""

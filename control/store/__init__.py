"""The facts, in PostgreSQL. Nothing outside this package runs SQL or reads a driver's error.

Who is authoritative for what:

- The LangGraph rows say what has run, what is next and what is asked; the saver alone writes them (`saver`, `flush`),
and
  `checkpoints` reads them without the graph.
- The run's row says who is working (claim and epoch), what was ordered, and how the last attempt ended. It is its own
  queue: workers claim from it (`claims`). The status it stores is an index, written in the transaction that changed a
  cause, and recomputed by the doctor.
- `approval`, `wait` and `signal` say what was asked, what was answered and what fired; LangGraph's resume only
delivers. - `effect` says what was begun outside and what came of it. - The ledger says what happened, in order, in the
transaction that made it happen.

Two ways lead to a changed run. The flush writes what a worker's graph produced, many runs in one statement, each
checked against its claim. A transition (`runs.save_run`) locks one run, reads its facts and writes what follows;
commands, timers, take-overs and scripts go that way. The two exclude each other by the run's row lock, and an attempt
that ends names the version of the facts it was decided on.

When something dies. A worker: its session lock is free at once, a peer takes its runs over under their next epoch, and
whatever the dead one still sends is refused. A connection: the flush is sent again under the same id and not written
twice. The server: workers reconnect, and their peers wait a moment before they take anything. The machine: the lease.

Rejected: a status word of its own per layer (it drifts); heartbeats from the event loop (late is not dead: live workers
were declared dead and runs executed twice); a queue beside the run row (a second truth, slower, and nothing to delete);
the stock saver's lock around every query (one run or twenty take the same time).
"""

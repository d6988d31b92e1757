"""`make demo`: one loan from the scanned application to the letter, with everything going wrong on the way.

It uses the product as its users do: a PostgreSQL of its own (`.control/demo`), two processes of `control worker`, the
commands `control start`, `approve`, `reject` and `doctor`, and the loan's other side as real services. The worker that
holds the run is killed with SIGKILL while a model answers it. Whatever is printed was measured in this run; the checks
at the end compare it with what should be, and the demonstration exits with 1 where one does not hold.

- `crew`: the processes, and their end on every way out.
- `watch`: the run as it goes, read from its ledger.
- `counts`: what happened outside and how often, and the checks.
- `answer`: the person's word.
- `screen`: the terminal.
- `__main__`: the acts, in order.
"""

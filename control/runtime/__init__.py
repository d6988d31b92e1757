"""What moves: workers that drive claimed runs, and the commands that people give.

A `worker` claims; an `attempt` drives one run under one epoch and records how it ended; `recovery` does what time and
death bring about; `commands` change what people order, one module for each verb. None of them decides a status: they
change facts, and `core.run_status` says what follows.

It promises: a run is executed by at most one living claim; what a lost claim still does is not written; no recorded
answer is asked for again, and none is given to a question it was not given for; a run that takes its workers down with
it is abandoned after a bounded number of tries.

It does not promise that a node runs once: a node that was executing when its worker died runs again. Changes outside go
through `control.sdk.effect`, which keeps them to one, or says that it cannot know.
"""

-- :name open_runs
-- The runs on these threads that have not ended, locked against claims, flushes and commands.
-- locks: run in the order of its key
select * from control.run
where tenant = %(tenant)s and thread_id = any (%(threads)s) and closed_at is null
order by tenant, run_id for no key update;

-- :name own
-- Makes this tenant's those of the threads that nobody has, such as plain LangGraph's: what is on a thread can be
-- seen by
-- its owner alone. Another tenant's is a unique violation; what cannot be a thread's name is left out.
-- locks: thread
insert into control.thread (tenant, thread_id)
select distinct %(tenant)s, name from unnest(%(threads)s::text[]) as name where length(name) between 1 and 255
on conflict (tenant, thread_id) do nothing;

-- :name written
-- Those of these threads that have a checkpoint.
-- locks: none
select t.thread_id from unnest(%(threads)s::text[]) as t(thread_id)
where exists (select from checkpoints c where c.thread_id = t.thread_id);

-- :name of_runs
-- This tenant's threads with checkpoints of these runs (as their metadata name them). No index leads there.
-- locks: none
select distinct c.thread_id from checkpoints c join control.thread t on t.thread_id = c.thread_id
where t.tenant = %(tenant)s and c.metadata ->> 'run_id' = any (%(runs)s);

-- :name delete
-- Everything LangGraph keeps of these threads.
-- locks: checkpoints, checkpoint_blobs, checkpoint_writes
with gone as (
    delete from checkpoints where thread_id = any (%(threads)s)
), blobs as (
    delete from checkpoint_blobs where thread_id = any (%(threads)s)
)
delete from checkpoint_writes where thread_id = any (%(threads)s);

-- :name delete_runs
-- The checkpoints of these runs on these threads, and what was written on them.
-- locks: checkpoints, checkpoint_writes
with gone as (
    delete from checkpoints where thread_id = any (%(threads)s) and metadata ->> 'run_id' = any (%(runs)s)
    returning thread_id, checkpoint_ns, checkpoint_id
)
delete from checkpoint_writes w using gone g
where w.thread_id = g.thread_id and w.checkpoint_ns = g.checkpoint_ns and w.checkpoint_id = g.checkpoint_id;

-- :name delete_unread
-- Values of these threads that no checkpoint refers to any more.
-- locks: checkpoint_blobs
delete from checkpoint_blobs b
where b.thread_id = any (%(threads)s) and (b.thread_id, b.checkpoint_ns, b.channel, b.version) not in (
    select c.thread_id, c.checkpoint_ns, v.key, v.value
    from checkpoints c, jsonb_each_text(c.checkpoint -> 'channel_versions') v where c.thread_id = any (%(threads)s)
);

-- :name copy
-- Everything LangGraph keeps of one thread, also under another. One statement, and so one moment of the original.
-- locks: checkpoints, checkpoint_blobs, checkpoint_writes
with copied as (
    insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    select %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    from checkpoints where thread_id = %(source)s
), blobs as (
    insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select %(target)s, checkpoint_ns, channel, version, type, blob from checkpoint_blobs where thread_id = %(source)s
)
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
from checkpoint_writes where thread_id = %(source)s;

-- :name step
-- The step of a root checkpoint that this run wrote.
-- locks: none
select (metadata ->> 'step')::int as step from checkpoints
where thread_id = %(thread_id)s and checkpoint_ns = '' and checkpoint_id = %(origin)s
  and metadata ->> 'run_id' = %(run_id)s;

-- :name fork
-- A copy of a checkpoint under a new id, newest of its thread, without the original's pending writes.
-- locks: checkpoints
insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
select thread_id, checkpoint_ns, %(forked)s, checkpoint_id,
       checkpoint || jsonb_build_object('id', %(forked)s::text, 'ts', to_jsonb(control.clock())),
       metadata || jsonb_build_object('source', 'fork', 'step', %(step)s::int)
from checkpoints where thread_id = %(thread_id)s and checkpoint_ns = '' and checkpoint_id = %(origin)s;

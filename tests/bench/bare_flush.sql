-- The flush without governance: each run's row locked, its epoch checked and the flush's number taken, as `flush` does
-- it, and LangGraph's rows written; no entry of the ledger, no chain, and nothing of the run indexed.
with wanted as materialized (
    select *
    from unnest(%(tenant)s::text[], %(run)s::uuid[], %(thread)s::text[], %(epoch)s::bigint[], %(worker)s::uuid[])
        with ordinality as t(tenant, run_id, thread_id, epoch, worker_id, i)
), admitted as materialized (
    select w.i, r.tenant, r.run_id, r.thread_id
    from control.run r join wanted w on r.tenant = w.tenant and r.run_id = w.run_id
    where r.epoch = w.epoch and r.thread_id = w.thread_id and r.worker_id = w.worker_id
      and r.last_flush < %(flush)s::bigint
    order by r.tenant, r.run_id
    for no key update of r skip locked
), put_checkpoints as (
    insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    select a.thread_id, c.ns, c.id, c.parent, c.checkpoint::jsonb, c.metadata::jsonb
    from unnest(%(c_i)s::bigint[], %(c_ns)s::text[], %(c_id)s::text[], %(c_parent)s::text[], %(c_checkpoint)s::text[],
                %(c_metadata)s::text[]) as c(i, ns, id, parent, checkpoint, metadata)
    join admitted a using (i)
    on conflict (thread_id, checkpoint_ns, checkpoint_id)
    do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata
), put_blobs as (
    insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select a.thread_id, b.ns, b.channel, b.version, b.type, b.blob
    from unnest(%(b_i)s::bigint[], %(b_ns)s::text[], %(b_channel)s::text[], %(b_version)s::text[], %(b_type)s::text[],
                %(b_blob)s::bytea[]) as b(i, ns, channel, version, type, blob)
    join admitted a using (i)
    on conflict do nothing
), put_writes as (
    insert into checkpoint_writes (
        thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    )
    select a.thread_id, w.ns, w.id, w.task, w.path, w.idx, w.channel, w.type, w.blob
    from unnest(%(w_i)s::bigint[], %(w_ns)s::text[], %(w_id)s::text[], %(w_task)s::text[], %(w_path)s::text[],
                %(w_idx)s::int[], %(w_channel)s::text[], %(w_type)s::text[], %(w_blob)s::bytea[])
        as w(i, ns, id, task, path, idx, channel, type, blob)
    join admitted a using (i)
    on conflict do nothing
), put_marks as (
    insert into checkpoint_writes (
        thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    )
    select a.thread_id, w.ns, w.id, w.task, w.path, w.idx, w.channel, w.type, w.blob
    from unnest(%(m_i)s::bigint[], %(m_ns)s::text[], %(m_id)s::text[], %(m_task)s::text[], %(m_path)s::text[],
                %(m_idx)s::int[], %(m_channel)s::text[], %(m_type)s::text[], %(m_blob)s::bytea[])
        as w(i, ns, id, task, path, idx, channel, type, blob)
    join admitted a using (i)
    on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
    do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob
), written as (
    update control.run r set last_flush = %(flush)s::bigint
    from admitted a
    where r.tenant = a.tenant and r.run_id = a.run_id
    returning a.i
)
select i from written;

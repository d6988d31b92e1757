-- :name flush
-- Everything that many runs have to write, in one statement, and so whole or not at all. A run takes part if it still
-- has the epoch, thread and worker that the item was made under (fencing); a run whose row somebody else has locked is
-- left for the next flush. Flushes are numbered upwards, and a run takes each number once in an epoch: a flush sent
-- again because its answer was lost writes nothing twice, however late the first one arrives. Ending an attempt also
-- asks that no command has changed the run since its facts were read. It returns the runs that were written, by their
-- place, with their versions; why another was not, `fates` tells.
-- Arrays of each group run in parallel; `i` names the run by its place in the first group, from 1, and `nth` an entry
-- by its place among its run's. All of a run happens at one instant, once its row is locked.
-- The short form, without the lines that end in `-- long`, is for a flush in which no attempt ends and no run has two
-- entries. Most have a superstep waiting for them, and half of what a small one takes is to set its plan up.
-- locks: run in the order of its key (skipping), then checkpoints, checkpoint_blobs, checkpoint_writes, ledger
with admitted as materialized (
    select locked.*, control.clock() as at
    from (
        select w.*, r.ledger_seq, r.ledger_hash
        from unnest(
            %(version)s::bigint[], %(outcome)s::text[], %(execution)s::text[], %(failure_class)s::text[], -- long
            %(failure)s::text[], %(retry_at)s::timestamptz[], %(retries)s::int[], %(fit)s::text[], -- long
            %(status)s::text[], %(due_at)s::timestamptz[], %(closed)s::boolean[], -- long
            %(tenant)s::text[], %(run)s::uuid[], %(thread)s::text[], %(epoch)s::bigint[], %(worker)s::uuid[],
            %(head)s::text[], %(step)s::int[], %(parts)s::text[], %(shortfalls)s::int[], %(entries)s::bigint[]
        ) with ordinality as w(
            version, outcome, execution, failure_class, failure, retry_at, retries, fit, status, due_at, -- long
            closed, -- long
            tenant, run_id, thread_id, epoch, worker_id, head, step, parts, shortfalls, entries, i
        ) join control.run r on r.tenant = w.tenant and r.run_id = w.run_id
        where r.epoch = w.epoch and r.thread_id = w.thread_id and r.worker_id = w.worker_id
          and r.last_flush < %(flush)s::bigint
          and (w.version is null or w.version = r.version) -- long
        order by r.tenant, r.run_id
        for no key update of r skip locked
    ) locked
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
), entry as (
    select a.i, e.nth, a.tenant, a.run_id, a.ledger_seq + e.nth as seq, a.at, e.kind, e.actor, a.epoch, e.body,
           sha256(convert_to(e.body, 'UTF8')) as digest, a.ledger_hash
    from unnest(%(e_i)s::bigint[], %(e_nth)s::bigint[], %(e_kind)s::text[], %(e_actor)s::text[], %(e_body)s::text[])
        as e(i, nth, kind, actor, body)
    join admitted a using (i)
), chained as (
    select i, nth, tenant, run_id, seq, at, kind, actor, epoch, body, digest, -- not the link: it would be made twice
           control.chain(case nth when 1 then -- long
           control.chain_step(ledger_hash, link)
           else link end) over (partition by i order by nth) -- long
               as hash
    from (select *, control.link(seq, at, kind, actor, epoch, digest) as link from entry) linked
), put_ledger as (
    insert into control.ledger (tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)
    select tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash from chained
)
update control.run r
set last_flush = %(flush)s::bigint,
    ledger_seq = r.ledger_seq + a.entries,
    ledger_hash = coalesce(last.hash, r.ledger_hash),
    progress_at = a.at,
    blocked_in = null,
    head_checkpoint_id = coalesce(a.head, r.head_checkpoint_id),
    head_step = coalesce(a.step, r.head_step),
    parts = coalesce(string_to_array(a.parts, chr(31)), r.parts),
    shortfalls = r.shortfalls + a.shortfalls,
    crashes = case when a.head is null then r.crashes else 0 end,
    worker_id = case when a.outcome is null then r.worker_id end, -- long
    claimed_at = case when a.outcome is null then r.claimed_at end, -- long
    outcome = coalesce(a.outcome, r.outcome), -- long
    outcome_at = case when a.outcome is null then r.outcome_at else a.at end, -- long
    failure_class = case when a.outcome is null then r.failure_class else a.failure_class end, -- long
    failure = case when a.outcome is null then r.failure else a.failure::jsonb end, -- long
    retry_at = case when a.outcome is null then r.retry_at else a.retry_at end, -- long
    fit = coalesce(a.fit, r.fit), -- long
    status = coalesce(a.status, r.status), -- long
    since = case when a.outcome is null then r.since else a.at end, -- long
    due_at = case when a.outcome is null then r.due_at else a.due_at end, -- long
    closed_at = case when a.closed then a.at else r.closed_at end, -- long
    version = r.version + (a.outcome is not null)::int, -- long
    execution = coalesce(
        a.execution, -- long
        case when a.head is null then r.execution else 'runnable' end),
    retries = coalesce(
        a.retries, -- long
        case when a.head is null then r.retries else 0 end)
from admitted a left join chained last on last.i = a.i and last.nth = a.entries
where r.tenant = a.tenant and r.run_id = a.run_id
returning a.i, r.version;

-- :name fates
-- What became of the runs of a flush: "written", by another try; "lost", the claim that they were to be written under;
-- "moved", changed by a command since an ending was decided; or "busy", locked by somebody, and to be tried again. The
-- first three stay true.
-- locks: none
select w.i,
       case when r.epoch = w.epoch and r.last_flush >= %(flush)s::bigint then 'written'
            when r.run_id is null or r.epoch <> w.epoch or r.worker_id is distinct from w.worker_id
                 or r.thread_id <> w.thread_id then 'lost'
            when w.version <> r.version then 'moved'
            else 'busy' end as fate,
       r.version
from unnest(%(tenant)s::text[], %(run)s::uuid[], %(thread)s::text[], %(epoch)s::bigint[], %(worker)s::uuid[],
            %(version)s::bigint[])
    with ordinality as w(tenant, run_id, thread_id, epoch, worker_id, version, i)
left join control.run r on r.tenant = w.tenant and r.run_id = w.run_id;

-- :name write_marks
-- The writes of this flush's runs that stand for a whole task, such as its failure or its question: the last stands.
-- locks: checkpoint_writes
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
select r.thread_id, w.ns, w.id, w.task, w.path, w.idx, w.channel, w.type, w.blob
from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(ns)s::text[], %(id)s::text[], %(task)s::text[],
            %(path)s::text[], %(idx)s::int[], %(channel)s::text[], %(type)s::text[], %(blob)s::bytea[])
    as w(tenant, run_id, epoch, ns, id, task, path, idx, channel, type, blob)
join control.run r on r.tenant = w.tenant and r.run_id = w.run_id and r.epoch = w.epoch
     and r.last_flush = %(flush)s
on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
do update set channel = excluded.channel, type = excluded.type, blob = excluded.blob;

-- :name open_approvals
-- The questions of this flush's runs; one already asked stays as it is. All of a run happens at one instant, which
-- the flush left in `progress_at`.
-- locks: approval
insert into control.approval (tenant, run_id, interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest,
                              schema, opened_at, expires_at, due_at, gate)
select r.tenant, r.run_id, a.interrupt_id, a.checkpoint_id, a.node, a.kind, a.title, a.packet,
       sha256(convert_to(a.packet, 'UTF8')), a.schema::jsonb, r.progress_at, r.progress_at + a.expires_in,
       r.progress_at + a.due_in, a.gate::jsonb
from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(interrupt)s::text[], %(checkpoint)s::text[],
            %(node)s::text[], %(kind)s::text[], %(title)s::text[], %(packet)s::text[], %(schema)s::text[],
            %(expires_in)s::interval[], %(due_in)s::interval[], %(gate)s::text[])
    as a(tenant, run_id, epoch, interrupt_id, checkpoint_id, node, kind, title, packet, schema, expires_in, due_in,
         gate)
join control.run r on r.tenant = a.tenant and r.run_id = a.run_id and r.epoch = a.epoch
     and r.last_flush = %(flush)s
on conflict (tenant, run_id, interrupt_id) do nothing;

-- :name open_waits
-- The timers and signals that this flush's runs are suspended on. A timer given as a span starts now.
-- locks: wait
insert into control.wait (tenant, run_id, interrupt_id, checkpoint_id, node, kind, due_at, signal, opened_at)
select r.tenant, r.run_id, t.interrupt_id, t.checkpoint_id, t.node, t.kind, coalesce(t.due_at, r.progress_at + t.span),
       t.signal, r.progress_at
from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(interrupt)s::text[], %(checkpoint)s::text[],
            %(node)s::text[], %(kind)s::text[], %(due_at)s::timestamptz[], %(span)s::interval[], %(signal)s::text[])
    as t(tenant, run_id, epoch, interrupt_id, checkpoint_id, node, kind, due_at, span, signal)
join control.run r on r.tenant = t.tenant and r.run_id = t.run_id and r.epoch = t.epoch
     and r.last_flush = %(flush)s
on conflict (tenant, run_id, interrupt_id) do nothing;

-- :name write_effects
-- An effect's intent, or what came of it, for this flush's runs.
-- locks: effect
insert into control.effect (tenant, run_id, effect_key, name, kind, state, calls, epoch, outcome_type, outcome, how,
                            error, began_at, ended_at)
select r.tenant, r.run_id, x.key, x.name, x.kind, x.state, x.calls, r.epoch, x.outcome_type, x.outcome, x.how, x.error,
       r.progress_at, case when x.state <> 'began' then r.progress_at end
from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(key)s::text[], %(name)s::text[],
            %(kind)s::text[], %(state)s::text[], %(calls)s::int[], %(outcome_type)s::text[], %(outcome)s::bytea[],
            %(how)s::text[], %(error)s::text[])
    as x(tenant, run_id, epoch, key, name, kind, state, calls, outcome_type, outcome, how, error)
join control.run r on r.tenant = x.tenant and r.run_id = x.run_id and r.epoch = x.epoch
     and r.last_flush = %(flush)s
on conflict (tenant, run_id, effect_key) do update
set state = excluded.state, calls = greatest(effect.calls, excluded.calls), epoch = excluded.epoch,
    outcome_type = excluded.outcome_type, outcome = excluded.outcome, how = excluded.how, error = excluded.error,
    began_at = case when excluded.state = 'began' then excluded.began_at else effect.began_at end,
    ended_at = excluded.ended_at;

-- :name settle
-- Answers and fired waits that the graph has taken in: no longer pending on the head.
-- locks: approval, wait
with taken as (
    select r.tenant, r.run_id, r.head_checkpoint_id, t.pending
    from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(pending)s::text[])
        as t(tenant, run_id, epoch, pending)
    join control.run r on r.tenant = t.tenant and r.run_id = t.run_id and r.epoch = t.epoch
         and r.last_flush = %(flush)s
), approvals as (
    update control.approval a set delivered_at = control.clock() from taken t
    where a.tenant = t.tenant and a.run_id = t.run_id and a.decision is not null and a.delivered_at is null
      and a.interrupt_id <> all (string_to_array(t.pending, ','))
)
update control.wait w set delivered_at = control.clock() from taken t
where w.tenant = t.tenant and w.run_id = t.run_id and w.fired_at is not null and w.delivered_at is null
  and w.interrupt_id <> all (string_to_array(t.pending, ','));

-- :name write_spends
-- What this flush's runs have spent, and the sums of the hour. What is recorded already stays as it is. One process
-- that writes a tenant's sums waits for another, so they come last.
-- locks: spend, then spend_hour in the order of its key
with spent as (
    insert into control.spend (tenant, run_id, spend_key, usd, tokens, at)
    select r.tenant, r.run_id, s.key, s.usd, s.tokens, r.progress_at
    from unnest(%(tenant)s::text[], %(run)s::uuid[], %(epoch)s::bigint[], %(key)s::text[], %(usd)s::numeric[],
                %(tokens)s::bigint[])
        as s(tenant, run_id, epoch, key, usd, tokens)
    join control.run r on r.tenant = s.tenant and r.run_id = s.run_id and r.epoch = s.epoch
         and r.last_flush = %(flush)s
    on conflict do nothing
    returning tenant, usd, tokens, date_trunc('hour', at, 'UTC') as hour
)
insert into control.spend_hour as sums (tenant, hour, usd, tokens)
select tenant, hour, sum(usd), sum(tokens) from spent group by tenant, hour order by tenant, hour
on conflict (tenant, hour) do update set usd = sums.usd + excluded.usd, tokens = sums.tokens + excluded.tokens;

-- :name halt_overdrawn
-- Tell every worker to look at its runs where a budget of this flush's tenants is used up.
-- locks: none
select pg_notify('control_orders', '') from unnest(%(tenants)s::text[]) as t(tenant) where control.overdrawn(t.tenant);

-- :name tenants
-- Whose rows the following flushes of this session may touch.
-- locks: none
select set_config('control.tenants', %(tenants)s, false);

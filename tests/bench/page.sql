-- 20 tenants, the largest with more than a quarter of all runs, the smallest with one in seventy; ninety days of runs
-- in the order they came, most of them long ended. Parameters: how many.
with shares as (
    select array_agg(share order by k) as shares
    from (select k, sum(1.0 / k) over (order by k) / sum(1.0 / k) over () as share from generate_series(1, 20) k) s
), drawn as (
    select i, gen_random_uuid() as run_id, random() as chance,
           'tenant-' || to_char(width_bucket(random(), shares::float[]) + 1, 'FM00') as tenant,
           now() - interval '90 days' * (1 - i::float / %(runs)s) as at
    from generate_series(1, %(runs)s) i, shares
), threads as (
    insert into control.thread (tenant, thread_id, created_at)
    select least(tenant, 'tenant-20'), run_id::text, at from drawn
    returning tenant, thread_id
), run as (
    select d.*, least(d.tenant, 'tenant-20') as owner,
           case when chance < 0.90 then 'succeeded' when chance < 0.93 then 'failed' when chance < 0.95 then 'cancelled'
                when chance < 0.96 then 'partial' when chance < 0.962 then 'abandoned'
                when chance < 0.982 then 'waiting'
                when chance < 0.993 then 'awaiting_approval' when chance < 0.997 then 'awaiting_input'
                when chance < 0.999 then 'paused' when chance < 0.9995 then 'queued' else 'running' end as word
    from drawn d
)
insert into control.run (tenant, run_id, thread_id, workflow, graph_digest, created_at, created_by, epoch,
                         worker_id, claimed_at, progress_at, execution, head_checkpoint_id, head_step, parts,
                         parts_total, outcome, outcome_at, ledger_seq, ledger_hash, version, status, since, due_at,
                         closed_at)
select owner, run_id, run_id::text, 'workflow-' || i %% 7, 'workflow:0123456789abcdef',
       at, 'person-' || i %% 50, 1, case word when 'running' then gen_random_uuid() end,
       case word when 'running' then now() end,
       case word when 'queued' then null else greatest(at, now() - random() * interval '4 minutes') end,
       case when chance < 0.962 then 'finished' else 'waiting' end, gen_random_uuid()::text, 3,
       array['one', 'two', 'three'], 3,
       'completed', at, 8, sha256(convert_to(i::text, 'UTF8')), 3, word, at,
       case word when 'waiting' then now() + interval '10 days' * (random() - 0.01) end,
       case when chance < 0.962 then at + interval '1 minute' end
from run

-- Who lives, by one rule. When the server was started says nothing of that: it may recover for long before anybody gets
-- in, it frees every lock and goes on under its old start time when one of its processes crashes, and a standby that is
-- promoted was started long ago. So the first who finds a server remembers when that was.

-- Unlogged, since a crash must empty it, as it frees the locks; a promoted standby begins without any row as well.
create unlogged table control.server_seen (
    start_at timestamptz primary key,
    seen_at  timestamptz not null
);
grant select, insert on control.server_seen to control_command, control_flush, control_claim;

-- When this server was first seen: now, where nobody has. Whoever comes while another is just saying so waits for nobody.
create function control.server_seen_at() returns timestamptz language plpgsql as $$
declare seen timestamptz;
begin
    select s.seen_at into seen from control.server_seen s where s.start_at = pg_postmaster_start_time();
    if found then
        return seen;
    end if;
    seen := clock_timestamp();
    if not current_setting('transaction_read_only')::bool and pg_try_advisory_xact_lock(control.lock_class()) then
        insert into control.server_seen values (pg_postmaster_start_time(), seen) on conflict do nothing;
    end if;
    return seen;
end $$;

-- server_seen_at: when the server on which it last showed its sign of life was first seen.
alter table control.worker drop column server_start_at, add column server_seen_at timestamptz;

-- Why the holder of a claim counts as gone; null while it lives. It lives while it holds its session lock and its lease.
-- A server that has gone down took every lock with it and let no lease be renewed, so whoever has not been back since
-- lives on until `grace` has passed from when the server was first seen again.
create function control.gone(holder uuid, grace interval) returns text language plpgsql as $$
begin
    return (
        select case
            when w.ended_at is not null then 'it left'
            when w.holds and w.lease_until > clock_timestamp() then null
            when w.server_seen_at is distinct from server.seen_at and clock_timestamp() <= server.seen_at + grace
                 then null
            when w.holds then 'its lease ran out'
            else 'its session is gone' end
        from (select control.server_seen_at() as seen_at) server
        left join (select *, lock_id in (select lock_id from control.living) as holds from control.worker) w
            on w.worker_id = holder
    );
end $$;

-- Walls around LangGraph's own tables: a row belongs to the tenant whose thread it is on; in the store, to the tenant
-- that its namespace begins with. A table that LangGraph makes later (its store's) is walled off by the next migration
-- run, which calls `build_walls` again; `control db eject` calls `remove_walls`.
--
-- Not forced on the tables' owner. That is no role of ours, but whoever migrates and may run plain LangGraph beside us:
-- forced, its stock saver would read nothing and be refused every write. A thread that nobody owns is seen by none of
-- our roles; it becomes the tenant's that first works on it.
create function control.walled_tables() returns table (walled regclass, command text, flush text, commanded text, flushed text)
    language sql stable as $$
    select to_regclass(name), command, flush, owned, owned
    from (values ('checkpoints', 'select, insert', 'select, insert, update, delete'),
                 ('checkpoint_blobs', 'select', 'select, insert, update, delete'),
                 ('checkpoint_writes', 'select', 'select, insert, update, delete')) as t(name, command, flush),
         -- The policy of control.thread says which of its rows the role may see.
         format('exists (select from control.thread t where t.thread_id = %I.thread_id)', name) as owned
    where to_regclass(name) is not null
    union all
    select to_regclass(name), 'select', 'select, insert, update, delete',
           'split_part(prefix, ''.'', 1) = (select control.commanded_tenant())',
           'split_part(prefix, ''.'', 1) = any ((select control.flushed_tenants())::text[])'
    from unnest(array['store', 'store_vectors']) as name
    where to_regclass(name) is not null
$$;

create function control.build_walls() returns void language plpgsql as $$
declare t record;
begin
    for t in select * from control.walled_tables() w
             where not exists (select from pg_policy where polrelid = w.walled and polname = 'control_flush') loop
        execute format('alter table %s enable row level security', t.walled);
        execute format('create policy control_command on %s to control_command using (%s)', t.walled, t.commanded);
        execute format('create policy control_flush on %s to control_flush using (%s)', t.walled, t.flushed);
        execute format('grant %s on %s to control_command', t.command, t.walled);
        execute format('grant %s on %s to control_flush', t.flush, t.walled);
    end loop;
end $$;

create function control.remove_walls() returns text[] language plpgsql as $$
declare t record; freed text[] := '{}';
begin
    for t in select * from control.walled_tables() loop
        execute format('drop policy if exists control_command on %s', t.walled);
        execute format('drop policy if exists control_flush on %s', t.walled);
        execute format('alter table %s disable row level security', t.walled);
        execute format('revoke all on %s from control_command, control_flush, control_claim', t.walled);
        freed := freed || t.walled::text;
    end loop;
    return freed;
end $$;

revoke execute on function control.walled_tables(), control.build_walls(), control.remove_walls() from public;

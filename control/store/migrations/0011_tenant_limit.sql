-- What a tenant may use, and what its runs have spent.

-- Every set of limits that a tenant has had; the newest version is in force. Starts are counted in any minute, hour or
-- day, dollars and tokens in hours, days or months of UTC.
create table control.tenant_limit (
    tenant       control.tenant_id not null,
    version      int not null check (version > 0),
    runs_at_once int check (runs_at_once >= 0),
    starts       int check (starts >= 0),
    starts_per   text check (starts_per in ('minute', 'hour', 'day')),
    usd          numeric(18, 6) check (usd >= 0),
    usd_per      text check (usd_per in ('hour', 'day', 'month')),
    tokens       bigint check (tokens >= 0),
    tokens_per   text check (tokens_per in ('hour', 'day', 'month')),
    set_at       timestamptz not null,
    set_by       text not null,
    primary key (tenant, version),
    check ((starts is null) = (starts_per is null)),
    check ((usd is null) = (usd_per is null)),
    check ((tokens is null) = (tokens_per is null))
);

-- One row for each thing that cost something; recorded once under its key, however often its node is executed.
create table control.spend (
    tenant    control.tenant_id not null,
    run_id    uuid not null,
    spend_key text not null,
    usd       numeric(18, 9) not null check (usd >= 0),
    tokens    bigint not null check (tokens >= 0),
    at        timestamptz not null,
    primary key (tenant, run_id, spend_key),
    foreign key (tenant, run_id) references control.run (tenant, run_id) on delete cascade
);

-- The sums of these rows by the hour of UTC, written with them: budgets are asked at every start and every claim.
create table control.spend_hour (
    tenant control.tenant_id not null,
    hour   timestamptz not null,
    usd    numeric(24, 9) not null,
    tokens numeric(24) not null,
    primary key (tenant, hour)
);

do $$
declare walled text;
begin
    foreach walled in array array['tenant_limit', 'spend', 'spend_hour'] loop
        execute format('alter table control.%I enable row level security', walled);
        execute format('alter table control.%I force row level security', walled);
        execute format('create policy command on control.%I to control_command
            using (tenant = (select control.commanded_tenant()))', walled);
        execute format('create policy flush on control.%I to control_flush
            using (tenant = any ((select control.flushed_tenants())::text[]))', walled);
    end loop;
end $$;
create policy claim on control.tenant_limit for select to control_claim using (true);
create policy claim on control.spend_hour for select to control_claim using (true);

grant select, insert on control.tenant_limit to control_command;
grant select on control.tenant_limit to control_flush, control_claim;
grant select on control.spend, control.spend_hour to control_command;
grant select, insert on control.spend to control_flush;
grant select, insert, update on control.spend_hour to control_flush;
grant select on control.spend_hour to control_claim;

-- Whether a budget is used up. `core.limits` says the same in words.
create function control.overdrawn(of_tenant text) returns boolean
language plpgsql stable parallel safe as $$
begin
    return exists (
        select from (select * from control.tenant_limit where tenant = of_tenant order by version desc limit 1) l,
                    control.clock() as now
        where l.usd <= (select coalesce(sum(h.usd), 0) from control.spend_hour h
                        where h.tenant = of_tenant and h.hour >= date_trunc(l.usd_per, now, 'UTC'))
           or l.tokens <= (select coalesce(sum(h.tokens), 0) from control.spend_hour h
                           where h.tenant = of_tenant and h.hour >= date_trunc(l.tokens_per, now, 'UTC')));
end $$;

-- How many runs more each of these tenants may have at work, where that is limited. Who asks keeps the others who claim
-- for the same limited tenants waiting until its transaction ends, so that two of them never fill the same room. It is
-- volatile: it counts what they have committed meanwhile, which the statement that calls it does not see.
create function control.rooms(of_tenants text[]) returns table (tenant text, room bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare limited text;
begin
    if not exists (select from control.tenant_limit) then
        return;
    end if;
    for limited in
        select distinct l.tenant::text from control.tenant_limit l
        where l.tenant = any (of_tenants) and l.runs_at_once is not null order by 1
    loop
        perform pg_advisory_xact_lock(hashtextextended('control.limit ' || limited, 0));
    end loop;
    return query
        select l.tenant::text,
               case when control.overdrawn(l.tenant) then 0
                    when l.runs_at_once is not null then greatest(l.runs_at_once - coalesce(busy.n, 0), 0) end
        from (select distinct on (t.tenant) t.* from control.tenant_limit t where t.tenant = any (of_tenants)
              order by t.tenant, t.version desc) l
        left join (select r.tenant, count(*) as n from control.run r where r.worker_id is not null group by r.tenant)
            busy on busy.tenant = l.tenant
        where l.runs_at_once is not null or l.usd is not null or l.tokens is not null;
end $$;

-- What binds a decision to what was seen: facts that it rests on, whether they still stand, and the one effect it is for.

-- value: JSON text, spelled in the one way that a packet spells it.
create table control.fact (
    tenant control.tenant_id not null,
    name   text not null check (name <> ''),
    value  text not null check (value is json),
    set_at timestamptz not null,
    set_by text not null,
    primary key (tenant, name)
);
alter table control.fact enable row level security;
alter table control.fact force row level security;
create policy command on control.fact to control_command using (tenant = (select control.commanded_tenant()));
create policy flush on control.fact for select to control_flush
    using (tenant = any ((select control.flushed_tenants())::text[]));
grant select, insert, update on control.fact to control_command;
grant select on control.fact to control_flush;

-- stale: what had moved when somebody answered, or when the effect was to begin; never taken back. consumed_by: the key
-- of the effect that the approval was spent on.
alter table control.approval
    add column stale       jsonb,
    add column consumed_by text,
    add column consumed_at timestamptz,
    drop constraint approval_decision_check,
    add constraint approval_decision_check
        check (decision in ('approved', 'rejected', 'answered', 'superseded', 'stale')),
    add constraint approval_consumed_check check (consumed_by is null or decision = 'approved');

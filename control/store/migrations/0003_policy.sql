-- Policies: every text that a tenant has had in force, in order. The last one is in force.

create table control.policy (
    tenant     control.tenant_id not null,
    version    int not null check (version > 0),
    digest     text not null,
    text       text not null,
    note       text,
    applied_at timestamptz not null,
    applied_by text not null,
    primary key (tenant, version),
    check (digest = encode(sha256(convert_to(text, 'UTF8')), 'hex'))
);
alter table control.policy enable row level security;
alter table control.policy force row level security;
create policy command on control.policy to control_command using (tenant = (select control.commanded_tenant()));
create policy flush on control.policy for select to control_flush
    using (tenant = any ((select control.flushed_tenants())::text[]));

-- Nobody changes a version, or takes one away.
grant select, insert on control.policy to control_command;
grant select on control.policy to control_flush;

-- Keys that stand for a principal. `digest` is the SHA-256 of the whole key; the key itself is nowhere. Rows stay: they
-- are the record of who made a key and who revoked it.
create table control.api_key (
    tenant     control.tenant_id not null,
    key_id     text not null unique check (key_id ~ '^[0-9a-f]{16}$'),
    digest     bytea not null check (length(digest) = 32),
    name       text not null check (name <> '' and length(name) <= 200),
    kind       text not null check (kind in ('person', 'service', 'agent')),
    roles      text[] not null check (roles <> '{}'),
    scopes     text[],
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > created_at),
    used_on    date,
    revoked_by text,
    revoked_at timestamptz,
    primary key (tenant, key_id),
    check ((revoked_by is null) = (revoked_at is null))
);

-- The digest of the key that this transaction was sent: whoever has the key may read its row, in whichever tenant.
create function control.presented_digest() returns bytea language sql stable parallel safe
    as $$ select decode(current_setting('control.presented', true), 'hex') $$;

alter table control.api_key enable row level security;
alter table control.api_key force row level security;
create policy command on control.api_key to control_command
    using (tenant = (select control.commanded_tenant()));
create policy presented on control.api_key for select to control_command
    using (digest = (select control.presented_digest()));

-- What a key stands for never changes, and a revoked one stays revoked.
grant select, insert on control.api_key to control_command;
grant update (used_on, revoked_by, revoked_at) on control.api_key to control_command;
create function control.keep_revoked() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'CTL02', message = 'a revoked key stays revoked', hint = 'Make another one.';
end $$;
create trigger api_key_stays_revoked before update on control.api_key for each row
    when (old.revoked_at is not null and (new.revoked_at, new.revoked_by) is distinct from (old.revoked_at, old.revoked_by))
    execute function control.keep_revoked();
